"""`ReceiveWait`: the object that a call of ``receive()`` in an asyncio Task waits for."""

from __future__ import annotations

from asyncio import AbstractEventLoop, CancelledError, current_task
from collections.abc import Callable, Generator
from contextvars import Context
from typing import Any


class ReceiveWait:
    """A future whose Task goes on at once, inside of the call that gives the message.

    asyncio's own future wakes its Task in the next iteration of the loop. That would cost an iteration for each
    message, and the answers to the messages of one chunk would no longer leave together. This class has the methods
    and the attribute ``_asyncio_future_blocking`` that a Task needs of an object that it waits for.

    Attributes:
        given: The Task has `message`, or is about to get it.
        message: The message, or None for the end of the connection.
    """

    __slots__ = (
        "_asyncio_future_blocking",
        "_cancel_with",
        "_context",
        "_loop",
        "_remove",
        "_wake",
        "given",
        "message",
    )

    _wake: Callable[[Any], object]
    _context: Context | None

    def __init__(self, loop: AbstractEventLoop, remove: Callable[[ReceiveWait], object]) -> None:
        """``remove`` is called if the Task is cancelled before it has a message."""
        self._asyncio_future_blocking = True
        self._loop = loop
        self._remove = remove
        # Not the error itself: its traceback refers to this object, and both would stay for the garbage collector.
        self._cancel_with: tuple[Any, ...] | None = None
        self.given = False
        self.message: Any = None

    def __await__(self) -> Generator[Any, None, None]:
        # The iterator of a tuple is compiled. A generator would cost a Python frame for each step.
        return iter((self,))  # type: ignore[return-value]

    def give(self, message: str | bytes | None) -> None:
        """Set the message, and let the Task go on."""
        self.message = message
        self.given = True
        if self._context is None or current_task(self._loop) is not None:
            # A Task cannot run inside of another one.
            self._loop.call_soon(self._wake, self, context=self._context)
        else:
            self._context.run(self._wake, self)

    # The Task calls these.

    def get_loop(self) -> AbstractEventLoop:
        """Return the loop of the Task."""
        return self._loop

    def add_done_callback(self, wake: Callable[[Any], object], *, context: Context | None = None) -> None:
        """Call ``wake`` in ``context`` when there is a message."""
        self._wake = wake
        self._context = context

    def cancel(self, msg: Any = None) -> bool:
        """Raise asyncio's ``CancelledError`` in the Task. Return False if a message is on its way to it."""
        if self.given or self._cancel_with is not None:
            return False
        self._cancel_with = () if msg is None else (msg,)
        self._remove(self)
        self._loop.call_soon(self._wake, self, context=self._context)
        return True

    def result(self) -> None:
        """Raise ``CancelledError`` if the wait was cancelled."""
        if self._cancel_with is not None:
            raise CancelledError(*self._cancel_with)
