"""The counts of a meter, and no counting without one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock

from twisted_beastws import (
    Deflate,
    Limits,
    Opcode,
    Request,
    Response,
    Timeouts,
    WebSocketProtocol,
    WebSocketServerFactory,
    prepare,
)
from twisted_beastws.server.observers.metering import ROUND_TRIPS, Meter
from twisted_beastws.server.observers.traffic import Traffic
from twisted_beastws.streams.tunnel import TunnelFactory

from ...support.inside import inside

pytestmark = pytest.mark.usefixtures("logged")

DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"


class Hooked(WebSocketProtocol):
    def text_received(self, text: str) -> None:
        """Nothing is done with it."""

    def binary_received(self, data: bytes) -> None:
        """Nor with this."""


class Streamed(WebSocketProtocol):
    def fragment_received(self, data: bytes, opcode: Opcode, final: bool) -> None:
        """Pieces."""


class Server:
    """A metered server, with clients in memory."""

    def __init__(self, connect: Callable[..., Any], clock: Clock, served: Any = Hooked, **options: Any) -> None:
        self.connect = connect
        self.clock = clock
        self.meter = Meter()
        self.factory = WebSocketServerFactory(served, clock=clock, **options)
        self.factory.add_observer(self.meter)

    def client(self, *, deflate: bool = False, opened: bool = True) -> Any:
        peer = self.connect(factory=self.factory, opened=opened and not deflate)
        if deflate:
            peer.sends(peer.HEAD[:-2] + DEFLATE)
            assert b"permessage-deflate" in peer.reads()
        return peer

    @property
    def traffic(self) -> Traffic:
        return self.meter.all_traffic


@pytest.fixture
def serve(connect: Callable[..., Any], clock: Clock) -> Callable[..., Server]:
    return lambda *arguments, **options: Server(connect, clock, *arguments, **options)


class TestReceived:
    """The messages and bytes received."""

    @pytest.mark.parametrize("served", [Hooked, Streamed, WebSocketProtocol])
    @pytest.mark.parametrize("deflate", [False, True])
    def test_whole_messages_are_counted(self, serve: Any, served: Any, deflate: bool) -> None:
        server = serve(served, deflate=Deflate())
        peer = server.client(deflate=deflate)
        peer.sends(peer.text("hello"), peer.text("h\u00e9"), peer.text(""), peer.frame(0x82, b"\0\1"))
        assert server.traffic == Traffic(3, 8, 1, 2)

    @pytest.mark.parametrize("served", [Hooked, Streamed, WebSocketProtocol])
    def test_messages_in_fragments_and_in_chunks_are_counted(self, serve: Any, served: Any) -> None:
        server = serve(served)
        peer = server.client()
        octets = peer.frame(0x01, b"he") + peer.frame(0x89, b"ping") + peer.frame(0x80, b"llo")
        octets += peer.frame(0x02, b"12") + peer.frame(0x80, b"")
        peer.sends(*(octets[at : at + 1] for at in range(len(octets))))
        assert server.traffic == Traffic(1, 5, 1, 2)

    @pytest.mark.parametrize("served", [Hooked, Streamed])
    def test_compressed_messages_count_with_their_inflated_size(self, serve: Any, served: Any) -> None:
        server = serve(served, deflate=Deflate())
        peer = server.client(deflate=True)
        # RFC 7692 §7.2.3.1: "Hello".
        peer.sends(peer.frame(0xC1, bytes.fromhex("f248cdc9c90700")))
        assert server.traffic == Traffic(1, 5)

    def test_messages_that_wait_for_a_slow_hook_are_counted_once(self, serve: Any) -> None:
        answers: list[Deferred[None]] = []

        class Slow(WebSocketProtocol):
            def text_received(self, text: str) -> Deferred[None]:
                answers.append(Deferred())
                return answers[-1]

        server = serve(Slow)
        peer = server.client()
        peer.sends(*[peer.text("hello")] * 3)
        assert server.traffic == Traffic(3, 15)
        while answers:
            answers.pop(0).callback(None)
        assert server.traffic == Traffic(3, 15)

    def test_refused_messages_and_those_after_a_close_are_not_counted(self, serve: Any) -> None:
        class Texts(WebSocketProtocol):
            def text_received(self, text: str) -> None:
                """No binary ones."""

        server = serve(Texts)
        peer = server.client()
        peer.sends(peer.frame(0x82, b"no"))
        other = server.client()
        other.protocol.close()
        other.sends(other.text("late"))
        assert server.traffic == Traffic()


class TestSent:
    """The messages and bytes sent."""

    @pytest.mark.parametrize("deflate", [False, True])
    def test_every_way_of_sending_is_counted(self, serve: Any, deflate: bool) -> None:
        server = serve(deflate=Deflate())
        ws = server.client(deflate=deflate).protocol
        ws.send("hello")
        ws.send("h\u00e9")
        ws.send(b"\0\1")
        ws.send("x", compress=False)
        ws.send_text(b"y")
        ws.send_text("z")
        ws.send_binary(b"b")
        ws.send_binary(b"c", compress=True)
        ws.write(b"d")
        assert server.traffic == Traffic(sent_texts=5, sent_text_octets=11, sent_binaries=4, sent_binary_octets=5)

    @pytest.mark.parametrize("compress", [None, False, True])
    @pytest.mark.parametrize("deflate", [False, True])
    @pytest.mark.parametrize("size", [5, 20])
    def test_prepared_messages_are_counted(self, serve: Any, deflate: bool, compress: bool | None, size: int) -> None:
        server = serve(deflate=Deflate(), limits=Limits(fragment_size=10))
        ws = server.client(deflate=deflate).protocol
        ws.send(prepare("x" * size, compress=compress))
        ws.send(prepare(b"x" * size, compress=compress))
        ws.send("after")
        assert server.traffic[4:] == (2, size + 5, 1, size)

    @pytest.mark.parametrize("deflate", [False, True])
    def test_streamed_and_held_messages_are_counted(self, serve: Any, deflate: bool) -> None:
        server = serve(deflate=Deflate())
        peer = server.client(deflate=deflate)
        with peer.protocol.message() as message:
            message.write("hel")
            peer.protocol.send("behind")
            peer.protocol.send(prepare(b"too"))
            message.write(b"lo")
        with peer.protocol.message(Opcode.BINARY) as message:
            message.write(b"1")
        assert server.traffic == Traffic(sent_texts=2, sent_text_octets=11, sent_binaries=2, sent_binary_octets=4)

    def test_a_refused_message_is_not_counted(self, serve: Any) -> None:
        server = serve(
            limits=Limits(slow_reader="pause", max_message_size=100, max_buffered=100, high_water=50, low_water=10)
        )
        peer = server.client()
        peer.transport.stall()
        peer.protocol.send(bytes(90))
        for message in (bytes(50), "x" * 50, prepare("x" * 50)):
            with pytest.raises(Exception, match=r"wait for a slow reader|max_buffered"):
                peer.protocol.send(message)
                peer.protocol.send(message)
        with pytest.raises(UnicodeEncodeError):
            peer.protocol.send("\ud800")
        assert server.traffic.sent_texts == 0
        assert server.traffic.sent_binaries <= 2


class TestConnections:
    """The connections, open and closed."""

    def test_the_counts_of_closed_connections_are_kept(self, serve: Any) -> None:
        server = serve()
        for _ in range(2):
            peer = server.client()
            peer.sends(peer.text("hello"))
            peer.leaves()
        assert server.factory.connections == set()
        assert server.traffic == server.meter.traffic == Traffic(2, 10)
        assert server.meter.handshakes == {"101": 2}

    @pytest.mark.parametrize(
        ("ending", "code", "began"),
        [
            (lambda peer: peer.sends(peer.close(1000)), "1000", "peer"),
            (lambda peer: peer.sends(peer.close(None)), "1005", "peer"),
            (lambda peer: peer.sends(peer.close(3210)), "3xxx", "peer"),
            (lambda peer: peer.sends(peer.close(4999)), "4xxx", "peer"),
            (lambda peer: peer.sends(b"\x81\x00"), "1002", "local"),
            (lambda peer: peer.protocol.close(1012), "1012", "local"),
            (lambda peer: peer.protocol.close(4000), "4xxx", "local"),
            (lambda peer: None, "1006", "transport"),
        ],
    )
    def test_an_end_is_counted_by_its_code_and_origin(self, serve: Any, ending: Any, code: str, began: str) -> None:
        server = serve()
        peer = server.client()
        ending(peer)
        peer.leaves(ConnectionLost())
        assert server.meter.closes == {(code, began): 1}

    def test_the_hooks_of_the_class_are_still_called(self, serve: Any) -> None:
        called = []

        class Watching(WebSocketProtocol):
            def opened(self) -> None:
                called.append("opened")

            def pong_received(self, payload: bytes) -> None:
                called.append("pong")

            def closed(self, reason: object) -> None:
                called.append("closed")

            def connectionLost(self, reason: Any = None) -> None:
                called.append("lost")
                super().connectionLost(reason)

        peer = serve(Watching).client()
        peer.sends(peer.frame(0x8A))
        peer.leaves()
        assert called == ["opened", "pong", "lost", "closed"]


class TestHandshakes:
    """The answers to handshakes."""

    def test_handshakes_are_counted_by_their_status(self, serve: Any) -> None:
        class Choosy(WebSocketProtocol):
            def http_requested(self, request: Request) -> Response | None:
                return Response(200, body="page") if request.path == "/page" else None

            def upgrade_requested(self, request: Request) -> Response | None:
                return Response(403) if request.path == "/no" else None

        server = serve(Choosy)
        peer = server.client(opened=False)
        peer.sends(b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n", b"GET /chat HTTP/1.1\r\nHost: h\r\n\r\n")
        peer.sends(peer.HEAD.replace(b"/chat", b"/no"), peer.HEAD[:-2] + b"Origin: http://evil\r\n\r\n", peer.HEAD)
        noise = server.client(opened=False)
        noise.sends(b"\0\0\r\n\r\n")
        assert server.meter.handshakes == {"400": 1, "426": 1, "403": 2, "101": 1}
        assert server.meter.responses == {"200": 1}

    def test_a_handshake_that_times_out_is_counted(self, serve: Any, clock: Clock) -> None:
        server = serve(timeouts=Timeouts(handshake=5.0))
        peer = server.client(opened=False)
        peer.sends(peer.HEAD[:-2])
        clock.advance(5.1)
        assert server.meter.handshakes == {"timeout": 1}

    def test_an_idle_connection_after_a_response_is_not_counted(self, serve: Any, clock: Clock) -> None:
        server = serve(timeouts=Timeouts(handshake=5.0, keep_alive=5.0))
        peer = server.client(opened=False)
        peer.sends(peer.HEAD.replace(b"GET", b"POST"))
        clock.advance(5.1)
        assert peer.transport.disconnecting
        peer.leaves()
        assert server.meter.handshakes == {"400": 1}

    def test_a_client_that_leaves_before_its_request_is_not_counted(self, serve: Any) -> None:
        server = serve()
        peer = server.client(opened=False)
        peer.sends(peer.HEAD[:-2])
        peer.leaves()
        assert server.meter.handshakes == {}

    def test_a_handshake_during_a_drain_is_counted(self, serve: Any) -> None:
        server = serve()
        server.client()
        late = server.client(opened=False)
        server.factory.drain(seconds=8.0)
        late.sends(late.HEAD)
        assert server.meter.handshakes == {"101": 1, "503": 1}


class TestRoundTrips:
    """The times from ping to pong."""

    def test_round_trips_are_counted_by_their_length(self, serve: Any, clock: Clock) -> None:
        server = serve(timeouts=Timeouts(ping_interval=None))
        peer = server.client()
        for seconds in (0.0005, 0.001, 0.3, 11.0):
            peer.protocol.ping(b"x")
            clock.advance(seconds)
            peer.sends(peer.frame(0x8A, b"x"))
        peer.sends(peer.frame(0x8A, b"nobody asked"))
        expected = [0] * (len(ROUND_TRIPS) + 1)
        expected[0], expected[ROUND_TRIPS.index(0.5)], expected[-1] = 2, 1, 1
        assert server.meter.round_trips == expected
        assert server.meter.round_trip_seconds == pytest.approx(11.3015)

    def test_the_keepalives_own_pings_are_counted(self, serve: Any, clock: Clock) -> None:
        server = serve(timeouts=Timeouts(ping_interval=1.0))
        peer = server.client()
        for _ in range(33):
            clock.advance(1 / 32)
        assert peer.reads() == b"\x89\x00"
        peer.sends(peer.frame(0x8A))
        assert sum(server.meter.round_trips) == 1


SMALL: dict[str, Any] = {"max_message_size": 1000, "max_buffered": 1000, "high_water": 500, "low_water": 100}


class TestSlowReaders:
    """The peers that read too slowly."""

    def test_a_closed_slow_reader_is_counted_once(self, serve: Any) -> None:
        server = serve(limits=Limits(slow_reader="close", **SMALL))
        peer = server.client()
        peer.transport.stall()
        for _ in range(20):
            if not peer.protocol.dropped_messages:
                peer.protocol.send(bytes(200))
        inside(peer.protocol).overflowed()
        peer.leaves()
        assert (server.meter.slow_readers, server.meter.dropped) == (1, 0)

    def test_dropped_messages_are_counted(self, serve: Any) -> None:
        server = serve(limits=Limits(slow_reader="drop", **SMALL))
        peer = server.client()
        peer.transport.stall()
        for _ in range(20):
            peer.protocol.send(bytes(200))
        dropped = peer.protocol.dropped_messages
        assert dropped > 10
        peer.leaves()
        assert (server.meter.slow_readers, server.meter.dropped) == (0, dropped)


class TestTunnels:
    """Tunnels are metered, too."""

    def test_metered_tunnels_have_all_their_methods(self, connect: Callable[..., Any], clock: Clock) -> None:
        class Half(Protocol):
            def connectionMade(self) -> None:
                assert self.transport is not None
                self.transport.write(b"octets")
                cast(ITCPTransport, self.transport).loseWriteConnection()

        factory = TunnelFactory(Factory.forProtocol(Half), clock=clock)
        meter = Meter()
        factory.add_observer(meter)
        peer = connect(factory=factory, opened=False)
        peer.sends(peer.HEAD)
        assert peer.reads().endswith(b"\r\n\r\n\x82\x06octets\x88\x02\x03\xe8")
        peer.sends(peer.frame(0x82, b"four"), peer.close())
        peer.leaves()
        assert meter.traffic == Traffic(
            received_binaries=1, received_binary_octets=4, sent_binaries=1, sent_binary_octets=6
        )


@pytest.fixture
def plain(connect: Callable[..., Any]) -> Iterator[Any]:
    """A connection without a meter."""
    peer = connect(Hooked)
    yield peer
    peer.leaves()


def test_no_wrapper_is_bound_without_a_meter(plain: Any) -> None:
    protocol = plain.protocol
    session = inside(protocol).session
    assert protocol.send == session.writer.send
    assert session.reader.on_text == protocol.text_received
