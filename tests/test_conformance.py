"""The Autobahn suite's own cases, run by kosoku against the echo example; its reports are judged here, case by case.

kosoku runs as a process of its own: in this one it would patch the standard library for the cases' sake.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ECHO = Path(__file__).parents[1] / "examples" / "echo.py"
KOSOKU = Path(sys.executable).with_name("kosoku")
START_PATIENCE = 20.0  # seconds until the server says that it listens
RUN_PATIENCE = 120.0  # seconds for all cases: a good server needs 3, one that never echoes 30
STOP_PATIENCE = 10.0  # seconds from SIGTERM to the end
PARALLEL = 8  # cases at a time
SHOWN = 10  # cases told in full where many fail

EXCLUDED = ("9.*", "12.*", "13.*")
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

# A case that may be NON-STRICT, and why. One that stands here and is strict after all fails.
NON_STRICT: dict[str, str] = {}

Report = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """What a run left: kosoku's report of each case, in their order, and all that the peer under test printed."""

    reports: list[Report]
    output: str


# The verdict


def complaint(report: Report) -> str | None:
    """What is wrong with a case, or None."""
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
    """Whether the close handshake was completed with a right code; the suite itself passes a peer that just leaves."""
    return bool(report["wasClean"] and report["remoteCloseCode"] in report["expectedClose"]["closeCode"])


def facts(report: Report) -> str:
    """A case in words and frames, readable without the suite at hand."""
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
    """A frame of kosoku's log: the way, opcode (`+` where more is to follow), reserved bits, size and payload."""
    kind, (size, payload), opcode, final, reserved = row[:5]
    way = "to" if kind == "TF" else "from"
    return f"    {way} peer: {opcode:#x}{'' if final else '+'} {reserved} {size} {payload!r}"


# The runs


def kosoku(directory: Path, *arguments: str) -> list[Report]:
    """Run kosoku and return its reports; its exit status is left aside."""
    exclude = [word for pattern in EXCLUDED for word in ("--exclude", pattern)]
    command = [str(KOSOKU), *arguments, *exclude, "--outdir", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_PATIENCE)
    index = directory / "index.json"
    assert index.exists(), f"kosoku ended with {done.returncode} and left no reports:\n{done.stdout}{done.stderr}"
    names = [case["reportfile"] for agent in json.loads(index.read_text()).values() for case in agent.values()]
    return sorted((json.loads((directory / name).read_text()) for name in names), key=lambda report: report["case"])


def fuzz_server(directory: Path) -> Run:
    log = directory / "echo.log"
    with echo_server(log) as port:
        reports = kosoku(directory / "reports", f"ws://127.0.0.1:{port}", "--parallelism", str(PARALLEL))
    return Run(reports, log.read_text())


@contextmanager
def echo_server(log: Path) -> Iterator[int]:
    """The echo example in a process of its own, which prints to `log`; yields the port that it was given."""
    command = [sys.executable, str(ECHO), "--listen", "tcp:0:interface=127.0.0.1"]
    with log.open("wb") as output:
        server = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield port_of(server, log)
    finally:
        server.terminate()
        try:
            server.wait(STOP_PATIENCE)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        print(log.read_text())


def port_of(server: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + START_PATIENCE
    while server.poll() is None and time.monotonic() < deadline:
        if listening := re.search(r"^listening on .*\bport=(\d+)", log.read_text(), re.MULTILINE):
            return int(listening[1])
        time.sleep(0.02)
    pytest.fail(f"the echo server did not come up (exit status: {server.poll()})", pytrace=False)


@pytest.mark.parametrize("fuzz", [pytest.param(fuzz_server, id="server")])
def test_conformance(fuzz: Callable[[Path], Run], tmp_path: Path) -> None:
    run = fuzz(tmp_path)
    found = [(text, facts(report)) for report in run.reports if (text := complaint(report))]
    if found:
        told = ["\n".join(case) for case in found[:SHOWN]] + [text for text, _ in found[SHOWN:]]
        pytest.fail("\n".join([f"{len(found)} cases of {len(run.reports)}:", *told]), pytrace=False)
    assert Counter(report["id"].partition(".")[0] for report in run.reports) == GROUPS
    assert not re.search(r"Traceback|#(error|critical)\b", run.output), "the peer's log has errors"
