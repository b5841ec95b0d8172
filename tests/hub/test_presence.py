"""Presence: events of users that join and leave, and their data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import fail
from twisted.internet.task import Clock

from twisted_beastws.hub import Hub, PresenceEvent
from twisted_beastws.hub.linked_interfaces import GRACE
from twisted_beastws.hub.linked_names import ANNOUNCE_DELAY
from twisted_beastws.hub.presence import INTERVAL, MAX_DATA
from twisted_beastws.hub.redis_errors import refused

from .nodes import Node, settle
from .simulated import SimulatedRedis
from .stubs import Stub, outcome


class Seen:
    """A presence callback that keeps what it gets: ``+ann`` is a join, ``-ann`` a leave."""

    def __init__(self) -> None:
        self.events: list[PresenceEvent] = []

    def __call__(self, event: PresenceEvent) -> None:
        self.events.append(event)

    @property
    def names(self) -> list[str]:
        return [("+" if event.joined else "-") + event.name for event in self.events]


class TestData:
    """The data that a member shows."""

    @pytest.mark.parametrize("data", [{"role": "admin"}, ["x", 1], "text", 0, True])
    def test_who_lists_the_data_of_each_user(self, data: Any) -> None:
        hub = Hub()
        hub.join(Stub().connection, "a", name="ann", data=data)
        hub.join(Stub().connection, "a", name="bob")
        assert outcome(hub.who("a")) == {"ann": data, "bob": None}

    def test_a_user_that_joins_twice_appears_once(self) -> None:
        hub = Hub()
        first, second = Stub(), Stub()
        hub.join(first.connection, "a", name="ann", data=1)
        hub.join(second.connection, "a", name="ann", data=2)
        assert outcome(hub.who("a")) == {"ann": 2}
        assert outcome(hub.roster("a")).names == ["ann"]
        second.ends()
        assert outcome(hub.who("a")) == {"ann": 1}

    def test_data_needs_a_name(self) -> None:
        with pytest.raises(TypeError, match=r"join\(data=...\): give a name, too"):
            Hub().join(Stub().connection, "a", data=1)

    @pytest.mark.parametrize("data", [object(), b"bytes", float("nan")])
    def test_data_that_json_cannot_express_is_refused(self, data: Any) -> None:
        with pytest.raises(TypeError, match=r"join\(data=...\): JSON cannot express it"):
            Hub().join(Stub().connection, "a", name="ann", data=data)

    @pytest.mark.parametrize("size", [MAX_DATA - 1, MAX_DATA, MAX_DATA + 1])
    def test_data_has_a_limit(self, size: int) -> None:
        hub = Hub()
        data = "x" * (size - 2)
        if size <= MAX_DATA:
            hub.join(Stub().connection, "a", name="ann", data=data)
            assert outcome(hub.who("a")) == {"ann": data}
        else:
            with pytest.raises(ValueError, match="it has 1025 bytes as JSON; the limit is 1024"):
                hub.join(Stub().connection, "a", name="ann", data=data)
            assert hub.rooms == {}


class TestOneHub:
    """Events of users of one hub."""

    def test_a_user_is_present_from_the_first_connection_to_the_last(self) -> None:
        clock, seen = Clock(), Seen()
        hub = Hub(reactor=clock)
        watch = hub.watch("a", seen)
        first, second = Stub(), Stub()
        hub.join(first.connection, "a", name="ann", data={"role": "admin"})
        clock.advance(INTERVAL)
        hub.join(second.connection, "a", name="ann")
        clock.advance(INTERVAL)
        assert seen.events == [PresenceEvent("a", "ann", {"role": "admin"}, True)]
        assert list(watch.people) == ["ann"]
        first.ends()
        clock.advance(INTERVAL)
        assert seen.names == ["+ann"]
        second.ends()
        clock.advance(INTERVAL)
        assert seen.names == ["+ann", "-ann"]
        assert watch.people == {}

    def test_a_second_watch_gets_the_present_users_and_stops_independently(self) -> None:
        clock, first, second = Clock(), Seen(), Seen()
        hub = Hub(reactor=clock)
        hub.join(Stub().connection, "a", name="ann")
        one = hub.watch("a", first)
        two = hub.watch("a", second)
        assert first.names == second.names == ["+ann"]
        one.stop()
        hub.join(Stub().connection, "a", name="bob")
        clock.advance(INTERVAL)
        assert (first.names, second.names) == (["+ann"], ["+ann", "+bob"])
        two.stop()
        two.stop()
        hub.join(Stub().connection, "a", name="eve")
        assert second.names == ["+ann", "+bob"] and not clock.getDelayedCalls()

    def test_an_error_of_a_callback_is_logged_and_the_watch_goes_on(self, logged: Callable[..., Any]) -> None:
        clock, seen = Clock(), Seen()
        hub = Hub(reactor=clock)
        hub.watch("a", lambda event: 1 / 0)
        hub.watch("a", seen)
        hub.join(Stub().connection, "a", name="ann")
        clock.advance(INTERVAL)
        assert seen.names == ["+ann"]
        assert len(logged(ZeroDivisionError)) == 1

    def test_no_event_is_caused_by_other_rooms_or_members_without_a_name(self) -> None:
        clock, seen = Clock(), Seen()
        hub = Hub(reactor=clock)
        hub.watch("a", seen)
        hub.join(Stub().connection, "a")
        hub.join(Stub().connection, "b", name="ann")
        clock.advance(INTERVAL)
        assert seen.names == []

    def test_a_callback_that_is_not_callable_is_refused(self) -> None:
        with pytest.raises(TypeError, match="give a function of a PresenceEvent"):
            Hub().watch("a", None)  # type: ignore[arg-type]


class TestSeveralHubs:
    """Events of users of several hubs."""

    def later(self, *nodes: Node, seconds: float = ANNOUNCE_DELAY + INTERVAL) -> None:
        """Let the delays pass, and everything arrive."""
        for _ in range(3):
            settle(*nodes)
            for node in nodes:
                node.clock.advance(seconds / 3)
        settle(*nodes)

    @pytest.fixture
    def nodes(self) -> list[Node]:
        server = SimulatedRedis()
        return [Node(server), Node(server)]

    def test_events_of_other_hubs_are_seen_without_a_member_here(self, nodes: list[Node]) -> None:
        one, two = nodes
        seen = Seen()
        watch = one.hub.watch("a", seen)
        settle(one)
        member = two.joins("a", name="ann", data=[1])
        self.later(one, two)
        assert seen.events == [PresenceEvent("a", "ann", [1], True)]
        members = [one.joins("a", name="ann"), one.joins("a", name="bob")]
        self.later(one, two)
        member.ends()
        self.later(one, two)
        assert seen.names == ["+ann", "+bob"]
        for each in members:
            each.ends()
        self.later(one, two)
        assert seen.names[:2] == ["+ann", "+bob"] and sorted(seen.names[2:]) == ["-ann", "-bob"]
        watch.stop()
        settle(one)
        assert "a" not in one.readers

    def test_a_loss_of_redis_reports_no_user_as_gone(self, nodes: list[Node], logged: Callable[..., Any]) -> None:
        one, two = nodes
        seen = Seen()
        one.hub.watch("a", seen)
        settle(one)
        ann, bob = two.joins("a", name="ann"), two.joins("a", name="bob")
        self.later(one, two)
        for node in nodes:
            node.link_.cut()
        one.joins("a", name="eve", settle=False)
        self.later(one, two)
        bob.ends()
        one.returns()
        self.later(one, two)
        # The other hub is not back yet, and its members are not listed.
        assert sorted(seen.names) == ["+ann", "+bob", "+eve"]
        two.returns()
        one.clock.advance(GRACE)
        one.link_.beat()
        self.later(one, two)
        assert sorted(seen.names) == ["+ann", "+bob", "+eve", "-bob"]
        assert ann.heard == []
        logged(type(None))

    def test_a_list_that_the_server_refuses_is_no_leave_of_the_users_of_other_hubs(
        self, nodes: list[Node], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one, two = nodes
        seen = Seen()
        one.hub.watch("a", seen)
        settle(one)
        ann = two.joins("a", name="ann")
        self.later(one, two)
        with monkeypatch.context() as refusing:
            refusing.setattr(one.link_, "roster", lambda *page: fail(refused("ERR the server is busy")))
            one.joins("a", name="bob")
            self.later(one, two)
            assert seen.names == ["+ann", "+bob"]
        ann.ends()
        self.later(one, two)
        assert seen.names == ["+ann", "+bob", "-ann"]

    def test_a_change_without_an_announcement_is_reported_at_the_next_sign_of_life(self, nodes: list[Node]) -> None:
        one, two = nodes
        seen = Seen()
        one.hub.watch("a", seen)
        settle(one)
        one.clock.advance(INTERVAL)
        two.joins("a", name="ann")
        two.link_.server.subscribers["a"].clear()
        self.later(one, two)
        assert seen.names == []
        one.link_.beat()
        self.later(one, two)
        assert seen.names == ["+ann"]
