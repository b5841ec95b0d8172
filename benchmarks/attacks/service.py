"""The service under attack, as a process."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def service_running(uvloop: bool, *arguments: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Run the service with these arguments on a free port; yield the port and the process, and kill it at the end."""
    reactor = ["--reactor=beastws-uvloop"] if uvloop else []
    listen = "--listen=tcp:0:interface=127.0.0.1:backlog=4096"
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "log"
        command = [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", *reactor, "beastws", listen]
        with log.open("wb") as output:
            process = subprocess.Popen([*command, *arguments], cwd=directory, stdout=output, stderr=output)
        try:
            deadline = time.monotonic() + 20
            while (found := re.search(r"ws://127\.0\.0\.1:(\d+)", log.read_text())) is None:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the service does not listen:\n{log.read_text()}")
                time.sleep(0.05)
            yield int(found[1]), process
        finally:
            process.kill()
            process.wait()
