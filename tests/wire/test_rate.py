"""Tests of token buckets, and of the rates of a peer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from twisted_beastws import Deflate, Limits, Opcode, WebSocketProtocol
from twisted_beastws.wire.rate import Bucket

from ..support.inside import inside
from ..support.protocols import Echo

pytestmark = pytest.mark.usefixtures("logged")

# RFC 7692 §7.2.3.1: "Hello".
HELLO = bytes.fromhex("f248cdc9c90700")


class TestBucket:
    """The token bucket that measures a rate."""

    @pytest.mark.parametrize("rate", [1, 3, 7, 1000])
    def test_a_bucket_has_the_amount_of_one_second(self, rate: float) -> None:
        bucket = Bucket(rate)
        assert [bucket.take(1, 1e9) for _ in range(int(rate))] == [0.0] * int(rate)
        assert bucket.take(1, 1e9) == pytest.approx(1 / rate)

    def test_a_rate_below_one_allows_one_at_once(self) -> None:
        bucket = Bucket(0.25)
        assert bucket.take(1, 0.0) == 0.0
        assert bucket.take(1, 0.0) == pytest.approx(4.0)
        assert bucket.take(1, 3.9) == pytest.approx(0.1)
        assert bucket.take(1, 4.0) == 0.0

    def test_a_refused_amount_is_not_deducted(self) -> None:
        bucket = Bucket(10, 5)
        assert bucket.take(5, 0.0) == 0.0
        for _ in range(100):
            assert bucket.take(1, 0.05) == pytest.approx(0.05)
        assert bucket.take(1, 0.1) == 0.0

    def test_a_clock_that_is_set_back_costs_nothing(self) -> None:
        bucket = Bucket(2)
        assert bucket.take(1, 100.0) == 0.0
        assert bucket.take(1, 0.0) == 0.0
        assert bucket.take(1, 0.5) == 0.0

    def test_a_full_bucket_can_be_forgotten(self) -> None:
        bucket = Bucket(2)
        assert bucket.full(0.0)
        bucket.take(2, 0.0)
        assert not bucket.full(0.9)
        assert bucket.full(1.0)

    @given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 5))), st.integers(1, 10), st.integers(1, 20))
    def test_the_amount_is_at_most_the_size_and_the_rate(
        self, arrivals: list[tuple[float, int]], rate: int, size: int
    ) -> None:
        bucket, now = Bucket(rate, size), 0.0
        taken: list[tuple[float, int]] = []
        for pause, cost in arrivals:
            now += pause
            if bucket.take(cost, now) == 0.0:
                taken.append((now, cost))
        for first, (began, _) in enumerate(taken):
            for last in range(first, len(taken)):
                sent = sum(cost for _, cost in taken[first : last + 1])
                assert sent <= size + rate * (taken[last][0] - began) + 1e-5


class Streamed(WebSocketProtocol):
    def fragment_received(self, data: bytes, opcode: Opcode, final: bool) -> None:
        if final:
            self.send("x")


class Queued(WebSocketProtocol):
    pass


class Slow(WebSocketProtocol):
    def text_received(self, text: str) -> Deferred[None]:
        return Deferred()


def closed_with(octets: bytes) -> int | None:
    """The code of the close frame at the end of the sent bytes."""
    at = octets.rfind(b"\x88")
    return None if at < 0 else int.from_bytes(octets[at + 2 : at + 4], "big")


class TestMessages:
    """`Limits.max_message_rate`: the messages that a peer may send per second."""

    @pytest.mark.parametrize("served", [Echo, Streamed, Queued, Slow])
    @pytest.mark.parametrize(("sent", "code"), [(2, None), (3, None), (4, 1008)])
    def test_a_burst_of_messages_above_the_rate_is_refused(
        self, connect: Callable[..., Any], served: Any, sent: int, code: int | None
    ) -> None:
        peer = connect(served, limits=Limits(max_message_rate=3))
        peer.sends(*[peer.text("x")] * sent)
        assert closed_with(peer.reads()) == code
        refusals = inside(peer.protocol).server.refusals
        assert refusals == ({} if code is None else {"max_message_rate": 1})

    def test_the_message_above_the_rate_is_not_delivered(self, connect: Callable[..., Any]) -> None:
        peer = connect(Echo, limits=Limits(max_message_rate=1))
        peer.sends(peer.text("a") + peer.text("b") + peer.text("c"))
        assert peer.reads().startswith(b"\x81\x01a\x88")
        assert "max_message_rate" in str(peer.protocol.close_reason.error)

    def test_the_rate_is_per_second(self, connect: Callable[..., Any], clock: Clock) -> None:
        peer = connect(Echo, limits=Limits(max_message_rate=2))
        for _ in range(20):
            peer.sends(peer.text("x"))
            clock.advance(0.5)
        assert peer.reads() == b"\x81\x01x" * 20
        peer.sends(peer.text("x") * 2)
        assert closed_with(peer.reads()) is None
        clock.advance(0.4)
        peer.sends(peer.text("x"))
        assert closed_with(peer.reads()) == 1008

    def test_a_message_in_fragments_counts_once_and_so_does_a_ping(self, connect: Callable[..., Any]) -> None:
        peer = connect(Echo, limits=Limits(max_message_rate=3))
        peer.sends(peer.frame(0x01, b"a"), peer.frame(0x89), peer.frame(0x00, b"b"), peer.frame(0x80, b"c"))
        peer.sends(peer.frame(0x8A))
        assert closed_with(peer.reads()) is None
        peer.sends(peer.frame(0x89))
        assert closed_with(peer.reads()) == 1008

    def test_messages_after_our_close_are_not_counted(self, connect: Callable[..., Any]) -> None:
        peer = connect(Echo, limits=Limits(max_message_rate=1))
        peer.protocol.close(1001)
        peer.sends(*[peer.text("x")] * 10, *[peer.frame(0x89)] * 10, peer.close(1001))
        assert peer.protocol.close_reason.clean
        assert inside(peer.protocol).server.refusals == {}

    def test_compressed_messages_are_counted(self, connect: Callable[..., Any]) -> None:
        peer = connect(Echo, opened=False, limits=Limits(max_message_rate=2), deflate=Deflate())
        peer.sends(peer.HEAD[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
        assert peer.reads().startswith(b"HTTP/1.1 101 ")
        peer.sends(*[peer.frame(0xC1, HELLO)] * 2)
        assert closed_with(peer.reads()) is None
        peer.sends(peer.frame(0xC1, HELLO))
        assert closed_with(peer.reads()) == 1008


class TestBytes:
    """`Limits.max_byte_rate`: the bytes that a peer may send per second."""

    @pytest.mark.parametrize(("octets", "code"), [(99, None), (100, None), (101, 1008)])
    def test_a_burst_of_bytes_above_the_rate_is_refused(
        self, connect: Callable[..., Any], octets: int, code: int | None
    ) -> None:
        peer = connect(Streamed, limits=Limits(max_byte_rate=2000, max_message_size=100))
        peer.sends(*[peer.frame(0x89, bytes(94))] * 19)
        assert len(peer.reads()) == 19 * 96
        # A text's frame, and the beginning of another.
        peer.sends(peer.text("x" * 74), bytes((0x81, 0x94, 0, 0, 0, 0, *bytes(20)))[: octets - 80])
        assert closed_with(peer.reads()) == code

    def test_a_whole_message_is_always_accepted_at_once(self, connect: Callable[..., Any], clock: Clock) -> None:
        peer = connect(Echo, limits=Limits(max_byte_rate=10, max_message_size=6000))
        peer.sends(peer.text("x" * 6000))
        assert closed_with(peer.reads()) is None
        peer.sends(peer.text("x" * 6000))
        assert closed_with(peer.reads()) == 1008
        assert inside(peer.protocol).server.refusals == {"max_byte_rate": 1}

    def test_bytes_above_the_rate_are_not_parsed(self, connect: Callable[..., Any]) -> None:
        peer = connect(Echo, limits=Limits(max_byte_rate=2000, max_message_size=100))
        peer.sends(peer.text("x") * 1000)
        assert peer.reads().startswith(b"\x88")

    def test_a_peer_within_the_rate_can_go_on(self, connect: Callable[..., Any], clock: Clock) -> None:
        peer = connect(Echo, limits=Limits(max_byte_rate=1200, max_message_size=100))
        frame = peer.text("x" * 94)
        assert len(frame) == 100
        for _ in range(100):
            clock.advance(1 / 12)
            peer.sends(frame)
        assert closed_with(peer.reads()) is None

    def test_bytes_after_our_close_are_not_counted(self, connect: Callable[..., Any]) -> None:
        peer = connect(Echo, limits=Limits(max_byte_rate=2000, max_message_size=100))
        peer.protocol.close(1001)
        peer.sends(*[peer.text("x" * 90)] * 100, peer.close(1001))
        assert peer.protocol.close_reason.clean
        assert inside(peer.protocol).server.refusals == {}


class TestCost:
    """Connections without a limit pay nothing for counting."""

    def test_no_wrapper_is_bound_without_a_limit(self, connect: Callable[..., Any]) -> None:
        protocol = connect(Echo).protocol
        reader = inside(protocol).session.reader
        assert (protocol.dataReceived, reader.on_text) == (reader.feed, protocol.text_received)

    def test_a_limit_wraps_only_what_it_counts(self, connect: Callable[..., Any]) -> None:
        protocol = connect(Echo, limits=Limits(max_message_rate=1)).protocol
        reader = inside(protocol).session.reader
        assert protocol.dataReceived == reader.feed and reader.on_text != protocol.text_received
        protocol = connect(Echo, limits=Limits(max_byte_rate=1)).protocol
        reader = inside(protocol).session.reader
        assert protocol.dataReceived != reader.feed and reader.on_text == protocol.text_received

    @pytest.mark.parametrize("name", ["max_message_rate", "max_byte_rate"])
    def test_there_is_no_limit_by_default_and_zero_is_refused(self, name: str) -> None:
        assert getattr(Limits(), name) is None
        with pytest.raises(ValueError, match=name):
            Limits(**{name: 0})  # type: ignore[arg-type]
