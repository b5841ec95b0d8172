"""Fixtures of the whole suite (connections in memory, the log), and the rule that CI skips no test."""

from __future__ import annotations

import gc
import os
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from hypothesis import HealthCheck, settings
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import ILogObserver, LogLevel, globalLogBeginner, globalLogPublisher
from twisted.python.failure import Failure

from .support.background import BACKGROUND, Background
from .support.frames import masked
from .support.handshakes import upgrade_request
from .support.ids import readable_id

# Tests expect the bytes that zlib compresses to; tests of ISA-L select it themselves.
os.environ["TWISTED_BEASTWS_ZLIB"] = "1"

# A busy machine is slow: an example may take any time, and so may the making of its data.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

WHOLE_SUITE = "11 minutes on two cores"

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--all-cases", action="store_true", help="run all 517 cases of the conformance suite, about an hour"
    )
    parser.addoption(
        "--histories", type=int, default=300, help="random histories of a simulated Redis that are checked; 300"
    )
    parser.addoption("--uvloop", action="store_true", help="run the suite on twisted_beastws.uvreactor")


def pytest_make_parametrize_id(val: object) -> str | None:
    return readable_id(val)


def heed_signals() -> None:
    """Restore the signals that a shell's ``&`` and ``nohup`` ignore: programs that tests start would inherit that."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    heed_signals()
    if config.getoption("uvloop"):
        from twisted_beastws.uvreactor import install

        install()
        # pytest-twisted accepts an installed reactor if it is of the kind that the option names.
        config.option.reactor = "asyncio"
        # Tests start programs with a PYTHONPATH from sys.path or from the environment, so extend both.
        started = str(Path(__file__).parent / "uvreactor" / "started")
        sys.path.insert(0, started)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (started, os.environ.get("PYTHONPATH"))))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin the long jobs that the selected tests await."""
    background = session.config.stash[BACKGROUND] = Background()
    if not session.config.option.collectonly:
        background.begin(session.items)


@pytest.hookimpl(tryfirst=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    if BACKGROUND in config.stash:
        config.stash[BACKGROUND].stop()


def fail_if_skipped(report: Report) -> Report:
    """Turn a skipped test into a failure where CI is set, so that CI cannot leave out a test unnoticed."""
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") not in (None, "", "false"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{reason} (CI is set: nothing may be skipped)"
    return report


def pytest_report_header(config: pytest.Config) -> str | None:
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return f"the whole suite takes about {WHOLE_SUITE}" if whole else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the parts that were not tested, and how to install the program that each of them needs."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    if reasons:
        terminalreporter.section("not tested")
    for reason, count in sorted(reasons.items()):
        terminalreporter.line(f"{count} skipped: {reason}")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return fail_if_skipped((yield))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return fail_if_skipped((yield))


class Transport(StringTransport):
    """A transport that records each write separately, and can stall as if its peer did not read."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.writes: list[bytes] = []
        self.stalled = False

    def write(self, data: bytes) -> None:
        super().write(data)  # type: ignore[no-untyped-call]
        self.writes.append(data)
        if self.stalled and self.producer is not None:
            self.producer.pauseProducing()

    def stall(self) -> None:
        self.stalled = True

    def flow(self) -> None:
        self.stalled = False
        assert self.producer is not None
        self.producer.resumeProducing()


class Peer:
    """The client's end of a connection in memory: it sends and reads bytes, and can disconnect."""

    HEAD = upgrade_request()
    KEY = b"\x11\x92\xa3\x04"

    def __init__(self, protocol: Any, clock: Any, transport: Any = None) -> None:
        self.protocol = protocol
        self.clock = clock
        self.transport = Transport() if transport is None else transport
        protocol.makeConnection(self.transport)

    def sends(self, *parts: bytes) -> None:
        for part in parts:
            self.protocol.dataReceived(part)
            # The next turn of the reactor.
            self.clock.advance(0)

    def reads(self) -> bytes:
        read: bytes = self.transport.value()
        self.transport.clear()
        self.transport.writes.clear()
        return read

    def leaves(self, reason: Exception | None = None) -> None:
        self.protocol.connectionLost(Failure(reason or ConnectionDone()))

    @classmethod
    def frame(cls, first: int, payload: bytes = b"") -> bytes:
        """Return a masked frame whose first byte is ``first``."""
        return masked(first, payload, cls.KEY)

    @classmethod
    def text(cls, text: str) -> bytes:
        return cls.frame(0x81, text.encode())

    @classmethod
    def close(cls, code: int | None = 1000, reason: bytes = b"") -> bytes:
        return cls.frame(0x88, b"" if code is None else code.to_bytes(2, "big") + reason)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True, scope="session")
def dated() -> Iterator[None]:
    """Set the Date field of every response to RFC 9110's example, so that tests can compare whole responses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("twisted_beastws.wire.dates.time", lambda: 784111777.9)
        yield


@pytest.fixture
def connect(clock: Clock) -> Callable[..., Peer]:
    """``connect(protocol or coroutine, **factory options)`` makes a connection in memory, open unless opened=False."""

    def connect(
        protocol: Any = None, *, opened: bool = True, factory: Any = None, address: Any = None, **options: Any
    ) -> Peer:
        from twisted_beastws import WebSocketProtocol, WebSocketServerFactory

        if factory is None:
            factory = WebSocketServerFactory(protocol or WebSocketProtocol, clock=clock, **options)
        transport = Transport()
        if address is not None:
            transport.peerAddr = address
        peer = Peer(factory.buildProtocol(address), clock, transport)
        if opened:
            peer.sends(peer.HEAD)
            assert peer.reads().startswith(b"HTTP/1.1 101 ")
        return peer

    return connect


@pytest.fixture(scope="session")
def logging() -> None:
    # Until logging begins, Twisted buffers every event, which keeps the objects of the event alive.
    show = warnings.showwarning
    globalLogBeginner.beginLoggingTo(
        [cast(ILogObserver, lambda event: None)], discardBuffer=True, redirectStandardIO=False
    )
    # Twisted replaced pytest's function; without it, the first test with a log would find the warnings of other tests.
    warnings.showwarning = show
    # Collections skip frozen objects, so each test that searches for its own garbage is quick.
    gc.freeze()


@pytest.fixture
def logged(logging: None) -> Iterator[Callable[..., list[Any]]]:
    """``logged(type)`` removes the logged failures of a type and returns them; events left at the end fail the test."""
    events: list[Any] = []

    def observe(event: Any) -> None:
        if event["log_level"] >= LogLevel.warn:
            events.append((event["log_failure"].value if "log_failure" in event else None, event["log_format"]))

    def take(kind: type[BaseException]) -> list[Any]:
        gc.collect()
        taken = [value for value, _ in events if isinstance(value, kind)]
        events[:] = [event for event in events if not isinstance(event[0], kind)]
        return taken

    globalLogPublisher.addObserver(cast(ILogObserver, observe))
    yield take
    gc.collect()
    # Objects that outlive this test are not garbage of the next one.
    gc.freeze()
    globalLogPublisher.removeObserver(cast(ILogObserver, observe))
    assert events == []
