"""Tests of `twisted_beastws.wire.session`: messages, control frames, and how a connection ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest

from twisted_beastws import errors
from twisted_beastws.errors import (
    ConnectionClosed,
    LocalError,
)
from twisted_beastws.options import Limits
from twisted_beastws.wire.closing import Close, CloseReason
from twisted_beastws.wire.frames import LongFrame, Opcode
from twisted_beastws.wire.sender import HELD_OVERHEAD

from .peer import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Event, Frame, Recorder, header, octets, to

ENDED = ("ended",)
NORMAL = b"\x03\xe8"


def closed(code: int, reason: bytes = b"") -> Frame:
    return Frame(CLOSE, code.to_bytes(2, "big") + reason)


# Beast's cases: frames received, events, frames sent.
MESSAGES: dict[str, tuple[list[tuple[Any, ...]], list[Event], list[Frame]]] = {
    "text 'hi'": ([(TEXT, b"hi")], [("text", "hi")], []),
    "binary": ([(BINARY, b"\xff\0")], [("binary", b"\xff\0")], []),
    "empty text": ([(TEXT, b"")], [("text", "")], []),
    "empty binary": ([(BINARY, b"")], [("binary", b"")], []),
    "text in two frames": ([(TEXT, b"h", False), (CONTINUATION, b"i")], [("text", "hi")], []),
    "binary in three frames": (
        [(BINARY, b"\xff", False), (CONTINUATION, b"\xfe", False), (CONTINUATION, b"\xfd")],
        [("binary", b"\xff\xfe\xfd")],
        [],
    ),
    "empty frames inside a message": (
        [(TEXT, b"", False), (CONTINUATION, b"hi", False), (CONTINUATION, b"", False), (CONTINUATION, b"")],
        [("text", "hi")],
        [],
    ),
    "message of empty frames": ([(BINARY, b"", False), (CONTINUATION, b"")], [("binary", b"")], []),
    "ping": ([(PING, b"")], [("ping", b"")], [Frame(PONG, b"")]),
    "ping between fragments": (
        [(TEXT, b"h", False), (PING, b"p"), (CONTINUATION, b"i")],
        [("ping", b"p"), ("text", "hi")],
        [Frame(PONG, b"p")],
    ),
    "ping and pong inside a character": (
        [(TEXT, b"\xe2", False), (PING, b"\x82"), (PONG, b"\xff"), (CONTINUATION, b"\x82\xac")],
        [("ping", b"\x82"), ("pong", b"\xff"), ("text", "\u20ac")],
        [Frame(PONG, b"\x82")],
    ),
    "ping of 125 octets": ([(PING, b"p" * 125)], [("ping", b"p" * 125)], [Frame(PONG, b"p" * 125)]),
    "each ping is answered": (
        [(PING, b"1"), (PING, b"2"), (PING, b"3")],
        [("ping", b"1"), ("ping", b"2"), ("ping", b"3")],
        [Frame(PONG, b"1"), Frame(PONG, b"2"), Frame(PONG, b"3")],
    ),
    "unsolicited pong": ([(PONG, b"pong")], [("pong", b"pong")], []),
    "UTF-8 split across frames": (
        [(TEXT, b"\xe2", False), (CONTINUATION, b"\x82", False), (CONTINUATION, b"\xac")],
        [("text", "\u20ac")],
        [],
    ),
    "text with NUL": ([(TEXT, b"a\0b")], [("text", "a\0b")], []),
    "text with U+FEFF and U+FFFF": ([(TEXT, b"\xef\xbb\xbf\xef\xbf\xbf")], [("text", "\ufeff\uffff")], []),
    "text with U+FEFF in frames": (
        [(TEXT, b"\xef\xbb\xbf", False), (CONTINUATION, b"\xef\xbb\xbf")],
        [("text", "\ufeff\ufeff")],
        [],
    ),
    "line ends in frames": ([(TEXT, b"\r", False), (CONTINUATION, b"\n\r\n")], [("text", "\r\n\r\n")], []),
    "messages of both kinds": (
        [
            (TEXT, b"1"),
            (BINARY, b"2", False),
            (CONTINUATION, b"3"),
            (BINARY, b"4"),
            (TEXT, b"5", False),
            (CONTINUATION,),
        ],
        [("text", "1"), ("binary", b"23"), ("binary", b"4"), ("text", "5")],
        [],
    ),
    "close, then text": ([(CLOSE, NORMAL), (TEXT, b"hi")], [ENDED], [closed(1000)]),
    "text, then close": ([(TEXT, b"hi"), (CLOSE, NORMAL)], [("text", "hi"), ENDED], [closed(1000)]),
    "close inside a message": ([(TEXT, b"h", False), (CLOSE, NORMAL), (CONTINUATION, b"i")], [ENDED], [closed(1000)]),
    "ping, close, ping": (
        [(PING, b"1"), (CLOSE, NORMAL), (PING, b"2")],
        [("ping", b"1"), ENDED],
        [Frame(PONG, b"1"), closed(1000)],
    ),
}


class TestMessages:
    """RFC 6455 §6.2: a session delivers messages, and answers control frames."""

    @pytest.mark.parametrize("name", MESSAGES)
    @pytest.mark.parametrize("split", [lambda wire: [wire], octets], ids=["whole", "bytewise"])
    def test_a_message_is_delivered(self, server: bool, name: str, split: Callable[..., Any]) -> None:
        received, events, sent = MESSAGES[name]
        recorder = Recorder(server).feed(*split(to(server, *received)))
        assert recorder.events == events
        assert recorder.sent == sent
        assert recorder.error is None

    def test_the_answers_to_a_ping_and_a_close_have_these_bytes(self) -> None:
        """RFC 6455 §5.5.1 and §5.5.2."""
        recorder = Recorder().receive((PING, b"p"), (CLOSE, b"\x03\xe9bye"))
        assert recorder.wire == bytes.fromhex("8a 01 70 88 02 03 e9")

    @pytest.mark.parametrize("rest", [b"", b"\x80"])
    def test_a_stream_that_ends_without_a_close_has_the_code_1006(self, server: bool, rest: bytes) -> None:
        recorder = Recorder(server).receive((TEXT, b"hi"), (TEXT, b"h", False)).feed(rest)
        recorder.session.lost()
        assert recorder.events == [("text", "hi"), ENDED]
        assert recorder.writes == []
        assert recorder.session.closing.reason() == CloseReason(1006, "", False, "transport")

    def test_a_stream_that_ends_inside_a_frame_has_the_code_1006(self, server: bool) -> None:
        recorder = Recorder(server).feed(to(server, (TEXT, b"hi"))[:-1])
        recorder.session.lost()
        assert recorder.events == [ENDED]
        assert recorder.writes == []

    @pytest.mark.parametrize(
        ("kind", "payload"),
        [("text", b"hi"), ("text", b""), ("binary", b"hi"), ("text", b"\xff")],
    )
    def test_a_message_of_a_kind_without_a_hook_is_refused_with_1003(
        self, server: bool, kind: str, payload: bytes
    ) -> None:
        """1003, whatever else is wrong with the message and however it comes."""
        first = to(server, (TEXT if kind == "text" else BINARY, payload))
        for chunks in ([first], octets(first)):
            recorder = Recorder(server, text=kind != "text", binary=kind != "binary").receive(
                (BINARY if kind == "text" else TEXT, b"good")
            )
            recorder.feed(*chunks).receive((TEXT, b"more"))
            assert [event[0] for event in recorder.events] == ["binary" if kind == "text" else "text", "ended"]
            assert (recorder.error, recorder.sent) == (errors.UnacceptableData, [closed(1003)])

    @pytest.mark.parametrize("kind", ["text", "binary"])
    @pytest.mark.parametrize("fin", [True, False])
    def test_a_kind_without_a_hook_is_refused_by_its_header(self, server: bool, kind: str, fin: bool) -> None:
        wire = to(server, (TEXT if kind == "text" else BINARY, b"x" * 1000, fin))
        start = wire[: len(wire) - 1000]
        recorder = Recorder(server, text=kind != "text", binary=kind != "binary").feed(start[:-1])
        assert not recorder.session.ended
        recorder.feed(start[-1:])
        assert (recorder.error, recorder.sent) == (errors.UnacceptableData, [closed(1003)])

    def test_a_hook_may_be_set_and_removed_between_messages(self, server: bool) -> None:
        recorder = Recorder(server, text=False)
        recorder.session.reader.on_text = lambda text: recorder.note("first", text)
        recorder.receive((TEXT, b"1"))
        recorder.session.reader.on_text = None
        assert recorder.receive((TEXT, b"2")).error is errors.UnacceptableData
        assert recorder.events == [("first", "1"), ENDED]

    def test_a_hook_may_be_removed_while_its_message_arrives(self, server: bool) -> None:
        recorder = Recorder(server).receive((TEXT, b"1", False))
        recorder.session.reader.on_text = None
        assert recorder.receive((CONTINUATION, b"2")).error is errors.UnacceptableData
        assert recorder.events == [ENDED]

    def test_the_session_knows_when_an_unfinished_message_began(self, server: bool) -> None:
        recorder = Recorder(server)
        assert recorder.session.reader.message_began_at is None
        recorder.time = 1.0
        recorder.receive((TEXT, b"whole"))
        assert recorder.session.reader.message_began_at is None
        recorder.time = 2.0
        recorder.receive((TEXT, b"a", False), (PING, b""))
        recorder.time = 3.0
        recorder.receive((CONTINUATION, b"b", False), (PING, b""))
        assert recorder.session.reader.message_began_at == 2.0
        recorder.receive((CONTINUATION, b"c"))
        assert recorder.session.reader.message_began_at is None
        wire = to(server, (BINARY, b"a single frame"))
        recorder.feed(wire[:-1])
        assert recorder.session.reader.message_began_at == 3.0
        recorder.feed(wire[-1:])
        assert recorder.session.reader.message_began_at is None
        assert [event for event in recorder.events if event[0] != "ping"] == [
            ("text", "whole"),
            ("text", "abc"),
            ("binary", b"a single frame"),
        ]


class TestHooks:
    """The handler runs the application's hooks; what a hook returns or raises goes to the handler."""

    def test_the_handler_gets_a_hooks_result_and_is_called_once(self, server: bool) -> None:
        recorder = Recorder(server, react=lambda recorder, event: {"2": 0, b"3": False, "45": "x"}.get(event[1]))
        recorder.receive((TEXT, b"1"), (TEXT, b"2"), (BINARY, b"3"), (TEXT, b"4", False), (CONTINUATION, b"5"))
        assert [event for event in recorder.events if event[0] == "returned"] == [
            ("returned", 0),
            ("returned", False),
            ("returned", "x"),
        ]

    @pytest.mark.parametrize("error", [KeyError("k"), errors.BadOpcode()], ids=["own", "ProtocolError"])
    @pytest.mark.parametrize(
        "message",
        [[(TEXT, b"1")], [(BINARY, b"1")], [(TEXT, b"1", False), (CONTINUATION,)]],
        ids=["text", "binary", "fragments"],
    )
    def test_the_handler_gets_a_hooks_exception_and_may_go_on(
        self, server: bool, error: Any, message: list[Any] | list[tuple[int, bytes]]
    ) -> None:
        """Even a `ProtocolError` that the application raises is its own."""

        def react(recorder: Recorder, event: Event) -> None:
            if event[1] in ("1", b"1"):
                raise error

        recorder = Recorder(server, react=react, fails=False).receive((TEXT, b"0"), *message, (TEXT, b"2"))
        assert [event for event in recorder.events if event[0] == "raised"] == [("raised", error)]
        assert recorder.events[-1] == ("text", "2")
        assert recorder.writes == []

    def test_the_handler_of_an_exception_can_fail_the_session(self, server: bool) -> None:
        error = KeyError("k")

        def react(recorder: Recorder, event: Event) -> None:
            raise error

        recorder = Recorder(server, react=react).receive((TEXT, b"1"), (TEXT, b"2"), (PING, b""), (CLOSE, NORMAL))
        assert recorder.events == [("text", "1"), ("raised", error), ENDED]
        assert recorder.sent == [closed(1011)]
        assert recorder.session.closing.reason() == CloseReason(1006, "", False, "local", Close(1011), None, error)

    def test_an_error_in_the_handler_of_results_is_a_hooks_error(self, server: bool) -> None:
        class Choking(Recorder):
            def hook_returned(self, result: int) -> None:
                raise ValueError(result)

        recorder = Choking(server, react=lambda recorder, event: 1).receive((TEXT, b"1"))
        assert [event[0] for event in recorder.events] == ["text", "raised", "ended"]

    def test_the_messages_of_hooks_are_sent_in_order(self, server: bool) -> None:
        def react(recorder: Recorder, event: Event) -> None:
            recorder.session.sender.send_text(f"got {event[1]}")
            recorder.session.ping(b"and")
            recorder.session.sender.send_binary(b"more")

        recorder = Recorder(server, react=react).receive((TEXT, b"1"), (TEXT, b"2"))
        assert [frame.payload for frame in recorder.sent] == [b"got 1", b"and", b"more", b"got 2", b"and", b"more"]

    @pytest.mark.parametrize("kind", [TEXT, BINARY, PING, PONG])
    def test_a_hook_can_close(self, server: bool, kind: int) -> None:
        """The session discards later messages of the chunk, does not answer pings, and finds the peer's close frame."""

        def react(recorder: Recorder, event: Event) -> None:
            recorder.session.close(1001, "enough")

        recorder = Recorder(server, react=react)
        behind = [(TEXT, b"2"), (TEXT, b"3", False), (PING, b"4"), (CONTINUATION, b"5"), (BINARY, b"6")]
        recorder.receive((kind, b"1"), *behind)
        names = {TEXT: "text", BINARY: "binary", PING: "ping", PONG: "pong"}
        assert recorder.events == [(names[kind], "1" if kind == TEXT else b"1"), ("ping", b"4")]
        assert recorder.sent == [Frame(PONG, b"1")] * (kind == PING) + [closed(1001, b"enough")]
        recorder.receive((CLOSE, b"\x03\xe9bye"), (PING, b"7"))
        assert recorder.events[2:] == [ENDED]
        reason = CloseReason(1001, "bye", True, "local", Close(1001, "enough"), Close(1001, "bye"))
        assert recorder.session.closing.reason() == reason

    def test_the_answer_to_a_hooks_close_may_be_in_the_same_chunk(self, server: bool) -> None:
        recorder = Recorder(server, react=lambda recorder, event: recorder.session.close())
        recorder.receive((TEXT, b"1"), (TEXT, b"2"), (CLOSE, b"\x0f\xa0"), (TEXT, b"3"))
        assert recorder.events == [("text", "1"), ENDED]
        assert recorder.sent == [closed(1000)]
        assert recorder.session.closing.reason() == CloseReason(4000, "", True, "local", Close(1000), Close(4000))

    def test_a_hook_can_fail_the_session(self, server: bool) -> None:
        error = TimeoutError()
        recorder = Recorder(server, react=lambda recorder, event: recorder.session.fail(error, 1008, "no"))
        recorder.receive((PING, b"1"), (TEXT, b"2"), (CLOSE, NORMAL))
        assert recorder.events == [("ping", b"1"), ENDED]
        assert recorder.sent == [Frame(PONG, b"1"), closed(1008, b"no")]

    def test_the_transport_may_be_lost_in_a_hook(self, server: bool) -> None:
        recorder = Recorder(server, react=lambda recorder, event: recorder.session.lost())
        recorder.receive((TEXT, b"1"), (TEXT, b"2"), (PING, b""))
        assert recorder.events == [("text", "1"), ENDED]
        assert recorder.writes == []


class TestPause:
    """A paused session delivers nothing, and keeps the bytes that arrive (`docs/topics/backpressure.md`)."""

    @staticmethod
    def pausing(*texts: str | bytes) -> Any:
        def react(recorder: Recorder, event: Event) -> None:
            if event[1] in texts:
                recorder.session.pause()

        return react

    def test_the_rest_of_a_chunk_waits(self, server: bool) -> None:
        recorder = Recorder(server, react=self.pausing("2", "3"))
        recorder.receive((TEXT, b"1"), (TEXT, b"2"), (TEXT, b"3"), (PING, b"4"), (TEXT, b"5"))
        assert recorder.events == [("text", "1"), ("text", "2")]
        assert recorder.session.paused
        recorder.session.resume()
        assert recorder.events[2:] == [("text", "3")]
        assert recorder.session.paused
        recorder.session.resume()
        assert recorder.events[3:] == [("ping", b"4"), ("text", "5")]
        assert not recorder.session.paused
        assert recorder.sent == [Frame(PONG, b"4")]

    @pytest.mark.parametrize("split", [lambda wire: [wire], octets], ids=["whole", "bytewise"])
    def test_bytes_fed_during_a_pause_are_kept(self, server: bool, split: Callable[..., Any]) -> None:
        recorder = Recorder(server)
        recorder.session.pause()
        wire = to(server, (TEXT, b"1"), (BINARY, b"2", False), (PING, b"3"), (CONTINUATION, b"4"), (TEXT, b"5" * 200))
        recorder.feed(*split(wire))
        assert recorder.events == recorder.writes == []
        recorder.session.resume()
        assert recorder.events == [("text", "1"), ("ping", b"3"), ("binary", b"24"), ("text", "5" * 200)]

    @pytest.mark.parametrize("place", range(1, 30))
    def test_a_pause_is_possible_at_any_byte(self, server: bool, place: int) -> None:
        wire = to(server, (TEXT, b"one", False), (PING, b"p"), (CONTINUATION, b"two"), (BINARY, b"three"))
        recorder = Recorder(server).feed(wire[:place])
        recorder.session.pause()
        before = list(recorder.events)
        recorder.feed(wire[place : place + 3], wire[place + 3 :])
        assert recorder.events == before
        recorder.session.resume()
        assert recorder.events == [("ping", b"p"), ("text", "onetwo"), ("binary", b"three")]

    def test_a_pause_is_possible_between_pieces(self, server: bool) -> None:
        recorder = Recorder(server, streaming=True, react=self.pausing(b"1", b""))
        recorder.receive((BINARY, b"1", False), (CONTINUATION, b""), (BINARY, b"2"))
        recorder.feed(to(server, (BINARY, b"345"))[:-2])
        assert recorder.events == [("piece", b"1", 2, False)]
        recorder.session.resume()
        assert recorder.events[1:] == [("piece", b"", 2, True)]
        recorder.session.resume()
        assert recorder.events[2:] == [("piece", b"2", 2, True), ("piece", b"3", 2, False)]

    def test_a_pause_may_end_in_the_same_hook(self, server: bool) -> None:
        def react(recorder: Recorder, event: Event) -> None:
            recorder.session.pause()
            recorder.session.resume()

        recorder = Recorder(server, react=react).receive((TEXT, b"1"), (TEXT, b"2"), (TEXT, b"3", False), (PING, b""))
        assert recorder.events == [("text", "1"), ("text", "2"), ("ping", b"")]

    def test_resuming_without_a_pause_does_nothing(self, server: bool) -> None:
        recorder = Recorder(server).feed(to(server, (TEXT, b"hi"))[:-1])
        recorder.session.resume()
        recorder.session.resume()
        assert recorder.events == []
        assert recorder.feed(to(server, (TEXT, b"hi"))[-1:]).events == [("text", "hi")]

    def test_a_paused_session_can_send(self, server: bool) -> None:
        recorder = Recorder(server)
        recorder.session.pause()
        recorder.session.sender.send_text("hi")
        recorder.session.ping()
        assert recorder.sent == [Frame(TEXT, b"hi"), Frame(PING)]

    def test_a_close_finds_the_answer_in_waiting_bytes(self, server: bool) -> None:
        recorder = Recorder(server, react=self.pausing("1"))
        recorder.receive((TEXT, b"1"), (TEXT, b"2"), (TEXT, b"3", False), (PING, b""), (CLOSE, NORMAL), (TEXT, b"4"))
        recorder.session.close(4000)
        assert recorder.events == [("text", "1"), ("ping", b""), ENDED]
        assert recorder.sent == [closed(4000)]
        assert recorder.session.closing.reason() == CloseReason(1000, "", True, "local", Close(4000), Close(1000))

    def test_a_close_ends_a_pause(self, server: bool) -> None:
        recorder = Recorder(server)
        recorder.session.pause()
        recorder.session.close()
        assert not recorder.session.paused
        recorder.session.pause()
        assert not recorder.session.paused
        assert recorder.receive((TEXT, b"1"), (CLOSE, NORMAL)).events == [ENDED]

    def test_a_failure_discards_waiting_bytes(self, server: bool) -> None:
        """The error is the one that failed the session, not a fault in the bytes that waited."""
        error = TimeoutError("silence")
        recorder = Recorder(server)
        recorder.session.pause()
        recorder.receive((TEXT, b"1"), (3, b""), (TEXT, b"2"))
        recorder.session.fail(error)
        assert recorder.events == [ENDED]
        assert recorder.sent == [closed(1011)]
        assert recorder.session.closing.error is error

    def test_the_loss_of_the_transport_discards_waiting_bytes(self, server: bool) -> None:
        recorder = Recorder(server)
        recorder.session.pause()
        recorder.receive((TEXT, b"1"))
        recorder.session.lost()
        recorder.session.resume()
        assert recorder.events == [ENDED]


class TestStreaming:
    """RFC 6455 §5.4 and §6.2: a message that is delivered in pieces."""

    def test_each_piece_is_delivered_when_it_comes(self, server: bool) -> None:
        recorder = Recorder(server, streaming=True)
        wire = to(server, (TEXT, b"hello"))
        recorder.feed(wire[:-3], wire[-3:-1], wire[-1:])
        assert recorder.events == [("piece", b"he", 1, False), ("piece", b"ll", 1, False), ("piece", b"o", 1, True)]
        assert all(type(event[2]) is Opcode for event in recorder.events)

    def test_pieces_are_not_joined_over_frames(self, server: bool) -> None:
        recorder = Recorder(server, streaming=True)
        recorder.receive((BINARY, b"1", False), (PING, b"p"), (CONTINUATION, b"2", False), (CONTINUATION, b"3"))
        recorder.receive((TEXT, b"4"))
        assert recorder.events == [
            ("piece", b"1", 2, False),
            ("ping", b"p"),
            ("piece", b"2", 2, False),
            ("piece", b"3", 2, True),
            ("piece", b"4", 1, True),
        ]

    def test_an_empty_frame_is_a_piece_only_at_the_end(self, server: bool) -> None:
        """An empty frame within a message gives no piece."""
        recorder = Recorder(server, streaming=True)
        recorder.receive((TEXT, b""), (BINARY, b"", False), (CONTINUATION, b"", False), (CONTINUATION, b""))
        assert recorder.events == [("piece", b"", 1, True), ("piece", b"", 2, True)]

    def test_pieces_may_end_inside_a_character(self, server: bool) -> None:
        recorder = Recorder(server, streaming=True).receive((TEXT, b"\xe2\x82", False), (CONTINUATION, b"\xac"))
        assert recorder.events == [("piece", b"\xe2\x82", 1, False), ("piece", b"\xac", 1, True)]

    def test_pieces_of_text_are_checked_for_utf_8(self, server: bool) -> None:
        recorder = Recorder(server, streaming=True).receive((TEXT, b"\xe2\x82", False), (CONTINUATION, b"(", False))
        assert recorder.events == [("piece", b"\xe2\x82", 1, False), ENDED]
        assert recorder.sent == [closed(1007)]
        assert Recorder(server, streaming=True).receive((TEXT, b"\xe2\x82")).error is errors.BadFramePayload
        assert Recorder(server, streaming=True).receive((BINARY, b"\xe2\x82")).error is None

    def test_a_stream_does_not_need_the_other_hooks(self, server: bool) -> None:
        recorder = Recorder(server, streaming=True, text=False, binary=False).receive((TEXT, b"1"), (BINARY, b"2"))
        assert recorder.events == [("piece", b"1", 1, True), ("piece", b"2", 2, True)]

    def test_a_hook_may_close_in_the_middle_of_a_message(self, server: bool) -> None:
        recorder = Recorder(server, streaming=True, react=lambda recorder, event: recorder.session.close())
        recorder.receive((TEXT, b"1", False), (CONTINUATION, b"\xff"), (TEXT, b"2"), (CLOSE, NORMAL))
        assert recorder.events == [("piece", b"1", 1, False), ENDED]
        assert recorder.session.closing.reason().clean

    def test_a_hook_that_raises_in_the_middle_ends_the_session(self, server: bool) -> None:
        def react(recorder: Recorder, event: Event) -> None:
            raise KeyError(event[1])

        recorder = Recorder(server, streaming=True, react=react).receive((TEXT, b"1", False), (CONTINUATION, b"2"))
        assert [event[0] for event in recorder.events] == ["piece", "raised", "ended"]
        assert recorder.sent == [closed(1011)]

    def test_the_handler_gets_the_result_of_a_piece_and_is_called_once(self, server: bool) -> None:
        recorder = Recorder(server, streaming=True, react=lambda recorder, event: event[1] or None)
        recorder.receive((BINARY, b"1", False), (CONTINUATION, b""))
        assert recorder.events == [("piece", b"1", 2, False), ("returned", b"1"), ("piece", b"", 2, True)]


def split_in(count: int, size: int) -> list[tuple[Any, ...]]:
    """A binary message of ``size`` bytes in ``count`` frames."""
    part = size // count
    parts = [part] * (count - 1) + [size - part * (count - 1)]
    return [(CONTINUATION if n else BINARY, b"x" * size, n == count - 1) for n, size in enumerate(parts)]


class TestLimits:
    """RFC 6455 §10.4: each limit at one less, at it, and at one more.

    ``streaming`` changes nothing about them.
    """

    @staticmethod
    def refused(server: bool, limits: Limits, received: list[tuple[Any, ...]]) -> type[BaseException] | None:
        """The error, the same however the frames come."""
        outcomes = []
        for streaming in (False, True):
            for chunks in ([to(server, *received)], octets(to(server, *received))):
                recorder = Recorder(server, limits, streaming=streaming).feed(*chunks)
                outcomes.append(recorder.error)
                if recorder.error is None:
                    delivered = [event for event in recorder.events if event[0] in ("binary", "piece")]
                    assert b"".join(event[1] for event in delivered) == b"".join(frame[1] for frame in received)
                    assert recorder.sent == []
                else:
                    assert issubclass(recorder.error, errors.ProtocolError)
                    assert recorder.sent == [closed(recorder.error.close_code)]
                    assert "binary" not in [event[0] for event in recorder.events]
        assert len(set(outcomes)) == 1
        return outcomes[0]

    @pytest.mark.parametrize("count", [1, 2, 3, 5])
    @pytest.mark.parametrize("limit", [10, 125, 200])
    def test_the_size_of_a_message_is_limited(self, server: bool, limit: int, count: int) -> None:
        limits = Limits(max_message_size=limit)
        assert self.refused(server, limits, split_in(count, limit - 1)) is None
        assert self.refused(server, limits, split_in(count, limit)) is None
        assert self.refused(server, limits, split_in(count, limit + 1)) is errors.MessageTooBig

    def test_the_message_size_is_limited_as_in_beast(self, server: bool) -> None:
        """Beast's ``read_message_max(10)``."""
        limits = Limits(max_message_size=10)
        five = (BINARY, b"x" * 5, False)
        assert self.refused(server, limits, [five, (CONTINUATION, b"x" * 5)]) is None
        assert self.refused(server, limits, [five, (CONTINUATION, b"x" * 6)]) is errors.MessageTooBig
        recorder = Recorder(server, limits).receive((PING, b"p" * 125), (BINARY, b"x" * 10))
        assert (recorder.error, recorder.sent) == (None, [Frame(PONG, b"p" * 125)])

    @pytest.mark.parametrize("limit", [1, 65535, 65536, 1 << 20])
    def test_a_large_message_size_is_limited(self, server: bool, limit: int) -> None:
        limits = Limits(max_message_size=limit)
        for size, error in ((limit - 1, None), (limit, None), (limit + 1, errors.MessageTooBig)):
            recorder = Recorder(server, limits).receive((BINARY, b"x" * size))
            assert recorder.error is error
            assert recorder.events == ([("binary", b"x" * size)] if error is None else [ENDED])

    def test_the_message_size_of_a_text_is_counted_in_bytes(self, server: bool) -> None:
        limits = Limits(max_message_size=6)
        assert Recorder(server, limits).receive((TEXT, "\u20ac\u20ac".encode())).events == [("text", "\u20ac\u20ac")]
        assert Recorder(server, limits).receive((TEXT, "\u20ac\u20aca".encode())).error is errors.MessageTooBig

    def test_the_message_size_limits_each_message_alone(self, server: bool) -> None:
        limits = Limits(max_message_size=10)
        received = [frame for count in (1, 2, 1, 3, 2, 1) for frame in split_in(count, 10)]
        recorder = Recorder(server, limits).receive(*received)
        assert recorder.events == [("binary", b"x" * 10)] * 6

    def test_a_size_is_refused_before_its_payload(self, server: bool) -> None:
        start = header(Frame(BINARY, b"", False), server, length=1001) + (b"\1\2\3\4" if server else b"")
        recorder = Recorder(server, Limits(max_message_size=1000)).feed(start)
        assert (recorder.error, recorder.sent) == (errors.MessageTooBig, [closed(1009)])

    def test_a_fragment_is_refused_before_its_payload(self, server: bool) -> None:
        start = header(Frame(CONTINUATION, b""), server, length=401) + (b"\1\2\3\4" if server else b"")
        recorder = Recorder(server, Limits(max_message_size=1000)).receive((TEXT, b"x" * 600, False)).feed(start)
        assert (recorder.error, recorder.sent) == (errors.MessageTooBig, [closed(1009)])

    @pytest.mark.parametrize("limit", [1, 10, 125, 126, 65536])
    def test_the_size_of_a_frame_is_limited(self, server: bool, limit: int) -> None:
        limits = Limits(max_message_size=None, max_frame_size=limit)
        for size, error in ((limit - 1, None), (limit, None), (limit + 1, errors.MessageTooBig)):
            recorder = Recorder(server, limits).receive((BINARY, b"x" * size))
            assert recorder.error is error
            two = [(BINARY, b"x" * limit, False), (CONTINUATION, b"x" * size)]
            assert Recorder(server, limits).receive(*two).error is error

    def test_the_size_of_a_fragment_is_limited(self, server: bool) -> None:
        limits = Limits(max_frame_size=10)
        assert self.refused(server, limits, split_in(3, 27)) is None
        assert self.refused(server, limits, split_in(3, 30)) is None
        assert self.refused(server, limits, split_in(3, 31)) is errors.MessageTooBig

    def test_the_frame_size_does_not_limit_control_frames(self, server: bool) -> None:
        limits = Limits(max_frame_size=1, max_message_size=1)
        recorder = Recorder(server, limits).receive((PING, b"p" * 125), (CLOSE, b"\x03\xe8" + b"r" * 123))
        assert (recorder.error, recorder.sent) == (None, [Frame(PONG, b"p" * 125), closed(1000)])

    @pytest.mark.parametrize("limit", [1, 2, 4, 16])
    @pytest.mark.parametrize("size", [0, 64])
    def test_the_number_of_fragments_is_limited(self, server: bool, limit: int, size: int) -> None:
        limits = Limits(max_fragments=limit, fragment_size=None)
        if limit > 1:
            assert self.refused(server, limits, split_in(limit - 1, size)) is None
        assert self.refused(server, limits, split_in(limit, size)) is None
        assert self.refused(server, limits, split_in(limit + 1, size)) is errors.TooManyFragments

    def test_fragments_are_refused_by_their_header(self, server: bool) -> None:
        start = header(Frame(CONTINUATION, b"", False), server, length=100) + (b"\1\2\3\4" if server else b"")
        recorder = Recorder(server, Limits(max_fragments=2, fragment_size=None)).receive(
            (TEXT, b"1", False), (CONTINUATION, b"2", False)
        )
        assert recorder.feed(start).error is errors.TooManyFragments
        assert recorder.sent == [closed(1008)]

    def test_the_fragments_of_one_message_are_counted_without_control_frames(self, server: bool) -> None:
        limits = Limits(max_fragments=2, fragment_size=None)
        two = [(BINARY, b"x", False), (PING, b""), (PONG, b""), (CONTINUATION, b"x")]
        recorder = Recorder(server, limits).receive(*two, (BINARY, b"x"), *two, *two)
        assert recorder.error is None
        assert [event for event in recorder.events if event[0] == "binary"] == [
            ("binary", b"xx"),
            ("binary", b"x"),
            ("binary", b"xx"),
            ("binary", b"xx"),
        ]

    def test_each_limit_has_its_default(self, server: bool) -> None:
        def received(*frames: tuple[Any, ...]) -> type[BaseException] | None:
            return Recorder(server).receive(*frames).error

        assert received((BINARY, b"x" * (1 << 20))) is None
        assert received((BINARY, b"x" * ((1 << 20) + 1))) is errors.MessageTooBig
        assert received(*split_in(4096, 4096)) is None
        assert received(*split_in(4097, 4097)) is errors.TooManyFragments

    def test_none_means_no_limit(self, server: bool) -> None:
        limits = Limits(max_message_size=None, max_frame_size=None, max_fragments=None)
        recorder = Recorder(server, limits).receive((BINARY, b"x" * ((1 << 20) + 1)), *split_in(5000, 5000))
        assert recorder.events == [("binary", b"x" * ((1 << 20) + 1)), ("binary", b"x" * 5000)]
        start = header(Frame(BINARY), server, length=(1 << 63) - 1) + (b"\1\2\3\4" if server else b"")
        assert not recorder.feed(start, b"some of it").session.ended

    def test_the_error_names_the_limit(self, server: bool) -> None:
        for limits, told in (
            (
                Limits(max_message_size=10, max_frame_size=8),
                "Limits.max_message_size is 10, Limits.max_frame_size is 8",
            ),
            (Limits(max_message_size=10), "Limits.max_message_size is 10"),
            (Limits(max_message_size=None, max_frame_size=8), "Limits.max_frame_size is 8"),
        ):
            recorder = Recorder(server, limits).receive((TEXT, b"x" * 11))
            assert str(recorder.session.closing.error) == f"message too big: {told}"
        recorder = Recorder(server, Limits(max_fragments=1, fragment_size=None)).receive(
            (TEXT, b"", False), (CONTINUATION, b"")
        )
        assert "Limits.max_fragments is 1" in str(recorder.session.closing.error)


# Beast's cases; None: the close is refused with 1002. 1014 is let in since Boost 1.92, an empty close answered by 1000;
# 5000-65535, which Beast lets in, are no close codes (RFC 6455 §7.4.2).
RECEIVED_CLOSES: dict[str, tuple[bytes, tuple[int, str] | type[errors.ProtocolError], str]] = {
    "empty": (b"", (1005, ""), "88 02 03 e8"),
    "one octet": (b"\x03", errors.BadCloseSize, "88 02 03 ea"),
    "1000 'bye'": (b"\x03\xe8bye", (1000, "bye"), "88 02 03 e8"),
    "1000 with invalid UTF-8": (b"\x03\xe8\xff", errors.BadClosePayload, "88 02 03 ea"),
    "1000 with half a character": (b"\x03\xe8\xe2\x82", errors.BadClosePayload, "88 02 03 ea"),
    "1000 with 123 octets": (b"\x03\xe8" + b"r" * 123, (1000, "r" * 123), "88 02 03 e8"),
    "restbed's Bytes{10,03}": (b"\x0a\x03", errors.BadCloseCode, "88 02 03 ea"),
    "restbed's Bytes{10,00}": (b"\x0a\x00", errors.BadCloseCode, "88 02 03 ea"),
    **{
        str(code): (code.to_bytes(2, "big"), (code, ""), f"88 02 {code:04x}")
        for code in (*(1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999),)
    },
    **{
        str(code): (code.to_bytes(2, "big"), errors.BadCloseCode, "88 02 03 ea")
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    },
}


class TestPeerCloses:
    """RFC 6455 §5.5.1 and §7.1.5: the peer sends the first close frame."""

    @pytest.mark.parametrize("name", RECEIVED_CLOSES)
    @pytest.mark.parametrize("split", [lambda wire: [wire], octets], ids=["whole", "bytewise"])
    def test_the_peers_close_is_answered(self, server: bool, name: str, split: Callable[..., Any]) -> None:
        payload, told, answer = RECEIVED_CLOSES[name]
        recorder = Recorder(server).feed(*split(to(server, (CLOSE, payload))))
        answer_code = int.from_bytes(bytes.fromhex(answer)[2:], "big")
        if server:
            assert recorder.wire == bytes.fromhex(answer)
        assert recorder.sent == [closed(answer_code)]
        assert recorder.events == [ENDED]
        reason = recorder.session.closing.reason()
        if isinstance(told, tuple):
            assert reason == CloseReason(*told, True, "peer", Close(answer_code), Close(*told))
        else:
            assert reason == CloseReason(1006, "", False, "local", Close(1002), None, recorder.session.closing.error)
            assert type(reason.error) is told

    def test_bytes_after_the_peers_close_are_discarded(self, server: bool) -> None:
        recorder = Recorder(server).receive((CLOSE, NORMAL), (TEXT, b"1"), (PING, b""), (CLOSE, NORMAL))
        recorder.receive((TEXT, b"2"), (3, b"")).feed(b"", b"\xff" * 1000)
        assert recorder.events == [ENDED]
        assert recorder.sent == [closed(1000)]
        assert recorder.session.closing.reason().clean

    def test_nothing_more_can_be_sent(self, server: bool) -> None:
        recorder = Recorder(server).receive((CLOSE, b"\x0f\xa0enough"))
        reason = CloseReason(4000, "enough", True, "peer", Close(4000), Close(4000, "enough"))
        assert_sends_nothing(recorder, reason)

    def test_a_hook_can_answer_messages_before_the_peers_close(self, server: bool) -> None:
        """Messages before the close in one chunk can still be answered."""
        recorder = Recorder(server, react=lambda recorder, event: recorder.session.sender.send_text("answer"))
        recorder.receive((TEXT, b"1"), (CLOSE, NORMAL))
        assert recorder.sent == [Frame(TEXT, b"answer"), closed(1000)]


def assert_sends_nothing(recorder: Recorder, reason: CloseReason) -> None:
    before = list(recorder.writes)
    session = recorder.session
    sends: tuple[Callable[[], None], ...] = (
        lambda: session.sender.send_text("late"),
        lambda: session.sender.send_binary(b"late"),
        lambda: session.writer.send_frame(0x81, b"late"),
        lambda: session.ping(b"late"),
        lambda: session.pong(b"late"),
    )
    for send in sends:
        with pytest.raises(ConnectionClosed) as raised:
            send()
        assert raised.value.reason == reason
        assert str(raised.value) == str(reason)
    session.close(1001)
    assert recorder.writes == before


class TestWeClose:
    """RFC 6455 §5.5.1 and §7.1.2: we send the first close frame."""

    @pytest.mark.parametrize(
        ("arguments", "wire", "sent"),
        [
            ((), "88 02 03 e8", (1000, "")),
            ((1005,), "88 00", (1005, "")),
            ((1005, "left out"), "88 00", (1005, "")),
            ((1001, "away"), "88 06 03 e9 61 77 61 79", (1001, "away")),
            ((1000, "bye"), "88 05 03 e8 62 79 65", (1000, "bye")),
            ((4321,), "88 02 10 e1", (4321, "")),
            ((1014, "\u20ac"), "88 05 03 f6 e2 82 ac", (1014, "\u20ac")),
            ((1000, "r" * 122 + "\u20ac"), "88 7c 03 e8" + "72" * 122, (1000, "r" * 122)),
        ],
    )
    def test_our_close_is_sent_and_answered(
        self, server: bool, arguments: tuple[Any, ...], wire: str, sent: tuple[int, str]
    ) -> None:
        """Beast's cases, answered as there: 1000 'ok' after a message and a ping."""
        recorder = Recorder(server)
        recorder.session.close(*arguments)
        if server:
            assert recorder.wire == bytes.fromhex(wire)
        assert recorder.sent == [Frame(CLOSE, bytes.fromhex(wire)[2:])]
        assert recorder.session.closing.reason() == CloseReason(1006, "", False, "local", Close(*sent))
        recorder.receive((TEXT, b"message"), (PING, b"p"), (CLOSE, b"\x03\xe8ok"))
        assert recorder.events == [("ping", b"p"), ENDED]
        assert len(recorder.sent) == 1
        reason = CloseReason(1000, "ok", True, "local", Close(*sent), Close(1000, "ok"))
        assert recorder.session.closing.reason() == reason
        assert_sends_nothing(recorder, reason)

    @pytest.mark.parametrize("code", [0, 999, 1004, 1006, 1015, 1016, 2563, 2999, 5000, 65535, 65536, -1])
    def test_a_code_that_may_not_be_sent_is_refused(self, server: bool, code: int) -> None:
        recorder = Recorder(server)
        with pytest.raises(LocalError):
            recorder.session.close(code)
        assert recorder.writes == recorder.events == []
        recorder.session.sender.send_text("still open")
        assert recorder.sent == [Frame(TEXT, b"still open")]

    def test_nothing_more_can_be_sent(self, server: bool) -> None:
        recorder = Recorder(server)
        recorder.session.close(1001, "away")
        assert_sends_nothing(recorder, CloseReason(1006, "", False, "local", Close(1001, "away")))
        assert not recorder.session.ended

    def test_the_answer_ends_the_session(self, server: bool) -> None:
        recorder = Recorder(server)
        recorder.session.close()
        assert not recorder.session.closing.clean
        assert recorder.receive((CLOSE, b"")).events == [ENDED]
        assert recorder.session.closing.clean
        assert recorder.session.closing.reason() == CloseReason(1005, "", True, "local", Close(1000), Close(1005))

    def test_both_ends_may_close_at_once(self, server: bool) -> None:
        ours, theirs = Recorder(server), Recorder(not server)
        ours.session.close(4001, "ours")
        theirs.session.close(4002, "theirs")
        ours.feed(theirs.wire)
        theirs.feed(ours.wire)
        one, two = Close(4001, "ours"), Close(4002, "theirs")
        assert ours.session.closing.reason() == CloseReason(*two, True, "local", one, two)
        assert theirs.session.closing.reason() == CloseReason(*one, True, "local", two, one)
        assert ours.events == theirs.events == [ENDED]
        assert len(ours.sent) == len(theirs.sent) == 1

    def test_our_close_may_be_within_the_peers_message(self, server: bool) -> None:
        """The session discards the rest of the message, and no longer checks its kind or its text."""
        wire = to(server, (TEXT, b"1", False), (CONTINUATION, b"234", False))
        recorder = Recorder(server, binary=False).feed(wire[:-2])
        recorder.session.close()
        recorder.feed(wire[-2:])
        recorder.receive(
            (CONTINUATION, b"\xff", False), (PING,), (CONTINUATION, b"\xff"), (BINARY, b"5"), (TEXT, b"\xff")
        )
        assert recorder.events == [("ping", b"")]
        assert recorder.receive((CLOSE, NORMAL)).events[1:] == [ENDED]
        assert recorder.session.closing.reason().clean

    def test_our_close_is_clean_even_if_the_peers_text_is_bad(self, server: bool) -> None:
        recorder = Recorder(server).receive((TEXT, b"\xe2", False))
        recorder.session.close()
        assert recorder.receive((CONTINUATION, b"\xff"), (CLOSE, NORMAL)).session.closing.reason().clean

    @pytest.mark.parametrize(
        ("received", "error"),
        [
            ([(3, b"")], errors.BadOpcode),
            ([(CONTINUATION, b"")], errors.BadContinuation),
            ([(CLOSE, b"\x03")], errors.BadCloseSize),
            ([(CLOSE, b"\x03\xee")], errors.BadCloseCode),
            ([(TEXT, b"x" * 11)], errors.MessageTooBig),
        ],
    )
    def test_a_fault_after_our_close_ends_the_session(
        self, server: bool, received: list[tuple[int, bytes]], error: type[Exception]
    ) -> None:
        recorder = Recorder(server, Limits(max_message_size=10))
        recorder.session.close(1001)
        recorder.receive(*received)
        assert recorder.events == [ENDED]
        assert recorder.sent == [closed(1001)]
        reason = CloseReason(1006, "", False, "local", Close(1001), None, recorder.session.closing.error)
        assert recorder.session.closing.reason() == reason
        assert recorder.error is error

    def test_a_second_close_does_nothing(self, server: bool) -> None:
        recorder = Recorder(server)
        recorder.session.close(4000)
        recorder.session.close(4001)
        with pytest.raises(LocalError):
            recorder.session.close(1)
        assert recorder.sent == [closed(4000)]

    def test_pings_after_our_close_are_not_answered(self, server: bool) -> None:
        recorder = Recorder(server)
        recorder.session.close()
        recorder.receive((PING, b"p"), (PONG, b"q"))
        assert recorder.events == [("ping", b"p"), ("pong", b"q")]
        assert recorder.sent == [closed(1000)]


class TestControl:
    """RFC 6455 §5.5: pings and pongs that we send."""

    def test_pings_and_pongs_are_sent(self, server: bool) -> None:
        recorder = Recorder(server)
        recorder.session.ping()
        recorder.session.ping(b"p" * 125)
        recorder.session.pong()
        recorder.session.pong(b"q" * 125)
        assert recorder.sent == [Frame(PING), Frame(PING, b"p" * 125), Frame(PONG), Frame(PONG, b"q" * 125)]

    @pytest.mark.parametrize("name", ["ping", "pong"])
    def test_a_control_frame_of_126_bytes_is_refused(self, server: bool, name: str) -> None:
        recorder = Recorder(server)
        with pytest.raises(LocalError, match=f"{name} of 126 bytes: at most 125"):
            getattr(recorder.session, name)(b"p" * 126)
        assert recorder.writes == []

    def test_a_control_frame_may_be_between_our_fragments(self, server: bool) -> None:
        recorder = Recorder(server)
        recorder.session.writer.send_frame(TEXT, b"h")
        recorder.session.ping(b"p")
        recorder.receive((PING, b"q"))
        recorder.session.writer.send_frame(0x80, b"i")
        assert [frame.opcode for frame in recorder.sent] == [TEXT, PING, PONG, CONTINUATION]


class TestFail:
    """RFC 6455 §7.1.7: the session fails the connection."""

    @pytest.mark.parametrize(
        ("error", "arguments", "frame"),
        [
            (errors.BadOpcode(), (), closed(1002)),
            (errors.BadFramePayload(), (), closed(1007)),
            (errors.MessageTooBig(), (), closed(1009)),
            (errors.TooManyFragments(), (), closed(1008)),
            (errors.UnacceptableData(), (), closed(1003)),
            (TimeoutError("late"), (), closed(1011)),
            (TimeoutError("late"), (1001, "too late"), closed(1001, b"too late")),
            (errors.BadOpcode(), (1008,), closed(1008)),
            (KeyError(), (1005,), Frame(CLOSE)),
        ],
    )
    def test_a_failure_is_sent_as_a_close_frame(
        self, server: bool, error: Any, arguments: tuple[Any, ...], frame: Frame
    ) -> None:
        recorder = Recorder(server)
        recorder.session.fail(error, *arguments)
        assert recorder.sent == [frame]
        assert recorder.events == [ENDED]
        code = int.from_bytes(frame.payload[:2], "big") or 1005
        reason = CloseReason(1006, "", False, "local", Close(code, frame.payload[2:].decode()), None, error)
        assert recorder.session.closing.reason() == reason
        assert_sends_nothing(recorder, reason)

    def test_a_second_failure_is_ignored(self, server: bool) -> None:
        recorder = Recorder(server)
        first = TimeoutError()
        recorder.session.fail(first, 1001)
        recorder.session.fail(errors.BadOpcode())
        assert recorder.sent == [closed(1001)]
        assert recorder.events == [ENDED]
        assert recorder.session.closing.error is first

    def test_a_failure_after_our_close_is_not_sent(self, server: bool) -> None:
        recorder = Recorder(server)
        error = TimeoutError()
        recorder.session.close(4000)
        recorder.session.fail(error)
        assert recorder.sent == [closed(4000)]
        assert recorder.events == [ENDED]
        assert recorder.session.closing.reason() == CloseReason(1006, "", False, "local", Close(4000), None, error)

    def test_a_failure_after_the_closing_handshake_is_ignored(self, server: bool) -> None:
        recorder = Recorder(server).receive((CLOSE, NORMAL))
        recorder.session.fail(TimeoutError())
        assert recorder.events == [ENDED]
        assert recorder.session.closing.reason() == CloseReason(1000, "", True, "peer", Close(1000), Close(1000))

    def test_bytes_after_a_failure_are_discarded(self, server: bool) -> None:
        recorder = Recorder(server)
        recorder.session.fail(TimeoutError())
        recorder.receive((TEXT, b"1"), (PING, b""), (CLOSE, NORMAL))
        recorder.session.pause()
        recorder.session.resume()
        assert recorder.events == [ENDED]
        assert not recorder.session.closing.clean


class TestLost:
    """RFC 6455 §7.1.5: a connection that ends without a close frame has the code 1006."""

    def test_a_lost_connection_has_the_code_1006(self, server: bool) -> None:
        recorder = Recorder(server)
        error = ConnectionResetError()
        recorder.session.lost(error)
        assert recorder.events == [ENDED]
        reason = CloseReason(1006, "", False, "transport", None, None, error)
        assert recorder.session.closing.reason() == reason
        assert_sends_nothing(recorder, reason)
        assert recorder.writes == []

    def test_a_loss_before_the_answer_to_our_close_is_not_clean(self, server: bool) -> None:
        recorder = Recorder(server)
        error = ConnectionResetError()
        recorder.session.close(1001)
        recorder.session.lost(error)
        assert recorder.events == [ENDED]
        assert recorder.session.closing.reason() == CloseReason(1006, "", False, "local", Close(1001), None, error)

    @pytest.mark.parametrize("we_begin", [True, False])
    def test_a_loss_after_the_closing_handshake_is_clean(self, server: bool, we_begin: bool) -> None:
        """Then it is how TCP ends, and no fault."""
        recorder = Recorder(server)
        if we_begin:
            recorder.session.close()
        recorder.receive((CLOSE, NORMAL))
        recorder.session.lost(ConnectionResetError())
        assert recorder.events == [ENDED]
        began: Literal["local", "peer"] = "local" if we_begin else "peer"
        assert recorder.session.closing.reason() == CloseReason(1000, "", True, began, Close(1000), Close(1000))

    def test_a_loss_after_a_failure_is_ignored(self, server: bool) -> None:
        recorder = Recorder(server)
        error = TimeoutError()
        recorder.session.fail(error)
        recorder.session.lost(ConnectionResetError())
        assert recorder.events == [ENDED]
        assert recorder.session.closing.error is error

    def test_a_second_loss_is_ignored(self, server: bool) -> None:
        recorder = Recorder(server)
        first = ConnectionResetError()
        recorder.session.lost(first)
        recorder.session.lost(ConnectionAbortedError())
        assert recorder.events == [ENDED]
        assert recorder.session.closing.error is first

    def test_bytes_after_a_loss_are_discarded(self, server: bool) -> None:
        recorder = Recorder(server)
        recorder.session.lost()
        recorder.receive((TEXT, b"1"), (CLOSE, NORMAL))
        assert recorder.events == [ENDED]
        assert recorder.session.closing.reason() == CloseReason(1006, "", False, "transport")


class Refusing(Recorder):
    """A recorder whose sink lets in no more than ``room`` bytes of payload at once."""

    room = 10
    held = 0

    def admits(self, size: int) -> bool:
        self.events.append(("asked", size, self.held))
        return size + self.held <= self.room

    def hold(self, size: int) -> None:
        self.held += size

    def admits_part(self, size: int) -> None:
        if size > self.room:
            raise errors.BufferFull


class TestSendLong:
    """RFC 6455 §5.4: a long message leaves as fragments."""

    @pytest.mark.parametrize(
        ("size", "sizes"),
        [(0, [0]), (9, [9]), (10, [10]), (11, [10, 1]), (20, [10, 10]), (25, [10, 10, 5])],
    )
    @pytest.mark.parametrize("kind", [TEXT, BINARY])
    def test_a_long_message_is_split_into_frames(self, server: bool, kind: int, size: int, sizes: list[int]) -> None:
        recorder = Recorder(server, Limits(fragment_size=10))
        if kind == TEXT:
            recorder.session.sender.send_text("x" * size)
        else:
            recorder.session.sender.send_binary(b"x" * size)
        assert recorder.sent == [
            Frame(CONTINUATION if number else kind, b"x" * part, number == len(sizes) - 1)
            for number, part in enumerate(sizes)
        ]

    def test_a_fragment_may_end_inside_a_character(self, server: bool) -> None:
        recorder = Recorder(server, Limits(fragment_size=2))
        recorder.session.sender.send_text("\u20ac")
        assert recorder.sent == [Frame(TEXT, b"\xe2\x82", False), Frame(CONTINUATION, b"\xac")]

    def test_a_long_fragment_is_split_and_keeps_its_fin_bit(self, server: bool) -> None:
        recorder = Recorder(server, Limits(fragment_size=2))
        recorder.session.writer.send_frame(BINARY, b"123")
        recorder.session.writer.send_frame(0x80, b"456")
        assert recorder.sent == [
            Frame(BINARY, b"12", False),
            Frame(CONTINUATION, b"3", False),
            Frame(CONTINUATION, b"45", False),
            Frame(CONTINUATION, b"6"),
        ]

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_any_kind_of_bytes_is_split(self, server: bool, kind: type[Any]) -> None:
        recorder = Recorder(server, Limits(fragment_size=2))
        for payload in (b"", b"12", b"345"):
            recorder.session.sender.send_binary(kind(payload))
        assert [frame.payload for frame in recorder.sent] == [b"", b"12", b"34", b"5"]

    def test_any_kind_of_text_is_split(self, server: bool) -> None:
        class Text(str):
            pass

        recorder = Recorder(server, Limits(fragment_size=2))
        recorder.session.sender.send_text(Text("1"))
        recorder.session.sender.send_text(Text("234"))
        assert [frame.payload for frame in recorder.sent] == [b"1", b"23", b"4"]

    def test_the_default_fragment_size_is_256_kib(self, server: bool) -> None:
        recorder = Recorder(server)
        recorder.session.sender.send_binary(bytes(1 << 18))
        recorder.session.sender.send_binary(bytes((1 << 18) + 1))
        assert [len(frame.payload) for frame in recorder.sent] == [1 << 18, 1 << 18, 1]

    def test_a_message_is_one_frame_without_a_fragment_size(self, server: bool) -> None:
        recorder = Recorder(server, Limits(fragment_size=None))
        recorder.session.sender.send_binary(bytes((1 << 18) + 1))
        assert [len(frame.payload) for frame in recorder.sent] == [(1 << 18) + 1]

    @pytest.mark.parametrize("size", [1 << 62, 1 << 63, 1 << 64])
    def test_a_fragment_size_beyond_any_frame_is_accepted(self, server: bool, size: int) -> None:
        limits = Limits(max_message_size=size, max_frame_size=size, fragment_size=size)
        recorder = Recorder(server, limits).receive((BINARY, b"1"))
        recorder.session.sender.send_binary(b"2")
        assert (recorder.events, recorder.sent) == ([("binary", b"1")], [Frame(BINARY, b"2")])

    def test_control_frames_are_never_split(self, server: bool) -> None:
        """RFC 6455 §5.5"""

        def react(recorder: Recorder, event: Event) -> None:
            if event[0] == "text":
                recorder.session.sender.send_text("1")

        recorder = Recorder(server, Limits(fragment_size=10), react)
        recorder.session.ping(b"p" * 125)
        recorder.receive((TEXT, b"1"), (PING, b"q" * 11), (TEXT, b"2"), (PING, b"r" * 10))
        recorder.session.close(1000, "because of this")
        assert recorder.sent == [
            Frame(PING, b"p" * 125),
            Frame(TEXT, b"1"),
            Frame(PONG, b"q" * 11),
            Frame(TEXT, b"1"),
            Frame(PONG, b"r" * 10),
            closed(1000, b"because of this"),
        ]

    def test_a_long_message_of_a_hook_is_written_after_the_gathered_frames(self, server: bool) -> None:
        def react(recorder: Recorder, event: Event) -> None:
            if event[0] == "text":
                recorder.session.sender.send_text(event[1])

        recorder = Recorder(server, Limits(fragment_size=3), react)
        recorder.receive((TEXT, b"1"), (PING, b""), (TEXT, b"2345"), (TEXT, b"6"), (TEXT, b"7"))
        assert [frame.payload for frame in recorder.sent] == [b"1", b"", b"234", b"5", b"6", b"7"]
        assert [len(data) for _, data in recorder.writes] == ([5, 5, 3, 6] if server else [13, 9, 7, 14])

    def test_a_message_is_sent_whole_or_not_at_all(self, server: bool) -> None:
        recorder = Refusing(server, Limits(fragment_size=4))
        recorder.session.sender.send_binary(bytes(11))
        assert recorder.writes == []
        recorder.session.sender.send_binary(bytes(10))
        assert recorder.events == [("asked", 11, 0), ("asked", 10, 0)]
        assert [len(frame.payload) for frame in recorder.sent] == [4, 4, 2]


class TestStreamOut:
    """RFC 6455 §5.4: a message that is written in parts."""

    @pytest.mark.parametrize("kind", [TEXT, BINARY])
    def test_each_part_of_a_stream_is_a_frame(self, server: bool, kind: int) -> None:
        recorder = Recorder(server)
        session = recorder.session
        session.sender.begin_message(kind)
        assert recorder.writes == []
        session.sender.write_part(b"1")
        session.sender.write_part(b"")
        session.sender.write_part(b"2")
        session.sender.end_message()
        assert recorder.sent == [
            Frame(kind, b"1", False),
            Frame(CONTINUATION, b"", False),
            Frame(CONTINUATION, b"2", False),
            Frame(CONTINUATION, b""),
        ]

    def test_the_rest_goes_in_the_last_frame(self, server: bool) -> None:
        recorder = Recorder(server)
        recorder.session.sender.begin_message(TEXT)
        recorder.session.sender.end_message(b"all")
        recorder.session.sender.begin_message(BINARY)
        recorder.session.sender.end_message()
        assert recorder.sent == [Frame(TEXT, b"all"), Frame(BINARY, b"")]

    def test_a_long_part_is_split_into_frames(self, server: bool) -> None:
        recorder = Recorder(server, Limits(fragment_size=2))
        recorder.session.sender.begin_message(TEXT)
        recorder.session.sender.write_part(b"123")
        recorder.session.sender.end_message(b"456")
        assert [(frame.opcode, frame.payload, frame.fin) for frame in recorder.sent] == [
            (TEXT, b"12", False),
            (CONTINUATION, b"3", False),
            (CONTINUATION, b"45", False),
            (CONTINUATION, b"6", True),
        ]

    def test_messages_sent_during_a_stream_are_sent_after_it(self, server: bool) -> None:
        """Control frames are not: they are sent at once (RFC 6455 §5.4)."""
        recorder = Recorder(server, Limits(fragment_size=2))
        session = recorder.session
        session.sender.begin_message(TEXT)
        session.sender.write_part(b"1")
        session.sender.send_text("text")
        session.ping(b"p")
        recorder.receive((PING, b"q"))
        session.sender.send_binary(b"b")
        session.sender.end_message(b"2")
        session.sender.send_text("3")
        assert recorder.sent == [
            Frame(TEXT, b"1", False),
            Frame(PING, b"p"),
            Frame(PONG, b"q"),
            Frame(CONTINUATION, b"2"),
            Frame(TEXT, b"te", False),
            Frame(CONTINUATION, b"xt"),
            Frame(BINARY, b"b"),
            Frame(TEXT, b"3"),
        ]

    def test_a_hook_can_stream_a_message(self, server: bool) -> None:
        def react(recorder: Recorder, event: Event) -> None:
            recorder.session.sender.send_text("before")
            recorder.session.sender.begin_message(TEXT)
            recorder.session.sender.write_part(b"1")
            recorder.session.sender.send_text("meanwhile")
            recorder.session.sender.end_message(b"2")

        recorder = Recorder(server, react=react).receive((TEXT, b""), (PONG, b""))
        assert [frame.payload for frame in recorder.sent] == [b"before", b"1", b"2", b"meanwhile"] * 2

    def test_only_one_stream_is_open_at_a_time(self, server: bool) -> None:
        recorder = Recorder(server)
        recorder.session.sender.begin_message(TEXT)
        with pytest.raises(LocalError, match="a streamed message is open"):
            recorder.session.sender.begin_message(TEXT)
        recorder.session.sender.end_message(b"1")
        recorder.session.sender.begin_message(BINARY)
        recorder.session.sender.end_message(b"2")
        assert recorder.sent == [Frame(TEXT, b"1"), Frame(BINARY, b"2")]

    def test_a_part_that_is_refused_can_be_sent_again(self, server: bool) -> None:
        recorder = Refusing(server)
        recorder.session.sender.begin_message(BINARY)
        with pytest.raises(errors.BufferFull):
            recorder.session.sender.write_part(b"1" * 11)
        recorder.session.sender.write_part(b"1" * 10)
        recorder.session.sender.end_message()
        assert recorder.sent == [Frame(BINARY, b"1" * 10, False), Frame(CONTINUATION)]

    def test_the_held_messages_are_bounded(self, server: bool) -> None:
        recorder = Refusing(server)
        recorder.room = 2 * HELD_OVERHEAD + 8
        recorder.session.sender.begin_message(BINARY)
        for payload in (b"1" * 6, b"2" * 3, b"", b"3" * 9, b""):
            recorder.session.sender.send_binary(payload)
        recorder.session.sender.end_message()
        # Each counts with the memory of its object, so empty ones are bounded, too.
        held = (0, HELD_OVERHEAD + 6, 2 * HELD_OVERHEAD + 9)
        asked = [("asked", 6, held[0]), ("asked", 3, held[1]), *(("asked", size, held[2]) for size in (0, 9, 0))]
        assert recorder.events == asked
        assert recorder.sent == [Frame(BINARY), Frame(BINARY, b"1" * 6), Frame(BINARY, b"2" * 3)]
        assert recorder.held == 0

    @pytest.mark.parametrize("end", ["close", "fail", "lost"])
    def test_held_messages_are_not_counted_after_the_end(self, server: bool, end: str) -> None:
        recorder = Refusing(server)
        recorder.session.sender.begin_message(BINARY)
        recorder.session.sender.send_binary(b"1")
        assert recorder.held == HELD_OVERHEAD + 1
        {
            "close": recorder.session.close,
            "fail": lambda: recorder.session.fail(ValueError()),
            "lost": recorder.session.lost,
        }[end]()
        assert recorder.held == 0

    def test_a_held_message_is_sent_though_there_is_no_room_left(self, server: bool) -> None:
        """Once accepted, a held message is sent, whatever happens in between."""
        recorder = Refusing(server)
        recorder.session.sender.begin_message(BINARY)
        recorder.session.sender.send_binary(b"1" * 10)
        recorder.room = 0
        recorder.session.sender.end_message()
        assert recorder.sent == [Frame(BINARY), Frame(BINARY, b"1" * 10)]

    def test_a_held_message_is_a_copy(self, server: bool) -> None:
        recorder = Recorder(server)
        payload = bytearray(b"before")
        recorder.session.sender.begin_message(BINARY)
        recorder.session.sender.send_binary(payload)  # type: ignore[arg-type]
        payload[:] = b"after"
        recorder.session.sender.end_message()
        assert recorder.sent == [Frame(BINARY), Frame(BINARY, b"before")]

    @pytest.mark.parametrize("end", ["close", "fail", "peer", "lost"])
    def test_a_stream_ends_with_the_connection(self, server: bool, end: str) -> None:
        recorder = Recorder(server)
        session = recorder.session
        session.sender.begin_message(TEXT)
        session.sender.write_part(b"1")
        session.sender.send_text("held")
        if end == "close":
            session.close(1001)
        elif end == "fail":
            session.fail(KeyError(), 1001)
        elif end == "peer":
            recorder.receive((CLOSE, b"\x03\xe9"))
        else:
            session.lost()
        sent = [Frame(TEXT, b"1", False), closed(1001)][: 1 if end == "lost" else 2]
        sends: tuple[Callable[[], None], ...] = (
            lambda: session.sender.write_part(b"2"),
            lambda: session.sender.end_message(b"3"),
            lambda: session.sender.send_text("4"),
        )
        for late in sends:
            with pytest.raises(ConnectionClosed) as raised:
                late()
            assert raised.value.reason == session.closing.reason()
        assert recorder.sent == sent

    def test_a_stream_after_the_end_is_refused(self, server: bool) -> None:
        recorder = Recorder(server)
        recorder.session.close()
        with pytest.raises(ConnectionClosed):
            recorder.session.sender.begin_message(TEXT)
        assert recorder.sent == [closed(1000)]

    def test_a_part_without_a_stream_is_refused(self, server: bool) -> None:
        recorder = Recorder(server)
        sends: tuple[Callable[[], None], ...] = (
            lambda: recorder.session.sender.write_part(b"1"),
            lambda: recorder.session.sender.end_message(b"1"),
        )
        for late in sends:
            with pytest.raises(LocalError, match="no streamed message is open"):
                late()
        assert recorder.writes == []


class Reentrant(Recorder):
    """A recorder that calls ``on_write`` at the first write, as a producer may be paused there."""

    on_write: Any = None

    def write(self, data: bytes | LongFrame) -> None:
        super().write(data)
        on_write, self.on_write = self.on_write, None
        if on_write is not None:
            on_write()


class TestSendWhileSending:
    """RFC 6455 §5.4: the fragments of one message are not interleaved with another."""

    def test_a_message_is_sent_after_the_fragments(self, server: bool) -> None:
        recorder = Reentrant(server, Limits(fragment_size=2))
        session = recorder.session

        def on_write() -> None:
            session.sender.send_text("345")
            session.ping(b"p")

        recorder.on_write = on_write
        session.sender.send_text("12_")
        session.sender.send_text("6")
        assert [frame.payload for frame in recorder.sent] == [b"12", b"p", b"_", b"34", b"5", b"6"]

    def test_no_other_stream_can_begin(self, server: bool) -> None:
        recorder = Reentrant(server, Limits(fragment_size=2))
        raised = []

        def begin() -> None:
            with pytest.raises(LocalError):
                recorder.session.sender.begin_message(TEXT)
            raised.append(True)

        recorder.on_write = begin
        recorder.session.sender.send_text("123")
        assert raised and [frame.payload for frame in recorder.sent] == [b"12", b"3"]

    def test_a_message_is_sent_after_the_held_ones(self, server: bool) -> None:
        recorder = Reentrant(server)
        session = recorder.session
        session.sender.begin_message(BINARY)
        session.sender.send_text("2")
        session.sender.send_text("3")
        recorder.on_write = lambda: session.sender.send_text("4")
        session.sender.end_message(b"1")
        assert [frame.payload for frame in recorder.sent] == [b"1", b"2", b"3", b"4"]

    def test_a_part_after_the_last_is_refused(self, server: bool) -> None:
        recorder = Reentrant(server)
        session = recorder.session
        session.sender.begin_message(BINARY)
        raised = []

        def write() -> None:
            with pytest.raises(LocalError):
                session.sender.write_part(b"2")
            raised.append(True)

        recorder.on_write = write
        session.sender.end_message(b"1")
        assert raised and recorder.sent == [Frame(BINARY, b"1")]

    @pytest.mark.parametrize("streamed", [False, True])
    def test_a_close_is_the_last_frame(self, server: bool, streamed: bool) -> None:
        recorder = Reentrant(server, Limits(fragment_size=2))
        session = recorder.session
        recorder.on_write = lambda: session.close(1001)
        if streamed:
            session.sender.begin_message(TEXT)
            session.sender.send_text("held")
            session.sender.end_message(b"123")
        else:
            session.sender.send_text("123")
        assert recorder.sent == [Frame(TEXT, b"12", False), closed(1001)]
        with pytest.raises(ConnectionClosed):
            session.sender.send_text("4")


def test_an_open_session_reports_that_it_has_not_ended(server: bool) -> None:
    recorder = Recorder(server).receive((TEXT, b"1"))
    session = recorder.session
    assert (session.ended, session.closing.clean, session.paused, session.writer.sendable) == (
        False,
        False,
        False,
        True,
    )
    assert session.closing.reason() == CloseReason(1006, "", False, "transport")


def texts(recorder: Recorder) -> tuple[Event, ...]:
    return tuple(event for event in recorder.events if event[0] == "text")


class TestFeedWithinAChunk:
    """A hook, or a write to the sink, feeds the session again within a chunk.

    A tunnel's transport does so when its owner resumes it there.
    """

    MESSAGES = (b"one", b"", b"x" * 200, b"four", b"\xe2\x82\xac")
    FRAMES = (
        (TEXT, MESSAGES[0]),
        (PING, b"p"),
        (TEXT, MESSAGES[1]),
        (TEXT, b"x" * 150, False),
        (CONTINUATION, b"x" * 50),
        (TEXT, MESSAGES[3]),
        (TEXT, MESSAGES[4]),
    )
    EVENTS = tuple(("text", message.decode()) for message in MESSAGES)

    @pytest.mark.parametrize("streaming", [False, True])
    def test_a_chunk_fed_by_a_hook_is_parsed_after_the_current_one(self, server: bool, streaming: bool) -> None:
        received = to(server, *self.FRAMES)
        expected = Recorder(server, streaming=streaming).feed(received)

        for cut in range(len(to(server, self.FRAMES[0])), len(received)):
            rest = [received[cut : cut + 30], received[cut + 30 :]]

            def react(recorder: Recorder, event: Event, rest: list[bytes] = rest) -> None:
                if rest:
                    recorder.feed(rest.pop(0))

            recorder = Recorder(server, react=react, streaming=streaming).feed(received[:cut])
            assert rest == []
            assert recorder.error is None
            assert recorder.sent == expected.sent
            if streaming:
                assert b"".join(event[1] for event in recorder.events if event[0] == "piece") == b"".join(self.MESSAGES)
            else:
                assert texts(recorder) == self.EVENTS

    def test_a_chunk_fed_by_a_hook_waits_for_the_end_of_a_pause_and_is_parsed(self, server: bool) -> None:
        received = to(server, *self.FRAMES)

        def react(recorder: Recorder, event: Event) -> None:
            if event == self.EVENTS[0]:
                recorder.session.pause()
                recorder.feed(received[40:])

        recorder = Recorder(server, react=react).feed(received[:40])
        assert texts(recorder) == self.EVENTS[:1]
        recorder.session.resume()
        assert texts(recorder) == self.EVENTS

    def test_a_chunk_fed_by_a_hook_is_discarded_after_the_end(self, server: bool) -> None:
        def react(recorder: Recorder, event: Event) -> None:
            recorder.receive((TEXT, b"more"))
            recorder.session.fail(ValueError())

        recorder = Recorder(server, react=react).receive((TEXT, b"one"), (TEXT, b"two"))
        assert recorder.events == [("text", "one"), ("ended",)]


class TestSinkRaises:
    """The sink raises in the middle of a message."""

    @pytest.mark.parametrize("how", ["fragments", "held"])
    def test_a_write_that_fails_between_frames_ends_the_connection(
        self, server: bool, how: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The peer has a part of the message, so it could not understand any later frame."""
        recorder = Recorder(server, Limits(fragment_size=10))
        session = recorder.session
        left = [0, 0] if how == "fragments" else [0, 0, 0]

        def write_admitted(data: bytes | LongFrame) -> None:
            if not left:
                raise ZeroDivisionError
            left.pop()
            recorder.write(data)

        monkeypatch.setattr(recorder, "write_admitted", write_admitted)
        if how == "held":
            session.sender.begin_message(TEXT)
            session.sender.write_part(b"part")
            session.sender.send_text("behind it, in more frames than one")
        with pytest.raises(ZeroDivisionError):
            if how == "held":
                session.sender.end_message()
            else:
                session.sender.send_text("in more frames than one and two")
        assert recorder.error is ZeroDivisionError
        assert recorder.sent[-1] == closed(1011)
        with pytest.raises(ConnectionClosed):
            session.sender.send_text("later")
