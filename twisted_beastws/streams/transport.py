"""The transport of a stream protocol: its bytes travel in messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.interfaces import IConsumer, IPushProducer, ISSLTransport, ITCPTransport, ITransport
from zope.interface import alsoProvides, implementer

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IAddress

_BELOW = frozenset(
    ("getHandle", "getPeerCertificate", "getTcpKeepAlive", "getTcpNoDelay", "setTcpKeepAlive", "setTcpNoDelay")
)
"""Methods of the transport below. ALPN is not among them: TLS agreed on HTTP there, not on the stream."""


class Carrier(Protocol):
    """The WebSocket that carries a stream: a `Tunnel`."""

    @property
    def sendable(self) -> bool: ...

    @property
    def flushed(self) -> bool: ...

    def send_octets(self, data: bytes) -> None: ...

    def drain(self) -> Deferred[None]: ...

    def later(self, call: Callable[[], object]) -> None: ...

    def end(self) -> None: ...

    def end_writing(self) -> None: ...

    def abort(self) -> None: ...

    def registerProducer(self, producer: Any, streaming: bool) -> None: ...

    def unregisterProducer(self) -> None: ...

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...


@implementer(ITransport, IConsumer, IPushProducer)
class StreamTransport:
    """Behaves like a transport of Twisted; a `Tunnel` carries the bytes.

    It provides ``ITCPTransport`` and ``ISSLTransport`` if the transport below does.

    Attributes:
        connected: True until the protocol's ``connectionLost``.
        disconnecting: `loseConnection` was called: the stream receives nothing more.
    """

    def __init__(self, tunnel: Carrier, below: Any) -> None:
        self._tunnel: Carrier | None = tunnel
        self._below = below
        self._producer: Any = None
        self._streaming = False
        self._ending_writing = False
        self.disconnecting = False
        alsoProvides(self, [kind for kind in (ITCPTransport, ISSLTransport) if kind.providedBy(below)])

    @property
    def connected(self) -> bool:
        return self._tunnel is not None

    def lost(self) -> None:
        """The tunnel is gone."""
        self._tunnel = self._producer = None

    def __getattr__(self, name: str) -> Any:
        if name in _BELOW:
            return getattr(self._below, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def getHost(self) -> IAddress:
        """Return the address of this end according to the transport below."""
        return self._below.getHost()  # type: ignore[no-any-return]

    def getPeer(self) -> IAddress:
        """Return the address of the other end according to the transport below."""
        return self._below.getPeer()  # type: ignore[no-any-return]

    # Writing.

    def write(self, data: bytes) -> None:
        """Send bytes. They are never refused, and discarded once the connection closes. Raises TypeError for other
        data.
        """
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"a transport takes bytes, not {type(data).__name__}")
        if data and self._tunnel is not None:
            self._tunnel.send_octets(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Send bytes that come in parts."""
        self.write(b"".join(data))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Pause ``producer`` while the peer reads too slowly; see `WebSocketProtocol.registerProducer`."""
        if self._tunnel is None or not self._tunnel.sendable:
            producer.stopProducing()
            return
        self._tunnel.registerProducer(producer, streaming)
        self._producer, self._streaming = producer, streaming

    def unregisterProducer(self) -> None:
        """Release the producer. A close that waited for it continues."""
        self._producer = None
        if self._tunnel is not None:
            self._tunnel.unregisterProducer()
            self._end_when_flushed()

    # Reading.

    def pauseProducing(self) -> None:
        """Deliver nothing until `resumeProducing`: the peer's writes will pause."""
        if self._tunnel is not None:
            self._tunnel.pauseProducing()

    def resumeProducing(self) -> None:
        """Deliver again."""
        if self._tunnel is not None:
            self._tunnel.resumeProducing()

    def stopProducing(self) -> None:
        """Close, as `loseConnection` does."""
        self.loseConnection()

    # Ending.

    def loseConnection(self) -> None:
        """Close with 1000 after all bytes written so far, and after a pull producer.

        A push producer that is not unregistered delays the close only while it has bytes to write, as with Twisted's
        TCP.
        """
        if not self.disconnecting:
            self.disconnecting = True
            self._end_when_flushed()

    def loseWriteConnection(self) -> None:
        """End only this direction, with a close frame; see `HalfClosingSession` for the effect on the peer."""
        if not self.disconnecting and not self._ending_writing:
            self._ending_writing = True
            self._end_when_flushed()

    def abortConnection(self) -> None:
        """Drop the connection, and discard the waiting bytes."""
        if self._tunnel is not None:
            self.disconnecting = True
            self._tunnel.abort()

    def _end_when_flushed(self) -> None:
        tunnel = self._tunnel
        if tunnel is not None and tunnel.sendable and (self.disconnecting or self._ending_writing):
            tunnel.drain().addCallbacks(self._flushed, lambda _: None)
        elif tunnel is not None and self.disconnecting:
            tunnel.end()

    def _flushed(self, _: None) -> None:
        if self._tunnel is None:
            return
        if self._producer is None:
            self._end(self._tunnel)
        elif self._streaming:
            # The producer is resumed after this call, and may have more.
            self._tunnel.later(self._end_unless_more_came)

    def _end_unless_more_came(self) -> None:
        if self._tunnel is None:
            return
        if self._tunnel.flushed:
            self._end(self._tunnel)
        else:
            self._end_when_flushed()

    def _end(self, tunnel: Carrier) -> None:
        if self.disconnecting:
            tunnel.end()
        else:
            tunnel.end_writing()
