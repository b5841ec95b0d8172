"""The backplane through Redis, on a simulated one of which the test takes every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from twisted_beastws.hub import Hub, Message, PublishError, PublishUnknown
from twisted_beastws.hub.backplane import BackplaneState, order_of
from twisted_beastws.hub.redis import RedisBackplane
from twisted_beastws.hub.redis_errors import Refused
from twisted_beastws.hub.redis_rooms import MAX_HELD
from twisted_beastws.hub.redis_subscriptions import JOIN_PATIENCE

from .simulated import ERRORS, Node, SimulatedRedis, member_of, settle
from .stubs import Stub, done

BUDGETS = (1 << 22, 1 << 26)


@pytest.fixture
def server() -> SimulatedRedis:
    return SimulatedRedis()


@pytest.fixture
def quiet(logged: Callable[..., Any]) -> Any:
    """Lines in the log are no failure of the test."""
    yield
    logged(type(None))


def elsewhere(server: SimulatedRedis, room: str, *said: str, payload: bytes | None = None) -> None:
    """A third hub publishes."""
    for text in said or ("",):
        server.publish("0-0 ", room, payload or f"other 1 t\n{text}".encode(), 100, "", BUDGETS)


def said_of(error: Any) -> str:
    assert isinstance(error, PublishError)
    return str(error)


class TestPublish:
    def test_all_hubs_hear_all_messages_in_one_order(self, server: SimulatedRedis) -> None:
        one, two = Node(server), Node(server)
        members = [one.joins(), two.joins(), one.joins()]
        published = [one.hub.publish("a", "1"), two.hub.publish("a", "2"), one.hub.publish("a", "3")]
        two.link_.execute()
        settle(one, two)
        assert [member.heard for member in members] == [["2", "1", "3"]] * 3
        ids = [order_of(done(each)) for each in published]
        assert ids[1] < ids[0] < ids[2]

    @pytest.mark.parametrize("data", ["", "007", "1.5", "\u00e9\n", b"", b"007", b"\n\x00\xff"])
    def test_a_message_arrives_unchanged(self, server: SimulatedRedis, data: str | bytes) -> None:
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
    def test_a_refused_message_fails_and_is_delivered_here_behind_earlier_ones(
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
    def test_callers_never_see_the_words_of_redis(self, server: SimulatedRedis, error: str) -> None:
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
    def test_bytes_that_wait_for_redis_are_bounded(self, server: SimulatedRedis, more: int, refused: bool) -> None:
        one = Node(server)
        here = one.joins()
        one.hub.publish("a", "x" * 1000)
        waiting = one.in_flight
        assert 1000 < waiting < 1050
        one._publications.max_in_flight = 2 * waiting
        published = one.hub.publish("a", "y" * (1000 + more))
        if refused:
            assert not done(published).delivered_here
            assert one.failures == {"overloaded": 1}
        one.link_.settle()
        assert [said[0] for said in here.heard] == (["x"] if refused else ["x", "y"])
        assert one.in_flight == 0

    def test_noise_of_other_programs_is_logged_and_skipped(
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
    def test_without_redis_nobody_gets_a_message_with_a_ref(self, server: SimulatedRedis) -> None:
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

    def test_a_notice_of_another_program_harms_nothing(self, server: SimulatedRedis) -> None:
        one = Node(server)
        for message_id in ("", "nonsense", "1-x"):
            one.received(None, message_id, "0-0", "", b"")
        member = one.joins()
        one.hub.publish("a", "hello")
        settle(one)
        assert member.heard == ["hello"]


class TestSubscriptions:
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

    def test_joining_and_publishing_wait_for_the_subscription(self, server: SimulatedRedis) -> None:
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
    def test_a_loss_ends_the_waiting(self, server: SimulatedRedis) -> None:
        one = Node(server)
        member = Stub()
        joining, published = one.hub.join(member.connection, "a"), one.hub.publish("a", "hello")
        one.link_.cut()
        assert joining.called
        assert isinstance(done(published), PublishError)
        assert member.heard == ["hello"]

    def test_a_message_to_a_room_that_was_left_goes_nowhere(self, server: SimulatedRedis) -> None:
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
    def test_a_join_waits_for_it(self, server: SimulatedRedis) -> None:
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

    def test_a_join_waits_no_longer_than_its_patience_and_then_hears_of_the_gap(self, server: SimulatedRedis) -> None:
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


@pytest.mark.usefixtures("quiet")
class TestLoss:
    def test_messages_with_an_id_keep_their_place(self, server: SimulatedRedis) -> None:
        one, two = Node(server), Node(server)
        members = [one.joins(), two.joins()]
        two.hub.publish("a", "theirs")
        settle(two)
        ours = one.hub.publish("a", "ours")
        one.link_.execute()
        one.link_.answer()
        assert done(ours)
        # Both were on their way to us.
        one.link_.cut()
        assert members[0].heard == []
        settle(two)
        one.returns()
        assert members[0].heard == members[1].heard == ["theirs", "ours"]

    def test_an_acknowledged_message_without_an_id_is_delivered_here_at_once(self, server: SimulatedRedis) -> None:
        one = Node(server)
        member = one.joins()
        one.hub.publish("a", "notice", keep=False)
        one.link_.execute()
        one.link_.answer()
        pending = one.hub.publish("a", "unknown", keep=False)
        one.link_.cut()
        assert member.heard == ["notice"]
        assert isinstance(done(pending), PublishUnknown)

    def test_messages_meanwhile_are_delivered_here_and_fail(self, server: SimulatedRedis) -> None:
        one = Node(server)
        publisher, member = one.joins(), one.joins()
        one.link_.cut()
        assert one.state is BackplaneState.CONNECTING
        assert one.losses == 1
        error = done(one.hub.publish("a", "hello", exclude=publisher.connection))
        assert isinstance(error, PublishError) and error.delivered_here
        assert one.failures == {"away": 1}
        assert [publisher.heard, member.heard] == [[], ["hello"]]
        assert server.data.streams == {}
        joined = one.joins("b")
        one.hub.publish("b", "there too").addErrback(lambda _: None)
        assert joined.heard == ["there too"]

    def test_back_again_all_rooms_have_the_messages_that_they_missed(self, server: SimulatedRedis) -> None:
        one, two = Node(server), Node(server)
        members = [member_of(one, "a"), member_of(one, "b"), member_of(two, "a")]
        two.hub.publish("a", "before")
        settle(one, two)
        one.link_.cut()
        for room in ("a", "b"):
            two.hub.publish(room, f"missed in {room}")
        settle(two)
        joined = member_of(one, "c")
        two.hub.publish("c", "missed in c")
        settle(two)
        one.link_.connect()
        two.hub.publish("a", "meanwhile")
        settle(two, one)
        two.hub.publish("a", "after")
        settle(two, one)
        assert members[0].heard == members[2].heard == ["before", "missed in a", "meanwhile", "after"]
        assert members[1].heard == ["missed in b"]
        assert joined.heard == ["missed in c"]

    def test_a_message_whose_predecessor_is_missing_waits_for_it(self, server: SimulatedRedis) -> None:
        one = Node(server)
        member = member_of(one)
        one.link_.cut()
        elsewhere(server, "a", "missed")
        one.link_.connect()
        while one.link_ not in server.subscribers["a"]:
            one.link_.receive()
            one.link_.execute()
            one.link_.answer()
            one.link_.take_subscription()
        # Redis publishes it before the hub sweeps the rooms.
        elsewhere(server, "a", "meanwhile")
        while one.link_.coming:
            one.link_.receive()
        assert member.heard == []
        one.link_.settle()
        assert member.heard == ["missed", "meanwhile"]

    def test_long_histories_are_caught_up_in_parts(self, server: SimulatedRedis) -> None:
        one, two = Node(server, history=1000), Node(server, history=1000)
        member = member_of(one)
        one.link_.cut()
        for number in range(300):
            two.hub.publish("a", str(number))
        settle(two)
        one.returns()
        assert member.heard == [str(number) for number in range(300)]

    def test_beyond_the_history_the_gap_is_reported_in_its_place(self, server: SimulatedRedis) -> None:
        one, two = Node(server, history=10), Node(server, history=10)
        member = member_of(one)
        two.hub.publish("a", "before")
        settle(one, two)
        one.link_.cut()
        for number in range(12):
            two.hub.publish("a", str(number))
        settle(two)
        one.returns()
        two.hub.publish("a", "after")
        settle(two, one)
        assert member.heard == ["before", "GAP", *map(str, range(2, 12)), "after"]
        assert one.gaps == 1

    def test_without_a_history_a_gap_is_reported(self, server: SimulatedRedis) -> None:
        one, two = Node(server, history=0), Node(server, history=0)
        member = member_of(one)
        one.link_.cut()
        two.hub.publish("a", "missed")
        settle(two)
        one.returns()
        after = two.hub.publish("a", "after")
        settle(two, one)
        assert done(after) is None and after.called
        assert member.heard == ["GAP", "after"]

    def test_a_loss_while_catching_up_is_caught_up_the_next_time(self, server: SimulatedRedis) -> None:
        one, two = Node(server), Node(server)
        member = member_of(one)
        one.link_.cut()
        two.hub.publish("a", "1")
        settle(two)
        one.link_.connect()
        for _ in range(4):
            one.link_.take_subscription()
            one.link_.receive()
            one.link_.execute()
            one.link_.answer()
        two.hub.publish("a", "2")
        settle(two)
        one.link_.cut()
        one.returns()
        assert member.heard == ["1", "2"]

    def test_more_messages_than_can_be_held_are_read_from_the_history(self, server: SimulatedRedis) -> None:
        one = Node(server, history=1000)
        two = Node(server, history=1000)
        member = member_of(one)
        one.link_.cut()
        two.hub.publish("a", "missed")
        settle(two)
        one.link_.connect()
        for _ in range(6):
            one.link_.take_subscription()
            one.link_.receive()
            if not one.link_.sent or one.link_.answers:
                continue
        while not one.readers["a"].catching_up:
            one.link_.execute()
            one.link_.answer()
            one.link_.take_subscription()
            one.link_.receive()
        said = [str(number) for number in range(2 * MAX_HELD)]
        for text in said:
            two.hub.publish("a", text)
        settle(two)
        while one.link_.coming:
            one.link_.receive()
            assert len(one.readers["a"]._held or ()) <= MAX_HELD
        settle(one, two)
        assert member.heard == ["missed", *said]

    def test_noise_of_other_programs_does_not_hold_up_a_return(
        self, server: SimulatedRedis, logged: Callable[..., Any]
    ) -> None:
        one = Node(server)
        member = one.joins()
        one.link_.cut()
        for _ in range(90):
            elsewhere(server, "a", payload=b"noise")
        elsewhere(server, "a", "fine")
        one.returns()
        assert member.heard == ["fine"]


@pytest.mark.usefixtures("quiet")
class TestErrors:
    @pytest.mark.parametrize(("error", "state"), [("OOM", BackplaneState.FULL), ("MISCONF", BackplaneState.NOT_SAVING)])
    def test_a_state_tells_why_redis_takes_nothing_until_it_does(
        self, server: SimulatedRedis, error: str, state: BackplaneState
    ) -> None:
        one = Node(server)
        member = one.joins()
        server.error = error
        one.hub.publish("a", "refused").addErrback(lambda _: None)
        one.link_.settle()
        assert (one.state, one.losses, one.failures) == (state, 0, {"refused": 1})
        server.error = None
        one.link_.beat()
        one.link_.settle()
        assert one.state is BackplaneState.CONNECTED
        one.hub.publish("a", "taken")
        one.link_.settle()
        assert member.heard == ["refused", "taken"]

    @pytest.mark.parametrize(
        ("error", "state"), [("READONLY", BackplaneState.READ_ONLY), ("LOADING", BackplaneState.LOADING)]
    )
    def test_another_connection_is_tried_where_it_helps(
        self, server: SimulatedRedis, error: str, state: BackplaneState
    ) -> None:
        one, two = Node(server), Node(server)
        members = [member_of(one), member_of(two)]
        server.error = error
        one.hub.publish("a", "refused").addErrback(lambda _: None)
        one.link_.settle()
        assert not one.link_.connected
        assert (one.state, one.losses) == (state, 1)
        server.error = None
        two.hub.publish("a", "theirs")
        settle(two)
        one.returns()
        one.hub.publish("a", "ours")
        settle(one, two)
        assert members[0].heard == ["refused", "theirs", "ours"]
        assert members[1].heard == ["theirs", "ours"]

    def test_redis_that_is_loading_is_not_connected_to(self, server: SimulatedRedis) -> None:
        one = Node(server)
        member = member_of(one)
        one.link_.cut()
        elsewhere(server, "a", "missed")
        server.error = "LOADING"
        one.link_.connect()
        one.link_.settle()
        assert (one.link_.connected, one.state) == (False, BackplaneState.LOADING)
        server.error = None
        one.returns()
        assert member.heard == ["missed"]

    def test_a_refused_read_of_the_history_is_repeated(self, server: SimulatedRedis) -> None:
        one = Node(server)
        member = member_of(one)
        one.link_.cut()
        elsewhere(server, "a", "missed")
        read, refusals = server.data.read, [Refused("BUSY Redis is busy running a script")] * 2

        def busy(*arguments: Any) -> Any:
            if refusals:
                raise refusals.pop()
            return read(*arguments)

        server.data.read = busy  # type: ignore[method-assign]
        one.returns()
        assert member.heard == []
        for _ in range(2):
            one.clock.advance(1)
            one.link_.settle()
        assert member.heard == ["missed"]

    def test_lines_in_the_log_about_one_trouble_are_a_minute_apart(
        self, server: SimulatedRedis, logged: Callable[..., Any]
    ) -> None:
        one = Node(server)
        one.joins()
        server.error = "OOM"

        def lines(seconds: float) -> int:
            one.clock.advance(seconds)
            for _ in range(10):
                one.hub.publish("a", "x").addErrback(lambda _: None)
                one.link_.settle()
            return len(logged(type(None)))

        assert [lines(0), lines(30), lines(29), lines(1), lines(59), lines(1)] == [1, 0, 0, 1, 0, 1]


class TestHistory:
    def test_a_client_that_moves_to_another_hub_has_the_messages_that_it_missed(self, server: SimulatedRedis) -> None:
        one, two = Node(server), Node(server)
        ids = [one.hub.publish("a", str(number)) for number in range(5)]
        settle(one)
        back = two.joins(after=done(ids[1]))
        one.hub.publish("a", "now")
        settle(one, two)
        assert back.heard == ["2", "3", "4", "now"]

    @pytest.mark.usefixtures("quiet")
    def test_without_redis_there_is_none_and_the_join_says_so(self, server: SimulatedRedis) -> None:
        one = Node(server)
        one.joins()
        one.link_.cut()
        back = Stub()
        joining = one.hub.join(back.connection, "a", after="1-0")
        one.hub.publish("a", "now").addErrback(lambda _: None)
        assert (done(joining), back.heard) == (False, ["now"])

    def test_a_slow_reader_whose_part_is_trimmed_meanwhile_is_not_complete(self, server: SimulatedRedis) -> None:
        one = Node(server, history=100)
        ids = [one.hub.publish("a", str(number)) for number in range(100)]
        settle(one)
        back = Stub()
        back.draining = Deferred()
        joining = one.hub.join(back.connection, "a", after=done(ids[0]))
        settle(one)
        for number in range(90):
            one.hub.publish("a", str(100 + number))
            settle(one)
        draining, back.draining = back.draining, Stub().draining
        draining.callback(None)
        settle(one)
        assert done(joining) is False
        heard = [int(said) for said in back.heard]
        assert heard == sorted(set(heard)) and heard[-1] == 189 and len(heard) < 189

    def test_a_room_has_a_budget_of_bytes_and_all_rooms_have_one(self, server: SimulatedRedis) -> None:
        one = Node(server, max_room_history=10_000, max_history=25_000)
        for number in range(20):
            for room in "abcd":
                one.hub.publish(room, f"{number} " + "x" * 2000)
                settle(one)
                assert all(kept <= 10_000 for _, kept in server.data.records.values())
                assert server.data.size <= 25_000
        # The room that was written to last is there, and the one that was quiet for longest is not.
        assert "d" in server.data.records and "a" not in server.data.records


class TestNames:
    def test_names_of_all_hubs_are_listed(self, server: SimulatedRedis) -> None:
        one, two = Node(server), Node(server)
        one.joins(name="ann"), two.joins(name="bob"), one.joins()
        for node in (one, two):
            who = node.hub.who("a")
            settle(one, two)
            assert sorted(done(who)) == ["ann", "bob"]

    @pytest.mark.usefixtures("quiet")
    def test_without_redis_the_names_here_are_listed(self, server: SimulatedRedis) -> None:
        one = Node(server)
        one.joins(name="ann")
        leaver = one.joins(name="bob")
        who = one.hub.who("a")
        one.link_.cut()
        assert list(done(who)) == ["ann", "bob"]
        leaver.ends()
        late = one.joins(name="eve")
        assert list(done(one.hub.who("a"))) == ["ann", "eve"]
        assert done(one.hub.who("b")) == {}
        late.ends()
        one.returns()
        who = one.hub.who("a")
        settle(one)
        assert list(done(who)) == ["ann"]

    @pytest.mark.parametrize("error", ["OOM", "MISCONF"])
    @pytest.mark.usefixtures("quiet")
    def test_a_member_that_joined_while_redis_refused_writes_is_listed_afterwards(
        self, server: SimulatedRedis, error: str
    ) -> None:
        one, two = Node(server), Node(server)
        leaver = one.joins(name="leaver")
        server.error = error
        one.joins(name="late")
        leaver.ends()
        settle(one, two)
        server.error = None
        one.link_.beat()
        settle(one)
        who = two.hub.who("a")
        settle(one, two)
        assert list(done(who)) == ["late"]

    def test_a_large_room_is_asked_about_once_a_second_and_its_list_is_bounded(self, server: SimulatedRedis) -> None:
        one, two = Node(server), Node(server)
        for number in range(3000):
            two.hub.join(Stub().connection, "a", name=f"n{number}")
        settle(one, two)
        asked: list[int] = []
        roster = one.link_.roster
        one.link_.roster = lambda *page: asked.append(page[2]) or roster(*page)  # type: ignore[func-returns-value,method-assign]
        rosters = [one.hub.roster("a") for _ in range(50)]
        settle(one)
        assert {(len(done(each).names), done(each).members) for each in rosters} == {(1000, 3000)}
        assert sum(asked) <= 1400
        everyone = one.hub.who("a")
        settle(one)
        assert len(done(everyone)) == 3000
        asked.clear()
        one.clock.advance(1)
        again = one.hub.roster("a")
        settle(one)
        assert len(done(again).names) == 1000 and sum(asked) >= 1000

    def test_rooms_with_names_are_occupied(self, server: SimulatedRedis) -> None:
        one = Node(server)
        one.joins("a", name="ann")
        one.joins("b")
        assert one.occupied() == ["a"]


class TestSlowMembers:
    def test_reading_pauses_while_many_messages_wait_to_be_sent(self, server: SimulatedRedis) -> None:
        one = Node(server)
        waiting: list[Deferred[None]] = []

        def deliver(message: Message, exclude: object) -> Deferred[None]:
            waiting.append(Deferred())
            return waiting[-1]

        one.joins()
        one._deliver_to_hub = deliver
        for number in range(300):
            elsewhere(server, "a", str(number))
        while one.link_.coming and not one.link_.paused:
            one.link_.receive()
        assert len(waiting) == 256
        waiting[0].callback(None)
        assert not one.link_.paused


class TestOptions:
    @pytest.mark.parametrize("prefix", ["", "a b", "\u00e9", "x" * 65, "a\n"])
    def test_a_prefix_that_is_none_is_refused(self, prefix: str) -> None:
        with pytest.raises(ValueError, match="1 to 64 printable ASCII characters"):
            RedisBackplane("redis://h", prefix=prefix)

    @pytest.mark.parametrize("prefix", ["a", "x" * 64, "my-app:"])
    def test_a_prefix_is_taken(self, prefix: str) -> None:
        assert RedisBackplane("redis://h", prefix=prefix).prefix == prefix

    @pytest.mark.parametrize(("room", "rooms"), [(0, 10), (11, 10), (-1, 10)])
    def test_a_room_may_not_have_more_than_all(self, room: int, rooms: int) -> None:
        with pytest.raises(ValueError, match="max_room_history"):
            RedisBackplane("redis://h", max_room_history=room, max_history=rooms)


def test_a_hub_takes_it(server: SimulatedRedis) -> None:
    assert isinstance(Hub(Node(server)).backplane, RedisBackplane)
