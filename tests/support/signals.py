"""Wait until a program handles a signal itself."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

from .waiting import await_that


def await_handler(process: subprocess.Popen[bytes], number: signal.Signals = signal.SIGTERM) -> None:
    """Wait until the program has a handler for a signal, or has ended.

    A program of Twisted listens, and logs so, a moment before its reactor runs; a signal in between kills it. Only
    Linux tells which signals a program handles; elsewhere this returns at once.
    """
    status = Path(f"/proc/{process.pid}/status")

    def handles() -> bool:
        found = re.search(r"^SigCgt:\s+(\w+)$", status.read_text(), re.MULTILINE) if status.exists() else None
        return found is None or process.poll() is not None or bool(int(found[1], 16) >> (number - 1) & 1)

    await_that(f"{number.name} is handled", handles)
