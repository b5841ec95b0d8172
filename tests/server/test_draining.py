"""Tests of `twisted_beastws.server.draining`: a drain spread over time. `tests.tcp.test_server` covers every drain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.error import ConnectionAborted
from twisted.internet.task import Clock

from twisted_beastws import Timeouts, WebSocketProtocol, WebSocketServerFactory
from twisted_beastws.server.draining import GRACE, TICK

pytestmark = pytest.mark.usefixtures("logged")

GOODBYE = b"\x88\x1d\x03\xe9the server is shutting down"


class Server:
    """A server with clients in memory."""

    def __init__(self, connect: Callable[..., Any], clock: Clock, **options: Any) -> None:
        self.connect = connect
        self.clock = clock
        self.factory = WebSocketServerFactory(WebSocketProtocol, clock=clock, **options)
        self.drained: list[object] = []

    def clients(self, count: int, *, opened: bool = True) -> list[Any]:
        return [self.connect(factory=self.factory, opened=opened) for _ in range(count)]

    def drain(self, seconds: float | None) -> None:
        self.factory.drain(seconds=seconds).addBoth(self.drained.append)

    def advance(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK)):
            self.clock.advance(TICK)


@pytest.fixture
def server(connect: Callable[..., Any], clock: Clock) -> Server:
    return Server(connect, clock)


def told(peers: list[Any]) -> int:
    """Return the number of peers that got a close frame."""
    frames = [peer.transport.value() for peer in peers]
    assert set(frames) <= {b"", GOODBYE}
    return frames.count(GOODBYE)


def leave(peers: list[Any]) -> None:
    for peer in peers:
        peer.sends(peer.close(1001))
        peer.leaves()


class TestSpread:
    """A drain closes the connections over a time, not all at once."""

    def test_many_clients_are_closed_over_the_first_half(self, server: Server) -> None:
        peers = server.clients(1000)
        server.drain(8.0)
        assert told(peers) == 1
        for seconds in range(1, 5):
            server.advance(1.0)
            assert abs(told(peers) - 250 * seconds) <= 250 * TICK + 1
        assert told(peers) == 1000
        leave(peers)
        assert server.drained == [None]
        assert server.clock.calls == []

    def test_a_drain_of_few_clients_ends_before_half_of_the_time(self, server: Server) -> None:
        peers = server.clients(51)
        server.drain(60.0)
        server.advance(0.25)
        assert 24 <= told(peers) <= 27
        server.advance(0.25)
        assert told(peers) == 51
        leave(peers)
        assert server.drained == [None]

    def test_one_client_is_closed_at_once(self, server: Server) -> None:
        peers = server.clients(1)
        server.drain(60.0)
        assert told(peers) == 1
        leave(peers)
        assert server.clock.calls == []

    def test_a_late_reactor_catches_up_with_the_schedule(self, server: Server) -> None:
        peers = server.clients(1000)
        server.drain(8.0)
        server.clock.advance(3.0)
        assert abs(told(peers) - 750) <= 1

    def test_a_client_that_leaves_before_its_turn_is_skipped(self, server: Server) -> None:
        peers = server.clients(300)
        server.drain(2.0)
        waiting = [peer for peer in peers if not peer.transport.value()]
        waiting[0].leaves()
        waiting[1].sends(waiting[1].close(1000))
        server.advance(1.1)
        assert waiting[0].transport.value() == b""
        assert waiting[1].reads() == b"\x88\x02\x03\xe8"
        assert told(waiting[2:]) == len(waiting) - 2

    def test_a_drain_without_connections_is_done_at_once(self, server: Server) -> None:
        server.drain(8.0)
        assert server.drained == [None]
        assert server.clock.calls == []

    def test_a_drain_without_a_time_closes_all_at_once(self, server: Server) -> None:
        peers = server.clients(300)
        server.drain(0.0)
        assert told(peers) == 300
        assert not any(peer.transport.disconnected for peer in peers)
        server.clock.advance(0.0)
        assert all(peer.transport.disconnected for peer in peers)


class TestDeadline:
    """The time after which a drain aborts the rest."""

    def test_the_deadline_aborts_the_rest(self, connect: Callable[..., Any], clock: Clock) -> None:
        server = Server(connect, clock, timeouts=Timeouts(close=60.0))
        peers = server.clients(3)
        server.drain(8.0)
        leave(peers[:1])
        server.advance(7.9)
        assert not any(peer.transport.disconnected for peer in peers)
        server.advance(0.1)
        assert [peer.transport.disconnected for peer in peers] == [False, True, True]
        assert server.drained == []
        for peer in peers[1:]:
            peer.leaves(ConnectionAborted())
        assert server.drained == [None]
        assert clock.calls == []

    def test_the_deadline_is_not_earlier_if_the_clock_is_set(
        self, connect: Callable[..., Any], clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        true_time = 100.0
        monkeypatch.setattr("twisted_beastws.server.draining.seconds_of", lambda clock: lambda: true_time)
        server = Server(connect, clock, timeouts=Timeouts(close=None, idle=None, ping_interval=None, send=None))
        (peer,) = server.clients(1)
        server.drain(5.0)
        true_time += 1.0
        clock.advance(3600.0)
        assert not peer.transport.disconnected
        true_time += 4.0
        clock.advance(4.0)
        assert peer.transport.disconnected

    def test_the_close_timeout_still_applies_to_each_connection(
        self, connect: Callable[..., Any], clock: Clock
    ) -> None:
        server = Server(connect, clock, timeouts=Timeouts(close=1.0))
        (peer,) = server.clients(1)
        server.drain(8.0)
        server.advance(1.1)
        assert peer.transport.disconnected


class TestNotOpenYet:
    """Connections that are still opening during a drain."""

    def test_a_late_request_is_answered_503(self, server: Server) -> None:
        (peer,) = server.clients(1, opened=False)
        server.drain(8.0)
        server.advance(GRACE - TICK)
        peer.sends(peer.HEAD)
        assert peer.reads().startswith(b"HTTP/1.1 503 ")
        assert not peer.transport.disconnected
        server.advance(TICK)
        assert peer.transport.disconnected
        peer.leaves(ConnectionAborted())
        assert server.drained == [None]

    def test_connections_without_request_are_dropped_last(self, server: Server) -> None:
        peers, (waiting,) = server.clients(1000), server.clients(1, opened=False)
        server.drain(8.0)
        server.advance(3.9)
        assert not waiting.transport.disconnected
        server.advance(0.2)
        assert waiting.transport.disconnected
        assert told(peers) == 1000

    def test_a_connection_that_opens_during_a_drain_is_closed(self, server: Server) -> None:
        from twisted.internet.defer import Deferred

        answer: Deferred[None] = Deferred()

        class Slow(WebSocketProtocol):
            def upgrade_requested(self, request: object) -> Deferred[None]:
                return answer

        server.factory.make = Slow
        (peer,) = server.clients(1, opened=False)
        peer.sends(peer.HEAD)
        server.drain(8.0)
        answer.callback(None)
        assert peer.reads().startswith(b"HTTP/1.1 101 ")
        server.advance(GRACE)
        assert peer.reads() == GOODBYE


class TestAgain:
    """A second drain, and `abort`, during a drain."""

    def test_a_second_drain_begins_again_with_the_remaining_connections(self, server: Server) -> None:
        peers = server.clients(1000)
        server.drain(8.0)
        server.advance(1.0)
        server.drain(None)
        assert told(peers) == 1000
        assert all(call.getTime() > 8.0 for call in server.clock.calls)
        leave(peers)
        assert server.drained == [None, None]

    def test_abort_ends_a_drain(self, server: Server) -> None:
        peers = server.clients(1000)
        server.drain(8.0)
        server.factory.abort()
        assert all(peer.transport.disconnected for peer in peers)
        assert told(peers) == 1
        for peer in peers:
            peer.leaves(ConnectionAborted())
        assert server.drained == [None]
        assert server.clock.calls == []
