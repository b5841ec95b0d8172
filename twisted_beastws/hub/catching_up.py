"""From what a reader saw last to what is published now, with nothing twice and nothing out of order."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from twisted_beastws.hub.backplane import History, Message, order_of

MAX_HELD = 256
"""Messages that wait for the history to be read; beyond them it is read on until it has them."""


class CatchUp:
    """Reads a room's history from a message on, while what is published meanwhile is held.

    after: the id of the last message that was given. fetch: gives the history behind an id. give: takes a message.
    pace: fires when more may be given; a failure ends it.
    done: what is published now needs not come here any more.
    """

    __slots__ = ("_after", "_fetch", "_give", "_held", "_overflowed", "_pace", "_running", "_stopped", "done")

    def __init__(
        self,
        after: str,
        fetch: Callable[[str], Deferred[History]],
        give: Callable[[Message], None],
        pace: Callable[[], Deferred[None]],
    ) -> None:
        self._after = order_of(after)
        self._fetch = fetch
        self._give = give
        self._pace = pace
        self._held: list[Message] = []
        self._running = True
        self._stopped = False
        self._overflowed = False
        self.done = False

    def offer(self, message: Message) -> None:
        """A message is published: give it behind those of the history, unless it is one of them."""
        if self._running:
            self._hold(message)
        elif not self._stopped:
            # The subscription may be behind the history for some time.
            if message.id is not None:
                if order_of(message.id) <= self._after:
                    return
                self.done = True
            self._give(message)

    def stop(self) -> None:
        """Give nothing more."""
        self._stopped = True

    async def run(self) -> bool:
        """Give the history; returns whether it had all that was asked for. Anything that fails ends it early."""
        try:
            complete = await self._read(await self._next())
        except Exception:
            complete = False
        self._running = False
        held, self._held = self._held, []
        for message in held:
            self.offer(message)
        return complete

    async def _read(self, found: History) -> bool:
        complete = found.complete
        while not self._stopped:
            for message in found.messages:
                self._give(message)
                self._after = order_of(message.id or "")
            if not found.more and not self._overflowed:
                break
            await self._pace()
            found = await self._next()
        return complete

    def _next(self) -> Deferred[History]:
        self._overflowed = False
        return self._fetch("{}-{}".format(*self._after))

    def _hold(self, message: Message) -> None:
        if len(self._held) == MAX_HELD:
            # Those with an id are in the history, which is to be read again; the others are lost on a slow reader.
            self._held = [held for held in self._held if held.id is None][-MAX_HELD // 2 :]
            self._overflowed = True
        self._held.append(message)
