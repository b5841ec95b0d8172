"""The whole service: its listener, its helpers, signals and shutdown."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

from twisted_beastws.server.signals import Signals

if TYPE_CHECKING:
    from twisted.application.service import IService

    from twisted_beastws.server.serving import Serving


class BeastwsService(MultiService):
    """The service that twistd runs.

    SIGTERM and SIGINT stop the reactor, so that twistd ends with status 0. A second one drops the remaining
    connections.

    Args:
        reactor: runs the service.
        serving: listens.
        helpers: start before ``serving``, and stop after its graceful shutdown.
        reloads: Called at SIGHUP. An error of one is logged, and the others are still called.
        again: called at a second SIGTERM or SIGINT, in place of dropping the connections.

    Attributes:
        factory: of ``serving``.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        serving: Serving,
        helpers: Sequence[IService] = (),
        reloads: Sequence[Callable[[], object]] = (),
        again: Callable[[], None] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.serving = serving
        self.factory = serving.factory
        self._reactor = reactor
        self._reloads = reloads
        self._again = again
        self._stopping = False
        self._signals = Signals(
            reactor,
            {
                "SIGTERM": lambda: self._terminate("SIGTERM"),
                "SIGINT": lambda: self._terminate("SIGINT"),
                "SIGHUP": self._reload,
            },
        )
        for service in (*helpers, serving):
            service.setServiceParent(self)  # type: ignore[arg-type, unused-ignore]

    def startService(self) -> None:
        """Start all parts. Take over the signals after the reactor, which installs its own handlers when it starts."""
        super().startService()  # type: ignore[no-untyped-call]
        self._reactor.callWhenRunning(self._take_signals)

    def stopService(self) -> Deferred[None]:
        """Stop. Fires when the connections are gone and then the helpers have stopped."""
        self.running = 0
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        *helpers, serving = self
        await maybeDeferred(serving.stopService)
        for helper in reversed(helpers):
            await maybeDeferred(helper.stopService)
        if self._stopping:
            # Python's own handlers would turn a signal that comes now into a failure.
            self._signals.ignore()
        else:
            self._signals.release()

    def _take_signals(self) -> None:
        if self.running:
            self._signals.take()

    def _terminate(self, name: str) -> None:
        if self.running and not self._stopping:
            self._stopping = True
            self.log.info("{signal}: stopping", signal=name)
            self._reactor.stop()
        elif self._again is not None:
            self.log.info("{signal} again", signal=name)
            self._again()
        elif self.factory.connections:
            left = len(self.factory.connections)
            self.log.info("{signal} again: connections to drop: {count}", signal=name, count=left)
            self.factory.abort()

    def fail(self, line: str) -> None:
        """Stop as for SIGTERM, but with exit status 1; ``line`` says why."""
        if self.running and not self._stopping:
            self._stopping = True
            self.log.critical("{line}", line=line)
            # twistd always exits with status 0 when its reactor was stopped.
            atexit.register(_exit_with_failure)
            self._reactor.stop()

    def _reload(self) -> None:
        self.log.info("SIGHUP: reopening logs, reading certificates")
        for reload in self._reloads:
            try:
                reload()
            except Exception:
                self.log.failure("{what} failed", what=getattr(reload, "__qualname__", reload))


def _exit_with_failure() -> None:
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        with suppress(Exception):
            stream.flush()  # type: ignore[union-attr]
    os._exit(1)
