"""The transport of a connection, as the application sees it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from twisted_beastws.connection.pacing import discard_clear
from twisted_beastws.connection.state import State
from twisted_beastws.errors import LocalError

if TYPE_CHECKING:
    from twisted_beastws.connection.connection import Connection


class ApplicationTransport:
    """The transport of a connection, as its application sees it: the transport below, with another `loseConnection`.

    A transport waits for its producer, which is the connection, before it closes; and the peer must get a close frame
    first.
    """

    __slots__ = ("_connection", "below")

    def __init__(self, connection: Connection, below: Any) -> None:
        self._connection = connection
        self.below = below

    def loseConnection(self) -> None:
        """Close by the closing handshake, with 1000. Before there is a WebSocket, close after the pending answers."""
        connection = self._connection
        if connection.state is State.CONNECTING:
            connection.tear_down()
        elif connection.session is not None:
            connection.close()

    def abortConnection(self) -> None:
        """Drop the connection, as `WebSocketProtocol.abort` does."""
        self._connection.abort()

    def write(self, data: bytes) -> None:
        """Write raw bytes before there is a WebSocket. Raises `LocalError` once there is one: use `send`."""
        self._require_raw("write")
        self.below.write(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Write several parts, as `write` does."""
        self._require_raw("writeSequence")
        self.below.writeSequence(data)

    def _require_raw(self, method: str) -> None:
        if self._connection.session is not None or self._connection.state is State.CLOSED:
            raise LocalError(
                f"transport.{method}() would put raw bytes between a WebSocket's frames: use the connection's send()"
            )

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Raise `LocalError`: register the producer with the connection."""
        raise LocalError("transport.registerProducer(): register the producer with the connection itself")

    def unregisterProducer(self) -> None:
        """Raise `LocalError`, as `registerProducer` does."""
        raise LocalError("transport.unregisterProducer(): the producer is registered with the connection itself")

    def startTLS(self, context: Any, normal: bool = True) -> None:
        """Encrypt all bytes from now on (``ITLSTransport``). Earlier bytes leave first, in clear.

        Bytes that arrived in clear after the last request or response are discarded: an attacker on the network could
        have sent them.
        """
        discard_clear(self._connection)
        self.below.startTLS(context, normal)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.below, name)
