"""One of the processes of ``twistd beastws --workers N``: the usual service, on the supervisor's sockets."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, Logger

from twisted_beastws.connection.running import settled
from twisted_beastws.service.channel import Orders, Reports
from twisted_beastws.tls.handover import Handed

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from twisted.internet.interfaces import IDelayedCall

BEAT = 0.5
"""Seconds between two signs of life."""

MAX_HESITATION = 2.0
"""Seconds without a supervisor in which a worker begins to end, if it does not hang."""


class HeldSocket(NamedTuple):
    """A socket that the supervisor holds.

    endpoint: the place of its ``--listen`` among them all. kind: the method of the reactor by which it listens.
    """

    endpoint: int
    kind: str
    descriptor: int


class Share(NamedTuple):
    """The data that a worker gets from its supervisor.

    number: from 1 on. directory: where the supervisor was when it read its options. twistd: twistd's arguments.
    sockets: to listen on, as `HeldSocket`. files: the content of each file that the supervisor read, by its path.
    time_to_end: seconds that it has to end without its supervisor.
    """

    number: int
    directory: str
    twistd: list[str]
    sockets: list[list[Any]]
    files: dict[str, str]
    time_to_end: float


class Membership:
    """This process as one of the workers."""

    def __init__(self, share: Share, reports: Reports, orders: Orders) -> None:
        self.sockets = [HeldSocket(*each) for each in share.sockets]
        self.handed = Handed(share.files)
        self.reports = reports
        self.orders = orders
        self._time_to_end = share.time_to_end
        self._ending = Event()
        Thread(target=self._watch, name="supervisor", daemon=True).start()

    def leave(self) -> None:
        """Drain the connections and end, because the supervisor is gone."""
        self._ending.set()
        os.kill(os.getpid(), signal.SIGTERM)

    def _watch(self) -> None:
        """End this process even if its reactor hangs; otherwise it would keep the sockets from a new service."""
        self.orders.wait_for_end()
        if self._ending.wait(MAX_HESITATION):
            time.sleep(self._time_to_end)
        os.kill(os.getpid(), signal.SIGKILL)


membership: Membership | None = None
"""This process's, if it is a worker."""


def log_observer() -> ILogObserver:
    """Return the observer for ``twistd --logger``: events go to the supervisor."""
    assert membership is not None
    return membership.reports


class Supervised(Service):
    """Sends signs of life to the supervisor, answers its questions, and ends in order when it is gone.

    Args:
        answers: a function for each question, which returns the answer or an awaitable for it.
    """

    log = Logger()

    def __init__(
        self, reactor: Any, membership: Membership, answers: Mapping[str, Callable[[], Any | Awaitable[Any]]]
    ) -> None:
        self._reactor = reactor
        self._membership = membership
        self._reports, self._orders = membership.reports, membership.orders
        self._answers = answers
        self._beating: IDelayedCall | None = None

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self._reports.attach(self._reactor)
        self._orders.attach(self._reactor, self._received, self._membership.leave)
        # The first says that the service handles signals, which it does once the reactor runs.
        self._reactor.callWhenRunning(self._reactor.callLater, 0, self._beat)

    def stopService(self) -> None:
        super().stopService()  # type: ignore[no-untyped-call]
        if self._beating is not None:
            self._beating.cancel()
            self._beating = None
        self._orders.detach()
        self._reports.detach()

    def _beat(self) -> None:
        if self.running:
            self._reports.send("beat")
            self._beating = self._reactor.callLater(BEAT, self._beat)

    def _received(self, message: list[Any]) -> None:
        Deferred.fromCoroutine(self._answer(*message))

    async def _answer(self, number: int, question: str) -> None:
        try:
            answer = await settled(self._answers[question]())
        except Exception:
            answer = None
            self.log.failure("the supervisor asked for {question}", question=question)
        self._reports.send("answer", number, question, answer)


def main() -> None:
    """Run twistd with the arguments from the supervisor.

    The one argument is the descriptor for reports. Orders come on the standard input.
    """
    global membership
    # The supervisor passes on the terminal's Ctrl-C.
    os.setsid()
    # The supervisor sends it when this process is ready for it; until then it was blocked.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])
    # Programs that the application starts do not inherit these.
    orders = Orders(os.dup(0))
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)
    reports = Reports(descriptor)
    share = Share(**orders.first())
    membership = Membership(share, reports, orders)
    reports.take_standard_output()
    atexit.register(reports.flush)
    # The application is looked for where the supervisor found it. Only root may be able to go there.
    with suppress(OSError):
        os.chdir(share.directory)
    _run_twistd(share.twistd, reports)


def _run_twistd(arguments: list[str], reports: Reports) -> None:
    # twistd's own way to run would print all its options before the error.
    from twisted.python.usage import UsageError
    from twisted.scripts.twistd import ServerOptions, runApp  # type: ignore[attr-defined, unused-ignore]

    sys.argv = ["twistd", *arguments]
    options = ServerOptions()
    try:
        options.parseOptions(arguments)
        runApp(options)
    except UsageError as error:
        why = str(error)
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            raise
        why = str(error)
    else:
        return
    reports.send("failed", why)
    raise SystemExit(1)
