"""The clock that deadlines use."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, cast

import twisted.internet
from twisted.internet.base import ReactorBase

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime


def installed_reactor() -> IReactorTime:
    """Return the reactor that is installed, or install the default one."""
    reactor = vars(twisted.internet).get("reactor")
    if reactor is None:
        # This statement takes its time even for an installed reactor, and each connection asks.
        from twisted.internet import reactor
    return cast("IReactorTime", reactor)


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


class PendingTurn(Protocol):
    """A pending call."""

    def active(self) -> bool: ...

    def cancel(self) -> None: ...


class TurnCall:
    """A function that the reactor calls in its next turn, unless this is cancelled."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[[], object]) -> None:
        self._function: Callable[[], object] | None = function

    def __call__(self) -> None:
        function, self._function = self._function, None
        if function is not None:
            function()

    def active(self) -> bool:
        """Return whether the call is still pending."""
        return self._function is not None

    def cancel(self) -> None:
        """Cancel the call."""
        self._function = None


def next_turn(clock: Any, function: Callable[[], object]) -> PendingTurn:
    """Call ``function`` in the next turn of the reactor, however its clock is set meanwhile.

    ``callLater(0, ...)`` of Twisted's own reactors comes an hour late if the clock is set back by an hour before the
    turn. Their queue for calls from threads does not depend on the clock.
    """
    if wall_clock_of(clock) is None or not hasattr(clock, "callFromThread"):
        delayed: PendingTurn = clock.callLater(0, function)
        return delayed
    call = TurnCall(function)
    clock.callFromThread(call)
    return call
