"""`ReactorLag`: how long a call waits for the reactor, and how busy the reactor is."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service

from twisted_beastws.server.observers.heartbeat import Heartbeat
from twisted_beastws.server.observers.metering import ROUND_TRIPS

INTERVAL = 0.1
"""Seconds between two samples. Each costs some 50 µs of CPU."""

LAGS = ROUND_TRIPS
"""Upper bounds, in seconds, of the groups that lags are counted in."""


class ReactorLag(Service):
    """Measures the reactor while the service runs.

    Args:
        reactor: an ``IReactorFromThreads``.
        cpu_seconds: returns the CPU time of the reactor's thread.

    Attributes:
        lags: one count for each of `LAGS`, and one beyond. A lag longer than `INTERVAL` also counts for the calls that
            would have come meanwhile, each with its own, shorter lag.
        lag_seconds: all lags together.
        busy_seconds: the reactor's time that was no waiting for events: its thread's CPU time, or the lag where that is
            longer, because its code waited for something else.
    """

    def __init__(self, reactor: Any, cpu_seconds: Callable[[], float] = time.thread_time) -> None:
        self.lags = [0] * (len(LAGS) + 1)
        self.lag_seconds = 0.0
        self.busy_seconds = 0.0
        self._reactor = reactor
        self._cpu_seconds = cpu_seconds
        self._cpu: float | None = None
        self._heart: Heartbeat | None = None

    def startService(self) -> None:
        """Measure from now on."""
        super().startService()  # type: ignore[no-untyped-call]
        # Not earlier: twistd may become another process before the reactor runs, and threads do not survive that.
        self._reactor.callWhenRunning(self._start)

    def stopService(self) -> None:
        """Measure no more."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._heart is not None:
            self._heart.stop()

    def _start(self) -> None:
        if self.running:
            self._cpu = self._cpu_seconds()
            self._heart = Heartbeat(self._reactor, INTERVAL, self.sample)
            self._heart.start()

    def sample(self, lag: float) -> None:
        """Count a call that waited ``lag`` seconds for the reactor."""
        cpu = self._cpu_seconds()
        used = 0.0 if self._cpu is None else cpu - self._cpu
        self._cpu = cpu
        self.busy_seconds += max(used, lag)
        while True:
            self.lags[bisect_left(LAGS, lag)] += 1
            self.lag_seconds += lag
            lag -= INTERVAL
            if lag <= 0:
                return
