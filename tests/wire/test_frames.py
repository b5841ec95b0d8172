"""Tests of `twisted_beastws.wire.frames`, by way of the session that uses it."""

from __future__ import annotations

import os
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twisted_beastws import errors
from twisted_beastws.options import Limits
from twisted_beastws.wire import frames
from twisted_beastws.wire.frames import (
    FIN,
    FIN_BINARY,
    FIN_TEXT,
    GATHER_LIMIT,
    STRIDED,
    LongFrame,
    MaskKeys,
    Opcode,
    apply_mask,
    encode_frame,
)
from twisted_beastws.wire.prepared import prepare

from .peer import (
    BINARY,
    CLOSE,
    CONTINUATION,
    KEY,
    PING,
    PONG,
    TEXT,
    Event,
    Frame,
    Recorder,
    cut,
    decode,
    encode,
    first_bad_octet,
    header,
    judge,
    octets,
    to,
    xor,
)

# RFC 6455 §5.2: the bytes of the length, each form at its ends.
LENGTHS = {
    0: "00",
    1: "01",
    125: "7d",
    126: "7e 007e",
    127: "7e 007f",
    4096: "7e 1000",
    4097: "7e 1001",
    10000: "7e 2710",
    65535: "7e ffff",
    65536: "7f 0000000000010000",
    100000: "7f 00000000000186a0",
}
UNLIMITED = Limits(max_message_size=None, max_fragments=None)


def pattern(size: int) -> bytes:
    """Bytes that show if one of them is in another place."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


class TestEncodeFrame:
    """RFC 6455 §5.2: the header and the payload of one frame."""

    @pytest.mark.parametrize(("size", "length"), LENGTHS.items())
    def test_an_unmasked_frame_has_the_shortest_header(self, size: int, length: str) -> None:
        assert encode_frame(FIN_BINARY, pattern(size)) == bytes.fromhex("82" + length) + pattern(size)

    @pytest.mark.parametrize(("size", "length"), LENGTHS.items())
    def test_a_masked_frame_has_its_key_and_a_masked_payload(self, size: int, length: str) -> None:
        start = bytearray.fromhex("81" + length)
        start[1] |= 0x80
        assert encode_frame(FIN_TEXT, pattern(size), KEY) == bytes(start) + KEY + xor(pattern(size), KEY)

    @pytest.mark.parametrize(
        ("first", "payload", "key", "wire"),
        [
            (FIN_TEXT, b"Hello", None, "81 05 48 65 6c 6c 6f"),
            (FIN_TEXT, b"Hello", KEY, "81 85 37 fa 21 3d 7f 9f 4d 51 58"),
            (Opcode.TEXT, b"Hel", None, "01 03 48 65 6c"),
            (FIN | Opcode.CONTINUATION, b"lo", None, "80 02 6c 6f"),
            (FIN | Opcode.PING, b"Hello", None, "89 05 48 65 6c 6c 6f"),
            (FIN | Opcode.PONG, b"Hello", KEY, "8a 85 37 fa 21 3d 7f 9f 4d 51 58"),
        ],
    )
    def test_the_examples_of_the_rfc_are_encoded(
        self, first: Opcode | int, payload: bytes, key: bytes | None, wire: str
    ) -> None:
        """RFC 6455 §5.7"""
        assert encode_frame(first, payload, key) == bytes.fromhex(wire)

    @given(st.integers(0, 255), st.binary(max_size=300), st.none() | st.binary(min_size=4, max_size=4))
    def test_the_decoder_reads_each_frame_back(self, first: int, payload: bytes, key: bytes | None) -> None:
        frame = Frame(first & 15, payload, first >= 128, first >> 4 & 7)
        assert decode(encode_frame(first, payload, key), key is not None) == [frame]


class TestMask:
    """RFC 6455 §5.3: the payload is XOR-ed with the key."""

    @given(st.binary(max_size=100), st.binary(min_size=4, max_size=4))
    def test_masking_is_xor_with_the_key(self, data: bytes, key: bytes) -> None:
        assert apply_mask(data, key) == xor(data, key)

    @pytest.mark.parametrize("size", range(STRIDED - 1, STRIDED + 5))
    def test_a_large_payload_is_masked(self, size: int) -> None:
        data = bytes(number * number & 0xFF for number in range(size))
        assert apply_mask(data, b"\x01\xf2\x80\x7f") == xor(data, b"\x01\xf2\x80\x7f")

    @pytest.mark.parametrize("size", range(12))
    def test_a_payload_of_any_length_modulo_four_is_masked(self, size: int) -> None:
        assert apply_mask(b"\xff" * size, b"\x01\x02\x04\x08") == (b"\xfe\xfd\xfb\xf7" * 3)[:size]


class TestMaskKeys:
    """RFC 6455 §5.3: a client chooses an unpredictable key for each frame."""

    def test_the_keys_are_the_systems_random_bytes_in_order(self, monkeypatch: pytest.MonkeyPatch) -> None:
        blocks = [bytes(range(1, 9)), bytes(range(101, 105))]
        monkeypatch.setattr(os, "urandom", lambda size: blocks.pop(0))
        keys = MaskKeys()
        assert [keys.next() for _ in range(3)] == [b"\1\2\3\4", b"\5\6\7\x08", b"efgh"]

    def test_a_zero_key_is_skipped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        blocks = [b"\0\0\0\0", b"\0\0\0\0\0\0\0\1\0\0\0\0"]
        monkeypatch.setattr(os, "urandom", lambda size: blocks.pop(0) if blocks else b"\2\2\2\2")
        keys = MaskKeys()
        assert [keys.next() for _ in range(2)] == [b"\0\0\0\1", b"\2\2\2\2"]

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
    def test_a_forked_process_has_its_own_keys(self) -> None:
        """Both codecs take them from the same place."""
        frames.mask_keys.next()
        reads, writes = os.pipe()
        child = os.fork()
        if not child:
            os.write(writes, b"".join(frames.mask_keys.next() for _ in range(8)))
            os._exit(0)
        os.close(writes)
        with open(reads, "rb") as pipe:
            theirs = pipe.read()
        os.waitpid(child, 0)
        assert len(theirs) == 32
        assert theirs != b"".join(frames.mask_keys.next() for _ in range(8))

    def test_each_key_is_fresh(self) -> None:
        keys = MaskKeys()
        assert len({keys.next() for _ in range(3000)}) > 2990


class TestSend:
    """RFC 6455 §6.1: messages that each role sends.

    The reference decoder reads the frames; `TestGather` tests the writes.
    """

    @pytest.mark.parametrize("size", LENGTHS)
    def test_a_binary_message_is_sent(self, server: bool, size: int) -> None:
        recorder = Recorder(server)
        recorder.session.sender.send_binary(pattern(size))
        assert recorder.sent == [Frame(BINARY, pattern(size))]

    def test_a_text_message_is_sent_as_utf8(self, server: bool) -> None:
        recorder = Recorder(server)
        recorder.session.sender.send_text("h\u00e9\u20ac\U0001f600\0\r\n")
        assert recorder.sent == [Frame(TEXT, b"h\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\0\r\n")]

    def test_a_text_with_surrogates_is_refused(self, server: bool) -> None:
        recorder = Recorder(server)
        with pytest.raises(UnicodeEncodeError):
            recorder.session.sender.send_text("\ud800")
        assert recorder.writes == []

    def test_single_frames_are_sent_with_their_fin_bit(self, server: bool) -> None:
        recorder = Recorder(server)
        recorder.session.writer.send_frame(Opcode.TEXT, b"h")
        recorder.session.writer.send_frame(Opcode.CONTINUATION, b"")
        recorder.session.writer.send_frame(FIN | Opcode.CONTINUATION, b"i")
        assert recorder.sent == [Frame(TEXT, b"h", False), Frame(CONTINUATION, b"", False), Frame(CONTINUATION, b"i")]

    def test_a_client_masks_each_frame_with_another_key(self) -> None:
        """RFC 6455 §5.3"""
        recorder = Recorder(server=False)
        for _ in range(100):
            recorder.session.sender.send_binary(b"")
        keys = [data[2:6] for _, data in recorder.writes]
        assert len(set(keys)) > 95
        assert bytes(4) not in keys


class TestGather:
    """The writer joins the messages that hooks send during a chunk to one write (`docs/performance.md`)."""

    @staticmethod
    def echo(recorder: Recorder, event: Event) -> None:
        if event[0] == "text":
            recorder.session.sender.send_text(event[1])
        elif event[0] == "binary":
            recorder.session.sender.send_binary(event[1])

    def test_the_echoes_of_a_chunk_are_one_write(self, server: bool) -> None:
        recorder = Recorder(server, react=self.echo)
        recorder.receive((TEXT, b"one"), (BINARY, b"two"), (PING, b"p"), (TEXT, b"thr", False), (CONTINUATION, b"ee"))
        assert [opcode for opcode, _ in recorder.writes] == [0]
        assert recorder.sent == [Frame(TEXT, b"one"), Frame(BINARY, b"two"), Frame(PONG, b"p"), Frame(TEXT, b"three")]
        recorder.receive((TEXT, b"four"))
        assert len(recorder.writes) == 2

    def test_a_chunk_without_answers_causes_no_write(self, server: bool) -> None:
        recorder = Recorder(server).receive((TEXT, b"one"), (PONG, b""))
        assert recorder.writes == []

    def test_a_close_is_gathered_and_written_before_the_end_is_reported(self, server: bool) -> None:
        written_at_the_end = []

        class Watcher(Recorder):
            def session_ended(self) -> None:
                super().session_ended()
                written_at_the_end.extend(self.sent)

        recorder = Watcher(server, react=self.echo).receive((TEXT, b"one"), (PING, b"p"), (CLOSE, b"\x03\xe9"))
        assert written_at_the_end == [Frame(TEXT, b"one"), Frame(PONG, b"p"), Frame(CLOSE, b"\x03\xe9")]
        assert len(recorder.writes) == 1

    def test_a_message_sent_before_a_fault_is_written(self, server: bool) -> None:
        recorder = Recorder(server, react=self.echo).receive((TEXT, b"one"), (3, b""))
        assert recorder.sent == [Frame(TEXT, b"one"), Frame(CLOSE, b"\x03\xea")]
        assert len(recorder.writes) == 1

    def test_a_message_sent_before_a_hook_raised_is_written(self, server: bool) -> None:
        def send_and_raise(recorder: Recorder, event: Event) -> None:
            recorder.session.sender.send_text("sent")
            raise KeyError

        recorder = Recorder(server, react=send_and_raise).receive((TEXT, b"one"), (TEXT, b"two"))
        assert recorder.sent == [Frame(TEXT, b"sent"), Frame(CLOSE, b"\x03\xf3")]
        assert len(recorder.writes) == 1

    def test_the_messages_of_a_resumed_session_are_gathered(self, server: bool) -> None:
        def react(recorder: Recorder, event: Event) -> None:
            recorder.session.sender.send_text(event[1])
            if event[1] == "one":
                recorder.session.pause()

        recorder = Recorder(server, react=react).receive((TEXT, b"one"), (TEXT, b"two"), (TEXT, b"three"))
        assert len(recorder.writes) == 1
        recorder.session.resume()
        assert recorder.sent == [Frame(TEXT, b"one"), Frame(TEXT, b"two"), Frame(TEXT, b"three")]
        assert len(recorder.writes) == 2

    def test_nothing_is_gathered_outside_a_chunk(self, server: bool) -> None:
        recorder = Recorder(server)
        recorder.session.sender.send_text("one")
        recorder.session.ping(b"two")
        recorder.session.pong(b"three")
        recorder.session.sender.send_binary(b"four")
        recorder.session.close()
        assert [opcode for opcode, _ in recorder.writes] == [0, PING, PONG, 0, CLOSE]
        assert [frame.opcode for frame in recorder.sent] == [TEXT, PING, PONG, BINARY, CLOSE]
        assert recorder.session.writer.gathered_size == 0

    def test_short_or_gathered_frames_are_written_at_once_if_possible(self, server: bool) -> None:
        gone: list[bytes] = []
        recorder = Recorder(server, react=self.echo)

        def at_once(frame: bytes) -> int:
            gone.append(frame)
            return len(frame)

        recorder.at_once = at_once
        recorder.session.sender.send_text("one")
        recorder.session.ping(b"two")
        recorder.session.sender.send_prepared(prepare(b"three"))
        sent = decode(b"".join(gone), masked=not server)
        assert [frame.payload for frame in sent] == [b"one", b"two", b"three"]
        assert len(gone) == 3 and recorder.writes == []
        recorder.receive((TEXT, b"four"), (TEXT, b"five"))
        assert [frame.payload for frame in decode(gone[3], masked=not server)] == [b"four", b"five"]
        recorder.session.sender.send_binary(bytes(GATHER_LIMIT))
        assert len(gone) == 4 and len(recorder.writes) == 1

    @pytest.mark.parametrize("gathered", [False, True])
    @pytest.mark.parametrize("room", [None, 0, 1, 6])
    def test_the_sink_gets_the_bytes_that_are_not_written_at_once(
        self, server: bool, room: int | None, gathered: bool
    ) -> None:
        def at_once(frame: bytes) -> int:
            if room is None:
                raise BlockingIOError
            gone.append(frame[:room])
            return room

        gone: list[bytes] = []
        recorder = Recorder(server, react=self.echo)
        recorder.at_once = at_once
        if gathered:
            recorder.receive((TEXT, b"hello"))
        else:
            recorder.session.sender.send_text("hello")
        ((_, rest),) = recorder.writes
        assert decode(b"".join(gone) + rest, masked=not server) == [Frame(TEXT, b"hello")]
        assert len(gone) == (room is not None)

    def test_nothing_is_gathered_for_a_sink_that_is_not_free(self, server: bool) -> None:
        recorder = Recorder(server, react=self.echo)
        recorder.free = False
        recorder.receive((TEXT, b"one"), (PING, b"p"), (BINARY, b"two"), (CLOSE, b""))
        assert [opcode for opcode, _ in recorder.writes] == [0, PONG, 0, CLOSE]
        assert [frame.payload for frame in recorder.sent] == [b"one", b"p", b"two", b"\x03\xe8"]

    def test_a_sink_that_fills_during_a_chunk_gets_one_write(self, server: bool) -> None:
        def react(recorder: Recorder, event: Event) -> None:
            recorder.free = event[1] != "two"
            self.echo(recorder, event)

        recorder = Recorder(server, react=react).receive((TEXT, b"one"), (TEXT, b"two"), (TEXT, b"three"))
        assert len(recorder.writes) == 1
        assert [frame.payload for frame in recorder.sent] == [b"one", b"two", b"three"]

    def test_the_session_knows_the_size_of_the_gathered_frames(self) -> None:
        sizes = []

        def react(recorder: Recorder, event: Event) -> None:
            self.echo(recorder, event)
            sizes.append(recorder.session.writer.gathered_size)

        recorder = Recorder(react=react).receive((TEXT, b"one"), (BINARY, pattern(200)))
        assert sizes == [5, 5 + 204]
        assert recorder.session.writer.gathered_size == 0

    def test_more_than_64_kib_are_written_at_once(self, server: bool) -> None:
        """Whatever is gathered beyond 64 KiB would only wait."""
        counts = []

        def react(recorder: Recorder, event: Event) -> None:
            self.echo(recorder, event)
            counts.append(len(recorder.writes))

        # Headers: 4 bytes from a server, 8 from a client.
        size = GATHER_LIMIT // 4 - (4 if server else 8)
        recorder = Recorder(server, react=react)
        recorder.receive(*[(BINARY, pattern(size))] * 3, (BINARY, pattern(size - 1)), (BINARY, b""), (BINARY, b""))
        assert counts == [0, 0, 0, 0, 1, 1]
        assert len(recorder.writes) == 2
        assert [len(frame.payload) for frame in recorder.sent] == [size, size, size, size - 1, 0, 0]

    def test_exactly_64_kib_are_written_at_once(self, server: bool) -> None:
        counts = []

        def react(recorder: Recorder, event: Event) -> None:
            self.echo(recorder, event)
            counts.append(len(recorder.writes))

        size = GATHER_LIMIT // 2 - (4 if server else 8)
        Recorder(server, react=react).receive((BINARY, pattern(size)), (BINARY, pattern(size)), (BINARY, b""))
        assert counts == [0, 1, 1]

    def test_a_frame_of_64_kib_is_written_after_the_gathered_ones(self, server: bool) -> None:
        size = GATHER_LIMIT - (4 if server else 8)
        recorder = Recorder(server, react=self.echo)
        recorder.receive((TEXT, b"one"), (BINARY, pattern(size)), (TEXT, b"two"))
        assert [len(data) for _, data in recorder.writes] == [5 if server else 9, GATHER_LIMIT, 5 if server else 9]
        assert [frame.payload for frame in recorder.sent] == [b"one", pattern(size), b"two"]

    @pytest.mark.parametrize("size", [GATHER_LIMIT // 2, 40_000])
    def test_a_frame_sent_during_a_write_is_written_after_it(self, server: bool, size: int) -> None:
        class Closing(Recorder):
            def write_admitted(self, data: bytes | LongFrame) -> None:
                super().write_admitted(data)
                self.session.close()

        def react(recorder: Recorder, event: Event) -> None:
            recorder.session.sender.send_binary(bytes(size))
            recorder.session.sender.send_binary(bytes(size))

        recorder = Closing(server, react=react).receive((TEXT, b"go"))
        assert recorder.sent == [Frame(BINARY, bytes(size)), Frame(BINARY, bytes(size)), Frame(CLOSE, b"\x03\xe8")]

    def test_another_session_is_fed_during_a_chunk(self, server: bool) -> None:
        other = Recorder(server, react=self.echo)

        def react(recorder: Recorder, event: Event) -> None:
            self.echo(recorder, event)
            other.receive((TEXT, event[1].encode()), (BINARY, pattern(70)))

        recorder = Recorder(server, react=react).receive((TEXT, b"one"), (TEXT, b"two"), (TEXT, b"three"))
        assert len(recorder.writes) == 1
        assert [frame.payload for frame in recorder.sent] == [b"one", b"two", b"three"]
        assert [frame.payload for frame in other.sent[::2]] == [b"one", b"two", b"three"]
        assert {frame.payload for frame in other.sent[1::2]} == {pattern(70)}
        other.writes.clear()
        other.receive((TEXT, b"four"), (TEXT, b"five"))
        assert len(other.writes) == 1

    def test_a_thousand_echoes_are_one_write(self, server: bool) -> None:
        recorder = Recorder(server, react=self.echo).receive(*[(TEXT, b"hello")] * 1000)
        assert len(recorder.writes) == 1
        assert recorder.sent == [Frame(TEXT, b"hello")] * 1000


class TestReceive:
    """RFC 6455 §5.2 and §6.2: frames of any size, in any chunks."""

    @pytest.mark.parametrize("size", LENGTHS)
    def test_a_message_of_every_size_is_received(self, server: bool, size: int) -> None:
        wire = to(server, (BINARY, pattern(size)))
        start = len(wire) - size
        ways = [[wire], cut(wire, range(start + 1)), cut(wire, [start + size // 2]), cut(wire, [start - 1, start + 1])]
        for chunks in ways:
            assert Recorder(server).feed(*chunks).events == [("binary", pattern(size))]

    @pytest.mark.parametrize("size", LENGTHS)
    def test_messages_of_every_size_are_received_in_a_row(self, server: bool, size: int) -> None:
        recorder = Recorder(server).receive((BINARY, pattern(size)), (BINARY, b""), (BINARY, pattern(size)))
        assert recorder.events == [("binary", pattern(size)), ("binary", b""), ("binary", pattern(size))]

    @pytest.mark.parametrize("chunk", [1, 2, 3, 4, 5, 7, 64])
    def test_the_mask_continues_over_chunks(self, chunk: int) -> None:
        wire = to(True, (BINARY, pattern(100)))
        recorder = Recorder().feed(*cut(wire, range(chunk, len(wire), chunk)))
        assert recorder.events == [("binary", pattern(100))]

    def test_each_frame_has_its_own_key(self) -> None:
        one, two = encode(Frame(BINARY, b"one", False), b"\1\2\3\4"), encode(Frame(CONTINUATION, b"two"), b"\xff\0\0\0")
        assert Recorder().feed(one + two).events == [("binary", b"onetwo")]
        assert Recorder().feed(*octets(one + two)).events == [("binary", b"onetwo")]

    @pytest.mark.parametrize(
        ("server", "wire", "event"),
        [
            (False, "81 05 48 65 6c 6c 6f", ("text", "Hello")),
            (True, "81 85 37 fa 21 3d 7f 9f 4d 51 58", ("text", "Hello")),
            (False, "01 03 48 65 6c 80 02 6c 6f", ("text", "Hello")),
            (False, "89 05 48 65 6c 6c 6f", ("ping", b"Hello")),
            (True, "8a 85 37 fa 21 3d 7f 9f 4d 51 58", ("pong", b"Hello")),
        ],
    )
    def test_the_examples_of_the_rfc_are_received(
        self, server: bool, wire: str, event: tuple[bytes | str, ...]
    ) -> None:
        """RFC 6455 §5.7"""
        assert Recorder(server).feed(bytes.fromhex(wire)).events == [event]

    def test_an_empty_chunk_is_ignored(self, server: bool) -> None:
        wire = to(server, (TEXT, b"hi"))
        for places in range(len(wire)):
            recorder = Recorder(server).feed(b"", *[part for chunk in cut(wire, [places]) for part in (chunk, b"")])
            assert recorder.events == [("text", "hi")]

    def test_the_session_reads_the_clock_before_and_after_a_chunk(self, server: bool) -> None:
        recorder = Recorder(server)
        asked = recorder.times_asked
        recorder.time = 7.5
        recorder.receive((TEXT, b"one"))
        assert recorder.times_asked == asked + 2
        assert recorder.session.reader.received_at == 7.5

    def test_the_session_reads_the_clock_once_in_16_frames_of_a_long_chunk(self, server: bool) -> None:
        recorder = Recorder(server)
        asked = recorder.times_asked
        recorder.receive(*[(TEXT, b"")] * 321)
        # Before, after, and between: after the 1st frame, the 5th, the 21st and each 16th from there.
        assert recorder.times_asked == asked + 2 + 2 + (321 - 5) // 16

    def test_a_part_of_a_frame_counts_as_received(self, server: bool) -> None:
        recorder = Recorder(server)
        recorder.time = 9.0
        recorder.feed(b"\x81")
        assert recorder.session.reader.received_at == 9.0


def frame(opcode: int, payload: bytes = b"", fin: bool = True, rsv: int = 0) -> Callable[[bool], bytes]:
    return lambda server: to(server, (opcode, payload, fin, rsv))


def long_form(form: int, size: int) -> Callable[[bool], bytes]:
    return lambda server: encode(Frame(TEXT, b"x" * size), KEY if server else None, form)


def claim(length: int, form: int = 64) -> Callable[[bool], bytes]:
    return lambda server: header(Frame(BINARY), server, form, length) + (KEY if server else b"")


def mask_of_the_other_role(opcode: int, payload: bytes) -> Callable[[bool], bytes]:
    return lambda server: to(not server, (opcode, payload))


def joined(*parts: Callable[[bool], bytes]) -> Callable[[bool], bytes]:
    return lambda server: b"".join(part(server) for part in parts)


BEAST_LIMITS = Limits(max_message_size=1 << 24)

# Beast's cases; a length with the high bit set is `bad_size` since Boost 1.92.
FAULTS: dict[str, tuple[Callable[[bool], bytes], type[errors.ProtocolError]]] = {
    "text masked as the other role": (mask_of_the_other_role(TEXT, b"hi"), errors.BadMaskedFrame),
    "ping masked as the other role": (mask_of_the_other_role(PING, b""), errors.BadMaskedFrame),
    "close masked as the other role": (mask_of_the_other_role(CLOSE, b"\x03\xe8"), errors.BadMaskedFrame),
    "continuation masked as the other role": (
        joined(frame(TEXT, b"a", fin=False), mask_of_the_other_role(CONTINUATION, b"b")),
        errors.BadMaskedFrame,
    ),
    "rsv1 without deflate": (frame(TEXT, b"hi", rsv=4), errors.BadReservedBits),
    "rsv1 without deflate on a first frame": (frame(TEXT, b"hi", fin=False, rsv=4), errors.BadReservedBits),
    "rsv2": (frame(TEXT, b"hi", rsv=2), errors.BadReservedBits),
    "rsv3": (frame(BINARY, b"hi", rsv=1), errors.BadReservedBits),
    "all rsv on a close": (frame(CLOSE, b"", rsv=7), errors.BadReservedBits),
    "rsv1 on a pong": (frame(PONG, b"", rsv=4), errors.BadReservedBits),
    "rsv3 on a ping": (frame(PING, b"", rsv=1), errors.BadReservedBits),
    "rsv1 on a continuation": (
        joined(frame(TEXT, b"h", fin=False), frame(CONTINUATION, b"i", rsv=4)),
        errors.BadReservedBits,
    ),
    **{f"opcode {opcode:#x}": (frame(opcode), errors.BadOpcode) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "opcode 3, not final": (frame(3, fin=False), errors.BadOpcode),
    "opcode 7 inside a message": (joined(frame(TEXT, fin=False), frame(7)), errors.BadOpcode),
    "continuation without a message": (frame(CONTINUATION, b"hi"), errors.BadContinuation),
    "first continuation, not final": (frame(CONTINUATION, b"hi", fin=False), errors.BadContinuation),
    "text inside a fragmented message": (
        joined(frame(TEXT, b"h", fin=False), frame(TEXT, b"i")),
        errors.BadDataFrame,
    ),
    "binary inside a fragmented text": (
        joined(frame(TEXT, b"h", fin=False), frame(BINARY, b"i", fin=False)),
        errors.BadDataFrame,
    ),
    "fragmented ping": (frame(PING, b"p", fin=False), errors.BadControlFragment),
    "fragmented pong": (frame(PONG, b"p", fin=False), errors.BadControlFragment),
    "fragmented close": (frame(CLOSE, b"\x03\xe8", fin=False), errors.BadControlFragment),
    "ping of 126 octets": (frame(PING, b"p" * 126), errors.BadControlSize),
    "pong of 126 octets": (frame(PONG, b"p" * 126), errors.BadControlSize),
    "close of 126 octets": (frame(CLOSE, b"\x03\xe8" + b"r" * 124), errors.BadControlSize),
    "ping of 65536 octets": (frame(PING, b"p" * 65536), errors.BadControlSize),
    "16-bit length for 0 octets": (long_form(16, 0), errors.BadSize),
    "16-bit length for 5 octets": (long_form(16, 5), errors.BadSize),
    "16-bit length for 125 octets": (long_form(16, 125), errors.BadSize),
    "64-bit length for 5 octets": (long_form(64, 5), errors.BadSize),
    "64-bit length for 126 octets": (long_form(64, 126), errors.BadSize),
    "64-bit length for 65535 octets": (long_form(64, 65535), errors.BadSize),
    "64-bit length with the high bit set": (claim(1 << 63), errors.BadSize),
    "64-bit length with all bits set": (claim((1 << 64) - 1), errors.BadSize),
    "64-bit length 2^63 - 1": (claim((1 << 63) - 1), errors.MessageTooBig),
    "64-bit length 2^62": (claim(1 << 62), errors.MessageTooBig),
    "frame of 16 MiB + 1 claimed": (claim((1 << 24) + 1), errors.MessageTooBig),
    "text with 0xff": (frame(TEXT, b"\xff"), errors.BadFramePayload),
    "text with a surrogate": (frame(TEXT, b"a\xed\xa0\x80b"), errors.BadFramePayload),
    "text with a pair of surrogates": (frame(TEXT, b"\xed\xa0\xbd\xed\xb8\x80"), errors.BadFramePayload),
    "text with overlong NUL": (frame(TEXT, b"\xc0\x80"), errors.BadFramePayload),
    "text with an overlong euro sign": (frame(TEXT, b"\xf0\x82\x82\xac"), errors.BadFramePayload),
    "text above U+10FFFF": (frame(TEXT, b"\xf4\x90\x80\x80"), errors.BadFramePayload),
    "text ending inside a sequence": (frame(TEXT, b"\xe2\x82"), errors.BadFramePayload),
    "text of two frames ending inside a sequence": (
        joined(frame(TEXT, b"\xe2", fin=False), frame(CONTINUATION, b"\x82")),
        errors.BadFramePayload,
    ),
    "text with an empty last frame inside a sequence": (
        joined(frame(TEXT, b"\xe2\x82", fin=False), frame(CONTINUATION)),
        errors.BadFramePayload,
    ),
    "bad UTF-8 in the first of two frames": (frame(TEXT, b"\xff", fin=False), errors.BadFramePayload),
    "bad UTF-8 in the second of two frames": (
        joined(frame(TEXT, b"\xe2", fin=False), frame(CONTINUATION, b"\xe2", fin=False)),
        errors.BadFramePayload,
    ),
}
CLOSE_SENT = {1002: "88 02 03 ea", 1007: "88 02 03 ef", 1009: "88 02 03 f1"}


class TestFaults:
    """RFC 6455 §5 and §7.1.7: a broken rule fails the connection.

    A close frame gives the reason, and nothing more is read.
    """

    @pytest.mark.parametrize("name", FAULTS)
    @pytest.mark.parametrize("split", [lambda wire: [wire], octets], ids=["whole", "bytewise"])
    def test_each_fault_is_refused_with_its_error(self, server: bool, name: str, split: Callable[..., Any]) -> None:
        make, error = FAULTS[name]
        if error is errors.BadMaskedFrame and server:
            error = errors.BadUnmaskedFrame
        wire = to(server, (TEXT, b"before")) + make(server) + to(server, (TEXT, b"behind"), (CLOSE, b"\x03\xe8"))
        recorder = Recorder(server, BEAST_LIMITS).feed(*split(wire))
        assert recorder.events == [("text", "before"), ("ended",)]
        assert recorder.error is error
        if server:
            assert recorder.wire == bytes.fromhex(CLOSE_SENT[error.close_code])
        assert recorder.sent == [Frame(CLOSE, error.close_code.to_bytes(2, "big"))]
        reason = recorder.session.closing.reason()
        assert (reason.code, reason.clean, reason.began, reason.received) == (1006, False, "local", None)
        assert (reason.sent, type(reason.error)) == ((error.close_code, ""), error)

    def test_a_message_that_is_finished_is_not_continued(self, server: bool) -> None:
        recorder = Recorder(server).receive((TEXT, b"a", False), (CONTINUATION, b"b"), (CONTINUATION, b"c"))
        assert recorder.events == [("text", "ab"), ("ended",)]
        assert recorder.error is errors.BadContinuation

    @pytest.mark.parametrize(
        ("opcode", "error"),
        [(3, errors.BadOpcode), (CONTINUATION, errors.BadContinuation), (TEXT | 0x20, errors.BadReservedBits)],
    )
    def test_a_fault_is_seen_after_two_bytes(self, server: bool, opcode: int, error: type[Exception]) -> None:
        recorder = Recorder(server).feed(bytes([0x80 | opcode, 0x8A if server else 0x0A]))
        assert recorder.error is error

    def test_a_wrong_mask_bit_is_seen_at_once(self, server: bool) -> None:
        recorder = Recorder(server).feed(b"\x81" + (b"\x0a" if server else b"\x8a"))
        assert recorder.error is (errors.BadUnmaskedFrame if server else errors.BadMaskedFrame)

    def test_a_bad_length_is_seen_at_its_last_byte(self, server: bool) -> None:
        chunks = octets(header(Frame(BINARY), server, 64, 65535))
        recorder = Recorder(server).feed(*chunks[:-1])
        assert not recorder.session.ended
        assert recorder.feed(chunks[-1]).error is errors.BadSize

    def test_a_size_is_refused_by_the_header_alone(self, server: bool) -> None:
        recorder = Recorder(server).feed(claim(1 << 40)(server))
        assert recorder.error is errors.MessageTooBig


# Each text is right up to its last byte.
_BAD_TEXTS = """
80 bf c0 c1 f5 f8 fe ff 4180 c241 c2c2 c2ff e041 e080 e09f e0a041 e0a0ff e18041 ed41 eda0 edbf ed9f41 ed80c0 ee80ee f041
f08f f080 f09041 f0908041 f0908080ff f180e2 f18080f0 f490 f4bf f48f41 f48fbf41 c3a9e282acff
"""
BAD_TEXTS = [bytes.fromhex(text) for text in _BAD_TEXTS.split()]


class TestFailFast:
    """RFC 6455 §8.1: text fails at the first byte that cannot be UTF-8."""

    @pytest.mark.parametrize("text", BAD_TEXTS, ids=bytes.hex)
    def test_each_bad_text_is_valid_up_to_its_last_byte(self, text: bytes) -> None:
        assert first_bad_octet(text) == len(text) - 1

    @pytest.mark.parametrize("text", BAD_TEXTS, ids=bytes.hex)
    def test_bad_text_is_refused_within_a_frame(self, server: bool, text: bytes) -> None:
        wire = to(server, (TEXT, text + b"and more"))[: -len(b"and more")]
        for chunks in ([wire[:-1], wire[-1:]], octets(wire)):
            recorder = Recorder(server).feed(*chunks[:-1])
            assert not recorder.session.ended
            recorder.feed(chunks[-1])
            assert (recorder.error, recorder.sent) == (errors.BadFramePayload, [Frame(CLOSE, b"\x03\xef")])
        assert Recorder(server).feed(wire).error is errors.BadFramePayload

    @pytest.mark.parametrize("text", BAD_TEXTS, ids=bytes.hex)
    def test_bad_text_is_refused_over_frames(self, server: bool, text: bytes) -> None:
        first, *more = octets(text)
        parts = [(TEXT, first, False), *((CONTINUATION, part, False) for part in more)]
        recorder = Recorder(server)
        for part in parts[:-1]:
            recorder.receive(part, (PING, b""), (CONTINUATION, b"", False))
            assert not recorder.session.ended
        recorder.receive(parts[-1])
        assert recorder.error is errors.BadFramePayload

    @pytest.mark.parametrize("text", BAD_TEXTS, ids=bytes.hex)
    def test_bad_text_is_refused_in_a_stream(self, server: bool, text: bytes) -> None:
        chunks = octets(to(server, (TEXT, text, False)))
        recorder = Recorder(server, streaming=True).feed(*chunks[:-1])
        assert not recorder.session.ended
        recorder.feed(chunks[-1])
        assert recorder.error is errors.BadFramePayload
        assert b"".join(event[1] for event in recorder.events if event[0] == "piece") == text[:-1]

    @given(st.binary(max_size=12), st.sets(st.integers(1, 11)))
    def test_any_bytes_are_refused_at_the_first_bad_one(self, text: bytes, places: set[Any] | set[int]) -> None:
        recorder = Recorder()
        bad = first_bad_octet(text)
        parts = cut(text, places)
        for number, part in enumerate(parts):
            recorder.receive((CONTINUATION if number else TEXT, part, False))
            seen = sum(map(len, parts[: number + 1]))
            assert recorder.session.ended == (bad is not None and bad < seen)
            if recorder.session.ended:
                return
        recorder.receive((CONTINUATION, b""))
        assert recorder.session.ended == (bad is not None)
        assert bad is not None or recorder.events == [("text", text.decode())]

    def test_every_character_is_accepted_byte_by_byte(self) -> None:
        """Each first and last of a row of the table, and their neighbours."""
        text = "\0\x7f\x80\u07ff\u0800\u0fff\u1000\ud7ff\ue000\uffff\U00010000\U0003ffff\U00040000\U0010ffff"
        assert Recorder().feed(*octets(to(True, (TEXT, text.encode())))).events == [("text", text)]


MASKS = st.binary(min_size=4, max_size=4)
TEXTS = st.text(max_size=12) | st.sampled_from(["", "\ufeff", "\r\n", "\r", "\n", "\0", "\u20ac" * 50, "x" * 130])
PAYLOADS = st.one_of(
    st.binary(max_size=20),
    TEXTS.map(str.encode),
    st.builds(bytes.__add__, TEXTS.map(str.encode), st.sampled_from(BAD_TEXTS)),
    st.integers(120, 135).map(pattern),
)
CLOSES = st.one_of(
    st.binary(max_size=5),
    st.builds(
        lambda code, reason: code.to_bytes(2, "big") + reason.encode()[:123],
        st.integers(990, 1020) | st.sampled_from([0, 2999, 3000, 4999, 5000, 65535]),
        st.text(max_size=20),
    ),
)
CONTROLS = st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=8) | st.just(pattern(125)))


@st.composite
def messages(draw: st.DrawFn) -> list[Frame]:
    """One message in any number of frames, with control frames between."""
    if draw(st.booleans()):
        opcode, payload = TEXT, draw(TEXTS).encode()
    else:
        opcode, payload = BINARY, draw(PAYLOADS)
    parts = [payload]
    for place in draw(st.lists(st.integers(0, len(payload)), max_size=4).map(sorted)):
        last = parts.pop()
        gone = len(payload) - len(last)
        parts += [last[: place - gone], last[place - gone :]]
    made = []
    for number, part in enumerate(parts):
        if number:
            made += [Frame(*control) for control in draw(st.lists(CONTROLS, max_size=2))]
        made.append(Frame(CONTINUATION if number else opcode, part, number == len(parts) - 1))
    return made


@st.composite
def valid_streams(draw: st.DrawFn, server: bool) -> bytes:
    sequence = [frame for message in draw(st.lists(messages(), max_size=5)) for frame in message]
    if draw(st.booleans()):
        sequence.append(Frame(CLOSE, draw(CLOSES)))
    return b"".join(encode(frame, draw(MASKS) if server else None) for frame in sequence)


@st.composite
def odd_frames(draw: st.DrawFn, server: bool) -> bytes:
    """A frame in which anything may be wrong, though most is right."""
    usual = st.sampled_from([CONTINUATION, CONTINUATION, TEXT, BINARY, PING, PONG])
    frame = Frame(
        draw(usual | st.integers(0, 15)),
        draw(PAYLOADS),
        draw(st.booleans()),
        draw(st.sampled_from([0] * 9 + [1, 2, 4])),
    )
    masked = server if draw(st.integers(0, 15)) else not server
    key = draw(MASKS) if masked else None
    size = len(frame.payload)
    forms = [form for form, most in ((7, 125), (16, 65535), (64, 1 << 63)) if size <= most]
    form = forms[0] if draw(st.integers(0, 7)) else draw(st.sampled_from(forms))
    length = None
    if form == 64 and draw(st.booleans()):
        length = draw(st.integers(0, 1 << 17) | st.integers((1 << 63) - 1, 1 << 63))
    return encode(frame, key, form, length)


@st.composite
def streams(draw: st.DrawFn, server: bool) -> bytes:
    """Bytes of all degrees of right: valid, changed somewhere, odd, and noise."""
    wire = draw(
        valid_streams(server)
        | st.builds(
            lambda start, odd, rest: start + b"".join(odd) + rest,
            valid_streams(server),
            st.lists(odd_frames(server), max_size=5),
            valid_streams(server),
        )
    )
    for _ in range(draw(st.integers(0, 2))):
        at, kind = draw(st.integers(0, min(len(wire), 200))), draw(st.integers(0, 4))
        if kind == 0:
            wire = wire[:at] + draw(st.binary(max_size=3)) + wire[at + 1 :]
        elif kind == 1:
            wire = wire[:at]
        elif kind == 2:
            wire += draw(st.binary(max_size=30))
    return wire


LIMITS = st.builds(
    Limits,
    max_message_size=st.sampled_from([None, 1 << 20, 10, 40, 130]),
    max_frame_size=st.sampled_from([None, None, 8, 126]),
    fragment_size=st.none(),
    max_fragments=st.sampled_from([None, 4096, 1, 2, 4]),
    max_messages_per_turn=st.sampled_from([None, 1000, 1, 2, 5]),
    max_seconds_per_turn=st.sampled_from([None, 0.002]),
)
TICKS = st.sampled_from([0.0, 0.0007, 0.003])
PLACES = st.lists(st.integers(1, 300) | st.integers(1, 1 << 17), max_size=12)
ROLES = st.booleans()
STEPS = st.sampled_from(["", "", "send", "pause", "stop", "close", "raise", "fail"])


class TestAnyChunking:
    """RFC 6455 §6.2: the same bytes, cut into any chunks, have the same results."""

    @settings(max_examples=150)
    @given(st.data(), ROLES, LIMITS, TICKS, st.booleans(), st.booleans(), st.booleans())
    def test_any_chunks_of_a_stream_have_the_same_outcome(
        self, data: st.DataObject, server: bool, limits: Limits, tick: float, text: bool, binary: bool, streaming: bool
    ) -> None:
        wire = data.draw(streams(server))

        def outcome(chunks: list[bytes]) -> tuple[Any, ...]:
            recorder = Recorder(server, limits, text=text, binary=binary, streaming=streaming)
            recorder.tick = tick
            recorder.feed(*chunks)
            events, *rest = recorder.outcome
            return gather_pieces(events, recorder.error), *rest

        whole = outcome([wire])
        assert outcome(cut(wire, data.draw(PLACES))) == whole
        if len(wire) < 2000:
            assert outcome(octets(wire)) == whole
        limits = replace(limits, max_messages_per_turn=None, max_seconds_per_turn=None)
        assert outcome([wire]) == whole

    @settings(max_examples=300)
    @given(st.data(), ROLES, LIMITS, st.booleans(), st.booleans())
    def test_any_stream_has_the_outcome_that_the_rfc_requires(
        self, data: st.DataObject, server: bool, limits: Limits, text: bool, binary: bool
    ) -> None:
        wire = data.draw(streams(server))
        verdict = judge(wire, server, limits, text, binary)
        for chunks in ([wire], cut(wire, data.draw(PLACES))):
            recorder = Recorder(server, limits, text=text, binary=binary).feed(*chunks)
            assert recorder.events == verdict.events
            assert recorder.sent == verdict.sent
            assert recorder.error in (verdict.errors or (None,))

    @settings(max_examples=300)
    @given(st.lists(st.binary(max_size=40), max_size=10), ROLES, st.booleans())
    def test_any_bytes_have_the_outcome_that_the_rfc_requires(
        self, chunks: list[bytes], server: bool, streaming: bool
    ) -> None:
        wire = b"".join(chunks)
        recorder = Recorder(server, streaming=streaming).feed(*chunks)
        verdict = judge(wire, server, Limits())
        assert recorder.sent == verdict.sent
        assert recorder.error in (verdict.errors or (None,))
        assert streaming or recorder.events == verdict.events

    @settings(max_examples=200)
    @given(st.data(), ROLES, st.sampled_from([None, 1, 2, 3]))
    def test_any_chunks_have_the_same_outcome_if_hooks_act(self, data: st.DataObject, server: Any, budget: Any) -> None:
        """Send, close, fail, pause or raise at some events: all happens at the same place of the stream."""
        wire = data.draw(valid_streams(server)) + data.draw(streams(server))
        script = data.draw(st.lists(STEPS, max_size=8))
        limits = Limits(max_messages_per_turn=budget)

        def outcome(chunks: list[bytes]) -> tuple[Any, ...]:
            recorder = Recorder(server, limits, react=follow(script))
            for chunk in chunks:
                recorder.feed(chunk)
                while recorder.session.paused and "pause" in script:
                    recorder.resume()
            events, *rest = recorder.outcome
            return [(event[0], *map(repr, event[1:])) for event in events], *rest

        whole = outcome([wire])
        assert outcome(cut(wire, data.draw(PLACES))) == whole
        if len(wire) < 2000:
            assert outcome(octets(wire)) == whole
        limits = Limits(max_messages_per_turn=None)
        assert outcome([wire]) == whole


def gather_pieces(events: list[Event], error: type[BaseException] | None) -> list[Event]:
    """Streamed messages in one piece each: only the pieces may depend on the chunks.

    If a text fails as it arrives, the part before the bad byte is delivered or not.
    """
    gathered: list[Event] = []
    for event in events:
        if event[0] != "piece":
            gathered.append(event)
            continue
        at = next((n for n, (kind, *more) in enumerate(gathered) if kind == "piece" and not more[2]), None)
        if at is None:
            gathered.append(event)
        else:
            _, data, opcode, final = gathered[at]
            assert (opcode, final) == (event[2], False)
            gathered[at] = ("piece", data + event[1], opcode, event[3])
    if error is errors.BadFramePayload:
        gathered = [event for event in gathered if event[0] != "piece" or event[3]]
    return gathered


def follow(script: list[str]) -> Callable[[Recorder, Event], object]:
    steps = iter(script)

    def react(recorder: Recorder, event: Event) -> object:
        session = recorder.session
        match next(steps, ""):
            case "send" if session.writer.sendable:
                session.sender.send_text("sent in a hook")
            case "pause":
                session.pause()
            case "stop":
                session.pause()
                session.resume()
            case "close":
                session.close(1001, "from a hook")
            case "raise" if event[0] in ("text", "binary"):
                raise KeyError("from a hook")
            case "fail":
                session.fail(TimeoutError("from a hook"))
        return None

    return react


class TestRoundTrip:
    """RFC 6455 §5.2 and §5.4: each role reads the frames of the other."""

    @given(ROLES, st.lists(TEXTS | PAYLOADS | st.just(pattern(65536)), max_size=6), PLACES)
    def test_each_role_reads_the_frames_of_the_other(
        self, server: bool, sent: list[Any] | list[bytes] | list[str], places: list[int]
    ) -> None:
        writer, reader = Recorder(server), Recorder(not server)
        for message in sent:
            if isinstance(message, str):
                writer.session.sender.send_text(message)
            else:
                writer.session.sender.send_binary(message)
            writer.session.ping(b"between")
        writer.session.close(4000, "done")
        reader.feed(*cut(writer.wire, places))
        expected: list[Event] = []
        for message in sent:
            expected += [("text" if isinstance(message, str) else "binary", message), ("ping", b"between")]
        assert reader.events == [*expected, ("ended",)]
        writer.feed(reader.wire)
        assert writer.events == [("pong", b"between")] * len(sent) + [("ended",)]
        assert writer.session.closing.reason().clean
        assert reader.session.closing.reason().clean

    @given(ROLES, st.lists(messages(), max_size=5), PLACES)
    def test_any_fragments_are_received_as_their_messages(
        self, server: bool, sequences: list[list[Frame]], places: list[int]
    ) -> None:
        wire = b"".join(to(server, *sequence) for sequence in sequences)
        expected: list[Event] = []
        for sequence in sequences:
            for frame in sequence:
                if frame.opcode in (PING, PONG):
                    expected.append(("ping" if frame.opcode == PING else "pong", frame.payload))
            payload = b"".join(frame.payload for frame in sequence if frame.opcode < CLOSE)
            expected.append(("text", payload.decode()) if sequence[0].opcode == TEXT else ("binary", payload))
        assert Recorder(server).feed(*cut(wire, places)).events == expected


KIB, MIB = 1 << 10, 1 << 20


def cpu_time(chunks: list[bytes], rounds: int = 3) -> float:
    """Seconds of CPU time that a server takes for ``chunks``: the best of several rounds."""
    best = float("inf")
    for _ in range(rounds):
        messages: list[str | bytes] = []
        recorder = Recorder(limits=UNLIMITED)
        recorder.session.reader.on_text = recorder.session.reader.on_binary = messages.append
        start = time.process_time()
        recorder.feed(*chunks)
        best = min(best, time.process_time() - start)
        assert messages
    return best


def fragments(opcode: int, count: int, size: int) -> list[bytes]:
    first, middle, last = (
        encode(Frame(kind, b"a" * size, fin), KEY)
        for kind, fin in ((opcode, False), (CONTINUATION, False), (CONTINUATION, True))
    )
    return [first, *[middle] * (count - 2), last]


def slices(wire: bytes, size: int) -> list[bytes]:
    return [wire[at : at + size] for at in range(0, len(wire), size)]


class TestLinearCost:
    """The cost is linear: ten times the bytes are ten times the work, in any chunks.

    Quadratic cost would be far above each bound.
    """

    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    def test_the_time_is_linear_for_20000_fragments(self, opcode: int) -> None:
        few, many = (fragments(opcode, count, KIB) for count in (2_000, 20_000))
        assert cpu_time(many, 2) < 60 * cpu_time(few)
        assert cpu_time(slices(b"".join(many), 64 * KIB), 2) < 60 * cpu_time(slices(b"".join(few), 64 * KIB))

    def test_the_time_is_linear_for_a_frame_of_64_mib(self) -> None:
        wire = encode_frame(FIN_BINARY, bytes(64 * MIB), KEY)
        assert cpu_time(slices(wire, 64 * KIB), 2) < 20 * cpu_time([wire], 1)

    def test_the_time_is_linear_for_a_text_of_16_mib(self) -> None:
        wire = encode_frame(FIN_TEXT, bytes(16 * MIB), KEY)
        assert cpu_time(slices(wire, 64 * KIB), 2) < 20 * cpu_time([wire])

    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    def test_the_time_is_linear_for_tiny_fragments(self, opcode: int) -> None:
        few, many = (slices(b"".join(fragments(opcode, count, 1)), 64 * KIB) for count in (5_000, 50_000))
        assert cpu_time(many, 2) < 60 * cpu_time(few)

    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    def test_the_time_is_linear_byte_by_byte(self, opcode: int) -> None:
        few, many = (octets(encode_frame(FIN | opcode, b"a" * size, KEY)) for size in (10_000, 100_000))
        assert cpu_time(many, 2) < 60 * cpu_time(few)

    def test_the_time_is_linear_for_many_messages_in_a_chunk(self) -> None:
        few, many = ([encode_frame(FIN_TEXT, b"a", KEY) * count] for count in (3_000, 30_000))
        assert cpu_time(many, 2) < 60 * cpu_time(few)

    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    @pytest.mark.parametrize("chunk", [KIB, 64 * KIB])
    @pytest.mark.parametrize("size", [KIB, 4 * MIB])
    def test_the_memory_is_at_most_two_and_a_half_messages(self, opcode: int, chunk: int, size: int) -> None:
        """A message takes its own size once while it comes, in small frames or one, and once more when it is given."""
        wire = (
            b"".join(fragments(opcode, 4 * MIB // size, size))
            if size < 4 * MIB
            else encode_frame(FIN | opcode, bytes(size), KEY)
        )
        chunks = slices(wire, chunk)
        recorder = Recorder(limits=UNLIMITED)
        tracemalloc.start()
        try:
            recorder.feed(*chunks)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert len(recorder.events[0][1]) == 4 * MIB
        assert peak < 2.5 * 4 * MIB

    def test_a_claimed_size_takes_no_memory(self) -> None:
        recorder = Recorder(limits=UNLIMITED)
        tracemalloc.start()
        try:
            recorder.feed(claim(1 << 40)(True) + b"some of it")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 64 * KIB
