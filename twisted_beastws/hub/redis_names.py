"""Names of a room's members, for callers that ask often."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from twisted_beastws.hub.redis_recovery import STEP, RecoveredBackplane, Recovery
from twisted_beastws.hub.redis_scripts import Page

MAX_NAMES = 1000
"""Names in one answer."""

FRESH = 1.0
"""Seconds for which an answer about a large room is given to further callers."""


class Names:
    """Asks Redis for names, about a large room at most once a second."""

    def __init__(self, backplane: RecoveredBackplane, recovery: Recovery) -> None:
        self._backplane = backplane
        self._recovery = recovery
        self._pages: dict[str, tuple[float, Deferred[Any]]] = {}

    def page(self, room: str) -> Deferred[Page]:
        """Fire with names of the room's members, and how many members have a name; without Redis, of those here."""
        reader = self._backplane.readers.get(room)
        names = [] if reader is None else list(reader.names.values())
        here = Page(0, len(names), names[:MAX_NAMES])
        if not self._backplane.is_linked:
            self._pages.clear()
            return succeed(here)
        now = self._backplane.reactor.seconds()
        for other, (until, _) in list(self._pages.items()):
            if until <= now:
                del self._pages[other]
        if room in self._pages:
            return _shared(self._pages[room][1])
        answer = Deferred.fromCoroutine(self._recovery.list_names(room, MAX_NAMES))
        self._pages[room] = (now + FRESH, answer)
        answer.addBoth(self._has_come, room, here)
        return _shared(answer)

    def _has_come(self, page: Page | Failure, room: str, here: Page) -> Page:
        # A short list is asked for each time: it is as fresh as it is cheap.
        if isinstance(page, Failure) or page.total <= STEP:
            self._pages.pop(room, None)
        return here if isinstance(page, Failure) else page


def _shared(answer: Deferred[Any]) -> Deferred[Any]:
    """A Deferred that fires as ``answer`` does, for one of its callers."""
    share: Deferred[Any] = Deferred()

    def fire(result: Any) -> Any:
        share.callback(result)
        return result

    answer.addCallback(fire)
    return share
