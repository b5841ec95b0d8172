"""A connection on which TLS was started."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted_beastws.uvreactor.transport import Connection


class Secured(Connection):
    """What its users write goes through Twisted's TLS, which writes on as to a `Connection`."""

    TLS = True
    # Nothing goes past TLS.
    ungathered = None  # type: ignore[assignment]

    def write(self, data: bytes) -> None:
        if self.connected:
            self.protocol.write(data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        if self.connected:
            self.protocol.writeSequence(iovec)

    def loseConnection(self) -> None:
        if self.connected and not self.disconnecting:
            self.protocol.loseConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self.connected:
            self.protocol.registerProducer(producer, streaming)
        else:
            producer.stopProducing()

    def unregisterProducer(self) -> None:
        if self.connected:
            self.protocol.unregisterProducer()
