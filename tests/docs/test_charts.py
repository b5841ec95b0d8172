"""The charts that are in the repository show the figures of the table."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

# Last, so that the package of the checkout does not hide the installed one.
sys.path.append(str(Path(__file__).parents[2]))

from benchmarks import charts
from benchmarks.workloads import WORKLOADS

ROWS = charts.read_table((charts.RESULTS / "table.md").read_text(encoding="utf-8"))
SVG = "{http://www.w3.org/2000/svg}"
DRAWINGS = [(charts.RESULTS / "charts" / f"{row.name}.svg", [row]) for row in ROWS]
DRAWINGS.append((charts.RESULTS / "summary.svg", charts.summary_rows(ROWS)))
EACH = pytest.mark.parametrize(("path", "rows"), DRAWINGS, ids=[path.stem for path, _ in DRAWINGS])


@EACH
def test_a_chart_shows_the_current_figures(path: Any, rows: Any) -> None:
    drawing = ElementTree.parse(path).getroot()
    texts = [text.text for text in drawing.iter(f"{SVG}text")]
    description = next(drawing.iter("{http://purl.org/dc/elements/1.1/}description")).text
    assert description == "\n".join(row.summary for row in rows)
    for row in rows:
        assert {row.costs[name] for name in row.costs if path.stem != "summary"} <= set(texts)


@EACH
def test_a_chart_fits_a_phone(path: Any, rows: Any) -> None:
    assert ElementTree.parse(path).getroot().get("width") == "340"


def test_one_colour_is_used_for_all_our_variants() -> None:
    ours = [name for row in ROWS for name in row.costs if name.startswith("twisted_beastws")]
    assert len(set(ours)) == 3 and {charts.colour_of(name) for name in ours} == {charts.OURS}
    others = {charts.colour_of(name) for row in ROWS for name in row.costs if name not in ours}
    assert charts.OURS not in others


def test_the_page_of_charts_lists_each_row_once() -> None:
    page = (charts.RESULTS / "charts.md").read_text(encoding="utf-8")
    assert re.findall(r"\(charts/(.*)\.svg\)", page) == [row.name for row in ROWS]


def test_the_summary_has_three_or_four_rows() -> None:
    assert 3 <= len(charts.summary_rows(ROWS)) <= 4


def test_the_summary_shows_tls_and_large_messages_where_the_table_has_them() -> None:
    titles = [workload.title for workload in WORKLOADS]
    rows = [f"| {title}; µs a message | 1.5 | 3.0 | 2.00 |" for title in titles]
    table = "\n".join(["|  | twisted_beastws | autobahn | times cheaper |", "|---|---:|---:|---:|", *rows])
    shown = [row.name for row in charts.summary_rows(charts.read_table(table))]
    assert shown == ["ping-pong", "tls-ping-pong", "1m", "fan-out"]
    assert len({row.name for row in charts.read_table(table)}) == len(WORKLOADS)
