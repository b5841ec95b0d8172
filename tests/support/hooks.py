"""Hooks and decorators that give their result at once or later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail

HOWS = ["plain", "fired", "Deferred", "coroutine"]
"""The forms of a hook's result."""


def failing(how: str, later: Deferred[None]) -> Callable[..., Any]:
    """Return a hook that fails with ZeroDivisionError, at once or when ``later`` fires."""

    async def raising(*arguments: Any) -> None:
        await later
        raise ZeroDivisionError

    hooks: dict[str, Callable[..., Any]] = {
        "plain": lambda *arguments: 1 // 0,
        "fired": lambda *arguments: fail(ZeroDivisionError()),
        "Deferred": lambda *arguments: later.addCallback(lambda _: 1 // 0),
        "coroutine": raising,
    }
    return hooks[how]
