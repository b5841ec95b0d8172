"""Tests of messages that are longer than a chunk: their memory, and the bytes of their frames."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from twisted_beastws.errors import BadFramePayload
from twisted_beastws.options import Limits
from twisted_beastws.wire.frames import GATHER_LIMIT, LongFrame

from .peer import BINARY, KEY, TEXT, Frame, Recorder, compiled_codec, decode, header

MIB = 1 << 20
WIDE_STEP = 1 << 14
"""Characters that a client encodes at once."""
NO_LIMITS = Limits(max_message_size=1 << 26, fragment_size=None)


def masked(payload: bytes, server: bool) -> bytes:
    """Mask a long payload, for a server."""
    if not server:
        return payload
    key = (KEY * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(len(payload), "big")


def wire(opcode: int, payload: bytes, server: bool) -> bytes:
    """Return a frame for a server or a client."""
    return header(Frame(opcode, payload), server) + (KEY if server else b"") + masked(payload, server)


def feed(recorder: Recorder, data: bytes, size: int) -> None:
    """Feed ``data`` in chunks of ``size`` bytes."""
    for at in range(0, len(data), size):
        recorder.session.feed(data[at : at + size])


@pytest.fixture
def traced() -> Iterator[Any]:
    """A function that returns the bytes of Python's memory at their peak since its last call, beyond those then."""
    tracemalloc.start()
    before = 0

    def peak() -> int:
        nonlocal before
        reached = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        return reached

    peak()
    yield peak
    tracemalloc.stop()


class TestReceiving:
    """RFC 6455 §5.2: one frame that arrives in many chunks."""

    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    def test_a_header_alone_reserves_at_most_1_mib(self, server: bool, opcode: int, traced: Any) -> None:
        recorder = Recorder(server, NO_LIMITS)
        start = header(Frame(opcode), server, length=1 << 26) + (KEY if server else b"")
        recorder.session.feed(start)
        recorder.session.feed(masked(b"x", server))
        assert traced() < MIB + 64_000

    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    def test_memory_grows_with_the_received_bytes(self, server: bool, opcode: int, traced: Any) -> None:
        recorder = Recorder(server, NO_LIMITS)
        data = wire(opcode, b"x" * (5 * MIB), server)[: 3 * MIB]
        traced()
        feed(recorder, data, 1 << 16)
        assert traced() < 6.5 * MIB

    @pytest.mark.parametrize("size", [MIB - 1, MIB, MIB + 1, 2 * MIB, 3 * MIB + 17])
    @pytest.mark.parametrize("chunk", [GATHER_LIMIT - 3, MIB + 9])
    def test_a_long_message_arrives_whole(self, server: bool, size: int, chunk: int) -> None:
        recorder = Recorder(server, NO_LIMITS)
        text = ("0123456789abcde" * (size // 15 + 1))[:size]
        feed(recorder, wire(TEXT, text.encode(), server) + wire(BINARY, text.encode(), server), chunk)
        assert recorder.events == [("text", text), ("binary", text.encode())]

    @pytest.mark.parametrize("at", [0, 1, GATHER_LIMIT - 20, MIB - 2, MIB + 100_000])
    @pytest.mark.parametrize("character", ["\u00e9", "\u4e2d", "\U0001f600"])
    def test_a_text_with_one_wide_character_arrives_whole(self, server: bool, at: int, character: str) -> None:
        recorder = Recorder(server, NO_LIMITS)
        text = "a" * at + character + "b" * (MIB + 200_000 - at)
        feed(recorder, wire(TEXT, text.encode(), server), GATHER_LIMIT - 7)
        assert recorder.events == [("text", text)]

    def test_a_text_of_wide_characters_arrives_whole(self, server: bool) -> None:
        recorder = Recorder(server, NO_LIMITS)
        text = "\u4e2d\U0001f600" * 200_000
        feed(recorder, wire(TEXT, text.encode(), server), GATHER_LIMIT + 1)
        assert recorder.events == [("text", text)]

    @pytest.mark.parametrize("chunk", [1, 2])
    @pytest.mark.parametrize("text", ["a", "\u00e9", "\U0001f600", "ab"])
    def test_a_short_text_in_several_chunks_arrives_whole(self, server: bool, text: str, chunk: int) -> None:
        recorder = Recorder(server, NO_LIMITS)
        feed(recorder, wire(TEXT, text.encode(), server), chunk)
        assert recorder.events == [("text", text)]

    def test_a_bad_byte_fails_the_connection_in_its_chunk(self, server: bool) -> None:
        """RFC 6455 §8.1."""
        recorder = Recorder(server, NO_LIMITS)
        payload = b"a" * 100_000 + b"\xff" + b"a" * MIB
        feed(recorder, wire(TEXT, payload, server)[:110_000], 1 << 14)
        assert isinstance(recorder.session.closing.error, BadFramePayload)

    def test_a_text_that_ends_inside_a_character_fails_the_connection(self, server: bool) -> None:
        """RFC 6455 §8.1."""
        recorder = Recorder(server, NO_LIMITS)
        feed(recorder, wire(TEXT, b"a" * 100_000 + b"\xe4\xb8", server), 1 << 14)
        assert isinstance(recorder.session.closing.error, BadFramePayload)


class TestSending:
    """RFC 6455 §5.4 and §6.1: a long message leaves in frames without needless copies."""

    @pytest.mark.parametrize("fragment_size", [None, 100_000, 1 << 18])
    @pytest.mark.parametrize("size", [GATHER_LIMIT - 1, GATHER_LIMIT, GATHER_LIMIT + 1, MIB])
    @pytest.mark.parametrize("text", ["x", "\u00e9", b"x"], ids=["ascii", "wide", "binary"])
    def test_the_frames_carry_the_message(
        self, server: bool, text: str | bytes, size: int, fragment_size: int | None
    ) -> None:
        recorder = Recorder(server, Limits(max_message_size=None, fragment_size=fragment_size))
        message = text * size
        recorder.session.sender.send(message)
        data = b"".join(bytes(data) for _, data in recorder.writes)
        frames = decode_long(data, not server)
        payload = message.encode() if isinstance(message, str) else message
        assert b"".join(frame.payload for frame in frames) == payload
        assert [frame.fin for frame in frames] == [False] * (len(frames) - 1) + [True]
        assert frames[0].opcode == (BINARY if isinstance(text, bytes) else TEXT)
        assert all(len(frame.payload) <= (fragment_size or len(payload)) for frame in frames)

    @pytest.mark.parametrize("fragment_size", [None, 1 << 18])
    @pytest.mark.parametrize("text", ["x", b"x"], ids=["text", "binary"])
    def test_a_server_copies_no_long_payload(
        self, text: str | bytes, fragment_size: int | None, traced: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # The pure codec encodes each text.
        on = compiled_codec()
        recorder = Recorder(True, Limits(max_message_size=None, fragment_size=fragment_size), on=on)
        sent: list[Any] = []
        monkeypatch.setattr(recorder, "write", sent.append)
        message = text * (4 * MIB)
        traced()
        recorder.session.sender.send(message)
        assert traced() < 100_000
        assert all(isinstance(frame, LongFrame) for frame in sent)
        assert sum(len(frame.payload) for frame in sent) == 4 * MIB

    def test_a_client_masks_a_long_payload_into_one_buffer(self, traced: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """RFC 6455 §5.3."""
        recorder = Recorder(False, NO_LIMITS, on=compiled_codec())
        sent: list[Any] = []
        monkeypatch.setattr(recorder, "write", sent.append)
        message = "x" * (4 * MIB)
        traced()
        recorder.session.sender.send(message)
        assert traced() < 4 * MIB + 100_000

    @pytest.mark.parametrize("fragment_size", [None, 1 << 18])
    @pytest.mark.parametrize("character", ["\u00e9", "\u4e2d", "\U0001f600"])
    def test_a_client_encodes_a_wide_text_into_its_frames(
        self, character: str, fragment_size: int | None, traced: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        limits = Limits(max_message_size=None, fragment_size=fragment_size)
        recorder = Recorder(False, limits, on=compiled_codec())
        sent: list[Any] = []
        monkeypatch.setattr(recorder, "write", sent.append)
        message = character * (4 * MIB // len(character.encode()))
        traced()
        recorder.session.sender.send(message)
        # The frames, a step of the text, and its UTF-8.
        assert traced() < 4 * MIB + 500_000

    @pytest.mark.parametrize("length", [WIDE_STEP - 1, WIDE_STEP, WIDE_STEP + 1, 3 * WIDE_STEP + 7])
    @pytest.mark.parametrize("fragment_size", [None, 99_999])
    @pytest.mark.parametrize("streaming", [False, True], ids=["at once", "held"])
    def test_a_wide_text_arrives_whole(
        self, server: bool, length: int, fragment_size: int | None, streaming: bool
    ) -> None:
        text = ("a\u00e9\u4e2d\U0001f600\ud7ff\ue000\x7f\x80\u07ff\u0800\uffff" * (length // 11 + 1))[:length]
        recorder = Recorder(server, Limits(max_message_size=None, fragment_size=fragment_size))
        sender = recorder.session.sender
        if streaming:
            sender.begin_message(BINARY)
        sender.send(text)
        if streaming:
            sender.end_message()
        frames = decode_long(b"".join(bytes(data) for _, data in recorder.writes), not server)
        assert b"".join(frame.payload for frame in frames).decode() == text

    @pytest.mark.parametrize("length", [WIDE_STEP - 1, WIDE_STEP, 21_800, 22_000])
    def test_a_wide_text_is_gathered_with_the_other_frames_of_a_hook(self, server: bool, length: int) -> None:
        recorder = Recorder(server)
        writer = recorder.session.writer
        writer.cork()
        for text in ("first", "\u4e2d" * length):
            recorder.session.sender.send(text)
        writer.uncork()
        frames = decode_long(b"".join(bytes(data) for _, data in recorder.writes), not server)
        assert [frame.payload.decode() for frame in frames] == ["first", "\u4e2d" * length]

    @pytest.mark.parametrize("at", [0, WIDE_STEP, 3 * WIDE_STEP - 1])
    def test_nothing_is_sent_of_a_text_that_has_no_utf8(self, server: bool, at: int) -> None:
        recorder = Recorder(server, Limits(max_message_size=None))
        text = "\u4e2d" * at + "\ud800" + "\u4e2d" * (3 * WIDE_STEP - 1 - at)
        with pytest.raises(UnicodeEncodeError):
            recorder.session.sender.send(text)
        assert recorder.writes == []
        recorder.session.sender.send("x")
        assert len(recorder.writes) == 1

    @pytest.mark.parametrize("kind", [bytearray, lambda data: memoryview(bytearray(data))], ids=["bytearray", "view"])
    @pytest.mark.parametrize("fragment_size", [None, 1 << 18])
    def test_the_caller_may_change_its_data_after_send(
        self, server: bool, kind: Any, fragment_size: int | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        recorder = Recorder(server, Limits(max_message_size=None, fragment_size=fragment_size))
        sent: list[Any] = []
        monkeypatch.setattr(recorder, "write", sent.append)
        data = kind(b"x" * MIB)
        recorder.session.sender.send(data)
        data[:] = bytes(MIB)
        frames = decode_long(b"".join(map(bytes, sent)), not server)
        assert b"".join(frame.payload for frame in frames) == b"x" * MIB


def decode_long(data: bytes, is_masked: bool) -> list[Frame]:
    """Read frames as `decode` does, which takes too long for long masked ones."""
    if not is_masked:
        return decode(data, False)
    frames = []
    while data:
        size = data[1] & 0x7F
        at = {126: 4, 127: 10}.get(size, 2)
        size = int.from_bytes(data[2:at], "big") if at > 2 else size
        key = (data[at : at + 4] * (size // 4 + 1))[:size]
        payload = data[at + 4 : at + 4 + size]
        payload = (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")
        frames.append(Frame(data[0] & 15, payload, data[0] >= 128))
        data = data[at + 4 + size :]
    return frames
