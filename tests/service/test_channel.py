"""A worker's pipes: whatever the supervisor does, a worker never waits for it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from threading import Thread
from typing import Any

import pytest
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from twisted_beastws.service.channel import MAX_BACKLOG, MAX_TEXT, Orders, Reports

if sys.platform == "win32":
    pytestmark = pytest.mark.skip(reason="WORKERS ARE NOT TESTED: sockets are shared on POSIX alone")


class Supervisor:
    """The other end of a worker's reports."""

    def __init__(self) -> None:
        self.descriptor, writing = os.pipe()
        self.writing = writing
        os.set_blocking(self.descriptor, False)
        self.reports = Reports(writing)
        self.data = b""

    def reads(self) -> bytes:
        data = b""
        while True:
            try:
                more = os.read(self.descriptor, 1 << 20)
            except BlockingIOError:
                break
            if not more:
                break
            data += more
        self.data += data
        return data

    def messages(self) -> list[Any]:
        """All that was sent so far, when everything is read."""
        while self.reads():
            self.reports.flush(0)
        lines = self.data.splitlines()
        self.data = b""
        return [json.loads(line) for line in lines]


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    supervisor = Supervisor()
    yield supervisor
    for descriptor in (supervisor.descriptor, supervisor.writing):
        os.close(descriptor)


class TestLog:
    """The log lines of a worker."""

    def test_an_event_has_its_text_level_and_fields(self, supervisor: Supervisor) -> None:
        Logger("app", observer=supervisor.reports).warn("{count} of {what}", count=3, what=[1])
        ((kind, event),) = supervisor.messages()
        assert kind == "event" and isinstance(event.pop("time"), float)
        assert event == {
            "level": "warn",
            "namespace": "app",
            "text": "3 of [1]",
            "fields": {"count": 3},
        }

    def test_a_failure_keeps_its_text_and_its_traceback(self, supervisor: Supervisor) -> None:
        try:
            raise ValueError("the text of it")
        except ValueError:
            Logger("app", observer=supervisor.reports).failure("it failed", Failure())
        ((_, event),) = supervisor.messages()
        assert event["level"] == "critical"
        assert event["text"].startswith("it failed\nTraceback (most recent call last):\n")
        assert 'raise ValueError("the text of it")' in event["text"]
        assert event["text"].rstrip().endswith("ValueError: the text of it")

    @pytest.mark.parametrize(("size", "more"), [(MAX_TEXT - 1, 0), (MAX_TEXT, 0), (MAX_TEXT + 1, 1)])
    def test_a_text_that_is_too_long_is_cut(self, supervisor: Supervisor, size: int, more: int) -> None:
        Logger("app", observer=supervisor.reports).info("{text}", text="x" * size)
        ((_, event),) = supervisor.messages()
        assert event["text"] == "x" * (size - more) + (f" [{more} characters more]" if more else "")

    def test_half_a_character_is_escaped(self, supervisor: Supervisor) -> None:
        Logger(observer=supervisor.reports).info("{text}", text="half \ud800 \u00e9")
        assert [event["text"] for _, event in supervisor.messages()] == ["half \\ud800 \u00e9"]

    def test_an_event_without_a_text_is_left_out(self, supervisor: Supervisor) -> None:
        supervisor.reports({"log_format": None, "log_level": LogLevel.info})
        assert supervisor.messages() == []

    def test_printed_lines_are_passed_on_whole(self, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, getattr(sys, name))
        supervisor.reports.take_standard_output()
        print("half a", end=" ")
        print("line", file=sys.stderr)
        print("line")
        events = [event for _, event in supervisor.messages()]
        assert [(event["namespace"], event["level"], event["text"]) for event in events] == [
            ("stderr", "warn", "line"),
            ("stdout", "info", "half a line"),
        ]


class TestSupervisorThatDoesNotRead:
    """The supervisor does not read the pipe."""

    def fill(self, supervisor: Supervisor) -> int:
        """Send lines until the next would be lost; return how many."""
        line = "x" * 10000
        count = 0
        # The backlog has no public size. The limit counts it here.
        while supervisor.reports._size + len(line) + 100 < MAX_BACKLOG:
            supervisor.reports.say("access", line)
            count += 1
        return count

    def test_lines_beyond_the_limit_are_lost_and_counted(self, supervisor: Supervisor) -> None:
        count = self.fill(supervisor)
        # As in `fill`.
        left = MAX_BACKLOG - supervisor.reports._size
        for size in (left + 1, left):
            # One that is too long by a byte, and one that just fits.
            supervisor.reports.say("access", "y" * (size - len(b'["access", ""]\n')))
        supervisor.reports.say("access", "z")
        messages = supervisor.messages()
        assert [message for message in messages if message[0] == "lost"] == [["lost", 2]]
        assert len(messages) == count + 1 + 1

    def test_answers_and_signs_of_life_are_not_lost(self, supervisor: Supervisor) -> None:
        self.fill(supervisor)
        supervisor.reports.say("access", "x" * 10000)
        supervisor.reports.send("answer", 1, "ready", True)
        supervisor.reports.send("beat")
        assert ["beat"] in supervisor.messages()

    def test_a_supervisor_that_is_gone_causes_no_error(self) -> None:
        supervisor = Supervisor()
        os.close(supervisor.descriptor)
        supervisor.reports.say("access", "a line")
        supervisor.reports.send("beat")
        supervisor.reports.flush()
        os.close(supervisor.writing)

    def test_lines_of_threads_are_kept_whole(self, supervisor: Supervisor) -> None:
        def talk(who: str) -> None:
            for number in range(100):
                supervisor.reports.say("access", f"{who * 3000}{number}")

        threads = [Thread(target=talk, args=(who,)) for who in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        lines = [message[1] for message in supervisor.messages()]
        assert sorted(lines) == sorted(f"{who * 3000}{number}" for who in "ab" for number in range(100))


class TestOrders:
    """The orders of the supervisor."""

    def test_a_worker_waits_for_the_first_order_and_reads_the_rest_later(self) -> None:
        reading, writing = os.pipe()
        readers: list[Any] = []
        received: list[Any] = []
        ended: list[bool] = []

        class Reactor:
            addReader = readers.append
            removeReader = readers.remove

        orders = Orders(reading)
        os.write(writing, b'{"a": 1}\n[1, "rea')
        assert orders.first() == {"a": 1}
        orders.attach(Reactor, received.append, lambda: ended.append(True))
        assert orders.doRead() is None
        os.write(writing, b'dy"]\n')
        assert orders.doRead() is None and received == [[1, "ready"]]
        os.close(writing)
        reason = orders.doRead()
        assert reason is not None
        orders.connectionLost(reason)
        assert ended == [True] and readers == []
        os.close(reading)

    def test_a_closed_pipe_raises_eof_error(self) -> None:
        reading, writing = os.pipe()
        os.close(writing)
        with pytest.raises(EOFError):
            Orders(reading).first()
        os.close(reading)
