"""The supervisor of ``twistd beastws --workers N``: it holds the sockets, and keeps N processes running on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twisted_beastws.clock import seconds_of
from twisted_beastws.service.process import Worker
from twisted_beastws.service.worker import BEAT, Share

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from twisted_beastws.service.sockets import HeldPort

MIN_DELAY, MAX_DELAY = 0.25, 30.0
"""Seconds from the end of a worker to the start of another: doubled each time, until one lives as long as the most."""

MAX_BOOTS = 5
"""Attempts in a row to start a worker, while none serves; as systemd's ``StartLimitBurst=``."""

BOOT_TIME = 90.0
"""Seconds that a worker has until it serves; as systemd's ``DefaultTimeoutStartSec=``."""

GRACE = 5.0
"""Seconds beyond the drain time after which a worker that got SIGTERM is killed."""

_SILENCE_AT_THE_END = 2.0
"""Seconds; a worker that was silent so long will not end by itself when the drain time is nearly over."""


class Workers(Service):
    """Keeps ``count`` processes running.

    Args:
        reactor: an ``IReactorProcess`` and ``IReactorTime``.
        ports: those that they serve.
        share: the data for each of them; its number, twistd's arguments and its sockets are filled in.
        twistd: gives twistd's arguments, when the first of them starts.
        drain_time: seconds that a process has to end.
        timeout: seconds without a sign of life after which a process is replaced; None is never.
        access_line: called with each line for the access log.

    Attributes:
        living: The running processes.
        replaced: The number of processes that ended by themselves.
        finished: called with each process that ended.
        failed: called with a line when the processes cannot start; it is to stop the service.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        count: int,
        ports: Sequence[HeldPort],
        share: Share,
        twistd: Callable[[], list[str]],
        *,
        drain_time: float,
        timeout: float | None = None,
        access_line: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.count = count
        self.living: set[Worker] = set()
        self.replaced = 0
        self.failed: Callable[[str], None] = lambda line: None
        self.finished: Callable[[Worker], None] = lambda worker: None
        self._reactor = reactor
        self._ports = ports
        self._share = share
        self._twistd = twistd
        self._drain_time = drain_time
        self._timeout = timeout
        self._access_line = access_line
        self._delays: dict[int, float] = {}
        self._failures: dict[int, int] = {}
        self._starting: dict[int, IDelayedCall] = {}
        self._ticking: IDelayedCall | None = None
        self._gone: Deferred[None] | None = None

    def startService(self) -> None:
        """Start the processes, once the reactor runs."""
        super().startService()  # type: ignore[no-untyped-call]
        self._reactor.callWhenRunning(self._start_all)

    def _start_all(self) -> None:
        self._share = self._share._replace(twistd=self._twistd())
        self._tick()
        for number in range(1, self.count + 1):
            self._start(number)

    def stopService(self) -> Deferred[None]:
        """Stop. Fires when every process has drained its connections and ended."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for call in self._starting.values():
            call.cancel()
        self._starting.clear()
        if self.living:
            self._gone = Deferred()
            self.signal("TERM")
            latest = max(1.0, self._drain_time * 7 / 8)
            bound = min(_SILENCE_AT_THE_END, latest / 2)
            killing = [
                self._reactor.callLater(latest, self._kill_silent, bound),
                self._reactor.callLater(self._drain_time + GRACE, self.signal, "KILL"),
            ]
            await self._gone
            for call in killing:
                if call.active():
                    call.cancel()
        if self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None

    def signal(self, name: str) -> None:
        """Send a signal to every process, such as ``TERM``."""
        for worker in list(self.living):
            worker.signal(name)

    def reload(self, files: Mapping[str, str] | None = None) -> None:
        """Pass SIGHUP on. files: the files for processes that start later."""
        if files is not None:
            self._share = self._share._replace(files=dict(files))
        for worker in list(self.living):
            worker.reload()

    @property
    def complete(self) -> bool:
        """Whether there are as many processes as there should be, and all serve."""
        return len(self.living) == self.count and all(worker.booted for worker in self.living)

    # Signs of life.

    def _tick(self) -> None:
        # Ticks are counted, and not the time: nothing is silent because this process was stopped, or a clock was set.
        self._ticking = self._reactor.callLater(BEAT, self._tick)
        for worker in list(self.living):
            worker.silent += 1
        if self._timeout is not None:
            self._kill_silent(self._timeout)

    def _kill_silent(self, seconds: float) -> None:
        for worker in list(self.living):
            bound = seconds if worker.booted else max(seconds, BOOT_TIME)
            if worker.silent * BEAT >= bound:
                silence = worker.silent * BEAT
                self.log.warn(
                    "worker {number} gave no sign of life for {silence:g} s and is killed",
                    number=worker.number,
                    silence=silence,
                )
                worker.silent = 0
                worker.signal("KILL")

    # The life of a worker.

    def _start(self, number: int) -> None:
        self._starting.pop(number, None)
        worker = Worker(self, number, seconds_of(self._reactor)())
        try:
            worker.spawn(self._reactor, self._share._replace(number=number), self._ports)
        except OSError as error:
            file = "" if error.filename is None else f" ({error.filename})"
            self._failed(number, f"worker {number} cannot be started: {error.strerror}{file}")
        else:
            self.living.add(worker)

    def booted(self, worker: Worker) -> None:
        """See `Events`."""
        self._failures.clear()

    def access_line(self, line: str) -> None:
        """See `Events`."""
        self._access_line(line)

    def ended(self, worker: Worker, reason: Failure) -> None:
        """See `Events`; another takes its place."""
        self.living.discard(worker)
        self.finished(worker)
        if not self.running:
            if not self.living and self._gone is not None:
                self._gone.callback(None)
            return
        self.replaced += 1
        lived = seconds_of(self._reactor)() - worker.started_at
        if worker.why is not None:
            line = f"worker {worker.number} cannot start: {worker.why}"
        else:
            line = f"worker {worker.number} ended after {lived:.1f} s: {reason.getErrorMessage().rstrip('.')}"
        if worker.booted and worker.why is not None:
            # It served, and found that no worker can ever work.
            self.failed(worker.why)
        elif worker.booted:
            self._start_later(worker.number, line, lived)
        else:
            self._failed(worker.number, line)

    def _failed(self, number: int, line: str) -> None:
        self._failures[number] = self._failures.get(number, 0) + 1
        if self._failures[number] < MAX_BOOTS or any(worker.booted for worker in self.living):
            self._start_later(number, line)
        else:
            self.failed(f"{line}; that was attempt {MAX_BOOTS}, and no worker serves")

    def _start_later(self, number: int, line: str, lived: float = 0.0) -> None:
        delay = MIN_DELAY if lived >= MAX_DELAY else self._delays.get(number, MIN_DELAY)
        self._delays[number] = min(2 * delay, MAX_DELAY)
        self.log.warn("{line}; another starts in {delay:g} s", line=line, delay=delay)
        self._starting[number] = self._reactor.callLater(delay, self._start, number)
