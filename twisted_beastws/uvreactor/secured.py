"""Twisted's TLS on a connection."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from twisted_beastws.uvreactor.writing import ConnectionWriter


class BelowTLS:
    """The transport below a TLS layer: the methods here write to the socket, whereas the connection's write to TLS."""

    def __init__(self, connection: Any, writer: ConnectionWriter) -> None:
        self._connection = connection
        self._writer = writer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        self._writer.writeSequence(iovec)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._writer.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        self._writer.unregisterProducer()

    def loseConnection(self) -> None:
        self._connection.close_when_written()


def tls_layer(context_factory: Any, client: bool, protocol: Any) -> Any:
    """Return a TLS layer of Twisted for ``protocol``, which is already connected; it gets its transport later."""
    # Imported here: pyOpenSSL is needed only for TLS.
    from twisted.protocols.tls import TLSMemoryBIOFactory

    # The protocol exists already, so the factory gets no factory to build one with.
    factory = TLSMemoryBIOFactory(context_factory, client, cast(Any, None))
    return factory.protocol(factory, protocol, False)
