"""Sending all the connections of a server home: at once, or one after the other until a deadline."""

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
"""Seconds from one group of connections that are told to the next."""

LEAST_PACE = 100.0
"""Connections told a second, at least: a hundred that come back in a second are no herd."""

GRACE = 0.5
"""Seconds that a connection without a WebSocket has for a request on its way, which is answered 503."""


class Drain:
    """The end of a server's connections. What `begin` says when it is called again holds for all that are left."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._now = seconds_of(clock)
        self._leaving: set[WebSocketProtocol] = set()
        self._untold: list[WebSocketProtocol] = []
        self._told = 0
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
            self._tell_rest()
        if seconds is not None and self._leaving:
            self._ends_at = self._now() + seconds
            self._deadline = self._clock.callLater(seconds, self._at_deadline)
        if not self._leaving:
            return succeed(None)
        gone: Deferred[None] = AwaitableDeferred(self._waiters.remove)
        self._waiters.append(gone)
        return gone

    def _at_deadline(self) -> None:
        # A reactor that goes by the wall clock calls too early when that is set forward.
        left = self._ends_at - self._now()
        if left > TICK:
            self._deadline = self._clock.callLater(left, self._at_deadline)
        else:
            self.abort()

    def abort(self) -> None:
        """Drop what is left."""
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
        self._untold = [protocol for protocol in self._leaving if protocol.state is State.OPEN]
        self._told = 0
        # The last has as long to answer as all had to be told.
        self._pace = max(LEAST_PACE, len(self._untold) / (seconds / 2))
        self._grace = min(GRACE, seconds / 2)
        self._tell_some()

    def _tell_some(self) -> None:
        """Tell those whose turn has come."""
        self._next = None
        elapsed = self._now() - self._began
        while self._untold and self._told <= elapsed * self._pace:
            self._told += 1
            self._untold.pop().close(self._code, self._reason)
        if not self._untold and elapsed >= self._grace:
            self._tell_rest()
        elif self._leaving:
            self._next = self._clock.callLater(TICK, self._tell_some)

    def _tell_rest(self) -> None:
        for protocol in list(self._leaving):
            if protocol.state in (State.OPEN, State.CONNECTING):
                protocol.close(self._code, self._reason)

    def _cancel(self) -> None:
        for call in (self._next, self._deadline):
            if call is not None and call.active():
                call.cancel()
        self._next = self._deadline = None
        self._untold = []
