"""Run Twisted's own tests on a reactor in DIRECTORY, and print each test's outcome as JSON.

Usage: ``python twisted_tests.py uvloop|asyncio DIRECTORY MODULE...``. The reactor is `twisted_beastws.uvreactor`, or
its base, Twisted's asyncio reactor. Twisted's tests of reactors build new ones; all other tests use the installed one.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from functools import cache
from io import StringIO
from typing import Any

import hypothesis
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.asyncioreactor import install as install_asyncio
from twisted.trial.reporter import Reporter
from twisted.trial.runner import TestLoader, TestSuite, TrialRunner


def iterate(self: Any, timeout: float) -> None:
    """Turn the reactor like Twisted's `iterate`, but wait only 1 ms, not 10 ms, for events after every test."""
    self._asyncioEventloop.call_later(timeout + 0.001, self._asyncioEventloop.stop)
    self._asyncioEventloop.run_forever()


def reactor_under_test(test: Any) -> Any:
    """Return a reactor on a new event loop, for one test."""
    loop = new_loop()
    asyncio.set_event_loop(loop)

    def close() -> None:
        loop.close()
        asyncio.set_event_loop(installed)

    test.addCleanup(close)
    return kind(loop)


def connect_and_attach(self: Any, transport: Any) -> None:
    """Connect Twisted's TLS and attach the compiled path to it, in memory too, as the reactor's connections do."""
    connect(self, transport)
    attach(self)


class Recorder(Reporter):
    """Records each test's outcome."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(StringIO(), *arguments[1:], **options)  # type: ignore[no-untyped-call]
        self.ends: dict[str, str] = {}

    def _note(self, test: Any, end: str, error: Any = None) -> None:
        self.ends[test.id()] = end
        print(test.id(), end, flush=True)
        if error is not None:
            sys.stderr.write(f"{test.id()}\n{getattr(error, 'getTraceback', lambda: error)()}\n")

    def addSuccess(self, test: Any) -> None:
        super().addSuccess(test)  # type: ignore[no-untyped-call]
        if test.id() not in self.ends:
            self._note(test, "passed")

    def addFailure(self, test: Any, fail: Any) -> None:
        super().addFailure(test, fail)  # type: ignore[no-untyped-call]
        self._note(test, "failed", fail)

    def addError(self, test: Any, error: Any) -> None:
        super().addError(test, error)  # type: ignore[no-untyped-call]
        self._note(test, "failed", error)

    def addSkip(self, test: Any, reason: str) -> None:
        super().addSkip(test, reason)  # type: ignore[no-untyped-call]
        self._note(test, "skipped")


def main(directory: str, modules: list[str]) -> None:
    from twisted.internet.test.reactormixins import ReactorBuilder
    from twisted.test import test_sslverify

    # The ids of tests contain this function's name, so that both reactors have the same ids.
    sys.modules["reactors"] = sys.modules["__main__"]
    # Twisted's tests have no other way to select a reactor.
    ReactorBuilder._reactors = ["reactors.reactor_under_test"]
    # Twisted's TLS tests spent most of their time on the same two certificates, which each test made again.
    test_sslverify.makeCertificate = cache(test_sslverify.makeCertificate)
    AsyncioSelectorReactor.iterate = iterate  # type: ignore[method-assign]
    # Twisted's property tests must not fail because the machine is busy.
    hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
    hypothesis.settings.load_profile("patient")
    # Import this after loading the profile. The test never ends on the compiled path; trial would wait for 120 s.
    from twisted.protocols.test.test_tls import TLSMemoryBIOTests

    if kind is not AsyncioSelectorReactor and os.environ.get("TWISTED_BEASTWS_TLS") != "twisted":
        TLSMemoryBIOTests.test_errorWriting.timeout = 0.5  # type: ignore[attr-defined]
    loader = TestLoader()
    suite = TestSuite([loader.loadByName(module) for module in modules])
    result: Any = TrialRunner(Recorder, workingDirectory=directory).run(suite)
    print(json.dumps(result.ends))


if __name__ == "__main__":
    if sys.argv[1] == "uvloop":
        import uvloop
        from twisted.protocols.tls import TLSMemoryBIOProtocol

        from twisted_beastws.tls.records import attach
        from twisted_beastws.uvreactor import install
        from twisted_beastws.uvreactor.reactor import UvloopReactor

        new_loop: Any = uvloop.new_event_loop
        kind: Any = UvloopReactor
        installed: Any = uvloop.new_event_loop()
        install(installed)
        connect = TLSMemoryBIOProtocol.makeConnection
        TLSMemoryBIOProtocol.makeConnection = connect_and_attach  # type: ignore[method-assign]
    else:
        new_loop, kind = asyncio.new_event_loop, AsyncioSelectorReactor
        installed = asyncio.new_event_loop()
        install_asyncio(installed)
    main(sys.argv[2], sys.argv[3:])
