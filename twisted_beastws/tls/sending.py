"""The compiled record path as transports and their users see it. pyOpenSSL is imported only for TLS."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.abstract import FileDescriptor


def tls_of(protocol: Any) -> Any:
    """Return the TLS layer of Twisted's that a protocol is, or None."""
    twisteds = sys.modules.get("twisted.protocols.tls")
    # A client endpoint of Twisted's puts a protocol of its own before the factory's.
    protocol = getattr(protocol, "_wrappedProtocol", protocol)
    return protocol if twisteds is not None and isinstance(protocol, twisteds.TLSMemoryBIOProtocol) else None


def use_records(protocol: Any) -> Any:
    """Have a protocol use the compiled path, if it is Twisted's TLS; see `twisted_beastws.tls.records.attach`."""
    layer = tls_of(protocol)
    if layer is None:
        return None
    from twisted_beastws.tls.records import attach

    return attach(layer)


def encrypting_send(
    transport: Any,
) -> tuple[Callable[[bytes | memoryview], int], Callable[[], int]] | tuple[None, None]:
    """Have a TLS transport use the compiled path.

    Returns:
        A function to send with, and one that returns how many bytes wait in the transport below; or None twice.

    The caller registers with the transport as its push producer. It is paused when the socket did not take all of the
    data that it sent, and resumed when that has left.

    Args:
        transport: A TLS transport of Twisted's, or a socket's transport on which TLS was started.
    """
    started = getattr(transport, "protocol", None) if getattr(transport, "TLS", False) else None
    records = use_records(transport if started is None else started)
    if records is None:
        return None, None
    below = transport.transport if started is None else transport
    records.write_at_once(transport if started is None else started)
    gone_past = getattr(type(below), "ungathered_records", None)
    paused = None
    if gone_past is not None:
        # It pauses its producer itself.
        send, waits = gone_past(below)
    elif isinstance(below, FileDescriptor) and hasattr(below, "socket"):
        send, waits, paused = below.socket.send, partial(_waits, below), below
    else:
        return None, None
    return records.sender(send, waits, paused), waits


def _waits(below: Any) -> int:
    return len(below.dataBuffer) - int(below.offset) + int(below._tempDataLen)
