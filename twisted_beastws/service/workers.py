"""The supervisor of ``twistd beastws --workers N``: it opens the sockets, and sees that N processes serve them."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger, eventFromJSON, globalLogPublisher

from twisted_beastws.service.worker import LIFELINE, Share

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from twisted_beastws.service.sockets import HoldingReactor

LEAST_DELAY, MOST_DELAY = 0.25, 30.0
"""Seconds from the end of a worker to the start of another: doubled each time, until one lives as long as the most."""

GRACE = 5.0
"""Seconds beyond the drain time after which a worker that was told to end is killed."""

# The sockets of systemd, if there are, are the worker's now; Twisted looks for whom they are as soon as it is imported.
_START = (
    "import os; os.environ['LISTEN_PID'] = str(os.getpid()); from twisted_beastws.service.worker import main; main()"
)


class Worker(ProcessProtocol):
    """One process, as long as it lives."""

    def __init__(self, supervisor: Workers, number: int, admin: str, started_at: float) -> None:
        self.number = number
        self.admin = admin
        self.started_at = started_at
        self._supervisor = supervisor
        self._line = b""

    def signal(self, name: str) -> None:
        """Send a signal, unless it has ended."""
        try:
            if self.transport is not None:
                self.transport.signalProcess(name)
        except ProcessExitedAlready:
            return

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            self._relay(line)

    def _relay(self, line: bytes) -> None:
        try:
            event = eventFromJSON(line.decode("utf-8"))
            level = event["log_level"].name
            event["log_system"] = f"worker {self.number} {event.get('log_namespace', '-')}#{level}"
        except Exception:
            # Not worth more than to be shown.
            self._supervisor.log.warn("worker {number} says {line}", number=self.number, line=line)
        else:
            globalLogPublisher(event)

    def processEnded(self, reason: Failure) -> None:
        self._supervisor.ended(self, reason)


class Workers(Service):
    """Keeps ``count`` processes running, each a twistd with ``arguments``, on the ports that ``held`` holds.

    reactor: an ``IReactorProcess`` and ``IReactorTime``. drain_time: seconds that a process has to end.

    living: the processes that there are. replaced: how many ended and were not told to.
    """

    log = Logger()

    def __init__(
        self, reactor: Any, count: int, held: HoldingReactor, arguments: Sequence[str], drain_time: float
    ) -> None:
        self.living: set[Worker] = set()
        self.replaced = 0
        self._reactor = reactor
        self._count = count
        self._held = held
        self._arguments = arguments
        self._drain_time = drain_time
        self._directory = ""
        self._delays: dict[int, float] = {}
        self._starting: dict[int, IDelayedCall] = {}
        self._gone: Deferred[None] | None = None

    def startService(self) -> None:
        """Start the processes."""
        super().startService()  # type: ignore[no-untyped-call]
        self._directory = tempfile.mkdtemp(prefix="beastws-")
        self._reactor.callWhenRunning(self._start_all)

    def _start_all(self) -> None:
        for number in range(1, self._count + 1):
            self._start(number)

    def stopService(self) -> Deferred[None]:
        """Fires when every process has sent its clients home and ended."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for call in self._starting.values():
            call.cancel()
        self._starting.clear()
        if self.living:
            self._gone = Deferred()
            self.signal("TERM")
            killing = self._reactor.callLater(self._drain_time + GRACE, self.signal, "KILL")
            await self._gone
            if killing.active():
                killing.cancel()
        shutil.rmtree(self._directory, ignore_errors=True)

    def signal(self, name: str) -> None:
        """Send a signal to every process, such as ``HUP``."""
        for worker in list(self.living):
            worker.signal(name)

    def reload(self) -> None:
        """Pass SIGHUP on."""
        self.signal("HUP")

    def ended(self, worker: Worker, reason: Failure) -> None:
        """A process has ended; another takes its place."""
        self.living.discard(worker)
        if not self.running:
            if not self.living and self._gone is not None:
                self._gone.callback(None)
            return
        self.replaced += 1
        number = worker.number
        lived = self._reactor.seconds() - worker.started_at
        delay = LEAST_DELAY if lived >= MOST_DELAY else self._delays.get(number, LEAST_DELAY)
        self._delays[number] = min(2 * delay, MOST_DELAY)
        self.log.warn(
            "worker {number} ended after {lived:.1f} s: {reason}; another starts in {delay:g} s",
            number=number,
            lived=lived,
            reason=reason.getErrorMessage().rstrip("."),
            delay=delay,
        )
        self._starting[number] = self._reactor.callLater(delay, self._start, number)

    def _start(self, number: int) -> None:
        self._starting.pop(number, None)
        # A name of its own for each process: a UNIX socket may be left by one that was killed.
        path = os.path.join(self._directory, f"{number}.{self.replaced}")
        worker = Worker(self, number, path, self._reactor.seconds())
        ports = [port.fileno() for port in self._held.ports]
        # Twisted takes what systemd named, and closes it; in its place the worker listens on what is held. Of how many
        # there were it leaves the names alone.
        names = os.environ.get("LISTEN_FDNAMES", "")
        named = len(names.split(":")) if names else 0
        log = 3 + named
        share = Share(number, log, list(range(log + 1, log + 1 + len(ports))), f"unix:{path}:mode=600")
        nothing = os.open(os.devnull, os.O_RDWR)
        descriptors: dict[int, Any] = {LIFELINE: "w", 1: 1, 2: 2, **dict.fromkeys(range(3, log), nothing), log: "r"}
        descriptors.update(zip(share.sockets, ports, strict=True))
        self.living.add(worker)
        environment = {**os.environ, "LISTEN_FDS": str(named)} if named else None
        command = [sys.executable, "-c", _START, share.to_json(), *self._arguments]
        self._reactor.spawnProcess(worker, sys.executable, command, env=environment, childFDs=descriptors)
        os.close(nothing)
