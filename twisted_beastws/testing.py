"""For tests of your own programs: both ends of a connection in memory, and a peer that does as the test tells it.

No reactor, no sockets, no test framework: time is a Twisted ``Clock``, and octets move when you say so. It serves trial
and pytest alike. `connected_pair` joins a server's and a client's end, which have shaken hands:

>>> from twisted_beastws import WebSocketProtocol
>>> from twisted_beastws.testing import Frame, connected_pair, scripted_client, scripted_server
>>> class Echo(WebSocketProtocol):
...     def text_received(self, text):
...         self.send(text)
>>> pair = connected_pair(Echo)
>>> pair.client.send("hello")
>>> pair.flush()
>>> pair.client.receive().result
'hello'

What goes wrong on a network goes wrong here where you want it. `ConnectedPair.advance` lets time pass, moving octets in
between:

>>> pair.server_transport.stalled = True
>>> round_trip = pair.client.ping()
>>> pair.advance(1.5)
>>> pair.server_transport.stalled = False
>>> pair.flush()
>>> round_trip.result
1.5
>>> pair.client_transport.break_after(3)
>>> pair.client.send("this is lost")
>>> pair.flush()
>>> pair.server.close_reason.code, pair.server.close_reason.clean
(1006, False)

`scripted_client` gives you the wire of your server, by frames or by octets, and `scripted_server` that of your client.
What you send is not judged, so that it may be what no good peer sends; what you read must be good frames:

>>> peer = scripted_client(Echo)
>>> peer.send(Frame.text("hel", fin=False), Frame.ping(b"?"), Frame(0, b"lo"))
>>> peer.expect(Frame.pong(b"?"), Frame.text("hello"))
>>> peer.send(b"\\x83\\x80")
>>> peer.expect(Frame.close(1002))
>>> peer.ended
True

>>> peer = scripted_server(WebSocketProtocol)
>>> peer.send(Frame.text("hello"), Frame.close(1001, "until tomorrow"))
>>> peer.protocol.receive().result
'hello'
>>> peer.expect(Frame.close(1001))
>>> peer.transport.loseConnection()
>>> peer.flush()
>>> peer.protocol.state
<State.CLOSED: 'closed'>

A connection that is closed, or was ended by ``cut()``, leaves no delayed call on its clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Generic, NamedTuple, TypeVar, overload

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, IHalfCloseableProtocol, IPushProducer, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_beastws.client.factory import WebSocketClientFactory
from twisted_beastws.options import Role
from twisted_beastws.protocol import WebSocketProtocol, connection_of
from twisted_beastws.server.factory import Handler, WebSocketServerFactory
from twisted_beastws.wire import handshake
from twisted_beastws.wire.closing import CloseCode, close_payload
from twisted_beastws.wire.frames import FIN, Opcode, apply_mask, encode_frame
from twisted_beastws.wire.http import parse_request

S = TypeVar("S", bound=WebSocketProtocol)
C = TypeVar("C", bound=WebSocketProtocol)

CHUNK = 1 << 16
"""Octets delivered at once at most, unless told otherwise: 64 KiB, as much as Twisted's transports read."""

MAX_ROUNDS = 100_000
"""Deliveries each way in one flush, after which the ends are taken never to fall silent."""

# RFC 6455 §1.3 and §5.7: the examples' key and mask.
_KEY = "dGhlIHNhbXBsZSBub25jZQ=="
_MASK = bytes.fromhex("37fa213d")


@implementer(ITCPTransport, IConsumer, IPushProducer)
class MemoryTransport:
    """One end of a TCP connection in memory, on which nothing happens but in `step`.

    It is to its protocol what Twisted's is. It takes one producer, pauses it above ``buffer_size`` octets and resumes
    it when all are gone; `loseConnection` waits for them, and for the producer to be unregistered; either direction may
    end by itself, which a protocol that is no ``IHalfCloseableProtocol`` takes for the end of both.

    protocol: whose end it is, while it is ``connected``. disconnecting: since `loseConnection`; nothing is read then.
    stalled: what is written here, and the end of it, does not arrive until this is False again.
    """

    buffer_size = 1 << 16
    _other: MemoryTransport

    def __init__(self, protocol: Any, host: IPv4Address, peer: IPv4Address) -> None:
        self.protocol = protocol
        self.connected = True
        self.disconnecting = False
        self.stalled = False
        self.producer: Any = None
        self._host = host
        self._peer = peer
        self._buffer = bytearray()
        self._break_after: int | None = None
        self._streaming = False
        self._producer_paused = False
        self._reading = True
        self._aborting = False
        self._ending = False
        self._ended = False
        self._news: Exception | None = None
        self._no_delay = False
        self._keep_alive = False

    def join(self, other: MemoryTransport) -> None:
        """Be the two ends of one connection."""
        self._other, other._other = other, self

    # For tests.

    @property
    def buffered(self) -> int:
        """Octets written here that have not arrived."""
        return len(self._buffer)

    def break_after(self, octets: int) -> None:
        """Do `break_now` when so many more of the octets written here have arrived, those that wait counted."""
        self._break_after = octets

    def break_now(self) -> None:
        """Break the connection: both protocols lose it at once, with ``ConnectionLost``."""
        for end in (self, self._other):
            end._lose(ConnectionLost(), None)

    def step(self, size: int = CHUNK) -> bool:
        """Do what comes next on the way from here to the other end: at most ``size`` octets in one piece, or an end.

        Returns whether anything was done. What the other protocol raises comes out here.
        """
        if self._aborting and self.connected:
            self._lose(ConnectionAborted(), ConnectionLost())
        elif self.stalled:
            return False
        elif self._break_after == 0 and self.connected:
            self.break_now()
        elif self._buffer:
            return self._deliver(size)
        elif self.disconnecting and self.connected and self.producer is None:
            self._lose(ConnectionDone(), ConnectionDone())
        elif self._ending and self.producer is None:
            self._end()
        else:
            return self._tell()
        return True

    def _deliver(self, size: int) -> bool:
        other = self._other
        if not other.connected:
            self._lose(ConnectionLost(), None)
            return True
        if not other._reading and not other.disconnecting:
            return False
        if self._break_after is not None:
            size = min(size, self._break_after)
            self._break_after -= min(size, len(self._buffer))
        piece = bytes(self._buffer[:size])
        del self._buffer[:size]
        # An operating system takes what comes for an end that is closing, too.
        if not other.disconnecting:
            other.protocol.dataReceived(piece)
        if not self._buffer and self.producer is not None and (self._producer_paused or not self._streaming):
            self._producer_paused = False
            self.producer.resumeProducing()
        return True

    def _end(self) -> None:
        self._ending = False
        if self._ended:
            return
        self._ended = True
        self._news = ConnectionDone()
        half_closeable = IHalfCloseableProtocol(self.protocol, None)
        if half_closeable is not None:
            half_closeable.writeConnectionLost()

    def _tell(self) -> bool:
        """Tell the other end, once, how this direction ended."""
        news, other = self._news, self._other
        if news is None or not other.connected:
            return False
        if isinstance(news, ConnectionLost):
            other._lose(news, None)
            return True
        if not other._reading or other.disconnecting:
            return False
        self._news = None
        half_closeable = IHalfCloseableProtocol(other.protocol, None)
        if half_closeable is None:
            other._lose(news, ConnectionDone())
        else:
            half_closeable.readConnectionLost()
        return True

    def _lose(self, reason: Exception, news: Exception | None) -> None:
        """Be gone for ``reason``; the other end is to hear ``news``."""
        if not self.connected:
            return
        self.connected = False
        # The end of a direction is told once.
        if not (self._ended and isinstance(news, ConnectionDone)):
            self._news = news
        self._ended = True
        self._buffer.clear()
        producer, self.producer = self.producer, None
        protocol, self.protocol = self.protocol, None
        if producer is not None:
            producer.stopProducing()
        protocol.connectionLost(Failure(reason))

    # ITCPTransport.

    def write(self, data: bytes) -> None:
        """Send octets; TypeError for what are none."""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"a transport takes octets, not {data!r}")
        if self.connected and not self._ended:
            self._buffer += data
            if self._streaming and self.producer is not None and len(self._buffer) > self.buffer_size:
                self._producer_paused = True
                self.producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Send octets."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Close behind what is written; read no more."""
        self.disconnecting = self.connected

    def loseWriteConnection(self) -> None:
        """End this direction behind what is written."""
        self._ending = self.connected

    def abortConnection(self) -> None:
        """Close with what is written lost."""
        if self.connected:
            self._aborting = True
            self.disconnecting = True

    def getHost(self) -> IPv4Address:
        """This end's address."""
        return self._host

    def getPeer(self) -> IPv4Address:
        """The other end's address."""
        return self._peer

    def getTcpNoDelay(self) -> bool:
        """What `setTcpNoDelay` set."""
        return self._no_delay

    def setTcpNoDelay(self, enabled: bool) -> None:
        """It makes no difference here."""
        self._no_delay = bool(enabled)

    def getTcpKeepAlive(self) -> bool:
        """What `setTcpKeepAlive` set."""
        return self._keep_alive

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """It makes no difference here."""
        self._keep_alive = bool(enabled)

    # IConsumer and IPushProducer.

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Take a producer; RuntimeError for a second."""
        if self.producer is not None:
            raise RuntimeError(f"{producer!r} cannot be registered: {self.producer!r} is not unregistered")
        if not self.connected:
            producer.stopProducing()
            return
        self.producer = producer
        self._streaming = streaming
        self._producer_paused = False
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        """Let go of the producer."""
        self.producer = None

    def pauseProducing(self) -> None:
        """Read no more."""
        self._reading = False

    def resumeProducing(self) -> None:
        """Read again."""
        self._reading = True

    def stopProducing(self) -> None:
        """Close."""
        self.loseConnection()


class Link:
    """Two protocols, a `MemoryTransport` each, and a clock.

    chunk: octets that are delivered at once, at most.
    """

    def __init__(self, client: Any, server: Any, clock: Clock, chunk: int) -> None:
        self.clock = clock
        self.chunk = chunk
        here, there = IPv4Address("TCP", "127.0.0.1", 50000), IPv4Address("TCP", "127.0.0.1", 80)
        self._ends = (MemoryTransport(client, here, there), MemoryTransport(server, there, here))
        self._ends[0].join(self._ends[1])
        self._flushing = False
        for end in self._ends:
            end.protocol.makeConnection(end)

    def flush(self) -> None:
        """Move octets both ways until nothing moves any more; called by a hook, it leaves that to the call under way.

        Calls on the clock that are due by now are made, too: an end handles a long chunk in several turns.

        Raises AssertionError for ends that never fall silent.
        """
        if self._flushing:
            return
        self._flushing = True
        try:
            for _ in range(MAX_ROUNDS):
                moved = [end.step(self.chunk) for end in self._ends]
                if any(moved):
                    continue
                # What an end put off until the reactor's next turn.
                due = self._next_due()
                if due is None or due > self.clock.seconds():
                    return
                self.clock.advance(0)
        finally:
            self._flushing = False
        raise AssertionError(f"the two ends were not silent after {MAX_ROUNDS} deliveries each way")

    def advance(self, seconds: float) -> None:
        """Let time pass: run what is due at its time, in order, with a `flush` behind each."""
        self.flush()
        until = self.clock.seconds() + seconds
        while (due := self._next_due()) is not None and due <= until:
            self.clock.advance(max(0.0, due - self.clock.seconds()))
            self.flush()
        self.clock.advance(max(0.0, until - self.clock.seconds()))

    def _next_due(self) -> float | None:
        return min((call.getTime() for call in self.clock.getDelayedCalls()), default=None)

    def cut(self) -> None:
        """Break the connection: both protocols lose it at once, with ``ConnectionLost``."""
        self._ends[0].break_now()


class ConnectedPair(Link, Generic[S, C]):
    """Both ends of a connection; made by `connected_pair`."""

    def __init__(self, server: S, client: C, clock: Clock, chunk: int) -> None:
        self.server = server
        self.client = client
        super().__init__(client, server, clock, chunk)
        self.client_transport, self.server_transport = self._ends


@overload
def connected_pair(server: Callable[[], S], client: Callable[[], C], **options: Any) -> ConnectedPair[S, C]: ...


@overload
def connected_pair(
    server: Callable[[], S], client: WebSocketClientFactory = ..., **options: Any
) -> ConnectedPair[S, WebSocketProtocol]: ...


@overload
def connected_pair(
    server: WebSocketServerFactory | Handler, client: Callable[[], C], **options: Any
) -> ConnectedPair[WebSocketProtocol, C]: ...


@overload
def connected_pair(
    server: WebSocketServerFactory | Handler, client: WebSocketClientFactory = ..., **options: Any
) -> ConnectedPair[WebSocketProtocol, WebSocketProtocol]: ...


def connected_pair(
    server: Any,
    client: Any = WebSocketProtocol,
    *,
    client_options: Mapping[str, Any] | None = None,
    host: str = "localhost",
    target: str = "/",
    clock: Clock | None = None,
    chunk: int = CHUNK,
    opened: bool = True,
    **options: Any,
) -> ConnectedPair[Any, Any]:
    """Connect a server and a client in memory, and perform the opening handshake.

    Args:
        server: A `WebSocketServerFactory`, or its first argument: a protocol class or a coroutine function.
        client: A `WebSocketClientFactory`, or its first argument: a protocol class.
        client_options: The options of the client's factory: ``timeouts``, ``limits``, ``deflate``, ``subprotocols`` and
            ``decorator``.
        host: The client's Host field.
        target: The target of the client's request.
        clock: The time of both ends; None is the clock of the server's factory, if that is a ``Clock``, or a new one.
        chunk: The most bytes to deliver at once.
        opened: Perform the handshake. Otherwise call ``pair.client.handshake`` and ``pair.flush()`` yourself.
        options: The options of the server's factory.

    Raises:
        HandshakeError: The handshake failed.
        AssertionError: The handshake waits for something.
    """
    far, clock = _build_server(server, clock, options)
    near = _build_client(client, client_options, clock)
    pair = ConnectedPair(far, near, clock, chunk)
    if opened:
        _finish(pair, near.handshake(host, target))
    return pair


def _build_server(server: Any, clock: Clock | None, options: dict[str, Any]) -> tuple[Any, Clock]:
    factory = server if isinstance(server, WebSocketServerFactory) else WebSocketServerFactory(server, **options)
    if clock is None:
        clock = factory.settings.clock if isinstance(factory.settings.clock, Clock) else Clock()
    protocol = factory.buildProtocol(None)
    connection = connection_of(protocol)
    connection.settings = replace(connection.settings, clock=clock)
    return protocol, clock


def _build_client(client: Any, options: Mapping[str, Any] | None, clock: Clock) -> Any:
    factory = client if isinstance(client, WebSocketClientFactory) else WebSocketClientFactory(client, **options or {})
    protocol = factory.buildProtocol(None)
    return protocol.as_client(replace(factory.settings, clock=clock))


def _finish(link: Link, handshake: Deferred[Any]) -> None:
    results: list[Any] = []
    handshake.addBoth(results.append)
    link.flush()
    if not results:
        raise AssertionError(
            "the handshake waits for something: pass opened=False, call the client's handshake() yourself, and flush() "
            "when that is there"
        )
    if isinstance(results[0], Failure):
        link.cut()
        results[0].raiseException()


class Frame(NamedTuple):
    """A frame as it is on the wire (RFC 6455 §5.2), its mask taken off. rsv: the three reserved bits; 4 is RSV1."""

    opcode: int
    payload: bytes = b""
    fin: bool = True
    rsv: int = 0

    @classmethod
    def text(cls, text: str, fin: bool = True) -> Frame:
        """A text message, or its beginning; what continues it is ``Frame(0, ...)``."""
        return cls(Opcode.TEXT, text.encode(), fin)

    @classmethod
    def binary(cls, data: bytes, fin: bool = True) -> Frame:
        """A binary message, or its beginning."""
        return cls(Opcode.BINARY, data, fin)

    @classmethod
    def ping(cls, payload: bytes = b"") -> Frame:
        """A ping."""
        return cls(Opcode.PING, payload)

    @classmethod
    def pong(cls, payload: bytes = b"") -> Frame:
        """A pong."""
        return cls(Opcode.PONG, payload)

    @classmethod
    def close(cls, code: int = CloseCode.NORMAL, reason: str = "") -> Frame:
        """A close; 1005 makes an empty one."""
        return cls(Opcode.CLOSE, close_payload(code, reason))

    def to_bytes(self, masked: bool) -> bytes:
        """The frame as it is sent, by a client ``masked``."""
        first = (FIN if self.fin else 0) | self.rsv << 4 | self.opcode
        return encode_frame(first, self.payload, _MASK if masked else None)


@implementer(IHalfCloseableProtocol)
class _Notes(Protocol):
    """What a scripted peer has read."""

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
    """The other end of a protocol under test; made by `scripted_client` and `scripted_server`.

    protocol: what is under test. transport: this end's; the other is ``protocol_transport``.
    """

    def __init__(self, protocol: S, clock: Clock, chunk: int) -> None:
        self.protocol = protocol
        self._notes = _Notes()
        self._masks = connection_of(protocol).role is Role.SERVER
        if self._masks:
            super().__init__(self._notes, protocol, clock, chunk)
            self.transport, self.protocol_transport = self._ends
        else:
            super().__init__(protocol, self._notes, clock, chunk)
            self.protocol_transport, self.transport = self._ends

    def send(self, *what: bytes | Frame) -> None:
        """Send octets as they are, and frames, masked if this is the client; then `flush`."""
        for part in what:
            self.transport.write(part.to_bytes(self._masks) if isinstance(part, Frame) else part)
        self.flush()

    def read(self) -> bytes:
        """All the octets that came and were not read yet."""
        self.flush()
        octets = bytes(self._notes.octets)
        self._notes.octets.clear()
        return octets

    def read_head(self) -> bytes:
        """The HTTP head that came, with its empty line. Raises AssertionError if there is none."""
        self.flush()
        head, end, rest = self._notes.octets.partition(b"\r\n\r\n")
        if not end:
            raise AssertionError(f"no HTTP head came: {bytes(head)!r}")
        self._notes.octets = rest
        return bytes(head + end)

    def frames(self) -> list[Frame]:
        """The frames that came and were not read yet; of one that is not whole the octets wait.

        Raises AssertionError for a mask where none belongs, none where one does, and a length not in its shortest form.
        """
        octets = self.read()
        frames = []
        while (taken := _take_frame(octets, masked=not self._masks)) is not None:
            frame, octets = taken
            frames.append(frame)
        self._notes.octets += octets
        return frames

    def expect(self, *frames: Frame) -> None:
        """Raise AssertionError unless these frames came, and nothing else."""
        came = self.frames()
        if came != list(frames) or self._notes.octets:
            raise AssertionError(f"expected {list(frames)}; {came} came, and {bytes(self._notes.octets)!r} behind them")

    @property
    def ended(self) -> bool:
        """The protocol ended its side of TCP, or the connection is gone."""
        return self._notes.ended


def _take_frame(octets: bytes, masked: bool) -> tuple[Frame, bytes] | None:
    if len(octets) < 2:
        return None
    size = octets[1] & 0x7F
    start = 2 if size < 126 else 4 if size == 126 else 10
    if start > 2:
        size = int.from_bytes(octets[2:start], "big")
    key = octets[start : start + 4] if masked else None
    start += 4 if masked else 0
    if len(octets) < start + size:
        return None
    payload = octets[start : start + size]
    frame = Frame(
        Opcode(octets[0] & 0x0F),
        payload if key is None else apply_mask(payload, key),
        bool(octets[0] & FIN),
        octets[0] >> 4 & 7,
    )
    end = start + size
    if encode_frame(octets[0], frame.payload, key) != octets[:end]:
        raise AssertionError(f"not a good frame: {octets[:end]!r}")
    return frame, octets[end:]


def upgrade_request(target: str = "/", host: str = "localhost", headers: Mapping[str, str] | None = None) -> bytes:
    """A client's handshake; ``headers`` are added to its fields, or stand in place of them."""
    request = handshake.client_request(host, target, _KEY)
    for name, value in (headers or {}).items():
        request.headers.setRawHeaders(name, [value])
    return request.to_bytes()


def upgrade_response(request: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """A server's answer that accepts ``request``; ``headers`` are added to its fields, or stand in place of them."""
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
    """A client's end that does as it is told, connected to ``server``, which is as for `connected_pair`.

    target, headers: of its `upgrade_request`. opened: shake hands; otherwise send what you like, and read the answer.

    Raises AssertionError if the server declines.
    """
    protocol, clock = _build_server(server, clock, options)
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
    """A server's end that does as it is told, connected to ``client``, which is as for `connected_pair`.

    headers: of its `upgrade_response`. opened: shake hands; otherwise call ``peer.protocol.handshake``, and answer.

    Raises the `HandshakeError` that ``handshake`` fails with.
    """
    clock = clock or Clock()
    peer = ScriptedPeer(_build_client(client, client_options, clock), clock, chunk)
    if opened:
        opening = peer.protocol.handshake("localhost")
        peer.send(upgrade_response(peer.read_head(), headers))
        _finish(peer, opening)
    return peer
