"""A worker as its supervisor sees it: a process, with a pipe to it, a pipe from it, and its standard output."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost, ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger, LogLevel, globalLogPublisher

from twisted_beastws.service.worker import Share

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from twisted_beastws.service.sockets import HeldPort

MAX_LINE = 1 << 16
"""Bytes of standard output that are shown as one line, if no line ends before."""

LINGERING = 1.0
"""Seconds after its end in which the last messages of a process come, if another process keeps the pipe open."""

_STANDARD_OUTPUTS = (1, 2)

# Python put the working directory before its own library, because of -c. The sockets of systemd, if there are, are the
# worker's now; Twisted reads that as soon as it is imported.
_START = (
    "import sys; sys.path[:1] == [''] and sys.path.pop(0); "
    "import os; os.environ['LISTEN_PID'] = str(os.getpid()); from twisted_beastws.service.worker import main; main()"
)


class Events(Protocol):
    """A worker's news for its supervisor."""

    def booted(self, worker: Worker) -> None:
        """The worker serves."""

    def access_line(self, line: str) -> None:
        """A line for the access log."""

    def ended(self, worker: Worker, reason: Failure) -> None:
        """The process is gone, and all that it sent was read."""


class Worker(ProcessProtocol):
    """One process, as long as it lives.

    booted: it serves, and handles signals. silent: ticks since its last sign of life; the supervisor counts them.
    page: its metrics, as they came last. why: its own reason for not starting.
    """

    log = Logger()

    def __init__(self, events: Events, number: int, started_at: float) -> None:
        self.number = number
        self.started_at = started_at
        self.booted = False
        self.silent = 0
        self.page: str | None = None
        self.why: str | None = None
        self._events = events
        self._reactor: Any = None
        self._reports = -1
        self._unfinished: dict[int, bytes] = {}
        self._exited: Failure | None = None
        self._open = True
        self._hears = True
        self._lingering: IDelayedCall | None = None
        self._reload_due = False
        self._asked: dict[int, Deferred[Any]] = {}
        self._questions = 0

    def spawn(self, reactor: Any, share: Share, ports: Sequence[HeldPort]) -> None:
        """Start the process. Raises OSError if the system does not allow it now.

        Args:
            share: its ``sockets`` are filled in with ``ports``.
        """
        # Twisted takes the sockets that systemd named, and closes them; in their place the worker listens on those that
        # are held. Of their number Twisted leaves the names alone.
        self._reactor = reactor
        names = os.environ.get("LISTEN_FDNAMES", "")
        named = len(names.split(":")) if names else 0
        self._reports = 3 + named
        nothing = os.open(os.devnull, os.O_RDWR)
        descriptors: dict[int, Any] = dict.fromkeys(range(3, self._reports), nothing)
        descriptors |= {0: "w", 1: "r", 2: "r", self._reports: "r"}
        sockets: list[list[Any]] = []
        for descriptor, held in enumerate(ports, self._reports + 1):
            descriptors[descriptor] = held.port.fileno()
            sockets.append([held.endpoint, held.kind, descriptor])
        environment = {**os.environ, "LISTEN_FDS": str(named)} if named else None
        command = [sys.executable, "-c", _START, str(self._reports)]
        # A process that is about to start would be ended by it. It is blocked there until it can be handled.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
        try:
            reactor.spawnProcess(self, sys.executable, command, env=environment, childFDs=descriptors)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            os.close(nothing)
        self._send(share._replace(sockets=sockets)._asdict())

    def signal(self, name: str) -> None:
        """Send a signal, unless the process has ended."""
        try:
            if self.transport is not None and self._exited is None:
                self.transport.signalProcess(name)
        except ProcessExitedAlready:
            return

    def reload(self) -> None:
        """Send SIGHUP as soon as the process handles it."""
        if self.booted:
            self.signal("HUP")
        else:
            self._reload_due = True

    def ask(self, question: str) -> Deferred[Any]:
        """Ask the process something; fails with ``ConnectionLost`` when it ends. It may be cancelled."""
        self._questions += 1
        number = self._questions

        def forget(answer: Deferred[Any]) -> None:
            del self._asked[number]

        answer: Deferred[Any] = Deferred(forget)
        self._asked[number] = answer
        self._send([number, question])
        return answer

    def _send(self, message: Any) -> None:
        # A dying process closes its pipes one by one, and does not answer a message that it cannot read.
        if self.transport is not None and self._open and self._hears:
            self.transport.writeToChild(0, json.dumps(message).encode("ascii") + b"\n")

    # Messages of the process.

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        *lines, rest = (self._unfinished.get(childFD, b"") + data).split(b"\n")
        if childFD in _STANDARD_OUTPUTS:
            while len(rest) > MAX_LINE:
                lines.append(rest[:MAX_LINE])
                rest = rest[MAX_LINE:]
        self._unfinished[childFD] = rest
        for line in lines:
            self._line(childFD, line)

    def childConnectionLost(self, childFD: int) -> None:
        rest = self._unfinished.pop(childFD, b"")
        if rest:
            self._line(childFD, rest)
        if childFD == 0:
            self._hears = False
        if childFD == self._reports and self._open:
            self._open = False
            if self._exited is not None:
                self._end(self._exited)

    def _line(self, childFD: int, line: bytes) -> None:
        if childFD in _STANDARD_OUTPUTS:
            text = line.decode("utf-8", "backslashreplace").rstrip()
            self.log.warn("worker {number} says: {text}", number=self.number, text=text)
            return
        try:
            kind, *fields = json.loads(line)
            received: Callable[..., None] = getattr(self, f"_received_{kind}")
            received(*fields)
        except Exception:
            # The end of one that was killed in the middle of a line.
            self.log.warn("worker {number} reports {line!r}, which is unclear", number=self.number, line=line[:200])

    def _received_beat(self) -> None:
        self.silent = 0
        if not self.booted:
            self.booted = True
            self._events.booted(self)
            if self._reload_due:
                self.reload()

    def _received_event(self, event: dict[str, Any]) -> None:
        level, namespace = event["level"], event["namespace"]
        globalLogPublisher(
            {
                **event["fields"],
                "log_time": event["time"],
                "log_level": LogLevel.lookupByName(level),
                "log_namespace": namespace,
                "log_system": f"worker {self.number} {namespace}#{level}",
                "log_format": "{log_text}",
                "log_text": event["text"],
            }
        )

    def _received_access(self, line: str) -> None:
        self._events.access_line(line)

    def _received_lost(self, count: int) -> None:
        self.log.warn(
            "worker {number}: {count} log lines were lost, because they were not read", number=self.number, count=count
        )

    def _received_failed(self, why: str) -> None:
        self.why = why

    def _received_answer(self, number: int, question: str, answer: Any) -> None:
        if question == "metrics" and answer is not None:
            self.page = answer
        asked = self._asked.pop(number, None)
        if asked is not None:
            asked.callback(answer)

    # The end.

    def processExited(self, reason: Failure) -> None:
        self._exited = reason
        if self._open:
            # Its last messages come before its end. A process that the application forked may keep the pipe open.
            self._lingering = self._reactor.callLater(LINGERING, self._end, reason)
        else:
            self._end(reason)

    def _end(self, reason: Failure) -> None:
        self._open = False
        if self._lingering is not None and self._lingering.active():
            self._lingering.cancel()
        asked, self._asked = self._asked, {}
        for answer in asked.values():
            answer.errback(ConnectionLost())
        self._events.ended(self, reason)
