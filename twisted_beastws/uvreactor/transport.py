"""A TCP connection: Twisted's transport, and the asyncio protocol that uvloop calls."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from twisted.internet import error, interfaces
from twisted.internet._newtls import startTLS
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger
from twisted.python import log
from twisted.python.context import theContextTracker
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_beastws.uvreactor.handle import Handle
from twisted_beastws.uvreactor.held import Held
from twisted_beastws.uvreactor.secured import Secured

if TYPE_CHECKING:
    from twisted_beastws.uvreactor.interfaces import NativeReactor

_log = Logger()

# As in Twisted, of the usual ends there is one each.
DONE = Failure(CONNECTION_DONE)
LOST = Failure(CONNECTION_LOST)

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER's value with which closing resets a connection."""

FULL = 1 << 16
"""Octets waiting above which a push producer is paused: Twisted's own ``bufferSize``, and asyncio's high-water mark."""


def nowhere(data: bytes) -> None:
    """Where goes what is written to a connection that has ended."""


def log_prefix(protocol: object) -> str:
    """What a protocol is called in the log."""
    if interfaces.ILoggingContext.providedBy(protocol):
        prefix: str = protocol.logPrefix()
        return prefix
    return type(protocol).__name__


def ip_address(name: tuple[Any, ...]) -> IPv4Address | IPv6Address:
    """Twisted's address for the socket module's."""
    if len(name) == 2:
        return IPv4Address("TCP", *name)
    if name[3]:
        # The scope is part of a link-local address.
        host, _ = socket.getnameinfo(name, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
        name = (host, *name[1:])
    return IPv6Address("TCP", *name)


@implementer(
    interfaces.ITLSTransport,
    interfaces.ITCPTransport,
    interfaces.ISystemHandle,
    interfaces.IConsumer,
    interfaces.IPushProducer,
    interfaces.ILoggingContext,
)
class NativeConnection(asyncio.Protocol):
    """A connected socket that uvloop reads and writes.

    What a protocol writes while it is given a chunk goes out together at the end of that; all else at once, as far as
    the operating system takes it. TCP_NODELAY is on, as it is in asyncio.

    connected, disconnecting, disconnected, producer, streamingProducer, producerPaused: as Twisted's own transports'.
    """

    TLS = False
    bufferSize = FULL
    connected = disconnecting = disconnected = False
    protocol: Any = None
    producer: Any = None
    streamingProducer = producerPaused = False
    logstr = "Uninitialized"
    description = ""
    sessionno = 0
    _tlsClientDefault = False

    _lost: Callable[[Failure], None] | None = None
    _handle: Handle | None = None
    _held: Held | None = None
    _gathered: list[bytes] | None = None
    _gathers = _reading = _nodelay = True
    _lent = False
    _closed = _ended = _aborting = _flush_due = _flush_awaited = _writeDisconnecting = _writeDisconnected = False
    _unflushed = 0

    def __init__(self, reactor: NativeReactor, opened: Callable[[NativeConnection], None]) -> None:
        """opened: called with the connection when it can be used, to `begin` or to `refuse` it."""
        self.reactor = reactor
        self._opened = opened

    def __repr__(self) -> str:
        return self.description or super().__repr__()

    def logPrefix(self) -> str:
        return self.logstr

    def begin(self, protocol: Any, logstr: str) -> None:
        """Connect a protocol."""
        self.protocol = protocol
        self.logstr = logstr
        self._contexts = theContextTracker.currentContext().contexts
        self._context = {log.ILogContext: {"system": logstr}}
        self._write = self._uv.write
        self.connected = True
        self.reactor.native.add(self)
        self._gathered = []
        try:
            protocol.makeConnection(self)
        except BaseException:
            self._failed()
        self._flush_gathered()
        if self._flush_due:
            self._flush_came()

    def become_client(self, attempt: Any) -> None:
        """This end is the one that connected: ``attempt`` is Twisted's client, whose connector hears of the end."""
        self.description = f"<{type(self)} to {attempt.addr} at {id(self):x}>"
        self.addr = attempt.addr
        self.connector = attempt.connector
        self._lost = attempt.connector.connectionLost
        self._tlsClientDefault = True

    def refuse(self) -> None:
        """End a connection that no protocol was given."""
        self._uv.abort()

    # What uvloop calls.

    def connection_made(self, transport: Any) -> None:
        self._uv = transport
        opened = self._opened
        del self._opened
        opened(self)
        if self.reactor.timeout() == 0:
            # As in Twisted, what was delayed by nothing comes before what is read.
            self.reactor.runUntilCurrent()
        if self.connected and not self._reading:
            # Whatever it is told before, uvloop begins to read after this.
            self._held = Held(self, transport)
            transport.set_protocol(self._held)

    def data_received(self, data: bytes) -> None:
        # What log.callWithContext does, without its copies.
        contexts = self._contexts
        contexts.append(self._context)
        if self._gathers:
            self._gathered = []
        try:
            self.protocol.dataReceived(data)
        except BaseException:
            self._failed()
        finally:
            contexts.pop()
        gathered = self._gathered
        if gathered is not None:
            self._gathered = None
            if gathered:
                self._write(gathered[0] if len(gathered) == 1 else b"".join(gathered))
            if self._flush_due:
                self._flush_came()

    def eof_received(self) -> bool:
        self._ended = True
        protocol = interfaces.IHalfCloseableProtocol(self.protocol, None)
        if protocol is None:
            self.connectionLost(DONE)
        else:
            # As in Twisted, the reactor has nothing to watch any more: it is the protocol's to close.
            self.reactor.native.discard(self)
            self._call(protocol.readConnectionLost)
        # uvloop is to close nothing.
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        if self.connected:
            self._closed = True
            if self._aborting:
                self.connectionLost(Failure(error.ConnectionAborted()))
            elif exc is None:
                self.connectionLost(DONE)
            else:
                self.connectionLost(LOST if isinstance(exc, OSError) else Failure(exc))

    def pause_writing(self) -> None:
        if self._uv.get_write_buffer_size() > FULL:
            self._pause_producer()

    def resume_writing(self) -> None:
        if self._flush_awaited:
            self._flush_awaited = False
            self._uv.set_write_buffer_limits(FULL, 0)
        if self.connected and not self._aborting:
            self._flushed()

    # The end.

    def connectionLost(self, reason: Failure) -> None:
        """End the connection now, whatever waits, and tell its protocol."""
        if not self.connected:
            return
        self._let_go()
        self._gathered = None
        producer, self.producer = self.producer, None
        protocol, self.protocol = self.protocol, None
        lost, self._lost = self._lost, None
        if producer is not None:
            self._call(producer.stopProducing)
        self._call(protocol.connectionLost, reason)
        if self.TLS:
            Secured.take_away(self)
        if lost is not None:
            self._call(lost, reason)

    def _let_go(self) -> None:
        if not self._closed:
            if not self._ended:
                # uvloop closes it in the loop's next turn, which the peer need not wait for.
                with suppress(OSError):
                    self._own_socket().shutdown(socket.SHUT_RDWR)
            self._uv.abort()
        if self._handle is not None:
            self._handle.detach()
            self._handle = None
        self._leave()

    def _leave(self) -> None:
        self.connected = False
        self.disconnected = True
        self._write = nowhere
        self.reactor.native.discard(self)

    def abandon(self) -> None:
        """Let go of the socket, of which somebody has a duplicate; nobody is told."""
        if self.connected:
            self._leave()
            self._uv.abort()

    def loseConnection(self) -> None:
        if self.connected and not self.disconnecting:
            self.stopReading()
            self.disconnecting = True
            if self._gathers or self.producer is not None:
                self._await_flush()
            else:
                self._uv.close()

    def abortConnection(self) -> None:
        if self.connected and not self._aborting:
            self._aborting = True
            self._write = nowhere
            self._gathered = None
            self.stopReading()
            self._options().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self._uv.abort()

    def loseWriteConnection(self) -> None:
        self._writeDisconnecting = True
        if self.connected:
            self._await_flush()

    # Reading.

    @property
    def reading(self) -> bool:
        """Whether it takes what comes."""
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
        """Whether what is held can come now; if so, nothing is held any more."""
        if not self.connected or not self._reading or held is not self._held:
            return False
        self._held = None
        return True

    def go_on_reading(self) -> None:
        """Have uvloop read, unless it was told not to or nothing is to come."""
        if self.reading:
            self._uv.resume_reading()

    def pauseProducing(self) -> None:
        self.stopReading()

    def resumeProducing(self) -> None:
        if self.connected and not self.disconnecting:
            self.startReading()

    def stopProducing(self) -> None:
        self.loseConnection()

    # Writing.

    def write(self, data: bytes) -> None:
        if not isinstance(data, bytes):
            raise TypeError("Data must be bytes")
        if self._gathered is None:
            self._write(data)
        else:
            self._gathered.append(data)
        if self.producer is not None:
            self._produced(len(data))

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        parts = list(iovec)
        for part in parts:
            if not isinstance(part, bytes):
                raise TypeError("Data must be bytes")
        self.write(b"".join(parts))

    def ungathered(self) -> Callable[[bytes | memoryview], int]:
        """The socket's ``send``, for one who joins his writes himself.

        He may call it while nothing waits here: what it leaves he gives to `write`, and as a pull producer hears when
        that is gone. It is not to be called once the connection is lost or half-closed.
        """
        self._flush_gathered()
        self._gathers = False
        return self._own_socket().send

    def _flush_gathered(self) -> None:
        gathered, self._gathered = self._gathered, None
        if gathered:
            self._write(gathered[0] if len(gathered) == 1 else b"".join(gathered))

    # Producers, as Twisted's FileDescriptor has them.

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self.producer is not None:
            raise RuntimeError(
                f"Cannot register producer {producer}, because producer {self.producer} was never unregistered."
            )
        if self.disconnected:
            producer.stopProducing()
            return
        self.producer = producer
        self.streamingProducer = streaming
        self._unflushed = self._uv.get_write_buffer_size()
        if not streaming:
            producer.resumeProducing()
            if self._unflushed or self._gathered:
                # More is wanted when what was written before has left, too.
                self._await_flush()

    def unregisterProducer(self) -> None:
        self.producer = None
        if self.connected and self.disconnecting:
            self._await_flush()

    def stopConsuming(self) -> None:
        self.unregisterProducer()
        self.loseConnection()

    def _produced(self, size: int) -> None:
        self._unflushed += size
        if not self.streamingProducer:
            self._await_flush()
        elif self._unflushed > self.bufferSize:
            # It may have left already: but one who never has to wait would never let others come to their turn.
            self._pause_producer()
            self._await_flush()

    def _pause_producer(self) -> None:
        if self.producer is not None and self.streamingProducer:
            self.producerPaused = True
            self._call(self.producer.pauseProducing)

    def _await_flush(self) -> None:
        """See to it that `_flushed` is called when nothing waits any more, but never from in here."""
        if not self._flush_due:
            self._flush_due = True
            if self._gathered is None:
                self.reactor.loop.call_soon(self._flush_came)

    def _flush_came(self) -> None:
        if self._flush_due:
            self._flush_due = False
            if self.connected and not self._aborting:
                if self._uv.get_write_buffer_size():
                    # uvloop then says when none is left, by resume_writing.
                    self._flush_awaited = True
                    self._uv.set_write_buffer_limits(0)
                else:
                    self._flushed()

    def _flushed(self) -> None:
        self._unflushed = 0
        if self.producer is not None and (self.producerPaused or not self.streamingProducer):
            self.producerPaused = False
            self._call(self.producer.resumeProducing)
        elif self.disconnecting:
            self._uv.close()
        elif self._writeDisconnecting and not self._writeDisconnected:
            self._writeDisconnected = True
            self._write = nowhere
            self._uv.write_eof()
            protocol = interfaces.IHalfCloseableProtocol(self.protocol, None)
            if protocol is not None:
                self._call(protocol.writeConnectionLost)

    # The application's errors.

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
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
            # uvloop would swallow it here.
            self.reactor.loop.call_soon(failure.raiseException)
        else:
            _log.failure("Unhandled error in a callback", failure, log_system=self.logstr)
        self.connectionLost(failure)

    # TLS, as Twisted has it.

    def startTLS(self, contextFactory: Any, normal: bool = True) -> None:
        # Twisted would register it with TLS; below, `Secured` does.
        producer, streaming = self.producer, self.streamingProducer
        if producer is not None:
            self.unregisterProducer()
        startTLS(self, contextFactory, normal, NativeConnection)
        self.TLS = True
        Secured(self).put_before(self)
        if producer is not None:
            self.registerProducer(producer, streaming)

    # The socket.

    def peername(self) -> tuple[Any, ...] | None:
        """The other end's address, as the socket module gives it; None if it was gone before it was asked for."""
        name: tuple[Any, ...] | None = self._uv.get_extra_info("peername")
        return name

    def sockname(self) -> tuple[Any, ...]:
        """This end's address, as the socket module gives it."""
        name: tuple[Any, ...] = self._uv.get_extra_info("sockname")
        return name

    def getPeer(self) -> Any:
        return ip_address(self._uv.get_extra_info("peername"))

    def getHost(self) -> Any:
        return ip_address(self.sockname())

    def getHandle(self) -> socket.socket:
        # Starting TLS puts another in its place, which gives OpenSSL's connection.
        return self.socket

    @property
    def socket(self) -> socket.socket:
        """The connection's own socket, not a copy."""
        handle = self._own_socket()
        handle.abandon = self.abandon
        self._lent = True
        return handle

    def _own_socket(self) -> Handle:
        if self._handle is None:
            # What is not said costs a system call each.
            family = socket.AF_INET if len(self.sockname()) == 2 else socket.AF_INET6
            self._handle = Handle(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, self.fileno())
        return self._handle

    def fileno(self) -> int:
        """The descriptor; -1 once the connection is lost."""
        number: int = self._options().fileno() if self.connected else -1
        return number

    def getTcpNoDelay(self) -> bool:
        return bool(self._options().getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def setTcpNoDelay(self, enabled: bool) -> None:
        # Most who ask for it ask for what they have; who has the socket may have changed it.
        if enabled != self._nodelay or self._lent:
            self._options().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, bool(enabled))
            self._nodelay = bool(enabled)

    def getTcpKeepAlive(self) -> bool:
        return bool(self._options().getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self._options().setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, bool(enabled))

    def _options(self) -> Any:
        return self._uv.get_extra_info("socket")
