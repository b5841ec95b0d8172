"""Detect that the process has no free file descriptor, so that new connections are dropped."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

INTERVAL = 1.0
"""Seconds between two checks. Each costs two system calls."""

MIN_SILENCE = 60
"""The fewest checks between two log lines."""

_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class DescriptorWatch:
    """Checks whether a socket can be opened, as long as there is a listener.

    Without a free descriptor a reactor drops new connections until old ones end. Twisted's default reactor logs each of
    them; uvloop logs none.

    Args:
        call_later: A reactor's ``callLater`` or a loop's ``call_later``.

    Attributes:
        seconds: The time without a free descriptor so far.
    """

    log = Logger()

    def __init__(self, call_later: Callable[..., Any]) -> None:
        self.seconds = 0.0
        self._call_later = call_later
        self._listeners: set[object] = set()
        self._next: Any = None
        self._told = False
        self._silence = MIN_SILENCE

    def add(self, listener: object) -> None:
        """Check from now on."""
        self._listeners.add(listener)
        if self._next is None:
            self._next = self._call_later(INTERVAL, self._look)

    def discard(self, listener: object) -> None:
        """Stop checking, if this was the last listener."""
        self._listeners.discard(listener)
        if not self._listeners and self._next is not None:
            self._next.cancel()
            self._next = None

    def _look(self) -> None:
        self._next = self._call_later(INTERVAL, self._look)
        self._silence += 1
        try:
            socket.socket().close()
        except OSError as error:
            if error.errno in _SHORTAGES:
                self._found_none(error)
        else:
            self._found_one()

    def _found_none(self, error: OSError) -> None:
        self.seconds += INTERVAL
        if self._silence >= MIN_SILENCE:
            self._silence = 0
            self._told = True
            self.log.warn(
                "no file descriptor is left ({error}): new connections are dropped until others end; raise the limit "
                "of open files (ulimit -n, LimitNOFILE=), or allow fewer connections",
                error=error.strerror,
            )

    def _found_one(self) -> None:
        if self._told:
            self._told = False
            self.log.info("file descriptors are there again")
