"""Presence: events when users join and leave a room, on any hub.

A watched room has a list of its users. When a member joins or leaves, here or on another hub, and at each sign of
life of the backplane, the room is listed again, and the differences are the events. So a user with two connections
joins once and leaves once, and the users of a hub that was killed leave when its lease has expired.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_beastws.hub.backplane import Backplane, BackplaneState, UsersHere

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

INTERVAL = 1.0
"""The least seconds between two listings of a watched room."""

MAX_DATA = 1024
"""The most bytes of a member's data as JSON: 1 KiB. Centrifugo's examples have less than 100."""


class PresenceEvent(NamedTuple):
    """A user joined or left a room.

    Attributes:
        room: the room.
        name: the user's name.
        data: the user's data, as given to `Hub.join`; None without any.
        joined: True for a join, False for a leave.
    """

    room: str
    name: str
    data: Any
    joined: bool


class PresenceWatch:
    """A subscription to the presence of a room: `Hub.watch` returns it.

    Attributes:
        room: the room.
    """

    def __init__(self, watched: WatchedRoom, callback: Callable[[PresenceEvent], object]) -> None:
        self.room = watched.room
        self._watched = watched
        self._callback = callback

    @property
    def people(self) -> dict[str, Any]:
        """The users that joined and have not left, according to the events, and their data."""
        return {name: read_data(data) for name, data in self._watched.people.items()}

    def notify(self, event: PresenceEvent) -> None:
        """Call the application."""
        try:
            self._callback(event)
        except Exception:
            self._watched.log.failure("a presence callback failed in the room {room!r}", room=self.room)

    def stop(self) -> None:
        """End the events. A second call does nothing."""
        self._watched.remove(self)


class WatchedRoom:
    """A room with at least one watch.

    Args:
        room: the room.
        backplane: lists the users.
        reactor: returns the reactor.
        ended: called when the last watch has stopped.

    Attributes:
        people: the users that joined and have not left, and their data as JSON.
    """

    log = Logger()

    def __init__(
        self, room: str, backplane: Backplane, reactor: Callable[[], IReactorTime], ended: Callable[[str], None]
    ) -> None:
        self.room = room
        self.people: dict[str, str] = {}
        self._backplane = backplane
        self._reactor = reactor
        self._ended = ended
        self._watches: list[PresenceWatch] = []
        self._listing = False
        self._changed = False
        self._pause: IDelayedCall | None = None

    def add(self, callback: Callable[[PresenceEvent], object]) -> PresenceWatch:
        """Start a watch; the users that are there already join it now."""
        watch = PresenceWatch(self, callback)
        self._watches.append(watch)
        for name, data in list(self.people.items()):
            watch.notify(self._event(name, data, True))
        return watch

    def remove(self, watch: PresenceWatch) -> None:
        """Stop a watch."""
        if watch not in self._watches:
            return
        self._watches.remove(watch)
        if not self._watches:
            if self._pause is not None:
                self._pause.cancel()
                self._pause = None
            self._ended(self.room)

    def changed(self) -> None:
        """List the users again, now or at the end of the interval."""
        if self._listing or self._pause is not None:
            self._changed = True
            return
        # While the backplane is away, it lists only the members of this hub.
        if self._watches and self._backplane.state is BackplaneState.CONNECTED:
            self._listing = True
            self._backplane.who(self.room).addCallbacks(self._listed, self._failed)

    def _failed(self, failure: Failure) -> None:
        self._listing = False
        self.log.failure("the users of the room {room!r} could not be listed", failure, room=self.room)

    def _listed(self, people: dict[str, str]) -> None:
        self._listing = False
        if not self._watches:
            return
        self._pause = self._reactor().callLater(INTERVAL, self._paused)
        if self._backplane.state is not BackplaneState.CONNECTED:
            return
        known = self.people
        if isinstance(people, UsersHere) or not getattr(self._backplane, "settled", True):
            # Other hubs still have their members, also if they have not returned yet.
            people = {**known, **people}
        self.people = people
        events = [self._event(name, known[name], False) for name in known.keys() - people.keys()]
        events += [self._event(name, people[name], True) for name in people.keys() - known.keys()]
        for event in events:
            for watch in list(self._watches):
                watch.notify(event)

    def _event(self, name: str, data: str, joined: bool) -> PresenceEvent:
        return PresenceEvent(self.room, name, read_data(data), joined)

    def _paused(self) -> None:
        self._pause = None
        if self._changed:
            self._changed = False
            self.changed()


class Presence:
    """The watched rooms of a hub.

    Args:
        backplane: lists the users, and calls `changed`.
        reactor: returns the reactor.
        ended: called when the last watch of a room has stopped.
    """

    def __init__(self, backplane: Backplane, reactor: Callable[[], IReactorTime], ended: Callable[[str], None]) -> None:
        self._backplane = backplane
        self._reactor = reactor
        self._ended = ended
        self._rooms: dict[str, WatchedRoom] = {}
        if hasattr(backplane, "presence_changed"):
            backplane.presence_changed = self.changed

    def watches(self, room: str) -> bool:
        """Return whether a room is watched."""
        return room in self._rooms

    def watch(self, room: str, callback: Callable[[PresenceEvent], object]) -> PresenceWatch:
        """Start a watch of a room that is subscribed to."""
        watched = self._rooms.get(room)
        if watched is None:
            watched = self._rooms[room] = WatchedRoom(room, self._backplane, self._reactor, self._remove)
        watch = watched.add(callback)
        watched.changed()
        return watch

    def changed(self, room: str | None) -> None:
        """Members joined or left a room, or perhaps any room."""
        if room is not None:
            watched = self._rooms.get(room)
            if watched is not None:
                watched.changed()
            return
        for watched in list(self._rooms.values()):
            watched.changed()

    def _remove(self, room: str) -> None:
        del self._rooms[room]
        self._ended(room)


def data_text(data: object, name: str | None) -> str:
    """Return a member's data as JSON, empty for None.

    Raises:
        TypeError: JSON cannot express the data, or it has no name.
        ValueError: the data is longer than `MAX_DATA`.
    """
    if data is None:
        return ""
    if name is None:
        raise TypeError("join(data=...): give a name, too")
    try:
        text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(f"join(data=...): JSON cannot express it: {error}") from None
    if len(text) > MAX_DATA:
        raise ValueError(f"join(data=...): it has {len(text)} bytes as JSON; the limit is {MAX_DATA}")
    return text


def read_data(text: str) -> Any:
    """Return the data of a member from its JSON; None without data, or with text that is not JSON."""
    try:
        return json.loads(text) if text else None
    except ValueError:
        return None


def decoded(listing: Deferred[dict[str, str]]) -> Deferred[dict[str, Any]]:
    """Return a listing with the data of each user."""
    return listing.addCallback(lambda people: {name: read_data(data) for name, data in people.items()})
