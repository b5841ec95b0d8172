"""The data of a simulated Redis: the scripts of `redis_scripts` as Python."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from twisted_beastws.hub.backplane import order_of
from twisted_beastws.hub.linked_answers import Order, Part, Place, Standing, Swept, Taken
from twisted_beastws.hub.linked_interfaces import GRACE
from twisted_beastws.hub.redis_scripts import ENTRY_COST, ROOM_COST


def id_of(order: Order) -> str:
    return "{}-{}".format(*order)


class Dataset:
    """What Redis keeps, and the steps that the scripts take on it."""

    def __init__(self, max_ids: int) -> None:
        self.epoch = ""
        self.latest: Order = (0, 0)
        self.started: Order = (0, 0)
        self.floor: Order = (0, 0)
        self.size = 0
        self.left: list[str] = []
        self.first = False
        self.ids: deque[str] = deque(maxlen=max_ids)
        self.streams: dict[str, list[tuple[str, bytes, str]]] = {}
        self.records: dict[str, tuple[str, int]] = {}
        self.ages: dict[str, int] = {}
        self.refs: dict[str, str] = {}
        self.server = ""
        self.hubs: dict[str, tuple[int, str]] = {}
        self.witnesses: set[str] = set()
        self.unsure: int | None = None

    def begin(
        self, known: str, name: str, now: int, server: str, write: Callable[[], None], force: bool = False
    ) -> None:
        known_id, _, known_epoch = known.partition(" ")
        foreign = self.first and known_epoch not in ("", self.epoch)
        if self.epoch and self.latest >= order_of(known_id) and not foreign and not force:
            return
        write()
        self.first = not self.epoch and known == "0-0 "
        latest = max(self.latest, order_of(known_id))
        if now > latest[0]:
            latest = (now, 0)
        self.left += [each for each in (self.epoch, known_epoch) if each and each not in self.left]
        self.epoch, self.latest, self.started, self.floor = name, latest, latest, latest
        self.unsure, self.server = None, server
        self.ids.clear()
        self.ids.append(id_of(latest))

    def verify(
        self, known: str, hub: str, standing: Standing, now: int, server: str, begin: Callable[[], None], before: str
    ) -> bool:
        """Do as the first half of POSITION; return whether the dataset is certainly the one that the hub knows.

        before: the epoch before this call.
        """
        known_id, _, known_epoch = known.partition(" ")
        sure, epoch = True, self.epoch
        if known_epoch not in ("", self.epoch):
            if known_epoch not in self.left:
                begin()
        elif known_epoch and known_id not in self.ids:
            if self.ids[0] != id_of(self.started) and order_of(known_id) < order_of(self.ids[0]):
                sure = False
            else:
                begin()
        previous, self.server = self.server, server
        if previous not in ("", server) and epoch == before and self.epoch == epoch:
            self.witnesses = {*self.hubs, *(self.witnesses if self.unsure is not None else ())}
            self.unsure = now
            if not self.hubs:
                begin()
        if self.unsure is not None and standing.vouched == f"0 {server}" and hub in self.witnesses:
            begin()
        if self.unsure is not None:
            if sure and standing.vouched == f"1 {server}":
                self.witnesses.discard(hub)
            if not self.witnesses:
                self.unsure = None
            elif abs(now - self.unsure) > GRACE * 1000:
                begin()
        return sure

    def confirm(
        self, known: str, hub: str, standing: Standing, now: int, salt: int, inform: Callable[[str], None]
    ) -> tuple[str, bool]:
        """Do as the second half of POSITION: confirm other hubs, and register this one.

        Returns:
            The id of its registration while it may not acknowledge messages, and whether another hub is unconfirmed.
        """
        known_id, _, known_epoch = known.partition(" ")
        hubs = dict(self.hubs)
        if hub in hubs and hubs[hub][1] == standing.waited != "":
            self._establish(hub, inform)
        established = hub in hubs and not self.hubs[hub][1]
        unconfirmed = False
        for other, (seen, awaits) in hubs.items():
            if other == hub or not established:
                continue
            if abs(now - seen) > GRACE * 1000:
                del self.hubs[other]
            elif awaits:
                if known_epoch == self.epoch and order_of(known_id) >= order_of(awaits):
                    self._establish(other, inform)
                else:
                    unconfirmed = True
        waits = standing.waiting or bool(hubs.keys() - {hub})
        return self.register(hub, now, salt, waits, inform), unconfirmed

    def _establish(self, hub: str, inform: Callable[[str], None]) -> None:
        seen, awaits = self.hubs[hub]
        self.hubs[hub] = seen, ""
        inform(awaits)

    def register(self, hub: str, now: int, salt: int, waits: bool, inform: Callable[[str], None]) -> str:
        """List a hub; return the id of its registration while it may not acknowledge messages."""
        if hub in self.hubs:
            self.hubs[hub] = now, self.hubs[hub][1]
            return self.hubs[hub][1]
        self._next_id(now, salt)
        given = id_of(self.latest)
        self.ids.append(given)
        self.hubs[hub] = now, given if waits else ""
        inform(given)
        return self.hubs[hub][1]

    def _next_id(self, now: int, salt: int) -> None:
        self.latest = (now, salt) if now > self.latest[0] else (self.latest[0], self.latest[1] + 1 + salt)

    @property
    def place(self) -> Place:
        return Place(self.epoch, id_of(self.latest))

    def publish(
        self,
        room: str,
        payload: bytes,
        keep: int,
        ref: str,
        now: int,
        salt: int,
        budgets: tuple[int, int],
        awaits: str,
    ) -> tuple[Taken, str]:
        """The answer, and the id of the message before, for a message that is to be published."""
        if ref in self.refs:
            return Taken(self.place, self.refs[ref], True, awaits), ""
        message_id, previous = "", "0-0"
        if keep:
            message_id, previous = self._keep(room, payload, keep, now, salt, budgets)
        if ref:
            self.refs[ref] = message_id
        return Taken(self.place, message_id, False, awaits), previous

    def _keep(
        self, room: str, payload: bytes, keep: int, now: int, salt: int, budgets: tuple[int, int]
    ) -> tuple[str, str]:
        stream = self.streams.get(room, [])
        record = self.records.get(room)
        if record is not None:
            previous, bytes_kept = record
        else:
            previous, bytes_kept = (stream[-1][0] if stream else id_of(self.floor)), 0
        before = bytes_kept + ROOM_COST if record is not None else 0
        self._next_id(now, salt)
        if order_of(previous) >= self.latest:
            ms, seq = order_of(previous)
            self.latest = (ms, seq + 1 + salt)
        self.ids.append(id_of(self.latest))
        if not stream:
            bytes_kept = 0
        stream.append((id_of(self.latest), payload, previous))
        bytes_kept += len(payload) + ENTRY_COST
        while stream and (len(stream) > keep or bytes_kept > budgets[0]):
            bytes_kept = max(0, bytes_kept - len(stream.pop(0)[1]) - ENTRY_COST)
        if not stream:
            bytes_kept = 0
        self.streams[room] = stream
        self.records[room] = (id_of(self.latest), bytes_kept)
        self.ages[room] = self.latest[0]
        self.size += bytes_kept + ROOM_COST - before
        while self.size > budgets[1]:
            others = [other for other in self.ages if other != room]
            if not others:
                break
            quiet = min(others, key=lambda other: (self.ages[other], other.encode()))
            last, held = self.records.pop(quiet)
            self.streams.pop(quiet, None)
            del self.ages[quiet]
            self.size = max(0, self.size - held - ROOM_COST)
            self.floor = max(self.floor, order_of(last))
        return id_of(self.latest), previous

    def read(self, room: str, after: str, count: int, size: int) -> Part:
        stream = self.streams.get(room, [])
        record = self.records.get(room)
        found = [entry for entry in stream if order_of(entry[0]) > order_of(after)][:count]
        previous = found[0][2] if found else record[0] if record else id_of(self.floor)
        whole = order_of(previous) <= order_of(after)
        exact = whole and (previous == after or any(entry[0] == after for entry in stream))
        exact = exact and order_of(after) > self.started
        if order_of(after) == (0, 0):
            exact = self.first and previous == id_of(self.started)
        exact = exact and self.unsure is None
        part: list[tuple[str, bytes]] = []
        more, taken = len(found) == count, 0
        for message_id, payload, _ in found:
            taken += len(payload)
            if part and taken > size:
                more = True
                break
            part.append((message_id, payload))
        return Part(self.place, id_of(self.started), whole, exact, more, part)

    def sweep(self, rooms: Sequence[tuple[str, str]]) -> Swept:
        behind = []
        for index, (room, after) in enumerate(rooms):
            record = self.records.get(room)
            if order_of(after) < (order_of(record[0]) if record else self.floor):
                behind.append(index)
        return Swept(self.place, behind)

    def evict(self, room: str) -> None:
        """What ``volatile-lru`` does."""
        self.streams.pop(room, None)
