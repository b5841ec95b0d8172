"""Running coroutines of the handshake, and removing the frames that keep objects alive."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

T = TypeVar("T")


def forget_frames(error: BaseException | None) -> None:
    """Remove the tracebacks: their frames keep objects alive, without end if Twisted shares the error."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def going_on(
    coroutine: Coroutine[Deferred[Any], Any, T], waits_for: Deferred[Any], context: Context
) -> Generator[Deferred[Any], Any, T]:
    """Run the rest of a coroutine that was begun in ``context`` and waits for a Deferred."""
    try:
        while True:
            step: Callable[[Any], Deferred[Any]] = coroutine.send
            try:
                result = yield waits_for
            except GeneratorExit:
                # Nothing resumes the coroutine after this; it may have been closed before.
                context.run(coroutine.close)
                raise
            except BaseException as error:
                step, result = coroutine.throw, error
            # A context variable must be reset in the context in which it was set. This call stands outside the
            # ``except`` clause, because a later exception of the coroutine has nothing to do with this error.
            waits_for = context.run(step, result)
            del result, step
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
