"""The simulated Redis refuses commands; and the names of a room's members."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from twisted_beastws.hub.backplane import BackplaneState
from twisted_beastws.hub.redis_errors import refused

from .nodes import Node, elsewhere, member_of, settle
from .simulated import SimulatedRedis
from .stubs import Stub, done

BUDGETS = (1 << 22, 1 << 26)


@pytest.mark.usefixtures("quiet")
class TestErrors:
    """Errors that Redis answers."""

    @pytest.mark.parametrize(("error", "state"), [("OOM", BackplaneState.FULL), ("MISCONF", BackplaneState.NOT_SAVING)])
    def test_the_state_shows_why_redis_refuses_messages(
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
    def test_another_connection_is_tried_if_it_can_help(
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

    def test_a_redis_that_is_loading_does_not_count_as_connected(self, server: SimulatedRedis) -> None:
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
        read, refusals = server.data.read, [refused("BUSY Redis is busy running a script")] * 2

        def busy(*arguments: Any) -> Any:
            if refusals:
                raise refusals.pop()
            return read(*arguments)

        server.data.read = busy  # type: ignore[assignment, method-assign]
        one.returns()
        assert member.heard == []
        for _ in range(2):
            one.clock.advance(1)
            one.link_.settle()
        assert member.heard == ["missed"]

    def test_one_trouble_is_logged_at_most_once_a_minute(
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


class TestNames:
    """The names of members while Redis refuses commands."""

    def test_names_of_all_hubs_are_listed(self, server: SimulatedRedis) -> None:
        one, two = Node(server), Node(server)
        one.joins(name="ann"), two.joins(name="bob"), one.joins()
        for node in (one, two):
            who = node.hub.who("a")
            settle(one, two)
            assert sorted(done(who)) == ["ann", "bob"]

    @pytest.mark.usefixtures("quiet")
    def test_the_names_of_this_hub_are_listed_without_redis(self, server: SimulatedRedis) -> None:
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

    def test_a_room_with_named_members_counts_as_occupied(self, server: SimulatedRedis) -> None:
        one = Node(server)
        one.joins("a", name="ann")
        one.joins("b")
        assert one.occupied() == ["a"]
