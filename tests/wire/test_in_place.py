"""Tests of receiving a long payload into the memory that it is delivered from."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from twisted_beastws.errors import BadFramePayload
from twisted_beastws.options import Limits
from twisted_beastws.wire import codec
from twisted_beastws.wire.places import LOOK

from .peer import BINARY, KEY, PING, TEXT, Frame, Recorder, compiled_codec, header, to
from .test_long import MIB, NO_LIMITS, masked, wire

MOST = 1 << 19
"""The most bytes that are received into a place at once."""


def room_of(recorder: Recorder) -> int | None:
    """Return the length of the place for the next bytes, or None if there is none."""
    place = recorder.session.reader.place()
    return None if place is None else len(memoryview(place))


def receive(recorder: Recorder, data: bytes | memoryview, most: int = MOST) -> None:
    """Receive ``data`` as a transport does, at most ``most`` bytes at a time."""
    reader, at = recorder.session.reader, 0
    while at < len(data):
        place = reader.place()
        if place is None:
            recorder.feed(bytes(data[at : at + min(LOOK, most)]))
            at += min(LOOK, most)
            continue
        with memoryview(place) as view:
            size = min(len(view), most, len(data) - at)
            view[:size] = data[at : at + size]
        reader.placed(size)
        recorder.take_turns()
        at += size


def begun(server: bool, opcode: int = TEXT, size: int = MIB, **options: Any) -> Recorder:
    """Return a session that has received the header of a long message."""
    recorder = Recorder(server, NO_LIMITS, on=compiled_codec(), **options)
    return recorder.feed(header(Frame(opcode), server, length=size) + (KEY if server else b""))


class TestMessages:
    """RFC 6455 §6.2: messages whose payloads are received in place."""

    @pytest.mark.parametrize("size", [LOOK, 65_537, MOST - 1, MOST, MOST + 1, MIB, 2 * MIB, 3 * MIB + 17])
    @pytest.mark.parametrize("most", [100_003, MOST])
    def test_messages_arrive_whole(self, server: bool, size: int, most: int) -> None:
        recorder = Recorder(server, NO_LIMITS, on=compiled_codec())
        text = ("0123456789abcde" * (size // 15 + 1))[:size]
        data = wire(TEXT, text.encode(), server) + to(server, (PING, b"a")) + wire(BINARY, text.encode(), server)
        receive(recorder, data, most)
        assert recorder.events == [("text", text), ("ping", b"a"), ("binary", text.encode())]

    @pytest.mark.parametrize("at", [0, LOOK - 15, LOOK - 11, MIB - 1, MIB + 70_000])
    @pytest.mark.parametrize("character", ["\u00e9", "\u4e2d", "\U0001f600"])
    def test_a_text_with_one_wide_character_arrives_whole(self, server: bool, at: int, character: str) -> None:
        recorder = Recorder(server, NO_LIMITS, on=compiled_codec())
        text = "a" * at + character + "b" * (MIB + 200_000 - at)
        receive(recorder, wire(TEXT, text.encode(), server), 99_999)
        assert recorder.events == [("text", text)]

    def test_parts_may_have_any_length(self, server: bool) -> None:
        recorder = Recorder(server, NO_LIMITS, on=compiled_codec())
        text = "\u00e9\u4e2d\U0001f600x" * 40
        for most in (1, 2, 3, 5, 7, 11):
            receive(recorder, wire(TEXT, text.encode(), server), most)
        assert recorder.events == [("text", text)] * 6

    def test_bytes_may_also_be_fed_in_between(self, server: bool) -> None:
        recorder = begun(server, BINARY, 300)
        payload = masked(bytes(range(100)) * 3, server)
        receive(recorder, payload[:101])
        recorder.feed(payload[101:203])
        receive(recorder, payload[203:])
        assert recorder.events == [("binary", bytes(range(100)) * 3)]

    def test_an_answer_is_written_at_the_end_of_the_part(self, server: bool) -> None:
        recorder = begun(server, TEXT, 2000, react=lambda recorder, event: recorder.session.sender.send("answer"))
        receive(recorder, masked(b"x" * 2000, server))
        assert len(recorder.writes) == 1

    def test_a_bad_byte_fails_the_connection_in_its_part(self, server: bool) -> None:
        """RFC 6455 §8.1."""
        recorder = begun(server)
        receive(recorder, masked(b"a" * 100_000 + b"\xff" + b"a" * 100, server))
        assert isinstance(recorder.session.closing.error, BadFramePayload)
        assert room_of(recorder) is None

    def test_a_text_that_ends_inside_a_character_fails_the_connection(self, server: bool) -> None:
        """RFC 6455 §8.1."""
        recorder = begun(server, TEXT, 100_002)
        receive(recorder, masked(b"a" * 100_000 + b"\xe4\xb8", server))
        assert isinstance(recorder.session.closing.error, BadFramePayload)

    def test_a_hook_that_raises_fails_the_connection(self, server: bool) -> None:
        def react(recorder: Recorder, event: Any) -> None:
            raise ZeroDivisionError

        recorder = begun(server, TEXT, 2000, react=react)
        receive(recorder, masked(b"x" * 2000, server))
        assert recorder.session.ended


class TestPlaces:
    """When a reader offers memory for the rest of a payload, and how much."""

    @pytest.mark.parametrize(
        ("lacking", "room"), [(1, 1), (MOST - 1, MOST - 1), (MOST, MOST), (MOST + 1, MOST), (MIB - 10, MOST)]
    )
    def test_a_place_has_at_most_512_kib_and_no_bytes_of_other_frames(
        self, server: bool, lacking: int, room: int
    ) -> None:
        recorder = begun(server, BINARY, lacking + 10)
        recorder.feed(bytes(10))
        assert room_of(recorder) == room

    def test_there_is_no_place_between_messages(self, server: bool) -> None:
        recorder = Recorder(server, NO_LIMITS, on=compiled_codec())
        assert room_of(recorder) is None
        recorder.receive((TEXT, b"x"))
        assert room_of(recorder) is None
        receive(recorder, wire(TEXT, b"x" * MIB, server))
        assert room_of(recorder) is None

    def test_there_is_no_place_for_a_fragment(self, server: bool) -> None:
        recorder = Recorder(server, NO_LIMITS, on=compiled_codec())
        recorder.feed(header(Frame(TEXT, fin=False), server, length=MIB) + (KEY if server else b""))
        assert room_of(recorder) is None

    def test_there_is_no_place_for_a_message_that_is_delivered_in_pieces(self, server: bool) -> None:
        assert room_of(begun(server, streaming=True)) is None

    def test_the_pure_codec_has_no_places(self, server: bool) -> None:
        recorder = Recorder(server, NO_LIMITS, on=codec.PURE)
        recorder.feed(header(Frame(TEXT), server, length=MIB) + (KEY if server else b""))
        assert room_of(recorder) is None

    def test_there_is_no_place_during_a_pause(self, server: bool) -> None:
        recorder = begun(server)
        recorder.session.pause()
        assert room_of(recorder) is None
        recorder.feed(masked(b"x" * 100, server))
        recorder.resume()
        assert room_of(recorder) == MOST
        receive(recorder, masked(b"x" * MIB, server)[100:])
        assert recorder.events == [("text", "x" * MIB)]

    @pytest.mark.parametrize("end", ["close", "end"])
    def test_there_is_no_place_after_the_end(self, server: bool, end: str) -> None:
        recorder = begun(server)
        getattr(recorder.session, end)()
        assert room_of(recorder) is None

    def test_the_rest_of_a_payload_is_discarded_after_a_close(self, server: bool) -> None:
        recorder = begun(server)
        payload = masked(b"x" * MIB, server)
        receive(recorder, payload[:200_000])
        recorder.session.close()
        receive(recorder, payload[200_000:] + to(server, (8, b"\x03\xe8")))
        assert recorder.events == [("ended",)]
        assert recorder.session.closing.clean

    def test_a_hook_that_is_running_has_no_place(self, server: bool) -> None:
        rooms: list[int | None] = []
        recorder = begun(server, TEXT, 2000, react=lambda recorder, event: rooms.append(room_of(recorder)))
        receive(recorder, masked(b"x" * 2000, server))
        assert rooms == [None]

    def test_the_place_does_not_move_while_it_is_lent(self, server: bool) -> None:
        recorder = begun(server, BINARY, 4 * MIB)
        with memoryview(recorder.session.reader.place()) as view:
            with pytest.raises(BufferError):
                recorder.session.feed(bytes(2 * MIB))
            view[:] = bytes(len(view))

    def test_more_bytes_than_the_place_has_are_refused(self, server: bool) -> None:
        recorder = begun(server, BINARY, 100)
        with pytest.raises(RuntimeError):
            recorder.session.reader.placed(101)

    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    def test_a_header_alone_reserves_at_most_1_mib(self, server: bool, opcode: int) -> None:
        tracemalloc.start()
        try:
            recorder = begun(server, opcode, 1 << 26)
            assert room_of(recorder) == MOST
            assert tracemalloc.get_traced_memory()[1] < MIB + 64_000
        finally:
            tracemalloc.stop()

    def test_memory_grows_with_the_received_bytes(self, server: bool) -> None:
        data = memoryview(masked(bytes(MIB), server))
        tracemalloc.start()
        try:
            recorder = begun(server, BINARY, 1 << 26)
            receive(recorder, data[:-1])
            assert tracemalloc.get_traced_memory()[1] < MIB + 64_000
            receive(recorder, data[-1:])
            receive(recorder, data)
            # The place is 8 times as long now. While it grew, the old one may have been there, too.
            assert tracemalloc.get_traced_memory()[1] < 9 * MIB + 64_000
            assert tracemalloc.get_traced_memory()[0] < 8 * MIB + 64_000
        finally:
            tracemalloc.stop()


class TestBudget:
    """The budget of a turn, for payloads that are received in place."""

    def test_frames_of_the_chunks_in_between_share_the_budget_of_a_turn(self, server: bool) -> None:
        recorder = Recorder(server, Limits(max_messages_per_turn=10, max_seconds_per_turn=None), on=compiled_codec())
        short, long = to(server, (BINARY, b"x")), wire(BINARY, bytes(5000), server)
        reader = recorder.session.reader
        for _ in range(2):
            recorder.session.feed(short * 3 + long[:1000])
            with memoryview(reader.place()) as view:
                view[:] = long[1000:]
            reader.placed(len(long) - 1000)
        recorder.session.feed(short * 3 + long[:1000])
        assert recorder.session.spent
        assert len(recorder.events) == 10
