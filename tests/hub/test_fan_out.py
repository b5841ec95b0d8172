"""Messages to large rooms: a little at a time, in order, to exactly the members of their moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from twisted_beastws import Hub
from twisted_beastws.hub import LocalBackplane, PublishError, fan_out
from twisted_beastws.hub.backplane import Message
from twisted_beastws.hub.fan_out import OVERHEAD, SLICE, SLICE_SIZE, SMALL_SLICE, TURN, FanOut, FanOutDelivery, cost_of

from .stubs import Stub, outcome

LARGE = 3 * SLICE


class Turns:
    """A reactor that only has turns."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []

    def callLater(self, delay: float, call: Callable[[], None]) -> None:
        assert delay == 0
        self.due.append(call)

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            due, self.due = self.due, []
            for call in due:
                call()

    def all_turns(self) -> None:
        while self.due:
            self.turn()

    @property
    def reactor(self) -> Any:
        return self


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Turns:
    monkeypatch.setattr(fan_out, "TURN", 0.0)
    return Turns()


@pytest.fixture
def hub(turns: Turns) -> Hub:
    return Hub(LocalBackplane(history=1000), reactor=turns.reactor)


def crowd(hub: Hub, room: str, count: int = LARGE) -> list[Stub]:
    members = [Stub() for _ in range(count)]
    for member in members:
        assert outcome(hub.join(member.connection, room)) is True
    return members


def heard(members: list[Stub]) -> set[tuple[str | bytes, ...]]:
    return {tuple(member.heard) for member in members}


class TestTurns:
    """A message to a large room takes several turns of the reactor."""

    def test_a_small_room_gets_a_message_at_once(self, hub: Hub, turns: Turns) -> None:
        members = crowd(hub, "a", SLICE)
        assert outcome(hub.publish("a", "hello")) is not None
        assert heard(members) == {("hello",)}
        assert not turns.due

    def test_a_larger_room_gets_it_a_slice_a_turn(self, hub: Hub, turns: Turns) -> None:
        members = crowd(hub, "a", LARGE + 1)
        hub.publish("a", "hello")
        for turn in range(5):
            assert sum(len(member.heard) for member in members) == min(turn * SLICE, LARGE + 1)
            turns.turn()
        assert heard(members) == {("hello",)}
        assert not turns.due

    def test_long_messages_are_sent_to_fewer_members_a_turn(self, hub: Hub, turns: Turns) -> None:
        members = crowd(hub, "a", SMALL_SLICE + 1)
        hub.publish("a", b"x" * SLICE_SIZE)
        turns.turn()
        assert [len(member.heard) for member in members] == [1] * SMALL_SLICE + [0]
        turns.all_turns()
        assert [len(member.heard) for member in members] == [1] * (SMALL_SLICE + 1)

    def test_a_quiet_room_is_not_delayed_by_a_busy_one(self, hub: Hub, turns: Turns) -> None:
        crowd(hub, "busy", 50 * SLICE)
        quiet = crowd(hub, "quiet", 1)
        for number in range(100):
            hub.publish("busy", str(number))
        turns.turn()
        hub.publish("quiet", "hello")
        turns.turn(2)
        assert heard(quiet) == {("hello",)}

    def test_a_fan_out_works_for_its_time_in_each_turn_and_no_longer(self) -> None:
        clock, turns = Clock(), Turns()
        given: list[int] = []

        def give(delivery: FanOutDelivery, members: list[int]) -> None:
            given.extend(members)
            clock.advance(len(members) * 10e-6)

        room = FanOut(lambda room, number: list(range(10_000)), give, lambda: turns.reactor, clock.seconds)
        assert room.add(Message("a", "hello"), None) is not None
        held = [len(given)]
        while turns.due:
            before = len(given)
            turns.turn()
            held.append(len(given) - before)
        assert given == list(range(10_000))
        assert max(held) * 10e-6 <= TURN + SLICE * 10e-6
        assert len(held) == pytest.approx(10_000 * 10e-6 / TURN, rel=0.2)

    def test_publishing_without_pause_leaves_half_of_the_time_to_others(self) -> None:
        clock, turns = Clock(), Turns()

        def give(delivery: FanOutDelivery, members: list[int]) -> None:
            clock.advance(len(members) * 10e-6)

        room = FanOut(lambda room, number: list(range(SLICE + 1)), give, lambda: turns.reactor, clock.seconds)
        at_once = 0
        for _ in range(100):
            at_once += room.add(Message("a", "hello"), None) is None
        assert at_once == pytest.approx(TURN / (SLICE * 10e-6), abs=2)
        turns.all_turns()
        # Others took as long as the fan-out can take in a turn.
        clock.advance(TURN)
        assert room.add(Message("a", "hello"), None) is None


class TestOrder:
    """The order of messages over several turns."""

    def test_every_member_gets_a_rooms_messages_in_their_order(self, hub: Hub, turns: Turns) -> None:
        members = crowd(hub, "a")
        for number in range(5):
            hub.publish("a", str(number))
            turns.turn()
        turns.all_turns()
        assert heard(members) == {("0", "1", "2", "3", "4")}

    def test_a_message_for_all_comes_between_those_before_and_after_it(self, hub: Hub, turns: Turns) -> None:
        a, b = crowd(hub, "a"), crowd(hub, "b")
        both = crowd(hub, "a", 1)
        hub.join(both[0].connection, "b")
        hub.publish("a", "a1")
        hub.publish("b", "b1")
        fired: list[None] = []
        hub.publish_to_all("all").addCallback(fired.append)
        hub.publish("a", "a2")
        hub.publish("b", "b2")
        turns.turn(3)
        assert not fired
        turns.all_turns()
        assert heard(a) == {("a1", "all", "a2")}
        assert heard(b) == {("b1", "all", "b2")}
        assert set(both[0].heard[:2]) == {"a1", "b1"} and both[0].heard[2] == "all"
        assert fired

    def test_a_message_published_because_of_one_comes_after_it(self, hub: Hub, turns: Turns) -> None:
        members = crowd(hub, "a")
        members[0].sending = lambda message: message == "first" and hub.publish("a", "second")
        hub.publish("a", "first")
        turns.all_turns()
        assert heard(members) == {("first", "second")}

    def test_a_message_published_because_of_one_comes_after_it_over_turns_too(self) -> None:
        clock, turns = Clock(), Turns()
        got: list[str] = []

        def give(delivery: FanOutDelivery, members: list[int]) -> None:
            got.extend([str(delivery.message.data)] * len(members))
            clock.advance(TURN)
            if got == ["first"] * SLICE:
                assert room.add(Message("a", "second"), None) is not None

        room = FanOut(lambda room, number: list(range(LARGE)), give, lambda: turns.reactor, clock.seconds)
        assert room.add(Message("a", "first"), None) is not None
        turns.all_turns()
        assert got == ["first"] * LARGE + ["second"] * LARGE


class TestMembers:
    """Members that join or leave during a fan-out."""

    def test_a_member_that_joins_gets_later_messages(self, hub: Hub, turns: Turns) -> None:
        members = crowd(hub, "a")
        for message in ("1", "2"):
            hub.publish("a", message)
        turns.turn()
        late = crowd(hub, "a", 1)
        hub.publish("a", "3")
        hub.publish_to_all("4")
        turns.all_turns()
        assert heard(members) == {("1", "2", "3", "4")}
        assert heard(late) == {("3", "4")}

    def test_a_message_for_all_is_not_sent_to_later_members(self, hub: Hub, turns: Turns) -> None:
        members = crowd(hub, "a")
        hub.publish_to_all("all")
        late = crowd(hub, "a", 1)
        again = members[0]
        hub.leave(again.connection, "a")
        hub.join(again.connection, "a")
        turns.all_turns()
        assert heard(late) == heard([again]) == {()}
        assert heard(members[1:]) == {("all",)}

    def test_a_member_that_left_gets_no_message(self, hub: Hub, turns: Turns) -> None:
        members = crowd(hub, "a")
        hub.publish("a", "1")
        hub.publish("a", "2")
        turns.turn()
        first, last = members[0], members[-1]
        for member in (first, last):
            hub.leave(member.connection, "a")
        turns.all_turns()
        assert (first.heard, last.heard) == (["1"], [])

    def test_a_member_of_another_room_gets_a_message_for_all(self, hub: Hub, turns: Turns) -> None:
        members = crowd(hub, "a")
        last = members[-1]
        hub.join(last.connection, "b")
        hub.publish_to_all("all")
        turns.turn()
        hub.leave(last.connection, "a")
        turns.all_turns()
        assert heard(members) == {("all",)}

    def test_a_member_that_returns_gets_each_message_once(self, hub: Hub, turns: Turns) -> None:
        crowd(hub, "a")
        first = hub.publish("a", "0")
        turns.all_turns()
        for number in range(1, 4):
            hub.publish("a", str(number))
        turns.turn()
        back = Stub()
        joining = hub.join(back.connection, "a", after=outcome(first))
        hub.publish("a", "4")
        turns.turn()
        hub.publish("a", "5")
        turns.all_turns()
        assert outcome(joining) is True
        assert back.heard == ["1", "2", "3", "4", "5"]

    def test_a_long_history_comes_a_part_a_turn(self, hub: Hub, turns: Turns) -> None:
        ids = [outcome(hub.publish("a", str(number))) for number in range(1000)]
        back = Stub()
        joining = hub.join(back.connection, "a", after=ids[0])
        assert len(back.heard) == fan_out_parts() * 32
        hub.publish("a", "1000")
        turns.all_turns()
        assert outcome(joining) is True
        assert back.heard == [str(number) for number in range(1, 1001)]


def fan_out_parts() -> int:
    from twisted_beastws.hub.sending import PARTS

    return PARTS


class TestPublishers:
    """Deferreds and limits of the publishers."""

    def test_publish_fires_when_the_message_was_sent_to_the_members(self, hub: Hub, turns: Turns) -> None:
        members = crowd(hub, "a")
        first, second = hub.publish("a", "1"), hub.publish("a", "2")
        turns.turn(3)
        assert heard(members) == {("1",)}
        fired: list[str | None] = []
        second.addCallback(fired.append)
        assert outcome(first) and not fired
        turns.all_turns()
        assert heard(members) == {("1", "2")}
        assert fired

    def test_a_sender_whose_hook_returns_it_goes_no_faster(
        self, hub: Hub, turns: Turns, connect: Callable[..., Any]
    ) -> None:
        from twisted_beastws import WebSocketProtocol

        class Talk(WebSocketProtocol):
            def text_received(self, text: str) -> Deferred[Any]:
                return hub.publish("a", text)

        crowd(hub, "a")
        sender = connect(Talk)
        sender.sends(sender.text("hello") * 10)
        # Beside the one that waits nothing was published.
        assert hub.waiting == cost_of("hello")
        turns.all_turns()
        assert hub.waiting == 0
        sender.leaves()

    def test_cancelling_a_publication_does_not_withdraw_the_message(self, hub: Hub, turns: Turns) -> None:
        members = crowd(hub, "a")
        done = hub.publish("a", "hello")
        done.addErrback(lambda failure: None)
        done.cancel()
        turns.all_turns()
        assert heard(members) == {("hello",)}

    @pytest.mark.parametrize(("more", "taken"), [(-1, True), (0, True), (1, False)])
    def test_messages_beyond_max_waiting_are_refused(self, turns: Turns, more: int, taken: bool) -> None:
        hub = Hub(reactor=turns.reactor, max_waiting=10 * cost_of("x" * 100))
        members = crowd(hub, "a")
        quiet = crowd(hub, "b", 1)
        for _ in range(9):
            hub.publish("a", "x" * 100)
        assert hub.waiting == 9 * cost_of("x" * 100)
        last = hub.publish("a", "y" * (100 + more))
        error = outcome(last)
        if not taken:
            assert isinstance(error, PublishError) and not error.delivered_here
            assert str(error) == "the hub is too slow: too many messages wait to be sent"
        # A room in which nothing waits has room for a message.
        hub.publish("b", "z" * 100)
        turns.all_turns()
        assert {len(member.heard) for member in members} == {9 + taken}
        assert heard(quiet) == {("z" * 100,)}
        assert hub.waiting == 0

    @pytest.mark.parametrize(
        ("value", "error"), [(0, ValueError), (-1, ValueError), ("1", TypeError), (True, TypeError)]
    )
    def test_an_invalid_max_waiting_is_refused(self, value: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match=r"Hub\(max_waiting="):
            Hub(max_waiting=value)

    def test_a_refused_message_is_in_no_history(self, turns: Turns) -> None:
        hub = Hub(reactor=turns.reactor, max_waiting=OVERHEAD)
        crowd(hub, "a")
        hub.publish("a", "1")
        refused = hub.publish("a", "2")
        turns.all_turns()
        assert isinstance(outcome(refused), PublishError)
        back = Stub()
        hub.join(back.connection, "a", after="0-0")
        assert back.heard == ["1"]

    def test_bytes_that_change_later_are_sent_as_they_were(self, hub: Hub, turns: Turns) -> None:
        members = crowd(hub, "a")
        data = bytearray(b"before")
        hub.publish("a", data)  # type: ignore[arg-type]
        data[:] = b"behind"
        turns.all_turns()
        assert heard(members) == {(b"before",)}


class TestStop:
    """The end of a hub during a fan-out."""

    def test_accepted_messages_are_sent_before_stop_fires(self, hub: Hub, turns: Turns) -> None:
        members = crowd(hub, "a")
        hub.publish("a", "1")
        hub.publish_to_all("2")
        stopped: list[None] = []
        hub.stop().addCallback(stopped.append)
        hub.publish("a", "late")
        turns.turn()
        assert not stopped
        turns.all_turns()
        assert stopped
        assert heard(members) == {("1", "2")}


STEPS = ("join a", "join b", "leave a", "leave b", "publish a", "publish b", "publish to all", "turn")


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 5)), max_size=60))
def test_each_member_hears_a_contiguous_part_of_each_room_from_its_join_on(steps: list[tuple[str, int]]) -> None:
    """A member hears all messages of a room from its join to its leave, in their order."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fan_out, "TURN", 0.0)
        patch.setattr(fan_out, "SLICE", 2)
        turns = Turns()
        hub = Hub(reactor=turns.reactor)
        stubs = [Stub() for _ in range(6)]
        inside: dict[tuple[int, str], int] = {}
        published: list[tuple[str, str]] = []
        checks: list[tuple[int, str, int, int | None]] = []

        for step, which in steps:
            action, _, room = step.partition(" ")
            if action == "join" and (which, room) not in inside:
                hub.join(stubs[which].connection, room)
                inside[which, room] = len(published)
            elif action == "leave" and (which, room) in inside:
                hub.leave(stubs[which].connection, room)
                checks.append((which, room, inside.pop((which, room)), len(published)))
            elif step == "publish to all":
                published.append(("all", str(len(published))))
                hub.publish_to_all(published[-1][1])
            elif action == "publish":
                published.append((room, str(len(published))))
                hub.publish(room, published[-1][1])
            elif action == "turn":
                turns.turn()
        turns.all_turns()
        assert hub.waiting == 0
        checks += [(which, room, since, None) for (which, room), since in inside.items()]
        for stub in stubs:
            numbers = [int(said) for said in stub.heard]
            assert len(set(numbers)) == len(numbers)
            for place in ("a", "b"):
                # A message for all is in order with those of each room.
                own = [number for number in numbers if published[number][0] in (place, "all")]
                assert own == sorted(own)
        for which, room, since, until in checks:
            last = len(published) if until is None else until
            due = [number for number in range(since, last) if published[number][0] == room]
            got = [int(said) for said in stubs[which].heard if int(said) in due]
            assert got == (due if until is None else due[: len(got)])
