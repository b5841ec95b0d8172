"""The backplane through Redis, on a link whose every step the test takes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed

from twisted_beastws.hub import Hub, PublishError
from twisted_beastws.hub.backplane import BackplaneState, order_of
from twisted_beastws.hub.redis import Found, Link, RedisBackplane

from .stubs import Stub, outcome


class Lost(Exception):
    """A command's end where its connection was lost."""


class Server:
    """What a Redis does with it all."""

    def __init__(self) -> None:
        self.streams: dict[str, list[tuple[str, bytes]]] = {}
        self.names: dict[str, dict[tuple[FakeLink, str], str]] = {}
        self.subscribers: dict[str | None, list[FakeLink]] = {}
        self.refusing = False

    def publish(self, room: str | None, payload: bytes, keep: int) -> bytes:
        if self.refusing:
            raise Lost("OOM")
        message_id = ""
        if keep and room is not None:
            stream = self.streams.setdefault(room, [])
            message_id = f"{int(stream[-1][0][:-2]) + 1 if stream else 1}-0"
            stream.append((message_id, payload))
            del stream[:-keep]
        for link in self.subscribers.get(room, []):
            link.coming.append(lambda link=link: link.user.received(room, message_id or None, payload))
        return message_id.encode()

    def history(self, room: str, after: str, count: int) -> Found:
        stream = self.streams.get(room, [])
        later = [entry for entry in stream if order_of(entry[0]) > order_of(after)]
        return Found(after in dict(stream), len(later) > count, later[:count])


class FakeLink(Link):
    """A link to `Server`: commands wait to be done, their answers and what is published to come, until it is time."""

    def __init__(self, server: Server, user: RedisBackplane) -> None:
        self.server = server
        self.user = user
        self.connected = False
        self.sent: deque[tuple[Callable[[], Any], Deferred[Any]]] = deque()
        self.answers: deque[tuple[Deferred[Any], Any]] = deque()
        self.coming: deque[Callable[[], object]] = deque()
        self.subscribing: list[Deferred[object]] = []
        self.log: list[tuple[str, str | None]] = []

    # The test's side.

    def connect(self) -> None:
        self.connected = True
        self.user.prepare().addCallbacks(lambda _: self.user.up(), lambda _: None)

    def cut(self, executed: bool = True) -> None:
        """Lose the connections: commands that were sent are executed or not, answers and messages are lost."""
        self.connected = False
        for links in self.server.subscribers.values():
            if self in links:
                links.remove(self)
        while self.sent:
            command, done = self.sent.popleft()
            if executed:
                self._execute(command)
            self.answers.append((done, None))
        self.coming.clear()
        self.user.lost()
        while self.answers:
            self.answers.popleft()[0].errback(Lost("the connection was lost"))

    def execute(self) -> None:
        if self.sent:
            command, done = self.sent.popleft()
            self.answers.append((done, self._execute(command)))

    def _execute(self, command: Callable[[], Any]) -> Any:
        try:
            return command()
        except Lost as error:
            return error

    def answer(self) -> None:
        if self.answers:
            done, result = self.answers.popleft()
            if isinstance(result, Exception):
                done.errback(result)
            else:
                done.callback(result)

    def receive(self) -> None:
        if self.coming:
            self.coming.popleft()()

    def settle(self) -> None:
        while self.sent or self.answers or self.coming:
            self.execute()
            self.answer()
            self.receive()

    # The backplane's side.

    def start(self) -> None:
        pass

    def stop(self) -> Deferred[None]:
        return succeed(None)

    def _send(self, command: Callable[[], Any]) -> Deferred[Any]:
        assert self.connected
        self.sent.append((command, Deferred()))
        return self.sent[-1][1]

    def subscribe(self, room: str | None) -> Deferred[object]:
        assert self.connected
        self.log.append(("subscribe", room))
        self.server.subscribers.setdefault(room, []).append(self)
        done: Deferred[object] = Deferred()
        self.subscribing.append(done)
        self.coming.append(lambda: done.callback(None))
        return done

    def unsubscribe(self, room: str) -> None:
        assert self.connected
        self.log.append(("unsubscribe", room))
        self.server.subscribers[room].remove(self)

    def publish(self, room: str | None, payload: bytes, keep: int) -> Deferred[bytes]:
        return self._send(lambda: self.server.publish(room, payload, keep))

    def history(self, room: str, after: str, count: int, size: int) -> Deferred[Found]:
        return self._send(lambda: self.server.history(room, after, count))

    def latest(self, room: str) -> Deferred[str]:
        return self._send(lambda: self.server.streams.get(room, [("0-0", b"")])[-1][0])

    def enter(self, room: str, member: str, name: str) -> None:
        assert self.connected
        self.server.names.setdefault(room, {})[(self, member)] = name

    def exit(self, room: str, member: str) -> None:
        assert self.connected
        del self.server.names[room][(self, member)]

    def who(self, room: str) -> Deferred[list[str]]:
        return self._send(lambda: list(self.server.names.get(room, {}).values()))


class Node(RedisBackplane):
    """A backplane on a `FakeLink`, with its hub."""

    def __init__(self, server: Server, *, connected: bool = True, **options: Any) -> None:
        super().__init__("redis://h", **options)
        self.link = FakeLink(server, self)
        self.hub = Hub(self)
        self.hub.start()
        if connected:
            self.link.connect()
            self.link.settle()
            assert self.state is BackplaneState.CONNECTED

    def _make_link(self) -> Link:
        return self.link

    def joins(self, room: str = "a", *, settle: bool = True, **options: Any) -> Stub:
        stub = Stub()
        joining = self.hub.join(stub.connection, room, **options)
        if settle:
            self.link.settle()
            assert outcome(joining) is not None
        return stub


@pytest.fixture
def server() -> Server:
    return Server()


def settle(*nodes: Node) -> None:
    while any(node.link.sent or node.link.answers or node.link.coming for node in nodes):
        for node in nodes:
            node.link.settle()


class TestPublish:
    def test_reaches_all_hubs_in_one_order_the_publishers_own_too(self, server: Server) -> None:
        one, two = Node(server), Node(server)
        members = [one.joins(), two.joins(), one.joins()]
        published = [one.hub.publish("a", "1"), two.hub.publish("a", "2"), one.hub.publish("a", "3")]
        two.link.execute()
        settle(one, two)
        assert [member.heard for member in members] == [["2", "1", "3"]] * 3
        assert [outcome(each) for each in published] == ["2-0", "1-0", "3-0"]

    @pytest.mark.parametrize("data", ["", "007", "1.5", "\u00e9\n", b"", b"007", b"\n\x00\xff"])
    def test_arrives_as_it_was(self, server: Server, data: str | bytes) -> None:
        one, two = Node(server), Node(server)
        member = two.joins()
        one.hub.publish("a", data)
        settle(one, two)
        assert member.heard == [data]

    def test_all_but_one(self, server: Server) -> None:
        one, two = Node(server), Node(server)
        publisher, here, there = one.joins(), one.joins(), two.joins()
        one.hub.publish("a", "hello", exclude=publisher.connection)
        settle(one, two)
        assert [publisher.heard, here.heard, there.heard] == [[], ["hello"], ["hello"]]

    def test_to_all_rooms_of_all_hubs(self, server: Server) -> None:
        one, two = Node(server), Node(server)
        members = [one.joins("a"), two.joins("b")]
        done = one.hub.publish_to_all("hello", exclude=members[0].connection)
        settle(one, two)
        assert [member.heard for member in members] == [[], ["hello"]]
        assert outcome(done) is None and done.called
        assert server.streams == {}

    def test_where_it_has_no_members_it_is_history_for_those_to_come(self, server: Server) -> None:
        one = Node(server)
        published = one.hub.publish("a", "hello")
        one.link.settle()
        assert outcome(published) == "1-0"
        assert one.joins(after="0-0").heard == ["hello"]

    def test_what_redis_refuses_fails_and_is_delivered_here_in_its_place(self, server: Server) -> None:
        one, two = Node(server), Node(server)
        here, there = one.joins(), two.joins()
        taken = one.hub.publish("a", "1")
        one.link.execute()
        server.refusing = True
        refused = one.hub.publish("a", "2")
        one.link.execute()
        one.link.answer()
        one.link.answer()
        # The first one's way through Redis is longer than the second one's refusal.
        assert here.heard == []
        settle(one, two)
        assert here.heard == ["1", "2"]
        assert there.heard == ["1"]
        assert outcome(taken) == "1-0"
        error = outcome(refused)
        assert isinstance(error, PublishError) and error.delivered_here
        assert str(error) == "the backplane did not take the message: OOM"
        server.refusing = False
        one.hub.publish("a", "3")
        settle(one, two)
        assert here.heard == ["1", "2", "3"]

    @pytest.mark.parametrize(("more", "refused"), [(-1, False), (0, False), (1, True)])
    def test_what_waits_for_redis_is_bounded(self, server: Server, more: int, refused: bool) -> None:
        one = Node(server)
        here = one.joins()
        one.hub.publish("a", "x" * 1000)
        waiting = one.in_flight
        assert 1000 < waiting < 1050
        one._max_in_flight = 2 * waiting
        published = one.hub.publish("a", "y" * (1000 + more))
        if refused:
            error = outcome(published)
            assert isinstance(error, PublishError) and not error.delivered_here
        one.link.settle()
        assert [said[0] for said in here.heard] == (["x"] if refused else ["x", "y"])
        assert one.in_flight == 0
        one.hub.publish("a", "z" * 1500)
        one.link.settle()
        assert here.heard[-1] == "z" * 1500

    def test_octets_of_somebody_else_are_told_of_and_passed_over(
        self, server: Server, logged: Callable[..., Any]
    ) -> None:
        one = Node(server)
        here = one.joins()
        for payload in (b"", b"noise", b"a b c\nd", b"hub 1 x\n", b"hub 1 t\n\xff", b"\xff 1 t\n"):
            server.publish("a", payload, 100)
        server.publish("a", b"hub 1 t\nfine", 100)
        one.link.settle()
        assert here.heard == ["fine"]
        assert len(logged(type(None))) == 6
        # Such an id could not be caught up from.
        for message_id in ("nonsense", "1-1\x1b", "\ufffd"):
            one.received("a", message_id, b"hub 1 t\nbad")
        assert here.heard == ["fine"]
        assert len(logged(type(None))) == 3
        one.link.cut()
        one.link.connect()
        one.link.settle()
        assert one.state is BackplaneState.CONNECTED


class TestSubscriptions:
    def test_only_to_rooms_with_members_here(self, server: Server) -> None:
        one = Node(server)
        first, second = one.joins("a"), one.joins("a")
        one.joins("b")
        one.hub.leave(first.connection, "a")
        assert one.link.log == [("subscribe", None), ("subscribe", "a"), ("subscribe", "b")]
        second.ends()
        assert one.link.log[3:] == [("unsubscribe", "a")]
        assert server.subscribers["a"] == []

    def test_joining_waits_for_it_and_so_does_publishing_there(self, server: Server) -> None:
        one = Node(server)
        member = Stub()
        joining = [one.hub.join(member.connection, "a"), one.hub.join(Stub().connection, "a")]
        published = one.hub.publish("a", "hello")
        assert not any(each.called for each in joining)
        assert not one.link.sent
        one.link.settle()
        assert all(each.called for each in joining)
        assert outcome(published) == "1-0"
        assert member.heard == ["hello"]

    def test_a_loss_ends_the_waiting(self, server: Server) -> None:
        one = Node(server)
        member = Stub()
        joining, published = one.hub.join(member.connection, "a"), one.hub.publish("a", "hello")
        one.link.cut()
        assert joining.called
        assert isinstance(outcome(published), PublishError)
        assert member.heard == ["hello"]

    def test_a_message_on_its_way_to_a_room_that_is_left_goes_nowhere(self, server: Server) -> None:
        one = Node(server)
        member = one.joins()
        published = one.hub.publish("a", "hello")
        one.link.execute()
        one.hub.leave(member.connection, "a")
        one.link.settle()
        assert outcome(published) == "1-0"
        assert member.heard == []

    def test_one_that_fails_holds_nobody_up(self, server: Server, logged: Callable[..., Any]) -> None:
        one = Node(server)
        member = Stub()
        joining = one.hub.join(member.connection, "a")
        one.link.coming.clear()
        one.link.subscribing[-1].errback(Lost("NOPERM"))
        assert joining.called
        assert outcome(one.hub.publish("a", "hello")) is None
        assert logged(type(None))

    def test_where_it_began_is_not_after_what_came_since(self, server: Server) -> None:
        one = Node(server)
        server.publish("a", b"hub 1 t\nbefore", 100)
        member = one.joins(settle=False)
        one.link.receive()
        one.link.execute()
        server.publish("a", b"hub 2 t\nsince", 100)
        one.link.settle()
        one.link.cut()
        one.link.connect()
        one.link.settle()
        assert member.heard == ["since"]

    def test_and_none_from_before_is_lost_on_who_joins_it_again(self, server: Server) -> None:
        one = Node(server)
        one.hub.publish("a", "early")
        member = one.joins(settle=False)
        one.link.settle()
        assert member.heard == ["early"]


class TestLoss:
    def test_members_here_have_what_was_on_its_way_and_it_failed(self, server: Server) -> None:
        one = Node(server)
        member = one.joins()
        answered = one.hub.publish("a", "1")
        one.link.execute()
        one.link.answer()
        pending = one.hub.publish("a", "2")
        one.link.cut()
        assert member.heard == ["1", "2"]
        assert outcome(answered) == "1-0"
        error = outcome(pending)
        assert isinstance(error, PublishError) and error.delivered_here

    def test_meanwhile_it_is_delivered_here_and_told(self, server: Server) -> None:
        one = Node(server)
        publisher, member = one.joins(), one.joins()
        one.link.cut()
        assert one.state is BackplaneState.CONNECTING
        assert one.losses == 1
        error = outcome(one.hub.publish("a", "hello", exclude=publisher.connection))
        assert isinstance(error, PublishError) and error.delivered_here
        assert [publisher.heard, member.heard] == [[], ["hello"]]
        assert server.streams == {}
        joined = one.joins("b")
        one.hub.publish("b", "there too").addErrback(lambda _: None)
        assert joined.heard == ["there too"]

    def test_before_the_first_connection_as_well(self, server: Server) -> None:
        one = Node(server, connected=False)
        member = one.joins()
        assert isinstance(outcome(one.hub.publish("a", "hello")), PublishError)
        assert member.heard == ["hello"]
        assert one.losses == 0
        one.link.connect()
        one.link.settle()
        one.hub.publish("a", "again")
        one.link.settle()
        assert member.heard == ["hello", "again"]

    def test_back_again_all_rooms_are_subscribed_and_have_what_they_missed(self, server: Server) -> None:
        one, two = Node(server), Node(server)
        members = [one.joins("a"), one.joins("b"), two.joins("a")]
        two.hub.publish("a", "before")
        settle(one, two)
        one.link.cut()
        for room in ("a", "b"):
            two.hub.publish(room, f"missed in {room}")
        settle(two)
        one.link.connect()
        assert one.link.log[3:] == [("subscribe", None), ("subscribe", "a"), ("subscribe", "b")]
        two.hub.publish("a", "meanwhile")
        settle(two, one)
        two.hub.publish("a", "after")
        settle(two, one)
        assert members[0].heard == members[2].heard == ["before", "missed in a", "meanwhile", "after"]
        assert members[1].heard == ["missed in b"]

    def test_long_histories_are_caught_up_in_parts(self, server: Server) -> None:
        one, two = Node(server, history=1000), Node(server, history=1000)
        member = one.joins()
        one.link.cut()
        for number in range(300):
            two.hub.publish("a", str(number))
        settle(two)
        one.link.connect()
        settle(one)
        assert member.heard == [str(number) for number in range(300)]

    @pytest.mark.parametrize("executed", [True, False])
    def test_what_was_delivered_here_does_not_come_again(self, server: Server, executed: bool) -> None:
        one, two = Node(server), Node(server)
        member = one.joins()
        one.hub.publish("a", "in doubt").addErrback(lambda _: None)
        one.link.cut(executed)
        two.hub.publish("a", "other")
        settle(two)
        one.link.connect()
        settle(one)
        assert member.heard == ["in doubt", "other"]
        assert len(server.streams["a"]) == (2 if executed else 1)

    def test_without_a_history_it_goes_on(self, server: Server) -> None:
        one, two = Node(server, history=0), Node(server, history=0)
        member = one.joins()
        one.link.cut()
        two.hub.publish("a", "missed")
        settle(two)
        one.link.connect()
        settle(one)
        assert outcome(two.hub.publish("a", "after")) is None
        settle(two, one)
        assert member.heard == ["after"]

    def test_a_loss_while_catching_up_is_caught_up_the_next_time(self, server: Server) -> None:
        one, two = Node(server), Node(server)
        member = one.joins()
        one.link.cut()
        two.hub.publish("a", "1")
        settle(two)
        one.link.connect()
        while one.link.coming:
            one.link.receive()
        assert one.link.sent
        two.hub.publish("a", "2")
        settle(two)
        one.link.receive()
        one.link.cut()
        assert member.heard == []
        one.link.connect()
        settle(one)
        assert member.heard == ["1", "2"]

    def test_octets_of_somebody_else_do_not_hold_it_up(self, server: Server, logged: Callable[..., Any]) -> None:
        one = Node(server)
        member = one.joins()
        one.link.cut()
        for _ in range(100):
            server.publish("a", b"noise", 100)
        one.link.connect()
        one.link.settle()
        server.publish("a", b"hub 1 t\nfine", 100)
        one.link.settle()
        assert member.heard == ["fine"]
        assert logged(type(None))


class TestHistory:
    def test_who_comes_back_to_another_hub_has_what_was_missed(self, server: Server) -> None:
        one, two = Node(server), Node(server)
        ids = [one.hub.publish("a", str(number)) for number in range(5)]
        settle(one)
        back = two.joins(after=outcome(ids[1]))
        one.hub.publish("a", "now")
        settle(one, two)
        assert back.heard == ["2", "3", "4", "now"]

    def test_while_redis_is_away_there_is_none_and_it_is_told(self, server: Server) -> None:
        one = Node(server)
        one.joins()
        one.link.cut()
        back = Stub()
        assert outcome(one.hub.join(back.connection, "a", after="0-0")) is False
        one.hub.publish("a", "here").addErrback(lambda _: None)
        assert back.heard == ["here"]

    def test_what_a_member_saw_elsewhere_does_not_come_again_when_its_hub_catches_up(self, server: Server) -> None:
        one, two = Node(server), Node(server)
        old = one.joins()
        one.link.cut()
        seen = two.hub.publish("a", "seen")
        settle(two)
        moved = Stub()
        one.hub.join(moved.connection, "a", after=outcome(seen))
        two.hub.publish("a", "missed")
        settle(two)
        one.link.connect()
        settle(one)
        assert old.heard == ["seen", "missed"]
        assert moved.heard == ["missed"]


class TestNames:
    def test_are_those_of_all_hubs(self, server: Server) -> None:
        one, two = Node(server), Node(server)
        ann = one.joins(name="ann")
        two.joins(name="bob")
        for node in (one, two):
            who = node.hub.who("a")
            node.link.settle()
            assert outcome(who) == ["ann", "bob"]
        ann.ends()
        who = two.hub.who("a")
        two.link.settle()
        assert outcome(who) == ["bob"]

    def test_while_redis_is_away_those_here_and_then_all_again(self, server: Server) -> None:
        one, two = Node(server), Node(server)
        one.joins(name="ann")
        two.joins(name="bob")
        one.link.cut()
        server.names.clear()
        late = one.joins(name="eve")
        assert outcome(one.hub.who("a")) == ["ann", "eve"]
        assert outcome(one.hub.who("b")) == []
        late.ends()
        one.link.connect()
        one.link.settle()
        who = one.hub.who("a")
        one.link.settle()
        assert outcome(who) == ["ann"]

    def test_a_loss_while_asking_leaves_those_here(self, server: Server) -> None:
        one = Node(server)
        one.joins(name="ann")
        who = one.hub.who("a")
        one.link.cut()
        assert outcome(who) == ["ann"]

    def test_rooms_with_names_are_told(self, server: Server) -> None:
        one = Node(server)
        one.joins("a", name="ann")
        one.joins("b")
        assert one.occupied() == ["a"]


STEPS = ("publish", "publish elsewhere", "execute", "answer", "receive", "settle", "cut", "cut early", "connect")


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.booleans()), max_size=80))
def test_each_message_once_in_its_publishers_order_whatever_happens_when(steps: list[tuple[str, bool]]) -> None:
    server = Server()
    nodes = [Node(server), Node(server)]
    members = [node.joins() for node in nodes]
    published: list[tuple[int, str, Deferred[Any]]] = []

    def connect(node: Node) -> None:
        if not node.link.connected:
            node.link.connect()

    def publish(which: int) -> None:
        said = f"{which}:{len(published)}"
        published.append((which, said, nodes[which].hub.publish("a", said)))

    for step, which in steps:
        node = nodes[which]
        if step == "publish":
            publish(which)
        elif step == "publish elsewhere":
            server.publish("a", f"other {len(published)} t\nother:{len(published)}".encode(), 100)
            published.append((2, f"other:{len(published)}", succeed("taken")))
        elif step == "connect":
            connect(node)
        elif step in ("cut", "cut early"):
            if node.link.connected:
                node.link.cut(step == "cut")
        else:
            getattr(node.link, step)()
    for node in nodes:
        connect(node)
    settle(*nodes)
    publish(0)
    settle(*nodes)
    results = [(which, said, outcome(done)) for which, said, done in published]
    for at, member in enumerate(members):
        assert len(set(member.heard)) == len(member.heard)
        for which in range(3):
            in_order = [said for publisher, said, _ in published if publisher == which]
            heard = [said for said in in_order if said in member.heard]
            assert [said for said in member.heard if said in in_order] == heard
        for which, said, result in results:
            if isinstance(result, str) or which == at:
                assert said in member.heard, (at, said, result)
