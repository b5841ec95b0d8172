"""The socket of a connection, and its options."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

RESET = struct.pack("ii", 1, 0)
"""The value of SO_LINGER with which closing resets a connection."""


class Handle(socket.socket):
    """A socket on uvloop's own descriptor, for the application.

    The application may close it, for example after it gave a duplicate to another process. uvloop then closes the
    descriptor itself: if it were closed elsewhere, or reused since, uvloop would abort the process.

    Attributes:
        abandon: Makes uvloop close the descriptor. A duplicate lacks this attribute, and its owner closes it.
    """

    __slots__ = ("abandon",)

    abandon: Callable[[], None]

    def close(self) -> None:
        if not hasattr(self, "abandon"):
            super().close()
        else:
            self.abandon()
            self.detach()


class ConnectionSocket:
    """The socket under one of uvloop's transports.

    Attributes:
        closed: uvloop has closed the socket or is about to; do not use it any more.
    """

    __slots__ = ("_handle", "_lent", "_nodelay", "_uv", "closed")

    def __init__(self, uv: Any) -> None:
        self._uv = uv
        self._handle: Handle | None = None
        self._lent = False
        # asyncio sets TCP_NODELAY on each connection.
        self._nodelay = True
        self.closed = False

    def name(self) -> tuple[Any, ...]:
        """Return this end's address, as the socket module gives it."""
        name: tuple[Any, ...] = self._uv.get_extra_info("sockname")
        return name

    def peer_name(self) -> tuple[Any, ...] | None:
        """Return the peer's address; None if the peer disconnected before the first call."""
        name: tuple[Any, ...] | None = self._uv.get_extra_info("peername")
        return name

    def own(self) -> Handle:
        """Return the socket itself, not a copy."""
        if self._handle is None:
            # Each argument left out costs a system call.
            family = socket.AF_INET if len(self.name()) == 2 else socket.AF_INET6
            self._handle = Handle(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, self.fileno())
        return self._handle

    def lend(self, abandon: Callable[[], None]) -> Handle:
        """Return the socket for the application, which may close it or set its options.

        Args:
            abandon: Called when the application closes the socket.
        """
        handle = self.own()
        handle.abandon = abandon
        self._lent = True
        return handle

    def release(self) -> None:
        """Forget the descriptor, because uvloop closes it."""
        self.closed = True
        if self._handle is not None:
            self._handle.detach()
            self._handle = None

    def shut_down(self) -> None:
        """Shut down both directions now; uvloop closes the socket only in the next turn of the loop."""
        with suppress(OSError):
            self.own().shutdown(socket.SHUT_RDWR)

    def reset_when_closed(self) -> None:
        """Make the system reset the connection when the socket is closed."""
        self._options().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    def fileno(self) -> int:
        """Return the descriptor; -1 once it is closed."""
        number: int = -1 if self.closed else self._options().fileno()
        return number

    def get_nodelay(self) -> bool:
        """Return whether Nagle's algorithm is off."""
        return bool(self._options().getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def set_nodelay(self, enabled: bool) -> None:
        """Turn Nagle's algorithm off or on."""
        # Most calls change nothing. But an application that has the socket may have changed the option.
        if enabled != self._nodelay or self._lent:
            self._options().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, enabled)
            self._nodelay = enabled

    def get_keepalive(self) -> bool:
        """Return whether TCP probes an idle peer."""
        return bool(self._options().getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def set_keepalive(self, enabled: bool) -> None:
        """Turn TCP keepalive probes of an idle peer on or off."""
        self._options().setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, enabled)

    def _options(self) -> Any:
        return self._uv.get_extra_info("socket")
