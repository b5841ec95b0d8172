"""Tests of `twisted_beastws.budget`, and of connections that share a budget."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from twisted_beastws import Limits, MemoryBudget, State, Timeouts, WebSocketProtocol, WebSocketServerFactory
from twisted_beastws.budget import RECEIVED, SENT, Account
from twisted_beastws.connection.inbox import cost_of
from twisted_beastws.testing import upgrade_request
from twisted_beastws.wire.closing import Close
from twisted_beastws.wire.sender import HELD_OVERHEAD

from .connection.test_write_buffer import Socket
from .support.inside import inside

pytestmark = pytest.mark.usefixtures("logged")

LIMITS = Limits(max_buffered=8 << 20)


class Holders:
    """Accounts by name; records the order in which the budget sheds them."""

    def __init__(self, budget: MemoryBudget, names: str, frees: bool = True) -> None:
        self.shed: list[str] = []
        self.accounts: dict[str, Account] = {}
        self.frees = frees
        for name in names:
            self.accounts[name] = budget.open(partial(self.free, name))

    def free(self, name: str) -> None:
        self.shed.append(name)
        if self.frees:
            self.accounts[name].count(SENT, 0)
            self.accounts[name].count(RECEIVED, 0)


class TestMemoryBudget:
    """`MemoryBudget` on its own (`docs/topics/memory.md`)."""

    @pytest.mark.parametrize(("size", "shed"), [(399, []), (400, []), (401, ["b"])])
    def test_the_largest_holder_is_closed_above_the_limit(self, size: int, shed: list[str], logged: Any) -> None:
        budget = MemoryBudget(1000)
        holders = Holders(budget, "abc")
        holders.accounts["a"].count(SENT, 100)
        holders.accounts["b"].count(SENT, 500)
        holders.accounts["c"].count(RECEIVED, size)
        assert holders.shed == shed
        assert budget.closed == len(shed)
        assert budget.used == 600 + size - 500 * len(shed)
        assert len(logged(type(None))) == len(shed)

    def test_both_directions_are_counted_together(self) -> None:
        budget = MemoryBudget(1000)
        holders = Holders(budget, "a")
        holders.accounts["a"].count(SENT, 300)
        holders.accounts["a"].count(RECEIVED, 200)
        holders.accounts["a"].count(SENT, 100)
        assert (budget.used, holders.accounts["a"].size) == (300, 300)
        holders.accounts["a"].close()
        assert budget.used == 0

    def test_a_sixteenth_of_the_budget_is_freed_at_once(self, logged: Any) -> None:
        budget = MemoryBudget(1600)
        holders = Holders(budget, "".join(map(chr, range(160))))
        for account in holders.accounts.values():
            account.count(SENT, 10)
        assert (budget.used, budget.closed) == (1600, 0)
        account.count(SENT, 11)
        # The budget sheds the largest account and nine others, until 1500 bytes are used.
        assert (budget.used, budget.closed, holders.shed[0]) == (1500, 10, chr(159))
        logged(type(None))

    def test_a_holder_that_frees_nothing_is_not_closed_again(self, logged: Any) -> None:
        budget = MemoryBudget(100)
        holders = Holders(budget, "ab", frees=False)
        holders.accounts["a"].count(SENT, 101)
        # `a` was closed, then dropped, but counted once.
        assert holders.shed == ["a", "a"] and budget.closed == 1
        holders.accounts["b"].count(SENT, 1)
        assert holders.shed == ["a", "a", "a", "b", "b"] and budget.closed == 2
        logged(type(None))

    def test_a_closing_holder_that_still_holds_most_is_dropped_before_a_smaller_one_is_closed(
        self, logged: Any
    ) -> None:
        budget = MemoryBudget(100)
        holders = Holders(budget, "ab")
        # Closing `a` frees only a part: its peer stopped reading in a large frame, which stays until `a` is dropped.
        sizes = iter((40, 0))

        def shed() -> None:
            holders.shed.append("a")
            holders.accounts["a"].count(SENT, next(sizes))

        holders.accounts["a"].shed = shed
        holders.accounts["b"].count(SENT, 39)
        holders.accounts["b"].count(RECEIVED, 0)
        holders.accounts["a"].count(SENT, 61)
        assert (budget.used, budget.closed, holders.shed) == (100, 0, [])
        budget.limit = 80
        holders.accounts["a"].count(SENT, 62)
        assert (budget.used, budget.closed, holders.shed) == (39, 1, ["a", "a"])
        logged(type(None))

    def test_a_holder_may_end_another_one_with_it(self, logged: Any) -> None:
        budget = MemoryBudget(100)
        holders = Holders(budget, "ab", frees=False)
        a, b = holders.accounts.values()

        def shed() -> None:
            a.close()
            b.close()

        a.shed = shed
        b.count(SENT, 40)
        a.count(SENT, 61)
        assert (budget.used, budget.closed) == (0, 1)
        a.count(SENT, 1000)
        assert budget.used == 0
        logged(type(None))

    @pytest.mark.parametrize(
        ("limit", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("1", TypeError), (True, TypeError)]
    )
    def test_an_invalid_limit_is_refused(self, limit: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match=r"MemoryBudget\(.*\): give a number of bytes"):
            MemoryBudget(limit)

    def test_a_value_of_another_type_is_refused_in_settings(self) -> None:
        with pytest.raises(TypeError, match=r"budget=1000: give MemoryBudget"):
            WebSocketServerFactory(WebSocketProtocol, budget=1000)  # type: ignore[arg-type]


class Slow(WebSocketProtocol):
    """Never finishes the hook of the message "wait"; echoes binary messages."""

    reason: Any = None

    def text_received(self, text: str) -> Deferred[None] | None:
        return Deferred() if text == "wait" else None

    def binary_received(self, data: bytes) -> None:
        self.send(data)

    def closed(self, reason: Any) -> None:
        self.reason = reason


@pytest.fixture
def pair(connect: Any, clock: Any) -> Callable[..., Any]:
    """``pair(limit, protocol)`` returns a budget, and two connections of a factory with that budget."""

    def make(limit: int, protocol: Any = Slow) -> Any:
        budget = MemoryBudget(limit)
        factory = WebSocketServerFactory(protocol, clock=clock, limits=LIMITS, budget=budget)
        return budget, connect(factory=factory), connect(factory=factory)

    return make


def closed_for_memory(peer: Any) -> bool:
    return bool(peer.protocol.close_reason.sent == Close(1013, "the server is short of memory"))


class AbortableSocket(Socket):
    """A stand-in for Twisted's TCP transport with all that a connection calls."""

    def abortConnection(self) -> None:
        self.disconnecting = True


class TestConnections:
    """Connections that share a `MemoryBudget`."""

    def test_messages_that_the_peer_has_not_read_are_counted(self, pair: Any, logged: Any) -> None:
        budget, one, other = pair(1 << 20)
        for peer, size in ((one, 300_000), (other, 700_000)):
            peer.transport.stall()
            peer.protocol.send(b"-")
            peer.protocol.send(bytes(size))
        assert 1_000_000 <= budget.used <= 1_000_500
        one.protocol.send(bytes(50_000))
        assert one.protocol.state is State.OPEN and closed_for_memory(other)
        assert budget.closed == 1
        assert 350_000 <= budget.used <= 400_000
        # When the peer reads again, it gets the close frame, and no part of a message.
        other.reads()
        other.transport.flow()
        assert other.reads() == b"\x88\x1f\x03\xf5the server is short of memory"
        one.transport.flow()
        assert budget.used == 0
        logged(type(None))

    def test_empty_messages_that_the_peer_has_not_read_are_counted(self, pair: Any, logged: Any) -> None:
        budget, one, _ = pair(100_000)
        one.transport.stall()
        for _ in range(40_000):
            one.protocol.send(b"")
        assert one.protocol.state is State.OPEN
        for _ in range(20_000):
            if one.protocol.state is State.OPEN:
                one.protocol.send(b"")
        assert closed_for_memory(one) and budget.closed == 1
        logged(type(None))

    @pytest.mark.parametrize("room", [0, 100, 1 << 20])
    def test_sending_a_long_message_may_cost_its_own_connection(self, clock: Any, room: int, logged: Any) -> None:
        budget, limits = MemoryBudget(1 << 20), Limits(max_buffered=1 << 25, fragment_size=1 << 25)
        factory = WebSocketServerFactory(WebSocketProtocol, clock=clock, budget=budget, limits=limits)
        protocol, socket = factory.buildProtocol(None), AbortableSocket(room=1 << 10)
        protocol.makeConnection(socket)
        protocol.dataReceived(upgrade_request("/"))
        socket.room = room
        protocol.send(bytes(1 << 24))
        assert protocol.state is not State.OPEN and budget.closed == 1
        logged(type(None))

    def test_messages_that_wait_for_a_slow_hook_are_counted(self, pair: Any, logged: Any) -> None:
        budget, one, other = pair(1 << 20)
        one.sends(one.text("wait"), *(one.text("x" * 100_000) for _ in range(5)))
        assert 500_000 <= budget.used <= 502_000
        wide = other.text("\N{GRINNING FACE}" + "x" * 140_000)
        other.sends(other.text("wait"), wide)
        assert closed_for_memory(other) and budget.used <= 502_000
        logged(type(None))

    def test_messages_that_wait_for_receive_are_counted(self, pair: Any) -> None:
        budget, one, _ = pair(1 << 20, WebSocketProtocol)
        one.sends(one.text("x" * 1000), one.text("y" * 1000))
        assert 2000 < budget.used < 2400
        one.protocol.receive()
        assert 1000 < budget.used < 1200
        one.protocol.receive()
        assert budget.used == 0

    @pytest.mark.parametrize("parts", ["one frame", "fragments"])
    @pytest.mark.parametrize("kind", [0x01, 0x02])
    def test_an_unfinished_message_is_counted(self, pair: Any, parts: str, kind: int, logged: Any) -> None:
        budget, one, other = pair(1 << 20)
        for peer, size in ((one, 400_000), (other, 500_000)):
            if parts == "one frame":
                frame = peer.frame(0x80 | kind, b"x" * size)
                peer.sends(*(frame[at : at + 65536] for at in range(0, len(frame) - 65535, 65536)))
            else:
                peer.sends(peer.frame(kind, b"x" * 1000), peer.frame(0x00, b"x" * (size - 1000)))
        assert 850_000 <= budget.used <= 1_040_000
        other.transport.stall()
        other.protocol.send(bytes(250_000))
        assert closed_for_memory(other) and one.protocol.state is State.OPEN
        assert 390_000 <= budget.used <= 720_000
        # The server discards the rest of the message, and still reads the close frame after it.
        other.sends(frame[len(frame) // 65536 * 65536 :] if parts == "one frame" else b"", other.close(1013))
        assert other.protocol.close_reason.clean
        logged(type(None))

    def test_messages_held_during_a_stream_are_counted(self, pair: Any) -> None:
        budget, one, _ = pair(1 << 20)
        with one.protocol.message() as message:
            for _ in range(100):
                one.protocol.send("")
            assert budget.used == 100 * HELD_OVERHEAD
            message.write("a")
        assert budget.used == 0

    def test_an_unfinished_request_is_counted(self, connect: Any, clock: Any) -> None:
        budget = MemoryBudget(1 << 20)
        factory = WebSocketServerFactory(WebSocketProtocol, clock=clock, budget=budget)
        peer = connect(factory=factory, opened=False)
        peer.sends(peer.HEAD[:100])
        assert budget.used == 100
        peer.sends(peer.HEAD[100:])
        assert budget.used == 0

    def test_a_connection_that_is_not_open_is_dropped(self, connect: Any, clock: Any, logged: Any) -> None:
        budget = MemoryBudget(150)
        factory = WebSocketServerFactory(WebSocketProtocol, clock=clock, budget=budget)
        one, other = connect(factory=factory, opened=False), connect(factory=factory, opened=False)
        one.sends(one.HEAD[:100])
        other.sends(other.HEAD[:60])
        assert one.transport.disconnected and not other.transport.disconnected
        one.leaves()
        assert budget.used == 60
        logged(type(None))

    def test_a_closing_connection_that_reads_nothing_is_dropped_the_next_time(self, pair: Any, logged: Any) -> None:
        budget, one, other = pair(1 << 20)
        one.transport.stall()
        one.protocol.send(bytes(1 << 16))
        one.protocol.send(bytes(1 << 19))
        one.protocol.close()
        assert one.protocol.state is State.CLOSING and budget.used > 1 << 19
        other.transport.stall()
        other.protocol.send(b"-")
        other.protocol.send(bytes((1 << 19) - 1000))
        assert one.transport.disconnected and other.protocol.state is State.OPEN
        one.leaves()
        assert 500_000 < budget.used < 1 << 19
        logged(type(None))

    def test_no_peer_is_dropped_for_others_that_stop_in_a_large_frame(
        self, pair: Any, connect: Any, logged: Any
    ) -> None:
        budget, honest, first = pair(800_000)
        honest.transport.stall()
        honest.protocol.send(b"-")
        honest.protocol.send(bytes(100))
        others = [connect(factory=inside(first.protocol).server) for _ in range(2)]
        for peer in (first, *others):
            peer.transport.stall()
            peer.protocol.send(bytes(250_000))
        assert honest.protocol.state is State.OPEN
        assert sum(peer.transport.disconnected for peer in (first, *others)) == 1
        assert budget.used < 750_000 and budget.closed == 1
        logged(type(None))

    def test_messages_that_wait_for_a_turn_are_counted(self, connect: Any, clock: Any) -> None:
        budget = MemoryBudget(1 << 20)
        limits = Limits(max_messages_per_turn=3, max_queued=1000)
        factory = WebSocketServerFactory(WebSocketProtocol, clock=clock, budget=budget, limits=limits)
        peer = connect(factory=factory)
        peer.protocol.dataReceived(peer.text("") * 100)
        assert budget.used < 1000
        for _ in range(100):
            clock.advance(0)
        # The cost of an empty text includes its slot in the queue.
        assert budget.used == 100 * cost_of("")

    def test_messages_that_a_pause_holds_back_are_counted(self, pair: Any) -> None:
        budget, one, _ = pair(1 << 20, WebSocketProtocol)
        one.protocol.pauseProducing()
        one.protocol.dataReceived(one.text("") * 10)
        one.protocol.resumeProducing()
        assert budget.used == 10 * cost_of("")

    def test_nothing_is_left_when_the_connections_are_gone(self, pair: Any) -> None:
        budget, one, other = pair(1 << 20)
        one.transport.stall()
        one.protocol.send(bytes(100_000))
        one.protocol.send(bytes(100_000))
        other.sends(other.text("wait"), other.text("x" * 1000), other.text("y" * 100)[:50])
        assert budget.used > 200_000
        one.leaves()
        other.leaves()
        # No account may outlive its connection, and no public name shows them.
        assert budget.used == 0 and not budget._accounts

    def test_no_wrapper_is_bound_without_a_budget(self, connect: Any) -> None:
        peer = connect(Slow)
        assert (
            peer.protocol.dataReceived == inside(peer.protocol).session.feed
        )  # No public name shows the bound method.

    def test_a_peer_closed_for_memory_that_reads_nothing_is_dropped_at_the_close_timeout(
        self, connect: Any, clock: Any, logged: Any
    ) -> None:
        budget = MemoryBudget(1 << 16)
        factory = WebSocketServerFactory(Slow, clock=clock, budget=budget, timeouts=Timeouts(close=5.0))
        peer = connect(factory=factory)
        peer.transport.stall()
        for _ in range(3):
            peer.protocol.send(bytes(40_000)) if peer.protocol.state is State.OPEN else None
        assert closed_for_memory(peer)
        clock.advance(5.1)
        assert peer.transport.disconnected
        logged(type(None))
