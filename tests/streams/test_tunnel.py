"""Tests of `streams.tunnel` and `streams.transport`: stream protocols over WebSocket, in memory."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    INegotiated,
    IPullProducer,
    IPushProducer,
    ISSLTransport,
    ITCPTransport,
    ITLSTransport,
    ITransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from twisted_beastws import Deflate, Limits, Role, Timeouts, UpgradeDeclined, WebSocketProtocol
from twisted_beastws.options import Settings
from twisted_beastws.streams.transport import StreamTransport
from twisted_beastws.streams.tunnel import CLOSE, MAX_MESSAGE, ClientTunnelFactory, Tunnel, TunnelFactory
from twisted_beastws.testing import ConnectedPair, Frame, connected_pair, scripted_client, scripted_server

from ..support.inside import inside

pytestmark = pytest.mark.usefixtures("logged")

IDLE = 300.0


class Stream(Protocol):
    """Records received data and the end of the connection."""

    transport: Any

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.made = 0
        self.ends: list[Failure] = []

    def connectionMade(self) -> None:
        self.made += 1

    def dataReceived(self, data: bytes) -> None:
        assert data
        self.parts.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ends.append(reason)

    @property
    def octets(self) -> bytes:
        return b"".join(self.parts)

    @property
    def end(self) -> Any:
        """The reason of connectionLost(), or None while the connection is open."""
        assert len(self.ends) <= 1
        return self.ends[0].value if self.ends else None


@implementer(IHalfCloseableProtocol)
class Halves(Stream):
    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def readConnectionLost(self) -> None:
        self.told.append("read")

    def writeConnectionLost(self) -> None:
        self.told.append("write")


class Serving(Factory):
    """Makes protocols, and keeps them in order in ``built``."""

    def __init__(self, make: Any = Stream) -> None:
        self.make = make
        self.built: list[Any] = []
        self.addresses: list[Any] = []

    def buildProtocol(self, addr: Any) -> Any:
        self.addresses.append(addr)
        protocol = self.make()
        self.built.append(protocol)
        return protocol


class Pair:
    """Two streams and the tunnel between them."""

    def __init__(self, near: Any = Stream, far: Any = Stream, *, silent: bool = False, **options: Any) -> None:
        self.clock = Clock()
        self.near = near()
        serving = Serving(far)
        self.link: ConnectedPair[Any, Any] = connected_pair(
            TunnelFactory(serving, clock=self.clock, **options),
            lambda: Tunnel.carrying(self.near, ("binary",)),
            clock=self.clock,
            client_options={"timeouts": Timeouts(idle=None, ping_interval=None) if silent else Timeouts()},
        )
        (self.far,) = serving.built
        self.flush = self.link.flush

    def advance(self, seconds: float) -> None:
        self.link.advance(seconds)


def serve(make: Any = Stream, **options: Any) -> tuple[Any, Any]:
    """Return a server's stream in a tunnel, and the scripted client of that tunnel."""
    clock = Clock()
    serving = Serving(make)
    peer = scripted_client(TunnelFactory(serving, clock=clock), clock=clock, **options)
    (stream,) = serving.built or [None]
    return stream, peer


class TestBytes:
    """The bytes of a stream as binary messages."""

    def test_bytes_are_passed_both_ways(self) -> None:
        pair = Pair()
        pair.near.transport.write(b"there")
        pair.far.transport.writeSequence([b"and ", b"back"])
        pair.flush()
        assert (pair.near.octets, pair.far.octets) == (b"and back", b"there")

    def test_a_write_is_a_binary_message(self) -> None:
        stream, peer = serve()
        stream.transport.write(b"ab")
        stream.transport.writeSequence(iter((b"c", b"d")))
        stream.transport.write(b"")
        stream.transport.write(bytearray(b"e"))
        peer.expect(Frame.binary(b"ab"), Frame.binary(b"cd"), Frame.binary(b"e"))

    @pytest.mark.parametrize("size", [MAX_MESSAGE - 1, MAX_MESSAGE, MAX_MESSAGE + 1, 3 * MAX_MESSAGE])
    def test_a_long_write_is_sent_in_several_messages(self, size: int) -> None:
        stream, peer = serve()
        data = bytes(at % 251 for at in range(size))
        stream.transport.write(data)
        frames = peer.frames()
        assert [len(frame.payload) for frame in frames] == [
            min(MAX_MESSAGE, size - at) for at in range(0, size, MAX_MESSAGE)
        ]
        assert all(frame.fin for frame in frames)
        assert b"".join(frame.payload for frame in frames) == data

    def test_messages_of_any_length_and_frames_are_accepted(self) -> None:
        stream, peer = serve()
        peer.send(Frame.binary(b"", fin=False), *(Frame(0, b"x", fin=False) for _ in range(5000)))
        assert stream.octets == b"x" * 5000
        peer.send(Frame(0, bytes(3 << 20)))
        assert len(stream.octets) == 5000 + (3 << 20)
        assert peer.frames() == []

    def test_a_message_has_no_time_limit(self) -> None:
        stream, peer = serve()
        peer.send(Frame.binary(b"a", fin=False))
        for _ in range(20):
            peer.advance(60)
            peer.send(Frame.ping())
        peer.send(Frame(0, b"b"))
        assert stream.octets == b"ab"

    def test_text_is_refused(self) -> None:
        stream, peer = serve()
        peer.send(Frame.binary(b"a"), Frame.text("b", fin=False), Frame(0, b"c"), Frame.binary(b"d"))
        assert stream.octets == b"a"
        peer.expect(Frame.close(1003, "a stream takes binary messages"))
        peer.send(Frame.close(1003))
        assert isinstance(stream.end, ConnectionLost)

    @given(st.lists(st.tuples(st.booleans(), st.binary(max_size=300))), st.integers(1, 400))
    def test_any_writes_arrive_whole_in_any_chunks(self, writes: list[tuple[bool, bytes]], chunk: int) -> None:
        pair = Pair()
        pair.link.chunk = chunk
        for from_near, data in writes:
            (pair.near if from_near else pair.far).transport.write(data)
        pair.flush()
        assert pair.far.octets == b"".join(data for near, data in writes if near)
        assert pair.near.octets == b"".join(data for near, data in writes if not near)

    @pytest.mark.parametrize("text", ["text", 5, None])
    def test_only_bytes_are_accepted(self, text: int | str | None) -> None:
        stream, _ = serve()
        with pytest.raises(TypeError, match="bytes"):
            stream.transport.write(text)


class TestOpening:
    """The opening of a tunnel."""

    def test_the_subprotocol_is_that_of_websockify(self) -> None:
        pair = Pair()
        assert pair.link.client.subprotocol == pair.link.server.subprotocol == "binary"

    @pytest.mark.parametrize(
        ("offer", "answer"), [(None, None), ("base64, binary", b"binary"), ("base64", None)], ids=str
    )
    def test_a_client_without_subprotocol_is_served_too(self, offer: str | None, answer: bytes | None) -> None:
        stream, peer = serve(headers={"Sec-WebSocket-Protocol": offer} if offer else None)
        assert stream.made == 1
        assert peer.protocol.response.field("Sec-WebSocket-Protocol") == (answer.decode() if answer else None)

    def test_a_server_without_subprotocols_is_accepted(self) -> None:
        stream = Stream()
        peer = scripted_server(lambda: Tunnel.carrying(stream, ("binary",)))
        peer.send(Frame.binary(b"hello"))
        assert stream.octets == b"hello"

    def test_another_subprotocol_is_not_chosen(self) -> None:
        pair = Pair(subprotocols=("mqtt",))
        assert pair.link.server.subprotocol is None

    def test_the_stream_is_connected_once_it_is_open(self) -> None:
        serving = Serving()
        peer = scripted_client(TunnelFactory(serving, clock=Clock()), opened=False)
        peer.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert peer.read_head().startswith(b"HTTP/1.1 426 ")
        peer.cut()
        assert serving.built == []

    def test_bytes_after_the_handshake_are_delivered(self) -> None:
        pair = Pair(far=lambda: Greeting(b"hello"))
        pair.flush()
        assert pair.near.octets == b"hello"

    def test_a_factory_may_refuse(self) -> None:
        factory = TunnelFactory(Serving(lambda: None), clock=Clock())
        with pytest.raises(UpgradeDeclined, match="503"):
            connected_pair(factory, lambda: Tunnel.carrying(Stream(), ()))
        assert not factory.connections

    def test_the_factory_gets_the_peers_address(self) -> None:
        pair = Pair()
        assert pair.far.transport.getPeer() == pair.near.transport.getHost()
        serving = Serving()
        peer = scripted_client(TunnelFactory(serving, clock=Clock()))
        assert serving.addresses == [peer.protocol_transport.getPeer()]

    def test_the_limits_of_messages_do_not_apply(self) -> None:
        settings = TunnelFactory(Serving(), limits=Limits(max_message_size=1, max_buffered=1 << 16)).settings
        assert (settings.limits.max_message_size, settings.limits.max_fragments) == (None, None)
        assert settings.limits.max_buffered > 1 << 40
        assert (settings.timeouts.message, settings.timeouts.idle) == (None, 300.0)
        assert TunnelFactory(Serving(), deflate=Deflate()).settings.deflate is None

    def test_an_exception_in_connection_made_is_logged_once(self, logged: Callable[..., list[Any]]) -> None:
        class Broken(Stream):
            def connectionMade(self) -> None:
                raise ZeroDivisionError

        pair = Pair(far=Broken)
        pair.flush()
        assert len(logged(ZeroDivisionError)) == 1
        assert "1011" in str(pair.near.end)

    def test_a_client_factory_does_not_wrap_a_websocket_protocol(self) -> None:
        class Mine(WebSocketProtocol):
            pass

        assert type(ClientTunnelFactory(Factory.forProtocol(Mine), ()).buildProtocol(None)) is Mine
        assert ClientTunnelFactory(Serving(lambda: None), ()).buildProtocol(None) is None
        tunnel: Any = ClientTunnelFactory(Serving(), ("x",)).buildProtocol(None)
        assert type(tunnel.stream) is Stream
        tunnel.as_client(Settings(clock=Clock())).makeConnection(StringTransport())
        assert inside(tunnel).settings.subprotocols == ("x",)
        assert inside(tunnel).role is Role.CLIENT
        tunnel.abort()

    def test_the_factory_is_started_and_stopped(self) -> None:
        calls: list[str] = []
        inner: Any = Serving()
        inner.startFactory, inner.stopFactory = (lambda: calls.append("start")), (lambda: calls.append("stop"))
        wrappers: list[Any] = [TunnelFactory(inner), ClientTunnelFactory(inner, ())]
        for factory in wrappers:
            factory.doStart()
            factory.doStop()
        assert calls == ["start", "stop"] * 2

    def test_the_log_names_the_factory(self) -> None:
        class Plain:
            pass

        assert TunnelFactory(Serving()).logPrefix() == "Serving (WebSocket)"
        assert TunnelFactory(Plain()).logPrefix() == "Plain (WebSocket)"  # type: ignore[arg-type]


class Greeting(Stream):
    def __init__(self, greeting: bytes) -> None:
        super().__init__()
        self.greeting = greeting

    def connectionMade(self) -> None:
        self.transport.write(self.greeting)


class TestTheTransport:
    """The transport of the tunneled protocol, as an `ITransport`."""

    def test_the_transport_provides_its_interfaces(self) -> None:
        transport = Pair().near.transport
        for kind in (ITransport, ITCPTransport, IConsumer, IPushProducer):
            assert verifyObject(kind, transport)
        assert not ISSLTransport.providedBy(transport)
        assert not ITLSTransport.providedBy(transport)
        assert transport.connected

    def test_the_methods_of_the_transport_below_are_available(self) -> None:
        pair = Pair()
        pair.near.transport.setTcpKeepAlive(True)
        assert pair.near.transport.getTcpKeepAlive()
        assert pair.link.client_transport.getTcpKeepAlive()
        for name in ("startTLS", "negotiatedProtocol", "getPeerCertificate", "writeSomeData"):
            assert not hasattr(pair.near.transport, name)

    def test_the_methods_of_tls_are_available(self) -> None:
        @implementer(INegotiated)
        class Below:  # type: ignore[misc]
            negotiatedProtocol = b"http/1.1"

            def getPeerCertificate(self) -> str:
                return "certificate"

            def getHandle(self) -> str:
                return "connection"

        transport = StreamTransport(Tunnel(), Below())
        assert ISSLTransport.providedBy(transport) and ITCPTransport.providedBy(transport)
        assert (transport.getPeerCertificate(), transport.getHandle()) == ("certificate", "connection")
        # The TLS layer negotiated HTTP, but the stream inside the tunnel speaks another protocol.
        assert not INegotiated.providedBy(transport) and not hasattr(transport, "negotiatedProtocol")


class TestClosing:
    """The end of a tunnel."""

    @pytest.mark.parametrize("closer", ["near", "far"])
    def test_a_close_is_in_order(self, closer: str) -> None:
        pair = Pair()
        ours = getattr(pair, closer)
        ours.transport.write(b"last")
        ours.transport.loseConnection()
        ours.transport.loseConnection()
        assert ours.transport.disconnecting
        pair.flush()
        for stream in (pair.near, pair.far):
            assert type(stream.end) is ConnectionDone
            assert not stream.transport.connected
        assert {pair.near.octets, pair.far.octets} == {b"last", b""}
        assert pair.clock.getDelayedCalls() == []

    def test_a_close_is_sent_as_a_close_frame_with_1000(self) -> None:
        stream, peer = serve()
        stream.transport.write(b"last")
        stream.transport.loseConnection()
        peer.expect(Frame.binary(b"last"), Frame.close(1000))
        peer.send(Frame.binary(b"late"), Frame.close(1000))
        assert (stream.octets, type(stream.end)) == (b"", ConnectionDone)

    def test_data_during_a_close_is_discarded(self) -> None:
        pair = Pair()
        pair.link.server_transport.stalled = True
        pair.far.transport.write(bytes(1 << 20))
        pair.far.transport.loseConnection()
        pair.near.transport.write(b"late")
        pair.flush()
        assert (pair.far.octets, pair.far.end) == (b"", None)

    @pytest.mark.parametrize("code", [1000, 1001, 1005])
    def test_a_close_of_the_peer_is_connection_done(self, code: int) -> None:
        stream, peer = serve()
        peer.send(Frame.close(code))
        assert type(stream.end) is ConnectionDone

    @pytest.mark.parametrize("code", [1002, 1003, 1011, 1012, 3000])
    def test_a_close_of_the_peer_for_a_fault_is_connection_lost(self, code: int) -> None:
        stream, peer = serve()
        peer.send(Frame.close(code, "a reason"))
        assert type(stream.end) is ConnectionLost
        assert str(code) in str(stream.end) and "a reason" in str(stream.end)

    def test_a_fault_of_the_peer_is_connection_lost(self) -> None:
        stream, peer = serve()
        peer.send(b"\x83\x80")
        peer.expect(Frame.close(1002))
        peer.send(Frame.close(1002))
        peer.transport.loseConnection()
        peer.flush()
        assert type(stream.end) is ConnectionLost
        assert "1002" in str(stream.end)

    def test_a_cut_connection_is_connection_lost(self) -> None:
        pair = Pair()
        pair.link.cut()
        for stream in (pair.near, pair.far):
            assert type(stream.end) is ConnectionLost
            assert "1006" in str(stream.end)

    def test_an_end_of_tcp_without_a_close_frame_is_connection_lost(self) -> None:
        stream, peer = serve()
        peer.transport.loseConnection()
        peer.flush()
        assert type(stream.end) is ConnectionLost
        assert "1006" in str(stream.end)

    def test_an_abort_is_connection_lost(self) -> None:
        pair = Pair()
        pair.near.transport.write(b"lost")
        pair.link.client_transport.stalled = True
        pair.near.transport.abortConnection()
        pair.flush()
        pair.link.client_transport.stalled = False
        pair.flush()
        assert type(pair.near.end) is ConnectionAborted
        assert "1006" in str(pair.near.end)
        assert type(pair.far.end) is ConnectionLost
        assert pair.far.octets == b""

    def test_an_exception_in_data_received_is_logged_once(self, logged: Callable[..., list[Any]]) -> None:
        class Broken(Stream):
            def dataReceived(self, data: bytes) -> None:
                raise ZeroDivisionError

        pair = Pair(far=Broken)
        pair.near.transport.write(b"x")
        pair.flush()
        assert len(logged(ZeroDivisionError)) == 1
        assert type(pair.far.end) is ConnectionLost
        assert "1011" in str(pair.near.end)

    def test_a_close_within_data_received_is_possible(self) -> None:
        class Once(Stream):
            def dataReceived(self, data: bytes) -> None:
                super().dataReceived(data)
                self.transport.write(b"answer")
                self.transport.loseConnection()

        pair = Pair(far=Once)
        pair.near.transport.write(b"a")
        pair.near.transport.write(b"b")
        pair.flush()
        assert (pair.far.octets, pair.near.octets) == (b"a", b"answer")
        assert type(pair.near.end) is type(pair.far.end) is ConnectionDone

    def test_calls_after_a_close_are_ignored(self) -> None:
        pair = Pair()
        transport = pair.near.transport
        transport.loseConnection()
        pair.flush()
        stopped: list[bool] = []
        transport.write(b"x")
        transport.writeSequence([b"x"])
        transport.pauseProducing()
        transport.resumeProducing()
        transport.stopProducing()
        transport.loseConnection()
        transport.loseWriteConnection()
        transport.abortConnection()
        transport.unregisterProducer()
        transport.registerProducer(Producer(transport, stopped=stopped), True)
        assert stopped == [True]
        assert transport.getPeer() and transport.getHost()

    def test_a_close_waits_for_a_reader_as_long_as_it_reads(self) -> None:
        """loseConnection() sends all written data first, however long that takes."""
        pair = Pair(silent=True, timeouts=Timeouts(idle=None, ping_interval=None))
        pair.link.server_transport.stalled = True
        pair.far.transport.write(bytes(1 << 20))
        pair.far.transport.loseConnection()
        pair.advance(3600)
        assert pair.far.end is None
        pair.link.server_transport.stalled = False
        pair.flush()
        assert len(pair.near.octets) == 1 << 20
        ends: list[Any] = [pair.near.end, pair.far.end]
        assert [type(end) for end in ends] == [ConnectionDone] * 2

    def test_the_answer_to_a_close_frame_has_the_close_timeout(self) -> None:
        stream, peer = serve()
        stream.transport.loseConnection()
        peer.expect(Frame.close(1000))
        peer.advance(CLOSE - 1)
        assert stream.end is None
        peer.advance(2)
        end: Any = stream.end
        assert type(end) is ConnectionAborted

    def test_stop_producing_closes_the_tunnel(self) -> None:
        pair = Pair()
        pair.near.transport.stopProducing()
        pair.flush()
        assert type(pair.far.end) is ConnectionDone

    def test_a_draining_server_is_clean(self) -> None:
        clock = Clock()
        near, serving = Stream(), Serving()
        factory = TunnelFactory(serving, clock=clock)
        pair = connected_pair(factory, lambda: Tunnel.carrying(near, ()), clock=clock)
        factory.drain()
        pair.advance(1)
        assert type(near.end) is type(serving.built[0].end) is ConnectionDone

    def test_a_silent_peer_is_dropped(self) -> None:
        stream, peer = serve()
        peer.advance(IDLE + 1)
        assert Frame.close(1011, "nothing was received for 300 s") in peer.frames()
        peer.advance(11)
        assert type(stream.end) is ConnectionLost
        assert "nothing was received for 300 s" in str(stream.end)

    def test_a_closed_tunnel_is_freed(self) -> None:
        pair = Pair()
        refs = [weakref.ref(end) for end in (pair.link.client, pair.link.server)]
        gc.collect()
        gc.disable()
        try:
            pair.near.transport.loseConnection()
            pair.flush()
            del pair.link, pair.flush
            assert [ref() for ref in refs] == [None, None]
        finally:
            gc.enable()


@implementer(IPushProducer, IPullProducer)
class Producer:
    """Writes ``parts`` chunks: a push producer writes until it is paused, a pull producer one chunk per call."""

    def __init__(self, consumer: Any, parts: int = 0, size: int = 1 << 14, stopped: list[bool] | None = None) -> None:
        self.consumer = consumer
        self.left = parts
        self.size = size
        self.pull = False
        self.paused = True
        self.pauses = 0
        self.stopped = [] if stopped is None else stopped

    def resumeProducing(self) -> None:
        self.paused = False
        while self.left and not self.paused:
            self.left -= 1
            self.consumer.write(bytes(self.size))
            if self.pull:
                break
        if not self.left and not self.paused:
            self.consumer.unregisterProducer()

    def pauseProducing(self) -> None:
        self.pauses += 1
        self.paused = True

    def stopProducing(self) -> None:
        self.left = 0
        self.paused = True
        self.stopped.append(True)


class TestProducers:
    """Producers on both sides, as `IConsumer` and `IPushProducer`."""

    def test_a_push_producer_keeps_pace_with_the_far_protocol(self) -> None:
        pair = Pair()
        producer = Producer(pair.near.transport, 1000)
        pair.far.transport.pauseProducing()
        pair.near.transport.registerProducer(producer, True)
        producer.resumeProducing()
        pair.flush()
        assert producer.paused
        waiting = 1000 - producer.left
        assert waiting * producer.size < 1 << 19
        assert pair.far.octets == b""
        pair.far.transport.resumeProducing()
        pair.flush()
        assert producer.left == 0
        assert len(pair.far.octets) == 1000 * producer.size

    def test_a_pull_producer_keeps_pace_with_the_far_protocol(self) -> None:
        pair = Pair()
        producer = Producer(pair.far.transport, 1000)
        producer.pull = True
        pair.near.transport.pauseProducing()
        pair.far.transport.registerProducer(producer, False)
        for _ in range(100):
            pair.advance(0.001)
        assert 0 < (1000 - producer.left) * producer.size < 1 << 19
        pair.near.transport.resumeProducing()
        for _ in range(1000):
            pair.advance(0.001)
        assert len(pair.near.octets) == 1000 * producer.size
        assert pair.clock.getDelayedCalls() != [] and producer.left == 0

    def test_the_transport_is_a_producer_for_another(self) -> None:
        """`twisted.protocols.portforward` joins two transports like this."""
        first, second = Pair(), Pair()
        first.far.dataReceived = second.near.transport.write
        second.near.transport.registerProducer(first.far.transport, True)
        second.far.transport.pauseProducing()
        producer = Producer(first.near.transport, 1000)
        first.near.transport.registerProducer(producer, True)
        producer.resumeProducing()
        for _ in range(100):
            first.flush()
            second.flush()
        assert producer.left > 900
        second.far.transport.resumeProducing()
        for _ in range(1000):
            first.flush()
            second.flush()
        assert len(second.far.octets) == 1000 * producer.size

    def test_a_second_producer_is_refused(self) -> None:
        pair = Pair()
        pair.near.transport.registerProducer(Producer(pair.near.transport), True)
        with pytest.raises(RuntimeError):
            pair.near.transport.registerProducer(Producer(pair.near.transport), True)

    def test_closing_waits_for_a_pull_producer(self) -> None:
        pair = Pair()
        producer = Producer(pair.near.transport, 10)
        producer.pull = True
        pair.near.transport.registerProducer(producer, False)
        pair.near.transport.loseConnection()
        assert pair.near.transport.disconnecting
        pair.advance(0.1)
        assert len(pair.far.octets) == 10 * producer.size
        assert type(pair.far.end) is ConnectionDone

    def test_closing_waits_for_a_paused_push_producer(self) -> None:
        pair = Pair()
        pair.far.transport.pauseProducing()
        producer = Producer(pair.near.transport, 100)
        pair.near.transport.registerProducer(producer, True)
        producer.resumeProducing()
        pair.flush()
        assert producer.paused
        pair.near.transport.loseConnection()
        pair.advance(1)
        assert pair.far.end is None
        pair.far.dataReceived = lambda data: (pair.far.parts.append(data), pair.far.transport.pauseProducing())
        while pair.far.end is None:
            pair.far.transport.resumeProducing()
            pair.advance(0.1)
        assert len(pair.far.octets) == 100 * producer.size
        assert type(pair.far.end) is ConnectionDone

    def test_closing_does_not_wait_for_a_push_producer_with_nothing_to_say(self) -> None:
        """Twisted's TCP transport does not wait either; `portforward` never unregisters its producers."""
        pair = Pair()
        producer = Producer(pair.near.transport)
        pair.near.transport.registerProducer(producer, True)
        pair.near.transport.write(b"last")
        pair.near.transport.loseConnection()
        pair.advance(0.1)
        assert (pair.far.octets, type(pair.far.end)) == (b"last", ConnectionDone)
        assert producer.stopped == [True]

    @pytest.mark.parametrize("end", ["cut", "peer", "abort", "fault"])
    def test_the_producer_is_stopped_when_the_connection_ends(self, end: str, logged: Callable[..., list[Any]]) -> None:
        pair = Pair()
        pair.link.client_transport.stalled = end != "peer"
        producer = Producer(pair.near.transport, 1 << 30)
        pair.near.transport.registerProducer(producer, True)
        producer.resumeProducing()
        if end == "cut":
            pair.link.cut()
        elif end == "abort":
            pair.near.transport.abortConnection()
        elif end == "peer":
            pair.far.transport.pauseProducing()
            pair.far.transport.loseConnection()
        else:
            pair.link.client.dataReceived(b"\x83\x00")
        pair.flush()
        assert producer.stopped == [True]

    def test_a_producer_that_ignores_the_end_is_not_asked_without_end(self) -> None:
        """After the close frame all writes are dropped, so the transport would never pause this producer."""
        stream, peer = serve()
        producer = Producer(stream.transport, 1 << 30)
        stream.transport.registerProducer(producer, True)
        peer.protocol_transport.stalled = True
        producer.resumeProducing()
        peer.transport.write(Frame.close(1011).to_bytes(True))
        peer.protocol_transport.stalled = False
        peer.flush()
        assert producer.stopped == [True]
        assert "1011" in str(stream.end)

    def test_a_slow_reader_does_not_count_as_silent(self) -> None:
        """The peer sends nothing and reads slowly, but it reads."""
        pair = Pair(silent=True)
        pair.near.dataReceived = lambda data: (pair.near.parts.append(data), pair.near.transport.pauseProducing())
        producer = Producer(pair.far.transport, 100)
        pair.far.transport.registerProducer(producer, True)
        producer.resumeProducing()
        for _ in range(60):
            pair.advance(20)
            pair.near.transport.resumeProducing()
        assert pair.far.end is None and producer.left
        pair.advance(1000)

        assert "nothing was taken for 300 s" in str(pair.far.end)

    def test_a_pause_keeps_received_data(self) -> None:
        pair = Pair(far=Pausing)
        pair.near.transport.write(b"ab")
        pair.near.transport.write(b"cd")
        pair.flush()
        assert pair.far.octets == b"ab"
        pair.near.transport.loseConnection()
        pair.flush()
        assert pair.far.end is None
        pair.far.transport.resumeProducing()
        pair.flush()
        end: Any = pair.far.end
        assert (pair.far.octets, type(end)) == (b"abcd", ConnectionDone)

    def test_a_pause_is_possible_when_connected(self) -> None:
        class Reserved(Stream):
            def connectionMade(self) -> None:
                self.transport.pauseProducing()

        pair = Pair(far=Reserved)
        pair.near.transport.write(b"ab")
        pair.flush()
        assert pair.far.octets == b""
        pair.far.transport.resumeProducing()
        pair.flush()
        assert pair.far.octets == b"ab"


class Pausing(Stream):
    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        if len(self.octets) == 2:
            self.transport.pauseProducing()


class TestHalfClosing:
    """RFC 6455 §5.5.1: a close frame ends one direction, for streams that are an `IHalfCloseableProtocol`."""

    def test_a_question_can_be_answered_after_a_half_close(self) -> None:
        """Half-closing marks the end of the request, and the response can still arrive."""

        class Answering(Halves):
            def readConnectionLost(self) -> None:
                super().readConnectionLost()
                self.transport.write(self.octets.upper())
                self.transport.loseConnection()

        pair = Pair(near=Halves, far=Answering)
        pair.near.transport.write(b"question")
        pair.near.transport.loseWriteConnection()
        pair.near.transport.write(b"forgotten")
        pair.flush()
        assert pair.far.octets == b"question"
        assert pair.near.octets == b"QUESTION"
        assert (pair.near.told, pair.far.told) == (["write", "read"], ["read"])
        assert type(pair.near.end) is type(pair.far.end) is ConnectionDone

    def test_a_long_answer_with_pauses_arrives_after_a_half_close(self) -> None:
        pair = Pair(near=Halves, far=Halves)
        pair.near.transport.loseWriteConnection()
        pair.near.transport.loseWriteConnection()
        pair.flush()
        pair.near.transport.pauseProducing()
        producer = Producer(pair.far.transport, 100)
        pair.far.transport.registerProducer(producer, True)
        producer.resumeProducing()
        pair.flush()
        assert producer.paused and pair.near.octets == b""
        pair.near.transport.resumeProducing()
        pair.far.transport.loseConnection()
        pair.advance(1)
        assert len(pair.near.octets) == 100 * producer.size
        assert type(pair.near.end) is ConnectionDone

    def test_a_half_close_is_a_close_frame(self) -> None:
        stream, peer = serve()
        stream.transport.loseWriteConnection()
        peer.expect(Frame.close(1000))
        peer.send(Frame.binary(b"still"), Frame.close(1000))
        assert (stream.octets, type(stream.end)) == (b"still", ConnectionDone)

    def test_a_half_close_is_done_after_the_producer(self) -> None:
        pair = Pair(near=Halves)
        producer = Producer(pair.near.transport, 10)
        producer.pull = True
        pair.near.transport.registerProducer(producer, False)
        pair.near.transport.loseWriteConnection()
        pair.advance(0.1)
        assert len(pair.far.octets) == 10 * producer.size
        assert type(pair.far.end) is ConnectionDone

    def test_a_push_producer_is_stopped_at_the_end(self) -> None:
        stream, peer = serve(Halves)
        producer = Producer(stream.transport)
        stream.transport.registerProducer(producer, True)
        stream.transport.loseWriteConnection()
        peer.advance(0.1)
        peer.expect(Frame.close(1000))
        assert producer.stopped == []
        peer.send(Frame.close(1000))
        assert stream.told == ["write", "read"]
        assert producer.stopped == [True]

    def test_a_protocol_without_half_close_is_closed(self) -> None:
        pair = Pair(near=Halves)
        pair.far.transport.write(b"before")
        pair.near.transport.loseWriteConnection()
        pair.flush()
        assert pair.near.octets == b"before"
        assert type(pair.near.end) is type(pair.far.end) is ConnectionDone

    def test_both_ends_can_half_close_at_once(self) -> None:
        pair = Pair(near=Halves, far=Halves)
        pair.near.transport.loseWriteConnection()
        pair.far.transport.loseWriteConnection()
        pair.flush()
        assert type(pair.near.end) is type(pair.far.end) is ConnectionDone

    def test_both_ends_can_half_close_in_turn(self) -> None:
        stream, peer = serve(Halves)
        peer.send(Frame.close(1001))
        assert stream.told == ["read"]
        stream.transport.write(b"more")
        stream.transport.loseWriteConnection()
        peer.expect(Frame.binary(b"more"), Frame.close(1001))
        assert stream.told == ["read"]
        assert type(stream.end) is ConnectionDone

    def test_a_full_close_is_possible_after_a_half_close(self) -> None:
        stream, peer = serve(Halves)
        stream.transport.loseWriteConnection()
        stream.transport.loseConnection()
        peer.send(Frame.binary(b"late"), Frame.close(1000))
        assert (stream.octets, type(stream.end)) == (b"", ConnectionDone)

    @pytest.mark.parametrize("first", ["we", "the peer"])
    def test_a_half_closed_tunnel_ends_after_the_idle_timeout(self, first: str) -> None:
        stream, peer = serve(Halves)
        if first == "we":
            stream.transport.loseWriteConnection()
        else:
            peer.send(Frame.close(1000))
        for _ in range(4):
            peer.advance(IDLE - 1)
            if first == "we":
                peer.send(Frame.binary(b"alive"))
            else:
                stream.transport.write(b"alive")
                peer.flush()
        assert stream.end is None
        assert Frame.ping() not in peer.frames()[10:]
        peer.advance(IDLE + 11)
        assert stream.end is not None

    def test_an_exception_in_the_notification_is_logged_once(self, logged: Callable[..., list[Any]]) -> None:
        class Broken(Stream):
            def readConnectionLost(self) -> None:
                raise ZeroDivisionError

            writeConnectionLost = readConnectionLost

        for first in ("we", "the peer"):
            stream, peer = serve(implementer(IHalfCloseableProtocol)(type("Broken", (Broken,), {})))
            if first == "we":
                stream.transport.loseWriteConnection()
            else:
                peer.send(Frame.close(1000))
            peer.cut()
            assert len(logged(ZeroDivisionError)) == 1
            assert type(stream.end) is ConnectionLost


def test_the_deferreds_that_data_received_returns_are_ignored() -> None:
    """The transport does not wait for Deferreds that dataReceived() returns."""

    class Returning(Stream):
        def dataReceived(self, data: bytes) -> Any:
            super().dataReceived(data)
            return Deferred()

    pair = Pair(far=Returning)
    pair.near.transport.write(b"a")
    pair.near.transport.write(b"b")
    pair.flush()
    assert pair.far.octets == b"ab"
