"""The backplane of one hub alone, and what all have in common."""

from __future__ import annotations

import gc
import tracemalloc

import pytest

from twisted_beastws.hub import LocalBackplane, Message, Roster, backplane
from twisted_beastws.hub.backplane import CHUNK, CHUNK_SIZE, BackplaneState, order_of

from .stubs import outcome


class TestIds:
    """The ids of messages."""

    def test_ids_are_in_the_order_of_their_numbers(self) -> None:
        ids = ["0-0", "9-10", "10-2", "10-10", "1700000000000-0"]
        assert sorted(ids, key=order_of) == ids

    @pytest.mark.parametrize("text", ["", "5", "5-", "-5", "5-5-5", "a-b", "5-5\n", "+", "\u0665-1", "1" * 20 + "-1"])
    def test_a_text_that_is_no_id_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="no message's id"):
            order_of(text)


class Local:
    def __init__(self, **options: int) -> None:
        self.time = 5.0
        self.backplane = LocalBackplane(now=lambda: self.time, **options)
        self.delivered: list[tuple[Message, object]] = []
        self.backplane.start(lambda *delivery: self.delivered.append(delivery))

    def publish(self, room: str, data: str) -> str:
        published: str = outcome(self.backplane.publish(room, data, True, None))
        return published

    def history(self, room: str, after: str = "0-0") -> list[str | bytes]:
        return [message.data for message in outcome(self.backplane.history(room, after)).messages]


class TestPublish:
    """Publishing on the backplane of one process."""

    def test_a_message_is_delivered_at_once(self) -> None:
        local, somebody = Local(), object()
        published = local.backplane.publish("a", "hello", True, somebody)
        assert local.delivered == [(Message("a", "hello", "5000-0"), somebody)]
        assert outcome(published) == "5000-0"

    def test_ids_rise_even_if_the_clock_stands(self) -> None:
        local = Local()
        ids = [local.publish("a", "1"), local.publish("b", "2")]
        local.time = 4.0
        ids.append(local.publish("a", "3"))
        local.time = 5.001
        ids.append(local.publish("a", "4"))
        assert ids == ["5000-0", "5000-1", "5000-2", "5001-0"]

    @pytest.mark.parametrize(("room", "keep", "history"), [(None, True, 100), ("a", False, 100), ("a", True, 0)])
    def test_a_message_that_is_not_kept_has_no_id(self, room: str | None, keep: bool, history: int) -> None:
        local = Local(history=history)
        local.backplane.publish(room, "hello", keep, None)
        assert local.delivered[0][0].id is None
        assert local.backplane.history_size == 0

    def test_the_backplane_reports_these_states(self) -> None:
        backplane = LocalBackplane()
        states = [backplane.state]
        backplane.start(lambda *delivery: None)
        states.append(backplane.state)
        backplane.stop()
        states.append(backplane.state)
        assert states == [BackplaneState.STOPPED, BackplaneState.CONNECTED, BackplaneState.STOPPED]


class TestHistory:
    """The history of each room, and its limits."""

    def test_each_room_has_its_own_history(self) -> None:
        local = Local()
        local.publish("a", "1")
        second = local.publish("b", "2")
        local.publish("b", "3")
        assert [local.history("a"), local.history("b"), local.history("c")] == [["1"], ["2", "3"], []]
        assert local.history("b", second) == ["3"]

    @pytest.mark.parametrize("published", [2, 3, 4])
    def test_the_history_has_a_bounded_number_of_messages(self, published: int) -> None:
        local = Local(history=3)
        for number in range(published):
            local.publish("a", str(number))
        assert local.history("a") == [str(number) for number in range(published)][-3:]

    def test_a_history_is_complete_while_its_first_message_is_kept(self) -> None:
        local = Local(history=2)
        ids = [local.publish("a", str(number)) for number in range(3)]
        assert [outcome(local.backplane.history("a", each)).complete for each in ids] == [False, True, True]

    @pytest.mark.parametrize(("published", "complete"), [(0, True), (1, True), (2, True), (3, False)])
    def test_a_history_from_the_beginning_is_complete_until_a_message_is_dropped(
        self, published: int, complete: bool
    ) -> None:
        local = Local(history=2)
        for number in range(published):
            local.publish("a", str(number))
        local.publish("b", "another room")
        assert outcome(local.backplane.history("a", "0-0")).complete is complete
        assert outcome(local.backplane.history("b", "0-0")).complete
        assert outcome(local.backplane.history("c", "0-0")).complete

    def test_a_history_is_not_complete_for_a_room_that_may_have_lost_all_messages(self) -> None:
        local = Local()
        local.publish("a", "x" * 1000)
        local = Local(max_history=local.backplane.history_size)
        local.publish("a", "x" * 1000)
        assert outcome(local.backplane.history("a", "0-0")).complete
        local.publish("b", "x" * 1000)
        assert [outcome(local.backplane.history(room, "0-0")).complete for room in "abc"] == [False, True, False]
        local.publish("a", "x")
        assert [outcome(local.backplane.history(room, "0-0")).complete for room in "abc"] == [False, False, False]
        # No public name shows how much memory the rooms take.
        assert len(local.backplane._cut) <= len(local.backplane._kept)

    def test_a_history_is_not_complete_if_none_is_kept(self) -> None:
        assert not outcome(Local(history=0).backplane.history("a", "0-0")).complete

    def test_a_long_history_is_read_in_parts(self) -> None:
        local = Local(history=CHUNK + 1)
        ids = [local.publish("a", str(number)) for number in range(CHUNK + 1)]
        first = outcome(local.backplane.history("a", "0-0"))
        assert (len(first.messages), first.more) == (CHUNK, True)
        last = outcome(local.backplane.history("a", ids[-2]))
        assert (len(last.messages), last.more) == (1, False)

    @pytest.mark.parametrize(("size", "parts"), [(CHUNK_SIZE // 2, 2), (CHUNK_SIZE // 2 + 1, 1), (CHUNK_SIZE * 2, 1)])
    def test_a_part_of_a_history_has_a_bounded_size(self, size: int, parts: int) -> None:
        local = Local()
        for _ in range(3):
            local.publish("a", "x" * size)
        found = outcome(local.backplane.history("a", "0-0"))
        assert (len(found.messages), found.more) == (parts, True)

    def test_all_rooms_together_are_bounded_and_the_least_recent_room_is_dropped(self) -> None:
        local = Local()
        local.publish("a", "x" * 1000)
        size = local.backplane.history_size - local.backplane.ROOM
        assert 1000 < size < 1500
        full = 3 * size + 2 * local.backplane.ROOM
        local = Local(max_history=full)
        for room in ("a", "b", "a"):
            local.publish(room, "x" * 1000)
        assert local.backplane.history_size == full
        local.publish("c", "x" * 1000)
        assert local.backplane.history_size == full
        assert [len(local.history(room)) for room in "abc"] == [2, 0, 1]
        local.publish("c", "x" * 1001)
        assert [len(local.history(room)) for room in "abc"] == [0, 0, 2]

    def test_many_rooms_with_short_messages_are_bounded_as_well(self) -> None:
        backplane = LocalBackplane(max_history=1 << 20)
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for number in range(3000):
                backplane.publish(f"room {number:059}", "few words", True, None)
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert after - before < 1.25 * (1 << 20)

    def test_a_message_too_long_for_the_history_is_not_kept(self) -> None:
        local = Local(max_history=1000)
        local.publish("a", "x" * 2000)
        assert local.backplane.history_size == 0
        assert local.history("a") == []


class TestNames:
    """The rooms that the backplane remembers."""

    def test_an_empty_room_is_forgotten(self) -> None:
        backplane = LocalBackplane()
        backplane.enter("a", "1", "ann")
        backplane.enter("a", "2", "ann")
        assert outcome(backplane.who("a")) == {"ann": ""}
        backplane.exit("a", "1")
        backplane.exit("a", "2")
        backplane.exit("a", "3")
        assert outcome(backplane.who("a")) == {}
        # No public name shows that no memory is left.
        assert backplane._people == {}


class TestRoster:
    """The names of a room's members."""

    NAMES = ("bob", "ann", "eve", "ann")

    def entered(self) -> LocalBackplane:
        local = LocalBackplane()
        for key, name in enumerate(self.NAMES):
            local.enter("a", str(key), name)
        return local

    @pytest.mark.parametrize(
        ("after", "most", "names"),
        [
            (None, 4, ["ann", "bob", "eve"]),
            (None, 3, ["ann", "bob", "eve"]),
            (None, 2, ["ann", "bob"]),
            ("ann", 2, ["bob", "eve"]),
            ("b", 1, ["bob"]),
            ("eve", 1, []),
        ],
    )
    def test_sorted_names_are_listed_in_pages(self, after: str | None, most: int, names: list[str]) -> None:
        assert outcome(self.entered().roster("a", after, most)) == Roster(names, 4)

    def test_one_of_two_members_with_the_same_name_can_leave(self) -> None:
        backplane = self.entered()
        backplane.exit("a", "1")
        backplane.exit("a", "1")
        assert outcome(backplane.roster("a", None, 5)) == Roster(["ann", "bob", "eve"], 3)
        for key in "023":
            backplane.exit("a", key)
        assert outcome(backplane.roster("a", None, 5)) == Roster([], 0)
        # No public name shows that no memory is left.
        assert backplane._people == {}

    def test_the_roster_of_a_large_room_costs_a_page(self) -> None:
        backplane = LocalBackplane()
        for key in range(20_000):
            backplane.enter("a", str(key), f"{key:05}")
        tracemalloc.start()
        try:
            page = outcome(backplane.roster("a", "10000", 1000))
            assert page == Roster([f"{key:05}" for key in range(10_001, 11_001)], 20_000)
            assert tracemalloc.get_traced_memory()[1] < 200_000
        finally:
            tracemalloc.stop()


def test_a_part_of_a_long_history_is_found_without_reading_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    local = Local(history=10_000)
    ids = [local.publish("a", str(number)) for number in range(10_000)]
    reads: list[str] = []

    def order_read(text: str) -> object:
        reads.append(text)
        return order_of(text)

    monkeypatch.setattr(backplane, "order_of", order_read)
    assert local.history("a", ids[5000])[0] == "5001"
    assert len(reads) < 20
