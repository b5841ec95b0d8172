"""The bytes written to a transport that its peer has not accepted, as far as the operating system knows."""

from __future__ import annotations

import sys
from typing import Any

try:
    from fcntl import ioctl
    from termios import TIOCOUTQ
except ImportError:  # Windows has neither.
    ioctl = None  # type: ignore[assignment]


def unaccepted(transport: Any) -> int:
    """Return the bytes in the system's send buffer that the peer has not acknowledged; 0 if that is unknown.

    Args:
        transport: A transport with a file descriptor, or a layer such as TLS above one.
    """
    if ioctl is None:
        return 0
    try:
        # tcp(7), SIOCOUTQ: unsent bytes, and bytes sent and not acknowledged.
        return int.from_bytes(ioctl(transport.fileno(), TIOCOUTQ, bytes(4)), sys.byteorder)
    except (AttributeError, OSError, ValueError, TypeError):
        # The transport has no descriptor, or a closed one, or one of another kind.
        return 0
