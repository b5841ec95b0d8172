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

Time passes by `ConnectedPair.advance`, which runs what is due in its order and moves octets in between:

>>> latency = pair.client.ping()
>>> pair.advance(0.25)
>>> latency.result
0.0

What goes wrong on a network goes wrong here where you want it, and deferred results tell of it:

>>> pair.server_transport.stalled = True            # What the server sends does not arrive.
>>> latency = pair.client.ping()
>>> pair.advance(1.5)
>>> pair.server_transport.stalled = False
>>> pair.flush()
>>> latency.result
1.5
>>> pair.client_transport.break_after(3)            # The fourth octet from now does not arrive, nor does anything else.
>>> pair.client.send("cut")
>>> pair.flush()
>>> print(pair.server.close_reason)
begun by transport, sent nothing, received nothing (Connection to the other side was lost in a non-clean fashion.)

`scripted_client` gives you the wire of your server, octet by octet or frame by frame, and `scripted_server` that of your
client. Nothing is checked on the way out, so that it may do what no client does:

>>> peer = scripted_client(Echo)
>>> peer.send(Frame.text("hel", fin=False), Frame.ping(b"?"), b"\\x80")
>>> peer.expect(Frame.pong(b"?"))
>>> peer.send(b"\\x82lo!!lo")                        # The rest of the frame's head: two octets, masked.
>>> peer.frames()
[Frame(opcode=<Opcode.TEXT: 1>, payload=b'hel\\x00\\x00', fin=True, rsv=0)]
>>> peer.send(Frame(0x3))
>>> peer.expect(Frame.close(1002)) 
>>> peer.ended
True

A connection that is closed, or ended by ``cut()``, leaves no delayed call on its clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Generic, NamedTuple, TypeVar, overload

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, IHalfCloseableProtocol, IProtocol, IPushProducer, ITCPTransport
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_beastws.options import Settings
from twisted_beastws.protocol import WebSocketProtocol
from twisted_beastws.server import Handler, WebSocketServerFactory
from twisted_beastws.wire import handshake
from twisted_beastws.wire.closing import CloseCode, close_payload
from twisted_beastws.wire.frames import FIN, Opcode, apply_mask, encode_frame
from twisted_beastws.wire.http import parse_request

S = TypeVar("S", bound=WebSocketProtocol)
C = TypeVar("C", bound=WebSocketProtocol)
P = TypeVar("P", bound=WebSocketProtocol)

CHUNK = 1 << 16
"""Octets delivered at once: 64 KiB, as Twisted's transports read them."""

ROUNDS = 100_000
"""Deliveries in one flush, after which the two ends are taken never to fall silent."""

# RFC 6455 §1.3 and §5.7, the examples.
_KEY = "dGhlIHNhbXBsZSBub25jZQ=="
_MASK = bytes.fromhex("37fa213d")


@implementer(ITCPTransport, IConsumer, IPushProducer)
class MemoryTransport:
    """One end of a TCP connection in memory, whose octets move only when it is told to `step`.

    It is to its protocol what Twisted's is: it pauses its one producer above ``buffer_size`` octets (64 KiB) and resumes
    it when all are gone; `loseConnection` waits for them, and for a producer to be unregistered; the two directions end
    by themselves; nothing is called back before the caller returned.

    connected: until ``connectionLost``. disconnecting: since `loseConnection`; nothing is read any more.
    stalled: what is written here does not arrive, the connection's end included, until this is False again.
    """

    buffer_size = 1 << 16

    def __init__(self, host: IPv4Address, peer: IPv4Address) -> None:
        self.protocol: IProtocol | None = None
        self.connected = True
        self.disconnecting = False
        self.stalled = False
        self.producer: Any = None
        self._host = host
        self._peer = peer
        self._other = self
        self._buffer = bytearray()
        self._breaks_in: int | None = None
        self._streaming = False
        self._producer_paused = False
        self._reading = True
        self._aborting = False
        self._ending = False
        self._ended = False
        self._end_told = False

    def join(self, other: MemoryTransport) -> None:
        """Be the ends of one connection."""
        self._other, other._other = other, self

    def break_after(self, octets: int) -> None:
        """Break the connection, for both ends, when so many more octets of what is written here have arrived."""
        self._breaks_in = octets

    def break_now(self) -> None:
        """Break the connection, for both ends, at once."""
        for end in (self, self._other):
            end._lose(ConnectionLost())

    @property
    def buffered(self) -> int:
        """Octets written here that have not arrived."""
        return len(self._buffer)

    def step(self, size: int = CHUNK) -> bool:
        """Do what is next on the way from here to the other end: at most ``size`` octets, in one piece, or an end.

        Returns whether there was anything to be done.
        """
        if self._aborting:
            self._aborting = False
            self._lose(ConnectionAborted())
        elif self.stalled:
            return False
        elif self._breaks_in == 0 and self.connected:
            self.break_now()
        elif self._buffer:
            return self._deliver(size)
        elif self.disconnecting and self.connected and self.producer is None:
            self._lose(ConnectionDone())
        elif self._ending and not self._ended and self.producer is None:
            self._end()
        else:
            return self._tell_end()
        return True

    def _deliver(self, size: int) -> bool:
        other = self._other
        if not other.connected:
            self._lose(ConnectionLost())
            return True
        if not other._reading and not other.disconnecting:
            return False
        if self._breaks_in is not None:
            size = min(size, self._breaks_in)
            self._breaks_in -= min(size, len(self._buffer))
        piece = bytes(self._buffer[:size])
        del self._buffer[:size]
        # TCP takes what comes for an end that does not read any more, and throws it away.
        if not other.disconnecting and other.protocol is not None:
            other.protocol.dataReceived(piece)
        if not self._buffer and self.producer is not None and (self._producer_paused or not self._streaming):
            self._producer_paused = False
            self.producer.resumeProducing()
        return True

    def _end(self) -> None:
        self._ended = True
        half_closeable = IHalfCloseableProtocol(self.protocol, None)
        if half_closeable is not None:
            half_closeable.writeConnectionLost()

    def _tell_end(self) -> bool:
        other = self._other
        if not self._ended or self._end_told or not other.connected or not other._reading or other.disconnecting:
            return False
        self._end_told = True
        half_closeable = IHalfCloseableProtocol(other.protocol, None)
        if self._broken:
            other._lose(ConnectionLost())
        elif half_closeable is None:
            other._lose(ConnectionDone())
        else:
            half_closeable.readConnectionLost()
        return True

    def _lose(self, reason: Exception) -> None:
        if not self.connected:
            return
        self.connected = False
        self._ended = True
        self._buffer.clear()
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()
        protocol, self.protocol = self.protocol, None
        if protocol is not None:
            protocol.connectionLost(Failure(reason))
