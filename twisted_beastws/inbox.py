"""Messages received and not yet taken: a bounded queue that pauses what fills it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted_beastws.options import Limits


class Inbox:
    """Keeps messages in order; at ``Limits.max_queued`` or ``max_queued_size`` it asks for a pause.

    ``pause`` is called when the queue reaches a limit, ``resume`` when it is down to a quarter of both again.
    """

    __slots__ = ("_limits", "_pause", "_paused", "_queue", "_resume", "_size")

    def __init__(self, limits: Limits, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self._limits = limits
        self._pause = pause
        self._resume = resume
        self._queue: deque[str | bytes] = deque()
        self._size = 0
        self._paused = False

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, message: str | bytes) -> None:
        """Add a message."""
        self._queue.append(message)
        self._size += _octets(message)
        if not self._paused and (
            len(self._queue) >= self._limits.max_queued or self._size >= self._limits.max_queued_size
        ):
            self._paused = True
            self._pause()

    def take(self) -> str | bytes:
        """Remove the oldest message; there must be one."""
        message = self._queue.popleft()
        self._size -= _octets(message)
        if (
            self._paused
            and len(self._queue) <= self._limits.max_queued // 4
            and self._size <= self._limits.max_queued_size // 4
        ):
            self._paused = False
            self._resume()
        return message

    def detach(self) -> None:
        """Nothing fills the queue any more: pause and resume nobody."""
        self._pause = self._resume = _nobody


def _octets(message: str | bytes) -> int:
    return len(message) if isinstance(message, bytes) or message.isascii() else len(message.encode())


def _nobody() -> None:
    pass
