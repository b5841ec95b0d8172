"""The deadlines and pings of a connection, which detect a peer that is gone or too slow."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twisted_beastws.connection.awaiting import AwaitableDeferred
from twisted_beastws.connection.scheduler import PingScheduler
from twisted_beastws.options import Timeouts

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from twisted_beastws.wire.session import Session


MAX_LOOKS = 128
"""The most checks of a peer that seems silent while its data still comes in. In as many turns the reactor reads 8 MiB,
more than the receive buffer of a socket holds."""


class WriteState(Protocol):
    """The write buffer of the connection, as far as the peer takes its bytes.

    Attributes:
        free: A ping would leave now, without waiting for other bytes.
        turns: How often the peer made room for waiting bytes; it only grows.
    """

    free: bool
    turns: int


class LivenessOwner(Protocol):
    """The connection that `Liveness` watches over."""

    @property
    def outgoing(self) -> WriteState: ...

    @property
    def reading_paused(self) -> bool:
        """Reading from the peer is paused."""

    def deadline_passed(self) -> None:
        """The time limit set by `Liveness.expect` is over."""

    def timed_out(self, what: str) -> None:
        """The peer of an open connection is silent or slow; ``what`` says it in words."""

    def unaccepted(self) -> int:
        """Return the bytes in the system's buffer that the peer has not accepted, or 0 if that is unknown."""

    def stopped_reading(self, what: str) -> None:
        """The peer of an open connection has accepted nothing for too long; ``what`` says it in words."""


LOOKS = 4
"""Checks of a connection per ``Timeouts.send``: a peer that accepts nothing is closed after at most 5/4 of it."""


class Liveness:
    """Watches over one connection on the shared `PingScheduler`.

    Attributes:
        latency: The round-trip time of the latest answered ping in seconds, or None.
        due: The tick of the next check, for the scheduler.
        now: Returns the time of the clock, in seconds.
        opened_at: The time when the connection opened.
    """

    __slots__ = (
        "_deadline",
        "_heard_at",
        "_looks",
        "_owner",
        "_paused_at",
        "_ping_due",
        "_pinged_at",
        "_pings",
        "_ponged_at",
        "_scheduler",
        "_session",
        "_stuck_at",
        "_taken_at",
        "_timeouts",
        "_turns",
        "_unaccepted",
        "_waiting_at",
        "due",
        "latency",
        "now",
        "opened_at",
    )

    def __init__(self, owner: LivenessOwner, clock: IReactorTime, timeouts: Timeouts) -> None:
        self._owner: LivenessOwner | None = owner
        self._timeouts = timeouts
        self._scheduler = PingScheduler.of(clock)
        self.now = self._scheduler.now
        self._session: Session | None = None
        self._deadline: float | None = None
        self._ping_due: float | None = None
        self._pinged_at: float | None = None
        self.opened_at = self._ponged_at = 0.0
        self._paused_at = 0.0
        self._taken_at = 0.0
        # When bytes were first seen waiting while we read nothing; and since when the peer has taken none of them.
        self._stuck_at: float | None = None
        self._turns = 0
        # Since when bytes wait without any being accepted, as far as the checks saw, and how many the system had then.
        self._waiting_at: float | None = None
        self._unaccepted = 0
        # The number of successive checks in which the peer seemed silent, and the time of its last bytes at the latest.
        self._looks = 0
        self._heard_at: float | None = None
        self._pings: deque[tuple[bytes, float, Deferred[float]]] | None = None
        self.latency: float | None = None
        self.due: int | None = None

    def expect(self, seconds: float | None) -> None:
        """Restart the time limit with ``seconds``, in place of any earlier one; None is no limit."""
        now = self.now()
        self._looks = 0
        self._deadline = None if seconds is None else now + seconds
        self._scheduler.watch(self, self._deadline if self._session is None else self._next_look(now))

    def set_timeouts(self, timeouts: Timeouts) -> None:
        """Use other timeouts. In an open connection, the next ping is due one interval from now."""
        self._timeouts = timeouts
        if self._session is not None:
            now = self.now()
            lifetime = timeouts.max_lifetime
            self._ping_due = None if timeouts.ping_interval is None else now + timeouts.ping_interval
            self._deadline = None if lifetime is None else self.opened_at + lifetime
            self._looks = 0
            self._scheduler.watch(self, self._next_look(now))

    def opened(self, session: Session) -> None:
        """The connection is open: ping, and watch for silence, slow messages and the maximum lifetime."""
        now = self.opened_at = self._ponged_at = self._paused_at = self.now()
        self._session = session
        self._looks = 0
        self._taken_at = now
        self._turns = 0 if self._owner is None else self._owner.outgoing.turns
        timeouts = self._timeouts
        interval, lifetime = timeouts.ping_interval, timeouts.max_lifetime
        self._ping_due = None if interval is None else now + interval
        self._deadline = None if lifetime is None else now + lifetime
        delay = _first_delay(timeouts)
        self._scheduler.watch(self, None if delay is None else now + delay)
        session.reader.wall = self._scheduler.wall
        session.reader.lead = self._scheduler.lead

    def closing(self) -> None:
        """The connection closes: start the time limit of the closing handshake and of the end of TCP."""
        self._session = None
        self.expect(self._timeouts.close)

    def clock_was_set(self) -> None:
        """The clock that the reactor follows was set: correct the timer, and notice the next time."""
        self._scheduler.check_clock()
        if self._session is not None:
            self._session.reader.lead = self._scheduler.lead

    def paused(self) -> None:
        """We stopped reading from the peer."""
        self._paused_at = self.now()

    def resumed(self) -> None:
        """We read again. The time since `paused` does not count against the peer."""
        session = self._session
        self._stuck_at = None
        if session is not None:
            now = self.now()
            spent = now - self._paused_at
            self._ponged_at += spent
            session.reader.received_at += spent
            if session.reader.message_began_at is not None:
                session.reader.message_began_at += spent
            self._scheduler.watch(self, self._next_look(now))

    def lost(self, error: Exception) -> None:
        """The connection is gone: release it, and fail the pending pings."""
        self._session = self._owner = self._deadline = None
        self._scheduler.watch(self, None)
        while self._pings:
            _fail(self._pings.popleft()[2], error)

    def ping_sent(self, payload: bytes, at: float) -> Deferred[float]:
        """The application sent a ping at that time. Return a Deferred of the seconds until its pong."""
        if self._pings is None:
            self._pings = deque()
        pings = self._pings
        answered: Deferred[float] = AwaitableDeferred(lambda _: pings.remove(ping))
        ping = (payload, at, answered)
        pings.append(ping)
        return answered

    def pong_received(self, payload: bytes) -> None:
        """Match a pong with the pending pings. It also answers all pings before its own (RFC 6455 §5.5.3)."""
        now = self._ponged_at = self.now()
        pings = self._pings
        if pings and any(payload == sent for sent, _, _ in pings):
            sent = None
            while pings and sent != payload:
                sent, at, answered = pings.popleft()
                self.latency = now - at
                answered.callback(self.latency)
        elif self._pinged_at is not None and not payload:
            self.latency = now - self._pinged_at
            self._pinged_at = None

    def look(self, now: float) -> float | None:
        """Do everything that is due. Return when to look again."""
        owner, session = self._owner, self._session
        if owner is None:
            return None
        end = self._due_end(now, owner, session)
        if end is None:
            self._looks = 0
            self._ping_if_due(now, owner)
        elif self._has_read_all():
            self._looks = 0
            end()
        else:
            self._scheduler.look_after_reading(self)
            return None
        return self._next_look(now)

    def _due_end(self, now: float, owner: LivenessOwner, session: Session | None) -> Callable[[], None] | None:
        """Return the function that ends the connection because it is late, or None."""
        if self._deadline is not None and now >= self._deadline:
            return self._end_at_deadline
        if session is None:
            return None
        # While bytes wait for a slow reader, it gets no pings and may send nothing. Its reading is a sign of life.
        turns = owner.outgoing.turns
        moved = turns != self._turns
        if moved:
            self._turns, self._taken_at = turns, now
        if moved or not owner.reading_paused or owner.outgoing.free:
            self._stuck_at = None
        elif self._stuck_at is None:
            self._stuck_at = now
        silent, slow = self._silent_at(session, now), self._slow_at(session, now)
        if self._stopped_reading(now, owner, moved):
            return partial(owner.stopped_reading, f"nothing was taken for {self._timeouts.send:g} s")
        if silent is not None and now >= silent:
            done = "received" if self._stuck_at is None else "taken"
            return partial(owner.timed_out, f"nothing was {done} for {self._timeouts.idle:g} s")
        if slow is not None and now >= slow:
            return partial(owner.timed_out, f"a message was not finished in {self._timeouts.message:g} s")
        return None

    def _end_at_deadline(self) -> None:
        self._deadline = None
        assert self._owner is not None
        self._owner.deadline_passed()

    def _has_read_all(self) -> bool:
        """Return whether the reactor has read the bytes that the peer sent in time: the reactor may be late, not the
        peer.
        """
        heard_at = None if self._session is None else self._session.reader.received_at
        came, self._heard_at = heard_at != self._heard_at, heard_at
        self._looks += 1
        return self._looks > 1 and (not came or self._looks > MAX_LOOKS)

    def _ping_if_due(self, now: float, owner: LivenessOwner) -> None:
        session, interval = self._session, self._timeouts.ping_interval
        if session is None or interval is None or self._ping_due is None or now < self._ping_due:
            return
        # The next ping keeps the interval, however late this one is. Missed pings are skipped.
        self._ping_due += interval * (1 + (now - self._ping_due) // interval)
        if self._ping_due <= now:
            # Rounding errors.
            self._ping_due += interval
        if owner.outgoing.free:
            self._pinged_at = now
            session.ping()

    def _stopped_reading(self, now: float, owner: LivenessOwner, moved: bool) -> bool:
        if self._timeouts.send is None or owner.outgoing.free:
            self._waiting_at = None
            return False
        # A slow reader makes room in the transport rarely, but the system sees each of its acknowledgements.
        unaccepted = owner.unaccepted()
        if self._waiting_at is None or moved or unaccepted < self._unaccepted:
            self._waiting_at = now
        self._unaccepted = unaccepted
        return now >= self._waiting_at + self._timeouts.send

    def _next_look(self, now: float) -> float | None:
        first, session = self._deadline, self._session
        if session is not None:
            send = self._timeouts.send
            look = None if send is None else now + send / LOOKS
            for time in (look, self._ping_due, self._silent_at(session, now), self._slow_at(session, now)):
                if time is not None and (first is None or time < first):
                    first = time
        return first

    def _silent_at(self, session: Session, now: float) -> float | None:
        idle = self._timeouts.idle
        if idle is None:
            return None
        # While we do not read, the peer's silence proves nothing. But if it takes no bytes either, it may be gone.
        if self._owner is None or self._owner.reading_paused:
            return (now if self._stuck_at is None else self._stuck_at) + idle
        heard_at = self._ponged_at if self._timeouts.strict_pong else session.reader.received_at
        return max(heard_at, self._taken_at) + idle

    def _slow_at(self, session: Session, now: float) -> float | None:
        if self._timeouts.message is None:
            return None
        began = session.reader.message_began_at
        if began is None or self._owner is None or self._owner.reading_paused:
            began = now
        return began + self._timeouts.message


def _first_delay(timeouts: Timeouts) -> float | None:
    """Return the seconds from the opening of a connection to the first check, as `Liveness` computes later ones."""
    global _latest
    latest, delay = _latest
    if latest is not timeouts:
        send = None if timeouts.send is None else timeouts.send / LOOKS
        given = (send, timeouts.ping_interval, timeouts.max_lifetime, timeouts.idle, timeouts.message)
        delay = min((seconds for seconds in given if seconds is not None), default=None)
        # Nearly all connections of a process share one Timeouts.
        _latest = timeouts, delay
    return delay


_latest: tuple[Timeouts | None, float | None] = None, None


def _fail(answered: Deferred[float], error: Exception) -> None:
    # Drop the traceback; otherwise it grows with each Deferred that fails with it.
    answered.errback(error.with_traceback(None))
    if isinstance(answered.result, Failure) and answered.result.value is error and answered._debugInfo is not None:
        # The caller may ignore this Deferred, so do not log its failure as unhandled. A later errback still gets it.
        answered._debugInfo.failResult = None
