"""Tests of a connection's budget for one turn of the reactor (`TurnBudget`)."""

from __future__ import annotations

from typing import Any

import pytest

from twisted_beastws.options import Deflate, Limits
from twisted_beastws.wire.deflate import Negotiated, PerMessageDeflate
from twisted_beastws.wire.session import Session

from .peer import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Event, Frame, Recorder, octets, to

THREE = Limits(max_messages_per_turn=3)


def texts(count: int, start: int = 0) -> list[tuple[Any, ...]]:
    return [(TEXT, b"%d" % number) for number in range(start, start + count)]


def fed(recorder: Recorder, *frames: tuple[Any, ...]) -> Recorder:
    """Feed frames in one chunk, without the turns that the session asks for."""
    recorder.session.feed(to(recorder.server, *frames))
    return recorder


def heard(recorder: Recorder) -> list[Any]:
    return [event[1] if len(event) > 1 else event[0] for event in recorder.events]


class Slow:
    """A hook that takes its time."""

    def __init__(self, *seconds: float) -> None:
        self.seconds = iter(seconds)

    def __call__(self, recorder: Recorder, event: Event) -> None:
        recorder.time += next(self.seconds, 0.0)


class TestMessages:
    """`Limits.max_messages_per_turn`: how many messages a connection handles in one turn of the reactor."""

    @pytest.mark.parametrize(("count", "spent"), [(2, False), (3, False), (4, True)])
    def test_a_turn_ends_beyond_the_limit(self, server: bool, count: int, spent: bool) -> None:
        recorder = fed(Recorder(server, THREE), *texts(count))
        assert heard(recorder) == [str(number) for number in range(min(count, 3))]
        assert (recorder.session.spent, recorder.session.paused) == (spent, spent)

    def test_the_rest_is_delivered_in_order_in_later_turns(self, server: bool) -> None:
        recorder = fed(Recorder(server, THREE), *texts(8))
        for delivered in (3, 6, 8):
            assert heard(recorder) == [str(number) for number in range(delivered)]
            recorder.session.next_turn()
        assert not recorder.session.spent

    def test_the_rest_of_a_chunk_shares_a_turn_with_the_next_chunk(self, server: bool) -> None:
        recorder = Recorder(server, THREE)
        recorder.session.reader.budget.one_chunk_a_turn = True
        fed(recorder, *texts(5))
        recorder.session.next_turn()
        assert heard(recorder) == ["0", "1", "2", "3", "4"]
        fed(recorder, *texts(5, start=5))
        assert heard(recorder)[5:] == ["5"] and recorder.session.spent
        recorder.session.next_turn()
        recorder.session.next_turn()
        assert heard(recorder)[6:] == ["6", "7", "8", "9"]

    def test_the_session_asks_for_each_turn_once(self, server: bool) -> None:
        recorder = fed(Recorder(server, THREE), *texts(9))
        assert recorder.turns == 1
        recorder.session.next_turn()
        assert recorder.turns == 2
        recorder.session.next_turn()
        assert (recorder.turns, recorder.session.spent) == (3, False)
        recorder.session.next_turn()
        assert recorder.turns == 3

    @pytest.mark.parametrize(
        "frames",
        [
            [(PING, b"")] * 4,
            [(PONG, b"")] * 4,
            [(BINARY, b"")] * 4,
            [(BINARY, b"", False), (CONTINUATION, b"", False), (CONTINUATION, b""), (PING, b"")],
            [(TEXT, b""), (BINARY, b""), (PING, b""), (PONG, b"")],
        ],
    )
    def test_every_kind_of_frame_counts(self, server: bool, frames: list[Any] | list[tuple[int, bytes]]) -> None:
        assert fed(Recorder(server, THREE), *frames[:3]).session.spent is False
        assert fed(Recorder(server, THREE), *frames).session.spent is True

    def test_a_frame_in_parts_counts_once(self, server: bool) -> None:
        recorder = Recorder(server, THREE)
        for octet in octets(to(server, *texts(3))):
            recorder.session.feed(octet)
        assert (heard(recorder), recorder.session.spent) == (["0", "1", "2"], False)

    def test_one_budget_covers_the_chunks_of_a_turn(self, server: bool) -> None:
        recorder = Recorder(server, THREE)
        for number in range(5):
            fed(recorder, (TEXT, b"%d" % number))
        assert (heard(recorder), recorder.session.spent) == (["0", "1", "2"], True)
        recorder.session.next_turn()
        assert heard(recorder) == ["0", "1", "2", "3", "4"]

    def test_each_chunk_of_tcp_has_its_own_budget(self, server: bool) -> None:
        recorder = Recorder(server, THREE)
        recorder.session.reader.budget.one_chunk_a_turn = True
        for number in range(5):
            fed(recorder, (TEXT, b"%d" % number))
        assert (heard(recorder), recorder.turns) == (["0", "1", "2", "3", "4"], 0)
        fed(recorder, *texts(4))
        assert (len(recorder.events), recorder.session.spent, recorder.turns) == (8, True, 1)
        recorder.take_turns()
        assert (len(recorder.events), recorder.session.spent, recorder.turns) == (9, False, 1)

    @pytest.mark.parametrize(("size", "shared"), [(1 << 16, False), ((1 << 16) + 1, True)])
    def test_one_budget_covers_a_long_chunk_and_the_next_ones(self, server: bool, size: int, shared: bool) -> None:
        """uvloop reads a socket again in the same turn when its buffer of 256 KB is full."""
        recorder = Recorder(server, THREE)
        recorder.session.reader.budget.one_chunk_a_turn = True
        header = len(to(server, (BINARY, bytes(size - 20)))) - (size - 20)
        for _ in range(4):
            fed(recorder, (BINARY, bytes(size - header)))
        assert (len(recorder.events), recorder.session.spent) == ((3, True) if shared else (4, False))
        recorder.take_turns()
        assert (len(recorder.events), recorder.session.spent) == (4, False)

    def test_the_session_asks_for_the_next_turn_when_half_is_spent(self, server: bool) -> None:
        recorder = Recorder(server, Limits(max_messages_per_turn=10))
        fed(recorder, *texts(5))
        assert recorder.turns == 0
        fed(recorder, *texts(1))
        assert (recorder.turns, recorder.session.spent) == (1, False)

    def test_none_means_no_limit(self, server: bool) -> None:
        limits = Limits(max_messages_per_turn=None, max_seconds_per_turn=None)
        recorder = Recorder(server, limits, Slow(*[1.0] * 5000))
        fed(recorder, *texts(5000))
        assert (len(recorder.events), recorder.turns, recorder.session.spent) == (5000, 0, False)

    def test_a_thousand_echoes_are_one_write_by_default(self, server: bool) -> None:
        def echo(recorder: Recorder, event: Event) -> None:
            recorder.session.sender.send_text(event[1])

        recorder = fed(Recorder(server, react=echo), *texts(1001))
        assert (len(recorder.writes), len(recorder.sent)) == (1, 1000)
        recorder.session.next_turn()
        assert (len(recorder.writes), len(recorder.sent)) == (2, 1001)


class TestSeconds:
    """`Limits.max_seconds_per_turn`: how long a connection works in one turn of the reactor."""

    @pytest.mark.parametrize(("seconds", "spent"), [(0.001, False), (0.002, False), (0.003, True)])
    def test_a_turn_ends_beyond_the_limit(self, server: bool, seconds: float, spent: bool) -> None:
        recorder = fed(Recorder(server, react=Slow(seconds)), *texts(3))
        assert heard(recorder) == ["0"] if spent else ["0", "1", "2"]
        assert recorder.session.spent is spent

    def test_slow_hooks_have_a_turn_each(self, server: bool) -> None:
        recorder = fed(Recorder(server, react=Slow(*[1.0] * 4)), *texts(4))
        for delivered in (1, 2, 3, 4):
            assert len(recorder.events) == delivered
            recorder.session.next_turn()

    def test_the_session_looks_at_the_time_after_16_messages_at_most(self, server: bool) -> None:
        recorder = fed(Recorder(server, react=Slow(*[0.0] * 30, *[1.0] * 100)), *texts(200))
        assert 31 <= len(recorder.events) <= 30 + 16

    def test_the_time_between_chunks_is_not_counted(self, server: bool) -> None:
        recorder = Recorder(server)
        for number in range(500):
            fed(recorder, (TEXT, b"%d" % number))
            recorder.time += 10.0
        assert (len(recorder.events), recorder.turns) == (500, 0)

    def test_one_time_limit_covers_the_chunks_of_a_turn(self, server: bool) -> None:
        """TLS delivers its records one by one."""
        recorder = Recorder(server, react=Slow(*[0.0008] * 10))
        for number in range(10):
            fed(recorder, (TEXT, b"%d" % number))
        assert (heard(recorder), recorder.session.spent) == (["0", "1", "2"], True)
        recorder.take_turns()
        assert heard(recorder) == [str(number) for number in range(10)]

    def test_the_time_of_a_resumed_sessions_hooks_counts(self, server: bool) -> None:
        """An application that takes messages one by one, and works on each, never returns to the reactor otherwise."""

        def pause(recorder: Recorder, event: Event) -> None:
            recorder.session.pause()

        recorder = fed(Recorder(server, react=pause), *texts(100))
        for _ in range(100):
            recorder.time += 0.001
            recorder.session.resume()
        assert recorder.session.spent
        assert len(recorder.events) < 25

    @pytest.mark.parametrize("size", [1000, 1 << 20])
    def test_the_session_looks_at_the_time_after_each_compressed_message(self, server: bool, size: int) -> None:
        """An empty text is cheap; a compressed one may inflate to a thousand times its size."""
        recorder = deflating(server, Limits(max_message_size=None))
        message = PerMessageDeflate(AGREED, Deflate(), not server).compress(bytes(size))
        recorder.react = Slow(*[0.0] * 40, *[1.0] * 3)
        fed(recorder, *texts(40), *[(BINARY, message, True, 4)] * 3)
        assert len(recorder.events) == 41
        recorder.take_turns()
        assert [len(event[1]) for event in recorder.events[40:]] == [size] * 3

    def test_a_long_inflated_message_is_delivered_over_several_turns(self, server: bool) -> None:
        recorder = deflating(server, Limits(max_message_size=None), streaming=True)
        recorder.react = Slow(*[1.0] * 100)
        message = PerMessageDeflate(AGREED, Deflate(), not server).compress(bytes(1 << 20))
        fed(recorder, (BINARY, message, True, 4), (PING, b"behind it"))
        assert len(recorder.events) == 1
        recorder.take_turns()
        assert sum(len(event[1]) for event in recorder.events if event[0] == "piece") == 1 << 20
        assert recorder.events[-1] == ("ping", b"behind it")
        assert recorder.turns >= 16


AGREED = Negotiated("permessage-deflate", 15, 15, True, True)


def deflating(server: bool, limits: Limits, streaming: bool = False) -> Recorder:
    recorder = Recorder(server, limits, streaming=streaming)
    plain = recorder.session
    deflate = PerMessageDeflate(AGREED, Deflate(), server)
    recorder.session = Session(server, recorder, recorder, recorder.now, limits, deflate)
    recorder.session.deliver_to(plain.reader.on_text, plain.reader.on_binary)
    if plain.assembler.on_fragment is not None:
        recorder.session.stream_to(plain.assembler.on_fragment)
    return recorder


class TestWaiting:
    """The session while the rest of a chunk waits for its turn."""

    def test_a_later_chunk_waits_as_well(self, server: bool) -> None:
        recorder = fed(Recorder(server, THREE), *texts(5))
        fed(recorder, *texts(3, start=5))
        assert heard(recorder) == ["0", "1", "2"]
        recorder.take_turns()
        assert heard(recorder) == [str(number) for number in range(8)]

    def test_a_long_frame_waits_as_well(self, server: bool) -> None:
        recorder = Recorder(server, THREE, streaming=True)
        wire = to(server, *texts(4), (BINARY, b"x" * 1000))
        recorder.session.feed(wire[:-500])
        recorder.session.feed(wire[-500:])
        assert len(recorder.events) == 3
        recorder.take_turns()
        assert b"".join(event[1] for event in recorder.events[4:]) == b"x" * 1000

    def test_a_resumed_session_waits_for_its_turn(self, server: bool) -> None:
        recorder = fed(Recorder(server, THREE), *texts(5))
        recorder.session.pause()
        recorder.session.resume()
        assert (heard(recorder), recorder.session.paused) == (["0", "1", "2"], True)
        recorder.take_turns()
        assert heard(recorder) == ["0", "1", "2", "3", "4"]

    def test_a_paused_session_waits_in_its_turn(self, server: bool) -> None:
        recorder = fed(Recorder(server, THREE), *texts(5))
        recorder.session.pause()
        recorder.take_turns()
        assert (heard(recorder), recorder.session.paused) == (["0", "1", "2"], True)
        recorder.session.resume()
        assert heard(recorder) == ["0", "1", "2", "3", "4"]

    def test_a_waiting_session_can_send(self, server: bool) -> None:
        recorder = fed(Recorder(server, THREE), *texts(5))
        recorder.session.sender.send_text("meanwhile")
        assert recorder.sent == [Frame(TEXT, b"meanwhile")]

    def test_our_close_finds_the_answer_in_its_turn(self, server: bool) -> None:
        recorder = fed(Recorder(server, THREE), *texts(20), (CLOSE, b"\x0f\xa0"))
        recorder.session.close(4000)
        assert not recorder.session.ended
        recorder.take_turns()
        assert heard(recorder) == ["0", "1", "2", "ended"]
        assert recorder.session.closing.clean

    def test_a_message_that_is_discarded_after_a_close_counts_as_well(self, server: bool) -> None:
        recorder = Recorder(server, THREE)
        recorder.session.close(4000)
        fed(recorder, *texts(7), (CLOSE, b"\x0f\xa0"))
        assert recorder.session.spent
        recorder.session.next_turn()
        assert recorder.session.spent
        recorder.session.next_turn()
        assert (recorder.session.ended, recorder.events) == (True, [("ended",)])

    @pytest.mark.parametrize("end", ["lost", "fail"])
    def test_the_end_discards_waiting_data(self, server: bool, end: str) -> None:
        recorder = fed(Recorder(server, THREE), *texts(5))
        if end == "lost":
            recorder.session.lost(ConnectionError())
        else:
            recorder.session.fail(TimeoutError("too slow"))
        assert (recorder.session.spent, recorder.session.paused) == (False, False)
        recorder.session.next_turn()
        fed(recorder, *texts(5))
        assert heard(recorder) == ["0", "1", "2", "ended"]

    def test_a_fault_in_waiting_data_is_found_in_its_turn(self, server: bool) -> None:
        recorder = fed(Recorder(server, THREE), *texts(4), (3, b"no such opcode"))
        assert heard(recorder) == ["0", "1", "2"]
        recorder.take_turns()
        assert heard(recorder) == ["0", "1", "2", "3", "ended"]
        assert recorder.error is not None

    def test_a_hook_that_closes_ends_the_turns(self, server: bool) -> None:
        def close(recorder: Recorder, event: Event) -> None:
            if event[1] == "3":
                recorder.session.fail(RuntimeError("enough"))

        recorder = fed(Recorder(server, THREE, close), *texts(9))
        recorder.take_turns()
        assert heard(recorder) == ["0", "1", "2", "3", "ended"]

    def test_a_turn_that_begins_inside_a_hook_delivers_nothing_twice(self, server: bool) -> None:
        """A hook that runs the reactor."""

        def turn(recorder: Recorder, event: Event) -> None:
            recorder.session.next_turn()

        recorder = fed(Recorder(server, THREE, turn), *texts(9))
        recorder.take_turns()
        assert heard(recorder) == [str(number) for number in range(9)]
