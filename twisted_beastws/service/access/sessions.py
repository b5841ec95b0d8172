"""`Sessions`: closes a connection when its token expires."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from twisted.application.service import Service

from twisted_beastws.protocol import State, WebSocketProtocol

UNAUTHORIZED = 4401
"""The close code for a token that is missing, wrong or expired: HTTP's 401, in the range for applications."""

FORBIDDEN = 4403
"""The close code for a token that does not allow the room."""

INTERVAL = 1.0
"""Seconds between two looks at all connections: 10,000 of them take about a millisecond."""


class Sessions(Service):
    """Remembers until when each connection may stay open.

    Args:
        reactor: provides timers.
        now: returns the seconds since 1970.
    """

    def __init__(self, reactor: Any, now: Callable[[], float] = time.time) -> None:
        self._reactor = reactor
        self._now = now
        # A connection that ends is forgotten, and so is a request that opens no WebSocket.
        self._expires: WeakKeyDictionary[WebSocketProtocol, float] = WeakKeyDictionary()
        self._timer: Any = None

    def startService(self) -> None:
        """Look at the connections from now on."""
        super().startService()  # type: ignore[no-untyped-call]
        self._timer = self._reactor.callLater(INTERVAL, self._look)

    def stopService(self) -> None:
        """Look no more."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def remember(self, connection: WebSocketProtocol, expires: float) -> None:
        """Close a connection after ``expires``, in seconds since 1970; a later call replaces an earlier one."""
        self._expires[connection] = expires

    def _look(self) -> None:
        self._timer = self._reactor.callLater(INTERVAL, self._look)
        now = self._now()
        for connection in [each for each, expires in self._expires.items() if expires <= now]:
            if connection.state is State.OPEN:
                connection.close(UNAUTHORIZED, "the token has expired")
            if connection.state is not State.CONNECTING:
                del self._expires[connection]
