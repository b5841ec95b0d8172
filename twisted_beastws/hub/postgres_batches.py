"""`PublishBatches`: publishes all messages that wait in one transaction, because each one waits for the disk once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twisted_beastws.hub.linked_answers import Place, Taken
from twisted_beastws.hub.linked_errors import LinkLost
from twisted_beastws.hub.postgres_connection import Row

MAX_MESSAGES = 128
"""Messages in one transaction: some ten milliseconds, for which other hubs wait."""

MAX_BYTES = 1 << 20
"""Bytes in one transaction, unless one message alone has more: 1 MiB."""


class BatchedMessage(NamedTuple):
    """A message that waits for its transaction.

    Attributes:
        room: None is all rooms.
        ref: empty without one.
        waiting: the hub may not acknowledge messages yet.
    """

    known: str
    room: bytes | None
    payload: bytes
    keep: int
    ref: str
    salt: int
    waiting: bool
    taken: Deferred[Taken]


class PublishBatches:
    """Publishes messages in order; while one transaction is under way, the next ones gather.

    Args:
        send: sends some publications in one transaction, and fires with a row for each.
    """

    def __init__(self, send: Callable[[Sequence[BatchedMessage]], Deferred[list[Row]]]) -> None:
        self._send = send
        self._waiting: deque[BatchedMessage] = deque()
        self._under_way = False

    def add(self, publication: BatchedMessage) -> Deferred[Taken]:
        """Publish a message; fires when its transaction is committed."""
        self._waiting.append(publication)
        if not self._under_way:
            self._next()
        return publication.taken

    def _next(self) -> None:
        batch: list[BatchedMessage] = []
        size = 0
        while self._waiting and len(batch) < MAX_MESSAGES:
            size += len(self._waiting[0].payload)
            if batch and size > MAX_BYTES:
                break
            batch.append(self._waiting.popleft())
        if batch:
            self._under_way = True
            self._send(batch).addCallbacks(self._taken, self._failed, (batch,), errbackArgs=(batch,))

    def _taken(self, rows: list[Row], batch: list[BatchedMessage]) -> None:
        self._under_way = False
        for row, publication in zip(rows, batch, strict=True):
            epoch, position, message_id, again, awaits = ((part or b"").decode("ascii", "replace") for part in row)
            publication.taken.callback(Taken(Place(epoch, position), message_id, again == "1", awaits))
        if not self._under_way:
            self._next()

    def _failed(self, failure: Failure, batch: list[BatchedMessage]) -> None:
        # A transaction that failed has published none of them. After a loss, the waiting ones fail, too.
        lost = list(self._waiting) if failure.check(LinkLost) else []
        if lost:
            self._waiting.clear()
        self._under_way = False
        for publication in [*batch, *lost]:
            publication.taken.errback(failure)
        if not self._under_way:
            self._next()
