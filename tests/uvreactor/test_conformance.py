"""Runs of Twisted's own tests (reactors, TCP, TLS, endpoints, processes and more) on the uvloop reactor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("twisted_tests.py")
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

EXCEPTIONS = {
    # The test expects Nagle's algorithm to be on, Twisted's default; this reactor turns it off, as asyncio does.
    "twisted.test.test_tcp.LoopbackTests.test_tcpNoDelay",
    # The test checks the private buffer of Twisted's own transport.
    "twisted.test.test_tcp.HalfCloseTests.testCloseWriteCloser",
    # The test replaces the OpenSSL connection of Twisted's TLS with one that fails in `send`.
    "twisted.protocols.test.test_tls.TLSMemoryBIOTests.test_errorWriting",
}
"""The tests that pass on Twisted's asyncio reactor but not on ours, each with the reason."""


class Run:
    """A process that runs the tests of some modules on a reactor."""

    def __init__(self, reactor: str, modules: list[str], directory: Path, **variables: str) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **variables}
        command: list[str | Path] = [sys.executable, PROGRAM, reactor, directory / reactor, *modules]
        # The output goes to files, not pipes: a child process that a test leaves running would keep pipes open.
        self.out, self.err = directory / f"{reactor}.out", directory / f"{reactor}.err"
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(command, stdout=out, stderr=err, cwd=directory, env=environment)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()

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


@pytest.mark.parametrize("modules", [REACTORS, INSTALLED], ids=["reactors", "installed"])
def test_what_passes_on_twisteds_asyncio_reactor_passes_here(modules: list[str], tmp_path: Path) -> None:
    with Run("asyncio", modules, tmp_path) as theirs, Run("uvloop", modules, tmp_path) as ours:
        expected, ends = theirs.ends(), ours.ends()
    passing = {test for test, end in expected.items() if end == "passed"}
    # Without this check, the test would also pass if no module were found.
    assert len(passing) > 400
    failing = {test for test in passing if ends.get(test) != "passed"}
    assert failing == EXCEPTIONS & passing, ours.err.read_text()[-20000:]


def test_the_tests_of_tls_pass_on_twisteds_own_path_too(tmp_path: Path) -> None:
    with Run("uvloop", TLS, tmp_path, TWISTED_BEASTWS_TLS="twisted") as ours:
        ends = ours.ends()
    assert len(ends) > 300
    assert {test for test, end in ends.items() if end == "failed"} == set(), ours.err.read_text()[-20000:]
