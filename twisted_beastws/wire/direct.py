"""Sending past write buffers, straight to plain sockets. ``_direct.pyx`` and ``_broadcast.pyx`` do the same in C."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


def clear_send(transport: Any, socket: Any) -> Callable[[Any], int]:
    """Return the ``send`` of a socket, made to take no bytes once TLS was started on its transport.

    Other code may start TLS at any time. The transport then takes the rest, and encrypts it.
    """

    def send_in_clear(data: Any) -> int:
        sent: int = 0 if transport.TLS else socket.send(data)
        return sent

    return send_in_clear


def leave_by(at_once: Callable[[bytes], int], data: bytes) -> int:
    """Send ``data`` by ``at_once``, and return the number of bytes that left; 0 if the system took none."""
    try:
        return at_once(data)
    except OSError:
        return 0


def send_at_once(
    connections: Sequence[Any], payload: bytes, frame: bytes, failed: Callable[[Any], object]
) -> Sequence[int]:
    """Send a server's frame past the write buffers of all connections that can do so, before any other code runs.

    The compiled twin looks at a slice of the connections before it sends to them. Their data has left the near caches
    since the last message, and so the processor loads it for several of them at a time.

    Args:
        connections: They are open, or their ``send`` refuses messages.
        payload: The payload of the frame.
        frame: A whole frame of data.
        failed: Called with a connection whose write buffer raised an exception, while that is being handled.

    Returns:
        The places of the connections that did not get the frame. Send it to each in the usual way.
    """
    return range(len(connections))
