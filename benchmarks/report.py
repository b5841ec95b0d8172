"""Write the table of figures in Markdown."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path

from benchmarks.measure import Figure
from benchmarks.peers import SERVERS, Server
from benchmarks.workloads import Workload

Results = dict[tuple[str, str], list[Figure]]
"""The figures of every round, by the workload's name and the server's."""


def best(results: Results, workload: Workload, server: Server) -> Figure | None:
    """Return the figure of the cheapest round, or None if nothing was measured."""
    return min(results.get((workload.name, server.name), ()), key=lambda figure: figure.cost, default=None)


def advantage(results: Results, workload: Workload) -> float | None:
    """Return how many times cheaper this project is than the cheaper of the two other choices on Twisted."""
    ours, autobahn, web = (best(results, workload, named(name)) for name in ("ours", "autobahn", "twisted.web"))
    costs = [figure.cost for figure in (autobahn, web) if figure is not None]
    return min(costs) / ours.cost if ours is not None and costs else None


def named(name: str) -> Server:
    """Return the server with this name."""
    return next(server for server in SERVERS if server.name == name)


def number(value: float) -> str:
    """Format a number with at least three significant digits, and no exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(results: Results, workloads: Sequence[Workload], servers: Sequence[Server]) -> str:
    """Return the table of costs per unit: a row for each workload, a column for each server."""
    rows = [["", *(server.title for server in servers), "times cheaper than the better of autobahn and twisted.web"]]
    for workload in workloads:
        figures = [best(results, workload, server) for server in servers]
        costs = ["" if figure is None else number(figure.cost) for figure in figures]
        times = advantage(results, workload)
        rows.append([f"{workload.title}; {workload.unit}", *costs, "" if times is None else number(times)])
    return _markdown(rows)


def details(results: Results, workloads: Sequence[Workload], servers: Sequence[Server]) -> str:
    """Return the details of each figure: rate, round trips, the server's load, the spread of the rounds."""
    rows = [["workload", "server", "cost", "spread", "a second", "p50 µs", "p99 µs", "core busy", "load busy"]]
    for workload in workloads:
        for server in servers:
            figure = best(results, workload, server)
            if figure is None:
                continue
            costs = [each.cost for each in results[workload.name, server.name]]
            rows.append(
                [
                    workload.name,
                    server.title,
                    number(figure.cost),
                    f"{max(costs) / min(costs) - 1:.0%}",
                    *("" if value is None else number(value) for value in (figure.rate, figure.p50, figure.p99)),
                    *("" if value is None else f"{value:.0%}" for value in (figure.busy, figure.load_busy)),
                ]
            )
    return _markdown(rows)


def bottlenecks(results: Results) -> list[str]:
    """Return the workload and server of each figure whose load generator was at its limit while the server waited."""
    found = []
    for (workload, server), figures in results.items():
        figure = min(figures, key=lambda each: each.cost)
        if figure.busy is not None and figure.load_busy is not None and figure.busy < 0.9 < figure.load_busy:
            found.append(f"{workload}, {server}: load {figure.load_busy:.0%}, server {figure.busy:.0%}")
    return found


def _markdown(rows: Iterable[Sequence[str]]) -> str:
    head, *body = ("| " + " | ".join(row) + " |" for row in rows)
    columns = head.count("|") - 1
    return "\n".join([head, "|---" + "|---:" * (columns - 1) + "|", *body])


def circumstances(versions: dict[str, str], rounds: int, seconds: float, others: float) -> str:
    """Return the place, time and versions of the measurement; ``others`` is the load average before it."""
    day = datetime.now(timezone.utc).date().isoformat()
    having = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"Measured {day} on {_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}; "
        f"the best of {rounds} rounds of {seconds:g} s. The load average before was {others:.1f}. {having}."
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return " ".join(line.partition(":")[2].split())
    return platform.machine()
