"""A connection's transport as the application sees it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from twisted_beastws.connection.pacing import discard_clear
from twisted_beastws.connection.state import State
from twisted_beastws.errors import LocalError

if TYPE_CHECKING:
    from twisted_beastws.connection.connection import Connection


class ApplicationTransport:
    """A connection's transport as its application sees it: the transport below, but for `loseConnection`.

    A transport waits for its producer, which we are, before it lets go; and the peer is to be told.
    """

    __slots__ = ("_connection", "below")

    def __init__(self, connection: Connection, below: Any) -> None:
        self._connection = connection
        self.below = below

    def loseConnection(self) -> None:
        """Close by the closing handshake, with 1000; before there is a WebSocket, behind the answers that wait."""
        connection = self._connection
        if connection.state is State.CONNECTING:
            connection.ending.tear_down()
        elif connection.session is not None:
            connection.close()

    def abortConnection(self) -> None:
        """As `WebSocketProtocol.abort`."""
        self._connection.abort()

    def write(self, data: bytes) -> None:
        """Write raw bytes before there is a WebSocket. Raises `LocalError` once there is one: use `send`."""
        self._require_raw("write")
        self.below.write(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """As `write`."""
        self._require_raw("writeSequence")
        self.below.writeSequence(data)

    def _require_raw(self, method: str) -> None:
        if self._connection.session is not None or self._connection.state is State.CLOSED:
            raise LocalError(
                f"transport.{method}() would put raw bytes between a WebSocket's frames: use the connection's send()"
            )

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """The connection is the transport's producer. Raises `LocalError`: register with the connection."""
        raise LocalError("transport.registerProducer(): register the producer with the connection itself")

    def unregisterProducer(self) -> None:
        """Raises `LocalError`, as `registerProducer`."""
        raise LocalError("transport.unregisterProducer(): the producer is registered with the connection itself")

    def startTLS(self, context: Any, normal: bool = True) -> None:
        """Encrypt all that is sent from now on (``ITLSTransport``); what was sent before leaves first, in clear.

        What the peer sent in clear behind the request or response read last is thrown away: whoever is on the way could
        have put it there.
        """
        discard_clear(self._connection)
        self.below.startTLS(context, normal)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.below, name)
