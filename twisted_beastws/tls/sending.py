"""Sending through the compiled record path, past the transport's own write buffer while that is empty."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.protocols.tls import TLSMemoryBIOProtocol

from twisted_beastws.tls.records import attach


def encrypting_send(transport: Any) -> Callable[[bytes | memoryview], int] | None:
    """Have a TLS transport use the compiled path, and return a function to send with, or None.

    The caller registers with the transport as its push producer. It is paused when the socket did not take all of what
    it sent, and resumed when that is gone.

    Args:
        transport: A TLS transport of Twisted's, or a socket's transport on which TLS was started.
    """
    protocol: Any = transport
    below: Any = transport
    if isinstance(transport, TLSMemoryBIOProtocol):
        below = transport.transport
    else:
        protocol = getattr(transport, "protocol", None)
        if not getattr(transport, "TLS", False) or not isinstance(protocol, TLSMemoryBIOProtocol):
            return None
    records = attach(protocol)
    if records is None:
        return None
    records.write_at_once(protocol)
    gone_past = getattr(type(below), "ungathered_records", None)
    if gone_past is not None:
        # It pauses its producer itself.
        send, waits = gone_past(below)
        paused = None
    elif isinstance(below, FileDescriptor) and hasattr(below, "socket"):
        send, waits, paused = below.socket.send, partial(_waits, below), below
    else:
        return None
    encrypting: Callable[[bytes | memoryview], int] = records.sender(send, waits, paused)
    return encrypting


def _waits(below: Any) -> bool:
    return bool(below.dataBuffer or below._tempDataLen)
