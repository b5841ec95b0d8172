"""`Heartbeat`: calls that stop when the reactor is blocked, and only then."""

from __future__ import annotations

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
        beat: the function. While the reactor is blocked, one call waits for it, and no more.
    """

    def __init__(self, reactor: Any, interval: float, beat: Callable[[], object]) -> None:
        self._reactor = reactor
        self._interval = interval
        self._beat = beat
        self._is_pending = False
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
        if not self._is_pending:
            self._is_pending = True
            self._reactor.callFromThread(self._call)

    def _call(self) -> None:
        self._is_pending = False
        if not self._stopped.is_set():
            self._beat()
