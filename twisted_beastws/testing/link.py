"""`Link`: two protocols in memory, and a clock."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from twisted_beastws.testing.transport import MemoryTransport

MAX_ROUNDS = 100_000
"""Deliveries in each direction in one flush. If bytes still move after that, the flush fails."""


class Link:
    """Two protocols, a `MemoryTransport` for each, and a clock.

    Attributes:
        clock: The time of both protocols.
        chunk: The most bytes to deliver at once.
        ends: The transports of the client and of the server.
    """

    def __init__(self, client: Any, server: Any, clock: Clock, chunk: int) -> None:
        self.clock = clock
        self.chunk = chunk
        here, there = IPv4Address("TCP", "127.0.0.1", 50000), IPv4Address("TCP", "127.0.0.1", 80)
        self.ends = (MemoryTransport(client, here, there), MemoryTransport(server, there, here))
        self.ends[0].join(self.ends[1])
        self._flushing = False
        for end in self.ends:
            end.protocol.makeConnection(end)

    def flush(self) -> None:
        """Move bytes both ways until no more bytes move. A call from a hook leaves that to the running call.

        Calls on the clock that are due are made, too: an end handles a long chunk in several turns.

        Raises:
            AssertionError: The ends do not stop sending.
        """
        if self._flushing:
            return
        self._flushing = True
        try:
            for _ in range(MAX_ROUNDS):
                moved = [end.step(self.chunk) for end in self.ends]
                if any(moved):
                    continue
                # An end may have work for the next turn of the reactor.
                due = self._next_due()
                if due is None or due > self.clock.seconds():
                    return
                self.clock.advance(0)
        finally:
            self._flushing = False
        raise AssertionError(f"the two ends still sent after {MAX_ROUNDS} deliveries each way")

    def advance(self, seconds: float) -> None:
        """Let time pass: make the calls on the clock in order, each at its time, with a `flush` after each."""
        self.flush()
        until = self.clock.seconds() + seconds
        while (due := self._next_due()) is not None and due <= until:
            self.clock.advance(max(0.0, due - self.clock.seconds()))
            self.flush()
        self.clock.advance(max(0.0, until - self.clock.seconds()))

    def _next_due(self) -> float | None:
        return min((call.getTime() for call in self.clock.getDelayedCalls()), default=None)

    def cut(self) -> None:
        """Break the connection: both protocols lose it at once, with ``ConnectionLost``."""
        self.ends[0].break_now()


def finish(link: Link, handshake: Deferred[Any]) -> None:
    """Flush, and raise the failure of the handshake, if it has one."""
    results: list[Any] = []
    handshake.addBoth(results.append)
    link.flush()
    if not results:
        raise AssertionError(
            "the handshake waits for something: pass opened=False, call the client's handshake() yourself, and flush() "
            "when that is there"
        )
    if isinstance(results[0], Failure):
        link.cut()
        results[0].raiseException()
