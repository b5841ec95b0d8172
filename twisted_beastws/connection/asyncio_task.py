"""`CoroutineTask`: runs one coroutine on an asyncio reactor. Loaded only where an asyncio loop runs."""

from __future__ import annotations

from asyncio import (
    AbstractEventLoop,
    CancelledError,
    Future,
    _enter_task,
    _leave_task,
    _register_task,
    current_task,
)
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twisted_beastws.connection.awaiting import AwaitableDeferred, TaskCancelled, succeeded

_numbers = count(1)

_RUNS: Any = object()
"""The result of a coroutine that has not ended."""


class CoroutineTask(Future[Any]):
    """A task whose coroutine may await Deferreds and asyncio objects.

    It starts at once, and goes on as soon as a Deferred fires, as a Twisted coroutine does. asyncio's own Task would do
    both one iteration of the loop later, so that answers to the messages of one chunk would no longer leave together.

    While the coroutine runs, this is ``asyncio.current_task()``, which ``asyncio.timeout``, ``TaskGroup`` and aiohttp
    need. asyncio documents the functions for that under "Extending". anyio reads ``_fut_waiter`` and ``_must_cancel``.
    """

    _task_name: str | None = None
    _fut_waiter: Any = None
    _must_cancel = False
    _cancel_requests = 0
    _cancel_with: tuple[Any, ...] = ()
    _registered = False
    _awaited = False
    _ended_with: Any = _RUNS
    _outcome: AwaitableDeferred[Any] | None = None

    def __init__(self, coroutine: Coroutine[Any, Any, Any], loop: AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._task_coroutine = coroutine
        self._task_context = copy_context()
        self._task_loop = loop

    def begin(self) -> Deferred[Any]:
        """Run the coroutine as far as it goes; the Deferred fires with its result."""
        self._step(self._task_coroutine.send, None)
        if self._ended_with is _RUNS:
            self._outcome = AwaitableDeferred(self._outcome_cancelled)
            return self._outcome
        # A Failure makes a Deferred that has failed.
        result, self._ended_with = self._ended_with, None
        return succeeded(result)

    # The methods of an asyncio Task.

    def get_coro(self) -> Coroutine[Any, Any, Any]:
        """Return the coroutine."""
        return self._task_coroutine

    def get_context(self) -> Context:
        """Return the context in which the coroutine runs."""
        return self._task_context

    def get_name(self) -> str:
        """Return the task's name."""
        if self._task_name is None:
            self._task_name = f"beastws-{next(_numbers)}"
        return self._task_name

    def set_name(self, value: object) -> None:
        """Give the task a name."""
        self._task_name = str(value)

    def cancelling(self) -> int:
        """Return how often `cancel` was called, less the calls of `uncancel`."""
        return self._cancel_requests

    def uncancel(self) -> int:
        """Take one call of `cancel` back."""
        if self._cancel_requests:
            self._cancel_requests -= 1
            if not self._cancel_requests:
                self._must_cancel = False
        return self._cancel_requests

    def cancel(self, msg: Any = None) -> bool:
        """Cancel the object that the coroutine waits for, and raise asyncio's ``CancelledError`` in the coroutine."""
        if self.done():
            return False
        self._cancel_requests += 1
        self._cancel_with = () if msg is None else (msg,)
        waiting = self._fut_waiter
        if isinstance(waiting, Deferred):
            self._fut_waiter = None
            waiting.cancel()
            error = CancelledError(*self._cancel_with)
            self._task_loop.call_soon(self._step, self._task_coroutine.throw, error)
        elif waiting is None or not waiting.cancel(*self._cancel_with):
            self._must_cancel = True
        return True

    def add_done_callback(self, fn: Callable[[Any], object], *, context: Context | None = None) -> None:
        """Call ``fn`` when the coroutine has ended. A task that awaits this one calls this."""
        self._awaited = True
        super().add_done_callback(fn, context=context)

    def _outcome_cancelled(self, outcome: object) -> None:
        waiting = self._fut_waiter
        if not isinstance(waiting, Deferred):
            self.cancel()
            return
        # As in any Twisted coroutine: the Deferred's own failure is raised in it, before cancel() returns.
        waiting.cancel()

    # Running the coroutine.

    def _step(self, resume: Callable[[Any], Any], value: Any) -> None:
        if self._must_cancel:
            self._must_cancel = False
            resume, value = self._task_coroutine.throw, CancelledError(*self._cancel_with)
        loop = self._task_loop
        entered = loop.is_running()
        outer = current_task(loop) if entered else None
        if outer is not None:
            _leave_task(loop, outer)
        if entered:
            _enter_task(loop, self)  # type: ignore[arg-type]
        waiting: Any = None
        try:
            waiting = self._task_context.run(resume, value)
        except StopIteration as done:
            self._ended_with = done.value
        except BaseException:
            self._ended_with = Failure()
        finally:
            # A traceback refers to this frame, which must not refer to the error.
            del resume, value
            if entered:
                _leave_task(loop, self)  # type: ignore[arg-type]
            if outer is not None:
                _enter_task(loop, outer)
        # Outside of the ``except`` clauses: errors of the next calls have nothing to do with how the coroutine ended.
        if self._ended_with is not _RUNS:
            self._finish()
        elif self._registered and isinstance(waiting, Deferred) and not self._must_cancel:
            # The same as `_wait_for`, without its call: most handlers take this path at each step.
            self._fut_waiter = waiting
            waiting.addBoth(self._deferred_fired, waiting)
        else:
            self._wait_for(waiting)

    def _wait_for(self, waiting: Any) -> None:
        if not self._registered:
            # asyncio.all_tasks() needs to show no task that never waits.
            self._registered = True
            _register_task(self)  # type: ignore[arg-type]
        loop = self._task_loop
        if isinstance(waiting, Deferred):
            self._fut_waiter = waiting
            waiting.addBoth(self._deferred_fired, waiting)
            if self._must_cancel:
                self._must_cancel = False
                self._cancel_requests -= 1
                self.cancel(*self._cancel_with)
        elif getattr(waiting, "_asyncio_future_blocking", None):
            waiting._asyncio_future_blocking = False
            self._fut_waiter = waiting
            waiting.add_done_callback(self._future_done)
            if self._must_cancel and waiting.cancel(*self._cancel_with):
                self._must_cancel = False
        elif waiting is None:
            # asyncio.sleep(0) yields None: let other tasks run for one iteration.
            loop.call_soon(self._step, self._task_coroutine.send, None)
        else:
            bad = RuntimeError(f"a coroutine awaited {waiting!r}, which is neither a Deferred nor an asyncio future")
            loop.call_soon(self._step, self._task_coroutine.throw, bad)

    def _deferred_fired(self, result: Any, waiting: Deferred[Any]) -> None:
        if self._fut_waiter is not waiting:
            # The wait was cancelled.
            return
        self._fut_waiter = None
        if isinstance(result, Failure):
            self._step(self._task_coroutine.throw, result.value)
        else:
            self._step(self._task_coroutine.send, result)

    def _future_done(self, waiting: Any) -> None:
        self._fut_waiter = None
        failed: BaseException | None = None
        try:
            waiting.result()
        except BaseException as error:
            failed = error
        self._step(self._task_coroutine.send if failed is None else self._task_coroutine.throw, failed)

    def _finish(self) -> None:
        result = self._ended_with
        if not isinstance(result, Failure):
            self.set_result(result)
        elif isinstance(result.value, CancelledError):
            super().cancel(*self._cancel_with)
            result = self._ended_with = Failure(TaskCancelled())
        elif isinstance(result.value, Exception):
            # The error's frames refer to this task: with the error itself, only the garbage collector would free both.
            seen = result.value if self._awaited else RuntimeError(f"the coroutine failed: {result.value!r}")
            self.set_exception(seen)
            # The Deferred has the error: asyncio must not log that no one retrieved it.
            self.exception()
            del seen
        else:
            super().cancel()
        outcome, self._outcome = self._outcome, None
        if outcome is not None:
            self._ended_with = None
            if not outcome.called:
                outcome.callback(result)


def restore(context: Context) -> None:
    """Set the context variables that differ in ``context`` in the current context, too."""
    for variable, value in context.items():
        if variable.get(_MISSING) is not value:
            variable.set(value)


_MISSING: Any = object()
