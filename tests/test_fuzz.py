"""Check that each target of ``fuzz/`` still runs, on random bytes."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from .wire.peer import compiled_codec

FUZZ = Path(__file__).parents[1] / "fuzz"


@pytest.mark.skipif(not FUZZ.exists(), reason="THE FUZZ TARGETS ARE NOT TESTED: they are not here")
@pytest.mark.parametrize("target", ["session.py", "handshake.py"])
def test_each_target_can_run(target: str, tmp_path: Path) -> None:
    if target == "session.py":
        # This target compares both codecs, so it needs the compiled one.
        compiled_codec()
    octets = random.Random(target)
    for number in range(200):
        (tmp_path / str(number)).write_bytes(octets.randbytes(octets.randrange(300)))
    done = subprocess.run(
        [sys.executable, str(FUZZ / target), "replay", str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout) == (0, "200 replayed\n"), done.stderr
