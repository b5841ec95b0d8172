"""The backplane loses the simulated Redis, and finds the missed messages in the history."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from twisted_beastws.hub import PublishError, PublishUnknown
from twisted_beastws.hub.backplane import BackplaneState
from twisted_beastws.hub.linked_rooms import MAX_HELD

from .nodes import Node, elsewhere, member_of, settle
from .simulated import SimulatedRedis
from .stubs import Stub, done

BUDGETS = (1 << 22, 1 << 26)


@pytest.mark.usefixtures("quiet")
class TestLoss:
    """The connection to the simulated Redis is lost."""

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

    def test_messages_during_a_loss_are_delivered_here_and_fail(self, server: SimulatedRedis) -> None:
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

    def test_all_rooms_get_the_missed_messages_after_a_loss(self, server: SimulatedRedis) -> None:
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

    def test_a_loss_longer_than_the_history_is_reported_as_a_gap_in_its_place(self, server: SimulatedRedis) -> None:
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

    def test_a_loss_without_a_history_is_reported_as_a_gap(self, server: SimulatedRedis) -> None:
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
            # No public name shows how many messages are held.
            assert len(one.readers["a"]._held or ()) <= MAX_HELD
        settle(one, two)
        assert member.heard == ["missed", *said]

    def test_invalid_messages_of_other_programs_do_not_delay_the_catching_up(
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


class TestHistory:
    """Histories in the simulated Redis."""

    def test_a_client_that_moves_to_another_hub_has_the_messages_that_it_missed(self, server: SimulatedRedis) -> None:
        one, two = Node(server), Node(server)
        ids = [one.hub.publish("a", str(number)) for number in range(5)]
        settle(one)
        back = two.joins(after=done(ids[1]))
        one.hub.publish("a", "now")
        settle(one, two)
        assert back.heard == ["2", "3", "4", "now"]

    @pytest.mark.usefixtures("quiet")
    def test_a_join_without_redis_is_not_complete(self, server: SimulatedRedis) -> None:
        one = Node(server)
        one.joins()
        one.link_.cut()
        back = Stub()
        joining = one.hub.join(back.connection, "a", after="1-0")
        one.hub.publish("a", "now").addErrback(lambda _: None)
        assert (done(joining), back.heard) == (False, ["now"])

    def test_a_slow_reader_whose_history_is_trimmed_meanwhile_is_not_complete(self, server: SimulatedRedis) -> None:
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
