"""Draw the charts from the table: ``python -m benchmarks.charts``; needs matplotlib (the extra ``dev``).

It reads ``results/table.md`` and writes a chart for each row below ``results/charts``, a page with all of them,
``results/charts.md``, and ``results/summary.svg`` for the README. The charts are 340 px wide, so that a phone shows
them without scaling, and have no background: the colours have enough contrast on white and on black.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from benchmarks.workloads import WORKLOADS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results"
WIDTH = 340
POINTS = 72
"""Points an inch, so that a point of the chart is a CSS pixel."""

# INK has a contrast of 4.5 to white and to black (WCAG AA for text), the other colours have one of 4.
INK = "#767676"
OURS = "#2f7de0"
OTHERS = "#9aa1a9"
BASELINE = "#c3b091"

OUR_NAME = "twisted_beastws"
BARE = "bare Twisted protocol"

SUMMARY = ("Ping-pong of 64 bytes", "TLS", "1 MiB", "64 bytes to 1000 connections;", "Memory of an idle connection")
"""Words in the titles of the rows that the README shows, at most four. Rows that the table lacks are left out."""
HEAD = """# Charts

`python -m benchmarks.charts` draws a chart for each row of [the table](table.md). Less is better.
"""

SUMMARY_LABELS = {
    OUR_NAME: OUR_NAME,
    f"{OUR_NAME} on its uvloop reactor": "  with uvloop",
    "autobahn": "autobahn",
    "twisted.web.websocket": "twisted.web",
    "websockets + uvloop": "websockets",
    "aiohttp + uvloop": "aiohttp",
    "picows + uvloop": "picows",
}


@dataclass(frozen=True)
class Row:
    """A row of the table: the workload's name, its title, the unit, and the cost for each library that can do it."""

    name: str
    title: str
    unit: str
    costs: dict[str, str]

    @property
    def summary(self) -> str:
        """Every figure in words, for tests and for readers that cannot see the chart."""
        figures = ", ".join(f"{name} {cost}" for name, cost in self.costs.items())
        return f"{self.title}; {self.unit}; less is better: {figures}"


def read_table(text: str) -> list[Row]:
    """Return the rows of the first table in ``table.md``."""
    table = [line for line in text.partition("## Details")[0].splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    names = cells[0][1:-1]
    workloads = {workload.title: workload.name for workload in WORKLOADS}
    rows: list[Row] = []
    for first, *costs, _advantage in cells[2:]:
        title, _, unit = first.rpartition("; ")
        workload = workloads.get(title) or "-".join(re.findall(r"[a-z0-9]+", title.lower()))
        if title.startswith("the same"):
            # A chart stands alone: name the row that it varies.
            title = f"{rows[-1].title.partition(',')[0].partition(' with')[0]}{title.removeprefix('the same')}"
        costs_by_name = {name: cost for name, cost in zip(names, costs, strict=True) if cost}
        rows.append(Row(workload, f"{title[0].upper()}{title[1:]}", unit, costs_by_name))
    return rows


def colour_of(name: str) -> str:
    """Return the colour of a bar: one for all variants of this project, one for others, one for the bare protocol."""
    return OURS if name.startswith(OUR_NAME) else BASELINE if name == BARE else OTHERS


def draw_row(row: Row, path: Path) -> None:
    """Draw a chart with a labelled bar for each library, the cheapest first."""
    step, bar, head = 34, 10, 20
    title = wrap(row.title, 38)
    height = head * len(title) + 22 + step * len(row.costs)
    figure, axes = _canvas(height)
    y = 14
    for line in title:
        axes.text(0, y, line, fontsize=14, fontweight="bold", color=INK)
        y += head
    axes.text(0, y, f"{row.unit}, less is better", fontsize=12, color=INK)
    y += 24
    longest = max(map(float, row.costs.values()))
    for name, cost in sorted(row.costs.items(), key=lambda item: float(item[1])):
        weight = "bold" if name.startswith(OUR_NAME) else "normal"
        axes.text(0, y, name, fontsize=12, fontweight=weight, color=INK)
        _bar(axes, 0, y + 5, float(cost) / longest * (WIDTH - 56), bar, name, cost)
        y += step
    _save(figure, path, [row])


def draw_summary(rows: Sequence[Row], path: Path) -> None:
    """Draw the rows that matter most, with short labels beside the bars."""
    step, bar, label = 19, 13, 116
    height = sum(36 + step * len(row.costs.keys() & SUMMARY_LABELS.keys()) for row in rows) + 24
    figure, axes = _canvas(height)
    axes.text(0, 12, "Cost for the server; less is better", fontsize=12, color=INK)
    y = 40
    for row in rows:
        axes.text(0, y, row.title.partition(",")[0], fontsize=13, fontweight="bold", color=INK)
        axes.text(WIDTH, y, row.unit, fontsize=12, ha="right", color=INK)
        y += 21
        costs = {name: row.costs[name] for name in SUMMARY_LABELS if name in row.costs}
        longest = max(map(float, costs.values()))
        for name, cost in costs.items():
            ours = name.startswith(OUR_NAME)
            weight = "bold" if ours else "normal"
            axes.text(0, y, SUMMARY_LABELS[name], fontsize=12, fontweight=weight, color=INK)
            _bar(axes, label, y - 10, float(cost) / longest * (WIDTH - label - 50), bar, name, cost)
            y += step
        y += 15
    _save(figure, path, rows)


def _canvas(height: int) -> tuple[Figure, Axes]:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    # Keep text as text. DejaVu Sans is wider than most readers' fonts, so their text fits.
    pyplot.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": OUR_NAME, "font.family": ["DejaVu Sans"]})
    figure = pyplot.figure(figsize=(WIDTH / POINTS, height / POINTS), dpi=POINTS)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(height, 0)
    axes.axis("off")
    return figure, axes


def _bar(axes: Axes, x: float, y: float, length: float, height: float, name: str, cost: str) -> None:
    axes.barh(y + height / 2, max(length, 2), height, left=x, color=colour_of(name))
    weight = "bold" if name.startswith(OUR_NAME) else "normal"
    axes.text(x + max(length, 2) + 5, y + height / 2, cost, fontsize=12, fontweight=weight, va="center", color=INK)


def _save(figure: Figure, path: Path, rows: Sequence[Row]) -> None:
    from matplotlib import pyplot

    metadata = {"Title": "CPU time or memory, less is better", "Description": "\n".join(row.summary for row in rows)}
    clipped = [text.get_text() for text in figure.axes[0].texts if text.get_window_extent().x1 > WIDTH]
    if clipped:
        raise ValueError(f"wider than the chart: {clipped}")
    drawing = StringIO()
    figure.savefig(drawing, format="svg", transparent=True, metadata={**metadata, "Date": None})
    pyplot.close(figure)
    # A pt is 4/3 of a CSS pixel, and readers have other fonts.
    svg = re.sub(r'(width|height)="([\d.]+)pt"', r'\1="\2"', drawing.getvalue())
    path.write_text(svg.replace("'DejaVu Sans'", "system-ui, sans-serif"), encoding="utf-8")


def summary_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the rows for the README, in the order of `SUMMARY`."""
    found = []
    for wanted in SUMMARY:
        match = next((row for row in rows if wanted in f"{row.title};" and row not in found), None)
        found += [match] if match is not None else []
    return found[:4]


def draw(results: Path = RESULTS) -> list[Path]:
    """Draw all charts of the table in a directory, and return their paths."""
    rows = read_table((results / "table.md").read_text(encoding="utf-8"))
    charts = results / "charts"
    charts.mkdir(exist_ok=True)
    for old in charts.glob("*.svg"):
        old.unlink()
    for row in rows:
        draw_row(row, charts / f"{row.name}.svg")
    draw_summary(summary_rows(rows), results / "summary.svg")
    images = [f"![{row.summary}](charts/{row.name}.svg)" for row in rows]
    (results / "charts.md").write_text("\n".join([HEAD, *images, ""]), encoding="utf-8")
    return [*(charts / f"{row.name}.svg" for row in rows), results / "summary.svg", results / "charts.md"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.charts", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where table.md is; default: %(default)s")
    for written in draw(parser.parse_args().results):
        print(written)
