"""The time that deadlines are measured by."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.base import ReactorBase

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime


def seconds_of(clock: IReactorTime) -> Callable[[], float]:
    """Return the function that tells ``clock``'s time, in seconds since any moment; it never goes back.

    The ``seconds`` of Twisted's own reactors follow the wall clock, which an administrator or NTP may set. So for every
    reactor this is the system's monotonic clock. For other clocks, such as a ``Clock`` of a test, it is their own
    ``seconds``.
    """
    return time.monotonic if isinstance(clock, ReactorBase) else clock.seconds


def wall_clock_of(clock: IReactorTime) -> Callable[[], float] | None:
    """Return the clock that the timers of ``clock`` follow, if somebody may set it; None if nobody can.

    It is that of Twisted's own reactors. `twisted_beastws.uvreactor` has a monotonic one.
    """
    return clock.seconds if isinstance(clock, ReactorBase) and not hasattr(clock, "is_monotonic") else None


def date_of(clock: IReactorTime) -> Callable[[], float]:
    """Return the function that tells the seconds since 1970: the system's date, or that of a ``Clock`` of a test."""
    return time.time if isinstance(clock, ReactorBase) else clock.seconds
