"""The methods of a connection on which TLS was started."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol


class SecurableConnection(Protocol):
    """A `NativeConnection`, whose protocol is Twisted's TLS."""

    connected: bool
    disconnecting: bool
    protocol: Any


class Secured:
    """Passes the calls of a connection's users to Twisted's TLS, which calls the methods of the connection's class."""

    def __init__(self, connection: SecurableConnection) -> None:
        self._connection = connection

    def put_before(self, connection: Any) -> None:
        """Put these methods before those of the connection's class. A write then costs no check."""
        for method in (
            *(self.write, self.writeSequence, self.loseConnection),
            *(self.registerProducer, self.unregisterProducer),
        ):
            setattr(connection, method.__name__, method)

    @staticmethod
    def take_away(connection: Any) -> None:
        """Take the methods away from a connection that is gone: they refer to it."""
        for name in ("write", "writeSequence", "loseConnection", "registerProducer", "unregisterProducer"):
            vars(connection).pop(name, None)

    def write(self, data: bytes) -> None:
        if self._connection.connected:
            self._connection.protocol.write(data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        if self._connection.connected:
            self._connection.protocol.writeSequence(iovec)

    def loseConnection(self) -> None:
        if self._connection.connected and not self._connection.disconnecting:
            self._connection.protocol.loseConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self._connection.connected:
            self._connection.protocol.registerProducer(producer, streaming)
        else:
            producer.stopProducing()

    def unregisterProducer(self) -> None:
        if self._connection.connected:
            self._connection.protocol.unregisterProducer()
