"""The system's clock is set by an hour while a connection over TCP is open."""

from __future__ import annotations

import time
from typing import Any, cast
from weakref import WeakValueDictionary

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import blockingCallFromThread

from twisted_beastws import CloseReason, Limits, Timeouts, WebSocketProtocol

from ..support.frames import close, masked
from ..support.loopback import until
from ..support.patience import PATIENCE
from .test_server import read, serve

PING, PONG, BYE = b"\x89\x00", masked(0x8A), masked(0x88, b"\x03\xe8")
INTERVAL = 0.2


class Wall:
    """The system's clock as the reactor reads it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.step = 0.0
        true_time = time.time
        monkeypatch.setattr(time, "time", lambda: true_time() + self.step)
        if not hasattr(reactor, "is_monotonic"):
            # Twisted's reactors keep a reference to the original function.
            monkeypatch.setattr(reactor, "seconds", lambda: true_time() + self.step)
            # A connection of an earlier test can keep a scheduler alive that uses the original function, so that it
            # would not notice the step.
            monkeypatch.setattr("twisted_beastws.connection.scheduler._schedulers", WeakValueDictionary())
            monkeypatch.setattr("twisted_beastws.connection.scheduler._latest", None)

    def set(self, step: float) -> None:
        """Set the clock from another thread, between two calls of the reactor."""
        blockingCallFromThread(cast(IReactorFromThreads, reactor), setattr, self, "step", step)


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    return Wall(monkeypatch)


def answer_pings(connection: Any, count: int) -> None:
    for _ in range(count):
        assert read(connection, 2) == PING
        connection.sendall(PONG)


def echo(connection: Any) -> None:
    connection.sendall(masked(0x81, b"x"))
    data = read(connection, 3)
    while data[:2] == PING:
        connection.sendall(PONG)
        data = data[2:] + read(connection, 2)
    assert data == b"\x81\x01x"


def say_bye(connection: Any) -> None:
    connection.sendall(BYE)
    data = read(connection, 4)
    while data[:2] == PING:
        data = data[2:] + read(connection, 2)
    assert data == close(1000)


@pytest_twisted.ensureDeferred
async def test_a_clock_that_is_set_forward_closes_no_connection_and_stops_no_pings(wall: Wall) -> None:
    def conversation(connection: Any) -> None:
        answer_pings(connection, 1)
        wall.set(3600.0)
        answer_pings(connection, 4)
        say_bye(connection)

    timeouts = Timeouts(ping_interval=INTERVAL, idle=PATIENCE, message=PATIENCE, max_lifetime=60.0)
    async with serve(timeouts=timeouts) as server:
        await server.by_socket(conversation)
        # A call that is still pending when the clock is set back would come an hour late.
        await until(lambda: not server.factory.connections)
        wall.step = 0.0
    assert server.ends[0].clean


@pytest_twisted.ensureDeferred
async def test_pings_go_on_with_the_next_activity_after_the_clock_is_set_back(wall: Wall) -> None:
    def conversation(connection: Any) -> None:
        answer_pings(connection, 2)
        # The server handles the pong before it echoes this message, so the step cannot delay a timer of the pong.
        echo(connection)
        wall.set(-3600.0)
        # After a step back, Twisted's reactors run no timed call until data arrives.
        echo(connection)
        answer_pings(connection, 4)
        say_bye(connection)
        wall.set(0.0)

    timeouts = Timeouts(ping_interval=INTERVAL, idle=PATIENCE)
    async with serve(timeouts=timeouts) as server:
        await server.by_socket(conversation)
    assert server.ends[0].clean


@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
@pytest_twisted.ensureDeferred
async def test_a_step_back_within_a_turn_does_not_delay_the_rest_of_a_chunk(wall: Wall, secure: bool) -> None:
    class SettingBack(WebSocketProtocol):
        def text_received(self, text: str) -> None:
            if not received:
                # This runs after the protocol postponed the rest of the chunk, and before the next turn's timed calls.
                cast(IReactorFromThreads, reactor).callFromThread(setattr, wall, "step", -3600.0)
            received.append(text)

        def closed(self, reason: CloseReason) -> None:
            self.factory.ends.append(reason)

    received: list[str] = []

    def conversation(connection: Any) -> None:
        connection.sendall(masked(0x81, b"x") * 10 + BYE)
        assert read(connection, 4) == close(1000)
        wall.set(0.0)

    limits = Limits(max_messages_per_turn=1)
    async with serve(SettingBack, secure, limits=limits, timeouts=Timeouts(ping_interval=None)) as server:
        await server.by_socket(conversation)
    assert received == ["x"] * 10
