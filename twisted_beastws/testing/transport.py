"""`MemoryTransport`: one end of a TCP connection in memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, IHalfCloseableProtocol, IPushProducer, ITCPTransport
from twisted.python.failure import Failure
from zope.interface import implementer

CHUNK = 1 << 16
"""The most bytes delivered at once by default: 64 KiB, as much as Twisted's transports read."""


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
