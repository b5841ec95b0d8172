"""Peers that a test controls: they send and expect frames and bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar, overload

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_beastws.options import Role
from twisted_beastws.protocol import WebSocketProtocol, connection_of
from twisted_beastws.server.factory import Handler, WebSocketServerFactory
from twisted_beastws.testing.ends import build_client, build_server
from twisted_beastws.testing.frames import Frame, take_frame
from twisted_beastws.testing.link import Link, finish
from twisted_beastws.testing.transport import CHUNK
from twisted_beastws.wire import handshake
from twisted_beastws.wire.frames import Opcode
from twisted_beastws.wire.http import parse_request

S = TypeVar("S", bound=WebSocketProtocol)
C = TypeVar("C", bound=WebSocketProtocol)

# RFC 6455 §1.3: the key of the example.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


@implementer(IHalfCloseableProtocol)
class Received(Protocol):
    """The bytes that a scripted peer has received."""

    def __init__(self) -> None:
        self.octets = bytearray()
        self.ended = False

    def dataReceived(self, data: bytes) -> None:
        self.octets += data

    def readConnectionLost(self) -> None:
        self.ended = True

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended = True


class ScriptedPeer(Link, Generic[S]):
    """The peer of a protocol under test, from `scripted_client` or `scripted_server`.

    Attributes:
        protocol: The protocol under test.
        protocol_transport: Its transport.
        transport: The transport of this peer.
    """

    def __init__(self, protocol: S, clock: Clock, chunk: int) -> None:
        self.protocol = protocol
        self._received = Received()
        self._taken: list[Frame] = []
        self._masks = connection_of(protocol).role is Role.SERVER
        if self._masks:
            super().__init__(self._received, protocol, clock, chunk)
            self.transport, self.protocol_transport = self.ends
        else:
            super().__init__(protocol, self._received, clock, chunk)
            self.protocol_transport, self.transport = self.ends

    def send(self, *what: bytes | Frame) -> None:
        """Send bytes unchanged, and frames, which are masked if this is the client; then `flush`."""
        for part in what:
            self.transport.write(part.to_bytes(self._masks) if isinstance(part, Frame) else part)
        self.flush()

    def read(self) -> bytes:
        """Return all bytes that arrived since the last call."""
        self.flush()
        octets = bytes(self._received.octets)
        self._received.octets.clear()
        return octets

    def read_head(self) -> bytes:
        """Return the HTTP head that arrived, with its empty line. Raises AssertionError without a head."""
        self.flush()
        head, end, rest = self._received.octets.partition(b"\r\n\r\n")
        if not end:
            raise AssertionError(f"no HTTP head came: {bytes(head)!r}")
        self._received.octets = rest
        return bytes(head + end)

    def frames(self) -> list[Frame]:
        """Return the frames that arrived since the last call. The bytes of an incomplete frame stay.

        Raises:
            AssertionError: A frame has a mask and must not, or has none and must, or its length is not in the shortest
                form.
        """
        frames, octets = self._split(self.read())
        self._received.octets += octets
        self._taken += frames
        return frames

    def messages(self) -> list[str | bytes]:
        """Return every message received so far: text as ``str``, binary messages as ``bytes``, in order.

        It consumes nothing: `frames` and `expect` still return the frames, and the list includes messages that they
        consumed. It does not include control frames or an unfinished message.

        Raises:
            AssertionError: A frame is wrong, as for `frames`, or a message is compressed.
        """
        self.flush()
        frames, _ = self._split(bytes(self._received.octets))
        messages: list[str | bytes] = []
        opcode, parts = Opcode.TEXT, b""
        for frame in (*self._taken, *frames):
            if frame.opcode & 0x8:
                continue
            if frame.rsv:
                raise AssertionError(f"{frame} is compressed: give the peer no deflate")
            if frame.opcode:
                opcode, parts = Opcode(frame.opcode), b""
            parts += frame.payload
            if frame.fin:
                messages.append(parts.decode("utf-8") if opcode is Opcode.TEXT else parts)
        return messages

    def _split(self, octets: bytes) -> tuple[list[Frame], bytes]:
        """Return the frames in these bytes, and the bytes of an unfinished one."""
        frames = []
        while (taken := take_frame(octets, masked=not self._masks)) is not None:
            frame, octets = taken
            frames.append(frame)
        return frames, octets

    def expect(self, *frames: Frame) -> None:
        """Raise AssertionError unless exactly these frames arrived."""
        came = self.frames()
        if came != list(frames) or self._received.octets:
            raise AssertionError(
                f"expected {list(frames)}; {came} came, and {bytes(self._received.octets)!r} behind them"
            )

    @property
    def ended(self) -> bool:
        """The protocol ended its side of TCP, or the connection is gone."""
        return self._received.ended


def upgrade_request(target: str = "/", host: str = "localhost", headers: Mapping[str, str] | None = None) -> bytes:
    """Return the request of a client's handshake; ``headers`` add to its fields or replace them."""
    request = handshake.client_request(host, target, KEY)
    for name, value in (headers or {}).items():
        request.headers.setRawHeaders(name, [value])
    return request.to_bytes()


def upgrade_response(request: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """Return the response that accepts ``request``; ``headers`` add to its fields or replace them."""
    response = handshake.success(parse_request(request))
    for name, value in (headers or {}).items():
        response.headers.setRawHeaders(name, [value])
    return response.to_bytes()


@overload
def scripted_client(server: Callable[[], S], **options: Any) -> ScriptedPeer[S]: ...


@overload
def scripted_client(server: WebSocketServerFactory | Handler, **options: Any) -> ScriptedPeer[WebSocketProtocol]: ...


def scripted_client(
    server: Any,
    *,
    target: str = "/",
    headers: Mapping[str, str] | None = None,
    clock: Clock | None = None,
    chunk: int = CHUNK,
    opened: bool = True,
    **options: Any,
) -> ScriptedPeer[Any]:
    """Return a client that the test controls, connected to a server.

    Args:
        server: As for `connected_pair`.
        target: The target of its `upgrade_request`.
        headers: The fields of its `upgrade_request`.
        clock: As for `connected_pair`.
        chunk: As for `connected_pair`.
        opened: Perform the handshake. Otherwise send any bytes you like, and read the answer.
        options: The options of the server's factory.

    Raises:
        AssertionError: The server declined.
    """
    protocol, clock = build_server(server, clock, options)
    peer = ScriptedPeer(protocol, clock, chunk)
    if opened:
        peer.send(upgrade_request(target, headers=headers))
        head = peer.read_head()
        if not head.startswith(b"HTTP/1.1 101 "):
            peer.cut()
            raise AssertionError(f"the server declined: {head + peer.read()!r}")
    return peer


def scripted_server(
    client: Callable[[], C],
    *,
    client_options: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    clock: Clock | None = None,
    chunk: int = CHUNK,
    opened: bool = True,
) -> ScriptedPeer[C]:
    """Return a server that the test controls, connected to a client.

    Args:
        client: As for `connected_pair`.
        client_options: As for `connected_pair`.
        headers: The fields of its `upgrade_response`.
        clock: The time of both ends; None is a new one.
        chunk: As for `connected_pair`.
        opened: Perform the handshake. Otherwise call ``peer.protocol.handshake`` yourself, and answer it.

    Raises:
        HandshakeError: The handshake failed.
    """
    clock = clock or Clock()
    peer = ScriptedPeer(build_client(client, client_options, clock), clock, chunk)
    if opened:
        opening = peer.protocol.handshake("localhost")
        peer.send(upgrade_response(peer.read_head(), headers))
        finish(peer, opening)
    return peer
