"""A fixture that runs a uvloop reactor in a thread, in addition to the suite's own reactor; and Twisted's own tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import uvloop
from twisted.internet.defer import Deferred

from twisted_beastws.uvreactor.reactor import UvloopReactor

from ..support.background import BACKGROUND
from ..support.patience import PATIENCE
from .runs import Runs

RUNS = pytest.StashKey[Runs]()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Start Twisted's own tests, if they are selected, in the background of the other tests, after other jobs there."""
    waiting = [item for item in session.items if item.path == Path(__file__).with_name("test_conformance.py")]
    if waiting and not session.config.option.collectonly:
        session.config.stash[RUNS] = Runs(2 if waiting == session.items else 1, session.config.stash[BACKGROUND].wait)


def pytest_unconfigure(config: pytest.Config) -> None:
    if RUNS in config.stash:
        config.stash[RUNS].stop()


@pytest.fixture
def runs(pytestconfig: pytest.Config) -> Runs:
    return pytestconfig.stash[RUNS]


class Beside:
    """A uvloop reactor in a thread.

    Calling the object runs a coroutine function in that thread, with the reactor as its first argument, and returns its
    result or raises its exception.
    """

    def __init__(self) -> None:
        self.reactor = UvloopReactor(uvloop.new_event_loop())
        # Twisted knows only one I/O thread, and that is the thread of the suite's own reactor.
        self.reactor._registerAsIOThread = False
        self.thread = threading.Thread(target=self.reactor.run, kwargs={"installSignalHandlers": False}, daemon=True)
        self.thread.start()

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        outcome: Future[Any] = Future()

        def start() -> None:
            done = Deferred.fromCoroutine(function(self.reactor, *arguments)).addTimeout(PATIENCE, self.reactor)
            done.addCallbacks(outcome.set_result, lambda failure: outcome.set_exception(failure.value))

        self.reactor.callFromThread(start)  # type: ignore[no-untyped-call]
        return outcome.result(2 * PATIENCE)

    def stop(self) -> None:
        self.reactor.callFromThread(self.reactor.stop)  # type: ignore[no-untyped-call]
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        self.reactor.loop.close()


@pytest.fixture
def run() -> Iterator[Beside]:
    beside = Beside()
    yield beside
    beside.stop()
