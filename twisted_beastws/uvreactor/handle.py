"""The socket of a connection, and its options."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER's value with which closing resets a connection."""


class Handle(socket.socket):
    """A socket on uvloop's own descriptor, as applications may have it.

    If the application closes it, for example after it gave a duplicate to another process, uvloop closes it: a
    descriptor that is closed, or belongs to something else by now, would end the process.

    Attributes:
        abandon: lets uvloop close it. A duplicate has none, and belongs to its owner.
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
        closed: uvloop has closed it, or is about to; nothing is asked of it any more.
    """

    __slots__ = ("_handle", "_lent", "_nodelay", "_uv", "closed")

    def __init__(self, uv: Any) -> None:
        self._uv = uv
        self._handle: Handle | None = None
        self._lent = False
        # As asyncio has it.
        self._nodelay = True
        self.closed = False

    def name(self) -> tuple[Any, ...]:
        """Return this end's address, as the socket module gives it."""
        name: tuple[Any, ...] = self._uv.get_extra_info("sockname")
        return name

    def peer_name(self) -> tuple[Any, ...] | None:
        """Return the other end's address; None if that end had left before the first call."""
        name: tuple[Any, ...] | None = self._uv.get_extra_info("peername")
        return name

    def own(self) -> Handle:
        """Return the socket itself, not a copy."""
        if self._handle is None:
            # Python would find out each argument that is left out by a system call.
            family = socket.AF_INET if len(self.name()) == 2 else socket.AF_INET6
            self._handle = Handle(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, self.fileno())
        return self._handle

    def lend(self, abandon: Callable[[], None]) -> Handle:
        """Return the socket for the application, which may close it or set its options.

        Args:
            abandon: called when the application closes it.
        """
        handle = self.own()
        handle.abandon = abandon
        self._lent = True
        return handle

    def release(self) -> None:
        """uvloop closes the descriptor: leave it alone."""
        self.closed = True
        if self._handle is not None:
            self._handle.detach()
            self._handle = None

    def shut_down(self) -> None:
        """End both directions at once; uvloop closes the socket only in the loop's next turn."""
        with suppress(OSError):
            self.own().shutdown(socket.SHUT_RDWR)

    def reset_when_closed(self) -> None:
        """Have the system reset the connection when the socket is closed."""
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
        # Most callers ask for what they have already; an application that has the socket may have changed it.
        if enabled != self._nodelay or self._lent:
            self._options().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, enabled)
            self._nodelay = enabled

    def get_keepalive(self) -> bool:
        """Return whether TCP probes an idle peer."""
        return bool(self._options().getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def set_keepalive(self, enabled: bool) -> None:
        """Have TCP probe an idle peer, or not."""
        self._options().setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, enabled)

    def _options(self) -> Any:
        return self._uv.get_extra_info("socket")
