"""The interface of the compiled record path for transports and their users. It imports pyOpenSSL only for TLS."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.abstract import FileDescriptor

from twisted_beastws.wire.codec import clear_send


def tls_of(protocol: Any) -> Any:
    """Return the TLS layer of Twisted's that a protocol is, or None."""
    twisteds = sys.modules.get("twisted.protocols.tls")
    # Twisted's client endpoints wrap the protocol of the factory.
    protocol = getattr(protocol, "_wrappedProtocol", protocol)
    return protocol if twisteds is not None and isinstance(protocol, twisteds.TLSMemoryBIOProtocol) else None


def use_records(protocol: Any) -> Any:
    """Make a protocol use the compiled path if it is Twisted's TLS; see `twisted_beastws.tls.records.attach`."""
    layer = tls_of(protocol)
    if layer is None:
        return None
    from twisted_beastws.tls.records import attach

    return attach(layer)


def encrypting_send(
    transport: Any,
) -> tuple[Callable[[bytes | memoryview], int], Callable[[], int]] | tuple[None, None]:
    """Make a TLS transport use the compiled path.

    The caller registers with the transport as its push producer. The transport pauses it when the socket did not take
    all data that it sent, and resumes it when that data is sent.

    Args:
        transport: Twisted's TLS transport, or a socket's transport on which TLS was started.

    Returns:
        A function that sends, and one that returns the number of bytes waiting in the transport below. Both are None
        if the compiled path cannot serve the transport.
    """
    # Look at the class: a layer of TLS passes unknown names on to the transport below.
    startable = hasattr(type(transport), "TLS")
    started = getattr(transport, "protocol", None) if startable and transport.TLS else None
    records = use_records(transport if started is None else started)
    if records is None:
        return None, None
    below = transport.transport if started is None else transport
    records.write_at_once(transport if started is None else started)
    gone_past = getattr(type(below), "ungathered_records", None)
    paused = None
    if gone_past is not None:
        # This transport pauses its producer itself.
        socket, waits = gone_past(below)
    elif isinstance(below, FileDescriptor) and hasattr(below, "socket"):
        socket, waits, paused = below.socket, partial(unsent, below), below
    else:
        return None, None
    other = below if started is None and hasattr(below, "TLS") else _NO_OTHER_TLS
    return records.sender(clear_send(other, socket), waits, paused), waits


class _NoOtherTLS:
    """Below the layer of TLS that was started on a socket's transport is the socket."""

    TLS = False


_NO_OTHER_TLS = _NoOtherTLS()


def unsent(below: Any) -> int:
    """Return the number of bytes that wait in one of Twisted's transports of a socket."""
    return len(below.dataBuffer) - int(below.offset) + int(below._tempDataLen)
