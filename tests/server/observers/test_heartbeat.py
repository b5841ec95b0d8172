"""Calls that wait while the reactor is blocked."""

from __future__ import annotations

from collections.abc import Callable

from twisted_beastws.server.observers.heartbeat import Heartbeat

from ...support.waiting import await_that


class Turns:
    """A reactor whose calls from threads wait for the next `turn`."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def callFromThread(self, call: Callable[[], None]) -> None:
        self.waiting.append(call)

    def turn(self) -> None:
        waiting, self.waiting = self.waiting, []
        for call in waiting:
            call()


class TestHeartbeat:
    """The thread that asks the reactor for a sign of life."""

    def test_a_blocked_reactor_has_at_most_one_pending_call(self) -> None:
        reactor, lags, times = Turns(), list[float](), [10.0, 10.5, 20.0, 20.25]
        heart = Heartbeat(reactor, 1000, lags.append, lambda: times.pop(0))
        for _ in range(3):
            heart.request()
        assert lags == [] and len(reactor.waiting) == 1
        reactor.turn()
        heart.request()
        reactor.turn()
        assert lags == [0.5, 0.25]

    def test_a_stopped_heart_makes_no_call(self) -> None:
        reactor, lags = Turns(), list[float]()
        heart = Heartbeat(reactor, 1000, lags.append)
        heart.request()
        heart.stop()
        reactor.turn()
        assert lags == []

    def test_the_thread_asks_at_each_interval_until_it_is_stopped(self) -> None:
        reactor, lags = Turns(), list[float]()
        heart = Heartbeat(reactor, 0.001, lags.append)
        heart.start()

        def measured() -> bool:
            reactor.turn()
            return len(lags) >= 3

        await_that("three lags are measured", measured)
        heart.stop()
        assert all(lag >= 0 for lag in lags)
