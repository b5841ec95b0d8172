"""``beastws bench``: its load, its figures, and its process."""

from __future__ import annotations

import resource
from array import array
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from twisted_beastws import CloseReason, connect
from twisted_beastws.console.bench import AT_ONCE, PATIENCE, Bench, BenchError, Echoed, Figures, Load
from twisted_beastws.console.progress import Progress

from ..support.loopback import leaving_nothing
from ..support.loopback import serving as serving_ours
from .processes import console, echo, run, serving


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


class TestFigures:
    """The figures that the bench prints."""

    def test_quantiles_are_by_nearest_rank(self) -> None:
        figures = Figures(Load(1, 100, 1), 1.0, array("d", range(1, 101)))
        assert [figures.quantile(part) for part in (0.0, 0.001, 0.5, 0.99, 0.991, 1.0)] == [1, 1, 50, 99, 100, 100]
        assert Figures(Load(1, 1, 1), 1.0, array("d", [7.0])).quantile(0.5) == 7.0

    def test_the_figures_are_printed(self) -> None:
        figures = Figures(Load(10, 50, 64), 0.25, array("d", (n / 1e6 for n in range(1, 501))))
        assert str(figures) == (
            "10 connections, 500 messages of 64 bytes, each echoed, in 0.25 s\n"
            "2000 messages/s\n"
            "round trip: p50 0.25 ms, p99 0.495 ms, longest 0.5 ms"
        )


class TestProgress:
    """The progress bar."""

    def test_a_bar_is_shown_on_a_terminal(self) -> None:
        stream = Terminal()
        progress = Progress(stream)
        progress.show("messages", 1, 3)
        progress.clear()
        assert stream.getvalue() == f"\r[{'#' * 10}{'-' * 20}]  33% messages\x1b[K\r\x1b[K"

    def test_no_bar_is_shown_elsewhere(self) -> None:
        stream = StringIO()
        progress = Progress(stream)
        progress.show("messages", 1, 3)
        progress.clear()
        assert stream.getvalue() == ""


class Faked(Echoed):
    """A connection without a server."""

    def __init__(self, bench: Bench, number: int) -> None:
        super().__init__(bench, number)
        self.sent: list[Any] = []
        self.ended = ""
        # Set on the instance: WebSocketProtocol rejects a subclass that defines methods with these names.
        faked: Any = self
        faked.send, faked.close, faked.abort = self.sent.append, self.note_close, self.note_abort

    def note_close(self, code: int = 1000, reason: str = "") -> Deferred[CloseReason]:
        self.ended = "closed"
        return succeed(CloseReason(1000, "", True, "local"))

    def note_abort(self) -> None:
        self.ended = self.ended or "aborted"


class Run:
    """A running `Bench` with a fake clock."""

    def __init__(self, load: Load, opens: Callable[[Any], Any] = succeed) -> None:
        self.clock = Clock()
        self.made: list[Any] = []
        self.outcome: list[Any] = []
        self.bench = Bench(load, lambda protocol: opens(self.make(protocol)), self.clock)
        self.stream = Terminal()
        self.running = Deferred.fromCoroutine(self.bench.run(Progress(self.stream)))
        self.running.addBoth(self.outcome.append)

    def make(self, protocol: Any) -> Any:
        self.made.append(protocol())
        return self.made[-1]

    def failure(self) -> Any:
        (failure,) = self.outcome
        failure.cleanFailure()
        return failure.value


Starts = Callable[..., Run]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Starts]:
    """Return ``start(load, opens)``, which starts a `Run`; cancel the runs at the end."""
    monkeypatch.setattr("twisted_beastws.console.bench.Echoed", Faked)
    started: list[Run] = []

    def start(*arguments: Any) -> Run:
        started.append(Run(*arguments))
        return started[-1]

    yield start
    for one in started:
        one.running.cancel()


class TestBench:
    """The load, on connections of the test's own."""

    def test_a_message_is_sent_once_the_one_before_is_back(self, start: Starts) -> None:
        bench = start(Load(2, 2, 6))
        one, two = bench.made
        assert (one.sent, two.sent) == (["0.2 xx"], ["1.2 xx"])
        one.text_received("welcome")
        one.text_received("1.2 xx")
        assert one.sent == ["0.2 xx"]
        for connection in (one, two):
            for _ in range(2):
                connection.text_received(connection.sent[-1])
        (figures,) = bench.outcome
        assert isinstance(figures, Figures)
        assert len(figures.trips) == 4 and list(figures.trips) == sorted(figures.trips)
        assert (one.sent, two.sent) == (["0.2 xx", "0.1 xx"], ["1.2 xx", "1.1 xx"])
        assert one.ended == two.ended == "closed"
        one.text_received("0.1 xx")
        assert len(bench.bench.trips) == 4

    @pytest.mark.parametrize("size", [1, 3, 4, 100])
    def test_messages_have_their_size(self, start: Starts, size: int) -> None:
        bench = start(Load(1, 1, size))
        assert [len(message) for message in bench.made[0].sent] == [size]

    def test_a_server_that_does_not_echo_is_reported(self, start: Starts) -> None:
        bench = start(Load(1, 2, 5))
        bench.clock.advance(PATIENCE - 0.1)
        bench.made[0].text_received(bench.made[0].sent[-1])
        bench.clock.advance(0.1)
        bench.clock.pump([0.1] * int(PATIENCE * 10 - 2))
        assert bench.outcome == []
        bench.clock.pump([0.1] * 3)
        failure = bench.failure()
        assert isinstance(failure, BenchError)
        assert str(failure) == "no echo in 10 s: --bench wants a server that sends each text back"
        assert bench.made[0].ended == "aborted"
        assert bench.clock.getDelayedCalls() == []

    def test_a_connection_that_ends_is_reported(self, start: Starts) -> None:
        bench = start(Load(2, 2, 5))
        bench.made[0].text_received(bench.made[0].sent[-1])
        bench.made[1].closed(CloseReason(1006, "", False, "transport"))
        assert str(bench.failure()) == "after 1 message: the connection was lost without a close frame (1006)"
        assert bench.made[0].ended == "aborted"

    def test_a_connection_that_does_not_open_is_reported(self, start: Starts) -> None:
        cancelled: list[Any] = []

        made: list[Any] = []

        def opening(protocol: Any) -> Any:
            made.append(protocol)
            if len(made) == 1:
                return succeed(protocol)
            return Deferred(cancelled.append) if len(made) < 5 else fail(ConnectionError("no"))

        bench = start(Load(5, 2, 5), opening)
        assert isinstance(bench.failure(), ConnectionError)
        assert made[0].ended == "aborted"
        assert len(cancelled) == 3

    def test_a_limited_number_of_connections_opens_at_a_time(self, start: Starts) -> None:
        waiting: list[Any] = []

        def opens(protocol: Any) -> Any:
            waiting.append((Deferred(), protocol))
            return waiting[-1][0]

        bench = start(Load(AT_ONCE + 5, 1, 5), opens)
        assert len(waiting) == AT_ONCE
        for opening, protocol in waiting:
            opening.callback(protocol)
        assert len(waiting) == AT_ONCE + 5
        assert all(made.sent for made in bench.made)

    def test_too_few_file_descriptors_are_reported(self, start: Starts, monkeypatch: pytest.MonkeyPatch) -> None:
        given: list[Any] = []
        monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 164))
        monkeypatch.setattr(resource, "setrlimit", lambda _, limits: given.append(limits))
        start(Load(36, 1, 1))
        assert given == []
        start(Load(100, 1, 1))
        assert given == [(164, 164)]
        failure = start(Load(101, 1, 1)).failure()
        assert str(failure) == "this system lets a process have 164 files open (ulimit -n), and 165 are needed"


@leaving_nothing
async def test_the_bench_can_run_over_tcp() -> None:
    async with serving_ours() as url:
        bench = Bench(Load(3, 20, 10), lambda protocol: connect(url, protocol=protocol), reactor)
        figures = await bench.run(Progress(StringIO()))
    assert len(figures.trips) == 60
    assert 0 < figures.trips[0] <= figures.trips[-1] <= figures.seconds


class TestProcess:
    """The bench as a process."""

    LOAD = ("--bench", "--connections=2", "--messages=50", "--size=10")

    def test_the_figures_are_printed_to_the_output(self) -> None:
        with serving(echo) as url:
            status, out, err = run(url, *self.LOAD)
        assert (status, err) == (0, "")
        first, second, third = out.splitlines()
        assert first.startswith("2 connections, 100 messages of 10 bytes, each echoed, in ")
        assert second.endswith(" messages/s") and int(second.split()[0]) > 0
        assert third.startswith("round trip: p50 ")

    def test_a_bar_shows_the_progress(self) -> None:
        with serving(echo) as url, console(url, *self.LOAD) as client:
            assert client.ends() == 0
        assert b"] 100% connected" in client.output
        assert client.screen.rows[0].startswith("2 connections, 100 messages of 10 bytes")

    def test_the_bench_can_be_interrupted(self) -> None:
        with serving(echo) as url, console(url, "--bench", "--messages=1000000") as client:
            client.until("the bar", lambda screen: " messages" in screen.row)
            client.types("\x03")
            assert client.ends() == 130
            assert b"Traceback" not in client.output

    def test_an_absent_server_is_reported(self) -> None:
        status, out, err = run("ws://localhost:1/", "--bench")
        assert (status, out, err) == (1, "", "localhost:1 refuses connections: nothing listens there\n")

    def test_a_server_that_leaves_is_reported(self) -> None:
        with serving(lambda ws: None) as url:
            status, out, err = run(url, "--bench")
        assert (status, out) == (3, "")
        assert err.startswith("after 0 messages: closed by the server: 1000 (normal)")
