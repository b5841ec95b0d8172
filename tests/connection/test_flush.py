"""Tests of `WebSocketProtocol.flush`, which waits until all data sent before the call has left."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError

from twisted_beastws import CloseCode, ConnectionClosed, LocalError, WebSocketProtocol
from twisted_beastws.testing import connected_pair

BIG = b"a" * 200_000


def outcome(deferred: Any) -> list[Any]:
    fired: list[Any] = []
    deferred.addBoth(fired.append)
    return fired


class TestFlush:
    """`WebSocketProtocol.flush`, on a transport of the test's own."""

    def test_flush_fires_at_once_if_no_data_is_pending(self) -> None:
        pair = connected_pair(WebSocketProtocol)
        pair.server.send("a")
        assert outcome(pair.server.flush()) == [None]

    def test_flush_fires_when_the_transport_has_accepted_all_data(self) -> None:
        pair = connected_pair(WebSocketProtocol)
        pair.server.send(BIG)
        pair.server.send(BIG)
        flushed = outcome(pair.server.flush())
        drained = outcome(pair.server.drain())
        while not drained:
            assert not flushed
            pair.server_transport.step()
        while not flushed:
            assert pair.server.buffered_amount
            pair.server_transport.step()
        assert pair.server.buffered_amount == 0

    def test_later_messages_do_not_delay_a_flush(self) -> None:
        pair = connected_pair(WebSocketProtocol)
        for _ in range(4):
            pair.server.send(BIG)
        flushed = outcome(pair.server.flush())
        for _ in range(200):
            if flushed:
                break
            # The sender keeps sending, so the write buffer never becomes empty.
            pair.server.send(BIG[:65_536])
            pair.server_transport.step()
            pair.client.receive()
        assert flushed == [None]
        assert pair.server.buffered_amount > 1 << 20

    def test_several_flushes_fire_in_order(self) -> None:
        pair = connected_pair(WebSocketProtocol)
        order: list[int] = []

        def flushed(_: object, number: int) -> None:
            order.append(number)

        for number in range(3):
            pair.server.send(BIG)
            pair.server.flush().addCallback(flushed, number)
        pair.flush()
        assert order == [0, 1, 2]

    def test_flush_waits_for_the_gathered_messages_of_a_hook(self) -> None:
        flushed: list[Any] = []

        class Answering(WebSocketProtocol):
            def text_received(self, text: str) -> None:
                self.send(text)
                self.flush().addBoth(flushed.append)
                # A flush writes the messages that would otherwise wait for the end of the chunk.
                assert self.buffered_amount == 0

        pair = connected_pair(Answering)
        pair.client.send("a")
        pair.flush()
        assert flushed == [None]

    def test_a_cancelled_flush_changes_nothing(self) -> None:
        pair = connected_pair(WebSocketProtocol)
        pair.server.send(BIG)
        first, second = pair.server.flush(), pair.server.flush()
        first.addErrback(lambda failure: failure.trap(CancelledError))
        first.cancel()
        flushed = outcome(second)
        pair.flush()
        assert flushed == [None]

    def test_flush_fails_if_the_connection_ends_first(self) -> None:
        pair = connected_pair(WebSocketProtocol)
        pair.server.send(BIG)
        flushed = outcome(pair.server.flush())
        pair.cut()
        assert flushed[0].check(ConnectionClosed)
        assert outcome(pair.server.flush())[0].check(ConnectionClosed)

    def test_flush_fails_if_the_write_buffer_is_discarded(self) -> None:
        pair = connected_pair(WebSocketProtocol)
        pair.server_transport.stalled = True
        while pair.server.close_reason is None:
            pair.server.send(BIG)
        assert pair.server.close_reason is not None
        flushed = outcome(pair.server.flush())
        pair.advance(30)
        assert flushed[0].check(ConnectionClosed)

    def test_a_flush_that_fails_may_cancel_the_others(self) -> None:
        pair = connected_pair(WebSocketProtocol)
        pair.server.send(BIG)
        first, second = pair.server.flush(), pair.server.flush()
        first.addErrback(lambda _: second.cancel())
        cancelled = outcome(second)
        pair.cut()
        assert cancelled[0].check(CancelledError)

    def test_flush_fires_before_a_close_that_follows(self) -> None:
        pair = connected_pair(WebSocketProtocol)
        pair.server.send(BIG)
        flushed = outcome(pair.server.flush())
        pair.server.close(CloseCode.NORMAL)
        pair.flush()
        assert flushed == [None]

    def test_flush_needs_a_connection(self) -> None:
        with pytest.raises(LocalError):
            WebSocketProtocol().flush()
