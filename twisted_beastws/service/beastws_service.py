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

from twisted_beastws.server.stopping import StopSignals, drop_connections

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
        self._again = again
        self._signals = StopSignals(reactor, self._stop_again, reloads, lambda: self.running)
        for service in (*helpers, serving):
            service.setServiceParent(self)  # type: ignore[arg-type, unused-ignore]

    def startService(self) -> None:
        """Start all parts, and take over the signals once the reactor runs."""
        super().startService()  # type: ignore[no-untyped-call]
        self._signals.take()

    def stopService(self) -> Deferred[None]:
        """Stop. Fires when the connections are gone and then the helpers have stopped."""
        self.running = 0
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        *helpers, serving = self
        await maybeDeferred(serving.stopService)
        for helper in reversed(helpers):
            await maybeDeferred(helper.stopService)
        self._signals.stopped()

    def _stop_again(self, signal: str) -> None:
        if self._again is not None:
            self.log.info("{signal} again", signal=signal)
            self._again()
        else:
            drop_connections(self.factory, signal)

    def fail(self, line: str) -> None:
        """Stop as for SIGTERM, but with exit status 1; ``line`` says why."""
        if self.running and not self._signals.stopping:
            self._signals.stopping = True
            self.log.critical("{line}", line=line)
            # twistd always exits with status 0 when its reactor was stopped.
            atexit.register(_exit_with_failure)
            self._reactor.stop()


def _exit_with_failure() -> None:
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        with suppress(Exception):
            stream.flush()  # type: ignore[union-attr]
    os._exit(1)
