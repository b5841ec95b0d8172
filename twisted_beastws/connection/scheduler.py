"""One reactor timer for the pings and deadlines of all connections."""

from __future__ import annotations

import math
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Protocol
from weakref import WeakValueDictionary, ref

from twisted.logger import Logger

from twisted_beastws.clock import PendingTurn, next_turn, seconds_of, wall_clock_of

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

RESOLUTION = 32
"""Ticks per second: all deadlines in the same 1/32 s share one wake-up. A deadline is never early."""

READ_TURNS = 2
"""Turns of the reactor after which it has polled its sockets: asyncio makes a call without delay before it polls."""

AFTER_FAULT = 1.0
"""Seconds until the scheduler looks again at a connection that raised an exception."""

log = Logger()


class Watched(Protocol):
    """A connection that a scheduler wakes."""

    due: int | None

    def look(self, now: float) -> float | None:
        """Do everything that is due at ``now``. Return when to look again, or None for never."""


class Due(set[Watched]):
    """The connections that are due at one tick."""

    __slots__ = ("tick",)

    tick: int


class PingScheduler:
    """Wakes each watched connection when its next ping or deadline is due.

    Connections due at the same tick share one set, and only the earliest tick has a delayed call. So ten thousand
    connections cause at most one wake-up per tick. Without watched connections the reactor has no delayed call.

    Attributes:
        now: Returns the time of the clock by which deadlines are measured.
        wall: Returns the time of the clock that the reactor's timers follow, if that clock can be set; else None.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self.now = seconds_of(clock)
        self.wall = wall_clock_of(clock)
        self._ticks: dict[int, Due] = {}
        self._heap: list[int] = []
        self._call: IDelayedCall | None = None
        self._call_tick = 0
        # The lead of the reactor's clock, which makes the call, over ours when the call was scheduled.
        self._ahead = 0.0
        # The connections to check when the reactor has read its sockets, with the turns until then.
        self._unread: dict[Watched, int] = {}
        self._turn_call: PendingTurn | None = None

    @classmethod
    def of(cls, clock: IReactorTime) -> PingScheduler:
        """Return the scheduler of ``clock``; each clock has one."""
        global _latest
        scheduler = None if _latest is None else _latest()
        if scheduler is None or scheduler._clock is not clock:
            scheduler = _schedulers.get(id(clock))
            if scheduler is None:
                scheduler = _schedulers[id(clock)] = cls(clock)
            # A process has one reactor, and each connection asks.
            _latest = ref(scheduler)
        return scheduler

    def watch(self, watched: Watched, when: float | None) -> None:
        """Look at ``watched`` at ``when``, in the clock's seconds, in place of any earlier time; None is never."""
        if self.wall is not None:
            self.check_clock()
        if self._unread:
            self._unread.pop(watched, None)
            self._arm_turn()
        tick = None if when is None else math.ceil(when * RESOLUTION)
        before = watched.due
        if tick == before:
            return
        emptied = False
        if before is not None:
            due = self._ticks[before]
            due.discard(watched)
            watched.due = None
            emptied = not due
        if tick is not None:
            self._add(watched, tick)
        # Nearly always other connections are due at both ticks, or earlier.
        if emptied or self._call is None or (tick is not None and tick < self._call_tick):
            self._arm()

    def look_after_reading(self, watched: Watched) -> None:
        """Check ``watched``, which is being checked now, again when the reactor has read its sockets."""
        self._unread[watched] = READ_TURNS
        self._arm_turn()

    def check_clock(self) -> None:
        """Schedule the call again if the reactor's clock was set back. Call this now and then.

        Otherwise the reactor would make the call late by the same amount. An early call does no harm.
        """
        # The value of `lead`, without the call: each connection comes here several times.
        if (
            self._call is not None
            and self.wall is not None
            and self._ahead - (self.wall() - self.now()) > 1 / RESOLUTION
        ):
            self._call.cancel()
            self._call = None
            self._arm()

    @property
    def lead(self) -> float:
        """Return the seconds by which ``wall`` is ahead of the clock that measures deadlines."""
        return 0.0 if self.wall is None else self.wall() - self.now()

    def _add(self, watched: Watched, tick: int) -> None:
        due = self._ticks.get(tick)
        if due is None:
            due = self._ticks[tick] = Due()
            due.tick = tick
            heappush(self._heap, tick)
        # All connections of a tick share its number: an object for each would take 32 bytes.
        watched.due = due.tick
        due.add(watched)

    def _prune(self) -> None:
        while self._heap and not self._ticks[self._heap[0]]:
            del self._ticks[heappop(self._heap)]

    def _arm(self) -> None:
        self._prune()
        if self._call is not None:
            # A call that comes too early does no harm, and is cheaper than a second one.
            if self._heap and self._call_tick <= self._heap[0]:
                return
            self._call.cancel()
            self._call = None
        if self._heap:
            tick = self._call_tick = self._heap[0]
            self._ahead = self.lead
            self._call = self._clock.callLater(max(0.0, tick / RESOLUTION - self.now()), self._wake)

    def _wake(self) -> None:
        self._call = None
        now = self.now()
        try:
            while self._heap and self._heap[0] <= now * RESOLUTION:
                due = self._ticks[self._heap[0]]
                # A check may change the other watches.
                while due:
                    self._look(due.pop(), now)
                self._prune()
        finally:
            self._arm()

    def _arm_turn(self) -> None:
        if self._unread and self._turn_call is None:
            self._turn_call = next_turn(self._clock, self._turn)
        elif not self._unread and self._turn_call is not None:
            self._turn_call.cancel()
            self._turn_call = None

    def _turn(self) -> None:
        self._turn_call = None
        now = self.now()
        for watched in self._unread:
            self._unread[watched] -= 1
        try:
            for watched in [watched for watched, turns in self._unread.items() if not turns]:
                # A check may have ended this watch.
                if self._unread.pop(watched, None) is not None:
                    self._look(watched, now)
        finally:
            self._arm_turn()
            self._arm()

    def _look(self, watched: Watched, now: float) -> None:
        watched.due = None
        try:
            again = watched.look(now)
        except Exception:
            log.failure("pings and deadlines of {watched!r} failed; it is looked at again soon", watched=watched)
            again = now + AFTER_FAULT
        if again is not None and watched.due is None and watched not in self._unread:
            self._add(watched, max(math.ceil(again * RESOLUTION), math.floor(now * RESOLUTION) + 1))


# A scheduler keeps its clock, so that no other clock gets the same id while it lives.
_schedulers: WeakValueDictionary[int, PingScheduler] = WeakValueDictionary()
_latest: ref[PingScheduler] | None = None
