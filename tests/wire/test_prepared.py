"""Tests of `twisted_beastws.wire.prepared`, and of sessions that send such messages."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from twisted_beastws import Deflate, Limits, WebSocketProtocol, prepare
from twisted_beastws.errors import ConnectionClosed
from twisted_beastws.testing import connected_pair
from twisted_beastws.wire.frames import RSV1

from .peer import Frame, Recorder

TEXT, BINARY = 1, 2


def inflated(payload: bytes) -> bytes:
    return zlib.decompressobj(-15).decompress(payload + b"\0\0\xff\xff")


class TestPrepare:
    """`prepare`: a message that is framed and compressed once for many receivers (`docs/performance.md`)."""

    @pytest.mark.parametrize(
        ("message", "frame"),
        [("h\u00e9", b"\x81\x03h\xc3\xa9"), (b"\xff", b"\x82\x01\xff"), ("", b"\x81\x00"), (b"", b"\x82\x00")],
    )
    def test_prepare_makes_the_whole_frame(self, message: bytes | str, frame: bytes) -> None:
        assert prepare(message).plain.frame == frame

    @pytest.mark.parametrize("message", [3, None, ["x"], {}, prepare("x"), (part for part in "x")])
    def test_a_message_of_another_type_is_refused(self, message: Any) -> None:
        with pytest.raises(TypeError) as refused:
            prepare(message)
        assert str(refused.value) == f"prepare() takes str or bytes, not {type(message).__name__}"

    def test_a_coroutine_or_a_deferred_of_a_message_is_refused(self) -> None:
        async def message() -> str:
            return "x"

        coroutine = message()
        values: tuple[tuple[Any, str], ...] = (
            (coroutine, "coroutine: await it?"),
            (Deferred(), "Deferred: await or yield it?"),
        )
        for value, told in values:
            with pytest.raises(TypeError) as refused:
                prepare(value)
            assert str(refused.value) == f"prepare() takes str or bytes, not {told}"
        coroutine.close()

    @pytest.mark.parametrize("view", [lambda octets: octets, memoryview], ids=["bytearray", "memoryview"])
    def test_a_later_change_of_the_buffer_does_not_change_the_message(
        self, view: Callable[..., Any] | type[Any]
    ) -> None:
        message = bytearray(b"abc")
        prepared = prepare(view(message))
        message[0] = 0
        assert prepared.plain.frame == b"\x82\x03abc"
        assert inflated(prepared.compressed((15, 8, 4)).payload) == b"abc"

    def test_lone_surrogates_are_refused(self) -> None:
        with pytest.raises(UnicodeEncodeError):
            prepare("\ud800")

    @pytest.mark.parametrize("message", [b"", b"x", b"hello " * 1000])
    def test_a_message_is_compressed_once_for_each_set_of_parameters(self, message: bytes) -> None:
        prepared = prepare(message)
        first, payload, frame = prepared.compressed((15, 8, 4))
        assert first == 0x80 | RSV1 | BINARY
        assert frame[0] == first and frame.endswith(payload)
        assert inflated(payload) == message
        assert prepared.compressed((15, 8, 4)).frame is frame
        assert prepared.compressed((9, 1, 1)).frame is not frame


class TestSession:
    """RFC 6455 §6.1: a session sends a prepared message like any other."""

    @pytest.mark.parametrize("message", ["hello", b"hello", "", b"x" * 70_000])
    @pytest.mark.parametrize("fragment_size", [None, 7])
    def test_a_prepared_message_is_sent_like_any_other(
        self, server: bool, message: bytes | str, fragment_size: int | None
    ) -> None:
        sent = []
        for prepared in (True, False):
            recorder = Recorder(server, Limits(fragment_size=fragment_size))
            if prepared:
                recorder.session.sender.send_prepared(prepare(message))
            elif isinstance(message, str):
                recorder.session.sender.send_text(message)
            else:
                recorder.session.sender.send_binary(message)
            sent.append(recorder.sent)
        assert sent[0] == sent[1]

    def test_a_server_writes_the_prepared_frame_itself(self) -> None:
        prepared = prepare("hello")
        recorders = [Recorder(True) for _ in range(2)]
        for recorder in recorders:
            recorder.session.sender.send_prepared(prepared)
        assert [recorder.writes[0][1] is prepared.plain.frame for recorder in recorders] == [True, True]

    def test_a_client_masks_each_copy_by_another_key(self) -> None:
        recorder = Recorder(False)
        for _ in range(2):
            recorder.session.sender.send_prepared(prepare("hello"))
        assert recorder.writes[0] != recorder.writes[1]

    def test_a_prepared_message_is_gathered_with_the_others_of_a_chunk(self, server: bool) -> None:
        prepared = prepare("x")
        recorder = Recorder(server, react=lambda recorder, event: recorder.session.sender.send_prepared(prepared))
        recorder.receive(*[Frame(TEXT, b"a")] * 3)
        assert recorder.sent == [Frame(TEXT, b"x")] * 3 and len(recorder.writes) == 1

    def test_a_prepared_message_waits_for_a_streamed_one_and_is_sent_after_it(self, server: bool) -> None:
        recorder = Recorder(server)
        recorder.session.sender.begin_message(TEXT)
        recorder.session.sender.send_prepared(prepare(b"later"))
        recorder.session.sender.end_message(b"first")
        assert recorder.sent == [Frame(TEXT, b"first"), Frame(BINARY, b"later")]

    def test_a_prepared_message_is_refused_after_a_close(self, server: bool) -> None:
        recorder = Recorder(server)
        recorder.session.close()
        with pytest.raises(ConnectionClosed):
            recorder.session.sender.send_prepared(prepare("x"))


class TestCompressed:
    """RFC 7692 §6.1 and §7.2.1: a prepared message refers to no other message of its connection."""

    @pytest.mark.parametrize("alone", [False, True])
    @pytest.mark.parametrize("fragment_size", [None, 20])
    def test_a_prepared_message_is_read_between_messages_with_a_context(
        self, alone: bool, fragment_size: int | None
    ) -> None:
        options = Deflate(server_no_context_takeover=alone, client_no_context_takeover=alone, threshold=10)
        limits = Limits(fragment_size=fragment_size)
        settings = {"deflate": options, "limits": limits}
        pair = connected_pair(WebSocketProtocol, client_options=settings, deflate=options, limits=limits)
        assert pair.client.deflate
        messages: list[str | bytes] = ["a text of some length, " * count for count in (1, 2, 3)]
        messages += ["short", "", b"octets " * 20]
        for sender, receiver in ((pair.server, pair.client), (pair.client, pair.server)):
            for message in messages * 2:
                for sent in (message, prepare(message), message, prepare(message, compress=True)):
                    sender.send(sent)
                    pair.flush()
                    assert receiver.receive().result == message

    def test_a_prepared_message_is_sent_after_a_compressed_stream(self) -> None:
        options = Deflate()
        pair = connected_pair(WebSocketProtocol, client_options={"deflate": options}, deflate=options)
        for sender, receiver in ((pair.server, pair.client), (pair.client, pair.server)):
            sender.send("a text of some length")
            with sender.message() as message:
                message.write("a text ")
                sender.send(prepare("a text of some length"))
                message.write("of some length")
            pair.flush()
            assert [receiver.receive().result for _ in range(3)] == ["a text of some length"] * 3

    def test_the_threshold_decides_unless_the_caller_does(self) -> None:
        options = Deflate(threshold=100)
        pair = connected_pair(WebSocketProtocol, client_options={"deflate": options}, deflate=options)
        sent = []
        for size, compress in ((99, None), (100, None), (50, True), (200, False)):
            pair.server.send(prepare(b"x" * size, compress=compress))
            sent.append(pair.server_transport.buffered < size)
            pair.flush()
        assert sent == [False, True, True, False]
