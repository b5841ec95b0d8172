"""Histories of publishing, failing and returning on a simulated Redis, and a check of the guarantees at their end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

from twisted.internet.defer import Deferred

from twisted_beastws.hub import Message, PublishError
from twisted_beastws.hub.backplane import PublishUnknown, order_of
from twisted_beastws.hub.linked_interfaces import GRACE

from .nodes import Node, settle
from .simulated import SimulatedRedis
from .stubs import Stub

ROOMS = ("a", "b")
GAP = "gap"
STEPS = (
    *(("publish", "execute", "answer", "receive", "take_subscription", "settle") * 3),
    *("turn", "turn", "turn", "turn", "turn", "turn", "turn", "turn"),
    *("publish with ref", "retry", "notice", "publish elsewhere", "publish elsewhere", "publish elsewhere"),
    *("cut", "cut early", "connect", "connect", "beat", "beat", "wait", "lease ends", "beat elsewhere"),
    *("flush", "save", "restore", "evict", "clock back", "clock on", "clock stands"),
    *("restart", "crash", "crash", "stop", "crash elsewhere", "save", "power cut", "lost snapshot", "lost newcomer"),
    *("OOM", "MISCONF", "READONLY", "LOADING", "well", "well"),
    *("leave", "return", "return", "join"),
)


class Client:
    """A client that leaves, and returns to any node with the id of the last message that it has.

    lossy: whether Redis lost data so far. begins: the id with which it joins before it has one. heard: ids and `GAP`.
    since: how many messages Redis had taken when the join fired; 0 if the client then had all of them.
    """

    def __init__(self, room: str, server: SimulatedRedis, lossy: Callable[[], bool], begins: str | None) -> None:
        self.lossy = lossy
        self.begins = begins
        self.room = room
        self.server = server
        self.heard: list[str] = []
        self.texts: list[str] = []
        self.again: list[str] = []
        self.resets: list[int] = []
        self.stub: Stub | None = None
        self.node: Node | None = None
        self.since: int | None = None

    def join(self, node: Node) -> None:
        last = next((each for each in reversed(self.heard) if each != GAP), None)
        stub = self.stub = Stub(self.hears)
        self.node = node
        began, again = len(self.heard), len(self.again)
        # A client without an id cannot return to its place: it begins like a new one.
        fresh = last is None
        if fresh:
            self.since = None

        def joined(complete: bool) -> None:
            if self.stub is stub:
                if not complete:
                    # It says so of all that came before it since the join.
                    self.heard.insert(began, GAP)
                    if self.lossy():
                        self.resets.append(began)
                    del self.again[again:]
                    self.hears(GAP)
                if self.since is None:
                    self.since = 0 if complete and self.begins else len(self.server.order)

        after = self.begins if fresh else last
        joining = node.hub.join(stub.connection, self.room, render=with_id, gap=as_gap, after=after)
        joining.addCallback(joined)

    def parts(self) -> list[list[str]]:
        """Return the heard ids, cut at each return with an id that Redis has lost: later ids can begin lower there."""
        cuts = [0, *self.resets, len(self.heard)]
        return [self.heard[begin:end] for begin, end in pairwise(cuts)]

    def leave(self) -> None:
        if self.stub is not None:
            stub, self.stub = self.stub, None
            stub.ends()

    def hears(self, said: Any) -> None:
        if said == GAP:
            self.heard.append(GAP)
            # Redis loses the refs with its data: after a gap a message may come again.
            self.texts = []
            return
        message_id, _, text = said.partition(" ")
        if message_id:
            self.heard.append(message_id)
        # Another node cannot know that the client has a message without an id.
        if message_id and text in self.texts:
            self.again.append(text)
        self.texts.append(text)


def with_id(message: Message) -> str:
    return f"{message.id or ''} {message.data!s}"


def as_gap(message: Message) -> str:
    return GAP


class World:
    """Two nodes with clients in two rooms, a third one that is never cut, and one Redis."""

    def __init__(self, **options: Any) -> None:
        self.server = SimulatedRedis(max_ids=40)
        self.options = options
        self.nodes = [Node(self.server, **options) for _ in range(2)]
        self.publisher: dict[str, str] = {}
        self.emptied = False
        self.after_flush: set[str] = set()
        # What Redis forgot entirely, each time, and the hubs that knew its dataset.
        self.forgotten: list[tuple[set[str], list[Node]]] = []
        self.untraced: set[str] = set()
        self.acknowledged: dict[str, list[str]] = {room: [] for room in ROOMS}
        self.unknown: list[tuple[str, str, str]] = []
        self.refs: dict[str, list[str]] = {}
        self.said = 0
        self.lossy = False
        self.third = Node(self.server, connected=False, **options)
        self.clients: list[Client] = []
        for number in range(4):
            self.new_client(ROOMS[number % 3 == 2], self.nodes[number % 2])
        settle(*self.nodes)

    def new_client(self, room: str, node: Node) -> None:
        begins = "0-0" if len(self.clients) % 3 else None
        self.clients.append(Client(room, self.server, lambda: self.lossy, begins))
        self.clients[-1].join(node)

    def publish(self, node: Node, room: str, *, ref: str | None = None, text: str = "", keep: bool = True) -> None:
        self.said += 1
        text = text or f"m{self.said}"
        published = node.hub.publish(room, text, ref=ref, keep=keep)

        def taken(message_id: str | None) -> None:
            if message_id is not None:
                self.publisher.setdefault(message_id, node.hub_name)
                if self.emptied:
                    self.after_flush.add(node.hub_name)
                if ref is not None:
                    self.refs.setdefault(ref, []).append(message_id)
                if message_id not in self.acknowledged[room]:
                    self.acknowledged[room].append(message_id)

        def failed(failure: Any) -> None:
            failure.trap(PublishError)
            if failure.check(PublishUnknown) and ref is not None:
                self.unknown.append((room, ref, text))

        published.addCallbacks(taken, failed)

    def step(self, name: str, which: int) -> None:
        node, server = self.nodes[which % 2], self.server
        room = ROOMS[which // 2 % 2 if name != "publish" else which % 7 == 6]
        link = node.link_
        if name == "publish":
            self.publish(node, room)
        elif name == "publish with ref":
            self.publish(node, room, ref=f"r{self.said}")
        elif name == "notice":
            self.publish(node, room, keep=False)
        elif name == "retry" and self.unknown:
            room, ref, text = self.unknown[which % len(self.unknown)]
            self.publish(node, room, ref=ref, text=text)
        elif name == "publish elsewhere":
            for part in ROOMS[: 1 + which % 2]:
                self.elsewhere(part)
        elif name == "beat elsewhere":
            self.third.link_.beat()
            self.third.link_.settle()
        elif name == "turn":
            for part in ("take_subscription", "receive", "execute", "answer"):
                getattr(link, part)()
        elif name in ("execute", "answer", "receive", "take_subscription", "settle", "beat"):
            getattr(link, name)()
        elif name in ("cut", "cut early"):
            link.cut(name == "cut")
        elif name == "connect":
            link.connect()
        elif name in ("wait", "lease ends"):
            # The clock of Redis is not the hubs'.
            self.wait(1 if name == "wait" else GRACE + 1 + which % 4)
        elif name in ("flush", "save", "restore", "restart"):
            if name in ("restore", "restart"):
                # All connections end.
                for each in (*self.nodes, self.third):
                    each.link_.cut(bool(which % 2))
            if name == "save":
                self.after_flush.clear()
            elif name == "restore":
                self.untraced |= self.after_flush
            getattr(server, name)()
            if not server.data.epoch:
                knowing = [each for each in (*self.nodes, self.third) if not each.known.endswith(" ")]
                self.forgotten.append((set(server.order), knowing))
            self.emptied = name == "flush" or (self.emptied and name == "restart")
            self.lossy = self.lossy or name != "restart"
        elif name in ("crash", "stop"):
            self.replace(which % 2, name == "crash", bool(which & 4))
        elif name == "lost snapshot":
            # All clients have the messages of the snapshot, and no survivor has more.
            settle(*self.nodes)
            server.save()
            for part in ("publish", "publish elsewhere", "turn", "power cut"):
                self.step(part, which)
        elif name == "lost newcomer":
            # All other hubs are cut off while a hub comes and dies with Redis, which loses even its registration.
            settle(*self.nodes)
            server.save()
            for each in self.nodes:
                each.link_.cut()
            self.step("crash elsewhere", which)
            self.step("publish elsewhere", which)
            for part in ("wait", "lease ends", "wait", "publish elsewhere") if which & 64 else ():
                self.step(part, which)
            self.step("restore", which)
            self.step("crash elsewhere", which)
        elif name == "power cut":
            # Redis and some or all hubs die together.
            self.step("restore", which)
            self.step("crash elsewhere", which)
            for number in range(2):
                if not which & 1 << number:
                    self.replace(number, True, False)
        elif name == "crash elsewhere":
            self.third.link_.crash(False)
            self.third = Node(server, connected=False, **self.options)
        elif name == "evict":
            server.data.evict(room)
        elif name.startswith("clock"):
            server.now += {"clock back": -500, "clock on": 100, "clock stands": 0}[name]
        elif name in ("OOM", "MISCONF", "READONLY", "LOADING", "well"):
            server.error = None if name == "well" else name
        elif name == "leave":
            self.clients[which % len(self.clients)].leave()
        elif name == "return":
            client = self.clients[which % len(self.clients)]
            if client.stub is None:
                client.join(self.nodes[which // 4 % 2])
        elif name == "join" and len(self.clients) < 8:
            self.new_client(room, node)

    def replace(self, number: int, crash: bool, executed: bool) -> None:
        """A node's process ends, and another starts. Its clients are cut off."""
        node = self.nodes[number]
        for client in self.clients:
            if client.node is node:
                client.stub = client.node = None
        if crash:
            node.link_.crash(executed)
        else:
            node.hub.stop()
        self.nodes[number] = Node(self.server, connected=False, **self.options)

    def elsewhere(self, room: str) -> None:
        """The third hub publishes; Redis executes and answers all of its commands at once."""
        self.third.link_.connect()
        self.third.link_.settle()
        if self.third.is_linked:
            self.publish(self.third, room)
            self.third.link_.settle()

    def wait(self, seconds: float) -> None:
        for each in (*self.nodes, self.third):
            each.clock.advance(seconds)

    def calm(self) -> None:
        """Redis is well again, everyone is connected, and one more message reaches all."""
        self.server.error = None
        for _ in range(3):
            # Hubs that have not returned by now will not.
            self.server.now += 1000 * (GRACE + 1)
            for node in (*self.nodes, self.third):
                node.link_.drop_if_asked()
                node.link_.connect()
                node.link_.beat()
            settle(*self.nodes, self.third)
            for _ in range(12):
                self.wait(1)
            settle(*self.nodes, self.third)
        for client in self.clients:
            if client.stub is None:
                client.join(self.nodes[0])
        settle(*self.nodes)
        for room in ROOMS:
            self.publish(self.nodes[0], room)
            settle(*self.nodes)

    def check(self) -> None:
        """Every guarantee, for every client."""
        for ref, ids in self.refs.items():
            assert self.lossy or len(set(ids)) == 1, f"the ref {ref} was taken as {ids}"
        # Not guaranteed: Redis was emptied, and then restored to data from before that.
        present = (*self.nodes, self.third)
        untraced = self.untraced - {node.hub_name for node in present}
        # Nor can anyone know what an emptied Redis had, if all hubs that knew it are gone.
        unknown = {each for lost, knew in self.forgotten if not set(knew) & set(present) for each in lost}
        for number, client in enumerate(self.clients):
            heard = client.heard
            for part in client.parts():
                orders = [order_of(each) for each in part if each != GAP]
                assert orders == sorted(set(orders)), f"client {number} is out of order: {heard}"
            assert not client.again, f"client {number} heard twice: {client.again}"
            for missed in set(self.acknowledged[client.room]) - set(heard):
                if self.server.order[missed] < (client.since or 0) or self.publisher[missed] in untraced:
                    continue
                if client.since == 0 and missed in unknown:
                    continue
                assert self.informed(heard, missed), f"client {number} is not informed of {missed}: {heard}"
        for room in ROOMS if self.nodes[0].history_length else ():
            last = self.acknowledged[room][-1]
            for client in self.clients:
                assert client.room != room or client.heard[-1] == last, f"{client.heard} lacks the last, {last}"

    def informed(self, heard: Iterable[str], missed: str) -> bool:
        """Return whether a gap is reported between the messages before and after the missing one.

        If Redis lost it, only the hub that published it knows, and the report comes when that hub is back.
        """
        reported = False
        for each in heard:
            if each == GAP:
                reported = True
            elif self.server.order[each] < self.server.order[missed]:
                reported = False
            elif reported or not self.lossy:
                return reported
        return reported


def decoded(choices: bytes) -> list[tuple[str, int]]:
    """Two bytes are a step: its name, and which node, room or client."""
    return [(STEPS[name % len(STEPS)], which) for name, which in zip(choices[::2], choices[1::2], strict=False)]


def run(steps: Iterable[tuple[str, int]], **options: Any) -> World:
    """Take the steps, become calm, and check the guarantees."""
    world = World(**options)
    for name, which in steps:
        world.step(name, which)
    world.calm()
    world.check()
    return world


__all__ = ["Deferred", "World", "decoded", "run"]
