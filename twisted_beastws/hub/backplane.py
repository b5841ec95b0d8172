"""`Backplane`: the interface between a hub and the system that joins it with other hubs."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from hashlib import sha256
from typing import NamedTuple, Protocol

from twisted.internet.defer import Deferred

from twisted_beastws.errors import WebSocketError

_ID = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")

REF_TIME = 300
"""Seconds for which an idempotency key is remembered, unless there are more than `MAX_REFS` keys: 5 minutes."""

MAX_REFS = 65536
"""The most idempotency keys that are remembered, the latest ones. They take less than 32 MiB."""

CHUNK = 32
"""Messages in one part of a room's history."""

CHUNK_SIZE = 1 << 18
"""Bytes after which a part of a history ends: 256 KiB."""


class Message(NamedTuple):
    """A published message.

    Attributes:
        room: the room; None is a message for all members.
        data: ``str`` is sent as text, ``bytes`` as binary.
        id: the place in the room's history, as ``MILLISECONDS-NUMBER`` with the time since 1970; None without one.
        sender: the name of the hub that published it.
        number: its number among that hub's messages.
        gap: this is not a message, but a notice that messages may be missing before the next one; data is empty.
    """

    room: str | None
    data: str | bytes
    id: str | None = None
    sender: str = ""
    number: int = 0
    gap: bool = False


class History(NamedTuple):
    """A part of a room's history, the oldest message first.

    Attributes:
        messages: the messages.
        complete: no message is missing before the first, as far as the backplane knows.
        more: the history has later messages.
        until: the latest id that the backplane assigned in any room; None if it does not say.
    """

    messages: list[Message]
    complete: bool
    more: bool
    until: str | None = None


class Roster(NamedTuple):
    """Names of a room's members.

    Attributes:
        names: sorted, each once, at most as many as were asked for.
        members: how many members of the whole room have a name; a user with two connections counts twice.
    """

    names: list[str]
    members: int


class UsersHere(dict[str, str]):
    """The users of this hub alone: the server did not list those of the others."""


class PublishError(WebSocketError):
    """The backplane did not accept the message.

    Attributes:
        delivered_here: the members on this hub got it, without an id.
    """

    def __init__(self, reason: str, delivered_here: bool) -> None:
        super().__init__(reason)
        self.delivered_here = delivered_here


class PublishUnknown(PublishError):
    """The backplane may or may not have accepted the message: the connection was lost before its answer.

    If it accepted the message, members on all hubs get it in its place. Publish it again with the same ``ref``: the
    backplane then accepts it once.
    """


class BackplaneState(Enum):
    """The state of a backplane: it accepts messages, or the reason why not.

    Attributes:
        STOPPED: it was not started, or was stopped.
        CONNECTING: the server is away.
        LOADING: the server loads its data after a start.
        READ_ONLY: the server is a replica.
        FULL: the server has no memory left.
        NOT_SAVING: the server cannot write to its disk.
        REFUSING: the server answers with other errors.
        CONNECTED: it accepts messages.
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
"""Delivers a message to the members of the hub, except the connection in the second argument.

Returns None if the members have been sent the message, else a Deferred that fires then. A backplane that receives
messages from other hubs should stop reading while many of these have not fired.
"""


class Backplane(Protocol):
    """Carries messages between hubs, including the publisher's, and keeps the rooms' history.

    Only the Deferreds of `publish` and `history` can fail.
    """

    @property
    def state(self) -> BackplaneState: ...

    def start(self, deliver: Deliver) -> None:
        """Connect, and reconnect after a loss."""

    def stop(self) -> Deferred[None]:
        """Disconnect."""

    def subscribe(self, room: str) -> Deferred[None]:
        """Deliver the messages of ``room``. Fires when the hub is subscribed, or must wait for the backplane."""

    def unsubscribe(self, room: str) -> None:
        """Stop delivering the messages of ``room``."""

    def publish(
        self, room: str | None, data: str | bytes, keep: bool, exclude: object, ref: str | None = None
    ) -> Deferred[str | None]:
        """Deliver a message to all hubs. Fires with its id; fails with `PublishError` or `PublishUnknown`.

        ref: an idempotency key. If a message with the same ref was taken before in this room, this one is not
        published; the Deferred fires with the id of the earlier one. Without a ref, a hub leaves the argument out.
        """

    def history(self, room: str, after: str) -> Deferred[History]:
        """Fire with the messages after the id ``after``, or with the first part of them."""

    def enter(self, room: str, member: str, name: str, data: str = "") -> None:
        """List a member with a name in ``room``.

        Args:
            room: the room.
            member: its key, unique on this hub.
            name: the user's name.
            data: the member's data as JSON. A hub leaves the argument out without data.
        """

    def exit(self, room: str, member: str) -> None:
        """Remove a member from the list."""

    def who(self, room: str) -> Deferred[dict[str, str]]:
        """Fire with the names of the room's members on all hubs, each once, and the data of each as JSON.

        While the backplane is away, the Deferred fires with the members of this hub.
        """

    def roster(self, room: str, after: str | None, most: int) -> Deferred[Roster]:
        """Fire with at most ``most`` of these names, sorted, from the first after ``after``."""


def is_id(text: str) -> bool:
    """Return whether a text is a message's id."""
    return _ID.fullmatch(text) is not None


def order_of(message_id: str) -> tuple[int, int]:
    """Return an id as numbers, which can be compared. Raises ``ValueError`` for text that is not an id."""
    if not is_id(message_id):
        raise ValueError(f"{message_id!r} is no message's id, such as 1700000000000-0")
    milliseconds, _, number = message_id.partition("-")
    return int(milliseconds), int(number)


def key_of(room: str | None, ref: str) -> str:
    """Return an idempotency key of 32 characters for a caller's key, which may be long."""
    return sha256(f"{room}\0{ref}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
