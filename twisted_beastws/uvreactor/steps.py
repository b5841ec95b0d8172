"""Running coroutines of uvloop without a task, because they wait once at most."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def result(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that never waits. Raises ``RuntimeError`` if it does."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    raise RuntimeError(f"{coroutine!r} waits")


def start(coroutine: Coroutine[Any, Any, object]) -> None:
    """Run a coroutine that waits exactly once, and discard its result."""
    waited: Future[object] = coroutine.send(None)
    waited.add_done_callback(lambda _: result(coroutine))
