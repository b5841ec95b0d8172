"""Tests of `drain_at_shutdown`, on a reactor of the test's own. `tests/service/test_operated.py` tests the signals."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.task import Clock

from twisted_beastws import WebSocketProtocol, WebSocketServerFactory, drain_at_shutdown
from twisted_beastws.testing import Frame, scripted_client, upgrade_request

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Reactor:
    """It runs at once, and calls the triggers of its shutdown when it stops."""

    def __init__(self) -> None:
        self.triggers: list[tuple[str, Callable[[], Any]]] = []
        self.waits_for: list[Any] = []

    def callWhenRunning(self, call: Callable[[], None]) -> None:
        call()

    def callFromThread(self, call: Callable[[], None]) -> None:
        call()

    def addSystemEventTrigger(self, phase: str, event: str, call: Callable[[], Any]) -> None:
        assert event == "shutdown"
        self.triggers.append((phase, call))

    def stop(self) -> None:
        self.run("before")

    def run(self, phase: str) -> None:
        self.waits_for += [call() for when, call in self.triggers if when == phase]


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = [signal.getsignal(number) for number in NUMBERS]
    yield
    for number, handler in zip(NUMBERS, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_a_second_one_drops_the_rest(number: int) -> None:
    reactor, clock, before = Reactor(), Clock(), [signal.getsignal(each) for each in NUMBERS]
    factory = WebSocketServerFactory(WebSocketProtocol, clock=clock)
    drain_at_shutdown(reactor, factory, seconds=4)
    polite, silent = scripted_client(factory, clock=clock), scripted_client(factory, clock=clock)
    os.kill(os.getpid(), number)
    clock.advance(0.1)
    for peer in (polite, silent):
        peer.expect(Frame.close(1001, "the server is shutting down"))
    polite.send(Frame.close(1001))
    polite.transport.loseConnection()
    polite.flush()
    late = scripted_client(factory, clock=clock, opened=False)
    late.send(upgrade_request())
    assert late.read_head().startswith(b"HTTP/1.1 503 ")
    late.transport.loseConnection()
    late.flush()
    (drained,) = reactor.waits_for
    assert not drained.called and len(factory.connections) == 1
    os.kill(os.getpid(), number)
    silent.flush()
    assert drained.called and factory.connections == set()
    reactor.run("after")
    assert [signal.getsignal(each) for each in NUMBERS] == before


def test_a_reactor_that_stops_without_a_signal_drains() -> None:
    reactor, clock = Reactor(), Clock()
    factory = WebSocketServerFactory(WebSocketProtocol, clock=clock)
    drain_at_shutdown(reactor, factory, seconds=4)
    peer = scripted_client(factory, clock=clock)
    reactor.stop()
    peer.expect(Frame.close(1001, "the server is shutting down"))
    # The time limit drops a peer that does not answer.
    clock.advance(4)
    peer.flush()
    assert reactor.waits_for[0].called
    reactor.run("after")


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="SIGHUP IS NOT TESTED: the system has none")
def test_sighup_calls_each_reload_though_one_fails(logged: Any) -> None:
    reactor, calls = Reactor(), []
    factory = WebSocketServerFactory(WebSocketProtocol, clock=Clock())
    drain_at_shutdown(reactor, factory, reloads=[lambda: 1 / 0, lambda: calls.append("reloaded")])
    os.kill(os.getpid(), signal.SIGHUP)
    assert calls == ["reloaded"] and len(logged(ZeroDivisionError)) == 1 and not factory.draining
    reactor.run("after")
