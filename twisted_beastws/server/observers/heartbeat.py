"""`Heartbeat`: calls that wait while the reactor is blocked, and only then."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event, Thread
from typing import Any


class Heartbeat:
    """Calls a function in the reactor at a steady interval.

    A thread makes the calls, because the timers of Twisted's own reactors follow the wall clock: after it was set back
    by an hour, they come an hour late.

    Args:
        reactor: an ``IReactorFromThreads``.
        interval: seconds between two calls.
        beat: gets the seconds that the call has waited for the reactor. While the reactor is blocked, one call waits
            for it, and no more.
        seconds: returns the time.
    """

    def __init__(
        self,
        reactor: Any,
        interval: float,
        beat: Callable[[float], object],
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reactor = reactor
        self._interval = interval
        self._beat = beat
        self._seconds = seconds
        self._requested: float | None = None
        self._stopped = Event()

    def start(self) -> None:
        """Call the function from now on."""
        Thread(target=self._run, name="heartbeat", daemon=True).start()

    def stop(self) -> None:
        """Call it no more."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            self.request()

    def request(self) -> None:
        """Have the reactor call the function once, unless such a call waits already."""
        if self._requested is None:
            self._requested = self._seconds()
            self._reactor.callFromThread(self._call)

    def _call(self) -> None:
        requested, self._requested = self._requested, None
        if not self._stopped.is_set() and requested is not None:
            self._beat(self._seconds() - requested)
