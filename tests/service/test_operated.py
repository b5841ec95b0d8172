"""The whole service on a reactor of the test's own: signals, and what stops when."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import FileLogObserver, LogPublisher, globalLogPublisher
from twisted.python.logfile import LogFile

from twisted_beastws import WebSocketProtocol, WebSocketServerFactory
from twisted_beastws.server.serving import Serving
from twisted_beastws.server.signals import Signals
from twisted_beastws.service.beastws_service import BeastwsService
from twisted_beastws.service.logs import buffer_standard_output, reopen_log_files

from ..support.log import as_observer

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Reactor:
    """It runs from the start, and makes calls from other threads at once."""

    def __init__(self) -> None:
        self.stops = 0
        self.starting: list[Callable[[], None]] = []

    def callWhenRunning(self, call: Callable[[], None]) -> None:
        self.starting.append(call)

    def callFromThread(self, call: Callable[[], None]) -> None:
        call()

    def stop(self) -> None:
        self.stops += 1

    def run(self) -> None:
        while self.starting:
            self.starting.pop(0)()


class Helper(Service):
    def __init__(self, told: list[str]) -> None:
        self.told = told

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self.told.append("start")

    def stopService(self) -> None:
        self.told.append("stop")


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """The handlers of signals, put back."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def factory() -> WebSocketServerFactory:
    return WebSocketServerFactory(WebSocketProtocol, clock=Clock())


def connected(factory: WebSocketServerFactory) -> StringTransport:
    protocol, transport = factory.buildProtocol(None), StringTransport()
    protocol.makeConnection(transport)
    return transport


def started(factory: WebSocketServerFactory, *helpers: Service, reloads: Any = ()) -> tuple[BeastwsService, Reactor]:
    reactor = Reactor()
    service = BeastwsService(reactor, Serving(factory, [], []), helpers, reloads)
    service.privilegedStartService()  # type: ignore[no-untyped-call]
    service.startService()
    reactor.run()
    return service, reactor


class TestTermination:
    """The first signal stops the service, the second one drops the connections."""

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_the_first_signal_stops_the_reactor_once(
        self, factory: WebSocketServerFactory, number: signal.Signals
    ) -> None:
        _, reactor = started(factory)
        assert reactor.stops == 0
        signal.raise_signal(number)
        signal.raise_signal(number)
        assert reactor.stops == 1

    def test_the_second_drops_the_connections(self, factory: WebSocketServerFactory) -> None:
        service, _ = started(factory)
        transport = connected(factory)
        signal.raise_signal(signal.SIGTERM)
        service.stopService()
        assert not transport.disconnected or transport.disconnecting
        transport.disconnected = False
        signal.raise_signal(signal.SIGINT)
        assert transport.disconnected

    def test_a_service_that_already_stops_is_not_stopped_again(self, factory: WebSocketServerFactory) -> None:
        service, reactor = started(factory)
        connected(factory)
        service.stopService()
        signal.raise_signal(signal.SIGTERM)
        assert reactor.stops == 0


class TestSignals:
    """Signal handlers while the service runs."""

    def test_signals_belong_to_the_reactor_before_and_after_the_service(self, factory: WebSocketServerFactory) -> None:
        def before(number: int, frame: object) -> None:
            """The reactor's own handler."""

        reactor = Reactor()
        service = BeastwsService(reactor, Serving(factory, [], []))
        service.startService()
        signal.signal(signal.SIGTERM, before)
        reactor.run()
        assert signal.getsignal(signal.SIGTERM) is not before
        service.stopService()
        assert signal.getsignal(signal.SIGTERM) is before

    def test_signals_are_ignored_during_the_end(self, factory: WebSocketServerFactory) -> None:
        service, _ = started(factory)
        signal.raise_signal(signal.SIGTERM)
        service.stopService()
        assert [signal.getsignal(number) for number in NUMBERS] == [signal.SIG_IGN] * 3

    def test_a_service_that_ended_before_the_reactor_ran_handles_no_signal(
        self, factory: WebSocketServerFactory
    ) -> None:
        reactor = Reactor()
        service = BeastwsService(reactor, Serving(factory, [], []))
        service.startService()
        service.stopService()
        before = signal.getsignal(signal.SIGTERM)
        reactor.run()
        assert signal.getsignal(signal.SIGTERM) is before

    def test_a_service_in_another_thread_handles_no_signal(self) -> None:
        signals = Signals(Reactor(), {"SIGTERM": lambda: None})  # type: ignore[arg-type]
        before = signal.getsignal(signal.SIGTERM)
        thread = threading.Thread(target=signals.take)
        thread.start()
        thread.join()
        signals.release()
        assert signal.getsignal(signal.SIGTERM) is before

    def test_a_signal_that_the_system_lacks_is_skipped(self) -> None:
        signals = Signals(Reactor(), {"SIGNOPE": lambda: None})  # type: ignore[arg-type]
        signals.take()
        signals.release()


class TestHelpers:
    """Services that live as long as the connections."""

    def test_helpers_start_first_and_stop_when_the_connections_are_gone(self, factory: WebSocketServerFactory) -> None:
        told: list[str] = []
        service, _ = started(factory, Helper(told))
        assert told == ["start"]
        protocol, transport = factory.buildProtocol(None), StringTransport()
        protocol.makeConnection(transport)
        done: list[None] = []
        service.stopService().addCallback(done.append)
        assert (told, done) == (["start"], [])
        protocol.connectionLost()
        assert (told, done) == (["start", "stop"], [None])

    def test_the_stop_waits_for_the_helpers(self, factory: WebSocketServerFactory) -> None:
        class Slow(Service):
            stopping: Deferred[None] = Deferred()

            def stopService(self) -> Deferred[None]:
                return self.stopping

        helper = Slow()
        service, _ = started(factory, helper)
        done: list[None] = []
        service.stopService().addCallback(done.append)
        assert done == []
        helper.stopping.callback(None)
        assert done == [None]


class TestReload:
    """SIGHUP reads files again."""

    def test_a_reload_calls_all_functions_even_if_one_fails(
        self, factory: WebSocketServerFactory, logged: Callable[..., list[Any]]
    ) -> None:
        called = []

        def broken() -> None:
            raise ZeroDivisionError

        started(factory, reloads=[broken, lambda: called.append(True)])
        signal.raise_signal(signal.SIGHUP)
        assert called == [True]
        assert len(logged(ZeroDivisionError)) == 1

    def test_the_files_of_a_log_are_opened_again(self, tmp_path: Any) -> None:
        file = LogFile.fromFullPath(str(tmp_path / "log"))
        publisher = LogPublisher(
            LogPublisher(FileLogObserver(file, lambda event: event["text"])), as_observer(lambda event: None)
        )
        publisher({"text": "one"})
        os.rename(tmp_path / "log", tmp_path / "old")
        publisher({"text": "two"})
        reopen_log_files(publisher)
        publisher({"text": "three"})
        file.close()
        assert (tmp_path / "old").read_text() == "onetwo"
        assert (tmp_path / "log").read_text() == "three"

    def test_a_reload_without_log_files_does_nothing(self) -> None:
        reopen_log_files(globalLogPublisher)


class TestFailure:
    """A failure stops the service."""

    def test_a_failure_stops_the_service_once_with_status_1(
        self, factory: WebSocketServerFactory, monkeypatch: pytest.MonkeyPatch, logged: Any
    ) -> None:
        at_exit: list[Callable[[], None]] = []
        statuses: list[int] = []
        monkeypatch.setattr("twisted_beastws.service.beastws_service.atexit.register", at_exit.append)
        monkeypatch.setattr("twisted_beastws.service.beastws_service.os._exit", statuses.append)
        reactor = Reactor()
        operated = BeastwsService(reactor, Serving(factory, [], []))
        told: list[str] = []
        monkeypatch.setattr(operated, "log", SimpleNamespace(critical=lambda format, line: told.append(line)))
        operated.startService()
        operated.fail("no worker serves")
        operated.fail("no worker serves, again")
        assert (told, reactor.stops, len(at_exit)) == (["no worker serves"], 1, 1)
        at_exit[0]()
        assert statuses == [1]

    def test_a_failure_during_the_stop_does_nothing(self, factory: WebSocketServerFactory) -> None:
        reactor = Reactor()
        operated = BeastwsService(reactor, Serving(factory, [], []))
        operated.startService()
        operated.stopService()
        operated.fail("no worker serves")
        assert reactor.stops == 0


class TestStandardOutput:
    """The buffer of the standard output."""

    def write(self, monkeypatch: pytest.MonkeyPatch, buffer: Callable[[Any], Any]) -> tuple[Any, Any]:
        reading, writing = os.pipe()
        before = io.TextIOWrapper(buffer(io.FileIO(writing, "w")), "utf-8", line_buffering=True)
        monkeypatch.setattr(sys, "stdout", before)
        buffer_standard_output()
        after = sys.stdout
        print("half a line", end="")
        print(" and the rest")
        assert os.read(reading, 1000) == b"half a line and the rest\n"
        print("half a character: \ud800")
        assert os.read(reading, 1000) == b"half a character: \\ud800\n"
        after.close()
        os.close(reading)
        return before, after

    def test_an_unbuffered_output_gets_a_buffer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        before, after = self.write(monkeypatch, lambda raw: raw)
        assert before is not after and isinstance(after.buffer, io.BufferedWriter)

    def test_a_buffered_output_is_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        before, after = self.write(monkeypatch, io.BufferedWriter)
        assert before is after
