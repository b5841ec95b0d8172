"""Messages received and not yet taken: a bounded queue that pauses its source."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from sys import getsizeof

from twisted_beastws.options import Limits

SLOT = 80
"""Bytes that the queue takes for each message besides the message itself: a tuple, an integer and a slot."""


def cost_of(message: str | bytes) -> int:
    """Bytes of memory that a queued message takes. A text with one emoji takes four for each character."""
    return getsizeof(message) + SLOT


class Inbox:
    """Keeps messages in order; at ``Limits.max_queued`` or ``max_queued_size`` it asks for a pause.

    ``pause`` is called when the queue reaches a limit, ``resume`` when it is down to a quarter of both again.

    Attributes:
        size: The cost of the queued messages, in bytes of memory.
    """

    __slots__ = ("_limits", "_pause", "_paused", "_queue", "_resume", "size")

    def __init__(self, limits: Limits, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self._limits = limits
        self._pause = pause
        self._resume = resume
        # Each entry has the cost of its message: Python may cache a text's UTF-8 form later, and so change its size.
        self._queue: deque[tuple[str | bytes, int]] = deque()
        self.size = 0
        self._paused = False

    def set_limits(self, limits: Limits) -> None:
        """Use other limits from the next message on."""
        self._limits = limits

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, message: str | bytes) -> None:
        """Add a message."""
        cost = cost_of(message)
        self._queue.append((message, cost))
        self._grow(cost)

    def put_back(self, message: str | bytes) -> None:
        """Add a message that was taken, as the oldest one."""
        cost = cost_of(message)
        self._queue.appendleft((message, cost))
        self._grow(cost)

    def _grow(self, cost: int) -> None:
        self.size += cost
        if not self._paused and (
            len(self._queue) >= self._limits.max_queued or self.size >= self._limits.max_queued_size
        ):
            self._paused = True
            self._pause()

    def take(self) -> str | bytes:
        """Remove the oldest message; there must be one."""
        message, cost = self._queue.popleft()
        self.size -= cost
        if (
            self._paused
            and len(self._queue) <= self._limits.max_queued // 4
            and self.size <= self._limits.max_queued_size // 4
        ):
            self._paused = False
            self._resume()
        return message

    def clear(self) -> None:
        """Drop all messages; nothing is paused or resumed."""
        self._queue.clear()
        self.size = 0

    def detach(self) -> None:
        """The source is gone: stop asking it for pauses."""
        self._pause = self._resume = _nothing


def _nothing() -> None:
    pass
