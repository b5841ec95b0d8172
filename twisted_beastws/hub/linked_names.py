"""The users of a room: `Names` lists them in Redis, and answers callers that ask often."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from twisted_beastws.hub.linked_answers import Page
from twisted_beastws.hub.linked_messages import listing_of
from twisted_beastws.hub.linked_recovery import STEP, RecoveredBackplane, Recovery

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

MAX_NAMES = 1000
"""Names in one answer to `roster`."""

MAX_PEOPLE = 10_000
"""Members that one answer to `who`, and a watched room, covers: 50 steps in Redis."""

FRESH = 1.0
"""Seconds for which further callers get the same answer about a large room."""

ANNOUNCE_DELAY = 0.25
"""Seconds for which joins and leaves are gathered before the other hubs are informed."""


class Names:
    """Lists members with a name. It asks Redis about a large room at most once a second."""

    def __init__(self, backplane: RecoveredBackplane, recovery: Recovery) -> None:
        self._backplane = backplane
        self._recovery = recovery
        self._pages: dict[str, tuple[float, Deferred[Any]]] = {}
        self._changed: set[str] = set()
        self._announcing: IDelayedCall | None = None

    def enter(self, room: str, member: str, name: str, data: str) -> None:
        """List a member of this hub."""
        listing = self._backplane.readers[room].names[member] = listing_of(name, data)
        if self._backplane.is_linked:
            self._backplane.link.enter(room, {member: listing}).addErrback(self._recovery.not_listed)
        self._has_changed(room)

    def exit(self, room: str, member: str) -> None:
        """List a member of this hub no longer."""
        del self._backplane.readers[room].names[member]
        if self._backplane.is_linked:
            self._backplane.link.exit(room, member).addErrback(self._recovery.not_listed)
        self._has_changed(room)

    def _has_changed(self, room: str) -> None:
        self._backplane.presence_changed(room)
        if not self._backplane.is_linked:
            return
        self._changed.add(room)
        if self._announcing is None:
            self._announcing = self._backplane.reactor.callLater(ANNOUNCE_DELAY, self._announce)

    def _announce(self) -> None:
        changed, self._changed, self._announcing = self._changed, set(), None
        if self._backplane.is_linked:
            for room in changed:
                # If this fails, the other hubs notice the change at their next sign of life.
                self._backplane.link.announce(room).addErrback(lambda _: None)

    def stop(self) -> None:
        """Announce no more."""
        if self._announcing is not None:
            self._announcing.cancel()
            self._announcing = None

    def people(self, room: str) -> Deferred[Page]:
        """Fire with listings of a room's members, `MAX_PEOPLE` at most; without Redis, of this hub's members."""
        if not self._backplane.is_linked:
            return succeed(self._here(room, MAX_PEOPLE))
        listing = Deferred.fromCoroutine(self._recovery.list_names(room, MAX_PEOPLE))
        return listing.addErrback(lambda _: self._here(room, MAX_PEOPLE))

    def page(self, room: str) -> Deferred[Page]:
        """Fire with `MAX_NAMES` listings of a room's members, of a large room as of at most a second ago."""
        if not self._backplane.is_linked:
            self._pages.clear()
            return succeed(self._here(room, MAX_NAMES))
        now = self._backplane.reactor.seconds()
        for other, (until, _) in list(self._pages.items()):
            if until <= now:
                del self._pages[other]
        if room in self._pages:
            return _shared(self._pages[room][1])
        answer = Deferred.fromCoroutine(self._recovery.list_names(room, MAX_NAMES))
        self._pages[room] = (now + FRESH, answer)
        answer.addBoth(self._answered, room)
        return _shared(answer)

    def _here(self, room: str, most: int) -> Page:
        reader = self._backplane.readers.get(room)
        names = [] if reader is None else list(reader.names.values())
        return Page(0, len(names), names[:most], here=True)

    def _answered(self, page: Page | Failure, room: str) -> Page:
        # A short list is asked for each time: it is as fresh as it is cheap.
        if isinstance(page, Failure) or page.total <= STEP:
            self._pages.pop(room, None)
        return self._here(room, MAX_NAMES) if isinstance(page, Failure) else page


def _shared(answer: Deferred[Any]) -> Deferred[Any]:
    """Return a Deferred that fires as ``answer`` does, for one of its callers."""
    share: Deferred[Any] = Deferred()

    def fire(result: Any) -> Any:
        share.callback(result)
        return result

    answer.addCallback(fire)
    return share
