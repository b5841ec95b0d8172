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
    """One end of a TCP connection in memory. Nothing happens on it except in `step`.

    It treats its protocol as Twisted's transports do. It has one producer, which it pauses above ``buffer_size`` bytes
    and resumes when all bytes are gone. `loseConnection` waits for these bytes, and until the producer is unregistered.
    Either direction may end by itself; a protocol that is no ``IHalfCloseableProtocol`` then loses both.

    Attributes:
        protocol: The protocol of this end, while it is ``connected``.
        disconnecting: `loseConnection` was called: this end reads no more.
        stalled: Set it to True to keep the bytes written here, and the end of this direction, from arriving.
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
        """Make the two transports the ends of one connection."""
        self._other, other._other = other, self

    # For tests.

    @property
    def buffered(self) -> int:
        """The number of bytes written here that have not arrived."""
        return len(self._buffer)

    def break_after(self, size: int) -> None:
        """Call `break_now` when this many more bytes written here have arrived, including those that wait."""
        self._break_after = size

    def break_now(self) -> None:
        """Break the connection: both protocols lose it at once, with ``ConnectionLost``."""
        for end in (self, self._other):
            end._lose(ConnectionLost(), None)

    def step(self, size: int = CHUNK) -> bool:
        """Perform the next event in the direction from here to the other end: at most ``size`` bytes in one piece, or
        an end.

        Returns:
            Whether there was an event. An exception of the other protocol leaves this call.
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
            return self._announce_end()
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
        # An operating system accepts bytes for a closing end, too.
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

    def _announce_end(self) -> bool:
        """Notify the other end, once, how this direction ended."""
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
        """Lose the connection for ``reason``; ``news`` is the reason for the other end."""
        if not self.connected:
            return
        self.connected = False
        # The end of a direction is announced once.
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
        """Send bytes. Raises TypeError for anything else."""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"a transport takes bytes, not {data!r}")
        if self.connected and not self._ended:
            self._buffer += data
            if self._streaming and self.producer is not None and len(self._buffer) > self.buffer_size:
                self._producer_paused = True
                self.producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Send bytes that come in parts."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Close after the bytes written so far; read no more."""
        self.disconnecting = self.connected

    def loseWriteConnection(self) -> None:
        """End this direction after the bytes written so far."""
        self._ending = self.connected

    def abortConnection(self) -> None:
        """Close, and discard the bytes written so far."""
        if self.connected:
            self._aborting = True
            self.disconnecting = True

    def getHost(self) -> IPv4Address:
        """Return the address of this end."""
        return self._host

    def getPeer(self) -> IPv4Address:
        """Return the address of the other end."""
        return self._peer

    def getTcpNoDelay(self) -> bool:
        """Return the value that `setTcpNoDelay` set."""
        return self._no_delay

    def setTcpNoDelay(self, enabled: bool) -> None:
        """It makes no difference here."""
        self._no_delay = bool(enabled)

    def getTcpKeepAlive(self) -> bool:
        """Return the value that `setTcpKeepAlive` set."""
        return self._keep_alive

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """It makes no difference here."""
        self._keep_alive = bool(enabled)

    # IConsumer and IPushProducer.

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Register a producer. Raises RuntimeError for a second one."""
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
        """Release the producer."""
        self.producer = None

    def pauseProducing(self) -> None:
        """Pause reading."""
        self._reading = False

    def resumeProducing(self) -> None:
        """Resume reading."""
        self._reading = True

    def stopProducing(self) -> None:
        """Close."""
        self.loseConnection()
