"""Runs of Twisted's own tests in processes, in the background of the other tests: they take minutes.

The suite's tests run one after another in one process, so a machine with two cores has one left.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("twisted_tests.py")
# Taken before the first test, because a test may have changed it when a run begins.
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
STANDSTILL = 300.0
"""A run counts as hanging if no test ends for this many seconds; trial itself allows a test 120 s."""

REACTORS = [
    f"twisted.internet.test.test_{name}"
    for name in (
        *("core", "time", "threads", "process", "fdset", "posixbase", "stdio"),
        *("tcp", "tls", "unix", "udp", "socket", "endpoints"),
    )
]
INSTALLED = [
    *(
        f"twisted.test.test_{name}"
        for name in (
            *("internet", "threads", "process", "stdio", "tcp", "unix", "udp", "policies"),
            *("ssl", "sslverify", "sni", "amp", "ftp", "loopback", "protocols"),
        )
    ),
    "twisted.protocols.test.test_tls",
    "twisted.spread.test.test_pb",
    *(f"twisted.mail.test.test_{name}" for name in ("mail", "pop3client", "smtp")),
    *(f"twisted.web.test.test_{name}" for name in ("cgi", "distrib", "webclient", "wsgi", "xmlrpc")),
    "twisted.words.test.test_service",
]

TLS = [
    *(f"twisted.internet.test.test_{name}" for name in ("tls", "endpoints")),
    *(f"twisted.test.test_{name}" for name in ("ssl", "sslverify", "sni", "amp")),
    "twisted.protocols.test.test_tls",
]


class Run:
    """A process that runs the tests of some modules on a reactor."""

    def __init__(self, reactor: str, modules: list[str], directory: Path, **variables: str) -> None:
        environment = {**ENVIRONMENT, **variables}
        command: list[str | Path] = [sys.executable, PROGRAM, reactor, directory / reactor, *modules]
        # The output goes to files, not pipes: a child process that a test leaves running would keep pipes open.
        self.out, self.err = directory / f"{reactor}.out", directory / f"{reactor}.err"
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(command, stdout=out, stderr=err, cwd=directory, env=environment)

    def ends(self) -> dict[str, str]:
        """Return each test's outcome by its id."""
        self._await_end()
        assert self.process.returncode == 0, self.err.read_text()[-4000:]
        ends: dict[str, str] = json.loads(self.out.read_text().splitlines()[-1])
        return ends

    def _await_end(self) -> None:
        # Even on a slow machine each test that ends adds to the output, so an unchanged size means a hang.
        size = -1
        while size != (size := self.out.stat().st_size):
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(STANDSTILL)
                return
        pytest.fail(f"nothing ended for {STANDSTILL:g} s:\n{self.out.read_text()[-400:]}", pytrace=False)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


class Runs:
    """All runs. Each begins when an earlier one has ended.

    Args:
        at_once: How many run at the same time.
        wait: Returns when the first ones may begin.
    """

    def __init__(self, at_once: int, wait: Callable[[], None]) -> None:
        self._wait = wait
        self._directory = tempfile.TemporaryDirectory()
        self._running: set[Run] = set()
        self._stopped = False
        self._threads = ThreadPoolExecutor(at_once)
        self.installed = [self._start(reactor, INSTALLED) for reactor in ("asyncio", "uvloop")]
        self.reactors = [self._start(reactor, REACTORS) for reactor in ("asyncio", "uvloop")]
        self.tls = self._start("uvloop", TLS, TWISTED_BEASTWS_TLS="twisted")

    def stop(self) -> None:
        self._stopped = True
        for run in tuple(self._running):
            run.stop()
        self._threads.shutdown(cancel_futures=True)
        self._directory.cleanup()

    def _start(self, reactor: str, modules: list[str], **variables: str) -> Future[tuple[dict[str, str], str]]:
        return self._threads.submit(self._run, reactor, modules, **variables)

    def _run(self, reactor: str, modules: list[str], **variables: str) -> tuple[dict[str, str], str]:
        """Return each test's outcome by its id, and the log of the errors."""
        self._wait()
        directory = Path(tempfile.mkdtemp(dir=self._directory.name))
        run = Run(reactor, modules, directory, **variables)
        self._running.add(run)
        try:
            if self._stopped:
                run.stop()
            return run.ends(), run.err.read_text()[-20000:]
        finally:
            run.stop()
            self._running.discard(run)
