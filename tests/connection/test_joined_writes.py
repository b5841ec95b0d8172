"""Tests of `twisted_beastws.connection.joined_writes`."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from zope.interface import alsoProvides

from twisted_beastws import Limits
from twisted_beastws.connection.joined_writes import AT_ONCE, PASSED_ON, SMALL, JoinedWrites
from twisted_beastws.connection.write_buffer import Outgoing


class Below(list[bytes]):
    """A transport that keeps each write apart, as Twisted's TLS does until the reactor turn ends."""

    def write(self, data: bytes) -> None:
        self.append(bytes(data))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def below() -> Below:
    return Below()


@pytest.fixture
def writes(below: Below, clock: Clock) -> JoinedWrites:
    return JoinedWrites(below, clock)


def pass_on(writes: JoinedWrites, count: int = PASSED_ON) -> None:
    for _ in range(count):
        writes.write(b"-")


class TestJoining:
    """Small writes of one turn become one write."""

    @pytest.mark.parametrize("count", [PASSED_ON - 1, PASSED_ON])
    def test_a_few_small_writes_are_passed_on_unchanged(
        self, writes: JoinedWrites, below: Below, clock: Clock, count: int
    ) -> None:
        pass_on(writes, count)
        assert below == [b"-"] * count
        assert clock.getDelayedCalls() == []

    def test_more_small_writes_are_joined_in_the_next_turn(
        self, writes: JoinedWrites, below: Below, clock: Clock
    ) -> None:
        pass_on(writes, PASSED_ON + 1)
        writes.write(b"ab")
        writes.write(b"c")
        assert below == [b"-"] * PASSED_ON
        clock.advance(0)
        assert below[PASSED_ON:] == [b"-abc"]

    def test_the_next_turn_passes_small_writes_on_again(self, writes: JoinedWrites, below: Below, clock: Clock) -> None:
        pass_on(writes, PASSED_ON + 1)
        clock.advance(0)
        pass_on(writes)
        assert below[PASSED_ON + 1 :] == [b"-"] * PASSED_ON

    @pytest.mark.parametrize("size", [SMALL, SMALL + 1, AT_ONCE * 3])
    def test_large_writes_are_passed_on_unchanged(
        self, writes: JoinedWrites, below: Below, clock: Clock, size: int
    ) -> None:
        for _ in range(PASSED_ON + 1):
            writes.write(bytes(size))
        assert below == [bytes(size)] * (PASSED_ON + 1)

    def test_joined_bytes_are_written_at_once_above_a_record(
        self, writes: JoinedWrites, below: Below, clock: Clock
    ) -> None:
        pass_on(writes)
        del below[:]
        for _ in range(AT_ONCE // 2):
            writes.write(b"ab")
        assert below == []
        writes.write(b"c")
        assert below == [b"ab" * (AT_ONCE // 2)]
        clock.advance(0)
        assert below[1:] == [b"c"]

    @pytest.mark.parametrize("size", [SMALL, AT_ONCE - 1, AT_ONCE, AT_ONCE + 1])
    def test_the_order_is_kept_before_a_large_write(
        self, writes: JoinedWrites, below: Below, clock: Clock, size: int
    ) -> None:
        pass_on(writes, PASSED_ON + 1)
        writes.write(b"x" * size)
        writes.write(b"y")
        clock.advance(0)
        assert b"".join(below[PASSED_ON:]) == b"-" + b"x" * size + b"y"


class TestEnd:
    """The joined bytes when the connection ends."""

    def test_flush_writes_the_waiting_bytes_now(self, writes: JoinedWrites, below: Below, clock: Clock) -> None:
        pass_on(writes, PASSED_ON + 2)
        writes.flush()
        assert below[PASSED_ON:] == [b"--"]
        clock.advance(0)
        assert len(below) == PASSED_ON + 1

    def test_discard_drops_the_waiting_bytes(self, writes: JoinedWrites, below: Below, clock: Clock) -> None:
        pass_on(writes, PASSED_ON + 2)
        writes.discard()
        assert clock.getDelayedCalls() == []
        assert len(below) == PASSED_ON


class Owner:
    def __init__(self) -> None:
        self.clock = Clock()

    def overflowed(self) -> None:
        """These tests never overflow the write buffer."""

    def transport_leaving(self) -> None:
        """In these tests the transport never leaves."""


class Tls(StringTransport):
    """A transport that claims to be TLS and accepts every write."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        alsoProvides(self, ISSLTransport)


class TestWriteBuffer:
    """A connection over TLS that joins its small writes."""

    def make(self) -> tuple[Outgoing, Any, Clock]:
        transport, owner = Tls(), Owner()
        return Outgoing(transport, Limits(), owner), transport, owner.clock

    def test_small_frames_over_tls_are_joined(self) -> None:
        outgoing, transport, clock = self.make()
        for _ in range(PASSED_ON + 2):
            outgoing.write(b"ab")
        assert len(transport.value()) == 2 * PASSED_ON
        clock.advance(0)
        assert len(transport.value()) == 2 * PASSED_ON + 4

    def test_the_end_writes_joined_frames_first(self) -> None:
        outgoing, transport, _ = self.make()
        for _ in range(PASSED_ON + 2):
            outgoing.write(b"ab")
        seen: list[int] = []
        outgoing.finish(lambda: seen.append(len(transport.value())))
        assert seen == [2 * PASSED_ON + 4]

    def test_an_abandoned_connection_writes_nothing_more(self) -> None:
        outgoing, transport, clock = self.make()
        for _ in range(PASSED_ON + 2):
            outgoing.write(b"ab")
        outgoing.abandon()
        assert clock.getDelayedCalls() == []
        assert len(transport.value()) == 2 * PASSED_ON
