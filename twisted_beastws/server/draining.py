"""Graceful shutdown: closing all connections of a server, at once or one after the other until a deadline."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, succeed

from twisted_beastws.clock import seconds_of
from twisted_beastws.connection.awaiting import AwaitableDeferred
from twisted_beastws.protocol import State

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from twisted_beastws.protocol import WebSocketProtocol

TICK = 1 / 32
"""Seconds from one group of close frames to the next."""

MIN_PACE = 100.0
"""The fewest close frames per second: a hundred clients that reconnect in one second are no herd."""

GRACE = 0.5
"""Seconds that a connection without a WebSocket has for a request on its way, which is answered with 503."""


class Drain:
    """The graceful shutdown of a server. A further call of `begin` applies to all connections that are left."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._now = seconds_of(clock)
        self._leaving: set[WebSocketProtocol] = set()
        self._still_open: list[WebSocketProtocol] = []
        self._closed_count = 0
        self._waiters: list[Deferred[None]] = []
        self._next: IDelayedCall | None = None
        self._deadline: IDelayedCall | None = None
        self._ends_at = 0.0

    def begin(
        self, connections: Iterable[WebSocketProtocol], code: int, reason: str, seconds: float | None
    ) -> Deferred[None]:
        """See `WebSocketServerFactory.drain`."""
        self._cancel()
        self._leaving.update(connections)
        self._code, self._reason = code, reason
        if seconds:
            self._spread(seconds)
        else:
            self._close_rest()
        if seconds is not None and self._leaving:
            self._ends_at = self._now() + seconds
            self._deadline = self._clock.callLater(seconds, self._at_deadline)
        if not self._leaving:
            return succeed(None)
        gone: Deferred[None] = AwaitableDeferred(self._waiters.remove)
        self._waiters.append(gone)
        return gone

    def _at_deadline(self) -> None:
        # A reactor that follows the wall clock calls too early if that clock is set forward.
        left = self._ends_at - self._now()
        if left > TICK:
            self._deadline = self._clock.callLater(left, self._at_deadline)
        else:
            self.abort()

    def abort(self) -> None:
        """Drop the connections that are left."""
        for protocol in list(self._leaving):
            protocol.abort()

    def forget(self, protocol: WebSocketProtocol) -> None:
        """A connection is gone."""
        self._leaving.discard(protocol)
        if not self._leaving:
            self._cancel()
            waiters, self._waiters = self._waiters, []
            for gone in waiters:
                gone.callback(None)

    def _spread(self, seconds: float) -> None:
        self._began = self._now()
        self._still_open = [protocol for protocol in self._leaving if protocol.state is State.OPEN]
        self._closed_count = 0
        # The last connection has as much time for its answer as all close frames had together.
        self._pace = max(MIN_PACE, len(self._still_open) / (seconds / 2))
        self._grace = min(GRACE, seconds / 2)
        self._close_some()

    def _close_some(self) -> None:
        """Close the connections that are due."""
        self._next = None
        elapsed = self._now() - self._began
        while self._still_open and self._closed_count <= elapsed * self._pace:
            self._closed_count += 1
            self._still_open.pop().close(self._code, self._reason)
        if not self._still_open and elapsed >= self._grace:
            self._close_rest()
        elif self._leaving:
            self._next = self._clock.callLater(TICK, self._close_some)

    def _close_rest(self) -> None:
        for protocol in list(self._leaving):
            if protocol.state in (State.OPEN, State.CONNECTING):
                protocol.close(self._code, self._reason)

    def _cancel(self) -> None:
        for call in (self._next, self._deadline):
            if call is not None and call.active():
                call.cancel()
        self._next = self._deadline = None
        self._still_open = []
