"""Twisted's TLS on a connection."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from twisted_beastws.uvreactor.writing import ConnectionWriter


class BelowTLS:
    """The transport below a TLS layer: the methods here write to the socket, whereas the connection's write to TLS."""

    def __init__(self, connection: Any, writer: ConnectionWriter, layer: Any) -> None:
        self._connection = connection
        self._writer = writer
        self.write = write_until_abort(layer, writer.write)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        self._writer.writeSequence(iovec)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._writer.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        self._writer.unregisterProducer()

    def loseConnection(self) -> None:
        self._connection.close_when_written()


def write_until_abort(layer: Any, write: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """Return ``write``, made to write nothing once a layer of Twisted's TLS aborts.

    That layer writes an alert first, which says that the data is complete. Twisted's own transports keep it until the
    connection is gone.
    """

    def write_unless_aborted(data: bytes) -> None:
        if not layer._aborted:
            write(data)

    return write_unless_aborted


def tls_layer(context_factory: Any, client: bool, protocol: Any) -> Any:
    """Return a TLS layer of Twisted for ``protocol``, which is already connected; it gets its transport later."""
    # Imported here: pyOpenSSL is needed only for TLS.
    from twisted.protocols.tls import TLSMemoryBIOFactory

    # The protocol exists already, so the factory gets no factory to build one with.
    factory = TLSMemoryBIOFactory(context_factory, client, cast(Any, None))
    return factory.protocol(factory, protocol, False)
