"""Count instructions: ``python -m benchmarks.instructions``, in the repository's root.

Valgrind's callgrind runs each server, and counts its instructions in user space for a unit of work. The count does not
depend on the machine's other work, and differs little between two runs. It does not include the kernel's instructions,
and a cache miss costs nothing.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks import environment
from benchmarks.measure import LOADS, variables_of
from benchmarks.peers import SERVERS, Server, with_before
from benchmarks.process import ServerProcess, UnavailableError, raise_descriptors
from benchmarks.workloads import WORKLOADS, Workload

COUNTED = [each for each in WORKLOADS if each.kind in LOADS]
WARM_UP = 4.0
"""Seconds before the count, in which the interpreter adapts its code to the work."""


def main() -> None:
    options = _parser().parse_args()
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is missing: apt-get install valgrind")
    raise_descriptors()
    python = environment.prepare(options.environment)
    servers = [each for each in SERVERS if each.name in options.servers]
    if options.before is not None:
        servers = with_before(servers, options.before)
    print("| workload | " + " | ".join(server.name for server in servers) + " |")
    print("|---|" + "---:|" * len(servers))
    for workload in COUNTED:
        if workload.name in options.only:
            row = (_cell(server.python or python, server, workload, options.seconds) for server in servers)
            print(f"| {workload.name} | " + " | ".join(row) + " |", flush=True)


def _cell(python: Path, server: Server, workload: Workload, seconds: float) -> str:
    try:
        return f"{count(python, server, workload, seconds):,.0f}"
    except UnavailableError:
        return ""


def count(python: Path, server: Server, workload: Workload, seconds: float) -> float:
    """Return the instructions of the server for a unit of the workload.

    Raises:
        UnavailableError: The server does not support the workload.
    """
    variables = variables_of(server, workload) | {"BENCHMARK_COUNTED": "1"}
    core = max(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "callgrind"
        valgrind = ["valgrind", "-q", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"]
        with ServerProcess(python, replace(server, variables=variables), workload.mode, core, valgrind) as process:
            load = LOADS[workload.kind](process.port, workload)
            try:
                load.drive(WARM_UP)
                _control(process, "--instr=on")
                done = load.drive(seconds)
                _control(process, "--instr=off")
            finally:
                load.close()
            _control(process, "--dump")
            return _total(Path(directory)) / done


def _control(process: ServerProcess, command: str) -> None:
    subprocess.run(["callgrind_control", command, str(process.pid)], check=True, capture_output=True)


def _total(directory: Path) -> int:
    return sum(
        int(total)
        for path in directory.glob("callgrind.*")
        for total in re.findall(r"^totals: (\d+)$", path.read_text(), re.MULTILINE)
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    names = [each.name for each in COUNTED]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="WORKLOAD", help=", ".join(names))
    parser.add_argument(
        "--servers",
        nargs="+",
        choices=[each.name for each in SERVERS],
        default=["ours", "ours-uvloop"],
        metavar="SERVER",
        help="default: ours ours-uvloop",
    )
    parser.add_argument("--before", type=Path, metavar="PYTHON", help="as for python -m benchmarks")
    parser.add_argument("--seconds", type=float, default=8.0, help="counted, for each figure; default: %(default)g")
    parser.add_argument(
        "--environment", type=Path, default=environment.ROOT / "build" / "benchmarks", help="default: %(default)s"
    )
    return parser


if __name__ == "__main__":
    main()
