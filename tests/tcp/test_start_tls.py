"""startTLS() on a connected protocol: afterwards no byte is sent in clear."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.interfaces import ITLSTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.basic import LineReceiver

from twisted_beastws import Limits, Response, WebSocketProtocol, WebSocketServerFactory
from twisted_beastws.errors import HandshakeError
from twisted_beastws.options import Settings

from ..support.certificates import identity, trusting
from ..support.handshakes import switching, upgrade_request
from ..support.inside import inside
from ..support.loopback import turn, until
from ..support.patience import PATIENCE
from ..support.protocols import Echo

pytestmark = pytest.mark.usefixtures("logged")

REQUEST = upgrade_request("/")
HELLO = b"\x81\x85\0\0\0\0hello"


class Wire(Protocol):
    """One side of a `Tap`: it records the bytes that it receives, and forwards them to the other side."""

    other: Wire

    def __init__(self) -> None:
        self.noted = b""
        self.waiting = b""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self.waiting)

    def dataReceived(self, data: bytes) -> None:
        self.noted += data
        if self.other.connected:
            assert self.other.transport is not None
            self.other.transport.write(data)
        else:
            self.other.waiting += data

    def connectionLost(self, reason: Any = None) -> None:
        self.connected = 0
        if self.other.connected:
            assert self.other.transport is not None
            self.other.transport.loseConnection()


class Tap:
    """A relay to ``port`` that records the bytes of both directions."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.client, self.server = Wire(), Wire()
        self.client.other, self.server.other = self.server, self.client

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        factory = Factory.forProtocol(self._connected)
        factory.noisy = False
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        try:
            yield port.getHost().port
        finally:
            await port.stopListening()

    def _connected(self) -> Wire:
        factory = Factory.forProtocol(lambda: self.server)
        factory.noisy = False
        TCP4ClientEndpoint(reactor, "127.0.0.1", self._port).connect(factory)
        return self.client


def in_clear(noted: bytes) -> bytes:
    """Return the bytes before the first TLS record; check that all others are in TLS records (RFC 8446 §5.1)."""
    begin = re.search(rb"\x16\x03[\x01\x03]", noted)
    assert begin is not None, "TLS never began"
    clear, encrypted = noted[: begin.start()], noted[begin.start() :]
    while encrypted:
        assert encrypted[0] in (20, 21, 22, 23) and encrypted[1] == 3, f"in clear: {encrypted[:60]!r}"
        length = int.from_bytes(encrypted[3:5], "big")
        assert len(encrypted) >= 5 + length
        encrypted = encrypted[5 + length :]
    return clear


def payload_size(frames: bytes) -> int:
    """Return the sum of the lengths of a server's whole frames of 64 KiB and more."""
    at = total = 0
    while at + 10 <= len(frames):
        size = int.from_bytes(frames[at + 2 : at + 10], "big")
        at += 10 + size
        total += size if at <= len(frames) else 0
    return total


@asynccontextmanager
async def tapped(protocol: Callable[[], Any], **options: Any) -> AsyncIterator[tuple[Tap, int]]:
    """Serve ``protocol``; yield a tap in front of it, and the tap's port."""
    factory: Any = WebSocketServerFactory(protocol, **options) if options else Factory.forProtocol(protocol)
    factory.noisy = False
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
    tap = Tap(port.getHost().port)
    try:
        async with tap.listening() as number:
            yield tap, number
    finally:
        await port.stopListening()
        await until(lambda: not tap.client.connected and not tap.server.connected)


class Peer(Protocol):
    """A client of raw bytes that starts TLS when it has read ``go``, or at once if that is empty."""

    def __init__(self, go: bytes = b"") -> None:
        self.go = go
        self.read = b""
        self.secure = False

    def connectionMade(self) -> None:
        if not self.go:
            self._start()

    def _start(self) -> None:
        self.secure = True
        cast(ITLSTransport, self.transport).startTLS(trusting())
        assert self.transport is not None
        self.transport.write(REQUEST)

    def dataReceived(self, data: bytes) -> None:
        self.read += data
        if not self.secure and self.read == self.go:
            self.read = b""
            self._start()


async def dial(port: int, peer: Peer) -> Peer:
    await TCP4ClientEndpoint(reactor, "127.0.0.1", port).connect(Factory.forProtocol(lambda: peer))
    return peer


class SecureAtOnce(Echo):
    def connectionMade(self) -> None:
        cast(ITLSTransport, self.transport).startTLS(identity().options())


class SecureByItsFactory(Echo):
    """Start TLS on the underlying transport, so that the protocol is not notified."""

    def makeConnection(self, transport: Any) -> None:
        super().makeConnection(transport)
        transport.startTLS(identity().options())


GO = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\ngo"


class SecureBetweenRequests(Echo):
    async def _go(self) -> None:
        await self.read_request()
        response = Response(200, body="go")
        await self.respond(response)
        cast(ITLSTransport, self.transport).startTLS(identity().options())
        await self.accept()

    def serve(self) -> None:
        Deferred.fromCoroutine(self._go()).addErrback(lambda failure: failure.trap(HandshakeError))


async def talk(peer: Peer) -> None:
    """Wait for the handshake response over TLS, and check that the server echoes a message."""
    await until(lambda: b"\r\n\r\n" in peer.read)
    head, _, peer.read = peer.read.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert peer.transport is not None
    peer.transport.write(HELLO)
    await until(lambda: peer.read)
    assert peer.read == b"\x81\x05hello"


class TestServer:
    """A server starts TLS."""

    @pytest.mark.parametrize("protocol", [SecureAtOnce, SecureByItsFactory])
    @pytest_twisted.ensureDeferred
    async def test_a_server_can_start_tls_before_the_first_request(self, protocol: Any) -> None:
        async with tapped(protocol, clock=reactor) as (tap, port):
            peer = await dial(port, Peer())
            await talk(peer)
            assert peer.transport is not None
            peer.transport.loseConnection()
        assert in_clear(tap.server.noted) == b""

    @pytest_twisted.ensureDeferred
    async def test_a_server_can_start_tls_between_requests(self) -> None:
        async with tapped(SecureBetweenRequests, clock=reactor) as (tap, port):
            peer = Peer()
            factory = Factory.forProtocol(lambda: peer)
            peer.go = b"never"
            await TCP4ClientEndpoint(reactor, "127.0.0.1", port).connect(factory)
            assert peer.transport is not None
            peer.transport.write(b"GET /tls HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await until(lambda: peer.read.endswith(b"go"))
            clear, peer.read = peer.read, b""
            peer._start()
            await talk(peer)
            assert peer.transport is not None
            peer.transport.loseConnection()
        assert in_clear(tap.server.noted) == clear

    @pytest_twisted.ensureDeferred
    async def test_bytes_in_clear_after_the_request_are_discarded(self) -> None:
        async with tapped(SecureBetweenRequests, clock=reactor) as (_, port):
            peer = Peer(b"never")
            await dial(port, peer)
            injected = b"GET /injected HTTP/1.1\r\nHost: localhost\r\n\r\n"
            assert peer.transport is not None
            peer.transport.write(b"GET /tls HTTP/1.1\r\nHost: localhost\r\n\r\n" + injected)
            await until(lambda: peer.read.endswith(b"go"))
            peer.read = b""
            peer._start()
            await talk(peer)
            assert peer.transport is not None
            peer.transport.loseConnection()

    @pytest_twisted.ensureDeferred
    async def test_an_open_websocket_can_start_tls(self) -> None:
        class Upgrading(Echo):
            def text_received(self, text: str) -> None:
                if text == "tls":
                    self.send("go")
                    cast(ITLSTransport, self.transport).startTLS(identity().options())
                self.send(text)

        async with tapped(Upgrading, clock=reactor) as (tap, port):
            peer = Peer(b"never")
            await dial(port, peer)
            assert peer.transport is not None
            peer.transport.write(REQUEST)
            await until(lambda: b"\r\n\r\n" in peer.read)
            assert peer.transport is not None
            peer.transport.write(b"\x81\x83\0\0\0\0tls")
            await until(lambda: peer.read.endswith(b"go"))
            clear, peer.read, peer.secure = peer.read, b"", True
            cast(ITLSTransport, peer.transport).startTLS(trusting())
            await until(lambda: peer.read == b"\x81\x03tls")
            peer.read = b""
            assert peer.transport is not None
            peer.transport.write(HELLO)
            await until(lambda: peer.read == b"\x81\x05hello")
            assert peer.transport is not None
            peer.transport.loseConnection()
        assert in_clear(tap.server.noted) == clear

    @pytest_twisted.ensureDeferred
    async def test_messages_sent_before_are_written_in_clear(self) -> None:
        size = 6 << 20
        held: list[Any] = []

        class Large(Echo):
            def text_received(self, text: str) -> None:
                held.append(self)
                self.send(bytes(size))
                assert not inside(self).outgoing.free, "the socket took it all: nothing waits"
                cast(ITLSTransport, self.transport).startTLS(identity().options())
                self.send("end")

        limits = Limits(max_buffered=size + 1000)
        async with tapped(Large, clock=reactor, limits=limits) as (tap, port):
            peer = Peer(b"never")
            await dial(port, peer)
            assert peer.transport is not None
            peer.transport.write(REQUEST)
            await until(lambda: b"\r\n\r\n" in peer.read)
            head = peer.read
            assert peer.transport is not None
            peer.transport.write(HELLO)
            await until(lambda: payload_size(peer.read[len(head) :]) == size)
            clear, peer.read, peer.secure = peer.read, b"", True
            cast(ITLSTransport, peer.transport).startTLS(trusting())
            await until(lambda: peer.read == b"\x81\x03end")
            assert peer.transport is not None
            peer.transport.loseConnection()
        # Compare outside the assert: pytest takes minutes to show a difference of megabytes.
        same = in_clear(tap.server.noted) == clear
        assert same

    @pytest_twisted.ensureDeferred
    async def test_backpressure_works_over_the_started_tls(self) -> None:
        opened: list[Any] = []

        class Kept(SecureAtOnce):
            def opened(self) -> None:
                opened.append(self)

        async with tapped(Kept, clock=reactor) as (tap, port):
            peer = await dial(port, Peer())
            await talk(peer)
            (ws,) = opened
            peer.read = b""
            cast(Any, tap.server.transport).pauseProducing()
            part = bytes(100_000)
            sent = 0
            while inside(ws).outgoing.free or ws.buffered_amount < 1 << 20:
                ws.send(part)
                sent += 1
                await turn()
                assert sent < 1000, "nothing ever waits"
            cast(Any, tap.server.transport).resumeProducing()
            await ws.drain().addTimeout(PATIENCE, reactor)
            await until(lambda: len(peer.read) == sent * (len(part) + 10))
            # If the transport were registered as a pull producer, TLS would ask it for data in each reactor turn.
            turns = inside(ws).outgoing.turns
            for _ in range(20):
                await turn()
            assert inside(ws).outgoing.turns == turns
            assert peer.transport is not None
            peer.transport.loseConnection()

    @pytest_twisted.ensureDeferred
    async def test_closing_ends_websocket_tls_and_tcp_in_this_order(self) -> None:
        async with tapped(SecureAtOnce, clock=reactor) as (tap, port):
            peer = await dial(port, Peer())
            await talk(peer)
            peer.read = b""
            assert peer.transport is not None
            peer.transport.write(b"\x88\x82\0\0\0\0\x03\xe8")
            await until(lambda: peer.read)
            assert peer.read == b"\x88\x02\x03\xe8"
        assert in_clear(tap.server.noted) == b""


class TestClient:
    """A client starts TLS."""

    @pytest.mark.parametrize("through", ["the protocol", "the transport"])
    @pytest_twisted.ensureDeferred
    async def test_a_client_can_start_tls_before_the_handshake(self, through: str) -> None:
        class Answering(LineReceiver):
            def connectionMade(self) -> None:
                self.head = b""
                self.setRawMode()
                cast(ITLSTransport, self.transport).startTLS(identity().options())

            def rawDataReceived(self, data: bytes) -> None:
                self.head += data
                if self.head.endswith(b"\r\n\r\n"):
                    assert self.transport is not None
                    self.transport.write(switching(self.head))

        async with tapped(Answering) as (tap, port):
            ws = WebSocketProtocol().as_client(Settings(clock=reactor))
            await TCP4ClientEndpoint(reactor, "127.0.0.1", port).connect(Factory.forProtocol(lambda: ws))
            below: Any = ws.transport
            transport: Any = below if through == "the protocol" else below.below
            transport.startTLS(trusting())
            await ws.handshake("localhost", decorator=lambda r: r.headers.setRawHeaders("Authorization", ["secret"]))
            ws.abort()
        assert in_clear(tap.client.noted) == b""
