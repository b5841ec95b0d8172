"""What joins hubs: the interface, and the implementation for a hub that is alone."""

from __future__ import annotations

import re
import time
from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from enum import Enum
from hashlib import sha256
from sys import getsizeof
from typing import NamedTuple, Protocol

from twisted.internet.defer import Deferred, succeed

from twisted_beastws.errors import WebSocketError

_ID = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")

REF_TIME = 300
"""Seconds for which an idempotency key is remembered, if there are not more of them than `MAX_REFS`: 5 minutes."""

MAX_REFS = 65536
"""Idempotency keys that are remembered: of the last messages that have one. Less than 32 MiB."""

CHUNK = 32
"""Messages of a room's history that are asked for at once."""

CHUNK_SIZE = 1 << 18
"""Octets of them, beyond which no more are put into one answer. 256 KiB."""


class Message(NamedTuple):
    """What was published.

    room: where, or None for everybody. data: ``str`` goes out as text, ``bytes`` as binary.
    id: its place in the room's history, as ``MILLISECONDS-NUMBER`` with the time since 1970; None if it is not there.
    sender, number: the hub that published it, and its count there.
    gap: no message, but the notice that messages may be missing before the next one; data is empty.
    """

    room: str | None
    data: str | bytes
    id: str | None = None
    sender: str = ""
    number: int = 0
    gap: bool = False


class History(NamedTuple):
    """A part of a room's history, the oldest message first.

    complete: nothing is known to be missing before the first. more: there are later ones.
    until: the latest id that the backplane gave out, in any room; None if it does not say.
    """

    messages: list[Message]
    complete: bool
    more: bool
    until: str | None = None


class Roster(NamedTuple):
    """Names of a room's members.

    names: sorted, at most as many as were asked for. members: how many members of the whole room have a name.
    """

    names: list[str]
    members: int


class PublishError(WebSocketError):
    """The backplane did not take the message. delivered_here: the members on this hub got it, without an id."""

    def __init__(self, reason: str, delivered_here: bool) -> None:
        super().__init__(reason)
        self.delivered_here = delivered_here


class PublishUnknown(PublishError):
    """The connection was lost before the backplane answered: whether it took the message is not known.

    If it did, members get the message in its place, here and elsewhere. To be sure that it is taken, and once, publish
    it again with the same ``ref``.
    """


class BackplaneState(Enum):
    """Whether a backplane takes messages, and if not, why.

    STOPPED: it was not started, or was stopped. CONNECTING: it is away. LOADING: it reads its data after a start.
    READ_ONLY: a replica answers. FULL: it has no memory left. NOT_SAVING: it cannot write to its disk.
    REFUSING: it answers with other errors. CONNECTED: it takes messages.
    """

    STOPPED = "stopped"
    CONNECTING = "connecting"
    LOADING = "loading"
    READ_ONLY = "read_only"
    FULL = "full"
    NOT_SAVING = "not_saving"
    REFUSING = "refusing"
    CONNECTED = "connected"


Deliver = Callable[[Message, object], "Deferred[None] | None"]
"""Takes each message for the members here, and the connection to leave out.

Returns None if the members have been sent it, else a Deferred that fires when they have. A backplane that gets messages
from elsewhere should stop reading while many of these have not fired.
"""


class Backplane(Protocol):
    """Carries messages from one hub to others, itself included, and keeps the rooms' history.

    No Deferred but that of `publish` and `history` ever fails.
    """

    state: BackplaneState

    def start(self, deliver: Deliver) -> None:
        """Connect, and stay so."""

    def stop(self) -> Deferred[None]:
        """Let go of everything."""

    def subscribe(self, room: str) -> Deferred[None]:
        """Deliver the messages of ``room``; fires when that is so, or has to wait for the backplane's return."""

    def unsubscribe(self, room: str) -> None:
        """Deliver them no more."""

    def publish(
        self, room: str | None, data: str | bytes, keep: bool, exclude: object, ref: str | None = None
    ) -> Deferred[str | None]:
        """Deliver to all hubs; fires with the message's id, fails with `PublishError` or `PublishUnknown`.

        ref: an idempotency key. If a message with the same ref was taken before in this room, this one is not
        published; the Deferred fires with the id of the earlier one. Without a ref, a hub leaves the argument out.
        """

    def history(self, room: str, after: str) -> Deferred[History]:
        """What was published behind the message of id ``after``, or the first part of it."""

    def enter(self, room: str, member: str, name: str) -> None:
        """A member with a name is in ``room``; ``member`` is its key, unique on this hub."""

    def exit(self, room: str, member: str) -> None:
        """It left."""

    def who(self, room: str) -> Deferred[list[str]]:
        """The names of the room's members on all hubs; while the backplane is away, those here."""

    def roster(self, room: str, after: str | None, most: int) -> Deferred[Roster]:
        """At most ``most`` of these names, sorted, from the first behind ``after`` on."""


def order_of(message_id: str) -> tuple[int, int]:
    """By which the ids of one room are in order. Raises ``ValueError`` for what is none."""
    if not _ID.fullmatch(message_id):
        raise ValueError(f"{message_id!r} is no message's id, such as 1700000000000-0")
    milliseconds, _, number = message_id.partition("-")
    return int(milliseconds), int(number)


def key_of(room: str | None, ref: str) -> str:
    """An idempotency key of 32 characters for a caller's one, which may be long."""
    return sha256(f"{room}\0{ref}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


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
        # Kept rooms that have lost messages, and whether there was one that has lost all.
        self._cut: set[str] = set()
        self._forgot = False
        self._names: dict[str, dict[str, str]] = {}
        self._sorted: dict[str, list[str]] = {}
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

    def enter(self, room: str, member: str, name: str) -> None:
        self._names.setdefault(room, {})[member] = name
        insort(self._sorted.setdefault(room, []), name)

    def exit(self, room: str, member: str) -> None:
        names = self._names.get(room, {})
        name = names.pop(member, None)
        if name is not None:
            ordered = self._sorted[room]
            del ordered[bisect_left(ordered, name)]
        if not names:
            self._names.pop(room, None)
            self._sorted.pop(room, None)

    def who(self, room: str) -> Deferred[list[str]]:
        return succeed(list(self._names.get(room, {}).values()))

    def roster(self, room: str, after: str | None, most: int) -> Deferred[Roster]:
        ordered = self._sorted.get(room, [])
        first = 0 if after is None else bisect_right(ordered, after)
        return succeed(Roster(ordered[first : first + most], len(ordered)))

    def _next_id(self) -> str:
        milliseconds, number = self._last
        # As Redis does it: a clock that goes back does not take the ids with it.
        now = int(self._now() * 1000)
        self._last = (now, 0) if now > milliseconds else (milliseconds, number + 1)
        return "{}-{}".format(*self._last)

    def _keep(self, room: str, message: Message) -> None:
        kept = self._kept.get(room)
        if kept is None:
            kept = self._kept[room] = deque()
            self.history_size += self.ROOM
            if self._forgot:
                # Perhaps it is one that has lost all.
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
        """Return whether the history has every message since the start that was to be kept."""
        if not self._history:
            return False
        return room not in self._cut if room in self._kept else not self._forgot

    def _size_of(self, message: Message) -> int:
        return getsizeof(message.data) + self.OVERHEAD


def _nobody(message: Message, exclude: object) -> None:
    """Before the start and after the end."""
