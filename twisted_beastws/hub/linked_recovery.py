"""`Recovery` after a return of Redis: it subscribes, sweeps, catches up and lists members, in bounded steps.

Each step is one command about some hundred rooms or members, and waits for its reply. So the reactor and Redis have
time for other work in between, however many rooms there are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from itertools import islice
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_beastws.hub.linked_answers import Page, Swept
from twisted_beastws.hub.linked_errors import LinkLost, NotReplicated, Refused, Remedy
from twisted_beastws.hub.linked_interfaces import LinkCommands
from twisted_beastws.hub.linked_rooms import RoomReader

Item = TypeVar("Item")

STEP = 200
"""Rooms in one SUBSCRIBE or sweep, and names in one HSET. Some milliseconds of work on either side."""

MAX_CATCH_UPS = 16
"""Rooms whose history is read at a time."""

RETRY = 1.0
"""Seconds until a command that Redis refused is tried again."""


class RecoveredBackplane(Protocol):
    """The `RedisBackplane`, as its parts see it."""

    @property
    def reactor(self) -> Any: ...

    @property
    def readers(self) -> dict[str | None, RoomReader]:
        """A reader for each room that has members here."""

    @property
    def links(self) -> int:
        """The number of links so far: a step of an earlier link must not go on."""

    @property
    def link(self) -> LinkCommands: ...

    @property
    def is_linked(self) -> bool: ...

    @property
    def history_length(self) -> int:
        """Messages of a room that Redis keeps."""

    @property
    def known(self) -> str: ...

    @property
    def presence_changed(self) -> Callable[[str | None], None]: ...

    def read(self, room: str, after: str) -> Deferred[Any]: ...

    def learned(self, answer: Any) -> Any: ...

    def paced(self) -> Deferred[None]: ...

    def decode(self, room: str | None, message_id: str | None, payload: bytes) -> Any: ...


class Recovery:
    """Brings the rooms of a `RedisBackplane` up to date."""

    log = Logger()

    def __init__(self, backplane: RecoveredBackplane) -> None:
        self._backplane = backplane
        self._behind: deque[RoomReader] = deque()
        self._reading = 0
        self._sweeping = False
        self._sweep_again = False
        self._listing = False
        self._unlisted = False
        self._scanned: dict[str, int] = {}

    # Calls of the backplane.

    def begin(self, readers: list[RoomReader]) -> None:
        """The link is there: subscribe to the rooms, and bring them up to date."""
        self._sweeping = True
        self._run(self._restore(readers, self._backplane.links))

    def stop(self) -> None:
        """The link is lost."""
        self._behind.clear()
        self._scanned.clear()
        self._reading = 0
        self._sweeping = self._sweep_again = self._listing = False

    def subscribe(self, reader: RoomReader) -> None:
        """Subscribe to one room: its first member has joined."""
        self._run(self._subscribe([reader], self._backplane.links))

    def sweep_again(self) -> None:
        """Sweep all rooms: the dataset is another one."""
        self._sweep_again = True
        if not self._sweeping:
            self._run(self._sweep_all(self._backplane.links))

    def catch_up(self, reader: RoomReader) -> None:
        """Read the history of a room that misses messages, in its turn."""
        self._behind.append(reader)
        self._read_next()

    def not_listed(self, failure: Failure) -> None:
        """A member could not be listed, or still is: list all again when Redis takes writes."""
        failure.trap(Refused, LinkLost, NotReplicated)
        self._unlisted = True

    def list_members(self, again: bool) -> Deferred[None]:
        """Redis takes writes: list the members here, if they are not. Fires when that is done."""
        self._unlisted = self._unlisted or again
        if not self._unlisted or self._listing:
            return succeed(None)
        self._listing = True
        return self._run(self._list_members(self._backplane.links))

    async def list_names(self, room: str, most: int) -> Page:
        """Read names until there are ``most``, or no more."""
        link, cursor = self._backplane.link, 0
        names: list[str] = []
        while True:
            page = await link.roster(room, cursor, STEP)
            names += page.names
            cursor = page.cursor
            if not cursor:
                self._scanned.pop(room, None)
                return Page(0, len(names), names[:most])
            if len(names) >= most:
                break
        # Also remove the members of dead hubs from the rest of the list, one page each time.
        further = await link.roster(room, self._scanned.get(room) or cursor, STEP)
        self._scanned[room] = further.cursor
        # That page may be empty, and have no total.
        return Page(cursor, max(page.total, further.total), names[:most])

    # Steps.

    def _run(self, steps: Coroutine[Any, Any, None]) -> Deferred[None]:
        return Deferred.fromCoroutine(steps).addErrback(self._ended)

    def _ended(self, failure: Failure) -> None:
        # The link reports its loss itself, and the recovery then begins again.
        if not failure.check(LinkLost):
            self.log.failure("the backplane could not be brought up to date", failure)

    def _is_current(self, link: int) -> bool:
        return self._backplane.is_linked and self._backplane.links == link

    def _present(self, readers: Sequence[RoomReader]) -> list[RoomReader]:
        rooms = self._backplane.readers
        return [reader for reader in readers if rooms.get(reader.room) is reader]

    async def _restore(self, readers: list[RoomReader], link: int) -> None:
        for step in _steps(readers):
            await self._subscribe(self._present(step), link, returned=True)
            if not self._is_current(link):
                return
        await self._sweep_all(link)

    async def _subscribe(self, readers: Sequence[RoomReader], link: int, *, returned: bool = False) -> None:
        if not readers:
            return
        try:
            await self._backplane.link.subscribe([reader.room for reader in readers])
        except Refused as refused:
            self._backplane.link.restart(refused)
            return
        if self._is_current(link):
            await self._sweep(readers, link, returned=returned)
        if self._is_current(link):
            for reader in self._present(readers):
                reader.subscribed()

    async def _sweep_all(self, link: int) -> None:
        self._sweeping = True
        while self._sweep_again:
            self._sweep_again = False
            for step in _steps(list(self._backplane.readers.values())):
                await self._sweep(step, link)
                if not self._is_current(link):
                    return
        self._sweeping = False

    async def _sweep(self, readers: Sequence[RoomReader], link: int, *, returned: bool = False) -> None:
        asked = [reader for reader in self._present(readers) if not reader.catching_up]
        rooms = [(str(reader.room), reader.place) for reader in asked]
        backplane = self._backplane
        swept: Swept | None = await self._retried(lambda: backplane.link.sweep(backplane.known, rooms), link)
        if swept is None:
            return
        backplane.learned(swept)
        behind = {rooms[index][0] for index in swept.behind}
        for reader in self._present(asked):
            if not reader.catching_up:
                self._judge(reader, swept, reader.room in behind, link, returned)

    def _judge(self, reader: RoomReader, swept: Swept, behind: bool, link: int, returned: bool) -> None:
        if reader.last is None or reader.doubtful:
            reader.begin_at(swept.place)
            return
        if behind and self._backplane.history_length:
            reader.fall_behind()
            return
        reader.enter_epoch(swept.place.epoch)
        if returned and not self._backplane.history_length:
            # Without a history, messages that were published meanwhile are lost.
            reader.report_gap()
        reader.swept(swept.place, link)

    def _read_next(self) -> None:
        while self._behind and self._reading < MAX_CATCH_UPS:
            reader = self._behind.popleft()
            if self._backplane.readers.get(reader.room) is reader:
                self._reading += 1
                self._run(self._read(reader, self._backplane.links))

    async def _read(self, reader: RoomReader, link: int) -> None:
        backplane, room = self._backplane, str(reader.room)
        while True:
            part = await self._retried(lambda: backplane.read(room, reader.begin_read()), link)
            if part is None:
                return
            if backplane.readers.get(reader.room) is not reader or not reader.read(part, backplane.decode):
                break
            await backplane.paced()
            if not self._is_current(link):
                return
        self._reading -= 1
        if backplane.readers.get(reader.room) is reader:
            reader.caught_up(link)
        self._read_next()

    async def _retried(self, command: Callable[[], Awaitable[Item]], link: int) -> Item | None:
        """Return the answer of Redis; None when the link is another one."""
        while self._is_current(link):
            try:
                answer = await command()
                return answer if self._is_current(link) else None
            except Refused as refused:
                if refused.trouble.remedy is not Remedy.WAIT:
                    self._backplane.link.restart(refused)
                    return None
            await deferLater(self._backplane.reactor, RETRY)
        return None

    async def _list_members(self, link: int) -> None:
        self._unlisted = False
        try:
            # A new lease drops the members that left meanwhile.
            await self._backplane.link.renew()
            for step in _steps(self._names()):
                await DeferredList(
                    [self._backplane.link.enter(room, names).addErrback(self.not_listed) for room, names in step]
                )
                if not self._is_current(link):
                    return
            if not self._unlisted:
                self._backplane.link.forget()
        except Refused:
            self._unlisted = True
        self._listing = False

    def _names(self) -> Iterator[tuple[str, dict[str, str]]]:
        for room, reader in list(self._backplane.readers.items()):
            for step in _steps(list(reader.names.items())):
                yield str(room), dict(step)


def _steps(items: Sequence[Item] | Iterator[Item]) -> Iterator[list[Item]]:
    rest = iter(items)
    while step := list(islice(rest, STEP)):
        yield step
