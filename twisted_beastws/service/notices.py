"""`Notices`: announces joins and leaves to a chat's rooms, many in one notice if they come at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_beastws.hub import Hub, PublishError
from twisted_beastws.service.subprotocol import event

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime
    from twisted.python.failure import Failure

    from twisted_beastws.protocol import WebSocketProtocol

INTERVAL = 1.0
"""Seconds for which a room's changes are gathered."""

AT_ONCE = 1000
"""Notices that the members of a room get in an interval, all together, before its changes are gathered.

A room of 10 announces 100 changes a second one by one, a room of 500 two, and any room the first one.
"""

MAX_NAMES = 100
"""Names in one notice: with 32 characters each, at most 13 KiB."""


class Changes:
    """A room's changes in this interval.

    Attributes:
        sent: notices that its members got.
        came: joins that no notice has yet.
        went: leaves that no notice has yet.
    """

    __slots__ = ("came", "sent", "went")

    def __init__(self) -> None:
        self.sent = 0
        self.came: dict[WebSocketProtocol, str] = {}
        self.went: dict[WebSocketProtocol, str] = {}


class Notices:
    """The join and leave events of a hub's rooms.

    A notice goes to each member, so 500 members that come at once would cause 250,000. Beyond `AT_ONCE` a room's
    changes are gathered for `INTERVAL`, and one notice has all of them.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._changes: dict[str, Changes] = {}

    def came(self, member: WebSocketProtocol, room: str, name: str, clock: IReactorTime) -> None:
        """A member with a name entered a room."""
        changes = self._changes_of(room)
        if self._is_gathering(room, changes):
            changes.came[member] = name
        else:
            self._tell(room, clock, "join", {member: name})

    def went(self, member: WebSocketProtocol, room: str, name: str, clock: IReactorTime) -> None:
        """A member left. If its join was not announced yet, its leave is not announced either."""
        changes = self._changes_of(room)
        if changes.came.pop(member, None) is not None:
            return
        if self._is_gathering(room, changes):
            changes.went[member] = name
        else:
            self._tell(room, clock, "leave", {member: name})

    def _changes_of(self, room: str) -> Changes:
        return self._changes.setdefault(room, Changes())

    def _is_gathering(self, room: str, changes: Changes) -> bool:
        if changes.came or changes.went:
            # Changes are announced in their order.
            return True
        return changes.sent > 0 and changes.sent + len(self._hub.members(room)) > AT_ONCE

    def _tell(self, room: str, clock: IReactorTime, kind: str, members: dict[WebSocketProtocol, str]) -> None:
        changes = self._changes_of(room)
        begins = not changes.sent
        changes.sent += max(1, len(self._hub.members(room)))
        alone = next(iter(members)) if len(members) == 1 else None
        told = self._hub.publish(room, _notice(kind, list(members.values())), exclude=alone, keep=False)
        told.addErrback(_only_here)
        if begins:
            # In a room that takes long for it, the interval begins when all members have it.
            told.addCallback(lambda _: clock.callLater(INTERVAL, self._interval_ended, room, clock))

    def _interval_ended(self, room: str, clock: IReactorTime) -> None:
        changes = self._changes.pop(room)
        # Leaves go first: a user that came back on another connection is present in the end.
        if changes.went:
            self._tell(room, clock, "leave", changes.went)
        if changes.came:
            self._tell(room, clock, "join", changes.came)


def _notice(kind: str, names: list[str]) -> str:
    if len(names) == 1:
        return event(kind, name=names[0])
    return event(kind, name=names[0], names=names[:MAX_NAMES], count=len(names))


def _only_here(failure: Failure) -> None:
    """While the backplane is away, the members here have the notice all the same."""
    failure.trap(PublishError)
