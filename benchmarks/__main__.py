"""Measure: ``python -m benchmarks``, in the repository's root.

Makes an environment of its own, runs every server under every workload, and writes a table and charts.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from benchmarks import charts, environment, report
from benchmarks.measure import MeasureError, Pace, measure
from benchmarks.peers import SERVERS, with_before
from benchmarks.process import UnavailableError, raise_descriptors
from benchmarks.workloads import WORKLOADS

RESULTS = Path(__file__).parent / "results"
FULL = Pace(warm_up=0.2, seconds=0.5, rounds=3)
QUICK = Pace(warm_up=0.1, seconds=0.25, rounds=1)


def main() -> None:
    options = _parser().parse_args()
    pace = QUICK if options.quick else FULL
    pace = Pace(options.warm_up or pace.warm_up, options.seconds or pace.seconds, options.rounds or pace.rounds)
    workloads = [each for each in WORKLOADS if not options.only or each.name in options.only]
    servers = [each for each in SERVERS if not options.servers or each.name in options.servers]
    if options.before is not None:
        servers = with_before(servers, options.before)
    raise_descriptors()
    python = environment.prepare(options.environment)
    versions = environment.versions(python)
    others = os.getloadavg()[2]
    *load_cores, server_core = sorted(os.sched_getaffinity(0))
    if not load_cores:
        sys.exit("two cores are needed: one for the server, and one for the load")
    os.sched_setaffinity(0, load_cores)

    results: report.Results = {}
    failed = False
    for workload in workloads:
        # Memory is the same in each round.
        for _ in range(1 if workload.kind == "idle" else pace.rounds):
            for server in servers:
                try:
                    figure = measure(server.python or python, server, workload, server_core, pace)
                except UnavailableError:
                    continue
                except MeasureError as error:
                    print(error, file=sys.stderr)
                    failed = True
                    continue
                results.setdefault((workload.name, server.name), []).append(figure)
        print(report.details(results, [workload], servers), end="\n\n", flush=True)

    circumstances = report.circumstances(versions, pace.rounds, pace.seconds, others)
    text = f"{circumstances}\n\n{report.table(results, workloads, servers)}\n"
    print(text)
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        details = report.details(results, workloads, servers)
        (options.output / "table.md").write_text(f"{text}\n## Details\n\n{details}\n")
        try:
            charts.draw(options.output)
        except ImportError:
            print("no charts: pip install matplotlib, then run python -m benchmarks.charts", file=sys.stderr)
    for line in report.bottlenecks(results):
        print(f"the load generator was the bottleneck: {line}")
    if failed:
        sys.exit("not every server was measured under every workload")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: for a first look, not for comparison")
    parser.add_argument("--only", nargs="+", choices=[each.name for each in WORKLOADS], metavar="WORKLOAD")
    parser.add_argument("--servers", nargs="+", choices=[each.name for each in SERVERS], metavar="SERVER")
    parser.add_argument(
        "--before",
        type=Path,
        metavar="PYTHON",
        help="the interpreter of an environment with an older build of this project, which gets columns of its own",
    )
    parser.add_argument("--rounds", type=int, help=f"default: {FULL.rounds}")
    parser.add_argument("--seconds", type=float, help=f"measured in each round; default: {FULL.seconds:g}")
    parser.add_argument("--warm-up", type=float, help=f"seconds before that; default: {FULL.warm_up:g}")
    parser.add_argument(
        "--environment", type=Path, default=environment.ROOT / "build" / "benchmarks", help="default: %(default)s"
    )
    parser.add_argument(
        "--output", type=Path, nargs="?", const=RESULTS, help="write table.md and the charts there; default: %(const)s"
    )
    return parser


if __name__ == "__main__":
    main()
