"""Stopping a program: SIGTERM and SIGINT drain the connections, and SIGHUP reloads files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twisted_beastws.server.signals import Signals

if TYPE_CHECKING:
    from twisted_beastws.server.factory import WebSocketServerFactory

DRAIN_SECONDS = 10.0
"""Seconds for a graceful shutdown: supervisors such as Kubernetes and Docker wait 30 and 10 s before they kill."""

log = Logger()


class StopSignals:
    """Handles the signals of a program. SIGTERM and SIGINT stop its reactor, and SIGHUP reloads files.

    Args:
        reactor: The program's reactor.
        again: Called at a second SIGTERM or SIGINT, with the name of the signal, or if the program stops already.
        reloads: Called at SIGHUP. An error of one is logged, and the others are still called.
        running: Returns whether the program runs, and does not stop for another reason.

    Attributes:
        stopping: A signal has stopped the reactor.
    """

    def __init__(
        self,
        reactor: Any,
        again: Callable[[str], None],
        reloads: Sequence[Callable[[], object]] = (),
        running: Callable[[], object] = lambda: True,
    ) -> None:
        self.stopping = False
        self._reactor = reactor
        self._again = again
        self._reloads = reloads
        self._running = running
        self._signals = Signals(
            reactor,
            {
                "SIGTERM": lambda: self._terminate("SIGTERM"),
                "SIGINT": lambda: self._terminate("SIGINT"),
                "SIGHUP": self._reload,
            },
        )

    def take(self) -> None:
        """Handle the signals once the reactor runs, which installs its own handlers when it starts."""
        self._reactor.callWhenRunning(self._take)

    def _take(self) -> None:
        if self._running():
            self._signals.take()

    def stopped(self) -> None:
        """The program has stopped: restore the handlers, unless a signal stopped it."""
        if self.stopping:
            # Python's own handlers would turn a signal that comes now into a failure.
            self._signals.ignore()
        else:
            self.release()

    def release(self) -> None:
        """Restore the handlers from before `take`."""
        self._signals.release()

    def _terminate(self, name: str) -> None:
        if self._running() and not self.stopping:
            self.stopping = True
            log.info("{signal}: stopping", signal=name)
            self._reactor.stop()
        else:
            self._again(name)

    def _reload(self) -> None:
        log.info("SIGHUP: reopening logs, reading certificates")
        for reload in self._reloads:
            try:
                reload()
            except Exception:
                log.failure("{what} failed", what=getattr(reload, "__qualname__", reload))


def drop_connections(factory: WebSocketServerFactory, signal: str) -> None:
    """Drop the connections that are left at a second signal."""
    left = len(factory.connections)
    if left:
        log.info("{signal} again: connections to drop: {count}", signal=signal, count=left)
        factory.abort()


def drain_at_shutdown(
    reactor: Any,
    factory: WebSocketServerFactory,
    *,
    seconds: float = DRAIN_SECONDS,
    reloads: Sequence[Callable[[], object]] = (),
) -> None:
    """Drain a factory when the reactor stops: at SIGTERM, SIGINT or ``reactor.stop()``.

    Each open connection is closed with 1001, new handshakes are answered with 503, and the reactor stops when all
    connections are gone. A second SIGTERM or SIGINT drops the rest. Call this before the reactor runs.

    Args:
        reactor: The program's reactor.
        factory: The factory to drain.
        seconds: The time limit; see `WebSocketServerFactory.drain`.
        reloads: Functions to call at SIGHUP, such as `ReloadableEndpoint.reload` and `AccessLog.reopen`.
    """
    signals = StopSignals(
        reactor, lambda signal: drop_connections(factory, signal), reloads, lambda: not factory.draining
    )

    def drain() -> Deferred[None]:
        if factory.connections:
            log.info("connections to close: {count}", count=len(factory.connections))
        return factory.drain(seconds=seconds)

    signals.take()
    reactor.addSystemEventTrigger("before", "shutdown", drain)
    reactor.addSystemEventTrigger("after", "shutdown", signals.release)
