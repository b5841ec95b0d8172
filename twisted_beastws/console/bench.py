"""``--bench``: measure the message rate and round-trip times of a server that echoes, from one process."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import ceil
from time import perf_counter
from typing import Any

from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.task import LoopingCall

from twisted_beastws.clock import seconds_of
from twisted_beastws.console.failures import how_it_ended
from twisted_beastws.console.progress import Progress
from twisted_beastws.console.text import counted, milliseconds
from twisted_beastws.errors import ConnectionClosed
from twisted_beastws.options import Timeouts
from twisted_beastws.protocol import WebSocketProtocol
from twisted_beastws.wire.closing import CloseReason

AT_ONCE = 50
"""Connections that are opened concurrently: the listen backlog of Twisted's ports, and of many other servers."""

PATIENCE = 10.0
"""Seconds without any echo after which the load fails: the server does not seem to echo."""

SPARE_FILES = 64
"""File descriptors reserved for other files of the process."""

TIMEOUTS = Timeouts(close=2.0)


class BenchError(Exception):
    """The load cannot continue; ``str(error)`` gives the reason in one line."""


@dataclass(frozen=True)
class Load:
    """The load to put on a server.

    Attributes:
        connections: The number of connections.
        messages: The number of messages that each connection sends.
        size: The size of each message in bytes.
    """

    connections: int
    messages: int
    size: int

    @property
    def total(self) -> int:
        """The number of messages of all connections."""
        return self.connections * self.messages


@dataclass(frozen=True)
class Figures:
    """The result of a load, or of its completed part.

    Attributes:
        load: The load that was requested.
        seconds: The time from the first message to the last echo, or to the interruption.
        trips: The round-trip times of the echoed messages in seconds, sorted.
    """

    load: Load
    seconds: float
    trips: array[float]

    def quantile(self, part: float) -> float:
        """Return the round-trip time within which ``part`` of the messages returned, by nearest rank."""
        return self.trips[max(ceil(part * len(self.trips)) - 1, 0)]

    def __str__(self) -> str:
        load, p50, p99 = self.load, milliseconds(self.quantile(0.5)), milliseconds(self.quantile(0.99))
        messages = f"{counted(len(self.trips), 'message')} of {counted(load.size, 'byte')}"
        return (
            f"{counted(load.connections, 'connection')}, {messages}, each echoed, in {self.seconds:.2f} s\n"
            f"{len(self.trips) / self.seconds:.0f} messages/s\n"
            f"round trip: p50 {p50}, p99 {p99}, longest {milliseconds(self.trips[-1])}"
        )


class Bench:
    """Puts a `Load` on the server of ``open_connection``. Messages of other connections, as in a chat, do not count."""

    def __init__(self, load: Load, open_connection: Callable[[Callable[[], Echoed]], Deferred[Echoed]], clock: Any):
        self.load = load
        self.trips = array("d")
        self._open = open_connection
        self._clock = clock
        self._connections: list[Echoed] = []
        self._done: Deferred[None] = Deferred()
        self._seen = 0
        self._seen_at = 0.0
        self._started: float | None = None

    def so_far(self) -> Figures | None:
        """Return the figures of the messages echoed so far, or None if there are none."""
        if self._started is None or not self.trips:
            return None
        return Figures(self.load, perf_counter() - self._started, array("d", sorted(self.trips)))

    async def run(self, progress: Progress) -> Figures:
        """Open the connections, exchange the messages and close.

        Raises:
            BenchError: The load cannot continue.
            Exception: A connection could not be opened; the error is that of `connect`.
        """
        look = LoopingCall(self._look, progress)
        look.clock = self._clock
        try:
            _require_files(self.load.connections + SPARE_FILES)
            await self._open_all(progress)
            self._seen_at = seconds_of(self._clock)()
            self._started = perf_counter()
            look.start(0.1, now=False)
            for connection in self._connections:
                connection.next()
            await self._done
            seconds = perf_counter() - self._started
            await gatherResults([connection.close() for connection in self._connections])
        finally:
            if look.running:
                look.stop()
            for connection in self._connections:
                connection.abort()
            progress.clear()
            # If some connections did not open, that error is raised; do not log the one of connections lost meanwhile.
            self._done.addErrback(lambda _: None)
        return Figures(self.load, seconds, array("d", sorted(self.trips)))

    def echoed(self, seconds: float) -> None:
        """Record the round-trip time of a message."""
        self.trips.append(seconds)
        if len(self.trips) == self.load.total and not self._done.called:
            self._done.callback(None)

    def lost(self, reason: CloseReason) -> None:
        """Fail the load: one of its connections has ended."""
        self._fail(f"after {counted(len(self.trips), 'message')}: {how_it_ended(reason)}")

    async def _open_all(self, progress: Progress) -> None:
        numbers = iter(range(self.load.connections))

        async def open_next() -> None:
            for number in numbers:
                self._connections.append(await self._open(partial(Echoed, self, number)))
                progress.show("connected", len(self._connections), self.load.connections)

        opening = [Deferred.fromCoroutine(open_next()) for _ in range(AT_ONCE)]
        try:
            await gatherResults(opening, consumeErrors=True)
        except FirstError as error:
            for other in opening:
                other.cancel()
            error.subFailure.raiseException()

    def _look(self, progress: Progress) -> None:
        done, now = len(self.trips), seconds_of(self._clock)()
        progress.show(f"{done} of {self.load.total} messages", done, self.load.total)
        if done > self._seen:
            self._seen, self._seen_at = done, now
        elif now - self._seen_at >= PATIENCE:
            self._fail(f"no echo in {PATIENCE:g} s: --bench wants a server that sends each text back")

    def _fail(self, why: str) -> None:
        if not self._done.called:
            self._done.errback(BenchError(why))


class Echoed(WebSocketProtocol):
    """Sends its next message when it has received the echo of the previous one."""

    def __init__(self, bench: Bench, number: int) -> None:
        self._bench = bench
        self._number = number
        self._left = bench.load.messages
        self._expected = ""
        self._sent_at = 0.0

    def next(self) -> None:
        """Send the next message; its text is unique if the size allows."""
        if self._left:
            size = self._bench.load.size
            self._expected = f"{self._number}.{self._left} ".ljust(size, "x")[:size]
            self._left -= 1
            self._sent_at = perf_counter()
            # `closed` reports the end of a connection that is closing.
            with suppress(ConnectionClosed):
                self.send(self._expected)
        else:
            self._expected = ""

    def text_received(self, text: str) -> None:
        if self._expected and text == self._expected:
            self._bench.echoed(perf_counter() - self._sent_at)
            self.next()

    def closed(self, reason: CloseReason) -> None:
        self._bench.lost(reason)


def _require_files(number: int) -> None:
    """Raise the limit of open files to ``number`` if it is lower. Raises `BenchError` if the system forbids that."""
    try:
        import resource
    except ImportError:
        # Windows has no such limit.
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < number:
        if hard != resource.RLIM_INFINITY and hard < number:
            raise BenchError(f"this system lets a process have {hard} files open (ulimit -n), and {number} are needed")
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
