"""Run slow functions in threads. The numbers of running and waiting calls are bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail

MAX_RUNNING = 2
"""Threads at a time: hashing leaves the other cores, and the rest of the reactor's ten threads, to the service."""

MAX_WAITING = 100
"""Calls that wait for a thread: at 0.25 s each, the last of them ends within 13 s, while its client still waits."""


class Busy(Exception):
    """Too many calls wait already."""


def in_thread(function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
    """Call ``function`` in a thread of the reactor's."""
    from twisted.internet.threads import deferToThread

    return deferToThread(function, *arguments)


class SlowCalls:
    """Runs functions in threads.

    Args:
        run: calls a function in a thread, and returns a Deferred of its result.
    """

    def __init__(self, run: Callable[..., Deferred[Any]] = in_thread) -> None:
        self._run = run
        self._free = MAX_RUNNING
        self._waiting: deque[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]] = deque()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Return a Deferred of the result of ``function``. It fails with `Busy` if too many calls wait.

        Cancelling it takes a call that waits from the queue. A call that runs goes on and keeps its thread, so that
        clients that leave cannot start more than `MAX_RUNNING`.
        """
        if not self._free and len(self._waiting) >= MAX_WAITING:
            return fail(Busy())
        result: Deferred[Any] = Deferred(self._cancelled)
        self._waiting.append((result, function, arguments))
        self._start()
        return result

    def _cancelled(self, result: Deferred[Any]) -> None:
        self._waiting = deque(call for call in self._waiting if call[0] is not result)

    def _start(self) -> None:
        while self._free and self._waiting:
            result, function, arguments = self._waiting.popleft()
            self._free -= 1
            self._run(function, *arguments).addBoth(self._done, result)

    def _done(self, outcome: Any, result: Deferred[Any]) -> None:
        self._free += 1
        if not result.called:
            # A Failure becomes the Deferred's failure.
            result.callback(outcome)
        self._start()
