"""A Redis in memory: the scripts of `redis_scripts` as Python, and links of which a test takes every step.

`tests/hub/test_scripts.py` compares this one with a real Redis.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, succeed

from twisted_beastws.hub.linked import LinkedBackplane
from twisted_beastws.hub.linked_answers import Page, Part, Standing, Swept, Taken, Verified
from twisted_beastws.hub.linked_errors import LinkLost, Refused
from twisted_beastws.hub.linked_interfaces import LinkCommands
from twisted_beastws.hub.redis_errors import refused
from twisted_beastws.hub.redis_scripts import SALT

from .dataset import Dataset

ERRORS = {
    "OOM": "OOM command not allowed when used memory > 'maxmemory'.",
    "MISCONF": "MISCONF Redis is configured to save RDB snapshots, but it is currently unable to persist on disk.",
    "READONLY": "READONLY You can't write against a read only replica.",
    "LOADING": "LOADING Redis is loading the dataset in memory",
}


BUDGETS = (1 << 22, 1 << 26)
"""Bytes of a room's history and of all, as by default."""


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
            raise refused(ERRORS[self.error])

    def any_command(self) -> None:
        if self.error == "LOADING":
            raise refused(ERRORS["LOADING"])

    def begin(self, known: str, force: bool = False) -> None:
        self.any_command()
        # As a script that begins a second time in one call, which has one name.
        self._made += not force
        self.data.begin(known, f"e{self._made}", self.now, self.name, self.write, force)

    def position(self, known: str, hub: str, standing: Standing) -> Verified:
        before = self.data.epoch
        self.begin(known)
        self.write()

        def begin() -> None:
            self.begin(known, force=True)

        sure = self.data.verify(known, hub, standing, self.now, self.name, begin, before)
        awaits, unconfirmed = self.data.confirm(known, hub, standing, self.now, self._salt(), self._inform)
        return Verified(self.data.place, sure, self.name, awaits, unconfirmed)

    def _inform(self, given: str) -> None:
        self.order.setdefault(given, len(self.order))
        self._send(None, given, "0-0", b"")

    def _salt(self) -> int:
        self._made += 1
        return self._made * 1_000_003 % SALT

    def _send(self, room: str | None, message_id: str, previous: str, payload: bytes) -> None:
        epoch = self.data.epoch
        for link in self.subscribers.get(room, []):
            link.coming.append(partial(link.user.received, room, message_id, previous, epoch, payload))

    def publish(
        self,
        known: str,
        room: str | None,
        payload: bytes,
        keep: int,
        ref: str,
        budgets: tuple[int, int],
        hub: str = "elsewhere",
        waiting: bool = False,
    ) -> Taken:
        self.begin(known)
        if keep or ref or hub not in self.data.hubs:
            self.write()
        salt = self._salt()
        if hub in self.data.hubs:
            awaits = self.data.hubs[hub][1]
        else:
            awaits = self.data.register(hub, self.now, salt, waiting or bool(self.data.hubs), self._inform)
        taken, previous = self.data.publish(room or "", payload, keep, ref, self.now, salt, budgets, awaits)
        if not taken.again:
            self.order[taken.id] = len(self.order)
            self._send(room, taken.id, previous, payload)
        return taken


class SimulatedLink(LinkCommands):
    """A link to it. Commands wait to be executed; answers and messages to be received.

    Commands and messages are on connections of their own: their order between each other is the test's choice.
    """

    def __init__(self, server: SimulatedRedis, user: LinkedBackplane) -> None:
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

            def beat() -> None:
                self.server.any_command()
                self.server.write()

            beaten = self._send(beat)
            beaten.addCallback(lambda _: self.user.verify())
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

    def position(self, known: str, standing: Standing) -> Deferred[Verified]:
        return self._send(lambda: self.server.position(known, self.user.hub_name, standing))

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

    def publish(
        self, known: str, room: str | None, payload: bytes, keep: int, ref: str, waiting: bool
    ) -> Deferred[Taken]:
        budgets, hub = (self.user.max_room_history, self.user.max_history), self.user.hub_name
        return self._send(lambda: self.server.publish(known, room, payload, keep, ref, budgets, hub, waiting))

    def read(self, known: str, room: str, after: str, count: int, size: int) -> Deferred[Part]:
        def read() -> Part:
            self.server.begin(known)
            return self.server.data.read(room, after, count, size)

        return self._send(read)

    def sweep(self, known: str, rooms: Sequence[tuple[str, str]]) -> Deferred[Swept]:
        def sweep() -> Swept:
            self.server.begin(known)
            return self.server.data.sweep(rooms)

        return self._send(sweep)

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
