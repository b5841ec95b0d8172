"""uvloop's coroutines, which hardly wait, run without a task."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def result(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    raise RuntimeError(f"{coroutine!r} waits")


def start(coroutine: Coroutine[Any, Any, object]) -> None:
    """Run a coroutine that waits once; its result is dropped."""
    waited: Future[object] = coroutine.send(None)
    waited.add_done_callback(lambda _: result(coroutine))
