"""`trace_frames`: a debug log of frames, for one connection or for all connections of a namespace."""

from __future__ import annotations

from twisted_beastws.connection.tracing import NAMESPACES, begin, names_of
from twisted_beastws.protocol import WebSocketProtocol, connection_of

__all__ = ["trace_frames"]


def trace_frames(traced: WebSocketProtocol | str, *, on: bool = True) -> None:
    """Log each frame of a connection at level debug: opcode, length, whether it is masked, and its first 32 bytes.

    The trace begins with the fields of the handshake. The values of Authorization, cookies and subprotocols are
    hidden, and so is the query of the request. Payloads are shown as they are on the network: compressed ones stay so.

    Args:
        traced: An open connection, or the namespace of a logger for the connections that open later. A namespace is
            the name of a module or class, such as ``chat`` or ``chat.Room``; ``*`` is all. The environment variable
            ``TWISTED_BEASTWS_TRACE`` can list namespaces, too.
        on: False ends the trace of a namespace for the connections that open later.

    Raises:
        LocalError: The connection is not open.
        TypeError: ``traced`` is neither.
    """
    if isinstance(traced, WebSocketProtocol):
        connection = connection_of(traced)
        begin(connection)
    elif on:
        NAMESPACES.update(names_of([traced]))
    else:
        NAMESPACES.difference_update(names_of([traced]))
