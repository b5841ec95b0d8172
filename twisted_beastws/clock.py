"""The clock that deadlines use."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.base import ReactorBase

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime


def seconds_of(clock: IReactorTime) -> Callable[[], float]:
    """Return the function that returns the time of ``clock`` in seconds. The time never goes back.

    The ``seconds`` of Twisted's own reactors follow the wall clock, which an administrator or NTP may set. So for every
    reactor this is the system's monotonic clock. For other clocks, such as a ``Clock`` of a test, it is their own
    ``seconds``.
    """
    return time.monotonic if isinstance(clock, ReactorBase) else clock.seconds


def wall_clock_of(clock: IReactorTime) -> Callable[[], float] | None:
    """Return the clock that the timers of ``clock`` follow, if it can be set; else None.

    The timers of Twisted's own reactors follow the wall clock. Those of `twisted_beastws.uvreactor` follow a monotonic
    clock.
    """
    return clock.seconds if isinstance(clock, ReactorBase) and not hasattr(clock, "is_monotonic") else None


def date_of(clock: IReactorTime) -> Callable[[], float]:
    """Return the function that returns the seconds since 1970: the system's date, or the time of a test's ``Clock``."""
    return time.time if isinstance(clock, ReactorBase) else clock.seconds
