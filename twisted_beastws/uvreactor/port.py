"""Incoming connections: Twisted's listening port, and uvloop's servers on duplicates of its socket."""

from __future__ import annotations

import socket
from asyncio import AbstractServer
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet import tcp
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.python import log
from twisted.python.context import theContextTracker
from zope.interface import implementer

from twisted_beastws.uvreactor import steps
from twisted_beastws.uvreactor.log_context import LogContext
from twisted_beastws.uvreactor.names import ip_address, log_prefix
from twisted_beastws.uvreactor.transport import NativeConnection

if TYPE_CHECKING:
    from twisted_beastws.uvreactor.interfaces import NativeReactor

ADOPTED_BACKLOG = 4096
"""The listen backlog of an adopted socket. uvloop always sets one; this is Linux's own limit."""

ACCEPTORS = 4
"""Duplicates of a listening socket: libuv accepts one connection of each in a turn of the loop.

Connections that come together cost an eighth less if they do the same step of the handshake one after the other, while
its code is in the near caches. A connection that comes alone costs three calls of ``accept`` more, a thirtieth. An
adopted socket has one acceptor: other processes may share it, and each of them would make these calls in vain.
"""


@implementer(IListeningPort)
class Port(tcp.Port):
    """A TCP port. Twisted binds, logs, closes and handles errors; uvloop accepts."""

    reactor: Any
    _servers: Sequence[AbstractServer] = ()

    @property
    def reading(self) -> bool:
        """Whether the port accepts connections."""
        return bool(self._servers)

    @property
    def _adopted(self) -> bool:
        # Twisted gives an adopted socket no backlog.
        return self.backlog is None

    def startReading(self) -> None:
        """Start accepting connections."""
        if not self._servers:
            # Duplicates, because closing a server closes its socket, and this port may resume later.
            duplicates = [self.socket.dup() for _ in range(1 if self._adopted else ACCEPTORS)]
            self._servers = [self._serve(duplicate) for duplicate in duplicates]
            self.reactor.native.add(self)
            self.reactor.descriptors.add(self)

    def stopReading(self) -> None:
        """Stop accepting connections."""
        if self._servers:
            for server in self._servers:
                server.close()
            self._servers = ()
            self.reactor.native.discard(self)
            self.reactor.descriptors.discard(self)

    def _serve(self, listening: socket.socket) -> AbstractServer:
        backlog = ADOPTED_BACKLOG if self._adopted else self.backlog
        serving = self.reactor.loop.create_server(self._accept, sock=listening, backlog=backlog)
        server: AbstractServer = steps.result(serving)
        return server

    def _accept(self) -> NativeConnection:
        return NativeConnection(self.reactor, self._accepted)

    def _accepted(self, connection: NativeConnection) -> None:
        if self.disconnecting or not self.connected:
            # An earlier connection of the same turn stopped the port.
            connection.refuse()
            return
        number = self.sessionno
        self.sessionno = number + 1
        # The same as context.call, without its function calls.
        contexts = theContextTracker.currentContext().contexts
        contexts.append(LogContext(self.logPrefix()))  # type: ignore[no-untyped-call]
        try:
            serve(connection, self.factory, number, self._realPortNumber)
        finally:
            contexts.pop()


def serve(connection: NativeConnection, factory: Any, number: int | None, port: int | None) -> None:
    """Give an accepted connection a protocol, or end it if the factory builds none.

    Args:
        connection: The connection.
        factory: Builds the protocol.
        number: The number of the connection in the log; None for the peer's port.
        port: The port on which the connection was accepted.
    """
    peer = connection.peername()
    if peer is None:
        # The peer reset the connection before we served it.
        connection.refuse()
        return
    address = ip_address(peer)
    try:
        protocol = factory.buildProtocol(address)
    except BaseException:
        log.err()
        protocol = None
    if protocol is None:
        connection.refuse()
    else:
        connection.sessionno = number = address.port if number is None else number
        connection.port = port
        connection.begin(protocol, f"{log_prefix(protocol)},{number},{address.host}")


def adopt(reactor: NativeReactor, descriptor: int, family: int, factory: IProtocolFactory) -> NativeConnection:
    """Serve a connection that was accepted elsewhere, on a duplicate of its descriptor."""

    def opened(connection: NativeConnection) -> None:
        serve(connection, factory, None, connection.sockname()[1])

    connection = NativeConnection(reactor, opened)
    take_over(reactor, socket.fromfd(descriptor, family, socket.SOCK_STREAM), connection)
    return connection


def take_over(reactor: NativeReactor, connected: socket.socket, connection: NativeConnection) -> None:
    """Make uvloop serve a connected socket. The connection opens in the next turn of the loop."""
    steps.start(reactor.loop.connect_accepted_socket(lambda: connection, connected))
