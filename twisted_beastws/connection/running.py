"""Running the coroutines of an application, which may await Deferreds and, on an asyncio reactor, asyncio objects.

This module imports nothing of asyncio: a program on another reactor never loads `connection.asyncio_task`.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar, cast

from twisted.internet.defer import Deferred

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

T = TypeVar("T")


def running_loop() -> AbstractEventLoop | None:
    """Return the asyncio loop that runs in this thread, or None if no asyncio reactor was ever imported."""
    if "twisted.internet.asyncioreactor" not in sys.modules:
        return None
    from asyncio import _get_running_loop

    return _get_running_loop()


def run(coroutine: Coroutine[Any, Any, T]) -> Deferred[T]:
    """Run a coroutine of the application, which starts at once.

    It may await Deferreds. On an asyncio reactor it may also await asyncio objects: ``asyncio.current_task()`` is then
    a task of its own.

    Returns:
        A Deferred of its result. Cancelling it cancels the coroutine.
    """
    loop = running_loop()
    if loop is None:
        return Deferred.fromCoroutine(coroutine)
    from twisted_beastws.connection.asyncio_task import CoroutineTask

    return CoroutineTask(coroutine, loop).begin()


async def awaited(awaitable: Awaitable[T]) -> T:
    """Await any awaitable, as a coroutine."""
    return await awaitable


async def settled(result: T | Awaitable[T]) -> T:
    """Return the result of a hook: a value, the result of a Deferred or the result of a coroutine.

    Context variables that the coroutine sets stay set.
    """
    if not hasattr(result, "__await__"):
        return result
    loop = None if isinstance(result, Deferred) else running_loop()
    if loop is None:
        return await result
    from twisted_beastws.connection.asyncio_task import CoroutineTask, restore

    task = CoroutineTask(awaited(result), loop)
    try:
        return cast(T, await task.begin())
    finally:
        restore(task.get_context())
