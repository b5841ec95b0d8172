"""The compiled codec and the pure Python one: which is in use, and that both do the same with the same bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import twisted_beastws
from twisted_beastws.errors import BadFramePayload, HandshakeError
from twisted_beastws.options import Limits
from twisted_beastws.wire import codec, frames, raw
from twisted_beastws.wire.fields import SPELLINGS, canonical_name
from twisted_beastws.wire.head_buffer import HeadBuffer
from twisted_beastws.wire.http import parse_request

from . import peer

KEY = b"\x01\x82\x43\xc4"


@pytest.fixture(scope="module")
def codecs() -> list[codec.Codec]:
    return [peer.compiled_codec(), codec.PURE]


@pytest.fixture(scope="module")
def speedups(codecs: list[codec.Codec]) -> Any:
    # The codec is chosen as a whole: no public name gives these functions alone.
    from twisted_beastws.wire import _speedups

    return _speedups


def outcome(on: codec.Codec, server: bool, chunks: list[bytes], limits: Limits, react: Any, tick: float) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames.MaskKeys, "next", lambda self: KEY)
        recorder = peer.Recorder(server, limits, react, on=on)
        recorder.tick = tick
        recorder.feed(*chunks)
    events = [(event[0], *map(str, event[1:])) for event in recorder.events]
    turns = recorder.turns, recorder.times_asked
    return events, recorder.writes, turns, repr(recorder.session.closing.error), recorder.session.closing.reason().code


FRAMES = st.builds(
    peer.Frame,
    st.sampled_from([0, 0, 1, 1, 1, 2, 2, 8, 9, 10, 3, 11]),
    st.one_of(
        st.binary(max_size=200),
        st.text(max_size=80).map(str.encode),
        st.sampled_from([b"\x03\xe8", b"\x03\xe8bye", b"x" * 70000, b"\xf0\x9f\x98"]),
    ),
    st.sampled_from([True, True, True, False]),
    st.sampled_from([0, 0, 0, 0, 0, 4, 1]),
)


class TestSameResults:
    """RFC 6455 §5: both codecs read and write the same frames."""

    @given(st.data())
    @settings(max_examples=400)
    def test_both_codecs_agree_about_any_bytes_in_any_chunks(
        self, codecs: list[codec.Codec], data: st.DataObject
    ) -> None:
        server = data.draw(st.booleans())
        wire = peer.to(server, *data.draw(st.lists(FRAMES, max_size=8))) + data.draw(st.binary(max_size=20))
        chunks = peer.cut(wire, data.draw(st.lists(st.integers(0, max(len(wire), 1)), max_size=12)))
        max_message_size, fragment_size = data.draw(st.sampled_from([(150, 100), (400, 100), (1 << 20, None)]))
        limits = Limits(
            max_message_size=max_message_size,
            max_fragments=4,
            fragment_size=fragment_size,
            max_messages_per_turn=data.draw(st.sampled_from([1000, 1, 3, None])),
        )
        tick = data.draw(st.sampled_from([0.0, 0.0004, 0.003]))
        script = data.draw(st.lists(st.sampled_from(["echo", "pause", "raise", "close", "return", None]), max_size=6))

        def reaction() -> Any:
            steps = iter(script)

            def react(recorder: peer.Recorder, event: peer.Event) -> Any:
                step = next(steps, None)
                session = recorder.session
                if step == "echo" and event[0] == "text":
                    session.sender.send_text(event[1])
                elif step == "echo" and event[0] == "binary":
                    session.sender.send_binary(event[1])
                elif step == "pause":
                    session.pause()
                elif step == "raise" and event[0] in ("text", "binary"):
                    raise RuntimeError("a hook")
                elif step == "close":
                    session.close(4000, "enough")
                return "something" if step == "return" else None

            return react

        compiled, pure = (outcome(on, server, chunks, limits, reaction(), tick) for on in codecs)
        assert compiled == pure

    @given(st.integers(0, 255), st.binary(max_size=300), st.one_of(st.none(), st.binary(min_size=4, max_size=4)))
    def test_both_codecs_encode_the_same_frame(
        self, speedups: Any, first: int, payload: bytes, key: bytes | None
    ) -> None:
        assert speedups.encode_frame(first, payload, key) == frames.encode_frame(first, payload, key)

    @given(st.text(max_size=300), st.sampled_from([None, KEY]))
    def test_both_codecs_make_the_same_payload_and_copy_of_a_text(
        self, speedups: Any, text: str, key: bytes | None
    ) -> None:
        frames_made = []
        for module in (raw, speedups):
            payload = module.text_payload(text, key is not None)
            frame = module.encode_frame(0x81, payload, key)
            assert module.payload_size(payload) == len(module.payload_bytes(payload)) == len(text.encode())
            target = bytearray(400 * 4)
            module.put_frame(target, 3, 0x81, payload, key)
            assert module.copy_start(target, 3 + len(frame)) == bytes(3) + frame
            frames_made.append(frame)
        assert frames_made[0] == frames_made[1]

    @given(st.binary(max_size=60), st.integers(0, 20), st.booleans())
    def test_both_codecs_return_the_same_received_payload(
        self, speedups: Any, payload: bytes, start: int, masked: bool
    ) -> None:
        data = bytes(start) + KEY + payload
        key_at, key = (start, KEY) if masked else (-1, None)

        def taken(module: Any) -> list[Any]:
            values = [module.take_bytes(data, start + 4, len(payload), key_at)]
            values.append(module.take_part(data, start + 4, len(payload), key))
            values.append(module.read_length(data, start, start + 4))
            try:
                values.append(module.take_text(data, start + 4, len(payload), key_at))
            except BadFramePayload:
                values.append("not UTF-8")
            return values

        assert taken(raw) == taken(speedups)

    def test_the_codecs_read_no_byte_outside_the_chunk(self, speedups: Any) -> None:
        for start, size, key_at in ((0, 5, -1), (3, 2, -1), (-1, 1, -1), (0, -1, -1), (0, 1, 1), (5, 0, -1)):
            with pytest.raises(ValueError, match="not in the chunk"):
                speedups.take_bytes(b"four", start, size, key_at)
        with pytest.raises(RuntimeError, match="no room"):
            speedups.put_frame(bytearray(8), 4, 0x81, "abc", None)
        with pytest.raises(RuntimeError, match="no room"):
            speedups.put_frame(bytearray(8), 0, 0x81, "abc", KEY)

    @pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 125, 126, 65535, 65536, 100001])
    def test_both_codecs_mask_and_encode_every_size_alike(self, speedups: Any, size: int) -> None:
        payload = bytes(range(256)) * (size // 256 + 1)
        assert speedups.apply_mask(payload[:size], KEY) == frames.apply_mask(payload[:size], KEY)
        assert speedups.encode_frame(0x82, payload[:size], KEY) == frames.encode_frame(0x82, payload[:size], KEY)

    def test_a_key_of_another_size_is_refused(self, speedups: Any) -> None:
        for key in (b"", b"abc", b"abcde"):
            with pytest.raises(ValueError, match="four bytes"):
                speedups.encode_frame(0x82, b"x", key)


class TestChoice:
    """Which codec is in use: the environment variable ``TWISTED_BEASTWS_PURE`` decides (`docs/performance.md`)."""

    @pytest.mark.parametrize(("value", "pure"), [(None, False), ("", False), ("0", False), ("1", True)])
    def test_the_environment_chooses_the_codec(
        self, codecs: list[codec.Codec], value: str | None, pure: bool, tmp_path: Path
    ) -> None:
        environment = {name: text for name, text in os.environ.items() if name != codec.PURE_VARIABLE}
        if value is not None:
            environment[codec.PURE_VARIABLE] = value
        asked = "import twisted_beastws; print(twisted_beastws.ACCELERATED)"
        # In another directory: in the checkout, its package would come before the installed one.
        told = subprocess.run(
            [sys.executable, "-c", asked], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True, timeout=60
        )
        assert told.stdout.strip() == str(not pure)

    def test_the_package_shows_the_choice(self) -> None:
        assert twisted_beastws.ACCELERATED is codec.ACCELERATED


LINES = st.lists(
    st.one_of(
        st.sampled_from(
            [
                *(
                    b"Host: h",
                    b"host:h",
                    b"eTAG: 1",
                    b"X-a--B1: \t v w \t",
                    b"Upgrade: websocket",
                    b"Connection: Upgrade",
                ),
                *(
                    b"Content-Length: 0",
                    b"TRANSFER-ENCODING: chunked",
                    b"X:",
                    b": v",
                    b"no colon",
                    b"X : v",
                    b" folded",
                ),
                *(b"X: a\x7f", b"X: a\x01b", b"X: \xff\xe9", b"\xc3: a", b"X: a\rb", b"X: a\nY: b", b"", b" folded"),
            ]
        ),
        st.binary(max_size=12),
    ),
    max_size=6,
)
STARTS = st.one_of(
    st.sampled_from([b"GET / HTTP/1.1"] * 3 + [b'GET /a?b"c HTTP/1.1', b"GET /# HTTP/1.1", b"HEAD / HTTP/1.1"]),
    st.sampled_from([b"GET / HTTP/1.0", b"GET / HTTP/1.12", b"GET  / HTTP/1.1", b"\r\nGET / HTTP/1.1"]),
    st.binary(max_size=12).map(lambda junk: b"GET /" + junk + b" HTTP/1.1"),
)


def parsed(buffer: HeadBuffer) -> Any:
    try:
        head = buffer.take()
        return None if head is None else (parse_request(head), bytes(buffer.buffer))
    except HandshakeError as error:
        return error


class TestUsualRequest:
    """RFC 9112 §3 and §5: the compiled reader of usual heads reads what llhttp reads, or leaves the head to it."""

    @given(STARTS, LINES, st.binary(max_size=6), st.integers(0, 8), st.integers(-3, 40))
    @settings(max_examples=400)
    def test_a_head_that_it_reads_is_what_llhttp_reads(
        self, speedups: Any, start: bytes, lines: list[bytes], rest: bytes, max_lines: int, cut: int
    ) -> None:
        wire = b"\r\n".join([start, *lines, b"", rest])
        wire = wire[: len(wire) - max(cut, 0)] if cut % 2 else wire
        max_size = len(wire) + min(cut, 0)
        usual = speedups.usual_request(bytearray(wire), max_size, max_lines, SPELLINGS)
        if usual is None:
            return
        buffer = HeadBuffer(max_size, max_lines)
        buffer.feed(wire)
        target, fields, size = usual
        assert parsed(buffer) == (parse_request((target, fields)), wire[size:])

    @pytest.mark.parametrize("name", [b"Host", b"hOST", b"x-A--b1c", b"etag", b"TE", b"www-authenticate", b"1a-~b"])
    def test_a_usual_head_is_read(self, speedups: Any, name: bytes) -> None:
        wire = b"GET /chat?a HTTP/1.1\r\n%b: \t a b\xe9 \r\nX-Y:1\r\nx-y: 2\r\n\r\nrest" % name
        fields = {canonical_name(name): [b"a b\xe9"], b"X-Y": [b"1", b"2"]}
        size = len(wire) - len(b"rest")
        assert speedups.usual_request(bytearray(wire), 1000, 100, SPELLINGS) == ("/chat?a", fields, size)

    @pytest.mark.parametrize(
        ("size_more", "lines_more", "read"), [(0, 0, True), (1, 1, True), (-1, 0, False), (0, -1, False)]
    )
    def test_the_limits_of_a_head_hold(self, speedups: Any, size_more: int, lines_more: int, read: bool) -> None:
        wire = b"GET / HTTP/1.1\r\nHost: h\r\nX: y\r\n\r\n"
        usual = speedups.usual_request(bytearray(wire + b"more"), len(wire) + size_more, 3 + lines_more, SPELLINGS)
        assert (usual is not None) is read

    def test_each_incomplete_head_is_left(self, speedups: Any) -> None:
        wire = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
        for size in range(len(wire)):
            assert speedups.usual_request(bytearray(wire[:size]), 1000, 100, SPELLINGS) is None

    @given(st.dictionaries(st.binary(min_size=1, max_size=4), st.lists(st.binary(max_size=4), max_size=3), max_size=4))
    def test_both_codecs_join_fields_in_the_same_way(self, speedups: Any, fields: dict[bytes, list[bytes]]) -> None:
        assert speedups.joined_fields(fields) == raw.joined_fields(fields)
