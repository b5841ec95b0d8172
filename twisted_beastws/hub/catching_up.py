"""`CatchUp`: gives a member all messages since its last one, each once and in order."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from twisted_beastws.hub.backplane import History, Message, order_of

MAX_HELD = 256
"""Messages that are held while the history is read; beyond them, the history is read further."""


class CatchUp:
    """Reads a room's history from a message on, while messages that are published meanwhile are held.

    Args:
        after: the id of the last message that the reader has.
        fetch: returns the history after an id.
        give: takes a message for the reader.
        pace: fires when more may be given; a failure ends the catch-up.

    Attributes:
        done: The catch-up has ended: do not offer newly published messages to it any more.
        complete: No message is known to be missing.
    """

    __slots__ = (
        "_after",
        "_asked",
        "_fetch",
        "_give",
        "_held",
        "_overflowed",
        "_pace",
        "_running",
        "_stopped",
        "complete",
        "done",
    )

    def __init__(
        self,
        after: str,
        fetch: Callable[[str], Deferred[History]],
        give: Callable[[Message], None],
        pace: Callable[[], Deferred[None]],
    ) -> None:
        self._asked = after
        self._after = order_of(after)
        self._fetch = fetch
        self._give = give
        self._pace = pace
        self._held: list[Message] = []
        self._running = True
        self._stopped = False
        self._overflowed = False
        self.done = False
        self.complete = True

    def offer(self, message: Message) -> None:
        """Take a published message. The reader gets it after the history, unless the history contains it, too."""
        if self._running:
            if message.gap:
                # The result of `run` reports it.
                self.complete = False
            else:
                self._hold(message)
        elif not self._stopped:
            # For some time the subscription may still deliver messages that were in the history.
            if message.id is not None:
                if order_of(message.id) <= self._after or message.id == self._asked:
                    return
                self.done = True
            self._give(message)

    def stop(self) -> None:
        """Stop giving messages."""
        self._stopped = True

    async def run(self) -> bool:
        """Give the history.

        Returns:
            Whether the reader has every message after ``after``. False, too, if anything failed or more messages came
            meanwhile than could be held.
        """
        try:
            await self._read(await self._next())
        except Exception:
            self.complete = False
        self._running = False
        held, self._held = self._held, []
        for message in held:
            self.offer(message)
        return self.complete

    async def _read(self, found: History) -> None:
        while not self._stopped:
            # If the history is trimmed while a slow reader reads it, a later part can lack messages, too.
            self.complete = self.complete and found.complete
            for message in found.messages:
                self._give(message)
                self._after = order_of(message.id or "")
            if found.until is not None and order_of(found.until) < self._after:
                # The id is of another dataset, so do not use it to recognise old messages.
                self._after = order_of(found.until)
            if not found.more and not self._overflowed:
                break
            await self._pace()
            found = await self._next()

    def _next(self) -> Deferred[History]:
        self._overflowed = False
        return self._fetch("{}-{}".format(*self._after))

    def _hold(self, message: Message) -> None:
        if len(self._held) == MAX_HELD:
            # Held messages with an id are in the history, which is read again. Some of those without an id are lost.
            without_id = [held for held in self._held if held.id is None]
            self._held = without_id[-MAX_HELD // 2 :]
            self.complete = self.complete and len(self._held) == len(without_id)
            self._overflowed = True
        self._held.append(message)
