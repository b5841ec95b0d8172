"""The interfaces between a backplane and its link to Redis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from twisted.internet.defer import Deferred

from twisted_beastws.hub.linked_answers import Page, Part, Standing, Swept, Taken, Verified
from twisted_beastws.hub.linked_errors import Refused, Trouble

GRACE = 30
"""Seconds after a change of the server in which the hubs have to confirm the dataset: the time of a lease, and twice
the longest wait of a hub between two attempts to connect."""


class LinkCommands(Protocol):
    """Both connections to a Redis, one for commands and one for messages, and their reconnection.

    Its commands are for while it is linked; a command fails with `Refused`, or `LinkLost` when a connection is lost.
    ``known`` is the latest id that the caller knows, a space, and the epoch that it knows.
    """

    def start(self) -> None: ...
    def stop(self) -> Deferred[None]: ...
    def restart(self, why: Exception) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def position(self, known: str, standing: Standing) -> Deferred[Verified]: ...
    def subscribe(self, rooms: Sequence[str | None]) -> Deferred[None]: ...
    def unsubscribe(self, rooms: Sequence[str]) -> None: ...
    def publish(
        self, known: str, room: str | None, payload: bytes, keep: int, ref: str, waiting: bool
    ) -> Deferred[Taken]: ...
    def read(self, known: str, room: str, after: str, count: int, size: int) -> Deferred[Part]: ...
    def sweep(self, known: str, rooms: Sequence[tuple[str, str]]) -> Deferred[Swept]: ...
    def enter(self, room: str, names: dict[str, str]) -> Deferred[object]: ...
    def exit(self, room: str, member: str) -> Deferred[object]: ...
    def announce(self, room: str) -> Deferred[object]: ...
    def renew(self) -> Deferred[object]: ...
    def forget(self) -> None: ...
    def inbox(self) -> Deferred[list[tuple[str, dict[str, bytes]]]]: ...
    def remove(self, entry: str) -> Deferred[object]: ...
    def roster(self, room: str, cursor: int, count: int) -> Deferred[Page]: ...


class LinkUser(Protocol):
    """The reports of a `LinkCommands`."""

    def linked(self) -> Deferred[None]:
        """Both connections are open. Fires when the hub can work with them; if it fails, the link reconnects."""

    def lost(self, why: BaseException) -> None:
        """Both connections are gone, or could not be opened. The link tries again, unless it gave up."""

    def gave_up(self, why: Refused) -> None:
        """The link does not try again: this server can never serve the hub."""

    def received(self, room: str | None, message_id: str, previous: str, epoch: str, payload: bytes) -> None:
        """A message or a notice was published."""

    def verify(self) -> Deferred[Verified]:
        """Ask for the dataset's place, as part of a sign of life."""

    def occupied(self) -> list[str]:
        """Return the rooms that have members with a name here."""

    def beat(self, trouble: Trouble | None, verified: Verified | None, lease_expired: bool) -> None:
        """Redis accepted a sign of life, or refused it."""
