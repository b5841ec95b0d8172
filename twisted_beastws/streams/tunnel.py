"""Any stream protocol over WebSocket: its writes become binary messages, and received messages become its data."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, ILoggingContext, IProtocolFactory
from twisted.python.failure import Failure

from twisted_beastws.client.attempt import FactoryBefore
from twisted_beastws.clock import next_turn
from twisted_beastws.connection.hook_calls import run_hook
from twisted_beastws.options import Role, Settings
from twisted_beastws.protocol import State, WebSocketProtocol, connection_of
from twisted_beastws.server.factory import WebSocketServerFactory
from twisted_beastws.streams.transport import StreamTransport
from twisted_beastws.wire.closing import CloseCode, CloseReason
from twisted_beastws.wire.frames import Opcode
from twisted_beastws.wire.halfclose import ORDERLY, HalfClosingSession
from twisted_beastws.wire.http import Request, Response

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IProtocol

SUBPROTOCOLS = ("binary",)
"""The subprotocol that tunnels offer and accept: websockify's name for bytes in binary messages."""

MAX_MESSAGE = 1 << 16
"""The most bytes in a sent message: 64 KiB, which every peer accepts."""

CLOSE = 300.0
"""Seconds from an orderly close frame to the end of TCP, in which the peer first reads all that the systems' buffers
hold; as many as ``Timeouts.idle`` grants."""


def for_streams(settings: Settings) -> Settings:
    """Return settings without limits on messages: a stream gets them in pieces, and a transport refuses no write."""
    limits = replace(
        settings.limits, max_message_size=None, max_frame_size=None, max_fragments=None, max_buffered=sys.maxsize
    )
    # The program at the end of a stream may read nothing for a long time.
    timeouts = replace(settings.timeouts, message=None, send=settings.timeouts.idle)
    return replace(settings, limits=limits, timeouts=timeouts, deflate=None)


class Tunnel(WebSocketProtocol):
    """Carries the bytes of ``stream``, which a `StreamTransport` connects when the WebSocket is open.

    Messages of any length are passed on as they arrive; text is refused with 1003. The stream's ``connectionLost`` gets
    ``ConnectionDone`` if both ends closed in order, else ``ConnectionAborted`` or ``ConnectionLost``, with the close
    code in its text.
    """

    stream: IProtocol | None = None
    _stream_transport: StreamTransport | None = None
    _offered: Sequence[str] = ()

    @classmethod
    def carrying(cls, stream: IProtocol, subprotocols: Sequence[str]) -> Tunnel:
        """Return the client's end, which offers ``subprotocols``."""
        tunnel = cls()
        tunnel.stream, tunnel._offered = stream, subprotocols
        return tunnel

    def makeConnection(self, transport: Any) -> None:
        connection = connection_of(self)
        connection.session_type = HalfClosingSession
        if connection.role is Role.CLIENT:
            subprotocols = tuple(self._offered)
            connection.settings = replace(for_streams(connection.settings), subprotocols=subprotocols)
        super().makeConnection(transport)

    # Events of the WebSocket.

    def upgrade_requested(self, request: Request) -> Response | None:
        # Earlier, the factory would count clients that never speak its protocol.
        factory = cast("TunnelFactory", connection_of(self).server)
        self.stream = factory.stream_factory.buildProtocol(cast("IAddress", self.peer))
        return None if self.stream is not None else Response(503, body="There is no place for this connection\n")

    def opened(self) -> None:
        assert self.stream is not None
        connection = connection_of(self)
        cast(HalfClosingSession, connection.session).stream = self
        self._stream_transport = StreamTransport(self, connection.transport)
        self.stream.makeConnection(self._stream_transport)

    def fragment_received(self, data: bytes, opcode: Opcode, final: bool) -> None:
        transport, stream = self._stream_transport, self.stream
        if opcode == Opcode.TEXT:
            self.close(CloseCode.UNKNOWN_DATA, "a stream takes binary messages")
        elif data and transport is not None and stream is not None and not transport.disconnecting:
            self._half_alive()
            stream.dataReceived(data)

    def closed(self, reason: CloseReason) -> None:
        transport, self._stream_transport = self._stream_transport, None
        if transport is not None and self.stream is not None:
            transport.lost()
            self.stream.connectionLost(_lost(reason))

    # Requests of the stream's transport.

    @property
    def sendable(self) -> bool:
        """Whether the connection exists and no close frame was sent."""
        session = connection_of(self).session
        return session is not None and not session.writer.closed

    @property
    def flushed(self) -> bool:
        """Whether `drain` would fire at once."""
        connection = connection_of(self)
        return connection.outgoing.buffered <= connection.settings.limits.low_water

    def later(self, call: Callable[[], object]) -> None:
        """Call a function in the next turn of the reactor."""
        next_turn(connection_of(self).clock, call)

    def send_octets(self, data: bytes) -> None:
        """Send ``data`` in messages of `MAX_MESSAGE`; after a close frame it is discarded."""
        self._half_alive()
        connection = connection_of(self)
        for at in range(0, len(data), MAX_MESSAGE):
            session = connection.session
            if session is None or session.writer.closed:
                return
            session.sender.send_binary(bytes(data[at : at + MAX_MESSAGE]))

    def end(self) -> None:
        """Close with 1000, or answer the peer's close frame."""
        if self.state is State.OPEN:
            self.close()
            connection = connection_of(self)
            if connection.ended is None:
                connection.liveness.expect(CLOSE)

    def end_writing(self) -> None:
        """Send a close frame, and continue to receive."""
        session = cast(HalfClosingSession, connection_of(self).require_session())
        session.half_close()
        if session.half_closed:
            self._half_opened("writeConnectionLost")

    # Half-closed.

    @property
    def half_closeable(self) -> bool:
        """The stream is notified when the peer ends its direction, and may continue to send."""
        return self.state is State.OPEN and IHalfCloseableProtocol.providedBy(self.stream)

    def read_ended(self) -> None:
        """The peer sent its close frame."""
        self._half_opened("readConnectionLost")

    def _half_opened(self, notification: str) -> None:
        # Our session answers no ping after its close frame (as in Beast), and the peer may do the same: send none.
        connection_of(self).liveness.closing()
        self._half_alive()
        if IHalfCloseableProtocol.providedBy(self.stream):
            run_hook(connection_of(self), getattr(self.stream, notification))

    def _half_alive(self) -> None:
        """Bytes moved: if one direction of the connection has ended, restart the time limit of the other."""
        connection = connection_of(self)
        session = connection.session
        if (
            connection.state is State.OPEN
            and session is not None
            and (session.closing.sent or session.closing.received)
        ):
            connection.liveness.expect(connection.settings.timeouts.idle)


def _lost(reason: CloseReason) -> Failure:
    codes = {close.code for close in (reason.sent, reason.received) if close is not None}
    if reason.clean and codes <= ORDERLY:
        return Failure(ConnectionDone())
    kind = ConnectionAborted if isinstance(reason.error, ConnectionAborted) else ConnectionLost
    return Failure(kind(f"WebSocket close code {reason.code}: {reason}"))


class TunnelFactory(WebSocketServerFactory):
    """Serves the protocols of ``stream_factory`` through `Tunnel`.

    Args:
        stream_factory: The factory of the streams.
        subprotocols: The subprotocols to accept.
        options: The options of `WebSocketServerFactory`. The limits of messages and ``deflate`` do not apply.
    """

    def __init__(
        self, stream_factory: IProtocolFactory, *, subprotocols: Sequence[str] = SUBPROTOCOLS, **options: Any
    ) -> None:
        super().__init__(Tunnel, subprotocols=subprotocols, **options)
        self.stream_factory = stream_factory
        self.settings = for_streams(self.settings)

    def logPrefix(self) -> str:
        return f"{_log_prefix(self.stream_factory)} (WebSocket)"

    def doStart(self) -> None:
        super().doStart()  # type: ignore[no-untyped-call]
        self.stream_factory.doStart()

    def doStop(self) -> None:
        super().doStop()  # type: ignore[no-untyped-call]
        self.stream_factory.doStop()


class ClientTunnelFactory(FactoryBefore):
    """Wraps each protocol that does not speak WebSocket itself in the client's end of a `Tunnel`."""

    def __init__(self, factory: IProtocolFactory, subprotocols: Sequence[str]) -> None:
        super().__init__(factory)
        self._subprotocols = subprotocols

    def buildProtocol(self, addr: IAddress | None) -> Any:
        protocol = self.make(addr)
        if protocol is None or _is_unclaimed_websocket(protocol):
            return protocol
        return Tunnel.carrying(protocol, self._subprotocols)


def _is_unclaimed_websocket(protocol: Any) -> bool:
    # `ClientService` wraps the protocols of its factory. If one is a client already, it speaks WebSocket in the stream.
    return hasattr(protocol, "as_client") and connection_of(protocol).role is Role.SERVER


def _log_prefix(factory: Any) -> str:
    if ILoggingContext.providedBy(factory):
        return factory.logPrefix()
    return type(factory).__name__
