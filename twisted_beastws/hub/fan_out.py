"""`FanOut`: gives messages to the members of rooms without holding the reactor."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from sys import getsizeof
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar, cast

from twisted.internet.defer import Deferred, succeed

from twisted_beastws.clock import next_turn
from twisted_beastws.hub.backplane import Message

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

T = TypeVar("T")

TURN = 0.002
"""Seconds of fan-out in one turn of the reactor: 2 ms, a fifth of the time of Twisted's ``Cooperator``."""

SLICE, SMALL_SLICE = 64, 4
"""The most and the fewest members that get a message between two checks of the clock."""

SLICE_SIZE = 1 << 18
"""The most bytes sent between two checks of the clock, unless `SMALL_SLICE` members take more: 256 KiB."""

OVERHEAD = 512
"""The overhead of a waiting message in bytes, for the objects that hold it."""


class FanOutDelivery:
    """A message on its way to the members here.

    Attributes:
        number: Its place among all messages that the hub accepted.
        recipients: The members that get it, from the moment that it is first sent.
        given: The number of members that got it.
        framed: The hub's cache of the framed messages.
    """

    __slots__ = ("exclude", "framed", "given", "message", "number", "recipients", "waiters")

    def __init__(self, message: Message, exclude: object, number: int) -> None:
        self.message = message
        self.exclude = exclude
        self.number = number
        self.given = 0
        self.framed: dict[Any, Any] = {}
        self.recipients: list[Any] | None = None
        self.waiters: list[Deferred[None]] = []


Stage = OrderedDict["str | None", "deque[FanOutDelivery]"]


class FanOut:
    """The messages that wait for the members here, by room.

    Rooms with waiting messages get a slice each in turn, so a busy room does not delay a quiet one. Messages of one
    room keep their order. A message for all rooms goes out after all messages before it, and before all messages after
    it.

    While no message waits, a new one goes out in the turn that published it. To a large room it goes on in the
    reactor's next turns when the fan-out has taken `TURN`.

    Args:
        recipients: lists the members that get a message, by its room (None for all) and its number.
        give: sends a message to some of them. It must not raise.
        reactor: returns the reactor, when one is needed.
        now: seconds, for `TURN`.

    Attributes:
        number: of the message that was accepted last.
        waiting: bytes of memory of the waiting messages.
    """

    def __init__(
        self,
        recipients: Callable[[str | None, int], list[Any]],
        give: Callable[[FanOutDelivery, list[Any]], None],
        reactor: Callable[[], IReactorTime],
        now: Callable[[], float] = perf_counter,
    ) -> None:
        self.number = 0
        self.waiting = 0
        self._recipients = recipients
        self._give = give
        self._reactor = reactor
        self._now = now
        # A message for all rooms has its own stage, after the earlier and before the later messages of the rooms.
        self._stages: deque[Stage] = deque()
        self._latest: dict[str | None, FanOutDelivery] = {}
        self._paced: deque[Deferred[None]] = deque()
        self._running = False
        self._scheduled = False
        self._allowance = TURN
        self._ended_at = 0.0

    def add(self, message: Message, exclude: object) -> Deferred[None] | None:
        """Accept a message.

        Returns:
            None if all members have been sent it, else a Deferred that fires when they have.
        """
        self.number += 1
        delivery = FanOutDelivery(message, exclude, self.number)
        if not (self._running or self._stages) and self._give_at_once(delivery):
            return None
        self._enqueue(delivery)
        return self.when_given(message.room)

    def waits(self, room: str | None) -> bool:
        """Whether a message waits in ``room``."""
        return room in self._latest

    def when_given(self, room: str | None) -> Deferred[None] | None:
        """Return None if no message waits in ``room``, else a Deferred that fires when the present ones do not."""
        delivery = self._latest.get(room)
        if delivery is None:
            return None
        waiter: Deferred[None] = Deferred()
        delivery.waiters.append(waiter)
        return waiter

    def when_empty(self) -> Deferred[None]:
        """Return a Deferred that fires when the messages that wait now have been sent."""
        emptied: Deferred[None] = succeed(None)
        for room in self._latest:
            emptied = emptied.addCallback(_second, cast("Deferred[None]", self.when_given(room)))
        return emptied

    def pace(self) -> Deferred[None]:
        """Return a Deferred that fires in a later turn, for long work that is not the fan-out's own."""
        waiter: Deferred[None] = Deferred()
        self._paced.append(waiter)
        self._schedule()
        return waiter

    def _enqueue(self, delivery: FanOutDelivery) -> None:
        room = delivery.message.room
        if delivery.given:
            # This message was begun. Its recipients may have published answers; those come after it.
            stage = Stage()
            self._stages.appendleft(stage)
            self._latest.setdefault(room, delivery)
        else:
            stage = self._stage_for(room)
            self._latest[room] = delivery
        stage.setdefault(room, deque()).append(delivery)
        self.waiting += cost_of(delivery.message.data)
        if not self._running:
            self._schedule()

    def _stage_for(self, room: str | None) -> Stage:
        last = self._stages[-1] if self._stages else None
        if last is None or (last and (None in last) != (room is None)):
            last = Stage()
            self._stages.append(last)
        return last

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            next_turn(self._reactor(), self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        self._run(self._now() + TURN)
        until = self._now() + TURN
        while self._paced:
            self._paced.popleft().callback(None)
            if self._now() >= until:
                break
        if self._paced:
            self._schedule()

    def _give_at_once(self, delivery: FanOutDelivery) -> bool:
        """Give a message to its recipients as long as time is left. Return whether all got it."""
        self._running = True
        try:
            recipients = self._recipients(delivery.message.room, delivery.number)
            if len(recipients) <= _slice_of(delivery):
                # This takes no longer than the publishing did.
                self._give(delivery, recipients)
                finished = True
            else:
                delivery.recipients = recipients
                finished = self._give_until(delivery, self._now() + self._refilled())
        finally:
            self._running = False
        if finished and self._stages:
            self._run(self._now() + self._refilled())
        return finished

    def _give_until(self, delivery: FanOutDelivery, until: float) -> bool:
        finished = False
        while not finished and self._now() < until:
            finished = self._advance(delivery)
        self._spent(until)
        return finished

    def _run(self, until: float) -> None:
        """Give waiting messages until that time, but at least one slice."""
        self._running = True
        try:
            while self._stages:
                stage = self._stages[0]
                if not stage:
                    self._stages.popleft()
                    continue
                self._give_slice(stage)
                if self._now() >= until:
                    break
        finally:
            self._running = False
            self._spent(until)
            if self._stages:
                self._schedule()

    def _refilled(self) -> float:
        # Give other work as much time as the fan-out took, so that the fan-out takes at most half of all time.
        return min(TURN, self._allowance + self._now() - self._ended_at)

    def _spent(self, until: float) -> None:
        self._ended_at = self._now()
        self._allowance = until - self._ended_at

    def _give_slice(self, stage: Stage) -> None:
        """Give a part of the first room's first message, and move the room to the end of the queue."""
        room, lane = next(iter(stage.items()))
        delivery = lane[0]
        if not self._advance(delivery):
            stage.move_to_end(room)
            return
        lane.popleft()
        if lane:
            stage.move_to_end(room)
        else:
            del stage[room]
        self.waiting -= cost_of(delivery.message.data)
        if self._latest.get(room) is delivery:
            del self._latest[room]
        for waiter in delivery.waiters:
            waiter.callback(None)

    def _advance(self, delivery: FanOutDelivery) -> bool:
        """Give a message to some of its recipients; return whether all got it."""
        recipients = delivery.recipients
        if recipients is None:
            recipients = delivery.recipients = self._recipients(delivery.message.room, delivery.number)
        begin = delivery.given
        delivery.given = begin + _slice_of(delivery)
        self._give(delivery, recipients[begin : delivery.given])
        return delivery.given >= len(recipients)


def cost_of(data: str | bytes) -> int:
    """Return the bytes of memory that a waiting message costs."""
    return getsizeof(data) + OVERHEAD


def _slice_of(delivery: FanOutDelivery) -> int:
    return max(SMALL_SLICE, min(SLICE, SLICE_SIZE // (len(delivery.message.data) + 1)))


def _second(first: object, second: T) -> T:
    return second
