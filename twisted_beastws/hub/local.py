"""`LocalBackplane`: the backplane of a single hub."""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from sys import getsizeof

from twisted.internet.defer import Deferred, succeed

from twisted_beastws.hub.backplane import (
    CHUNK,
    CHUNK_SIZE,
    MAX_REFS,
    REF_TIME,
    BackplaneState,
    Deliver,
    History,
    Message,
    Roster,
    key_of,
    order_of,
)


class RoomPeople:
    """The members of a room that have a name.

    Attributes:
        members: name and data of each member, by its key.
    """

    def __init__(self) -> None:
        self.members: dict[str, tuple[str, str]] = {}
        self._counts: dict[str, int] = {}
        self._sorted: list[str] = []

    def enter(self, member: str, name: str, data: str) -> None:
        """List a member."""
        self.members[member] = (name, data)
        self._counts[name] = self._counts.get(name, 0) + 1
        if self._counts[name] == 1:
            insort(self._sorted, name)

    def exit(self, member: str) -> None:
        """Remove a member from the list."""
        name, _ = self.members.pop(member, (None, ""))
        if name is None:
            return
        self._counts[name] -= 1
        if not self._counts[name]:
            del self._counts[name], self._sorted[bisect_left(self._sorted, name)]

    def data(self) -> dict[str, str]:
        """Return each name once, with the data of the connection that joined last."""
        return dict(self.members.values())

    def page(self, after: str | None, most: int) -> Roster:
        """Return at most ``most`` names after ``after``."""
        first = 0 if after is None else bisect_right(self._sorted, after)
        return Roster(self._sorted[first : first + most], len(self.members))


class LocalBackplane:
    """For one hub alone. The hub gets a message before `publish` returns.

    Args:
        history: messages of each room that are kept; 0 keeps none. 100.
        max_history: bytes that all rooms' history may take together, with 256 for each message and 1024 for each room.
            Beyond it, the room that has been quiet for longest loses its oldest messages. 64 MiB.
        now: the seconds since 1970.
    """

    OVERHEAD = 256
    ROOM = 1024

    def __init__(self, *, history: int = 100, max_history: int = 1 << 26, now: Callable[[], float] = time.time) -> None:
        self.state = BackplaneState.STOPPED
        self.history_size = 0
        self._history = history
        self._max_history = max_history
        self._now = now
        self._last = (0, 0)
        self._kept: OrderedDict[str, deque[Message]] = OrderedDict()
        # The kept rooms that lost messages, and whether any room lost all of its messages.
        self._cut: set[str] = set()
        self._forgot = False
        self._people: dict[str, RoomPeople] = {}
        self.presence_changed: Callable[[str | None], None] = lambda room: None
        self._refs: OrderedDict[str, tuple[str | None, float]] = OrderedDict()
        self._deliver: Deliver = _nobody

    def start(self, deliver: Deliver) -> None:
        self._deliver = deliver
        self.state = BackplaneState.CONNECTED

    def stop(self) -> Deferred[None]:
        self._deliver = _nobody
        self.state = BackplaneState.STOPPED
        return succeed(None)

    def subscribe(self, room: str) -> Deferred[None]:
        return succeed(None)

    def unsubscribe(self, room: str) -> None:
        pass

    def publish(
        self, room: str | None, data: str | bytes, keep: bool, exclude: object, ref: str | None = None
    ) -> Deferred[str | None]:
        key = None if ref is None else key_of(room, ref)
        if key is not None:
            known, since = self._refs.get(key, (None, -2.0 * REF_TIME))
            if abs(self._now() - since) < REF_TIME:
                return succeed(known)
        message = Message(room, data)
        if keep and room is not None and self._history:
            message = message._replace(id=self._next_id())
            self._keep(room, message)
        if key is not None:
            self._refs[key] = message.id, self._now()
            if len(self._refs) > MAX_REFS:
                self._refs.popitem(last=False)
        self._deliver(message, exclude)
        return succeed(message.id)

    def history(self, room: str, after: str) -> Deferred[History]:
        kept: Sequence[Message] = self._kept.get(room, deque())
        first = bisect_right(kept, order_of(after), key=lambda message: order_of(message.id or ""))
        part: list[Message] = []
        size = 0
        for at in range(first, min(first + CHUNK, len(kept))):
            message = kept[at]
            if part and size + len(message.data) > CHUNK_SIZE:
                break
            part.append(message)
            size += len(message.data)
        complete = self._is_whole(room) if order_of(after) == (0, 0) else first > 0 and kept[first - 1].id == after
        until = "{}-{}".format(*self._last)
        return succeed(History(part, complete, first + len(part) < len(kept), until))

    def enter(self, room: str, member: str, name: str, data: str = "") -> None:
        self._people.setdefault(room, RoomPeople()).enter(member, name, data)
        self.presence_changed(room)

    def exit(self, room: str, member: str) -> None:
        people = self._people.get(room)
        if people is None:
            return
        people.exit(member)
        if not people.members:
            del self._people[room]
        self.presence_changed(room)

    def who(self, room: str) -> Deferred[dict[str, str]]:
        people = self._people.get(room)
        return succeed({} if people is None else people.data())

    def roster(self, room: str, after: str | None, most: int) -> Deferred[Roster]:
        people = self._people.get(room)
        return succeed(Roster([], 0) if people is None else people.page(after, most))

    def _next_id(self) -> str:
        milliseconds, number = self._last
        # As in Redis, ids still grow if the clock goes back.
        now = int(self._now() * 1000)
        self._last = (now, 0) if now > milliseconds else (milliseconds, number + 1)
        return "{}-{}".format(*self._last)

    def _keep(self, room: str, message: Message) -> None:
        kept = self._kept.get(room)
        if kept is None:
            kept = self._kept[room] = deque()
            self.history_size += self.ROOM
            if self._forgot:
                # The room may have lost all of its messages.
                self._cut.add(room)
        self._kept.move_to_end(room)
        kept.append(message)
        self.history_size += self._size_of(message)
        if len(kept) > self._history:
            self._drop_oldest(room)
        while self.history_size > self._max_history:
            oldest = next(iter(self._kept))
            self._drop_oldest(oldest)
            if not self._kept[oldest]:
                del self._kept[oldest]
                self.history_size -= self.ROOM
                self._cut.discard(oldest)
                self._forgot = True

    def _drop_oldest(self, room: str) -> None:
        self.history_size -= self._size_of(self._kept[room].popleft())
        self._cut.add(room)

    def _is_whole(self, room: str) -> bool:
        """Return whether the history still has every message kept since the start."""
        if not self._history:
            return False
        return room not in self._cut if room in self._kept else not self._forgot

    def _size_of(self, message: Message) -> int:
        return getsizeof(message.data) + self.OVERHEAD


def _nobody(message: Message, exclude: object) -> None:
    """Drop a message: the deliver function before the start and after the end."""
