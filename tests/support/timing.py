"""The reactor with a clock that only the test advances, for timeouts over real sockets."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.task import Clock
from zope.interface import directlyProvides, providedBy


class ClockedReactor:
    """The installed reactor with delayed calls on a ``Clock``: its timeouts never pass because the machine is slow.

    Calls without delay are made in the reactor's next turn. Each reading of the clock is a microsecond after the last.
    """

    def __init__(self) -> None:
        self._clock = Clock()
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)

    def seconds(self) -> float:
        self._clock.rightNow += 1e-6
        return float(self._clock.seconds())

    def callLater(self, delay: float, callable: Any, *args: Any, **kw: Any) -> Any:
        return (self._clock if delay else reactor).callLater(delay, callable, *args, **kw)

    def advance(self, seconds: float) -> None:
        """Let time pass, and make the calls that are due."""
        self._clock.advance(seconds)

    def skip(self, seconds: float) -> None:
        """Let time pass as a slow function does: calls that are then due are made in the reactor's next turn."""
        self._clock.rightNow += seconds
        reactor.callLater(0, self._clock.advance, 0)
