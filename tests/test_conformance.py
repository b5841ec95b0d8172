"""Run the cases of the Autobahn suite against the echo examples, and judge the report of each case.

kosoku runs the cases. It patches the standard library, so it has a process of its own. The groups 9, 12 and 13 move
gigabytes: without ``--all-cases``, only a few of their cases run.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from twisted_beastws.wire.codec import PURE_VARIABLE

from .support.waiting import await_start

EXAMPLES = Path(__file__).parents[1] / "examples"
KOSOKU = Path(sys.executable).with_name("kosoku")
RUN_PATIENCE = 120.0  # seconds for the cases of a short run
LONG_PATIENCE = 5400.0  # seconds for all of the groups 9, 12 and 13, most of them spent in zlib
STOP_PATIENCE = 30.0  # seconds from SIGTERM, or the last case, to the end
PARALLEL = 8  # cases at a time
SHOWN = 10  # failed cases to print in full

GROUPS = {
    "1": 16,  # framing
    "2": 11,  # pings and pongs
    "3": 7,  # reserved bits
    "4": 10,  # opcodes
    "5": 20,  # fragmentation
    "6": 145,  # UTF-8
    "7": 37,  # closing
    "10": 1,  # automatic fragmentation
}
LONG_GROUPS = {
    "9.1": 6, "9.2": 6, "9.3": 9, "9.4": 9, "9.5": 6, "9.6": 6, "9.7": 6, "9.8": 6,  # large messages, and many messages
    **{f"12.{part}": 18 for part in range(1, 6)},  # compression: five kinds of data
    **{f"13.{part}": 18 for part in range(1, 8)},  # compression: seven ways to negotiate
}  # fmt: skip
# One case of each group: 1000 messages of 256 bytes (12.*.3) or 16 (13.*.1). In 12.1.11 the messages are fragmented.
SAMPLE = {
    **{f"{part}.{3 if part.startswith('12.') else 1}": 1 for part in LONG_GROUPS},
    "12.1.11": 1,
}
# In these groups a client passes only if it offers client_no_context_takeover.
BY_ITSELF = ("13.2.", "13.5.", "13.6.")

# The cases that may be NON-STRICT, each with its reason. A listed case that turns out strict fails.
NON_STRICT: dict[str, str] = {}

Report = dict[str, Any]


@dataclass(frozen=True)
class Selection:
    """Cases for one run of kosoku: patterns, each with the number of cases that it matches."""

    cases: dict[str, int]
    parallel: int
    patience: float

    @property
    def arguments(self) -> list[str]:
        return [word for pattern in self.cases for word in ("--include", pattern)]

    def only(self, wanted: Callable[[str], bool]) -> Selection:
        return Selection({case: n for case, n in self.cases.items() if wanted(case)}, self.parallel, self.patience)


SHORT = {f"{group}.*": count for group, count in GROUPS.items()}
SAMPLED = [Selection({**SHORT, **SAMPLE}, PARALLEL, RUN_PATIENCE)]
# Run one long case at a time: each has a time limit, and all cases share one process as their peer.
ALL = [
    Selection(SHORT, PARALLEL, RUN_PATIENCE),
    Selection({f"{group}.*": count for group, count in LONG_GROUPS.items()}, 1, LONG_PATIENCE),
]


@dataclass(frozen=True)
class Run:
    """The results of a run: kosoku's report of each case, in order, and the output of the peer under test."""

    reports: list[Report]
    output: str


# The verdict


def complaint(report: Report) -> str | None:
    """Describe the faults of a case; None if it passed."""
    behavior, close, reason = report["behavior"], report["behaviorClose"], NON_STRICT.get(report["id"])
    faults = []
    if behavior == "NON-STRICT" and reason is None:
        faults.append("it is NON-STRICT, and NON_STRICT has no reason for it")
    elif behavior not in ("OK", "NON-STRICT", "INFORMATIONAL"):
        faults.append(f"it is {behavior}: {report['result']}")
    if behavior != "NON-STRICT" and reason is not None:
        faults.append(f"it is {behavior}, but NON_STRICT lists it: {reason}")
    if close not in ("OK", "INFORMATIONAL"):
        faults.append(f"its closing is {close}: {report['resultClose']}")
    elif not closed_with_a_code(report):
        faults.append("its closing lacks a close frame with an accepted code")
    return f"case {report['id']}: {'; '.join(faults)}" if faults else None


def closed_with_a_code(report: Report) -> bool:
    """Check for a complete closing handshake with an accepted code; the suite also passes a peer that disconnects."""
    return bool(report["wasClean"] and report["remoteCloseCode"] in report["expectedClose"]["closeCode"])


def facts(report: Report) -> str:
    """Describe a case in words and frames, readable without the suite."""
    close = (report["remoteCloseCode"], report["remoteCloseReason"])
    lines = {
        "sends": plain(report["description"]),
        "expects": plain(report["expectation"]),
        "accepts": report["expected"],
        "received": report["received"],
        "accepts close": report["expectedClose"],
        "received close": f"{close}, clean: {report['wasClean']}, begun by the suite: {report['closedByMe']}",
    }
    frames = [frame(row) for row in report["wirelog"] if row[0] in ("TF", "RF")]
    return "\n".join([*(f"    {name + ':':<15} {str(value)[:1000]}" for name, value in lines.items()), *frames[-8:]])


def plain(html: str) -> str:
    return " ".join(re.sub("<[^>]*>", " ", html).split())


def frame(row: list[Any]) -> str:
    """Format a frame of kosoku's log: direction, opcode (`+` if not final), reserved bits, size and payload."""
    kind, (size, payload), opcode, final, reserved = row[:5]
    way = "to" if kind == "TF" else "from"
    return f"    {way} peer: {opcode:#x}{'' if final else '+'} {reserved} {size} {payload!r}"


# The runs


def server_role(selection: Selection, directory: Path, environment: dict[str, str]) -> Run:
    """Run kosoku as the client of the echo example."""
    echo = [sys.executable, str(EXAMPLES / "echo.py"), "--listen", "tcp:0:interface=127.0.0.1"]
    with listening(echo, directory / "echo.log", r"^listening on .*\bport=(\d+)", environment) as (_, port):
        options = ["--parallelism", str(selection.parallel), "--outdir", str(directory)]
        command = [str(KOSOKU), f"ws://127.0.0.1:{port}", *selection.arguments, *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=selection.patience)
    return Run(reports_in(directory, done.stdout + done.stderr), (directory / "echo.log").read_text())


def client_role(selection: Selection, directory: Path, environment: dict[str, str]) -> Run:
    """Run kosoku as the server of the echo client example."""
    parts = {
        "together": selection.only(lambda case: not case.startswith(BY_ITSELF)),
        "by itself": selection.only(lambda case: case.startswith(BY_ITSELF)),
    }
    runs = []
    for name, part in parts.items():
        if part.cases:
            (directory / name).mkdir()
            options = ["--no-context-takeover"] if name == "by itself" else []
            runs.append(run_client(part, directory / name, environment, *options))
    return Run([report for run in runs for report in run.reports], "".join(run.output for run in runs))


def run_client(selection: Selection, directory: Path, environment: dict[str, str], *options: str) -> Run:
    arguments = ["--mode", "fuzzingserver", "127.0.0.1:0", *selection.arguments, "--outdir", str(directory)]
    log = directory / "kosoku.log"
    with listening([str(KOSOKU), *arguments], log, r"listening on \S+:(\d+)$", environment) as (kosoku, port):
        url = ["--url", f"ws://127.0.0.1:{port}", "--parallel", str(selection.parallel)]
        client = subprocess.run(
            [sys.executable, str(EXAMPLES / "echo_client.py"), *url, *options],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=selection.patience, env=environment,
        )  # fmt: skip
        # The exit status alone does not show success: it is also 0 after a signal to stop.
        assert client.returncode == 0 and "echoed in" in client.stdout, client.stdout
        kosoku.wait(STOP_PATIENCE)
    return Run(reports_in(directory, log.read_text()), client.stdout)


def reports_in(directory: Path, output: str) -> list[Report]:
    index = directory / "index.json"
    assert index.exists(), f"kosoku left no reports:\n{output}"
    names = [case["reportfile"] for agent in json.loads(index.read_text()).values() for case in agent.values()]
    return sorted((json.loads((directory / name).read_text()) for name in names), key=lambda report: report["case"])


@contextmanager
def listening(
    command: list[str], log: Path, listens: str, environment: dict[str, str]
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run a server in a process that prints to ``log``; yield the process and the port on which it listens."""
    with log.open("wb") as output:
        server = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    try:
        yield server, port_of(server, log, listens)
    finally:
        server.terminate()
        try:
            server.wait(STOP_PATIENCE)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        print(log.read_text())


def port_of(server: subprocess.Popen[bytes], log: Path, listens: str) -> int:
    def found() -> re.Match[str] | None:
        return re.search(listens, log.read_text(), re.MULTILINE)

    return int(await_start(server, "the server listens", found, log.read_text)[1])


@pytest.fixture(params=["compiled", "pure"])
def environment(request: pytest.FixtureRequest) -> dict[str, str]:
    """Return environment variables that select the codec of the peer under test."""
    if request.param == "compiled" and find_spec("twisted_beastws.wire._reader") is None:
        pytest.skip("THE COMPILED CODEC IS NOT TESTED: apt-get install gcc libc6-dev python3-dev, repeat pip install")
    # The examples must import the same packages as these tests.
    path = os.pathsep.join(filter(None, sys.path))
    return {**os.environ, "PYTHONPATH": path, PURE_VARIABLE: str(int(request.param == "pure"))}


@pytest.mark.parametrize("role", [server_role, client_role])
def test_the_conformance_suite_is_passed(
    role: Callable[[Selection, Path, dict[str, str]], Run],
    environment: dict[str, str],
    tmp_path: Path,
    pytestconfig: pytest.Config,
) -> None:
    for number, selection in enumerate(ALL if pytestconfig.getoption("--all-cases") else SAMPLED):
        directory = tmp_path / str(number)
        directory.mkdir()
        judge(role(selection, directory, environment), selection)


def judge(run: Run, selection: Selection) -> None:
    found = [(text, facts(report)) for report in run.reports if (text := complaint(report))]
    if found:
        told = ["\n".join(case) for case in found[:SHOWN]] + [text for text, _ in found[SHOWN:]]
        pytest.fail("\n".join([f"{len(found)} cases of {len(run.reports)}:", *told]), pytrace=False)
    ran = Counter(pattern_of(report["id"], selection) for report in run.reports)
    assert ran == selection.cases
    assert not re.search(r"Traceback|#(error|critical)\b", run.output), "the peer's log has errors"


def pattern_of(case: str, selection: Selection) -> str:
    """Return the pattern of the selection that matches a case."""
    return case if case in selection.cases else next(p for p in selection.cases if case.startswith(p.rstrip("*")))
