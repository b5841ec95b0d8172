"""Tests of `twisted_beastws.testing`."""

from __future__ import annotations

import doctest
import unittest
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, IHalfCloseableProtocol, IPushProducer, ITCPTransport
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from twisted_beastws import (
    ConnectionClosed,
    Response,
    State,
    Timeouts,
    UpgradeDeclined,
    WebSocketProtocol,
    WebSocketServerFactory,
    testing,
)
from twisted_beastws.errors import BadSecAccept
from twisted_beastws.options import Limits, Role
from twisted_beastws.testing import (
    ConnectedPair,
    Frame,
    Link,
    MemoryTransport,
    connected_pair,
    scripted_client,
    scripted_server,
    upgrade_request,
    upgrade_response,
)
from twisted_beastws.testing.transport import CHUNK
from twisted_beastws.wire.frames import Opcode

from ..support.inside import inside
from ..support.protocols import Echo
from ..support.states import state_of


def test_the_examples_of_the_documentation_are_correct() -> None:
    results = doctest.testmod(testing)
    assert results.attempted > 20
    assert results.failed == 0


class Notes(Protocol):
    """A protocol that records its events."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def dataReceived(self, data: bytes) -> None:
        self.heard.append(data)

    def connectionLost(self, reason: Any = None) -> None:
        self.heard.append(reason.type)


@implementer(IHalfCloseableProtocol)
class HalfNotes(Notes):
    def readConnectionLost(self) -> None:
        self.heard.append("read")

    def writeConnectionLost(self) -> None:
        self.heard.append("written")


class Producer(list[str]):
    """A producer that records the calls of its consumer."""

    def pauseProducing(self) -> None:
        self.append("pause")

    def resumeProducing(self) -> None:
        self.append("resume")

    def stopProducing(self) -> None:
        self.append("stop")


class Wire:
    """A transport at each end of a `Link`."""

    def __init__(self, protocol: type[Notes] = Notes, chunk: int = CHUNK) -> None:
        self.near, self.far = protocol(), protocol()
        self.link = Link(self.near, self.far, Clock(), chunk)
        self.here: MemoryTransport = self.near.transport  # type: ignore[assignment]
        self.there: MemoryTransport = self.far.transport  # type: ignore[assignment]

    def flush(self) -> Wire:
        self.link.flush()
        return self


class TestMemoryTransport:
    """The transport in memory, which behaves like Twisted's TCP."""

    def test_the_transport_has_the_interfaces_of_tcp(self) -> None:
        transport = Wire().here
        for interface in (ITCPTransport, IConsumer, IPushProducer):
            assert verifyObject(interface, transport)
        assert (transport.getHost().port, transport.getPeer().port) == (50000, 80)
        assert transport.getPeer() == Wire().there.getHost()
        assert (transport.getTcpNoDelay(), transport.getTcpKeepAlive()) == (False, False)
        transport.setTcpNoDelay(True)
        transport.setTcpKeepAlive(1)  # type: ignore[arg-type]
        assert (transport.getTcpNoDelay(), transport.getTcpKeepAlive()) == (True, True)

    def test_no_data_moves_without_a_flush(self) -> None:
        wire = Wire()
        wire.here.write(b"one")
        wire.here.writeSequence([b"two", b"three"])
        assert wire.far.heard == []
        assert wire.here.buffered == 11
        assert wire.flush().far.heard == [b"onetwothree"]
        assert wire.here.buffered == 0

    def test_data_is_moved_in_pieces(self) -> None:
        wire = Wire(chunk=4)
        wire.here.write(b"onetwothree")
        assert wire.flush().far.heard == [b"onet", b"woth", b"ree"]

    def test_a_step_moves_one_chunk(self) -> None:
        wire = Wire()
        wire.here.write(b"onetwo")
        assert wire.here.step(2)
        assert wire.far.heard == [b"on"]
        assert wire.here.step()
        assert wire.far.heard == [b"on", b"etwo"]
        assert not wire.here.step()
        assert not wire.there.step()

    def test_only_bytes_are_accepted(self) -> None:
        wire = Wire()
        with pytest.raises(TypeError, match="a transport takes bytes"):
            wire.here.write("text")  # type: ignore[arg-type]
        wire.here.write(memoryview(b"view"))  # type: ignore[arg-type]
        assert wire.flush().far.heard == [b"view"]

    def test_a_protocols_exception_reaches_the_test(self) -> None:
        wire = Wire()
        wire.far.dataReceived = lambda data: 1 // 0  # type: ignore[method-assign, assignment]
        wire.here.write(b"data")
        with pytest.raises(ZeroDivisionError):
            wire.flush()
        wire.far.dataReceived = wire.far.heard.append  # type: ignore[method-assign, assignment]
        wire.here.write(b"more")
        assert wire.flush().far.heard == [b"more"]

    class TestProducers:
        """Producers on the transport in memory."""

        def test_a_producer_is_paused_above_the_size_of_the_buffer(self) -> None:
            wire, producer = Wire(), Producer()
            wire.here.registerProducer(producer, True)
            wire.here.write(bytes(wire.here.buffer_size))
            assert producer == []
            wire.here.write(b"x")
            assert producer == ["pause"]

        def test_a_producer_is_resumed_when_all_data_is_gone(self) -> None:
            wire, producer = Wire(), Producer()
            wire.here.registerProducer(producer, True)
            wire.here.write(bytes(wire.here.buffer_size + 1))
            wire.here.step()
            assert producer == ["pause"]
            wire.here.step()
            assert producer == ["pause", "resume"]
            wire.here.write(b"x")
            wire.flush()
            assert producer == ["pause", "resume"]

        def test_a_second_producer_is_refused(self) -> None:
            wire, producer = Wire(), Producer()
            wire.here.registerProducer(producer, True)
            with pytest.raises(RuntimeError, match="not unregistered"):
                wire.here.registerProducer(Producer(), True)
            wire.here.unregisterProducer()
            wire.here.registerProducer(Producer(), True)

        def test_a_new_producer_is_not_resumed_for_the_one_before(self) -> None:
            wire, producer, next_one = Wire(), Producer(), Producer()
            wire.here.registerProducer(producer, True)
            wire.here.write(bytes(wire.here.buffer_size + 1))
            wire.here.unregisterProducer()
            wire.here.registerProducer(next_one, True)
            wire.flush()
            assert (producer, next_one) == (["pause"], [])

        def test_a_pull_producer_is_asked_for_more(self) -> None:
            wire, producer = Wire(), Producer()
            wire.here.registerProducer(producer, False)
            assert producer == ["resume"]
            wire.here.write(bytes(wire.here.buffer_size + 1))
            assert producer == ["resume"]
            wire.flush()
            assert producer == ["resume", "resume"]

        def test_a_producer_is_stopped_at_the_end(self) -> None:
            wire, producer, late = Wire(), Producer(), Producer()
            wire.here.registerProducer(producer, True)
            wire.link.cut()
            assert producer == ["stop"]
            wire.here.registerProducer(late, True)
            assert late == ["stop"]

        def test_a_paused_end_reads_nothing(self) -> None:
            wire = Wire()
            wire.there.pauseProducing()
            wire.here.write(b"data")
            wire.here.loseWriteConnection()
            assert wire.flush().far.heard == []
            wire.there.resumeProducing()
            assert wire.flush().far.heard == [b"data", ConnectionDone]

    class TestClosing:
        """The end of the transport in memory."""

        def test_a_close_is_after_written_data(self) -> None:
            wire = Wire(chunk=3)
            wire.here.write(b"last words")
            wire.here.loseConnection()
            assert (wire.here.disconnecting, wire.near.heard) == (True, [])
            wire.flush()
            assert wire.far.heard == [b"las", b"t w", b"ord", b"s", ConnectionDone]
            assert wire.near.heard == [ConnectionDone]
            assert not wire.here.connected
            assert not wire.there.connected

        def test_a_close_is_after_the_producer(self) -> None:
            wire = Wire()
            wire.here.registerProducer(Producer(), True)
            wire.here.loseConnection()
            assert wire.flush().near.heard == []
            wire.here.write(b"more")
            assert wire.flush().far.heard == [b"more"]
            wire.here.unregisterProducer()
            assert wire.flush().far.heard == [b"more", ConnectionDone]
            assert wire.near.heard == [ConnectionDone]

        def test_a_stopped_end_is_not_read(self) -> None:
            wire = Wire()
            wire.here.registerProducer(Producer(), True)
            wire.here.stopProducing()
            wire.there.write(b"too late")
            assert wire.flush().near.heard == []
            assert wire.there.buffered == 0

        def test_both_ends_can_close(self) -> None:
            wire = Wire()
            for end in (wire.here, wire.there):
                end.write(b"data")
                end.loseConnection()
            wire.flush()
            assert wire.near.heard == [ConnectionDone]
            assert wire.far.heard == [ConnectionDone]

        def test_nothing_is_written_after_the_end(self) -> None:
            wire = Wire()
            wire.here.loseConnection()
            wire.flush()
            wire.here.write(b"too late")
            wire.here.loseConnection()
            wire.here.abortConnection()
            assert wire.here.buffered == 0
            assert wire.flush().near.heard == [ConnectionDone]
            assert wire.far.heard == [ConnectionDone]

        def test_a_protocol_that_still_writes_learns_of_the_end(self) -> None:
            wire = Wire(HalfNotes)
            wire.here.loseConnection()
            assert wire.flush().far.heard == ["read"]
            assert wire.there.connected
            wire.there.write(b"to nobody")
            assert wire.flush().far.heard == ["read", ConnectionLost]

        def test_an_abort_loses_written_data(self) -> None:
            wire = Wire()
            wire.here.write(b"lost")
            wire.there.pauseProducing()
            wire.here.abortConnection()
            assert wire.near.heard == []
            wire.flush()
            assert wire.near.heard == [ConnectionAborted]
            assert wire.far.heard == [ConnectionLost]

        def test_an_aborted_end_reads_nothing_more(self) -> None:
            wire = Wire()
            wire.here.write(b"too late")
            wire.there.abortConnection()
            assert wire.flush().far.heard == [ConnectionAborted]

        @pytest.mark.parametrize("protocol", [Notes, HalfNotes])
        def test_an_abort_during_a_stall_is_seen_later(self, protocol: type[Notes]) -> None:
            wire = Wire(protocol)
            wire.here.stalled = True
            wire.here.abortConnection()
            wire.flush()
            assert (wire.near.heard, wire.far.heard) == ([ConnectionAborted], [])
            wire.here.stalled = False
            assert wire.flush().far.heard == [ConnectionLost]

    class TestHalfClosing:
        """Half-closes of the transport in memory."""

        def test_a_half_close_ends_one_direction(self) -> None:
            wire = Wire(HalfNotes)
            wire.here.write(b"request")
            wire.here.loseWriteConnection()
            wire.flush()
            assert wire.far.heard == [b"request", "read"]
            assert wire.near.heard == ["written"]
            wire.here.write(b"too late")
            wire.here.loseWriteConnection()
            wire.there.write(b"answer")
            wire.there.loseConnection()
            wire.flush()
            assert wire.near.heard == ["written", b"answer", "read"]
            assert wire.far.heard == [b"request", "read", ConnectionDone]
            wire.here.loseConnection()
            assert wire.flush().near.heard == ["written", b"answer", "read", ConnectionDone]

        def test_a_half_close_is_after_the_producer(self) -> None:
            wire = Wire(HalfNotes)
            wire.here.registerProducer(Producer(), True)
            wire.here.loseWriteConnection()
            assert wire.flush().far.heard == []
            wire.here.unregisterProducer()
            assert wire.flush().far.heard == ["read"]

        def test_an_abort_is_possible_after_a_half_close(self) -> None:
            wire = Wire(HalfNotes)
            wire.here.loseWriteConnection()
            wire.flush()
            wire.here.abortConnection()
            wire.flush()
            assert wire.near.heard == ["written", ConnectionAborted]
            assert wire.far.heard == ["read", ConnectionLost]

        def test_an_abort_replaces_a_pending_half_close(self) -> None:
            wire = Wire(HalfNotes)
            wire.here.loseWriteConnection()
            wire.here.abortConnection()
            wire.flush()
            assert wire.near.heard == [ConnectionAborted]
            assert wire.far.heard == [ConnectionLost]

        def test_a_half_close_ends_both_sides_for_other_protocols(self) -> None:
            wire = Wire()
            wire.here.loseWriteConnection()
            wire.flush()
            assert wire.far.heard == [ConnectionDone]
            assert wire.near.heard == [ConnectionDone]

    class TestFaults:
        """Faults of the transport in memory."""

        @pytest.mark.parametrize("octets", range(5))
        @pytest.mark.parametrize("chunk", [1, 3, 100])
        def test_a_link_can_break_after_a_number_of_bytes(self, octets: int, chunk: int) -> None:
            wire = Wire(chunk=chunk)
            wire.here.break_after(octets)
            wire.here.write(b"data, more than arrives")
            wire.flush()
            *arrived, end = wire.far.heard
            assert (b"".join(arrived), end) == (b"data, more"[:octets], ConnectionLost)
            assert wire.near.heard == [ConnectionLost]

        def test_a_link_does_not_break_earlier(self) -> None:
            wire = Wire()
            wire.here.break_after(5)
            wire.here.write(b"data")
            assert wire.flush().far.heard == [b"data"]
            wire.there.write(b"the other way counts nothing")
            assert len(wire.flush().near.heard) == 1
            wire.here.write(b"xy")
            assert wire.flush().far.heard == [b"data", b"x", ConnectionLost]

        def test_a_link_can_stall(self) -> None:
            wire = Wire()
            wire.here.stalled = True
            wire.here.write(b"data")
            wire.here.loseConnection()
            wire.there.write(b"to one that closes")
            wire.flush()
            assert (wire.near.heard, wire.far.heard) == ([], [])
            wire.here.stalled = False
            assert wire.flush().far.heard == [b"data", ConnectionDone]

        def test_a_link_can_be_cut(self) -> None:
            wire = Wire()
            wire.here.write(b"data")
            wire.link.cut()
            wire.link.cut()
            assert wire.flush().near.heard == wire.far.heard == [ConnectionLost]


class TestLink:
    """The link between the two transports."""

    def test_a_flush_inside_a_hook_is_left_to_the_outer_call(self) -> None:
        wire = Wire()

        def answer(data: bytes) -> None:
            wire.there.write(b"answer")
            assert wire.flush().near.heard == []

        wire.far.dataReceived = answer  # type: ignore[method-assign]
        wire.here.write(b"data")
        assert wire.flush().near.heard == [b"answer"]

    def test_an_endless_exchange_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("twisted_beastws.testing.link.MAX_ROUNDS", 10)
        wire = Wire()
        wire.near.dataReceived = wire.here.write  # type: ignore[method-assign]
        wire.far.dataReceived = wire.there.write  # type: ignore[method-assign]
        wire.here.write(b"echo")
        with pytest.raises(AssertionError, match="still sent after 10 deliveries"):
            wire.flush()

    def test_each_call_is_made_at_its_time_before_the_next(self) -> None:
        wire = Wire()
        clock, seen = wire.link.clock, []
        wire.far.dataReceived = lambda data: seen.append((clock.seconds(), data))  # type: ignore
        for delay in (3.0, 1.0, 2.5, 9.0):
            clock.callLater(delay, lambda delay: wire.here.write(b"%g" % delay), delay)
        wire.here.write(b"0")
        wire.link.advance(3.5)
        assert seen == [(0.0, b"0"), (1.0, b"1"), (2.5, b"2.5"), (3.0, b"3")]
        assert clock.seconds() == 3.5
        wire.link.advance(0)
        wire.link.advance(5.5)
        assert seen[4:] == [(9.0, b"9")]

    def test_calls_that_become_due_are_made(self) -> None:
        wire = Wire()
        clock, seen = wire.link.clock, []

        def again() -> None:
            seen.append(clock.seconds())
            clock.callLater(0.3, again)

        again()
        wire.link.advance(1.0)
        assert seen == pytest.approx([0, 0.3, 0.6, 0.9])


class Other(WebSocketProtocol):
    pass


async def echo(ws: WebSocketProtocol) -> None:
    async for message in ws:
        ws.send(message)
        await ws.drain()


def result(deferred: Deferred[Any]) -> Any:
    """Return the result of ``deferred``, which must have fired."""
    results: list[Any] = []
    deferred.addCallback(results.append)
    assert results, "it did not fire"
    return results[0]


def closed(pair: ConnectedPair[Any, Any]) -> bool:
    return pair.server.state is pair.client.state is State.CLOSED and pair.clock.getDelayedCalls() == []


class TestConnectedPair:
    """`connected_pair`: both ends of a connection."""

    @pytest.mark.parametrize("server", [Echo, echo, WebSocketServerFactory(Echo)])
    def test_both_ends_are_open(self, server: Any) -> None:
        pair = connected_pair(server, Other)
        assert isinstance(pair.client, Other)
        assert (pair.server.state, pair.client.state) == (State.OPEN, State.OPEN)
        assert (inside(pair.server).role, inside(pair.client).role) == (Role.SERVER, Role.CLIENT)
        pair.client.send("text")
        pair.client.send(b"binary")
        pair.flush()
        assert [result(pair.client.receive()) for _ in "12"] == ["text", b"binary"]

    def test_a_real_handshake_is_made(self) -> None:
        pair = connected_pair(Echo, host="example.org:81", target="/chat?room=1")
        assert pair.server.request is not None
        assert pair.server.request.target == "/chat?room=1"
        assert pair.server.request is not None
        assert pair.server.request.field("Host") == "example.org:81"
        assert pair.client.response is not None
        assert pair.client.response.status == 101
        assert pair.client.response is not None
        assert pair.client.response.field("Upgrade") == "websocket"

    def test_both_ends_have_options(self) -> None:
        pair = connected_pair(
            Echo,
            client_options={"subprotocols": ("b", "c"), "limits": Limits(max_message_size=10)},
            subprotocols=["a", "b"],
            timeouts=Timeouts(idle=7.0, ping_interval=3.0),
        )
        assert pair.server.subprotocol == pair.client.subprotocol == "b"
        assert inside(pair.server).settings.timeouts.idle == 7.0
        assert inside(pair.client).settings.limits.max_message_size == 10

    def test_a_client_can_close(self) -> None:
        pair = connected_pair(Echo)
        closing = pair.client.close(4000, "enough")
        pair.flush()
        assert result(closing).clean
        assert pair.server.close_reason is not None
        assert (pair.server.close_reason.code, pair.server.close_reason.reason) == (4000, "enough")
        assert closed(pair)

    def test_a_server_can_close(self) -> None:
        pair = connected_pair(Echo)
        closing = pair.server.close(4000, "enough")
        pair.flush()
        assert result(closing).clean
        assert pair.client.close_reason is not None
        assert pair.client.close_reason.code == 4000
        assert closed(pair)

    @pytest.mark.parametrize("end", ["server", "client"])
    def test_each_end_can_abort(self, end: str) -> None:
        pair = connected_pair(Echo)
        getattr(pair, end).abort()
        pair.flush()
        assert closed(pair)
        assert pair.server.close_reason is not None
        assert pair.client.close_reason is not None
        assert pair.server.close_reason.code == pair.client.close_reason.code == 1006

    @pytest.mark.parametrize("end", ["server", "client"])
    def test_each_end_can_half_close(self, end: str) -> None:
        pair = connected_pair(Echo)
        getattr(pair, f"{end}_transport").loseWriteConnection()
        inside(getattr(pair, end)).outgoing.finish(lambda: None)
        pair.flush()
        assert closed(pair)

    def test_a_pair_can_be_cut(self) -> None:
        pair = connected_pair(Echo)
        waiting = pair.client.receive()
        pair.cut()
        assert closed(pair)
        assert waiting.result.check(ConnectionClosed)  # type: ignore[attr-defined]
        waiting.addErrback(lambda _: None)

    def test_a_handshake_can_be_cut_anywhere(self) -> None:
        for octets in range(300):
            pair = connected_pair(Echo, opened=False, chunk=50)
            opening = pair.client.handshake("localhost")
            opening.addErrback(lambda _: None)
            pair.client_transport.break_after(octets)
            pair.flush()
            pair.client_transport.write(bytes(300))
            pair.flush()
            assert closed(pair), octets

    @pytest.mark.parametrize("chunk", [1, 2, 7, 1000])
    def test_data_can_be_moved_in_pieces(self, chunk: int) -> None:
        pair = connected_pair(Echo, chunk=chunk)
        pair.client.send("text" * 100)
        pair.flush()
        assert result(pair.client.receive()) == "text" * 100

    def test_time_passes_for_both(self) -> None:
        pair = connected_pair(
            Echo,
            client_options={"timeouts": Timeouts(idle=20.0, ping_interval=None)},
            timeouts=Timeouts(ping_interval=5.0),
        )
        pair.advance(100.0)
        assert state_of(pair.client) is State.OPEN
        assert pair.server.latency == 0.0
        pair.server_transport.stalled = True
        pair.advance(100.0)
        assert state_of(pair.client) is State.CLOSED
        assert pair.client.close_reason is not None
        assert str(pair.client.close_reason.error) == "nothing was received for 20 s"

    def test_a_stalled_reader_pauses_the_writer(self) -> None:
        pair, producer = connected_pair(Echo), Producer()
        pair.server.registerProducer(producer, True)
        pair.client_transport.pauseProducing()
        while "pause" not in producer:
            pair.server.send(bytes(10_000))
            pair.flush()
        assert pair.server_transport.buffered == 7 * 10_004
        assert 1 << 16 < pair.server.buffered_amount < (1 << 16) + 10_005
        waiting = pair.server.drain()
        assert not waiting.called
        pair.client_transport.resumeProducing()
        pair.flush()
        assert waiting.called
        assert producer == ["pause", "resume"]
        assert pair.server.buffered_amount == 0

    class TestHandshake:
        """The handshake of a `connected_pair`."""

        def test_the_clock_is_the_factorys(self) -> None:
            clock = Clock()
            assert connected_pair(WebSocketServerFactory(Echo, clock=clock)).clock is clock

        def test_the_clock_of_the_reactor_is_replaced(self) -> None:
            factory = WebSocketServerFactory(Echo)
            clock = Clock()
            pair = connected_pair(factory, clock=clock)
            assert pair.clock is inside(pair.server).settings.clock is inside(pair.client).settings.clock is clock
            assert factory.settings.clock is None
            assert factory.connections == {pair.server}

        def test_a_declined_handshake_is_an_error(self) -> None:
            class Declining(WebSocketProtocol):
                def upgrade_requested(self, request: Any) -> Response:
                    return Response(403, body="not you")

            clock = Clock()
            with pytest.raises(UpgradeDeclined) as caught:
                connected_pair(Declining, clock=clock)
            assert (caught.value.status, caught.value.response.body) == (403, b"not you")
            assert clock.getDelayedCalls() == []

        def test_a_waiting_handshake_is_an_error(self) -> None:
            class Waiting(WebSocketProtocol):
                def upgrade_requested(self, request: Any) -> Deferred[None]:
                    return Deferred()

            with pytest.raises(AssertionError, match="opened=False"):
                connected_pair(Waiting)

        def test_a_handshake_can_be_made_step_by_step(self) -> None:
            waiting: Deferred[None] = Deferred()

            class Waiting(WebSocketProtocol):
                def upgrade_requested(self, request: Any) -> Deferred[None]:
                    return waiting

            pair = connected_pair(Waiting, opened=False)
            opening = pair.client.handshake("localhost")
            pair.flush()
            assert not opening.called
            waiting.callback(None)
            pair.flush()
            assert result(opening).status == 101
            assert pair.server.state is State.OPEN


class TestFrame:
    """`Frame`, written as bytes."""

    @pytest.mark.parametrize(
        ("frame", "octets"),
        [
            (Frame.text("é"), "8102c3a9"),
            (Frame.text("a", fin=False), "010161"),
            (Frame.binary(b"\0"), "820100"),
            (Frame.binary(b"\0", fin=False), "020100"),
            (Frame(0, b"b"), "800162"),
            (Frame.ping(b"c"), "890163"),
            (Frame.pong(), "8a00"),
            (Frame.close(), "880203e8"),
            (Frame.close(1001, "a"), "880303e961"),
            (Frame.close(1005), "8800"),
            (Frame(2, b"a", rsv=4), "c20161"),
            (Frame(0xB, rsv=3), "bb00"),
        ],
    )
    def test_a_frame_has_these_bytes(self, frame: Frame, octets: str) -> None:
        assert frame.to_bytes(False).hex() == octets

    def test_a_masked_frame_has_these_bytes(self) -> None:
        # The masked example of RFC 6455 §5.7.
        assert Frame.text("Hello").to_bytes(True).hex() == "818537fa213d7f9f4d5158"


class TestScriptedClient:
    """`scripted_client`: the test acts as the client of a server."""

    def test_frames_can_be_sent_and_expected(self) -> None:
        peer = scripted_client(Echo)
        assert isinstance(peer.protocol, Echo)
        assert (peer.transport.getHost().port, peer.protocol_transport.getHost().port) == (50000, 80)
        peer.send(Frame.text("one"), Frame.binary(b"two"))
        assert peer.frames() == [Frame.text("one"), Frame.binary(b"two")]
        assert peer.frames() == []

    def test_bytes_can_be_sent(self) -> None:
        peer = scripted_client(Echo)
        peer.send(Frame.text("one").to_bytes(True)[:5])
        peer.expect()
        peer.send(Frame.text("one").to_bytes(True)[5:], Frame.ping())
        assert peer.read() == b"\x81\x03one\x8a\x00"

    def test_a_bad_frame_can_be_sent(self) -> None:
        peer = scripted_client(Echo)
        peer.send(Frame(0xB, b"?"))
        peer.expect(Frame.close(1002))
        assert peer.ended
        assert peer.protocol.close_reason is not None
        assert peer.protocol.close_reason.sent is not None
        assert peer.clock.getDelayedCalls() == []

    @pytest.mark.parametrize("frames", [[], [Frame.text("two")], [Frame.text("one"), Frame.text("two")]])
    def test_an_unexpected_frame_is_an_error(self, frames: list[Frame]) -> None:
        peer = scripted_client(Echo)
        peer.send(Frame.text("one"))
        with pytest.raises(AssertionError, match="expected"):
            peer.expect(*frames)

    def test_half_a_frame_is_not_expected(self) -> None:
        peer = scripted_client(Echo)
        peer.protocol_transport.write(b"\x81")
        assert peer.frames() == []
        with pytest.raises(AssertionError, match=r"b'\\x81' behind"):
            peer.expect()
        peer.protocol_transport.write(b"\x01a")
        peer.expect(Frame.text("a"))

    @pytest.mark.parametrize("octets", ["8180 11111111", "817e0001 61", "817f0000000000000001 61"])
    def test_a_bad_frame_of_the_protocol_is_an_error(self, octets: str) -> None:
        peer = scripted_client(Echo)
        peer.protocol_transport.write(bytes.fromhex(octets))
        with pytest.raises(AssertionError, match="not a correct frame"):
            peer.frames()

    @pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
    def test_frames_of_every_size_are_read(self, size: int) -> None:
        peer = scripted_client(Echo, chunk=1000)
        peer.send(Frame.binary(bytes(size)))
        peer.expect(Frame.binary(bytes(size)))

    def test_a_handshake_can_be_scripted(self) -> None:
        peer = scripted_client(Echo, opened=False)
        peer.send(upgrade_request("/chat", "example.org", {"Origin": "https://evil.example", "X": "y"}))
        assert peer.read_head().startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert peer.read().startswith(b"The Origin https://evil.example is not this site (Host: example.org)")
        peer.send(upgrade_request(headers={"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}))
        assert b"Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\n" in peer.read_head()
        assert peer.protocol.state is State.OPEN

    def test_the_fields_of_a_handshake_can_be_given(self) -> None:
        peer = scripted_client(Echo, target="/x", headers={"Sec-WebSocket-Protocol": "b"}, subprotocols=["a", "b"])
        assert peer.protocol.request is not None
        assert (peer.protocol.subprotocol, peer.protocol.request.target) == ("b", "/x")

    def test_a_declined_handshake_is_an_error(self) -> None:
        clock = Clock()
        with pytest.raises(AssertionError, match=r"the server declined.* 403 "):
            scripted_client(Echo, headers={"Origin": "https://evil.example"}, clock=clock)
        assert clock.getDelayedCalls() == []

    def test_a_missing_head_is_an_error(self) -> None:
        peer = scripted_client(Echo, opened=False)
        with pytest.raises(AssertionError, match="no HTTP head came: b''"):
            peer.read_head()

    def test_the_time_can_be_advanced(self) -> None:
        peer = scripted_client(Echo, timeouts=Timeouts(ping_interval=5.0, idle=12.0))
        peer.advance(11.0)
        peer.expect(Frame.ping(), Frame.ping())
        peer.advance(1.0)
        peer.expect(Frame.close(1011, "nothing was received for 12 s"))

    def test_a_connection_can_be_cut(self) -> None:
        peer = scripted_client(Echo)
        assert not peer.ended
        peer.cut()
        assert peer.ended

    def test_a_half_close_of_the_client_ends_the_connection(self) -> None:
        peer = scripted_client(Echo)
        peer.transport.loseWriteConnection()
        peer.flush()
        assert peer.ended
        assert peer.protocol.close_reason is not None
        assert peer.protocol.close_reason.code == 1006


class TestScriptedServer:
    """`scripted_server`: the test acts as the server of a client."""

    def test_frames_can_be_sent_and_expected(self) -> None:
        peer = scripted_server(Echo)
        assert inside(peer.protocol).role is Role.CLIENT
        assert (peer.transport.getHost().port, peer.protocol_transport.getHost().port) == (80, 50000)
        peer.send(Frame.text("one"), Frame.ping(b"two"))
        peer.expect(Frame.text("one"), Frame.pong(b"two"))

    def test_a_client_can_close(self) -> None:
        peer = scripted_server(Echo)
        closing = peer.protocol.close(4000)
        peer.expect(Frame.close(4000))
        peer.send(Frame.close(4000))
        # RFC 6455 §7.1.1: the client waits for the server to close TCP.
        assert not peer.ended
        peer.transport.loseConnection()
        peer.flush()
        assert result(closing).clean
        assert peer.clock.getDelayedCalls() == []

    def test_an_unmasked_frame_of_a_client_is_an_error(self) -> None:
        peer = scripted_server(Echo)
        peer.protocol_transport.write(b"\x81\x01aaaaa")
        with pytest.raises(AssertionError, match="not a correct frame"):
            peer.frames()

    def test_a_handshake_can_be_scripted(self) -> None:
        peer = scripted_server(WebSocketProtocol, opened=False, client_options={"subprotocols": ("a",)})
        opening = peer.protocol.handshake("example.org", "/chat")
        request = peer.read_head()
        assert request.startswith(b"GET /chat HTTP/1.1\r\nHost: example.org\r\n")
        peer.send(upgrade_response(request, {"Sec-WebSocket-Protocol": "a"}), Frame.text("at once"))
        assert result(opening).status == 101
        assert peer.protocol.subprotocol == "a"
        assert result(peer.protocol.receive()) == "at once"

    def test_the_fields_of_a_handshake_can_be_given(self) -> None:
        peer = scripted_server(Other, headers={"X-One": "two"})
        assert isinstance(peer.protocol, Other)
        assert peer.protocol.response is not None
        assert peer.protocol.response.field("X-One") == "two"

    def test_a_failed_handshake_is_reported(self) -> None:
        clock = Clock()
        with pytest.raises(BadSecAccept):
            scripted_server(Other, headers={"Sec-WebSocket-Accept": "?"}, clock=clock)
        assert clock.getDelayedCalls() == []

    def test_the_server_can_send_any_bytes(self) -> None:
        peer = scripted_server(WebSocketProtocol, opened=False)
        opening = peer.protocol.handshake("localhost")
        peer.send(b"HTTP/1.1 418 I'm a teapot\r\nContent-Length: 5\r\n\r\nshort")
        failure = opening.result
        opening.addErrback(lambda _: None)
        assert failure.check(UpgradeDeclined)  # type: ignore[attr-defined]
        assert failure.value.response.body == b"short"  # type: ignore[attr-defined]


class InTrial(SynchronousTestCase):
    __test__ = False

    def test_a_pair_can_talk(self) -> None:
        pair = connected_pair(Echo)
        received = pair.client.receive()
        self.assertNoResult(received)
        pair.client.send("hello")
        pair.flush()
        self.assertEqual(self.successResultOf(received), "hello")

    def test_a_failure_is_logged(self) -> None:
        class Failing(WebSocketProtocol):
            def text_received(self, text: str) -> None:
                raise ValueError(text)

        peer = scripted_client(Failing)
        peer.send(Frame.text("oops"))
        peer.expect(Frame.close(1011))
        self.assertEqual([str(failure.value) for failure in self.flushLoggedErrors(ValueError)], ["oops"])


@pytest.mark.parametrize("name", ["test_a_pair_can_talk", "test_a_failure_is_logged"])
def test_trial_can_use_the_helpers(name: str) -> None:
    outcome = unittest.TestResult()
    InTrial(name).run(outcome)
    assert outcome.testsRun == 1
    assert outcome.wasSuccessful(), outcome.errors + outcome.failures


class TestMessages:
    """The messages of a connection, listed for a test."""

    def test_every_message_is_listed_and_none_is_consumed(self) -> None:
        class Talks(Echo):
            def opened(self) -> None:
                self.send("one")
                with self.message(Opcode.BINARY) as message:
                    message.write(b"tw")
                    message.write(b"o")
                self.ping()

        peer = scripted_client(Talks)
        assert peer.messages() == ["one", b"two"]
        assert peer.messages() == ["one", b"two"]
        frames = peer.frames()
        assert frames[0] == Frame.text("one") and len(frames) >= 4
        peer.send(Frame.text("three"))
        peer.expect(Frame.text("three"))
        assert peer.messages() == ["one", b"two", "three"]

    def test_an_unfinished_message_is_not_listed(self) -> None:
        class Talks(WebSocketProtocol):
            def opened(self) -> None:
                self.writer = self.message()
                self.writer.__enter__().write("half")

        assert scripted_client(Talks).messages() == []
