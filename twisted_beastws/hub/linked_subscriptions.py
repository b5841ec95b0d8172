"""`Subscriptions`: the rooms that have members on this hub, and their readers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed

from twisted_beastws.hub.linked_interfaces import LinkCommands
from twisted_beastws.hub.linked_place import KnownPlace
from twisted_beastws.hub.linked_recovery import Recovery
from twisted_beastws.hub.linked_rooms import RoomReader

JOIN_PATIENCE = 10.0
"""Seconds that a join waits for the first connection to Redis; twice `redis_link.CONNECT_TIMEOUT`."""


class SubscribedBackplane(Protocol):
    """The `RedisBackplane`, as its subscriptions see it."""

    @property
    def reactor(self) -> Any: ...

    @property
    def is_linked(self) -> bool: ...

    @property
    def link(self) -> LinkCommands: ...


class Subscriptions:
    """Subscribes to rooms, and passes on the loss and the return of the link to their readers.

    Args:
        backplane: the backplane.
        recovery: subscribes to a room on the link.
        place: the latest id that the hub knows.
        new_reader: makes the reader of a room; None is the channel to everybody.

    Attributes:
        readers: the reader of each room.
        everyone: the reader of the channel to everybody.
    """

    def __init__(
        self,
        backplane: SubscribedBackplane,
        recovery: Recovery,
        place: KnownPlace,
        new_reader: Callable[[str | None], RoomReader],
    ) -> None:
        self.readers: dict[str | None, RoomReader] = {}
        self.everyone = new_reader(None)
        self._backplane = backplane
        self._recovery = recovery
        self._place = place
        self._new_reader = new_reader

    def of(self, room: str | None) -> RoomReader | None:
        """Return the reader of a room; None if this hub has no members in it."""
        return self.everyone if room is None else self.readers.get(room)

    def subscribe(self, room: str) -> Deferred[None]:
        """Subscribe to a room; fires when that is done, or has to wait for the return of Redis."""
        reader = self.readers.get(room)
        if reader is None:
            reader = self.readers[room] = self._new_reader(room)
            self._begin(reader)
        reader.member_joined()
        if reader.waiting is None:
            return succeed(None)
        waiter = reader.wait()
        if not self._backplane.is_linked:
            self._bound(waiter, reader)
        return waiter

    def _begin(self, reader: RoomReader) -> None:
        if self._backplane.is_linked:
            reader.waiting = ()
            self._recovery.subscribe(reader)
        elif self._place.epoch:
            # The history brings the messages that other hubs publish until Redis returns.
            reader.last, reader.epoch = self._place.order, self._place.epoch
        else:
            reader.waiting = ()

    def _bound(self, waiter: Deferred[None], reader: RoomReader) -> None:
        def give_up() -> None:
            if not waiter.called:
                reader.doubtful = True
                waiter.callback(None)

        timer = self._backplane.reactor.callLater(JOIN_PATIENCE, give_up)
        waiter.addCallback(lambda _: timer.cancel() if timer.active() else None)

    def unsubscribe(self, room: str) -> None:
        """End the subscription to a room."""
        self.readers.pop(room).subscribed()
        if self._backplane.is_linked:
            self._backplane.link.unsubscribe([room])

    def linked(self, sure: bool) -> None:
        """Wait for the subscriptions on a new link. sure: the dataset is the one that the hub knows."""
        for reader in self.readers.values():
            if reader.waiting is None:
                reader.waiting = ()
            if not sure:
                reader.doubt()

    def lost(self) -> None:
        """Note the loss of the link: each reader goes on from its place when Redis returns."""
        for reader in [self.everyone, *self.readers.values()]:
            reader.lost()
            if reader.last is None and reader.room is not None:
                reader.last, reader.epoch = self._place.order, self._place.epoch
            if reader.waiting is not None:
                reader.subscribed()

    def stop(self) -> None:
        """Let no join wait any longer."""
        for reader in list(self.readers.values()):
            reader.subscribed()

    def occupied(self) -> list[str]:
        """Return the rooms that have members with a name."""
        return [room for room, reader in self.readers.items() if room is not None and reader.names]
