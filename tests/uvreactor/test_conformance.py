"""Runs of Twisted's own tests (reactors, TCP, TLS, endpoints, processes and more) on the uvloop reactor."""

from __future__ import annotations

import pytest

from twisted_beastws.tls import records

from .runs import Runs

EXCEPTIONS = {
    # The test expects Nagle's algorithm to be on, Twisted's default; this reactor turns it off, as asyncio does.
    "twisted.test.test_tcp.LoopbackTests.test_tcpNoDelay",
    # The test checks the private buffer of Twisted's own transport.
    "twisted.test.test_tcp.HalfCloseTests.testCloseWriteCloser",
}
"""The tests that pass on Twisted's asyncio reactor but not on ours, each with the reason."""
# The test gives Twisted's TLS an OpenSSL connection that fails in `send`, which compiled code does not call.
ON_COMPILED_TLS = {"twisted.protocols.test.test_tls.TLSMemoryBIOTests.test_errorWriting"}


@pytest.mark.parametrize("kind", ["installed", "reactors"])
def test_tests_that_pass_on_twisteds_asyncio_reactor_also_pass_here(runs: Runs, kind: str) -> None:
    (expected, _), (ends, errors) = (run.result() for run in getattr(runs, kind))
    passing = {test for test, end in expected.items() if end == "passed"}
    # Without this check, the test would also pass if no module were found.
    assert len(passing) > 400
    failing = {test for test in passing if ends.get(test) != "passed"}
    exceptions = EXCEPTIONS | (ON_COMPILED_TLS if records.unavailable() is None else set())
    assert failing == exceptions & passing, errors


def test_the_tests_of_tls_pass_on_twisteds_own_path_too(runs: Runs) -> None:
    ends, errors = runs.tls.result()
    assert len(ends) > 300
    assert {test for test, end in ends.items() if end == "failed"} == set(), errors
