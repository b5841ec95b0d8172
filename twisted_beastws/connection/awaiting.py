"""Deferreds that asyncio Tasks can await, and coroutines that can await asyncio objects.

Twisted and asyncio wait in different ways. A coroutine yields the object it waits for to the code that runs it: Twisted
expects a Deferred, an asyncio Task expects an object with asyncio's future protocol. `AwaitableDeferred` is both. In
the other direction, `run` runs a coroutine that waits for objects of both kinds.

This module imports nothing of asyncio: a program on another reactor never loads `connection.asyncio_task`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

T = TypeVar("T")

_BY_TWISTED: Any = object()
"""The argument of `AwaitableDeferred.cancel` when no asyncio Task calls it."""


class TaskCancelled(CancelledError):
    """The asyncio task in which a handler or a hook runs was cancelled."""


class _OnlyOnInstances:
    """An attribute that is True on instances and missing on their class.

    A Task looks for ``_asyncio_future_blocking`` on the object that it waits for. `asyncio.isfuture` looks for it on
    the class: because the class lacks it, ``wait_for``, ``gather`` and ``ensure_future`` wrap our Deferreds in a Task.
    """

    def __get__(self, instance: object, owner: type[object]) -> bool:
        if instance is None:
            raise AttributeError("_asyncio_future_blocking")
        return True

    def __set__(self, instance: object, value: bool) -> None:
        """A Task sets it to False when it begins to wait. Nothing reads that value."""


class AwaitableDeferred(Deferred[T]):
    """A Deferred that an asyncio Task can await, too.

    If the Task is cancelled, this Deferred is cancelled, and the Task gets asyncio's ``CancelledError``. If other code
    cancels this Deferred, the Task gets Twisted's ``CancelledError``.

    Attributes:
        unclaimed: None, or called with a result that the Task cannot receive, since it was cancelled after this fired.
    """

    _asyncio_future_blocking = _OnlyOnInstances()
    _waits: tuple[_TaskWait, ...] = ()
    unclaimed: Callable[[Any], object] | None = None

    # An asyncio Task calls these.

    def get_loop(self) -> AbstractEventLoop:
        """Return the running asyncio loop: a Deferred belongs to no loop of its own."""
        from asyncio import get_running_loop

        return get_running_loop()

    def add_done_callback(self, wake: Callable[[Any], object], *, context: Context | None = None) -> None:
        """Call ``wake`` in the loop's next iteration after this fires."""
        wait = _TaskWait(self.get_loop(), wake, context)
        self._waits = (*self._waits, wait)
        self.addBoth(wait.fired)

    def cancel(self, msg: Any = _BY_TWISTED) -> Any:
        """Cancel as any Deferred. A Task passes an argument, and gets back whether its wait ends by this call."""
        if msg is _BY_TWISTED:
            return super().cancel()
        waiting = not self.called or self.paused > 0
        if waiting:
            for wait in self._waits:
                wait.cancelled(msg)
            super().cancel()
        if self.unclaimed is not None:
            self.addCallback(self.unclaimed)
        # The Task will not see this failure, so do not log it as unhandled.
        self.addErrback(_ignored)
        return waiting


class _TaskWait:
    """One wait of an asyncio Task for a Deferred; the Task reads `result` when it wakes up."""

    __slots__ = ("_cancelled", "_context", "_loop", "_wake")

    def __init__(self, loop: AbstractEventLoop, wake: Callable[[Any], object], context: Context | None) -> None:
        self._loop = loop
        self._wake: Callable[[Any], object] | None = wake
        self._context = context
        self._cancelled: BaseException | None = None

    def fired(self, result: Any) -> Any:
        """The Deferred fired: wake the Task, which takes the result from the Deferred."""
        wake, self._wake = self._wake, None
        if wake is not None:
            self._loop.call_soon(wake, self, context=self._context)
        return result

    def cancelled(self, message: Any) -> None:
        """The Task was cancelled: wake it with asyncio's ``CancelledError``."""
        from asyncio import CancelledError as AsyncioCancelledError

        self._cancelled = AsyncioCancelledError() if message is None else AsyncioCancelledError(message)
        self.fired(None)

    def result(self) -> None:
        """Raise what the Task must raise in its coroutine, if anything."""
        if self._cancelled is not None:
            raise self._cancelled


def succeeded(result: T) -> AwaitableDeferred[T]:
    """Return a Deferred that has fired with ``result``."""
    deferred: AwaitableDeferred[T] = AwaitableDeferred()
    deferred.callback(result)
    return deferred


def awaitable(deferred: Deferred[T]) -> Deferred[T]:
    """Return a Deferred with the result of ``deferred`` that an asyncio Task can await."""
    if isinstance(deferred, AwaitableDeferred) or (deferred.called and not deferred.paused):
        return deferred

    def fired(outcome: T | Failure) -> None:
        if not result.called:
            result.callback(outcome)

    result: AwaitableDeferred[T] = AwaitableDeferred(lambda _: deferred.cancel())
    deferred.addBoth(fired)
    return result


def _ignored(failure: object) -> None:
    """Nothing awaits this failure any more."""
