"""What joins hubs: the interface, and the implementation for a hub that is alone."""

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

    Attributes:
        names: sorted, each once, at most as many as were asked for.
        members: how many members of the whole room have a name; a user with two connections counts twice.
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

    def enter(self, room: str, member: str, name: str, data: str = "") -> None:
        """List a member with a name in ``room``.

        Args:
            room: the room.
            member: its key, unique on this hub.
            name: the user's name.
            data: the member's data as JSON. A hub leaves the argument out if there is none.
        """

    def exit(self, room: str, member: str) -> None:
        """List a member no longer."""

    def who(self, room: str) -> Deferred[dict[str, str]]:
        """Fire with the names of the room's members on all hubs, each once, and the data of each as JSON.

        While the backplane is away, the Deferred fires with the members of this hub.
        """

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
