"""Tests of `twisted_beastws.clock`."""

from __future__ import annotations

import time

import pytest
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock

from twisted_beastws.clock import date_of, seconds_of, wall_clock_of


def test_the_monotonic_clock_measures_the_deadlines_of_a_reactor() -> None:
    reactor = SelectReactor()
    try:
        assert seconds_of(reactor) is time.monotonic
        assert date_of(reactor) is time.time
        wall_clock = wall_clock_of(reactor)
        assert wall_clock is not None and wall_clock() == pytest.approx(time.time(), abs=60)
    finally:
        reactor.removeAll()


def test_a_clock_of_a_test_measures_its_own_deadlines() -> None:
    clock = Clock()
    clock.advance(5.0)
    assert seconds_of(clock)() == date_of(clock)() == 5.0
    assert wall_clock_of(clock) is None
