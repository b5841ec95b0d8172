"""The chart: a panel a workload, a bar a server, as an SVG that reads on light and on dark grounds alike."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from benchmarks.peers import Server
from benchmarks.report import Results, best, number
from benchmarks.workloads import Workload

WIDTH = 860
LABELS = 250
VALUES = 60
BAR = 16
STEP = 22
TITLE = 30
GAP = 18

# Each of them has a contrast of about 4 to white and to black.
INK = "#737b84"
OURS = "#2f7de0"
OTHERS = "#8a9199"


def chart(results: Results, workloads: Sequence[Workload], servers: Sequence[Server]) -> str:
    """The whole drawing; less is better."""
    parts: list[str] = []
    top = TITLE
    for workload in workloads:
        top = _panel(parts, top, results, workload, servers)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}" '
            f'role="img" font-family="system-ui, sans-serif" font-size="13" fill="{INK}">',
            "<title>What a server's work costs: less is better</title>",
            f'<text x="{WIDTH}" y="16" text-anchor="end" font-style="italic">less is better</text>',
            *parts,
            "</svg>",
            "",
        ]
    )


def _panel(parts: list[str], top: int, results: Results, workload: Workload, servers: Sequence[Server]) -> int:
    bars = [(server, figure.cost) for server in servers if (figure := best(results, workload, server))]
    if not bars:
        return top
    longest = max(cost for _, cost in bars)
    parts.append(
        f'<text y="{top + 14}" font-weight="600">{escape(workload.title)}'
        f'<tspan font-weight="400"> · {escape(workload.unit)}</tspan></text>'
    )
    top += TITLE - 6
    for server, cost in bars:
        length = max(1.5, cost / longest * (WIDTH - LABELS - VALUES))
        ours = server.program == "ours.py"
        colour, weight = (OURS, ' font-weight="600"') if ours else (OTHERS, "")
        parts.append(
            f'<text x="{LABELS - 8}" y="{top + 12}" text-anchor="end"{weight}>{escape(server.title)}</text>'
            f'<rect x="{LABELS}" y="{top}" width="{length:.1f}" height="{BAR}" rx="2" fill="{colour}"/>'
            f'<text x="{LABELS + length + 6:.1f}" y="{top + 12}"{weight}>{number(cost)}</text>'
        )
        top += STEP
    return top + GAP
