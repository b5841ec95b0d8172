"""A TCP connection: Twisted's transport, and the asyncio protocol that uvloop calls."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

from twisted.internet import error, interfaces
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.context import theContextTracker
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer

from twisted_beastws.tls.sending import tls_of, use_records
from twisted_beastws.uvreactor.handle import ConnectionSocket
from twisted_beastws.uvreactor.held import Held
from twisted_beastws.uvreactor.in_place import InPlace
from twisted_beastws.uvreactor.log_context import LogContext
from twisted_beastws.uvreactor.names import ip_address
from twisted_beastws.uvreactor.secured import BelowTLS, tls_layer, write_until_abort
from twisted_beastws.uvreactor.writing import ConnectionWriter
from twisted_beastws.wire.places import Places

if TYPE_CHECKING:
    from twisted_beastws.uvreactor.interfaces import NativeReactor

_log = Logger()

# As in Twisted, all connections share one failure for each usual end.
DONE = Failure(CONNECTION_DONE)
LOST = Failure(CONNECTION_LOST)


class Write:
    """Binds ``write`` of a connection at its first use. A WebSocket writes to its socket, and may never use it."""

    def __get__(self, connection: Any, owner: type) -> Any:
        return self if connection is None else connection.bind_write()


@implementer(
    interfaces.ITLSTransport,
    interfaces.ITCPTransport,
    interfaces.ISystemHandle,
    interfaces.IConsumer,
    interfaces.IPushProducer,
    interfaces.ILoggingContext,
)
class NativeConnection(asyncio.Protocol):
    """A connected socket that uvloop reads and writes. TCP_NODELAY is on, as in asyncio.

    Attributes:
        bufferSize, connected, disconnecting, disconnected, producer, streamingProducer, producerPaused: As in
            Twisted's own transports.
        description: The text of a client's connection; empty for others.
        port: The port on which the connection was accepted.
        TLS: TLS was started, and encrypts the application's writes.
        write: ``ITransport.write``. From its first use on this is an attribute bound to the writer, so that a write
            costs no further call.
    """

    TLS = False
    connected = disconnecting = disconnected = False
    protocol: Any = None
    logstr = "Uninitialized"
    description = ""
    port: int | None = None
    sessionno = 0
    getPeerCertificate: Callable[[], Any]
    write: Any = Write()

    _protocol_name = "NativeConnection"
    _is_client = False
    _lost: Callable[[Failure], None] | None = None
    _held: Held | None = None
    _in_place: InPlace | None = None
    _reading = True
    _ended = _aborting = _write_disconnecting = _write_disconnected = False

    def __init__(self, reactor: NativeReactor, opened: Callable[[NativeConnection], None]) -> None:
        """``opened`` is called with the connection when it can be used; it calls `begin` or `refuse`."""
        self.reactor = reactor
        self._opened = opened

    def __repr__(self) -> str:
        # Not kept: the text would take 70 bytes.
        return self.description or f"<{self._protocol_name} #{self.sessionno} on {self.port}>"

    def logPrefix(self) -> str:
        return self.logstr

    # The beginning.

    def connection_made(self, transport: Any) -> None:
        self._uv = transport
        self._socket = ConnectionSocket(transport)
        self._writer = writer = ConnectionWriter(transport, self.reactor.loop, self)
        self._upper = writer
        opened = self._opened
        del self._opened
        opened(self)
        if self.reactor.timeout() == 0:
            # As in Twisted, calls delayed by 0 seconds run before the first data is read.
            self.reactor.runUntilCurrent()
        if self.connected and not self._reading:
            # uvloop begins to read after this, even if reading was paused before.
            self._held = Held(self, transport)
            transport.set_protocol(self._held)

    def begin(self, protocol: Any, logstr: str) -> None:
        """Connect a protocol to the connection."""
        self.protocol = protocol
        self._protocol_name = type(protocol).__name__
        self.logstr = logstr
        self._contexts = theContextTracker.currentContext().contexts
        self._context = LogContext(logstr)
        self.connected = True
        self.reactor.native.add(self)
        writer = self._writer
        writer.begin_chunk()
        try:
            protocol.makeConnection(self)
            layer = tls_of(protocol)
            if layer is not None and use_records(layer) is None:
                self.write = write_until_abort(layer, writer.write)
        except BaseException:
            self._failed()
        writer.end_chunk()

    def become_client(self, attempt: Any) -> None:
        """Be the client's end. ``attempt`` is Twisted's client; its connector is notified of the end."""
        self.description = f"<{type(self)} to {attempt.addr} at {id(self):x}>"
        self.addr = attempt.addr
        self.connector = attempt.connector
        self._lost = attempt.connector.connectionLost
        self._is_client = True

    def refuse(self) -> None:
        """End a connection that got no protocol."""
        self._uv.abort()

    # uvloop calls these.

    def data_received(self, data: bytes) -> None:
        # The same as log.callWithContext, without its copies.
        contexts = self._contexts
        contexts.append(self._context)
        writer = self._writer
        gathers = writer.gathers
        if gathers:
            writer.begin_chunk()
        try:
            self.protocol.dataReceived(data)
        except BaseException:
            self._failed()
        finally:
            contexts.pop()
        if gathers:
            writer.end_chunk()

    def eof_received(self) -> bool:
        self._ended = True
        protocol = interfaces.IHalfCloseableProtocol(self.protocol, None)
        if protocol is None:
            self.connectionLost(DONE)
        else:
            # As in Twisted, the reactor no longer watches the connection; the protocol must close it.
            self.reactor.native.discard(self)
            self.call(protocol.readConnectionLost)
        # True keeps uvloop from closing the transport.
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        if self.connected:
            self._socket.closed = True
            if self._aborting:
                self.connectionLost(Failure(error.ConnectionAborted()))
            elif exc is None:
                self.connectionLost(DONE)
            else:
                self.connectionLost(LOST if isinstance(exc, OSError) else Failure(exc))

    def pause_writing(self) -> None:
        self._writer.pause_writing()

    def resume_writing(self) -> None:
        self._writer.resume_writing()

    # The end.

    def connectionLost(self, reason: Failure) -> None:
        """End the connection now, discard waiting bytes, and notify the protocol."""
        if not self.connected:
            return
        if not self._socket.closed:
            if not self._ended:
                # Disconnect now: uvloop closes the socket only in the next turn of the loop.
                self._socket.shut_down()
            self._uv.abort()
        producer = self._leave()
        protocol, self.protocol = self.protocol, None
        lost, self._lost = self._lost, None
        self._in_place = None
        self._write_to(self._writer)
        if producer is not None:
            self.call(producer.stopProducing)
        self.call(protocol.connectionLost, reason)
        if lost is not None:
            self.call(lost, reason)
        # This method of the TLS layer refers to its transport, so it would form a reference cycle.
        vars(self).pop("getPeerCertificate", None)

    def _leave(self) -> Any:
        self.connected = False
        self.disconnected = True
        self._socket.release()
        self.reactor.native.discard(self)
        return self._writer.close()

    def abandon(self) -> None:
        """Release the socket without notifying anything: the application has a duplicate of it."""
        if self.connected:
            self._leave()
            self._uv.abort()

    def loseConnection(self) -> None:
        if not self.TLS:
            self.close_when_written()
        elif self.connected and not self.disconnecting:
            self.protocol.loseConnection()

    def close_when_written(self) -> None:
        """Close when all written bytes are sent."""
        if self.connected and not self.disconnecting:
            self.stopReading()
            self.disconnecting = True
            if self._writer.closes_later:
                self._writer.call_when_written()
            else:
                self._uv.close()

    def abortConnection(self) -> None:
        if self.connected and not self._aborting:
            self._aborting = True
            self._writer.abort()
            self.stopReading()
            self._socket.reset_when_closed()
            self._uv.abort()

    def loseWriteConnection(self) -> None:
        self._write_disconnecting = True
        if self.connected:
            self._writer.call_when_written()

    def all_written(self) -> None:
        """All written bytes are sent; the writer calls this."""
        if self.disconnecting:
            self._uv.close()
        elif self._write_disconnecting and not self._write_disconnected:
            self._write_disconnected = True
            self._writer.write_nothing()
            self._uv.write_eof()
            protocol = interfaces.IHalfCloseableProtocol(self.protocol, None)
            if protocol is not None:
                self.call(protocol.writeConnectionLost)

    # Reading.

    @property
    def reading(self) -> bool:
        """Whether the connection reads: it is not paused, and the peer has not ended."""
        return self._reading and not self._ended

    def stopReading(self) -> None:
        self._reading = False
        self._uv.pause_reading()

    def startReading(self) -> None:
        self._reading = True
        if self._held is not None:
            self.reactor.loop.call_soon(self._held.release)
        else:
            self.go_on_reading()

    def takes(self, held: Held) -> bool:
        """Return whether the connection takes the held data now. If it does, ``held`` is released."""
        if not self.connected or not self._reading or held is not self._held:
            return False
        self._held = None
        return True

    def go_on_reading(self) -> None:
        """Make uvloop read, unless reading is paused or the peer has ended."""
        if self.reading:
            self._uv.resume_reading()

    def receive_in_place(self, places: Places) -> bool:
        """Read the bytes for which ``places`` has a place into that, and only the others into chunks.

        This ends with a chunk after which ``places`` has none, or when the bytes go to another protocol.

        Returns:
            Whether this is possible.
        """
        if self._held is not None or not self.connected:
            return False
        if self._in_place is None:
            self._in_place = InPlace(self, places)
            self._uv.set_protocol(self._in_place)
        return True

    def receive_chunks(self) -> None:
        """Read all bytes into chunks again."""
        if self._in_place is not None and self.connected:
            self._uv.set_protocol(self)
        self._in_place = None

    def pauseProducing(self) -> None:
        self.stopReading()

    def resumeProducing(self) -> None:
        if self.connected and not self.disconnecting:
            self.startReading()

    def stopProducing(self) -> None:
        self.loseConnection()

    # Writing.

    def _write_to(self, upper: Any) -> None:
        # The application writes to ``upper``: the writer, or TLS, which writes to the writer.
        self._upper = upper
        self.write = upper.write

    def bind_write(self) -> Callable[[bytes], None]:
        """Bind `write`, and return it."""
        self.write = self._upper.write
        return cast("Callable[[bytes], None]", self.write)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        self._upper.writeSequence(iovec)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._upper.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        self._upper.unregisterProducer()

    def stopConsuming(self) -> None:
        self.unregisterProducer()
        self.loseConnection()

    @property
    def bufferSize(self) -> int:
        return self._writer.full

    @bufferSize.setter
    def bufferSize(self, size: int) -> None:
        self._writer.full = size

    @property
    def producer(self) -> Any:
        return self._writer.producer

    @property
    def streamingProducer(self) -> bool:
        return self._writer.streaming

    @property
    def producerPaused(self) -> bool:
        return self._writer.paused

    def ungathered(self) -> socket.socket:
        """Return the socket, for a caller that joins its writes itself. Do not call this over TLS.

        The caller may use its ``send`` while no bytes wait here. It must give the rest of a partial write to `write`.
        As a pull producer it is resumed when that rest is sent. It must not use ``send`` once the connection is lost or
        half-closed.
        """
        self._writer.write_gathered()
        self._writer.gathers = False
        return self._socket.own()

    def ungathered_parts(self, parts: Iterable[bytes | memoryview]) -> int:
        """Send several parts by the socket's ``sendmsg``, as `ungathered` does one."""
        return self._socket.own().sendmsg(parts)

    def ungathered_records(self) -> tuple[socket.socket, Callable[[], int]]:
        """Return the socket for TLS records, and a function that returns the number of bytes waiting here.

        From now on each write here pauses the producer of the connection.
        """
        self._writer.write_gathered()
        self._writer.gathers = False
        self._writer.full = 0
        # The ``write`` of a TLS layer may have been replaced.
        self._write_to(self._upper)
        return self._socket.own(), self._writer.waits

    # TLS.

    def startTLS(self, contextFactory: Any, normal: bool = True) -> None:
        # From now on TLS paces the producer.
        producer, streaming = self.producer, self.streamingProducer
        if producer is not None:
            self.unregisterProducer()
        layer = tls_layer(contextFactory, normal is self._is_client, self.protocol)
        self.protocol = layer
        self._write_to(layer)
        self.getPeerCertificate = layer.getPeerCertificate
        self.TLS = True
        directlyProvides(self, interfaces.ISSLTransport)
        layer.makeConnection(BelowTLS(self, self._writer, layer))
        use_records(layer)
        if producer is not None:
            self.registerProducer(producer, streaming)

    # Errors of the application.

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Call a function of the application in its log context. An exception ends the connection."""
        self._contexts.append(self._context)
        try:
            function(*arguments)
        except BaseException:
            self._failed()
        finally:
            self._contexts.pop()

    def _failed(self) -> None:
        failure = Failure()
        if failure.check(KeyboardInterrupt):
            # uvloop would swallow the exception here.
            self.reactor.loop.call_soon(failure.raiseException)
        else:
            _log.failure("Unhandled error in a callback", failure, log_system=self.logstr)
        self.connectionLost(failure)

    # The socket.

    def peername(self) -> tuple[Any, ...] | None:
        """Return the peer's address in the form of the socket module; None if the peer disconnected too early."""
        return self._socket.peer_name()

    def sockname(self) -> tuple[Any, ...]:
        """Return this end's address in the form of the socket module."""
        return self._socket.name()

    def getPeer(self) -> Any:
        return ip_address(self._uv.get_extra_info("peername"))

    def getHost(self) -> Any:
        return ip_address(self.sockname())

    def getHandle(self) -> Any:
        if not self.TLS:
            return self.socket
        return None if self.protocol is None else self.protocol.getHandle()

    @property
    def socket(self) -> socket.socket:
        """The socket of the connection itself, not a copy."""
        return self._socket.lend(self.abandon)

    def fileno(self) -> int:
        """Return the descriptor; -1 once the connection is lost."""
        return self._socket.fileno() if self.connected else -1

    def getTcpNoDelay(self) -> bool:
        return self._socket.get_nodelay()

    def setTcpNoDelay(self, enabled: bool) -> None:
        self._socket.set_nodelay(bool(enabled))

    def getTcpKeepAlive(self) -> bool:
        return self._socket.get_keepalive()

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self._socket.set_keepalive(bool(enabled))
