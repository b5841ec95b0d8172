"""Those who wait until fewer bytes wait: the Deferreds of `drain` and `flush`, and the producer of the application."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from twisted_beastws.connection.awaiting import AwaitableDeferred
from twisted_beastws.connection.producers import stop


class WriteWaiters:
    """Pauses and resumes a producer, and fires the Deferreds, as the number of buffered bytes changes.

    Attributes:
        producer: The application's producer; None without one.
    """

    __slots__ = ("_drains", "_flushes", "_paused", "producer")

    def __init__(self) -> None:
        self._drains: list[Deferred[None]] = []
        self._flushes: list[tuple[int, Deferred[None]]] = []
        self.producer: Any = None
        self._paused = False

    @property
    def flushing(self) -> bool:
        """Whether a flush waits."""
        return bool(self._flushes)

    @property
    def none(self) -> bool:
        """Whether none waits."""
        return self.producer is None and not self._drains and not self._flushes

    def register(self, producer: Any) -> None:
        """Set the producer. RuntimeError for a second one."""
        if self.producer is not None:
            raise RuntimeError(f"{producer!r} cannot be registered: {self.producer!r} is not unregistered")
        self.producer = producer

    def unregister(self) -> Any:
        """Release the producer, and return it."""
        producer, self.producer = self.producer, None
        self._paused = False
        return producer

    def drain(self) -> Deferred[None]:
        """Return a Deferred that fires at the low-water mark."""
        waiting: Deferred[None] = AwaitableDeferred(self._drains.remove)
        self._drains.append(waiting)
        return waiting

    def flush(self, kept: int) -> Deferred[None]:
        """Return a Deferred that fires when the first ``kept`` bytes that ever were in the queue have left."""
        waiting: Deferred[None] = AwaitableDeferred(self._forget_flush)
        self._flushes.append((kept, waiting))
        return waiting

    def pace(self, buffered: int, high_water: int) -> None:
        """Pause the producer if more than ``high_water`` bytes are buffered."""
        if self.producer is not None and not self._paused and buffered > high_water:
            self._paused = True
            self.producer.pauseProducing()

    def notify(self, left: int, buffered: Callable[[], int], low_water: int) -> None:
        """Fire what need not wait any more, and resume the producer.

        Args:
            left: The bytes that have left the queue, ever.
            buffered: Returns the bytes that still wait; a callback may add some.
            low_water: The bytes at which the drains fire and the producer is resumed.
        """
        while self._flushes and self._flushes[0][0] <= left:
            self._flushes.pop(0)[1].callback(None)
        while self._drains and buffered() <= low_water:
            self._drains.pop(0).callback(None)
        if self._paused and buffered() <= low_water:
            self._paused = False
            self.producer.resumeProducing()

    def lost(self, error: Exception) -> None:
        """The transport is gone: fail the pending Deferreds, and stop the producer."""
        # Drop the traceback; otherwise it grows with each Deferred that fails with it.
        while self._drains:
            self._drains.pop(0).errback(error.with_traceback(None))
        while self._flushes:
            self._flushes.pop(0)[1].errback(error.with_traceback(None))
        stop(self.unregister())

    def _forget_flush(self, cancelled: Deferred[None]) -> None:
        self._flushes = [(kept, flush) for kept, flush in self._flushes if flush is not cancelled]
