"""The backplane through Redis, on a simulated one of which the test takes every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from twisted_beastws.hub import Hub, Message, PublishError, PublishUnknown
from twisted_beastws.hub.backplane import order_of
from twisted_beastws.hub.linked_subscriptions import JOIN_PATIENCE
from twisted_beastws.hub.redis import RedisBackplane

from .nodes import Node, elsewhere, settle
from .simulated import ERRORS, SimulatedRedis
from .stubs import Stub, done, said_of

BUDGETS = (1 << 22, 1 << 26)


class TestPublish:
    """Publishing through Redis."""

    def test_all_messages_are_heard_by_all_hubs_in_one_order(self, server: SimulatedRedis) -> None:
        one, two = Node(server), Node(server)
        members = [one.joins(), two.joins(), one.joins()]
        published = [one.hub.publish("a", "1"), two.hub.publish("a", "2"), one.hub.publish("a", "3")]
        two.link_.execute()
        settle(one, two)
        assert [member.heard for member in members] == [["2", "1", "3"]] * 3
        ids = [order_of(done(each)) for each in published]
        assert ids[1] < ids[0] < ids[2]

    @pytest.mark.parametrize("data", ["", "007", "1.5", "\u00e9\n", b"", b"007", b"\n\x00\xff"])
    def test_a_message_is_unchanged_on_arrival(self, server: SimulatedRedis, data: str | bytes) -> None:
        one, two = Node(server), Node(server)
        member = two.joins()
        one.hub.publish("a", data)
        settle(one, two)
        assert member.heard == [data]

    def test_an_excluded_connection_hears_nothing(self, server: SimulatedRedis) -> None:
        one, two = Node(server), Node(server)
        publisher, here, there = one.joins(), one.joins(), two.joins()
        one.hub.publish("a", "hello", exclude=publisher.connection)
        settle(one, two)
        assert [publisher.heard, here.heard, there.heard] == [[], ["hello"], ["hello"]]

    def test_a_message_to_all_reaches_all_rooms_of_all_hubs(self, server: SimulatedRedis) -> None:
        one, two = Node(server), Node(server)
        members = [one.joins("a"), two.joins("b")]
        to_all = one.hub.publish_to_all("hello", exclude=members[0].connection)
        settle(one, two)
        assert [member.heard for member in members] == [[], ["hello"]]
        assert done(to_all) is None and to_all.called
        assert server.data.streams == {}

    def test_a_message_to_an_empty_room_is_in_its_history(self, server: SimulatedRedis) -> None:
        one = Node(server)
        published = one.hub.publish("a", "hello")
        one.link_.settle()
        assert done(published)
        assert one.joins(after="0-0").heard == ["hello"]

    @pytest.mark.parametrize("error", ["OOM", "MISCONF"])
    @pytest.mark.usefixtures("quiet")
    def test_a_refused_message_fails_and_is_delivered_here_after_earlier_ones(
        self, server: SimulatedRedis, error: str
    ) -> None:
        one, two = Node(server), Node(server)
        here, there = one.joins(), two.joins()
        taken = one.hub.publish("a", "1")
        one.link_.execute()
        server.error = error
        refused = one.hub.publish("a", "2")
        one.link_.execute()
        one.link_.answer()
        one.link_.answer()
        # The first one's way through Redis is longer than the second one's refusal.
        assert here.heard == []
        settle(one, two)
        assert here.heard == ["1", "2"]
        assert there.heard == ["1"]
        assert done(taken)
        assert done(refused).delivered_here and not isinstance(done(refused), PublishUnknown)
        server.error = None
        one.hub.publish("a", "3")
        settle(one, two)
        assert here.heard == ["1", "2", "3"]

    @pytest.mark.parametrize("error", ["OOM", "MISCONF", "READONLY", "LOADING"])
    @pytest.mark.usefixtures("quiet")
    def test_an_error_never_contains_the_text_of_redis(self, server: SimulatedRedis, error: str) -> None:
        one = Node(server)
        one.joins()
        server.error = error
        refused = one.hub.publish("a", "2")
        one.link_.execute()
        one.link_.answer()
        words = said_of(done(refused))
        assert words.startswith("the backplane ") and words.endswith(": only the members here have the message")
        assert not any(word in words for word in ("Redis", "OOM", "command", *ERRORS[error].split()[:1]))

    @pytest.mark.parametrize(("more", "refused"), [(-1, False), (0, False), (1, True)])
    def test_the_bytes_that_wait_for_redis_are_bounded(self, server: SimulatedRedis, more: int, refused: bool) -> None:
        one = Node(server)
        here = one.joins()
        one.hub.publish("a", "x" * 1000)
        waiting = one.in_flight
        assert 1000 < waiting < 1050
        # A lower limit than the package's, so that the test needs few bytes.
        one._load.most = 2 * waiting
        published = one.hub.publish("a", "y" * (1000 + more))
        if refused:
            assert not done(published).delivered_here
            assert one.failures == {"overloaded": 1}
        one.link_.settle()
        assert [said[0] for said in here.heard] == (["x"] if refused else ["x", "y"])
        assert one.in_flight == 0

    def test_invalid_messages_of_other_programs_are_logged_and_skipped(
        self, server: SimulatedRedis, logged: Callable[..., Any]
    ) -> None:
        one = Node(server)
        here = one.joins()
        for payload in (b"noise", b"a b c\nd", b"hub 1 x\n", b"hub 1 t\n\xff", b"\xff 1 t\n"):
            elsewhere(server, "a", payload=payload)
        elsewhere(server, "a", "fine")
        one.link_.settle()
        assert here.heard == ["fine"]
        assert logged(type(None))
        for message_id in ("nonsense", "1-1\x1b", "\ufffd"):
            one.received("a", message_id, "0-0", "e1", b"hub 1 t\nbad")
        one.received("a", "9-9", "nonsense", "e1", b"hub 1 t\nbad")
        assert here.heard == ["fine"]
        assert len(logged(type(None))) == 3


class TestRef:
    """A ref makes a message that is published again count once."""

    def test_a_second_message_with_the_same_ref_is_not_published(self, server: SimulatedRedis) -> None:
        one, two = Node(server), Node(server)
        member = two.joins()
        published = [one.hub.publish("a", "hello", ref="r"), two.hub.publish("a", "hello", ref="r")]
        settle(one, two)
        other = [one.hub.publish("a", "hello", ref="other"), one.hub.publish("b", "hello", ref="r")]
        settle(one, two)
        assert done(published[0]) == done(published[1])
        assert len({done(each) for each in other}) == 2
        assert member.heard == ["hello", "hello"]

    @pytest.mark.parametrize("executed", [True, False])
    @pytest.mark.usefixtures("quiet")
    def test_a_retry_after_an_unknown_outcome_is_heard_once(self, server: SimulatedRedis, executed: bool) -> None:
        one, two = Node(server), Node(server)
        members = [one.joins(), two.joins()]
        pending = one.hub.publish("a", "hello", ref="r")
        one.link_.cut(executed)
        assert isinstance(done(pending), PublishUnknown) and not done(pending).delivered_here
        assert "not known" in said_of(done(pending))
        settle(two)
        again = two.hub.publish("a", "hello", ref="r")
        settle(two)
        one.returns()
        settle(one, two)
        assert done(again)
        assert [member.heard for member in members] == [["hello"], ["hello"]]

    @pytest.mark.usefixtures("quiet")
    def test_no_member_gets_a_message_with_a_ref_without_redis(self, server: SimulatedRedis) -> None:
        one = Node(server)
        member = one.joins()
        one.link_.cut()
        assert said_of(done(one.hub.publish("a", "x", ref="r"))) == "the backplane is away: no member has the message"
        one.returns()
        server.error = "OOM"
        refused = one.hub.publish("a", "x", ref="r")
        one.link_.settle()
        assert said_of(done(refused)) == "the backplane is full: no member has the message"
        server.error = None
        one.hub.publish("a", "x", ref="r")
        one.link_.settle()
        assert member.heard == ["x"]

    def test_an_invalid_notice_of_another_program_is_ignored(self, server: SimulatedRedis) -> None:
        one = Node(server)
        for message_id in ("", "nonsense", "1-x"):
            one.received(None, message_id, "0-0", "", b"")
        member = one.joins()
        one.hub.publish("a", "hello")
        settle(one)
        assert member.heard == ["hello"]


class TestSubscriptions:
    """The hub subscribes to the rooms that have members."""

    def test_a_hub_subscribes_only_to_rooms_with_members(self, server: SimulatedRedis) -> None:
        one = Node(server)
        first, second = one.joins("a"), one.joins("a")
        one.joins("b")
        one.hub.leave(first.connection, "a")
        assert one.link_.log == [("subscribe", None), ("subscribe", "a"), ("subscribe", "b")]
        second.ends()
        one.link_.settle()
        assert one.link_.log[3:] == [("unsubscribe", "a")]
        assert server.subscribers["a"] == []

    def test_a_join_and_a_publication_are_done_after_the_subscription(self, server: SimulatedRedis) -> None:
        one = Node(server)
        member = Stub()
        joining = [one.hub.join(member.connection, "a"), one.hub.join(Stub().connection, "a")]
        published = one.hub.publish("a", "hello")
        assert not any(each.called for each in joining)
        assert not one.link_.sent
        one.link_.settle()
        assert all(each.called for each in joining)
        assert done(published)
        assert member.heard == ["hello"]

    @pytest.mark.usefixtures("quiet")
    def test_a_lost_connection_ends_the_waiting(self, server: SimulatedRedis) -> None:
        one = Node(server)
        member = Stub()
        joining, published = one.hub.join(member.connection, "a"), one.hub.publish("a", "hello")
        one.link_.cut()
        assert joining.called
        assert isinstance(done(published), PublishError)
        assert member.heard == ["hello"]

    def test_a_message_to_a_room_that_its_member_left_is_not_delivered(self, server: SimulatedRedis) -> None:
        one = Node(server)
        member = one.joins()
        published = one.hub.publish("a", "hello")
        one.link_.execute()
        one.hub.leave(member.connection, "a")
        one.link_.settle()
        assert done(published)
        assert member.heard == []

    def test_messages_between_subscription_and_first_place_are_delivered(self, server: SimulatedRedis) -> None:
        one = Node(server)
        elsewhere(server, "a", "before")
        member = one.joins(settle=False)
        one.link_.take_subscription()
        one.link_.receive()
        elsewhere(server, "a", "since", "since then")
        one.link_.execute()
        one.link_.answer()
        one.link_.settle()
        assert member.heard == ["since", "since then"]


class TestFirstConnection:
    """Before the first connection to Redis."""

    def test_a_join_waits_for_the_first_connection(self, server: SimulatedRedis) -> None:
        one = Node(server, connected=False)
        elsewhere(server, "a", "1", "2")
        after = server.data.streams["a"][0][0]
        back, fresh = Stub(), Stub()
        joining = [one.hub.join(back.connection, "a", after=after), one.hub.join(fresh.connection, "a")]
        assert not one.ready and not one.hub.ready
        one.clock.advance(JOIN_PATIENCE - 1)
        assert not any(each.called for each in joining)
        one.returns()
        assert one.ready and one.hub.ready
        assert [done(each) for each in joining] == [True, True]
        elsewhere(server, "a", "3")
        one.link_.settle()
        assert (back.heard, fresh.heard) == (["2", "3"], ["3"])

    def test_a_join_waits_a_limited_time_and_then_gets_a_gap(self, server: SimulatedRedis) -> None:
        one = Node(server, connected=False)
        member, back = Stub(), Stub()
        joining = one.hub.join(member.connection, "a", gap=lambda message: "GAP")
        returning = one.hub.join(back.connection, "a", gap=lambda message: "GAP", after="1-1")
        one.clock.advance(JOIN_PATIENCE)
        assert (done(joining), done(returning)) == (True, False)
        assert isinstance(done(one.hub.publish("a", "hello")), PublishError)
        one.returns()
        assert member.heard == back.heard == ["hello", "GAP"]
        elsewhere(server, "a", "again")
        one.link_.settle()
        assert member.heard == ["hello", "GAP", "again"]

    def test_a_stop_ends_the_waiting(self, server: SimulatedRedis) -> None:
        one = Node(server, connected=False)
        joining = one.hub.join(Stub().connection, "a")
        one.hub.stop()
        assert joining.called
        assert one.clock.getDelayedCalls() == []


class TestSlowMembers:
    """Members that read more slowly than others publish."""

    def test_reading_pauses_while_many_messages_wait_to_be_sent(self, server: SimulatedRedis) -> None:
        one = Node(server)
        waiting: list[Deferred[None]] = []

        def deliver(message: Message, exclude: object) -> Deferred[None]:
            waiting.append(Deferred())
            return waiting[-1]

        one.joins()
        # The test takes the hub's place, which is slow here.
        one._deliver_to_hub = deliver
        for number in range(300):
            elsewhere(server, "a", str(number))
        while one.link_.coming and not one.link_.paused:
            one.link_.receive()
        assert len(waiting) == 256
        waiting[0].callback(None)
        assert not one.link_.paused


class TestOptions:
    """The prefix and the budgets."""

    @pytest.mark.parametrize("prefix", ["", "a b", "\u00e9", "x" * 65, "a\n"])
    def test_an_invalid_prefix_is_refused(self, prefix: str) -> None:
        with pytest.raises(ValueError, match="1 to 64 printable ASCII characters"):
            RedisBackplane("redis://h", prefix=prefix)

    @pytest.mark.parametrize("prefix", ["a", "x" * 64, "my-app:"])
    def test_a_valid_prefix_is_accepted(self, prefix: str) -> None:
        assert RedisBackplane("redis://h", prefix=prefix).prefix == prefix

    @pytest.mark.parametrize(("room", "rooms"), [(0, 10), (11, 10), (-1, 10)])
    def test_a_budget_of_a_room_above_that_of_all_rooms_is_refused(self, room: int, rooms: int) -> None:
        with pytest.raises(ValueError, match="max_room_history"):
            RedisBackplane("redis://h", max_room_history=room, max_history=rooms)


def test_a_hub_accepts_the_backplane(server: SimulatedRedis) -> None:
    assert isinstance(Hub(Node(server)).backplane, RedisBackplane)
