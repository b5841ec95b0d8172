"""`RoomFeed`: fetches the messages that PostgreSQL's notifications name, for the rooms that a hub subscribes to."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twisted_beastws.hub.backplane import CHUNK, CHUNK_SIZE
from twisted_beastws.hub.linked_errors import LinkLost, Refused
from twisted_beastws.hub.linked_interfaces import LinkUser
from twisted_beastws.hub.postgres_connection import PostgresConnection, Row, numbers


class RoomSubscription:
    """A room that a hub subscribes to; None is all rooms.

    Attributes:
        after: the epoch and the number of the latest message before it; None while PostgreSQL has not said them.
        ended: the hub subscribes to the room no longer.
    """

    __slots__ = ("after", "ended", "room")

    def __init__(self, room: str | None) -> None:
        self.room = room
        self.after: tuple[str, int] | None = None
        self.ended = False


class Notified(NamedTuple):
    """A notification: it names a message of a room, or is a notice itself.

    Attributes:
        subscription: the room's.
        number: the message's; 0 for a notice.
        size: the message's bytes.
        notice: an id and an epoch for the hub, or two empty texts.
    """

    subscription: RoomSubscription
    number: int = 0
    size: int = 0
    notice: tuple[str, str] = ("", "")


class RoomFeed:
    """Takes the notifications of one connection, and fetches their messages on the same connection, in order.

    Args:
        user: takes the messages.
        prefix: the quoted name of the schema, and a point.
    """

    def __init__(self, user: LinkUser, prefix: str) -> None:
        self._user = user
        self._prefix = prefix
        self._connection: PostgresConnection | None = None
        self._rooms: dict[str, RoomSubscription] = {}
        self._coming: deque[Notified] = deque()
        self._fetching = False
        self._paused = False

    def begin(self, connection: PostgresConnection) -> None:
        """Use a new connection, which has no subscription yet."""
        self._connection = connection
        self._rooms.clear()
        self._coming.clear()
        self._fetching = False
        if self._paused:
            connection.pause()

    def subscribe(self, rooms: Sequence[str | None]) -> Deferred[None]:
        """Take the messages of ``rooms`` from now on; fires when PostgreSQL has said from which message on."""
        if self._connection is None:
            raise LinkLost("the connection to PostgreSQL is not there")
        # Messages that are named before the answer are fetched after it, and compared with it then.
        subscriptions = [self._rooms.setdefault(key_of_room(room), RoomSubscription(room)) for room in rooms]

        def answered(rows: list[Row]) -> None:
            epoch, number = ((part or b"").decode("ascii", "replace") for part in rows[0])
            for subscription in subscriptions:
                subscription.after = subscription.after or (epoch, int(number))

        return self._connection.call(f"SELECT * FROM {self._prefix}latest()").addCallback(answered)

    def unsubscribe(self, rooms: Sequence[str]) -> None:
        """Take no more messages of ``rooms``."""
        for room in rooms:
            subscription = self._rooms.pop(key_of_room(room), None)
            if subscription is not None:
                subscription.ended = True

    def pause(self) -> None:
        """Fetch no more messages, and read no more notifications."""
        self._paused = True
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        """Go on."""
        self._paused = False
        if self._connection is not None:
            self._connection.resume()
            self._go_on()

    def notified(self, payload: str) -> None:
        """Take a notification; one that another program sent may be anything."""
        kind, *words = payload.split(" ")
        found: Notified | None = None
        if kind == "message" and len(words) == 3 and words[0].isdecimal() and words[1].isdecimal():
            found = self._about(words[2], int(words[0]), int(words[1]))
        elif kind == "members" and len(words) == 1:
            found = self._about(words[0])
        elif kind == "hub" and len(words) == 2:
            found = self._about("", notice=(words[0], words[1]))
        elif kind == "inbox":
            found = self._about("")
        if found is not None:
            self._coming.append(found)
            self._go_on()

    def _about(self, key: str, number: int = 0, size: int = 0, notice: tuple[str, str] = ("", "")) -> Notified | None:
        subscription = self._rooms.get(key)
        return None if subscription is None else Notified(subscription, number, size, notice)

    def _go_on(self) -> None:
        """Pass on notices, and fetch the next messages."""
        if self._fetching or self._paused or self._connection is None:
            return
        while self._coming and not self._coming[0].number:
            notified = self._coming.popleft()
            self._user.received(notified.subscription.room, notified.notice[0], "0-0", notified.notice[1], b"")
        if self._coming:
            self._fetching = True
            self._fetch(self._connection)

    def _fetch(self, connection: PostgresConnection) -> None:
        step: list[Notified] = []
        size = 0
        while self._coming and self._coming[0].number and len(step) < CHUNK:
            size += self._coming[0].size
            if step and size > CHUNK_SIZE:
                break
            step.append(self._coming.popleft())
        asked = numbers([each.number for each in step])
        fetched = connection.call(f"SELECT * FROM {self._prefix}fetch($1)", asked)
        fetched.addCallback(self._fetched, step, connection).addErrback(self._failed, connection)

    def _fetched(self, rows: list[Row], step: list[Notified], connection: PostgresConnection) -> None:
        if connection is not self._connection:
            return
        self._fetching = False
        found = {int(row[0] or b"0"): row for row in rows}
        for each in step:
            if each.subscription.ended:
                continue
            row = found.get(each.number)
            if row is None:
                # A new link looks for missing messages in the histories, and reports gaps.
                connection.drop(LinkLost("messages were deleted before this hub fetched them: it was too slow"))
                return
            message_id, previous, epoch = ((part or b"").decode("ascii", "replace") for part in row[2:5])
            # In a new epoch the numbers may begin again.
            before = each.subscription.after
            if before is None or epoch != before[0] or each.number > before[1]:
                self._user.received(each.subscription.room, message_id, previous, epoch, row[5] or b"")
        self._go_on()

    @staticmethod
    def _failed(failure: Failure, connection: PostgresConnection) -> None:
        if failure.check(Refused):
            connection.drop(failure.value)
        else:
            failure.trap(LinkLost)


def key_of_room(room: str | None) -> str:
    """Return the hash by which notifications name a room; empty for all rooms."""
    return "" if room is None else sha256(room.encode("utf-8", "surrogatepass")).hexdigest()[:32]
