"""Outgoing connections: Twisted connects the socket, and then uvloop takes it over."""

from __future__ import annotations

from typing import Any

from twisted.internet import error, tcp
from twisted.internet.protocol import Protocol
from twisted.python import log
from twisted.python.failure import Failure

from twisted_beastws.uvreactor.names import log_prefix
from twisted_beastws.uvreactor.port import take_over
from twisted_beastws.uvreactor.transport import NativeConnection


class Client(tcp.Client):
    """An attempt to connect. Twisted resolves names, binds, connects, and handles timeouts and errors."""

    reactor: Any

    def _connectDone(self) -> None:
        take_over(self.reactor, self.socket, NativeConnection(self.reactor, self._opened))

    def _opened(self, connection: NativeConnection) -> None:
        if not hasattr(self, "connector"):
            # The attempt was stopped or timed out.
            connection.refuse()
            return
        connector = self.connector
        try:
            protocol = connector.buildProtocol(self.getPeer())  # type: ignore[no-untyped-call]
        except BaseException:
            log.err()
            connection.refuse()
            self.failIfNotConnected(error.ConnectError(string=Failure()))  # type: ignore[no-untyped-call]
            return
        self.connected = 1
        connector.transport = connection
        connection.become_client(self)
        # Without a protocol, a plain one takes the notice that the connection is lost.
        connection.begin(Protocol() if protocol is None else protocol, f"{log_prefix(protocol)},client")
        if protocol is None:
            connection.loseConnection()


class Connector(tcp.Connector):
    """Twisted's connector. It makes `Client` objects."""

    def _makeTransport(self) -> Any:
        return Client(  # type: ignore[no-untyped-call]
            self.host, self.port, self.bindAddress, self, self.reactor
        )
