"""Tests of `twisted_beastws.wire.halfclose`: directions that end one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from twisted_beastws.options import Limits
from twisted_beastws.wire.closing import Close, CloseReason
from twisted_beastws.wire.halfclose import HalfClosingSession

from .peer import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, Recorder, cut, octets, to

NORMAL = b"\x03\xe8"
READ_ENDED = ("read ended",)
ENDED = ("ended",)


class Halves(Recorder):
    """A half-closing session with streamed messages."""

    def __init__(self, server: bool = True, half_closeable: bool = True, react: Any = None) -> None:
        super().__init__(server, react=react)
        self.half_closeable = half_closeable
        self.session: Any = HalfClosingSession(server, self, self, self.now, Limits())
        self.session.stream = self
        self.session.stream_to(lambda data, opcode, final: self.note("piece", data, final))

    def read_ended(self) -> None:
        self.note(*READ_ENDED)


def pieces(recorder: Recorder) -> bytes:
    return b"".join(event[1] for event in recorder.events if event[0] == "piece")


class TestWeEndFirst:
    """RFC 6455 §7.1.2 and §5.5.1: our close frame is the last that we send; the peer may go on until its own."""

    def test_the_close_frame_is_the_last_frame_sent(self, server: bool) -> None:
        halves = Halves(server)
        halves.session.sender.send_binary(b"last")
        halves.session.half_close()
        halves.session.half_close()
        assert halves.sent == [Frame(BINARY, b"last"), Frame(CLOSE, NORMAL)]
        assert halves.session.writer.closed and not halves.session.ended

    @pytest.mark.parametrize("split", [lambda wire: [wire], octets], ids=["whole", "bytewise"])
    def test_messages_before_the_peers_close_are_delivered(self, server: bool, split: Callable[..., Any]) -> None:
        halves = Halves(server)
        halves.session.half_close()
        halves.feed(*split(to(server, (BINARY, b"a", False), (CONTINUATION, b"b"), (BINARY, b"c"), (CLOSE, NORMAL))))
        assert pieces(halves) == b"abc"
        assert halves.events[-2:] == [READ_ENDED, ENDED]
        assert halves.sent == [Frame(CLOSE, NORMAL)]
        assert halves.session.closing.reason() == CloseReason(1000, "", True, "local", Close(1000), Close(1000))

    def test_a_handler_without_half_close_is_not_notified(self) -> None:
        halves = Halves(half_closeable=False)
        halves.session.half_close()
        halves.receive((BINARY, b"a"), (CLOSE, NORMAL))
        assert halves.events == [("piece", b"a", True), ENDED]

    def test_a_ping_gets_no_answer(self) -> None:
        halves = Halves()
        halves.session.half_close()
        halves.receive((PING, b"?"))
        assert halves.sent == [Frame(CLOSE, NORMAL)]
        assert halves.events == [("ping", b"?")]

    def test_a_full_close_discards_later_messages(self) -> None:
        halves = Halves()
        halves.session.half_close()
        halves.session.close(1001)
        halves.receive((BINARY, b"a"), (BINARY, b"b", False), (CONTINUATION, b"c"), (CLOSE, NORMAL))
        assert halves.events == [ENDED]
        assert halves.sent == [Frame(CLOSE, NORMAL)]

    def test_a_full_close_after_a_half_close_is_possible(self) -> None:
        halves = Halves(react=lambda halves, event: halves.session.close())
        halves.session.half_close()
        halves.receive((BINARY, b"a"), (BINARY, b"b"), (CLOSE, NORMAL))
        assert halves.events == [("piece", b"a", True), ENDED]

    def test_a_pause_after_a_half_close_is_possible(self, server: bool) -> None:
        halves = Halves(server, react=lambda halves, event: halves.session.pause())
        halves.session.half_close()
        halves.receive((BINARY, b"a"), (BINARY, b"b"), (CLOSE, NORMAL))
        assert pieces(halves) == b"a"
        halves.session.resume()
        assert pieces(halves) == b"ab"
        halves.react = None
        halves.session.resume()
        assert halves.events[-1] == ENDED

    def test_half_closing_while_paused_delivers_nothing(self) -> None:
        halves = Halves()
        halves.session.pause()
        halves.receive((BINARY, b"a"))
        halves.session.half_close()
        assert halves.events == []
        halves.session.close()
        halves.receive((CLOSE, NORMAL))
        assert halves.events == [ENDED]

    def test_the_peers_fault_ends_the_session_at_once(self) -> None:
        halves = Halves()
        halves.session.half_close()
        halves.receive((CLOSE, b"\x03\xf3"))
        assert halves.events == [ENDED]
        assert halves.session.closing.reason().code == 1011

    def test_a_half_close_after_the_end_does_nothing(self) -> None:
        halves = Halves()
        halves.session.lost()
        halves.session.half_close()
        assert halves.sent == []


class TestThePeerEndsFirst:
    """RFC 6455 §5.5.1: we may delay our close frame after the peer's."""

    @pytest.mark.parametrize("payload", [b"", NORMAL, b"\x03\xe9"], ids=["1005", "1000", "1001"])
    def test_we_can_still_send(self, server: bool, payload: bytes) -> None:
        halves = Halves(server).receive((BINARY, b"a"), (CLOSE, payload))
        assert halves.events == [("piece", b"a", True), READ_ENDED]
        halves.session.sender.send_binary(b"more")
        halves.session.close()
        assert halves.events[-1] == ENDED
        assert halves.sent == [Frame(BINARY, b"more"), Frame(CLOSE, payload or NORMAL)]
        reason = halves.session.closing.reason()
        assert (reason.clean, reason.began) == (True, "peer")

    def test_a_half_close_after_the_peers_is_a_close(self) -> None:
        halves = Halves().receive((CLOSE, NORMAL))
        halves.session.half_close()
        assert halves.events == [READ_ENDED, ENDED]
        assert halves.sent == [Frame(CLOSE, NORMAL)]

    def test_frames_after_the_peers_close_are_discarded(self, server: bool) -> None:
        wire = to(server, (CLOSE, NORMAL), (BINARY, b"a", False), (CONTINUATION, b"b"), (PING, b"?"), (CLOSE, NORMAL))
        halves = Halves(server).feed(*cut(wire, range(0, len(wire), 3)))
        assert halves.events == [READ_ENDED]
        assert halves.sent == []

    def test_a_hook_may_close_at_once(self) -> None:
        halves = Halves(react=lambda halves, event: halves.session.close() if event == READ_ENDED else None)
        halves.receive((CLOSE, NORMAL))
        assert halves.events == [READ_ENDED, ENDED]
        assert halves.sent == [Frame(CLOSE, NORMAL)]

    def test_a_handler_without_half_close_answers_at_once(self) -> None:
        halves = Halves(half_closeable=False).receive((CLOSE, NORMAL))
        assert halves.events == [ENDED]
        assert halves.sent == [Frame(CLOSE, NORMAL)]

    def test_the_peers_fault_is_answered_at_once(self) -> None:
        halves = Halves().receive((CLOSE, b"\x03\xf3"))
        assert halves.events == [ENDED]
        assert halves.sent == [Frame(CLOSE, b"\x03\xf3")]

    def test_a_loss_before_our_answer_is_not_clean(self) -> None:
        halves = Halves().receive((CLOSE, NORMAL))
        halves.session.lost(ConnectionError("cut"))
        assert halves.events == [READ_ENDED, ENDED]
        reason = halves.session.closing.reason()
        assert (reason.code, reason.clean, str(reason.error)) == (1000, False, "cut")


class TestWithoutHalfClose:
    """RFC 6455 §7.1: a session without half-closes closes as usual."""

    def test_pieces_are_received_and_the_close_is_clean(self, server: bool) -> None:
        halves = Halves(server).receive((BINARY, b"a", False), (CONTINUATION, b"b"), (TEXT, b"c"), (PING, b"?"))
        assert pieces(halves) == b"abc"
        halves.session.close(1001, "bye")
        halves.receive((BINARY, b"late"), (CLOSE, b"\x03\xe9"))
        assert halves.sent == [Frame(PONG, b"?"), Frame(CLOSE, b"\x03\xe9bye")]
        assert pieces(halves) == b"abc"
        assert halves.session.closing.reason().began == "local"
