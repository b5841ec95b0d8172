"""The hooks of an application: the overridden ones, and the values that a hook may return."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from twisted_beastws.connection.running import awaited, run

H = TypeVar("H", bound=Callable[..., Any])

MESSAGE_HOOKS = ("text_received", "binary_received", "fragment_received")


def default(method: H) -> H:
    """Mark a method as the library's own, so that an override can be recognised."""
    method.is_default = True  # type: ignore[attr-defined]
    return method


def is_default(method: Any) -> bool:
    """Return whether a method is the library's own."""
    # A method that lacks the attribute makes an exception, which costs more than all the rest. A function does not.
    return getattr(getattr(method, "__func__", method), "is_default", False)


def hook_of(application: Any, name: str) -> Any:
    """Return the hook of that name if the application's class, or the instance, overrides it; else None."""
    hook = getattr(application, name)
    # As in `is_default`, without the call: each connection comes here three times.
    return None if getattr(getattr(hook, "__func__", hook), "is_default", False) else hook


def takes_messages(application: Any) -> bool:
    """Return whether the application overrides a message hook, and so cannot use ``receive()``."""
    return any(hook_of(application, name) is not None for name in MESSAGE_HOOKS)


def name_of(application: Any) -> str:
    """Return the name of the application's class, or of the coroutine function that serves the connection, for logs."""
    handler = getattr(application, "handler", None)
    return str(getattr(handler, "__name__", type(application).__qualname__))


def deferred_of(result: Any) -> Deferred[Any] | None:
    """Return a Deferred of a hook's result, or None if the hook returned None.

    Raises:
        TypeError: A hook must not return ``result``.
    """
    if result is None or isinstance(result, Deferred):
        return result
    if isinstance(result, (Generator, AsyncGenerator)):
        raise TypeError(f"{result!r}: a hook with yield in it runs only in inlineCallbacks, or as async def with await")
    if hasattr(result, "__await__"):
        return run(awaited(result))
    raise TypeError(f"a hook returned {result!r}: it may return None, a Deferred or a coroutine")
