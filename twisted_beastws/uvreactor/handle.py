"""The socket of a connection, as applications may have it."""

from __future__ import annotations

import socket
from collections.abc import Callable


class Handle(socket.socket):
    """A socket on uvloop's own descriptor.

    Who closes it, having given a duplicate to somebody else, has uvloop close it: to find its descriptor closed, or
    another's by now, would be the end of the process.

    abandon: lets uvloop close it; a duplicate has none, and is its owner's.
    """

    __slots__ = ("abandon",)

    abandon: Callable[[], None]

    def close(self) -> None:
        if not hasattr(self, "abandon"):
            super().close()
        else:
            self.abandon()
            self.detach()
