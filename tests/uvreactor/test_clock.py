"""Tests of the reactor's clock, which follows the event loop's."""

from __future__ import annotations

import time
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from twisted_beastws.clock import seconds_of, wall_clock_of


def test_the_reactors_clock_follows_the_loops_clock(run: Any) -> None:
    async def ahead(reactor: Any) -> float:
        await deferLater(reactor, 0)
        return float(reactor.seconds() - reactor.loop.time())

    first = run(ahead)
    assert run(ahead) == pytest.approx(first, abs=0.002)


def test_the_reactors_clock_begins_at_the_time_of_day(run: Any) -> None:
    async def now(reactor: Any) -> float:
        return float(reactor.seconds())

    assert run(now) == pytest.approx(time.time(), abs=60)


@pytest.mark.parametrize("step", [-3600.0, 3600.0])
def test_the_clock_cannot_be_set(run: Any, monkeypatch: pytest.MonkeyPatch, step: float) -> None:
    async def measured(reactor: Any) -> tuple[float, bool]:
        began = reactor.seconds()
        called: Deferred[None] = Deferred()
        reactor.callLater(0.05, called.callback, None)
        later = reactor.callLater(300.0, called.errback, None)
        true_time = time.time
        monkeypatch.setattr(time, "time", lambda: true_time() + step)
        await called
        active = later.active()
        later.cancel()
        return reactor.seconds() - began, active

    took, later_waits = run(measured)
    assert 0.04 < took < 60
    assert later_waits


def test_deadlines_use_the_monotonic_clock(run: Any) -> None:
    async def clocks(reactor: Any) -> tuple[Any, Any]:
        return seconds_of(reactor), wall_clock_of(reactor)

    assert run(clocks) == (time.monotonic, None)
