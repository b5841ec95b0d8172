"""`InboxReader`: messages that other programs put into a stream in Redis, for the hubs to publish.

Each hub that is woken reads the stream, publishes its entries in order with an idempotency key, and removes each entry
when Redis has accepted the message. So a message is published once, whichever hubs read it, and survives the end of a
hub. docs/hub.md describes the entries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_beastws.hub.backplane import PublishError
from twisted_beastws.hub.linked_errors import LinkLost, Refused
from twisted_beastws.hub.linked_interfaces import LinkCommands

MAX_ENTRY = 1 << 20
"""Bytes of the data of an entry: 1 MiB, as ``Limits.max_message_size``."""


class InboxEntry(NamedTuple):
    """A message of another program.

    Attributes:
        room: the room.
        data: the message.
        keep: put it into the room's history.
        ref: the idempotency key.
    """

    room: str
    data: str | bytes
    keep: bool
    ref: str


class InboxBackplane(Protocol):
    """The `RedisBackplane`, as its inbox sees it."""

    @property
    def is_linked(self) -> bool: ...

    @property
    def link(self) -> LinkCommands: ...


class InboxReader:
    """Publishes the entries of the inbox.

    Args:
        backplane: reads the inbox.
        publish: publishes a message, as `Backplane.publish`.
    """

    log = Logger()

    def __init__(self, backplane: InboxBackplane, publish: Callable[..., Deferred[str | None]]) -> None:
        self._backplane = backplane
        self._publish_message = publish
        self._reading = False
        self._again = False

    def read(self) -> None:
        """Publish the entries, now or after those that are being read."""
        self._again = True
        if not self._reading and self._backplane.is_linked:
            self._reading = True
            Deferred.fromCoroutine(self._read()).addErrback(self._failed).addBoth(self._ended)

    def _failed(self, failure: Failure) -> None:
        # The entries stay in the stream until the next sign of life.
        if not failure.check(PublishError, Refused, LinkLost):
            self.log.failure("the inbox could not be read", failure)

    def _ended(self, _: object) -> None:
        self._reading = False

    async def _read(self) -> None:
        while self._again:
            self._again = False
            while entries := await self._backplane.link.inbox():
                for entry_id, fields in entries:
                    await self._publish(entry_id, fields)
                    await self._backplane.link.remove(entry_id)

    async def _publish(self, entry_id: str, fields: dict[str, bytes]) -> None:
        try:
            entry = read_entry(entry_id, fields)
        except ValueError as error:
            self.log.warn("an entry of the inbox is dropped: {why}", why=str(error))
            return
        await self._publish_message(entry.room, entry.data, entry.keep, None, entry.ref)


def read_entry(entry_id: str, fields: dict[str, bytes]) -> InboxEntry:
    """Return the message of an entry.

    Raises:
        ValueError: the entry has no message. The text names the field.
    """
    unknown = fields.keys() - {"room", "data", "kind", "keep", "ref"}
    if unknown:
        raise ValueError(f"it has the unknown field {min(unknown)!r}")
    if not fields.get("room"):
        raise ValueError("it has no room")
    if fields["room"].startswith(b"\0"):
        # The hubs' own commands have such rooms.
        raise ValueError("its room begins with NUL")
    if "data" not in fields:
        raise ValueError("it has no data")
    data = fields["data"]
    if len(data) > MAX_ENTRY:
        raise ValueError(f"its data has {len(data)} bytes; the limit is {MAX_ENTRY}")
    kind, keep = fields.get("kind", b"text"), fields.get("keep", b"1")
    if kind not in (b"text", b"binary") or keep not in (b"0", b"1"):
        raise ValueError("kind must be text or binary, and keep 0 or 1")
    try:
        room, ref = fields["room"].decode(), fields.get("ref", b"").decode()
        message = data.decode() if kind == b"text" else data
    except UnicodeDecodeError:
        raise ValueError("its room, ref or text is not UTF-8") from None
    return InboxEntry(room, message, keep == b"1", ref or f"\0inbox {entry_id}")
