"""The lifespan of an ASGI application: its startup before the first connection, and its shutdown after the last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_beastws.asgi.events import VERSION, Application, Event
from twisted_beastws.connection.awaiting import AwaitableDeferred
from twisted_beastws.connection.running import run

log = Logger()


class LifespanFailed(Exception):
    """The application reported that its startup failed."""


class Lifespan:
    """Runs an application's ``lifespan`` scope. An application that does not know the scope has no lifespan.

    Attributes:
        state: The ``state`` of the scope, which the application fills. None before the startup and without a lifespan.
        error: The reason why the startup failed, or None.
        failed: Called with one line of text when the startup fails.
    """

    def __init__(self, application: Application) -> None:
        self._application = application
        self._started: AwaitableDeferred[None] = AwaitableDeferred()
        self._stopped: AwaitableDeferred[None] = AwaitableDeferred()
        self._stopping: AwaitableDeferred[None] = AwaitableDeferred()
        self._begun = self._supported = self._startup_given = False
        self.state: dict[str, Any] | None = None
        self.error: BaseException | None = None
        self.failed: Callable[[str], None] = _log_line

    def start(self) -> Deferred[None]:
        """Run the startup. The Deferred fires when it is over, even if it failed; see `error`."""
        if not self._begun:
            self._begun = True
            self.state = {}
            scope = {"type": "lifespan", "asgi": VERSION, "state": self.state}
            run(self._run(scope)).addErrback(_log)
        return self.when_started()

    def when_started(self) -> Deferred[None]:
        """Return a Deferred that fires when the startup is over."""
        return _after(self._started)

    def stop(self) -> Deferred[None]:
        """Run the shutdown. The Deferred fires when it is over."""
        if not self._supported or self._stopped.called:
            return _after(None)
        if not self._stopping.called:
            self._stopping.callback(None)
        return _after(self._stopped)

    async def _run(self, scope: Any) -> None:
        failure = None
        try:
            await self._application(scope, self._receive, self._send)
        except Exception:
            failure = Failure()
        if not self._started.called:
            # An application without a lifespan raises an exception or returns.
            if self._startup_given and failure is not None:
                log.info("the application has no lifespan: {error}", error=failure.value)
            self.state = None
            self._started.callback(None)
        elif failure is not None:
            log.failure("the lifespan of the application failed", failure)
        self._supported = False
        if not self._stopped.called:
            self._stopped.callback(None)

    async def _receive(self) -> Event:
        if not self._startup_given:
            self._startup_given = True
            return {"type": "lifespan.startup"}
        await self._stopping
        return {"type": "lifespan.shutdown"}

    async def _send(self, event: Event) -> None:
        kind = event["type"]
        if kind == "lifespan.startup.complete":
            self._supported = True
            self._end(self._started)
        elif kind == "lifespan.startup.failed":
            message = event.get("message") or "it gave no reason"
            self.error = LifespanFailed(message)
            self._end(self._started)
            self.failed(f"the startup of the ASGI application failed: {message}")
        elif kind == "lifespan.shutdown.complete":
            self._end(self._stopped)
        elif kind == "lifespan.shutdown.failed":
            log.error("the shutdown of the application failed: {message}", message=event.get("message", ""))
            self._end(self._stopped)

    def _end(self, phase: Deferred[None]) -> None:
        if not phase.called:
            phase.callback(None)


def _after(phase: Deferred[None] | None) -> Deferred[None]:
    """Return another Deferred that fires with ``phase``, so that each caller can cancel its own."""
    waiting: AwaitableDeferred[None] = AwaitableDeferred()
    if phase is None or phase.called:
        waiting.callback(None)
        return waiting

    def fire(result: None) -> None:
        if not waiting.called:
            waiting.callback(None)

    phase.addCallback(fire)
    return waiting


def _log_line(line: str) -> None:
    log.critical("{line}", line=line)


def _log(failure: Failure) -> None:
    log.failure("the lifespan of the application failed", failure)
