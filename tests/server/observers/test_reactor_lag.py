"""The lag of the reactor, and its busy time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from twisted_beastws.server.observers.reactor_lag import INTERVAL, LAGS, ReactorLag

from ...support.waiting import await_that


class Starting:
    """A reactor that starts when `run` is called; calls from threads wait for `turn`."""

    def __init__(self) -> None:
        self.starting: list[Callable[[], None]] = []
        self.waiting: list[Callable[[], None]] = []

    def callWhenRunning(self, call: Callable[[], None]) -> None:
        self.starting.append(call)

    def callFromThread(self, call: Callable[[], None]) -> None:
        self.waiting.append(call)

    def run(self) -> None:
        for call in self.starting:
            call()

    def turn(self) -> None:
        waiting, self.waiting = self.waiting, []
        for call in waiting:
            call()


def counts(lag: ReactorLag) -> dict[Any, int]:
    """The groups that are not empty, by their upper bounds."""
    return {bound: count for bound, count in zip((*LAGS, None), lag.lags, strict=True) if count}


class TestLag:
    """How late the reactor calls a timer."""

    @pytest.mark.parametrize(
        ("seconds", "bound"), [(0.0, 0.001), (0.001, 0.001), (0.0011, 0.0025), (0.05, 0.05), (0.0999, 0.1)]
    )
    def test_a_short_lag_counts_once_in_its_bucket(self, seconds: float, bound: float) -> None:
        lag = ReactorLag(None, lambda: 0.0)
        lag.sample(seconds)
        assert counts(lag) == {bound: 1} and lag.lag_seconds == seconds

    def test_a_long_lag_counts_for_each_call_that_was_missed(self) -> None:
        lag = ReactorLag(None, lambda: 0.0)
        lag.sample(0.97)
        # 0.97, 0.87 ... 0.07.
        assert counts(lag) == {0.1: 1, 0.25: 1, 0.5: 3, 1.0: 5}
        assert lag.lag_seconds == pytest.approx(5.2)

    def test_a_lag_above_all_buckets_is_counted(self) -> None:
        lag = ReactorLag(None, lambda: 0.0)
        lag.sample(10 + INTERVAL / 2)
        assert counts(lag)[None] == 1 and sum(lag.lags) == 101


class TestBusyTime:
    """How long the reactor works."""

    def test_the_busy_time_is_the_cpu_time_of_the_reactor(self) -> None:
        times = [5.0, 5.06, 5.16]
        lag = ReactorLag(Starting(), lambda: times.pop(0))
        lag.sample(0.0)
        lag.sample(0.02)
        lag.sample(0.1)
        assert lag.busy_seconds == pytest.approx(0.06 + 0.1)

    def test_the_busy_time_is_the_lag_if_the_code_waits(self) -> None:
        lag = ReactorLag(None, lambda: 7.0)
        lag.sample(0.0)
        lag.sample(3.0)
        assert lag.busy_seconds == 3.0


class TestService:
    """The measurement as a service."""

    def test_the_lag_is_measured_while_the_service_runs(self) -> None:
        reactor = Starting()
        lag = ReactorLag(reactor)
        lag.startService()
        assert reactor.waiting == []
        reactor.run()

        def counted() -> int:
            reactor.turn()
            return sum(lag.lags)

        await_that("a lag is counted", counted)
        lag.stopService()
        measured = list(lag.lags)
        reactor.turn()
        assert lag.lags == measured

    def test_a_service_that_stopped_before_the_reactor_ran_measures_nothing(self) -> None:
        reactor = Starting()
        lag = ReactorLag(reactor)
        lag.startService()
        lag.stopService()
        reactor.run()
        assert reactor.waiting == []
