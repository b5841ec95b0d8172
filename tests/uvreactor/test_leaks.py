"""Test that connections that are cut at random leave nothing in memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SECONDS = 3


def test_nothing_is_left_of_connections_cut_at_random() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command: list[str | Path] = [sys.executable, Path(__file__).with_name("soak.py"), str(SECONDS)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    before, after = found["before"], found["after"]
    assert found["logged"] == []
    assert done.stderr == ""
    assert found["counts"]["made"] > 100 and found["counts"]["opened"] > 100
    # Caches may grow once, but less than the number of connections.
    assert after.pop("objects") - before.pop("objects") < 1000
    assert after == before
