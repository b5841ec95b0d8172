"""Tests of `twisted_beastws.connection.scheduler`."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from twisted_beastws.connection.scheduler import AFTER_FAULT, RESOLUTION, PingScheduler


class Watched:
    """Records the time of each look, and asks for the next look ``again`` seconds later."""

    def __init__(self, again: float | None = None, then: Callable[[], object] | None = None) -> None:
        self.due: int | None = None
        self.seen: list[float] = []
        self.again = again
        self.then = then

    def look(self, now: float) -> float | None:
        self.seen.append(now)
        if self.then is not None:
            self.then()
        return None if self.again is None else now + self.again


def pump(clock: Clock, seconds: float) -> None:
    """Advance the clock as a reactor does, and make each call at its own time."""
    until = clock.seconds() + seconds
    while clock.calls and clock.calls[0].getTime() <= until:
        clock.advance(max(0.0, clock.calls[0].getTime() - clock.seconds()))
    clock.advance(max(0.0, until - clock.seconds()))


def test_each_clock_has_one_scheduler() -> None:
    clock, other = Clock(), Clock()
    assert PingScheduler.of(clock) is PingScheduler.of(clock)
    assert PingScheduler.of(clock) is not PingScheduler.of(other)


def test_all_watches_share_one_call_and_no_watch_needs_no_call(clock: Clock) -> None:
    scheduler = PingScheduler(clock)
    assert clock.calls == []
    watched = [Watched() for _ in range(100)]
    for number, one in enumerate(watched):
        scheduler.watch(one, 100.0 - number)
        assert len(clock.calls) == 1
    assert clock.calls[0].getTime() == 1.0
    for one in watched[1:]:
        scheduler.watch(one, None)
        assert len(clock.calls) == 1
    scheduler.watch(watched[0], None)
    assert clock.calls == []
    assert all(one.due is None and not one.seen for one in watched)


def test_a_call_that_comes_too_early_looks_at_nothing(clock: Clock) -> None:
    scheduler = PingScheduler(clock)
    first, second = Watched(), Watched()
    scheduler.watch(first, 1.0)
    scheduler.watch(second, 100.0)
    scheduler.watch(first, None)
    clock.advance(1.0)
    assert not first.seen and not second.seen
    assert [call.getTime() for call in clock.calls] == [100.0]
    clock.advance(99.0)
    assert second.seen == [100.0]


def test_watches_of_one_tick_share_a_wake_up(clock: Clock) -> None:
    scheduler = PingScheduler(clock)
    tick = 1 / RESOLUTION
    watched = [Watched() for _ in range(10)]
    for number, one in enumerate(watched):
        scheduler.watch(one, 1.0 + (number + 1) * tick / 10)
    assert [call.getTime() for call in clock.calls] == [1.0 + tick]
    clock.advance(1.0)
    assert not any(one.seen for one in watched)
    clock.advance(tick)
    assert all(one.seen == [1.0 + tick] for one in watched)
    assert clock.calls == []


def test_the_last_wish_of_a_watch_replaces_the_earlier_ones(clock: Clock) -> None:
    scheduler = PingScheduler(clock)
    watched = Watched()
    scheduler.watch(watched, 5.0)
    scheduler.watch(watched, 2.0)
    scheduler.watch(watched, 7.0)
    pump(clock, 10.0)
    assert watched.seen == [7.0]
    assert clock.calls == []


def test_a_time_in_the_past_is_due_at_once(clock: Clock) -> None:
    clock.advance(10.0)
    scheduler = PingScheduler(clock)
    watched = Watched()
    scheduler.watch(watched, 3.0)
    assert watched.seen == []
    clock.advance(0)
    assert watched.seen == [10.0]


def test_a_look_can_ask_for_another_look(clock: Clock) -> None:
    scheduler = PingScheduler(clock)
    watched = Watched(again=5.0)
    scheduler.watch(watched, 5.0)
    pump(clock, 21.0)
    assert watched.seen == [5.0, 10.0, 15.0, 20.0]
    assert len(clock.calls) == 1
    watched.again = None
    pump(clock, 10.0)
    assert clock.calls == []


def test_a_look_without_wait_is_a_tick_later(clock: Clock) -> None:
    scheduler = PingScheduler(clock)
    watched = Watched(again=0.0)
    scheduler.watch(watched, 1.0)
    clock.advance(1.0)
    assert watched.seen == [1.0]
    assert [call.getTime() for call in clock.calls] == [1.0 + 1 / RESOLUTION]


def test_a_look_may_stop_the_watch_on_itself_and_others(clock: Clock) -> None:
    scheduler = PingScheduler(clock)
    watched = [Watched() for _ in range(5)]

    def stop() -> None:
        for one in watched:
            scheduler.watch(one, None)

    for one in watched:
        one.then = stop
        scheduler.watch(one, 1.0)
    clock.advance(1.0)
    assert sum(len(one.seen) for one in watched) == 1
    assert all(one.due is None for one in watched)
    assert clock.calls == []


def test_a_look_may_postpone_itself_and_others(clock: Clock) -> None:
    scheduler = PingScheduler(clock)
    watched = [Watched() for _ in range(5)]

    def put_off() -> None:
        for one in watched:
            one.then = None
            scheduler.watch(one, 3.0)

    for one in watched:
        one.then = put_off
        scheduler.watch(one, 1.0)
    clock.advance(1.0)
    assert sorted(one.seen for one in watched) == [[], [], [], [], [1.0]]
    assert len(clock.calls) == 1
    clock.advance(2.0)
    assert sorted(one.seen for one in watched) == [[1.0, 3.0], [3.0], [3.0], [3.0], [3.0]]
    assert clock.calls == []


def test_a_look_may_begin_another_watch(clock: Clock) -> None:
    scheduler = PingScheduler(clock)
    new = Watched()
    scheduler.watch(Watched(then=lambda: scheduler.watch(new, 1.5)), 1.0)
    clock.advance(1.0)
    assert new.seen == []
    clock.advance(0.5)
    assert new.seen == [1.5]
    assert clock.calls == []


def test_the_scheduler_does_not_keep_an_object_alive_after_its_watch(clock: Clock) -> None:
    gc.disable()
    try:
        scheduler = PingScheduler(clock)
        stays, goes = Watched(), Watched()
        for one in (stays, goes):
            scheduler.watch(one, 1.0)
        gone = weakref.ref(goes)
        scheduler.watch(goes, None)
        del goes, one
        assert gone() is None
        seen = weakref.ref(stays)
        clock.advance(1.0)
        del stays
        assert seen() is None
    finally:
        gc.enable()


def test_the_scheduler_does_not_keep_its_clock_alive() -> None:
    clock = Clock()
    watched = Watched()
    PingScheduler.of(clock).watch(watched, 1.0)
    PingScheduler.of(clock).watch(watched, None)
    gone = weakref.ref(clock)
    del clock
    gc.collect()
    assert gone() is None


wishes = st.lists(
    st.tuples(
        st.integers(0, 4),
        st.one_of(st.none(), st.floats(0, 4, allow_nan=False)),
        st.floats(0, 2, allow_nan=False),
    ),
    max_size=30,
)


@given(wishes)
def test_each_look_is_never_early_and_less_than_a_tick_late(
    wishes: list[Any] | list[tuple[int, None, float]] | list[tuple[int, float, float]],
) -> None:
    """Each wish that is not replaced or cancelled gets exactly one look, in [wish, wish + 1/32 s]."""
    clock = Clock()
    scheduler = PingScheduler(clock)
    watched = [Watched() for _ in range(5)]
    expected: list[list[float]] = [[] for _ in watched]
    standing: list[float | None] = [None] * len(watched)
    for index, delay, passes in wishes:
        wish = None if delay is None else clock.seconds() + delay
        scheduler.watch(watched[index], wish)
        standing[index] = wish
        assert len(clock.calls) == any(one.due is not None for one in watched)
        pump(clock, passes)
        for at, one in enumerate(watched):
            if len(one.seen) > len(expected[at]):
                met_due = standing[at]
                assert met_due is not None
                expected[at].append(met_due)
                standing[at] = None
            elif (due := standing[at]) is not None:
                assert due > clock.seconds() - 1 / RESOLUTION
    pump(clock, 10.0)
    for at, one in enumerate(watched):
        if (due := standing[at]) is not None:
            expected[at].append(due)
        assert len(one.seen) == len(expected[at])
        for met, wish in zip(one.seen, expected[at], strict=True):
            assert wish <= met <= wish + 1 / RESOLUTION + 1e-9
    assert clock.calls == []


def test_a_fault_in_one_look_leaves_it_and_the_others_watched(clock: Clock, logged: Callable[..., list[Any]]) -> None:
    """A look that raises is a bug of the library, but it must not stop the looks at other connections."""
    scheduler = PingScheduler(clock)
    watched = [Watched() for _ in range(5)]
    for one in watched:
        one.then = lambda: 1 // 0
        scheduler.watch(one, 1.0)
    later = Watched()
    scheduler.watch(later, 2.0)
    clock.advance(1.0)
    assert [len(one.seen) for one in watched] == [1] * 5
    assert len(logged(ZeroDivisionError)) == 5
    for one in watched:
        one.then = None
    pump(clock, 3.0)
    assert [one.seen for one in watched] == [[1.0, 1.0 + AFTER_FAULT]] * 5
    assert later.seen == [2.0]
    assert clock.calls == []


class Looking(Watched):
    """Asks ``times`` times for another look after the reactor has read."""

    def __init__(self, scheduler: PingScheduler, times: int) -> None:
        super().__init__()
        self.scheduler = scheduler
        self.times = times

    def look(self, now: float) -> float | None:
        super().look(now)
        if len(self.seen) <= self.times:
            self.scheduler.look_after_reading(self)
        return None


class TestLookAfterReading:
    """A look that waits until the reactor has read the sockets."""

    def test_the_look_is_two_turns_of_the_reactor_later(self, clock: Clock) -> None:
        scheduler = PingScheduler(clock)
        watched = Looking(scheduler, 1)
        scheduler.watch(watched, 1.0)
        clock.rightNow = 1.0
        for seen in (1, 1, 2):
            (call,) = clock.calls
            clock.calls.clear()
            call.called = 1
            call.func()
            assert watched.seen == [1.0] * seen
        assert clock.calls == []

    def test_the_look_is_repeated_as_often_as_asked_for(self, clock: Clock) -> None:
        scheduler = PingScheduler(clock)
        watched = [Looking(scheduler, times) for times in range(5)]
        for one in watched:
            scheduler.watch(one, 1.0)
        clock.advance(1.0)
        assert [len(one.seen) for one in watched] == [1, 2, 3, 4, 5]
        assert clock.calls == []

    @pytest.mark.parametrize("when", [None, 9.0])
    def test_another_time_replaces_the_look(self, clock: Clock, when: float | None) -> None:
        scheduler = PingScheduler(clock)
        watched = Looking(scheduler, 9)
        scheduler.watch(watched, 1.0)
        clock.rightNow = 1.0
        (call,) = clock.calls
        clock.calls.clear()
        call.called = 1
        call.func()
        scheduler.watch(watched, when)
        assert [call.getTime() for call in clock.calls] == ([] if when is None else [when])

    def test_a_fault_in_the_look_leaves_it_watched(self, clock: Clock, logged: Callable[..., list[Any]]) -> None:
        scheduler = PingScheduler(clock)
        watched = Looking(scheduler, 1)
        scheduler.watch(watched, 1.0)

        def fail() -> None:
            if len(watched.seen) == 2:
                raise ZeroDivisionError

        watched.then = fail
        clock.advance(1.0)
        assert len(logged(ZeroDivisionError)) == 1
        pump(clock, 2.0)
        assert watched.seen == [1.0, 1.0, 2.0]
        assert clock.calls == []


class Reactor(Clock):
    """A reactor whose calls follow a wall clock: `set` changes that clock, and `advance` lets time pass."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.true = 5000.0
        monkeypatch.setattr("twisted_beastws.connection.scheduler.seconds_of", lambda clock: lambda: self.true)
        monkeypatch.setattr("twisted_beastws.connection.scheduler.wall_clock_of", lambda clock: clock.seconds)

    def advance(self, amount: float) -> None:
        self.true += amount
        super().advance(amount)

    def set(self, amount: float) -> None:
        super().advance(amount) if amount > 0 else setattr(self, "rightNow", self.rightNow + amount)


class TestClockIsSet:
    """The system's clock is set while objects are watched (`docs/topics/timeouts.md`)."""

    @pytest.mark.parametrize("step", [-3600.0, 3600.0])
    def test_no_look_comes_too_early(self, monkeypatch: pytest.MonkeyPatch, step: float) -> None:
        reactor = Reactor(monkeypatch)
        scheduler = PingScheduler(reactor)
        watched = Watched()
        scheduler.watch(watched, 5010.0)
        reactor.set(step)
        scheduler.check_clock()
        pump(reactor, 9.9)
        assert watched.seen == []
        pump(reactor, 0.2)
        assert len(watched.seen) == 1
        assert reactor.calls == []

    def test_a_step_back_is_noticed_when_anything_is_watched(self, monkeypatch: pytest.MonkeyPatch) -> None:
        reactor = Reactor(monkeypatch)
        scheduler = PingScheduler(reactor)
        watched = Watched()
        scheduler.watch(watched, 5010.0)
        reactor.set(-3600.0)
        scheduler.watch(Watched(), 6000.0)
        pump(reactor, 11.0)
        assert len(watched.seen) == 1

    def test_a_check_changes_nothing_if_the_clock_was_not_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        reactor = Reactor(monkeypatch)
        scheduler = PingScheduler(reactor)
        scheduler.check_clock()
        scheduler.watch(Watched(), 5010.0)
        (call,) = reactor.calls
        scheduler.check_clock()
        assert reactor.calls == [call] and call.active()
