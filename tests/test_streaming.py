"""Tests of streamed messages, both sent and received, and of long messages sent in fragments."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from twisted_beastws import (
    BufferFull,
    ConnectionClosed,
    Deflate,
    Limits,
    LocalError,
    Opcode,
    State,
    WebSocketProtocol,
)
from twisted_beastws.wire.sender import HELD_OVERHEAD

from .support.inside import inside
from .support.protocols import Echo

pytestmark = pytest.mark.usefixtures("logged")


def frames(wire: bytes) -> list[tuple[int, bytes]]:
    """Split the server's output into frames: the first byte and the payload of each."""
    found = []
    while wire:
        size, at = wire[1], 2
        if size > 125:
            at = 4 if size == 126 else 10
            size = int.from_bytes(wire[2:at], "big")
        found.append((wire[0], wire[at : at + size]))
        wire = wire[at + size :]
    return found


def offering(peer: Any, offer: bytes) -> Any:
    peer.sends(peer.HEAD[:-2] + b"Sec-WebSocket-Extensions: " + offer + b"\r\n\r\n")
    assert b"permessage-deflate" in peer.reads()
    return peer


class TestMessage:
    """RFC 6455 §5.4: a message that is sent in parts."""

    def test_each_part_is_a_frame(self, connect: Callable[..., Any]) -> None:
        peer = connect()
        with peer.protocol.message() as message:
            message.write("né")
            assert peer.reads() == b"\x01\x03n\xc3\xa9"
            message.write(b"b")
        assert frames(peer.reads()) == [(0x00, b"b"), (0x80, b"")]

    def test_a_binary_message_can_be_streamed(self, connect: Callable[..., Any]) -> None:
        peer = connect()
        with peer.protocol.message(Opcode.BINARY) as message:
            message.write(b"\xff")
        assert frames(peer.reads()) == [(0x02, b"\xff"), (0x80, b"")]

    @pytest.mark.parametrize("opcode", [0, 3, 5, 8, 9, 10, 16, "binary", None])
    def test_another_opcode_is_refused(self, connect: Callable[..., Any], opcode: int | str | None) -> None:
        peer = connect()
        with pytest.raises(ValueError, match=r"must be Opcode.TEXT or Opcode.BINARY"), peer.protocol.message(opcode):
            pass
        peer.protocol.send("a")
        assert peer.reads() == b"\x81\x01a"

    def test_a_stream_without_parts_is_an_empty_message(self, connect: Callable[..., Any]) -> None:
        peer = connect()
        with peer.protocol.message():
            pass
        assert frames(peer.reads()) == [(0x81, b"")]

    def test_messages_are_sent_after_a_stream_and_control_frames_within_it(self, connect: Callable[..., Any]) -> None:
        peer = connect()
        with peer.protocol.message() as message:
            message.write("a")
            peer.protocol.send("behind")
            peer.protocol.send(b"it")
            peer.protocol.ping(b"p")
            message.write("b")
        sent = [(0x01, b"a"), (0x89, b"p"), (0x00, b"b"), (0x80, b""), (0x81, b"behind"), (0x82, b"it")]
        assert frames(peer.reads()) == sent

    def test_held_messages_are_counted_for_max_buffered(self, connect: Callable[..., Any]) -> None:
        limits = Limits(max_message_size=400, max_buffered=400, high_water=50, low_water=10, slow_reader="pause")
        peer = connect(limits=limits)
        with peer.protocol.message() as message:
            peer.protocol.send(b"x" * (400 - HELD_OVERHEAD))
            peer.protocol.send(b"")
            with pytest.raises(BufferFull):
                peer.protocol.send(b"")
            message.write("a")
        held = [(0x82, b"x" * (400 - HELD_OVERHEAD)), (0x82, b"")]
        assert frames(peer.reads()) == [(0x01, b"a"), (0x80, b""), *held]
        assert inside(peer.protocol).outgoing.held == 0

    def test_only_one_stream_is_open_at_a_time(self, connect: Callable[..., Any]) -> None:
        peer = connect()
        with peer.protocol.message() as message:
            with pytest.raises(LocalError), peer.protocol.message():
                pass
            message.write("a")
        assert frames(peer.reads()) == [(0x01, b"a"), (0x80, b"")]

    def test_a_stream_that_an_exception_leaves_fails_the_connection(self, connect: Callable[..., Any]) -> None:
        peer = connect()
        with pytest.raises(ZeroDivisionError), peer.protocol.message() as message:
            message.write("a")
            1 / 0  # noqa: B018
        assert frames(peer.reads()) == [(0x01, b"a"), (0x88, b"\x03\xf3")]
        assert peer.protocol.close_reason.sent.code == 1011

    def test_a_close_ends_an_open_stream(self, connect: Callable[..., Any]) -> None:
        peer = connect()
        with pytest.raises(ConnectionClosed), peer.protocol.message() as message:
            message.write("a")
            peer.sends(peer.close())
            message.write("b")
        assert frames(peer.reads()) == [(0x01, b"a"), (0x88, b"\x03\xe8")]

    def test_a_stream_after_a_close_is_refused(self, connect: Callable[..., Any]) -> None:
        peer = connect()
        peer.protocol.close()
        with pytest.raises(ConnectionClosed), peer.protocol.message():
            pass

    @pytest.mark.parametrize("policy", ["pause", "drop"])
    def test_a_part_above_the_limit_is_refused_whole(self, connect: Callable[..., Any], policy: Any) -> None:
        peer = connect(
            limits=Limits(max_message_size=100, max_buffered=100, high_water=50, low_water=10, slow_reader=policy)
        )
        peer.transport.stall()
        with peer.protocol.message() as message:
            message.write("a" * 90)
            message.write("b" * 90)
            with pytest.raises(BufferFull):
                message.write("c" * 90)
            peer.transport.flow()
            message.write("d")
        assert frames(peer.reads()) == [(0x01, b"a" * 90), (0x00, b"b" * 90), (0x00, b"d"), (0x80, b"")]

    def test_a_part_above_the_limit_closes_with_1013(self, connect: Callable[..., Any]) -> None:
        peer = connect(limits=Limits(max_message_size=100, max_buffered=100, high_water=50, low_water=10))
        peer.transport.stall()
        with pytest.raises(ConnectionClosed), peer.protocol.message() as message:
            for _ in range(4):
                message.write("a" * 90)
        assert peer.protocol.close_reason.sent.code == 1013

    @pytest.mark.parametrize("parts", [["hello ", "hello ", "hello"], [], [""], ["", "x"]])
    @pytest.mark.parametrize("alone", [True, False])
    def test_a_compressed_stream_is_one_message(
        self, connect: Callable[..., Any], parts: list[Any] | list[str], alone: bool
    ) -> None:
        options = Deflate(server_no_context_takeover=alone)
        peer = offering(connect(opened=False, deflate=options), b"permessage-deflate")
        inflater = zlib.decompressobj(-15)
        for _ in range(2):
            with peer.protocol.message() as message:
                for part in parts:
                    message.write(part)
            found = frames(peer.reads())
            assert found[0][0] & 0x7F == 0x41 and found[-1][0] & 0x80
            if alone:
                inflater = zlib.decompressobj(-15)
            payload = b"".join(piece for _, piece in found)
            assert inflater.decompress(payload + b"\0\0\xff\xff") == "".join(parts).encode()

    def test_compress_false_sends_the_parts_uncompressed(self, connect: Callable[..., Any]) -> None:
        peer = offering(connect(opened=False, deflate=Deflate()), b"permessage-deflate")
        with peer.protocol.message(compress=False) as message:
            message.write("hello")
        assert frames(peer.reads()) == [(0x01, b"hello"), (0x80, b"")]


class TestSendStream:
    """`send_stream`: an iterable of parts."""

    def test_an_iterable_can_be_streamed(self, connect: Callable[..., Any]) -> None:
        peer = connect()
        done = Deferred.fromCoroutine(peer.protocol.send_stream(iter(["a", "b"])))
        assert done.called
        assert frames(peer.reads()) == [(0x01, b"a"), (0x00, b"b"), (0x80, b"")]

    def test_an_asynchronous_iterable_is_read_at_the_pace_of_the_reader(self, connect: Callable[..., Any]) -> None:
        asked: list[int] = []

        async def parts() -> AsyncIterator[bytes]:
            for number in range(4):
                asked.append(number)
                yield bytes([number]) * 60

        peer = connect(limits=Limits(high_water=50, low_water=10))
        peer.transport.stall()
        done = Deferred.fromCoroutine(peer.protocol.send_stream(parts(), Opcode.BINARY))
        assert asked == [0] and not done.called
        peer.transport.flow()
        assert asked == [0, 1, 2, 3] and done.called
        assert [first for first, _ in frames(peer.reads())] == [0x02, 0, 0, 0, 0x80]

    @pytest.mark.parametrize(
        ("parts", "opcode", "sent"),
        [
            ([], None, [(0x81, b"")]),
            ([""], None, [(0x81, b"")]),
            ([b""], None, [(0x82, b"")]),
            ([b"", b"a"], None, [(0x02, b"a"), (0x80, b"")]),
            ([b"\xff", b"a"], None, [(0x02, b"\xff"), (0x00, b"a"), (0x80, b"")]),
            ([bytearray(b"\xff")], None, [(0x02, b"\xff"), (0x80, b"")]),
            (["a", b"b"], None, [(0x01, b"a"), (0x00, b"b"), (0x80, b"")]),
            ([b"a"], Opcode.TEXT, [(0x01, b"a"), (0x80, b"")]),
            (["a"], Opcode.BINARY, [(0x02, b"a"), (0x80, b"")]),
        ],
    )
    def test_the_kind_is_that_of_the_first_part_by_default(
        self,
        connect: Callable[..., Any],
        parts: list[Any] | list[bytearray] | list[bytes] | list[str],
        opcode: Opcode | None,
        sent: list[tuple[int, bytes]],
    ) -> None:
        peer = connect()
        assert Deferred.fromCoroutine(peer.protocol.send_stream(parts, opcode)).called
        assert frames(peer.reads()) == sent


class TestFragmentSize:
    """RFC 6455 §5.4 and `Limits.fragment_size`: long messages are sent in fragments."""

    @pytest.mark.parametrize(
        ("size", "sizes"), [(0, [0]), (9, [9]), (10, [10]), (11, [10, 1]), (20, [10, 10]), (21, [10, 10, 1])]
    )
    @pytest.mark.parametrize("kind", [str, bytes])
    def test_a_frame_has_at_most_the_fragment_size(
        self, connect: Callable[..., Any], size: int, sizes: list[int], kind: type[Any]
    ) -> None:
        peer = connect(limits=Limits(fragment_size=10))
        peer.protocol.send("x" * size if kind is str else b"x" * size)
        found = frames(peer.reads())
        assert [len(payload) for _, payload in found] == sizes
        opcode = 1 if kind is str else 2
        assert [first & 0x7F for first, _ in found] == [opcode] + [0] * (len(sizes) - 1)
        assert [first >> 7 for first, _ in found] == [0] * (len(sizes) - 1) + [1]

    def test_a_message_is_one_frame_without_a_fragment_size(self, connect: Callable[..., Any]) -> None:
        peer = connect(limits=Limits(fragment_size=None))
        peer.protocol.send(b"x" * (1 << 19))
        assert [len(payload) for _, payload in frames(peer.reads())] == [1 << 19]

    def test_a_compressed_message_has_fragments(self, connect: Callable[..., Any]) -> None:
        limits = Limits(fragment_size=4)
        peer = offering(connect(opened=False, deflate=Deflate(), limits=limits), b"permessage-deflate")
        peer.protocol.send("hello")
        found = frames(peer.reads())
        assert [first for first, _ in found] == [0x41, 0x80]
        compressed = b"".join(piece for _, piece in found) + b"\0\0\xff\xff"
        assert zlib.decompressobj(-15).decompress(compressed) == b"hello"

    def test_a_pong_can_be_sent_between_fragments(self, connect: Callable[..., Any]) -> None:
        peer = connect(limits=Limits(fragment_size=1 << 17, max_buffered=1 << 20))
        peer.transport.stall()
        peer.protocol.send(b"x" * (1 << 19))
        peer.sends(peer.frame(0x89, b"now"))
        peer.transport.flow()
        found = [first for first, _ in frames(peer.reads())]
        assert found == [0x02, 0x8A, 0x00, 0x00, 0x80]

    def test_fragments_are_in_order_with_gathered_frames(self, connect: Callable[..., Any]) -> None:
        peer = connect(Echo, limits=Limits(fragment_size=10))
        peer.sends(peer.text("a") + peer.text("b" * 15) + peer.text("c"))
        assert frames(peer.reads()) == [(0x81, b"a"), (0x01, b"b" * 10), (0x80, b"b" * 5), (0x81, b"c")]

    def test_a_message_is_accepted_whole_or_refused(self, connect: Callable[..., Any]) -> None:
        limits = Limits(
            fragment_size=10, max_message_size=150, max_buffered=150, high_water=50, low_water=10, slow_reader="drop"
        )
        peer = connect(limits=limits)
        peer.transport.stall()
        for letter in (b"a", b"b", b"c"):
            peer.protocol.send(letter * 60)
        peer.transport.flow()
        assert b"".join(payload for _, payload in frames(peer.reads())) == b"a" * 60 + b"b" * 60
        assert peer.protocol.dropped_messages == 1


class TestStreamedIn:
    """`fragment_received`: a message that is received in pieces."""

    def test_pieces_are_not_gathered(self, connect: Callable[..., Any]) -> None:
        class Streaming(WebSocketProtocol):
            pieces: list[Any]

            def fragment_received(self, data: bytes, opcode: Opcode, final: bool) -> None:
                self.pieces.append((data, opcode, final))

        peer = connect(Streaming)
        peer.protocol.pieces = []
        wire = peer.frame(0x02, b"ab") + peer.frame(0x80, b"cd")
        for at in range(len(wire)):
            peer.sends(wire[at : at + 1])
        assert b"".join(data for data, _, _ in peer.protocol.pieces) == b"abcd"
        assert [final for _, _, final in peer.protocol.pieces] == [False, False, False, True]

    def test_a_slow_hook_holds_back_the_later_pieces(self, connect: Callable[..., Any]) -> None:
        class Streaming(WebSocketProtocol):
            pieces: list[bytes]
            waits: Deferred[None]

            def fragment_received(self, data: bytes, opcode: Opcode, final: bool) -> Deferred[None]:
                self.pieces.append(data)
                self.waits = Deferred()
                return self.waits

        peer = connect(Streaming)
        peer.protocol.pieces = []
        peer.sends(peer.frame(0x02, b"a") + peer.frame(0x80, b"b"))
        assert peer.protocol.pieces == [b"a"] and peer.transport.producerState == "paused"
        peer.protocol.waits.callback(None)
        assert peer.protocol.pieces == [b"a", b"b"]
        peer.protocol.waits.callback(None)
        assert peer.transport.producerState == "producing" and peer.protocol.state is State.OPEN
