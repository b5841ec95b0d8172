"""Slow functions in threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred

from twisted_beastws.server.gates.slow_calls import MAX_RUNNING, MAX_WAITING, Busy, SlowCalls


class Threads:
    """Calls begin when a thread is free, and end when the test ends them."""

    def __init__(self) -> None:
        self.running: list[tuple[Deferred[Any], Callable[..., Any]]] = []

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        self.running.append((Deferred(), function))
        return self.running[-1][0]

    def finish(self, result: Any = None) -> None:
        self.running.pop(0)[0].callback(result)


def test_few_calls_are_run_at_a_time() -> None:
    threads, done = Threads(), list[int]()
    calls = SlowCalls(threads)

    def done_with(_: object, number: int) -> None:
        done.append(number)

    for number in range(5):
        calls.call(lambda: None).addCallback(done_with, number)
    assert len(threads.running) == MAX_RUNNING == 2
    for _ in range(5):
        threads.finish()
    assert done == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("waiting", "busy"), [(MAX_WAITING - 1, 0), (MAX_WAITING, 0), (MAX_WAITING + 1, 1)])
def test_a_limited_number_of_calls_may_wait(waiting: int, busy: int) -> None:
    failures: list[Any] = []
    calls = SlowCalls(Threads())
    for _ in range(MAX_RUNNING + waiting):
        calls.call(lambda: None).addErrback(failures.append)
    assert [failure.type for failure in failures] == [Busy] * busy


def test_a_waiting_call_can_be_cancelled() -> None:
    threads, ended = Threads(), []
    calls = SlowCalls(threads)
    for _ in range(MAX_RUNNING):
        calls.call(lambda: None)
    waiting = calls.call(lambda: None).addErrback(lambda failure: ended.append(failure.type))
    waiting.cancel()
    assert ended == [CancelledError]
    threads.finish()
    assert len(threads.running) == MAX_RUNNING - 1


def test_a_cancelled_call_that_runs_keeps_its_thread() -> None:
    threads, ended = Threads(), []
    calls = SlowCalls(threads)
    for _ in range(MAX_RUNNING):
        calls.call(lambda: None).addErrback(lambda failure: ended.append(failure.type)).cancel()
    assert ended == [CancelledError] * MAX_RUNNING
    calls.call(lambda: None)
    assert len(threads.running) == MAX_RUNNING
    threads.finish()
    threads.finish()
    assert len(threads.running) == 1


@pytest_twisted.ensureDeferred
async def test_a_call_in_a_thread_can_return_and_raise() -> None:
    calls = SlowCalls()
    assert await calls.call(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await calls.call(divmod, 7, 0)
