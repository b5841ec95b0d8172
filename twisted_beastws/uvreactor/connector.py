"""Connecting: Twisted's own way up to the connected socket, which is then uvloop's."""

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
    """An attempt to connect: names, addresses, the time it may take and its errors are Twisted's."""

    reactor: Any

    def _connectDone(self) -> None:
        take_over(self.reactor, self.socket, NativeConnection(self.reactor, self._opened))

    def _opened(self, connection: NativeConnection) -> None:
        if not hasattr(self, "connector"):
            # Somebody stopped it, or its time was over.
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
        # Somebody is to hear of the end.
        connection.begin(Protocol() if protocol is None else protocol, f"{log_prefix(protocol)},client")
        if protocol is None:
            connection.loseConnection()


class Connector(tcp.Connector):
    """Twisted's connector."""

    def _makeTransport(self) -> Any:
        return Client(  # type: ignore[no-untyped-call]
            self.host, self.port, self.bindAddress, self, self.reactor
        )
