"""A Redis in memory: the scripts of `redis_scripts` as Python, and links of which a test takes every step.

`tests/hub/test_redis_scripts.py` compares this one with a real Redis.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from twisted_beastws.hub import Hub
from twisted_beastws.hub.backplane import BackplaneState, order_of
from twisted_beastws.hub.redis import RedisBackplane
from twisted_beastws.hub.redis_answers import Order, Page, Part, Place, Swept, Taken, Verified
from twisted_beastws.hub.redis_errors import LinkLost, Refused
from twisted_beastws.hub.redis_interfaces import RedisCommands
from twisted_beastws.hub.redis_scripts import ENTRY_COST, GRACE, ROOM_COST, SALT

from .stubs import Stub, outcome

ERRORS = {
    "OOM": "OOM command not allowed when used memory > 'maxmemory'.",
    "MISCONF": "MISCONF Redis is configured to save RDB snapshots, but it is currently unable to persist on disk.",
    "READONLY": "READONLY You can't write against a read only replica.",
    "LOADING": "LOADING Redis is loading the dataset in memory",
}


BUDGETS = (1 << 22, 1 << 26)
"""Bytes of a room's history and of all, as by default."""


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
        self.ids: deque[str] = deque(maxlen=max_ids)
        self.streams: dict[str, list[tuple[str, bytes, str]]] = {}
        self.records: dict[str, tuple[str, int]] = {}
        self.ages: dict[str, int] = {}
        self.refs: dict[str, str] = {}
        self.server = ""
        self.hubs: dict[str, int] = {}
        self.witnesses: set[str] = set()
        self.unsure: int | None = None

    def begin(
        self, known: str, name: str, now: int, server: str, write: Callable[[], None], force: bool = False
    ) -> None:
        known_id, _, known_epoch = known.partition(" ")
        if self.epoch and self.latest >= order_of(known_id) and not force:
            return
        write()
        latest = max(self.latest, order_of(known_id))
        if now > latest[0]:
            latest = (now, 0)
        self.left += [each for each in (self.epoch, known_epoch) if each and each not in self.left]
        self.epoch, self.latest, self.started, self.floor = name, latest, latest, latest
        self.unsure, self.server = None, server
        self.ids.clear()
        self.ids.append(id_of(latest))

    def verify(self, known: str, hub: str, now: int, server: str, began: bool, begin: Callable[[], None]) -> bool:
        """Do as the script POSITION; return whether the dataset is certainly the one that the hub knows."""
        known_id, _, known_epoch = known.partition(" ")
        sure = True
        epoch = self.epoch
        if known_epoch not in ("", self.epoch):
            if known_epoch not in self.left:
                begin()
        elif known_epoch and known_id not in self.ids:
            if self.ids[0] != id_of(self.started) and order_of(known_id) < order_of(self.ids[0]):
                sure = False
            else:
                begin()
        hubs = dict(self.hubs)
        previous, self.server = self.server, server
        if previous not in ("", server) and not began and self.epoch == epoch:
            self.witnesses = {*hubs, *(self.witnesses if self.unsure is not None else ())}
            self.unsure = now
            if not hubs:
                begin()
        if self.unsure is not None:
            if sure:
                self.witnesses.discard(hub)
            if not self.witnesses:
                self.unsure = None
            elif abs(now - self.unsure) > GRACE * 1000:
                begin()
        for other, seen in hubs.items():
            if abs(now - seen) > GRACE * 1000:
                del self.hubs[other]
        return sure

    def register(self, hub: str, now: int, salt: int) -> str | None:
        """The id that a new hub is given."""
        known, self.hubs[hub] = hub in self.hubs, now
        if known:
            return None
        self._next_id(now, salt)
        self.ids.append(id_of(self.latest))
        return id_of(self.latest)

    def _next_id(self, now: int, salt: int) -> None:
        self.latest = (now, salt) if now > self.latest[0] else (self.latest[0], self.latest[1] + 1 + salt)

    @property
    def place(self) -> Place:
        return Place(self.epoch, id_of(self.latest))

    def publish(
        self, room: str, payload: bytes, keep: int, ref: str, now: int, salt: int, budgets: tuple[int, int]
    ) -> tuple[Taken, str]:
        """The answer, and the id of the message before, for a message that is to be published."""
        if ref in self.refs:
            return Taken(self.place, self.refs[ref], True), ""
        message_id, previous = "", "0-0"
        if keep:
            message_id, previous = self._keep(room, payload, keep, now, salt, budgets)
        if ref:
            self.refs[ref] = message_id
        return Taken(self.place, message_id, False), previous

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
        exact = exact and order_of(after) > self.started and self.unsure is None
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


class SimulatedRedis:
    """A server, which can lose its data, restore older data, step its clock and answer with errors.

    order: the ids of all messages that it ever took, with their places.
    """

    def __init__(self, max_ids: int = 65536) -> None:
        self.max_ids = max_ids
        self.data = Dataset(max_ids)
        self.saved = Dataset(max_ids)
        self.now = 1_000_000
        self.error: str | None = None
        self.subscribers: dict[str | None, list[SimulatedLink]] = {}
        self.names: dict[str, dict[tuple[object, str], str]] = {}
        self.order: dict[str, int] = {}
        self.name = "server 0"
        self._made = 0

    def save(self) -> None:
        self.saved = deepcopy(self.data)

    def restore(self) -> None:
        self.data = deepcopy(self.saved)
        self.restart()

    def restart(self) -> None:
        """Another process serves the data, or a replica that has it."""
        self._made += 1
        self.name = f"server {self._made}"

    def leave(self, link: object) -> None:
        """List no member of this link any longer."""
        for names in self.names.values():
            for key in [key for key in names if key[0] is link]:
                del names[key]

    def flush(self) -> None:
        self.data = Dataset(self.max_ids)

    def write(self) -> None:
        if self.error is not None:
            raise Refused(ERRORS[self.error])

    def any_command(self) -> None:
        if self.error == "LOADING":
            raise Refused(ERRORS["LOADING"])

    def begin(self, known: str, force: bool = False) -> None:
        self.any_command()
        # As a script that begins a second time in one call, which has one name.
        self._made += not force
        self.data.begin(known, f"e{self._made}", self.now, self.name, self.write, force)

    def position(self, known: str, hub: str) -> Verified:
        epoch = self.data.epoch
        self.begin(known)
        self.write()
        began = epoch != self.data.epoch
        sure = self.data.verify(known, hub, self.now, self.name, began, lambda: self.begin(known, force=True))
        self._register(hub, self._salt())
        return Verified(self.data.place, sure)

    def _register(self, hub: str, salt: int) -> None:
        given = self.data.register(hub, self.now, salt)
        if given is not None:
            self.order[given] = len(self.order)
            self._send(None, given, "0-0", b"")

    def _salt(self) -> int:
        self._made += 1
        return self._made * 1_000_003 % SALT

    def _send(self, room: str | None, message_id: str, previous: str, payload: bytes) -> None:
        epoch = self.data.epoch
        for link in self.subscribers.get(room, []):
            link.coming.append(lambda link=link: link.user.received(room, message_id, previous, epoch, payload))

    def publish(
        self,
        known: str,
        room: str | None,
        payload: bytes,
        keep: int,
        ref: str,
        budgets: tuple[int, int],
        hub: str = "elsewhere",
    ) -> Taken:
        self.begin(known)
        if keep or ref or hub not in self.data.hubs:
            self.write()
        salt = self._salt()
        if hub not in self.data.hubs:
            self._register(hub, salt)
        taken, previous = self.data.publish(room or "", payload, keep, ref, self.now, salt, budgets)
        if not taken.again:
            self.order[taken.id] = len(self.order)
            self._send(room, taken.id, previous, payload)
        return taken


class SimulatedLink(RedisCommands):
    """A link to it. Commands wait to be executed; answers and messages to be received.

    Commands and messages are on connections of their own: their order between each other is the test's choice.
    """

    def __init__(self, server: SimulatedRedis, user: RedisBackplane) -> None:
        self.server = server
        self.user = user
        self.connected = False
        self.sent: deque[tuple[Callable[[], Any], Deferred[Any]]] = deque()
        self.answers: deque[tuple[Deferred[Any], Any]] = deque()
        self.subscribing: deque[tuple[tuple[str | None, ...], Deferred[None] | None]] = deque()
        self.coming: deque[Callable[[], object]] = deque()
        self.log: list[tuple[str, str | None]] = []
        self.dropping: Exception | None = None
        self.paused = False
        self.listed = False

    # The test's side.

    def connect(self) -> None:
        if self.connected:
            return
        self.connected, self.dropping = True, None
        self.listed = False
        self.user.linked().addErrback(self._not_linked)

    def _not_linked(self, failure: Any) -> None:
        if self.connected:
            self.dropping = failure.value

    def cut(self, executed: bool = True, why: Exception | None = None) -> None:
        """Lose the connections: commands that were sent are executed or not; answers and messages are lost."""
        if not self.connected:
            return
        self.connected = False
        for links in self.server.subscribers.values():
            while self in links:
                links.remove(self)
        lost: list[Deferred[Any]] = [done for done, _ in self.answers]
        for command, done in self.sent:
            if executed:
                self._execute(command)
            lost.append(done)
        lost += [done for _, done in self.subscribing if done is not None]
        self.sent.clear()
        self.answers.clear()
        self.subscribing.clear()
        self.coming.clear()
        self.server.leave(self)
        for done in lost:
            if not done.called:
                done.errback(LinkLost("the connection was lost"))
        self.user.lost(why or LinkLost("the connection was lost"))

    def crash(self, executed: bool) -> None:
        """The hub's process is killed."""
        for links in self.server.subscribers.values():
            while self in links:
                links.remove(self)
        for command, _ in self.sent if executed else ():
            self._execute(command)
        self.connected = False
        for queue in (self.sent, self.answers, self.subscribing, self.coming):
            queue.clear()
        self.server.leave(self)

    def execute(self) -> None:
        """Redis takes one command."""
        if self.sent:
            command, done = self.sent.popleft()
            self.answers.append((done, self._execute(command)))

    def _execute(self, command: Callable[[], Any]) -> Any:
        try:
            return command()
        except Refused as error:
            return error

    def answer(self) -> None:
        """One answer arrives."""
        if self.answers:
            done, result = self.answers.popleft()
            if isinstance(result, Exception):
                done.errback(result)
            else:
                done.callback(result)
        self.drop_if_asked()

    def take_subscription(self) -> None:
        """Redis takes one subscription, or the end of one."""
        if self.subscribing:
            rooms, done = self.subscribing.popleft()
            for room in rooms:
                links = self.server.subscribers.setdefault(room, [])
                if done is None:
                    if self in links:
                        links.remove(self)
                elif self not in links:
                    links.append(self)
            if done is not None:
                self.coming.append(lambda: done.callback(None))

    def receive(self) -> None:
        """One message arrives."""
        if self.coming:
            self.coming.popleft()()
        self.drop_if_asked()

    def drop_if_asked(self) -> None:
        if self.dropping is not None and self.connected:
            why, self.dropping = self.dropping, None
            self.cut(why=why)

    def busy(self) -> bool:
        return bool(self.sent or self.answers or self.coming or self.subscribing)

    def settle(self) -> None:
        rounds = 0
        while self.busy():
            rounds += 1
            assert rounds < 10_000, "it never settles"
            self.user.reactor.advance(0)  # type: ignore[attr-defined]
            self.execute()
            self.answer()
            self.take_subscription()
            self.receive()
        self.user.reactor.advance(0)  # type: ignore[attr-defined]

    def beat(self) -> None:
        """A sign of life, as of `RedisLink`."""
        if self.connected and self.user.is_linked:
            beaten = self._send(lambda: (self.server.any_command(), self.server.write()))
            beaten.addCallback(lambda _: self.position(self.user.known))
            beaten.addCallbacks(
                self._beaten,
                lambda failure: self.user.beat(failure.value.trouble, None, False) if failure.check(Refused) else None,
            )

    def _beaten(self, verified: Verified) -> None:
        listed, self.listed = self.listed, True
        self.user.beat(None, verified, not listed)

    # The backplane's side.

    def start(self) -> None:
        pass

    def stop(self) -> Deferred[None]:
        if self.connected and self.server.error is None:
            self.server.data.hubs.pop(self.user.hub_name, None)
        self.cut()
        return succeed(None)

    def restart(self, why: Exception) -> None:
        self.dropping = why

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def _send(self, command: Callable[[], Any]) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        if self.connected:
            self.sent.append((command, done))
        else:
            done.errback(LinkLost("the connection was lost"))
        return done

    def position(self, known: str) -> Deferred[Verified]:
        return self._send(lambda: self.server.position(known, self.user.hub_name))

    def subscribe(self, rooms: Sequence[str | None]) -> Deferred[None]:
        assert self.connected
        self.log += [("subscribe", room) for room in rooms]
        done: Deferred[None] = Deferred()
        self.subscribing.append((tuple(rooms), done))
        return done

    def unsubscribe(self, rooms: Sequence[str]) -> None:
        assert self.connected
        self.log += [("unsubscribe", room) for room in rooms]
        self.subscribing.append((tuple(rooms), None))

    def publish(self, known: str, room: str | None, payload: bytes, keep: int, ref: str) -> Deferred[Taken]:
        budgets = (self.user.max_room_history, self.user.max_history)
        return self._send(lambda: self.server.publish(known, room, payload, keep, ref, budgets, self.user.hub_name))

    def read(self, known: str, room: str, after: str, count: int, size: int) -> Deferred[Part]:
        return self._send(lambda: (self.server.begin(known), self.server.data.read(room, after, count, size))[1])

    def sweep(self, known: str, rooms: Sequence[tuple[str, str]]) -> Deferred[Swept]:
        return self._send(lambda: (self.server.begin(known), self.server.data.sweep(rooms))[1])

    def enter(self, room: str, names: dict[str, str]) -> Deferred[object]:
        def enter() -> None:
            self.server.write()
            self.server.names.setdefault(room, {}).update({(self, member): name for member, name in names.items()})

        return self._send(enter)

    def exit(self, room: str, member: str) -> Deferred[object]:
        def leave() -> None:
            if self.server.error in ("READONLY", "MISCONF", "LOADING"):
                self.server.write()
            self.server.names.get(room, {}).pop((self, member), None)

        return self._send(leave)

    def announce(self, room: str) -> Deferred[object]:
        return self._send(lambda: self.server._send(room, "", "0-0", b""))

    def forget(self) -> None:
        pass

    def inbox(self) -> Deferred[list[tuple[str, dict[str, bytes]]]]:
        return succeed([])

    def remove(self, entry: str) -> Deferred[object]:
        return succeed(None)

    def renew(self) -> Deferred[object]:
        def renew() -> None:
            self.server.write()
            self.server.leave(self)

        return self._send(renew)

    def roster(self, room: str, cursor: int, count: int) -> Deferred[Page]:
        def page() -> Page:
            names = list(self.server.names.get(room, {}).values())
            end = cursor + count
            return Page(end if end < len(names) else 0, len(names), names[cursor:end])

        return self._send(page)


class Node(RedisBackplane):
    """A backplane on a `SimulatedLink`, with its hub."""

    def __init__(self, server: SimulatedRedis, *, connected: bool = True, **options: Any) -> None:
        self.clock = Clock()
        super().__init__("redis://h", reactor=self.clock, **options)  # type: ignore[arg-type]
        self.link_ = SimulatedLink(server, self)
        self.hub = Hub(self, reactor=self.clock)
        self.hub.start()
        if connected:
            self.returns()
            assert self.state is BackplaneState.CONNECTED

    def _make_link(self) -> RedisCommands:
        return self.link_

    def returns(self) -> None:
        """Connect, and do all that follows."""
        self.link_.connect()
        self.link_.settle()
        self.link_.beat()
        self.link_.settle()

    def joins(self, room: str = "a", *, settle: bool = True, **options: Any) -> Stub:
        stub = Stub()
        joining = self.hub.join(stub.connection, room, **options)
        if settle:
            self.link_.settle()
            assert outcome(joining) is not None
        return stub


def member_of(node: Node, room: str = "a", **options: Any) -> Stub:
    """A member that is informed of gaps: it gets ``GAP``."""
    return node.joins(room, gap=lambda message: "GAP", **options)


def settle(*nodes: Node) -> None:
    while any(node.link_.busy() for node in nodes):
        for node in nodes:
            node.link_.settle()
