"""Tests of the work that a `WebSocketProtocol` may do in one turn of the reactor."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from twisted_beastws import Limits, Opcode, Response, State, Timeouts, WebSocketProtocol, WebSocketServerFactory
from twisted_beastws.connection.keepalive import MAX_LOOKS
from twisted_beastws.testing import connected_pair

from .support.inside import inside

pytestmark = pytest.mark.usefixtures("logged")

THREE = Limits(max_messages_per_turn=3)


class Noting(WebSocketProtocol):
    heard: list[Any]

    def connectionMade(self) -> None:
        self.heard = []

    def closed(self, reason: Any) -> None:
        self.heard.append("closed")


class Hooked(Noting):
    does: Any = None

    def text_received(self, text: str) -> Any:
        self.heard.append(text)
        return None if self.does is None else self.does(text)


class Streaming(Noting):
    def fragment_received(self, data: bytes, opcode: Opcode, final: bool) -> None:
        self.heard.append(data.decode())


def numbers(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def texts(peer: Any, count: int) -> bytes:
    return b"".join(map(peer.text, numbers(count)))


def turn(clock: Clock) -> None:
    """Run one turn of the reactor: only the calls that are due when it begins."""
    due: list[Any] = [call for call in clock.getDelayedCalls() if call.getTime() <= clock.seconds()]
    for call in due:
        clock.calls.remove(call)
        call.called = 1
        call.func(*call.args, **call.kw)


@pytest.mark.parametrize("protocol", [Hooked, Streaming])
class TestTurns:
    """The rest of a chunk waits for later turns (`docs/topics/backpressure.md`)."""

    def test_the_rest_of_a_chunk_waits_with_reading_paused(
        self, connect: Callable[..., Any], protocol: type[Any]
    ) -> None:
        peer = connect(protocol, limits=THREE)
        peer.protocol.dataReceived(texts(peer, 8))
        for delivered in (3, 6):
            assert peer.protocol.heard == numbers(delivered)
            assert peer.transport.producerState == "paused"
            assert inside(peer.protocol).reading.paused
            turn(peer.clock)
        assert peer.protocol.heard == numbers(8)
        assert peer.transport.producerState == "producing"
        peer.sends(peer.close())
        peer.leaves()
        assert peer.clock.getDelayedCalls() == []

    @pytest.mark.parametrize(("count", "paused"), [(2, False), (3, False), (4, True)])
    def test_reading_is_paused_beyond_the_limit(
        self, connect: Callable[..., Any], protocol: type[Any], count: int, paused: bool
    ) -> None:
        peer = connect(protocol, limits=THREE)
        peer.protocol.dataReceived(texts(peer, count))
        assert inside(peer.protocol).reading.paused is paused

    def test_each_connection_gets_a_part_of_each_turn(self, connect: Callable[..., Any], protocol: type[Any]) -> None:
        first, second = connect(protocol, limits=THREE), connect(protocol, limits=THREE)
        for peer in (first, second):
            peer.protocol.dataReceived(texts(peer, 8))
        for delivered in (3, 6, 8):
            assert [len(peer.protocol.heard) for peer in (first, second)] == [delivered] * 2
            turn(first.clock)

    def test_a_lost_connection_delivers_all_messages_that_arrived(
        self, connect: Callable[..., Any], protocol: type[Any]
    ) -> None:
        """TLS may deliver data and the loss of the connection in one turn."""
        peer = connect(protocol, limits=THREE)
        peer.protocol.dataReceived(texts(peer, 8))
        peer.leaves()
        assert peer.protocol.heard == numbers(3)
        turn(peer.clock)
        assert peer.protocol.heard == numbers(6)
        turn(peer.clock)
        assert peer.protocol.heard == [*numbers(8), "closed"]
        assert peer.protocol.state is State.CLOSED
        assert peer.clock.getDelayedCalls() == []

    def test_the_peers_end_of_tcp_comes_after_all_messages_that_arrived(
        self, connect: Callable[..., Any], protocol: type[Any]
    ) -> None:
        peer = connect(protocol, limits=THREE)
        peer.protocol.dataReceived(texts(peer, 8))
        peer.protocol.readConnectionLost()
        turn(peer.clock)
        turn(peer.clock)
        assert peer.protocol.heard == numbers(8)
        assert peer.transport.disconnecting

    def test_abort_delivers_nothing_more(self, connect: Callable[..., Any], protocol: type[Any]) -> None:
        peer = connect(protocol, limits=THREE)
        peer.protocol.dataReceived(texts(peer, 8))
        peer.protocol.abort()
        peer.leaves()
        assert peer.protocol.heard == [*numbers(3), "closed"]
        assert peer.clock.getDelayedCalls() == []

    def test_close_finds_the_answer_in_its_turn(self, connect: Callable[..., Any], protocol: type[Any]) -> None:
        peer = connect(protocol, limits=THREE)
        peer.protocol.dataReceived(texts(peer, 30) + peer.close(4000))
        peer.protocol.close(4000)
        assert peer.protocol.state is State.CLOSING
        # Reading is paused, so later data stays in the peer's system and takes no memory here.
        assert peer.transport.producerState == "paused"
        while inside(peer.protocol).reading.paused:
            turn(peer.clock)
        assert peer.protocol.close_reason.clean
        peer.leaves()
        assert peer.protocol.heard == [*numbers(3), "closed"]

    def test_data_during_a_close_has_a_budget(self, connect: Callable[..., Any], protocol: type[Any]) -> None:
        peer = connect(protocol, limits=THREE)
        peer.protocol.close(4000)
        peer.protocol.dataReceived(texts(peer, 8))
        assert peer.transport.producerState == "paused"
        turn(peer.clock)
        turn(peer.clock)
        assert peer.transport.producerState == "producing"

    def test_a_failed_connection_reads_on_to_the_peers_end(
        self, connect: Callable[..., Any], protocol: type[Any]
    ) -> None:
        peer = connect(protocol, limits=THREE)
        peer.protocol.dataReceived(texts(peer, 4) + peer.frame(0x83))
        turn(peer.clock)
        assert peer.protocol.close_reason.sent.code == 1002
        assert peer.transport.producerState == "producing"

    def test_a_lost_connection_is_freed(self, connect: Callable[..., Any], protocol: type[Any]) -> None:
        peer = connect(protocol, limits=THREE)
        peer.protocol.dataReceived(texts(peer, 8))
        peer.protocol.abort()
        peer.leaves()
        gone = weakref.ref(peer.protocol)
        del peer
        gc.collect()
        assert gone() is None


class TestDeadlines:
    """A flooding peer causes its own pauses of reading, so its deadlines continue during these pauses."""

    @staticmethod
    def flood(peer: Any, frame: bytes, seconds: int) -> None:
        """Feed more than the budget each second, with so few turns that reading is paused most of the time."""
        for _ in range(seconds):
            peer.protocol.dataReceived(frame * 6)
            turn(peer.clock)
            peer.clock.rightNow += 1
            turn(peer.clock)

    def test_a_flooding_peer_must_finish_its_message_in_time(self, connect: Callable[..., Any]) -> None:
        peer = connect(Hooked, limits=THREE, timeouts=Timeouts(message=10, ping_interval=None))
        peer.protocol.dataReceived(peer.frame(0x01, b"begun"))
        self.flood(peer, peer.frame(0x8A), 9)
        assert peer.protocol.state is State.OPEN
        self.flood(peer, peer.frame(0x8A), 2 * MAX_LOOKS)
        assert peer.protocol.close_reason.code == 1006
        assert str(peer.protocol.close_reason.error) == "a message was not finished in 10 s"

    def test_a_flooding_peer_without_a_pong_is_closed_by_strict_pong(self, connect: Callable[..., Any]) -> None:
        peer = connect(Hooked, limits=THREE, timeouts=Timeouts(idle=10, ping_interval=None, strict_pong=True))
        self.flood(peer, peer.text(""), 9)
        assert peer.protocol.state is State.OPEN
        self.flood(peer, peer.text(""), 2 * MAX_LOOKS)
        assert str(peer.protocol.close_reason.error) == "nothing was received for 10 s"

    def test_a_flooding_peer_that_sends_pongs_is_not_closed(self, connect: Callable[..., Any]) -> None:
        peer = connect(Hooked, limits=THREE, timeouts=Timeouts(idle=10, ping_interval=None, strict_pong=True))
        self.flood(peer, peer.text("") * 5 + peer.frame(0x8A), 40)
        assert peer.protocol.state is State.OPEN

    def test_the_applications_own_pause_stops_the_deadlines(self, connect: Callable[..., Any]) -> None:
        peer = connect(Hooked, limits=THREE, timeouts=Timeouts(message=10, idle=10, ping_interval=None))
        peer.protocol.dataReceived(peer.frame(0x01, b"begun"))
        peer.protocol.pauseProducing()
        self.flood(peer, peer.frame(0x8A), 40)
        assert peer.protocol.state is State.OPEN


class TestHooks:
    """Hooks that take time, or end the connection, over several turns."""

    def test_a_hook_that_takes_time_keeps_the_order(self, connect: Callable[..., Any]) -> None:
        waiting: list[Deferred[None]] = []

        def wait(text: str) -> Deferred[None]:
            waiting.append(Deferred())
            return waiting[-1]

        peer = connect(Hooked, limits=THREE)
        peer.protocol.does = wait
        peer.protocol.dataReceived(texts(peer, 40))
        while len(waiting) < 40:
            waiting[-1].callback(None)
            turn(peer.clock)
        assert peer.protocol.heard == numbers(40)
        waiting[-1].callback(None)
        assert not inside(peer.protocol).reading.paused

    def test_the_applications_pause_is_kept_over_turns(self, connect: Callable[..., Any]) -> None:
        peer = connect(Hooked, limits=THREE)
        peer.protocol.dataReceived(texts(peer, 8))
        peer.protocol.pauseProducing()
        turn(peer.clock)
        assert (peer.protocol.heard, inside(peer.protocol).reading.paused) == (numbers(3), True)
        peer.protocol.resumeProducing()
        assert peer.protocol.heard == numbers(6)
        turn(peer.clock)
        assert (peer.protocol.heard, inside(peer.protocol).reading.paused) == (numbers(8), False)

    @pytest.mark.parametrize("end", ["close", "abort"])
    def test_a_hook_may_end_the_connection_in_a_later_turn(self, connect: Callable[..., Any], end: str) -> None:
        peer = connect(Hooked, limits=THREE)
        peer.protocol.does = lambda text: getattr(peer.protocol, end)() and None if text == "4" else None
        peer.protocol.dataReceived(texts(peer, 30) + peer.close())
        while inside(peer.protocol).reading.paused and end == "close":
            turn(peer.clock)
        turn(peer.clock)
        peer.leaves(ConnectionDone())
        assert peer.protocol.heard == [*numbers(5), "closed"]
        assert peer.protocol.close_reason.clean is (end == "close")

    def test_a_transport_may_be_lost_at_once_within_a_slow_hook(self, connect: Callable[..., Any]) -> None:
        """An SSH channel is lost inside the call that closes it. The lost connection must not schedule another turn."""

        def does(text: str) -> None:
            peer.clock.advance(0.0015)
            peer.leaves()

        peer = connect(Hooked)
        peer.protocol.does = does
        peer.protocol.dataReceived(texts(peer, 2))
        assert peer.protocol.heard == ["0", "closed"]
        assert peer.clock.getDelayedCalls() == []

    def test_the_connection_lost_of_a_subclass_is_called_once(self, connect: Callable[..., Any]) -> None:
        lost = []

        class Losing(Hooked):
            def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
                lost.append(reason)

        peer = connect(Losing, limits=THREE)
        peer.protocol.dataReceived(texts(peer, 8))
        peer.leaves()
        turn(peer.clock)
        turn(peer.clock)
        assert (len(lost), peer.protocol.heard[-1]) == (1, "closed")

    def test_echoes_of_a_turn_are_one_write(self, connect: Callable[..., Any]) -> None:
        peer = connect(Hooked)
        peer.protocol.does = peer.protocol.send
        peer.protocol.dataReceived(texts(peer, 1000))
        assert len(peer.transport.writes) == 1


class TestReceive:
    """A coroutine that receives messages without waiting."""

    def test_a_coroutine_that_never_waits_returns_to_the_reactor(self, connect: Callable[..., Any]) -> None:
        """``await`` returns a pending message at once, so a handler could run without end."""
        heard = []

        async def handler(ws: WebSocketProtocol) -> None:
            async for message in ws:
                heard.append(message)

        peer = connect(handler, limits=Limits(max_messages_per_turn=20))
        peer.protocol.dataReceived(texts(peer, 100))
        seen = [len(heard)]
        while peer.clock.getDelayedCalls() and len(heard) < 100:
            turn(peer.clock)
            seen.append(len(heard))
        assert heard == numbers(100)
        assert max(after - before for before, after in zip([0, *seen], seen, strict=False)) <= 20

    def test_the_time_that_a_handler_works_is_counted(self, connect: Callable[..., Any]) -> None:
        heard = []
        clock: Any = None

        async def handler(ws: WebSocketProtocol) -> None:
            async for message in ws:
                # Work takes time: move the clock without running the calls that are due.
                clock.rightNow += 0.001
                heard.append(message)

        peer = connect(handler)
        clock = peer.clock
        peer.protocol.dataReceived(texts(peer, 100))
        assert len(heard) <= 40
        while len(heard) < 100:
            turn(clock)
        assert heard == numbers(100)


class TestRequests:
    """HTTP requests share the connection's budget."""

    REQUEST = b"GET /%d HTTP/1.1\r\nHost: localhost\r\n\r\n"

    @pytest.fixture
    def pages(self, connect: Callable[..., Any]) -> tuple[Any, list[Any]]:
        class Pages(WebSocketProtocol):
            def http_requested(self, request: Any) -> Response:
                asked.append(request.target)
                return Response(200, body=request.target)

        asked: list[str] = []
        peer = connect(Pages, opened=False, limits=Limits(max_messages_per_turn=10))
        return peer, asked

    def test_requests_in_one_chunk_are_answered_in_turns(self, pages: tuple[Any, list[Any]]) -> None:
        peer, asked = pages
        peer.protocol.dataReceived(b"".join(self.REQUEST % number for number in range(45)))
        counts = [len(asked)]
        for _ in range(4):
            turn(peer.clock)
            counts.append(len(asked))
        assert asked == [f"/{number}" for number in range(45)]
        assert counts == [10, 20, 30, 40, 45]
        assert peer.reads().count(b"HTTP/1.1 200 ") == 45

    def test_requests_in_single_chunks_have_one_budget(self, pages: tuple[Any, list[Any]]) -> None:
        """TLS delivers each record in its own call, and so several in one turn."""
        peer, asked = pages
        for number in range(25):
            peer.protocol.dataReceived(self.REQUEST % number)
        assert len(asked) == 10
        turn(peer.clock)
        assert len(asked) == 20
        turn(peer.clock)
        assert asked == [f"/{number}" for number in range(25)]

    @pytest.mark.parametrize("count", [9, 10, 11])
    def test_the_number_of_requests_in_a_turn_is_exact(self, pages: tuple[Any, list[Any]], count: int) -> None:
        peer, asked = pages
        for number in range(count):
            peer.protocol.dataReceived(self.REQUEST % number)
        assert len(asked) == min(count, 10)
        turn(peer.clock)
        assert len(asked) == count

    def test_a_loop_of_read_request_and_respond_has_a_budget(self, connect: Callable[..., Any]) -> None:
        class Looping(WebSocketProtocol):
            def serve(self) -> None:
                Deferred.fromCoroutine(self.answer())

            async def answer(self) -> None:
                while True:
                    asked.append((await self.read_request()).target)
                    await self.respond(Response(204))

        asked: list[str] = []
        peer = connect(Looping, opened=False, limits=Limits(max_messages_per_turn=10))
        peer.protocol.dataReceived(b"".join(self.REQUEST % number for number in range(25)))
        counts = [len(asked)]
        for _ in range(2):
            turn(peer.clock)
            counts.append(len(asked))
        assert counts == [10, 20, 25]

    def test_the_time_of_the_requests_hooks_is_counted(self, connect: Callable[..., Any]) -> None:
        class Slow(WebSocketProtocol):
            def http_requested(self, request: Any) -> Response:
                asked.append(request.target)
                clock.rightNow += 0.4
                return Response(204)

        asked: list[str] = []
        peer = connect(Slow, opened=False, limits=Limits(max_seconds_per_turn=1.0))
        clock = peer.clock
        peer.protocol.dataReceived(b"".join(self.REQUEST % number for number in range(7)))
        counts = [len(asked)]
        for _ in range(2):
            turn(clock)
            counts.append(len(asked))
        assert counts == [3, 6, 7]

    def test_a_client_that_leaves_is_forgotten(self, pages: tuple[Any, list[Any]]) -> None:
        peer, asked = pages
        peer.protocol.dataReceived(b"".join(self.REQUEST % number for number in range(45)))
        peer.leaves()
        assert peer.clock.getDelayedCalls() == []
        assert len(asked) == 10

    def test_an_upgrade_in_a_later_turn_opens_the_connection(self, pages: tuple[Any, list[Any]]) -> None:
        peer, asked = pages

        def page_or_none(request: Any) -> Any:
            asked.append(request.target)
            return None if request.target == "/chat" else Response(204)

        peer.protocol.http_requested = page_or_none
        wire = b"".join(self.REQUEST % number for number in range(25)) + peer.HEAD + peer.text("hello")
        peer.protocol.dataReceived(wire)
        assert peer.protocol.state is State.CONNECTING
        while peer.clock.getDelayedCalls() and peer.protocol.state is State.CONNECTING:
            turn(peer.clock)
        turn(peer.clock)
        received: list[Any] = []
        peer.protocol.receive().addCallback(received.append)
        assert received == ["hello"]


class TestClient:
    """The client's end of a connection."""

    def test_a_client_has_a_budget_as_well(self) -> None:
        class Flood(WebSocketProtocol):
            def opened(self) -> None:
                for number in range(2500):
                    self.send(str(number))

        pair = connected_pair(WebSocketServerFactory(Flood), Hooked)
        pair.flush()
        assert pair.client.heard == numbers(2500)
