"""The supervisor of several processes on the same sockets, by itself."""

from __future__ import annotations

import errno
import json
import signal
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionLost, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from twisted_beastws.service.process import LINGERING
from twisted_beastws.service.worker import BEAT, Share
from twisted_beastws.service.workers import BOOT_TIME, GRACE, MAX_BOOTS, MAX_DELAY, MIN_DELAY, Workers

if sys.platform == "win32":
    pytestmark = pytest.mark.skip(reason="WORKERS ARE NOT TESTED: sockets are shared on POSIX alone")


class Process:
    """A process that a supervisor started, and the messages that it got."""

    def __init__(self, protocol: Any, command: list[str], descriptors: dict[int, Any]) -> None:
        self.protocol = protocol
        self.command = command
        self.descriptors = descriptors
        self.reports = max(number for number, kind in descriptors.items() if kind == "r")
        self.signals: list[str] = []
        self.orders = b""
        protocol.transport = self

    def signalProcess(self, name: str) -> None:
        self.signals.append(name)

    def writeToChild(self, descriptor: int, data: bytes) -> None:
        assert descriptor == 0
        self.orders += data

    def reports_that(self, *message: Any) -> None:
        self.protocol.childDataReceived(self.reports, json.dumps(message).encode() + b"\n")

    def ends(self) -> None:
        self.protocol.processExited(Failure(ProcessTerminated(exitCode=1)))
        self.protocol.childConnectionLost(self.reports)


class Reactor(Clock):
    def __init__(self) -> None:
        super().__init__()
        self.processes: list[Process] = []
        self.refusals = 0

    def callWhenRunning(self, call: Callable[[], None]) -> None:
        call()

    def spawnProcess(self, protocol: Any, executable: str, args: list[str], env: Any, childFDs: dict[int, Any]) -> None:
        assert executable == args[0] == sys.executable
        if self.refusals:
            self.refusals -= 1
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        assert signal.SIGHUP in signal.pthread_sigmask(signal.SIG_BLOCK, [])
        self.processes.append(Process(protocol, args, childFDs))

    def boot(self) -> None:
        """Every process gives a sign of life."""
        for process in self.processes:
            process.reports_that("beat")

    def goes_on(self, seconds: float) -> None:
        """Let time pass in steps in which a worker gives a sign of life."""
        self.pump([BEAT] * int(seconds / BEAT))


PORTS: Any = [
    SimpleNamespace(endpoint=0, kind="TCP", port=SimpleNamespace(fileno=lambda: 70)),
    SimpleNamespace(endpoint=1, kind="UNIX", port=SimpleNamespace(fileno=lambda: 71)),
]


@pytest.fixture
def reactor() -> Reactor:
    return Reactor()


@pytest.fixture
def lines() -> list[str]:
    """The warnings of the supervisor."""
    return []


@pytest.fixture
def workers(reactor: Reactor, logged: Any, lines: list[str]) -> Iterator[Workers]:
    def warn(format: str, **fields: Any) -> None:
        lines.append(format.format(**fields))

    share = Share(0, "/start", [], [], {"/key.pem": "secret"}, 13.0)
    workers = Workers(reactor, 2, PORTS, share, lambda: ["-n", "beastws"], drain_time=8.0, timeout=30.0)
    workers.log = SimpleNamespace(warn=warn)  # type: ignore[assignment]
    workers.startService()
    yield workers
    if workers.running:
        workers.stopService()
    for worker in list(workers.living):
        worker.transport.ends()  # type: ignore[union-attr]
    assert reactor.getDelayedCalls() == []


class TestSupervisor:
    """The life of the workers."""

    def test_each_worker_is_given_the_sockets_and_the_files(self, workers: Workers, reactor: Reactor) -> None:
        assert len(reactor.processes) == len(workers.living) == 2
        for number, process in enumerate(reactor.processes, 1):
            assert process.command[-1:] == ["3"]
            assert process.descriptors == {0: "w", 1: "r", 2: "r", 3: "r", 4: 70, 5: 71}
            assert json.loads(process.orders) == {
                "number": number,
                "directory": "/start",
                "twistd": ["-n", "beastws"],
                "sockets": [[0, "TCP", 4], [1, "UNIX", 5]],
                "files": {"/key.pem": "secret"},
                "time_to_end": 13.0,
            }

    def test_sockets_of_systemd_are_kept_in_their_places(
        self, workers: Workers, reactor: Reactor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LISTEN_FDNAMES", "one:other")
        reactor.processes[0].ends()
        reactor.advance(MIN_DELAY)
        descriptors = reactor.processes[-1].descriptors
        assert {number: descriptors[number] for number in (5, 6, 7)} == {5: "r", 6: 70, 7: 71}
        assert descriptors[3] == descriptors[4] not in (70, 71)

    def test_dead_workers_are_replaced_with_growing_delays(self, workers: Workers, reactor: Reactor) -> None:
        delay = MIN_DELAY
        for count in range(1, 12):
            reactor.boot()
            reactor.processes[-1].ends()
            assert (len(workers.living), workers.replaced) == (1, count)
            reactor.advance(delay - 0.01)
            assert len(workers.living) == 1
            reactor.advance(0.02)
            assert len(workers.living) == 2
            delay = min(2 * delay, MAX_DELAY)
        assert delay == MAX_DELAY

    def test_a_worker_that_lived_long_is_replaced_soon(self, workers: Workers, reactor: Reactor) -> None:
        reactor.boot()
        for _ in range(5):
            reactor.processes[-1].ends()
            reactor.advance(MAX_DELAY)
            reactor.boot()
        reactor.advance(MAX_DELAY)
        reactor.processes[-1].ends()
        reactor.advance(MIN_DELAY)
        assert len(workers.living) == 2

    def test_the_supervisor_stops_the_workers_and_waits(self, workers: Workers, reactor: Reactor) -> None:
        stopped: list[object] = []
        workers.stopService().addCallback(stopped.append)
        assert [process.signals for process in reactor.processes] == [["TERM"], ["TERM"]]
        reactor.processes[0].ends()
        assert stopped == []
        reactor.processes[1].ends()
        assert stopped == [None] and reactor.getDelayedCalls() == []

    def test_a_worker_has_ended_when_all_that_it_sent_was_read(self, workers: Workers, reactor: Reactor) -> None:
        process = reactor.processes[0]
        process.protocol.processExited(Failure(ProcessTerminated(exitCode=1)))
        assert len(workers.living) == 2
        # Its last line is the reason.
        process.reports_that("failed", "there is no app")
        process.protocol.childConnectionLost(3)
        assert len(workers.living) == 1

    def test_a_worker_has_ended_even_if_a_process_that_it_forked_lives(
        self, workers: Workers, reactor: Reactor
    ) -> None:
        reactor.processes[0].protocol.processExited(Failure(ProcessTerminated(exitCode=1)))
        reactor.advance(LINGERING - 0.01)
        assert len(workers.living) == 2
        reactor.advance(0.02)
        assert (len(workers.living), workers.replaced) == (1, 1)
        reactor.processes[0].protocol.childConnectionLost(3)
        assert (len(workers.living), workers.replaced) == (1, 1)

    def test_a_worker_that_does_not_end_is_killed(self, workers: Workers, reactor: Reactor) -> None:
        reactor.boot()
        workers.stopService()
        for _ in range(int((8.0 + GRACE) / BEAT) - 1):
            reactor.advance(BEAT)
            reactor.boot()
        assert reactor.processes[0].signals == ["TERM"]
        reactor.advance(BEAT)
        assert reactor.processes[0].signals == ["TERM", "KILL"]

    def test_a_worker_that_hangs_is_killed_before_the_drain_time_is_over(
        self, workers: Workers, reactor: Reactor
    ) -> None:
        reactor.boot()
        workers.stopService()
        for _ in range(int(7.0 / BEAT)):
            reactor.processes[0].reports_that("beat")
            reactor.advance(BEAT)
        assert [process.signals for process in reactor.processes] == [["TERM"], ["TERM", "KILL"]]

    def test_no_worker_is_replaced_during_the_stop(self, workers: Workers, reactor: Reactor) -> None:
        reactor.processes[0].ends()
        stopped: list[object] = []
        workers.stopService().addCallback(stopped.append)
        reactor.processes[1].ends()
        reactor.advance(MAX_DELAY)
        assert len(reactor.processes) == 2 and stopped == [None]


class TestFork:
    """Workers that cannot be started."""

    def test_a_worker_that_cannot_be_started_is_tried_again(
        self, workers: Workers, reactor: Reactor, lines: list[str]
    ) -> None:
        reactor.boot()
        reactor.refusals = 1
        reactor.processes[0].ends()
        reactor.advance(MIN_DELAY)
        assert len(workers.living) == 1 and not workers.complete
        assert lines[-1] == "worker 1 cannot be started: Resource temporarily unavailable; another starts in 0.5 s"
        reactor.advance(2 * MIN_DELAY)
        reactor.boot()
        assert workers.complete

    def test_the_service_still_ends(self, workers: Workers, reactor: Reactor) -> None:
        reactor.boot()
        reactor.refusals = 1
        reactor.processes[0].ends()
        reactor.advance(MIN_DELAY)
        stopped: list[object] = []
        workers.stopService().addCallback(stopped.append)
        reactor.processes[1].ends()
        assert stopped == [None]


class TestBoot:
    """Workers that do not come to serve."""

    @pytest.fixture
    def failures(self, workers: Workers) -> list[str]:
        failures: list[str] = []
        workers.failed = failures.append
        return failures

    def test_the_supervisor_gives_up_after_the_last_attempt(
        self, workers: Workers, reactor: Reactor, failures: list[str], lines: list[str]
    ) -> None:
        for _ in range(MAX_BOOTS - 1):
            reactor.processes[-1].ends()
            assert failures == []
            reactor.advance(MAX_DELAY)
        process = reactor.processes[-1]
        process.reports_that("failed", "there is no app")
        process.ends()
        assert failures == ["worker 2 cannot start: there is no app; that was attempt 5, and no worker serves"]
        assert len(lines) == MAX_BOOTS - 1

    def test_the_supervisor_goes_on_while_another_worker_serves(
        self, workers: Workers, reactor: Reactor, failures: list[str]
    ) -> None:
        reactor.processes[0].reports_that("beat")
        for _ in range(3 * MAX_BOOTS):
            reactor.processes[0].reports_that("beat")
            reactor.processes[-1].ends()
            reactor.advance(MAX_DELAY)
        assert failures == []

    def test_a_worker_that_serves_resets_the_count_of_attempts(
        self, workers: Workers, reactor: Reactor, failures: list[str]
    ) -> None:
        for _ in range(3):
            for _ in range(MAX_BOOTS - 1):
                reactor.processes[-1].ends()
                reactor.advance(MAX_DELAY)
            reactor.processes[-1].reports_that("beat")
            reactor.processes[-1].ends()
            reactor.advance(MAX_DELAY)
        assert failures == []

    def test_a_worker_that_does_not_come_to_serve_is_killed(self, workers: Workers, reactor: Reactor) -> None:
        reactor.goes_on(BOOT_TIME - BEAT)
        assert reactor.processes[0].signals == []
        reactor.goes_on(BEAT)
        assert reactor.processes[0].signals == ["KILL"]


class TestAnswers:
    """Questions to the workers, and their answers."""

    def ask(self, workers: Workers, question: str) -> tuple[Any, list[object]]:
        answers: list[object] = []
        worker = min(workers.living, key=lambda worker: worker.number)
        worker.ask(question).addCallbacks(answers.append, lambda failure: answers.append(failure.type))
        return worker, answers

    def test_answers_are_matched_to_their_questions(self, workers: Workers, reactor: Reactor) -> None:
        process = reactor.processes[0]
        _, first = self.ask(workers, "ready")
        _, second = self.ask(workers, "ready")
        assert process.orders.splitlines()[1:] == [b'[1, "ready"]', b'[2, "ready"]']
        process.reports_that("answer", 2, "ready", True)
        process.reports_that("answer", 1, "ready", False)
        assert (first, second) == ([False], [True])

    def test_a_late_answer_is_kept_and_a_failure_is_not(self, workers: Workers, reactor: Reactor) -> None:
        process = reactor.processes[0]
        worker, answers = self.ask(workers, "metrics")
        # As a timeout does. The question's Deferred has no public name.
        worker._asked[1].cancel()
        process.reports_that("answer", 1, "metrics", "a page")
        assert answers == [CancelledError] and worker.page == "a page"
        process.reports_that("answer", 2, "metrics", None)
        assert worker.page == "a page"

    def test_a_question_fails_when_the_process_ends(self, workers: Workers, reactor: Reactor) -> None:
        _, answers = self.ask(workers, "metrics")
        reactor.processes[0].ends()
        assert answers == [ConnectionLost]

    def test_a_process_whose_input_is_closed_gives_no_answer(self, workers: Workers, reactor: Reactor) -> None:
        process = reactor.processes[0]
        process.protocol.childConnectionLost(0)
        orders = process.orders
        _, answers = self.ask(workers, "ready")
        assert process.orders == orders
        process.ends()
        assert answers == [ConnectionLost]

    def test_unclear_answers_are_logged(self, workers: Workers, reactor: Reactor, logged: Any) -> None:
        told: list[str] = []
        worker, _ = self.ask(workers, "ready")
        worker.log = SimpleNamespace(warn=lambda format, **fields: told.append(format.format(**fields)))
        for line in (b"", b"[]", b'["unknown"]', b'["answer"]', b"{"):
            worker.childDataReceived(3, line + b"\n")
        worker.childDataReceived(2, b"half a ")
        worker.childDataReceived(2, b"line\nand \xff")
        worker.childConnectionLost(2)
        assert [line.startswith("worker 1 reports ") for line in told] == [True] * 5 + [False] * 2
        assert told[5:] == ["worker 1 says: half a line", "worker 1 says: and \\xff"]


class TestReload:
    """SIGHUP reaches the workers."""

    def test_sighup_is_passed_on(self, workers: Workers, reactor: Reactor) -> None:
        reactor.boot()
        workers.reload()
        assert [process.signals for process in reactor.processes] == [["HUP"], ["HUP"]]

    def test_a_starting_worker_gets_the_signal_once_it_handles_it(self, workers: Workers, reactor: Reactor) -> None:
        workers.reload()
        assert [process.signals for process in reactor.processes] == [[], []]
        reactor.boot()
        reactor.boot()
        assert [process.signals for process in reactor.processes] == [["HUP"], ["HUP"]]

    def test_later_workers_begin_with_the_files_of_the_reload(self, workers: Workers, reactor: Reactor) -> None:
        workers.reload({"/key.pem": "another"})
        reactor.processes[0].ends()
        reactor.advance(MIN_DELAY)
        assert json.loads(reactor.processes[-1].orders)["files"] == {"/key.pem": "another"}


class TestSignsOfLife:
    """Workers that hang."""

    def test_a_silent_worker_is_killed(self, workers: Workers, reactor: Reactor, lines: list[str]) -> None:
        reactor.boot()
        for _ in range(int(30 / BEAT) - 1):
            reactor.advance(BEAT)
            reactor.processes[0].reports_that("beat")
        assert reactor.processes[1].signals == []
        reactor.advance(BEAT)
        assert [process.signals for process in reactor.processes] == [[], ["KILL"]]
        assert lines == ["worker 2 gave no sign of life for 30 s and is killed"]

    def test_no_worker_is_silent_because_the_supervisor_was_stopped(self, workers: Workers, reactor: Reactor) -> None:
        reactor.boot()
        reactor.advance(3600)
        assert [process.signals for process in reactor.processes] == [[], []]

    def test_other_messages_do_not_count_as_signs_of_life(self, workers: Workers, reactor: Reactor) -> None:
        reactor.boot()
        for _ in range(int(30 / BEAT)):
            reactor.processes[0].reports_that("access", "a line")
            reactor.advance(BEAT)
        assert reactor.processes[0].signals == ["KILL"]
