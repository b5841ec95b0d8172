"""A flood of empty messages to a room of readers, while a witness on another path asks for echoes.

``python -m benchmarks.attacks.flood --target /room --readers 500`` runs the full attack.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from twisted.internet import reactor

ROOT = Path(__file__).parents[2]
SHARE = 0.1
"""Seconds of CPU time within which the server answers the witness. The whole flood takes it 0.7 s."""

if sys.platform != "linux":
    pytestmark = pytest.mark.skip(reason="FLOODS ARE NOT TESTED: CPU time is read from /proc")


def test_a_witness_is_answered_and_no_reader_is_closed() -> None:
    flood = ["--target", "/room", "--readers", "60", "--messages", "2000", "--idle", "20", f"--most-cpu={SHARE}"]
    if hasattr(reactor, "is_monotonic"):
        flood.append("--uvloop")
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.attacks.flood", *flood, "--patience", "90"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=110,
    )
    assert ran.returncode == 0, ran.stdout
    assert "has not handled" not in ran.stdout
    assert "readers that the server closed: 0 of 60" in ran.stdout
    answers = re.search(r"\((\d+) answers\)", ran.stdout)
    assert answers is not None and int(answers[1]) > 5
