"""Tests of `twisted_beastws.protocol`: an open connection, and how it ends."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from importlib.util import find_spec, module_from_spec
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.error import ConnectionLost as TwistedConnectionLost
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.logger import Logger, formatEvent, globalLogPublisher
from twisted.python.failure import Failure

from twisted_beastws import (
    BufferFull,
    CloseCode,
    CloseReason,
    ConnectionClosed,
    Limits,
    LocalError,
    Opcode,
    Response,
    State,
    Timeouts,
    WebSocketProtocol,
    errors,
    prepare,
)
from twisted_beastws.connection.inbox import cost_of
from twisted_beastws.connection.write_buffer import Outgoing
from twisted_beastws.wire.closing import Close

from .support.frames import close
from .support.inside import inside
from .support.log import as_observer
from .support.loopback import uncollected
from .support.outcomes import Outcome
from .support.protocols import Echo
from .support.states import state_of

pytestmark = pytest.mark.usefixtures("logged")


def text(content: str) -> bytes:
    """Return a short text frame as the server sends it."""
    encoded = content.encode()
    assert len(encoded) < 126
    return b"\x81" + bytes((len(encoded),)) + encoded


NORMAL = close(1000)
PING = b"\x89\x00"


class Noting(WebSocketProtocol):
    """Records the calls of its hooks; the test sets in ``does`` what they do."""

    does: dict[str, Any]

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []
        self.does = {}

    def note(self, hook: str, *arguments: Any) -> Any:
        self.heard.append((hook, *arguments))
        does = self.does.get(hook)
        return None if does is None else does(*arguments)

    def opened(self) -> Any:
        return self.note("opened")

    def ping_received(self, payload: bytes) -> Any:
        return self.note("ping", payload)

    def pong_received(self, payload: bytes) -> Any:
        return self.note("pong", payload)

    def closed(self, reason: CloseReason) -> Any:
        return self.note("closed", reason)

    def names(self) -> list[str]:
        return [hook for hook, *_ in self.heard]


class Hooked(Noting):
    def text_received(self, text: str) -> Any:
        return self.note("text", text)

    def binary_received(self, data: bytes) -> Any:
        return self.note("binary", data)


class Texts(Noting):
    def text_received(self, text: str) -> Any:
        return self.note("text", text)


class Binaries(Noting):
    def binary_received(self, data: bytes) -> Any:
        return self.note("binary", data)


class Streaming(Noting):
    def fragment_received(self, data: bytes, opcode: Opcode, final: bool) -> Any:
        return self.note("fragment", data, opcode, final)


class TestHooks:
    """The hooks of an open connection."""

    def test_the_hooks_are_called_in_order(self, connect: Callable[..., Any]) -> None:
        peer = connect(Hooked)
        frame, reads = peer.frame, peer.reads
        peer.sends(peer.text("a") + frame(0x82, b"b") + frame(0x89, b"c") + frame(0x8A, b"d") + peer.close(1000, b"e"))
        assert peer.protocol.heard == [
            ("opened",),
            ("text", "a"),
            ("binary", b"b"),
            ("ping", b"c"),
            ("pong", b"d"),
        ]
        assert reads() == b"\x8a\x01c" + NORMAL
        peer.leaves()
        reason = CloseReason(1000, "e", True, "peer", Close(1000), Close(1000, "e"))
        assert peer.protocol.heard[5:] == [("closed", reason)]
        assert peer.protocol.close_reason == reason

    def test_fragments_are_gathered(self, connect: Callable[..., Any]) -> None:
        peer = connect(Hooked)
        peer.sends(peer.frame(0x01, b"a"), peer.frame(0x89, b"!"), peer.frame(0x00, b"b"), peer.frame(0x80, b"c"))
        assert peer.protocol.heard[1:] == [("ping", b"!"), ("text", "abc")]

    def test_fragments_are_streamed(self, connect: Callable[..., Any]) -> None:
        peer = connect(Streaming)
        peer.sends(peer.frame(0x01, b"a"), peer.frame(0x80, b"b"), peer.frame(0x82, b"c"))
        assert peer.protocol.heard[1:] == [
            ("fragment", b"a", Opcode.TEXT, False),
            ("fragment", b"b", Opcode.TEXT, True),
            ("fragment", b"c", Opcode.BINARY, True),
        ]

    @pytest.mark.parametrize(("cls", "first"), [(Texts, 0x82), (Binaries, 0x81), (Texts, 0x02), (Binaries, 0x01)])
    def test_a_kind_without_a_hook_is_refused(self, connect: Callable[..., Any], cls: type[Any], first: int) -> None:
        peer = connect(cls)
        peer.sends(peer.frame(first, b"a"))
        assert peer.reads() == close(1003)
        assert type(peer.protocol.close_reason.error) is errors.UnacceptableData
        assert peer.protocol.names() == ["opened"]
        peer.leaves()

    def test_hooks_may_send_at_once(self, connect: Callable[..., Any]) -> None:
        class Greeting(WebSocketProtocol):
            def opened(self) -> None:
                self.send("hello")
                self.send(b"\x01")

        peer = connect(Greeting, opened=False)
        peer.sends(peer.HEAD)
        assert peer.reads().partition(b"\r\n\r\n")[2] == text("hello") + b"\x82\x01\x01"

    def test_closed_is_called_only_after_opened(self, connect: Callable[..., Any]) -> None:
        peer = connect(Hooked, opened=False)
        peer.sends(peer.HEAD[:50])
        peer.leaves()
        assert peer.protocol.heard == []

    def test_the_state_is_known_in_each_hook(self, connect: Callable[..., Any]) -> None:
        states: list[State] = []

        class Stating(WebSocketProtocol):
            def opened(self) -> None:
                states.append(self.state)

            def closed(self, reason: CloseReason) -> None:
                states.append(self.state)

        peer = connect(Stating, opened=False)
        states.append(peer.protocol.state)
        peer.sends(peer.HEAD)
        peer.protocol.close()
        states.append(peer.protocol.state)
        peer.leaves()
        assert states == [State.CONNECTING, State.OPEN, State.CLOSING, State.CLOSED]
        assert isinstance(peer.protocol.peer, IPv4Address)


class TestOneWrite:
    """The server combines the messages that the hooks of one chunk send."""

    def test_a_thousand_echoes_are_one_write(self, connect: Callable[..., Any]) -> None:
        peer = connect(Echo)
        peer.sends(peer.text("x" * 20) * 1000)
        assert peer.transport.writes == [text("x" * 20) * 1000]

    def test_pongs_and_echoes_are_one_write(self, connect: Callable[..., Any]) -> None:
        peer = connect(Echo)
        peer.sends((peer.text("a") + peer.frame(0x89, b"b")) * 10 + peer.close())
        assert peer.transport.writes == [(text("a") + b"\x8a\x01b") * 10 + NORMAL]

    def test_more_than_64_kib_is_written_as_it_grows(self, connect: Callable[..., Any]) -> None:
        peer = connect(Echo)
        peer.sends((peer.frame(0x82, bytes(1000))) * 500)
        assert b"".join(peer.transport.writes) == (b"\x82\x7e\x03\xe8" + bytes(1000)) * 500
        assert all((1 << 16) - 1004 <= len(write) <= (1 << 16) + 1004 for write in peer.transport.writes[:-1])

    def test_messages_after_the_request_are_answered_in_one_write(self, connect: Callable[..., Any]) -> None:
        peer = connect(Echo, opened=False)
        peer.sends(peer.HEAD + peer.text("a") * 10)
        assert len(peer.transport.writes) == 2
        assert peer.transport.writes[1] == text("a") * 10

    def test_a_small_buffer_splits_the_write(self, connect: Callable[..., Any]) -> None:
        """Combined messages leave in several writes where a single one would exceed ``max_buffered``."""
        peer = connect(Echo, limits=Limits(max_message_size=1000, max_buffered=1000, high_water=1000, low_water=100))
        peer.sends(peer.text("x" * 100) * 50)
        assert peer.reads() == text("x" * 100) * 50
        assert peer.protocol.state is State.OPEN


class Later:
    """A hook that returns a Deferred or a coroutine; ``done()`` ends the oldest call."""

    def __init__(self, how: str) -> None:
        self.how = how
        self.waiting: list[Deferred[Any]] = []

    def __call__(self, *_: object) -> Any:
        waiting: Deferred[Any] = Deferred()
        self.waiting.append(waiting)
        return waiting if self.how == "Deferred" else self.coroutine(waiting)

    async def coroutine(self, waiting: Deferred[Any]) -> Any:
        return await waiting

    def done(self, result: Any = None) -> None:
        self.waiting.pop(0).callback(result)


@pytest.fixture(params=["Deferred", "coroutine"])
def later(request: pytest.FixtureRequest) -> Later:
    return Later(request.param)


class TestSlowHooks:
    """Hooks that return a Deferred or are coroutines."""

    def test_slow_hooks_are_called_in_order(self, connect: Callable[..., Any], later: Later) -> None:
        peer = connect(Hooked)
        peer.protocol.does["text"] = later
        peer.sends(*(peer.text(str(number)) + peer.frame(0x82, bytes((number,))) for number in range(3)))
        assert peer.protocol.heard[1:] == [("text", "0")]
        later.done()
        assert peer.protocol.heard[2:] == [("binary", b"\0"), ("text", "1")]
        later.done()
        later.done()
        assert peer.protocol.heard[4:] == [("binary", b"\1"), ("text", "2"), ("binary", b"\2")]
        peer.protocol.does.clear()
        peer.sends(peer.text("3"))
        assert peer.protocol.heard[-1] == ("text", "3")

    def test_a_fired_deferred_delays_nothing(self, connect: Callable[..., Any]) -> None:
        peer = connect(Hooked)
        peer.protocol.does["text"] = lambda _: succeed("ignored")
        peer.sends(peer.text("a") * 3)
        assert peer.protocol.names() == ["opened", "text", "text", "text"]

    def test_pings_are_answered_during_a_slow_hook(self, connect: Callable[..., Any], later: Later) -> None:
        peer = connect(Hooked)
        peer.protocol.does["text"] = later
        peer.sends(peer.text("a") + peer.text("b") + peer.frame(0x89, b"!"))
        assert peer.reads() == b"\x8a\x01!"
        assert peer.protocol.names() == ["opened", "text", "ping"]

    @pytest.mark.parametrize("behind", [14, 15, 16, 17])
    def test_reading_pauses_at_the_limit_of_messages(
        self, connect: Callable[..., Any], later: Later, behind: int
    ) -> None:
        peer = connect(Hooked)
        peer.protocol.does["text"] = later
        peer.sends(peer.text("a"), *[peer.text("b")] * behind)
        assert peer.transport.producerState == ("producing" if behind < 16 else "paused")
        for _ in range(behind + 1):
            later.done()
        assert peer.transport.producerState == "producing"
        assert peer.protocol.names() == ["opened"] + ["text"] * (behind + 1)

    def test_reading_pauses_at_the_limit_of_memory(self, connect: Callable[..., Any], later: Later) -> None:
        peer = connect(Hooked, limits=Limits(max_queued_size=1000))
        peer.protocol.does["text"] = later
        peer.sends(peer.text("a"), peer.text("x" * (999 - cost_of(""))))
        assert peer.transport.producerState == "producing"
        peer.sends(peer.text("y"))
        assert peer.transport.producerState == "paused"
        later.done()
        assert peer.transport.producerState == "producing"

    def test_later_messages_of_the_chunk_are_kept_in_order(self, connect: Callable[..., Any], later: Later) -> None:
        peer = connect(Hooked)
        peer.protocol.does["text"] = later
        peer.sends(b"".join(peer.text(str(number)) for number in range(100)))
        for _ in range(100):
            later.done()
        assert peer.protocol.heard[1:] == [("text", str(number)) for number in range(100)]
        assert peer.transport.producerState == "producing"

    def test_streaming_waits_for_each_piece(self, connect: Callable[..., Any], later: Later) -> None:
        peer = connect(Streaming)
        peer.protocol.does["fragment"] = later
        peer.sends(peer.frame(0x02, b"a") + peer.frame(0x00, b"b"))
        assert peer.transport.producerState == "paused"
        peer.sends(peer.frame(0x80, b"c"))
        assert peer.protocol.names() == ["opened", "fragment"]
        later.done()
        later.done()
        later.done()
        assert peer.transport.producerState == "producing"
        assert [data for _, data, *_ in peer.protocol.heard[1:]] == [b"a", b"b", b"c"]

    def test_opened_comes_before_the_messages(self, connect: Callable[..., Any], later: Later) -> None:
        peer = connect(Hooked, opened=False)
        peer.protocol.does["opened"] = later
        peer.sends(peer.HEAD + peer.text("a"), peer.text("b"))
        assert peer.reads().startswith(b"HTTP/1.1 101 ")
        assert peer.protocol.names() == ["opened"]
        later.done()
        assert peer.protocol.heard[1:] == [("text", "a"), ("text", "b")]

    def test_opened_does_not_keep_receive_waiting(self, connect: Callable[..., Any], later: Later) -> None:
        peer = connect(Noting, opened=False)
        peer.protocol.does["opened"] = later
        peer.sends(peer.HEAD + peer.text("a"))
        assert Outcome(peer.protocol.receive()) == ["a"]

    def test_messages_before_the_peers_close_come_before_closed(
        self, connect: Callable[..., Any], later: Later
    ) -> None:
        peer = connect(Hooked)
        peer.protocol.does["text"] = later
        peer.sends(peer.text("a") + peer.text("b") + peer.close())
        assert peer.reads() == NORMAL
        peer.leaves()
        assert peer.protocol.names() == ["opened", "text"]
        later.done()
        assert peer.protocol.names() == ["opened", "text", "text"]
        later.done()
        assert peer.protocol.names() == ["opened", "text", "text", "closed"]

    def test_messages_after_our_own_close_are_discarded(self, connect: Callable[..., Any], later: Later) -> None:
        peer = connect(Hooked)
        peer.protocol.does["text"] = later
        peer.sends(peer.text("a") + peer.text("b"))
        peer.protocol.close()
        peer.leaves()
        later.done()
        assert peer.protocol.names() == ["opened", "text", "closed"]

    def test_a_close_finds_the_peers_close_after_waiting_messages(
        self, connect: Callable[..., Any], later: Later
    ) -> None:
        peer = connect(Hooked)
        peer.protocol.does["text"] = later
        peer.sends(b"".join([peer.text("a")] * 50) + peer.close(4000))
        assert peer.transport.producerState == "paused"
        closed = Outcome(peer.protocol.close())
        assert peer.reads() == NORMAL
        assert peer.transport.disconnecting
        peer.leaves()
        assert (closed[0].clean, closed[0].code) == (True, 4000)
        later.done()
        assert peer.protocol.names() == ["opened", "text", "closed"]

    def test_a_late_failure_is_logged_once_and_closes(
        self, connect: Callable[..., Any], later: Later, logged: Callable[..., list[Any]]
    ) -> None:
        peer = connect(Hooked)
        peer.protocol.does["text"] = later
        peer.sends(peer.text("a") + peer.text("b"))
        later.waiting.pop(0).errback(ZeroDivisionError())
        assert peer.reads() == close(1011)
        assert len(logged(ZeroDivisionError)) == 1
        assert peer.protocol.names() == ["opened", "text"]
        peer.leaves()
        assert peer.protocol.names() == ["opened", "text", "closed"]

    def test_a_failure_after_the_end_is_logged_once(
        self, connect: Callable[..., Any], later: Later, logged: Callable[..., list[Any]]
    ) -> None:
        peer = connect(Hooked)
        peer.protocol.does["text"] = later
        peer.sends(peer.text("a") + peer.text("b"))
        peer.leaves(ConnectionLost())
        later.waiting.pop(0).errback(ZeroDivisionError())
        assert len(logged(ZeroDivisionError)) == 1
        later.done()
        assert peer.protocol.names() == ["opened", "text", "text", "closed"]

    def test_a_hook_that_sends_after_the_end_logs_nothing(self, connect: Callable[..., Any], later: Later) -> None:
        peer = connect(Hooked)

        async def echo(content: str) -> None:
            await later()
            peer.protocol.send(content)

        peer.protocol.does["text"] = echo
        peer.sends(peer.text("a") + peer.text("b"))
        peer.leaves(ConnectionLost())
        later.done()
        later.done()
        assert peer.protocol.names() == ["opened", "text", "text", "closed"]


HOOKS = ["opened", "text", "binary", "ping", "pong", "closed"]


class TestLossInsideAHook:
    """The connection is lost inside a hook."""

    @pytest.mark.parametrize("hook", ["opened", "text", "binary", "ping", "pong", "fragment"])
    @pytest.mark.parametrize("fails", [False, True])
    def test_nothing_is_raised_to_the_transport(
        self, connect: Callable[..., Any], logged: Callable[..., list[Any]], hook: str, fails: bool
    ) -> None:
        def lose(*_: object) -> None:
            peer.leaves(ConnectionLost())
            if fails:
                raise ZeroDivisionError

        peer = connect(Streaming if hook == "fragment" else Hooked, opened=False)
        peer.protocol.does[hook] = lose
        peer.sends(peer.HEAD)
        peer.sends(peer.frame(0x89) + peer.frame(0x8A) + peer.text("a") + peer.frame(0x82, b"b"))
        assert len(logged(ZeroDivisionError)) == fails
        assert peer.protocol.names().count("closed") == 1
        assert peer.protocol.state is State.CLOSED

    @pytest.mark.parametrize("fails", [False, True])
    def test_no_hook_is_called_after_a_loss_in_a_slow_hook(
        self, connect: Callable[..., Any], later: Later, logged: Callable[..., list[Any]], fails: bool
    ) -> None:
        peer = connect(Hooked)
        peer.protocol.does["text"] = later
        peer.sends(peer.text("a") + peer.text("b") + peer.text("c"))

        def lose(*_: object) -> None:
            peer.leaves(ConnectionLost())
            if fails:
                raise ZeroDivisionError

        peer.protocol.does["text"] = lose
        later.done()
        # The messages came before the loss, so their hooks run, and `closed` runs last.
        assert len(logged(ZeroDivisionError)) == 2 * fails
        assert peer.protocol.names() == ["opened", "text", "text", "text", "closed"]


class TestFaults:
    """RFC 6455 §7.1.7 and §7.4.1: faults of hooks and of peers close the connection with their codes."""

    @pytest.mark.parametrize("how", ["raise", "Deferred", "coroutine"])
    @pytest.mark.parametrize("hook", [*HOOKS, "fragment"])
    def test_a_fault_of_a_hook_is_logged_once_and_closes_with_1011(
        self, connect: Callable[..., Any], logged: Callable[..., list[Any]], hook: str, how: str
    ) -> None:
        async def coroutine() -> None:
            raise ZeroDivisionError

        def fault(*_: object) -> Any:
            if how == "Deferred":
                return fail(ZeroDivisionError())
            if how == "coroutine":
                return coroutine()
            raise ZeroDivisionError

        peer = connect(Streaming if hook == "fragment" else Hooked, opened=False)
        peer.protocol.does[hook] = fault
        peer.sends(peer.HEAD)
        assert peer.reads().endswith(b"\r\n\r\n" + close(1011) * (hook == "opened"))
        peer.sends(peer.frame(0x89), peer.frame(0x8A))
        if hook in ("text", "binary", "fragment"):
            peer.sends(peer.text("a"), peer.frame(0x82, b"b"))
        if hook != "closed":
            assert peer.reads().endswith(close(1011) if hook != "opened" else b"")
            assert peer.transport.disconnecting
            assert isinstance(peer.protocol.close_reason.error, ZeroDivisionError)
        peer.leaves()
        assert len(logged(ZeroDivisionError)) == 1
        assert peer.protocol.names().count("closed") == 1
        assert peer.protocol.names()[-1] == "closed"

    def test_a_fault_of_the_peer_is_logged(self, connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
        told: list[str] = []
        log = Logger("connection", observer=as_observer(lambda event: told.append(formatEvent(event))))
        # The `log` of a protocol belongs to the application; the library logs with its own.
        monkeypatch.setattr("twisted_beastws.connection.ending.log", log)
        peer = connect(limits=Limits(max_message_size=5))
        peer.sends(peer.text("longer"))
        assert peer.reads() == close(1009)
        peer.leaves()
        assert len(told) == 1
        assert told[0].startswith(f"connection {peer.protocol.connection_id} of ")
        assert told[0].endswith(" was closed: message too big: Limits.max_message_size is 5")

    @pytest.mark.parametrize("hook", [*HOOKS, "fragment"])
    def test_a_hook_that_is_a_generator_closes_with_1011(
        self, connect: Callable[..., Any], logged: Callable[..., list[Any]], hook: str
    ) -> None:
        """Without ``inlineCallbacks``, the body of a generator would never run, and the log would not show it."""

        def fault(*_: object) -> Any:
            yield

        peer = connect(Streaming if hook == "fragment" else Hooked, opened=False)
        peer.protocol.does[hook] = fault
        peer.sends(peer.HEAD)
        peer.sends(peer.frame(0x89), peer.frame(0x8A), peer.text("a"), peer.frame(0x82, b"b"))
        peer.leaves()
        (error,) = logged(TypeError)
        assert "fault at 0x" in str(error) and "inlineCallbacks" in str(error)
        if hook != "closed":
            assert peer.protocol.close_reason.error is error

    @pytest.mark.parametrize(("hook", "told"), [("text", ", which is closed with 1011"), ("closed", "")])
    def test_a_logged_fault_names_the_end_of_the_connection(
        self, connect: Callable[..., Any], logged: Callable[..., list[Any]], hook: str, told: str
    ) -> None:
        lines: list[str] = []
        peer = connect(Hooked)
        peer.protocol.does[hook] = lambda *_: 1 / 0
        watch = as_observer(lambda event: lines.append(formatEvent(event)))
        globalLogPublisher.addObserver(watch)
        peer.sends(peer.text("a"))
        peer.sends(peer.close())
        peer.leaves()
        globalLogPublisher.removeObserver(as_observer(watch))
        logged(ZeroDivisionError)
        (line,) = [line for line in lines if line.startswith("the application failed")]
        connection = f"connection {peer.protocol.connection_id} of 192.168.1.1:54321"
        assert line == f"the application failed on {connection}{told}"

    @pytest.mark.parametrize("hook", HOOKS)
    def test_a_hook_that_fails_because_another_connection_closed_logs_nothing(
        self, connect: Callable[..., Any], hook: str
    ) -> None:
        gone = connect(Noting)
        gone.leaves()

        def fault(*_: object) -> Any:
            gone.protocol.send("too late")

        peer = connect(Hooked, opened=False)
        peer.protocol.does[hook] = fault
        peer.sends(peer.HEAD)
        peer.reads()
        peer.sends(peer.frame(0x8A), peer.text("a"), peer.frame(0x82, b"b"), peer.frame(0x89))
        assert peer.reads() == b"\x8a\x00"
        assert peer.protocol.names() == ["opened", "pong", "text", "binary", "ping"]
        peer.leaves()

    @pytest.mark.parametrize(
        ("wire", "code", "error"),
        [
            (b"\x81\x01a", 1002, errors.BadUnmaskedFrame),
            (b"\x83\x80\0\0\0\0", 1002, errors.BadOpcode),
            (b"\x88\x82\0\0\0\0\x03\xec", 1002, errors.BadCloseCode),
            (b"\x81\x81\0\0\0\0\xff", 1007, errors.BadFramePayload),
            (b"\x82\xfe\x03\xe9\0\0\0\0", 1009, errors.MessageTooBig),
        ],
    )
    def test_a_fault_of_the_peer_is_answered(
        self, connect: Callable[..., Any], wire: bytes, code: int, error: type[Exception]
    ) -> None:
        peer = connect(Hooked, limits=Limits(max_message_size=1000))
        peer.sends(wire + peer.text("never seen"))
        assert peer.reads() == close(code)
        assert peer.protocol.state is State.CLOSING
        assert peer.transport.disconnecting
        peer.sends(peer.text("never seen"), peer.close())
        assert peer.reads() == b""
        peer.leaves()
        reason = peer.protocol.close_reason
        assert (reason.code, reason.clean, reason.began, reason.sent) == (1006, False, "local", Close(code))
        assert type(reason.error) is error
        assert peer.protocol.names() == ["opened", "closed"]


class TestState:
    """The property `state`."""

    def test_the_state_is_read_only(self, connect: Callable[..., Any], logged: Callable[..., list[Any]]) -> None:
        class Parser(WebSocketProtocol):
            def opened(self) -> None:
                self.state = "header"  # type: ignore[misc, assignment]

        peer = connect(Parser, opened=False)
        peer.sends(peer.HEAD)
        assert peer.reads().endswith(close(1011))
        (error,) = logged(AttributeError)
        assert "state" in str(error)
        assert peer.protocol.state is State.CLOSING

    def test_a_subclass_may_not_hide_the_state(self) -> None:
        with pytest.raises(TypeError, match=r"Room.state would hide WebSocketProtocol.state, which is no hook"):

            class Room(WebSocketProtocol):
                state = "lobby"  # type: ignore[assignment]


class TestConnectionLost:
    """`connectionLost`, and a subclass that overrides it."""

    def test_an_override_need_not_call_ours(self, connect: Callable[..., Any]) -> None:
        heard: list[Any] = []

        class Losing(Noting):
            def connectionLost(self, reason: Failure = connectionDone) -> None:
                heard.append(reason.value)

        class Further(Losing):
            def connectionLost(self, reason: Failure = connectionDone) -> None:
                super().connectionLost(reason)
                heard.append(self.state)

        for cls in (Losing, Further):
            peer = connect(cls)
            done = ConnectionDone()
            peer.leaves(done)
            assert heard.pop(0) is done
            assert peer.protocol.state is State.CLOSED
            assert inside(peer.protocol).server.connections == set()
        assert heard == [State.CLOSED]

    def test_ours_runs_if_the_override_fails(self, connect: Callable[..., Any]) -> None:
        class Failing(Noting):
            def connectionLost(self, reason: Failure = connectionDone) -> None:
                raise ZeroDivisionError

        peer = connect(Failing)
        with pytest.raises(ZeroDivisionError):
            peer.leaves()
        assert peer.protocol.state is State.CLOSED

    def test_each_waiting_caller_has_its_own_traceback(self, connect: Callable[..., Any]) -> None:
        peer = connect()
        told = []

        async def wait() -> None:
            try:
                await peer.protocol.receive()
            except ConnectionClosed as error:
                frames, place = 0, error.__traceback__
                while place is not None:
                    frames, place = frames + 1, place.tb_next
                told.append(frames)

        for _ in range(5):
            Deferred.fromCoroutine(wait())
        peer.leaves()
        assert len(told) == 5 and len(set(told)) == 1

    def test_messages_without_receiver_are_logged_once(
        self, connect: Callable[..., Any], request: pytest.FixtureRequest
    ) -> None:
        told: list[Any] = []
        globalLogPublisher.addObserver(as_observer(told.append))
        request.addfinalizer(lambda: globalLogPublisher.removeObserver(as_observer(told.append)))
        peer = connect()
        peer.sends(peer.frame(0x81, b"a") * 20)
        for _ in range(20):
            peer.protocol.receive()
        peer.sends(peer.frame(0x81, b"a") * 20)
        (line,) = map(formatEvent, told)
        assert "16 messages wait" in line and "receive()" in line


class TestReceive:
    """`receive`, and ``async for``."""

    def test_messages_are_received_in_order(self, connect: Callable[..., Any]) -> None:
        peer = connect()
        waiting = [Outcome(peer.protocol.receive()) for _ in range(2)]
        peer.sends(peer.text("a") + peer.frame(0x82, b"b") + peer.text("c"))
        assert waiting == [["a"], [b"b"]]
        assert Outcome(peer.protocol.receive()) == ["c"]

    @pytest.mark.parametrize("count", [15, 16, 17])
    def test_reading_is_paused_if_no_message_is_received(self, connect: Callable[..., Any], count: int) -> None:
        peer = connect()
        peer.sends(*[peer.text("a")] * count)
        assert inside(peer.protocol).reading.paused == (count >= 16)
        assert peer.transport.producerState == ("paused" if count >= 16 else "producing")
        for left in range(count - 1, -1, -1):
            assert Outcome(peer.protocol.receive()) == ["a"]
            if count == 16:
                assert (peer.transport.producerState == "producing") == (left <= 4)
        assert peer.transport.producerState == "producing"

    def test_parsing_ahead_is_bounded_in_a_chunk_too(self, connect: Callable[..., Any]) -> None:
        peer = connect()
        peer.sends(b"".join(peer.text(str(number)) for number in range(1000)))
        # No public name shows how many messages wait for `receive`.
        assert len(inside(peer.protocol).delivery._inbox) == 16
        got = [Outcome(peer.protocol.receive())[0] for _ in range(1000)]
        assert got == [str(number) for number in range(1000)]
        assert peer.transport.producerState == "producing"

    def test_a_cancelled_receive_loses_no_message(self, connect: Callable[..., Any]) -> None:
        peer = connect()
        first, second, third = (peer.protocol.receive() for _ in range(3))
        outcomes = [Outcome(first), Outcome(second), Outcome(third)]
        second.cancel()
        assert outcomes[1].types == [CancelledError]
        peer.sends(peer.text("a") + peer.text("b") + peer.text("c"))
        assert (outcomes[0], outcomes[2]) == (["a"], ["b"])
        assert Outcome(peer.protocol.receive()) == ["c"]

    def test_queued_messages_are_received_after_the_close(self, connect: Callable[..., Any]) -> None:
        peer = connect()
        peer.sends(peer.text("a") + peer.text("b") + peer.close(4000))
        assert Outcome(peer.protocol.receive()) == ["a"]
        peer.leaves()
        assert Outcome(peer.protocol.receive()) == ["b"]
        late = Outcome(peer.protocol.receive())
        assert late.types == [ConnectionClosed]
        assert late[0].reason.code == 4000

    def test_receive_fails_when_the_connection_ends(self, connect: Callable[..., Any]) -> None:
        peer = connect()
        waiting = [Outcome(peer.protocol.receive()) for _ in range(3)]
        peer.leaves(ConnectionLost())
        assert [one.types for one in waiting] == [[ConnectionClosed]] * 3
        assert waiting[0][0].reason is peer.protocol.close_reason
        assert isinstance(waiting[0][0].reason.error, ConnectionLost)

    def test_an_errback_of_receive_may_cancel_another(self, connect: Callable[..., Any]) -> None:
        peer = connect()
        waiting = [peer.protocol.receive() for _ in range(3)]
        outcomes: list[type] = []

        def cancel_others(failure: Any) -> None:
            outcomes.append(failure.check(ConnectionClosed, CancelledError))
            for one in waiting:
                one.cancel()

        for one in waiting:
            one.addErrback(cancel_others)
        peer.leaves()
        assert outcomes == [ConnectionClosed, CancelledError, CancelledError]

    def test_receive_fails_when_a_closing_connection_ends(self, connect: Callable[..., Any]) -> None:
        peer = connect()
        peer.protocol.close()
        waiting = Outcome(peer.protocol.receive())
        peer.sends(peer.text("thrown away"))
        assert waiting == []
        peer.sends(peer.close())
        peer.leaves()
        assert waiting.types == [ConnectionClosed]

    @pytest.mark.parametrize("cls", [Hooked, Texts, Binaries, Streaming])
    def test_receive_is_refused_if_hooks_get_the_messages(self, connect: Callable[..., Any], cls: type[Any]) -> None:
        peer = connect(cls)
        with pytest.raises(LocalError, match=cls.__name__):
            peer.protocol.receive()

    @pytest.mark.parametrize(
        ("code", "ends"), [(1000, True), (1001, True), (1002, False), (4000, False), (None, False)]
    )
    def test_async_for_ends_with_the_close(self, connect: Callable[..., Any], code: int | None, ends: bool) -> None:
        got: list[Any] = []

        async def take(ws: WebSocketProtocol) -> None:
            try:
                async for message in ws:
                    got.append(message)
                got.append("end")
            except ConnectionClosed as error:
                got.append(error.reason.code)

        peer = connect(take)
        peer.sends(peer.text("a"), peer.frame(0x82, b"b"), peer.close(code))
        peer.leaves()
        assert got == ["a", b"b", "end" if ends else code or 1005]

    def test_async_for_fails_if_the_connection_is_lost(self, connect: Callable[..., Any]) -> None:
        got: list[Any] = []

        async def take(ws: WebSocketProtocol) -> None:
            try:
                async for message in ws:
                    got.append(message)
            except ConnectionClosed as error:
                got.append(error.reason.code)

        peer = connect(take)
        peer.sends(peer.text("a"))
        peer.leaves(ConnectionLost())
        assert got == ["a", 1006]


def streamed(ws: WebSocketProtocol, data: Any) -> None:
    with ws.message() as message:
        message.write(data)


class TestSend:
    """RFC 6455 §6.1: `send` and its siblings."""

    def test_send_may_be_replaced_on_a_connection(self, connect: Callable[..., Any]) -> None:
        peer = connect(opened=False)
        sent: list[Any] = []
        peer.protocol.send = sent.append
        peer.sends(peer.HEAD)
        peer.protocol.send("hello")
        assert sent == ["hello"]
        peer.leaves()
        peer.protocol.send("late")
        assert sent == ["hello", "late"]

    def test_send_may_be_replaced_on_the_class(
        self, connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sent: list[Any] = []
        monkeypatch.setattr(WebSocketProtocol, "send", lambda self, message: sent.append(message))
        peer = connect()
        peer.protocol.send("hello")
        assert sent == ["hello"]

    @pytest.mark.parametrize("kind", ["B", "c", "i"])
    @pytest.mark.parametrize(
        ("send", "head"),
        [
            (lambda ws, data: ws.send(data), b"\x82\x08"),
            (lambda ws, data: ws.send(data, compress=False), b"\x82\x08"),
            (lambda ws, data: ws.send(prepare(data)), b"\x82\x08"),
            (lambda ws, data: ws.send_binary(data), b"\x82\x08"),
            (lambda ws, data: ws.send_binary(data, compress=False), b"\x82\x08"),
            (lambda ws, data: ws.send_text(data), b"\x81\x08"),
            (lambda ws, data: ws.write(data), b"\x82\x08"),
            (lambda ws, data: ws.ping(data) and None, b"\x89\x08"),
            (lambda ws, data: ws.pong(data), b"\x8a\x08"),
            (streamed, b"\x01\x08"),
        ],
    )
    def test_a_view_of_memory_is_sent(
        self, connect: Callable[..., Any], send: Callable[..., Any], head: bytes, kind: Any
    ) -> None:
        peer = connect()
        send(peer.protocol, memoryview(b"12345678").cast(kind))
        assert peer.reads().startswith(head + b"12345678")

    @pytest.mark.parametrize(
        ("send", "taken"),
        [
            (lambda ws: ws.send_binary("a"), r"send_binary\(\) takes bytes, not str"),
            (lambda ws: ws.send_binary(None, compress=False), r"send_binary\(\) takes bytes, not NoneType"),
            (lambda ws: ws.send_text(5), r"send_text\(\) takes str or bytes, not int"),
            (lambda ws: ws.write([1]), r"send_binary\(\) takes bytes, not list"),
            (lambda ws: ws.ping("a"), r"ping\(\) takes bytes, not str"),
            (lambda ws: ws.pong(5), r"pong\(\) takes bytes, not int"),
        ],
    )
    def test_a_value_of_another_type_is_refused(
        self, connect: Callable[..., Any], send: Callable[..., Any], taken: str
    ) -> None:
        peer = connect()
        with pytest.raises(TypeError, match=taken):
            send(peer.protocol)
        assert peer.reads() == b""

    def test_a_part_of_another_type_is_refused(self, connect: Callable[..., Any]) -> None:
        peer = connect()
        with pytest.raises(TypeError, match=r"write\(\) takes str or bytes, not int"):
            streamed(peer.protocol, 5)
        assert peer.reads() == b"\x88\x02\x03\xf3"

    @pytest.mark.parametrize(
        ("send", "wire"),
        [
            (lambda ws: ws.send("\N{EURO SIGN}"), b"\x81\x03\xe2\x82\xac"),
            (lambda ws: ws.send(b"a"), b"\x82\x01a"),
            (lambda ws: ws.send(""), b"\x81\x00"),
            (lambda ws: ws.send_text("a"), b"\x81\x01a"),
            (lambda ws: ws.send_text(b"a"), b"\x81\x01a"),
            (lambda ws: ws.send_binary(b"a"), b"\x82\x01a"),
            (lambda ws: ws.send_binary(bytes(125)), b"\x82\x7d" + bytes(125)),
            (lambda ws: ws.send_binary(bytes(126)), b"\x82\x7e\x00\x7e" + bytes(126)),
            (lambda ws: ws.send_binary(bytes(65535)), b"\x82\x7e\xff\xff" + bytes(65535)),
            (lambda ws: ws.send_binary(bytes(65536)), b"\x82\x7f\0\0\0\0\0\x01\0\0" + bytes(65536)),
            (lambda ws: ws.ping(b"a") and None, b"\x89\x01a"),
            (lambda ws: ws.pong(b"a"), b"\x8a\x01a"),
        ],
    )
    def test_a_message_is_written_at_once(
        self, connect: Callable[..., Any], send: Callable[..., Any], wire: bytes
    ) -> None:
        peer = connect()
        send(peer.protocol)
        assert peer.transport.writes == [wire]
        assert peer.protocol.buffered_amount == 0

    SENDS: tuple[Callable[[Any], Any], ...] = (
        lambda ws: ws.send("a"),
        lambda ws: ws.send(b"a"),
        lambda ws: ws.send_text("a"),
        lambda ws: ws.send_binary(b"a"),
        lambda ws: ws.ping(),
        lambda ws: ws.pong(),
    )

    def test_drain_is_refused_without_a_connection(self) -> None:
        with pytest.raises(LocalError, match="connecting"):
            WebSocketProtocol().drain()

    @pytest.mark.parametrize("send", [*SENDS, lambda ws: ws.receive()])
    def test_a_message_before_the_opening_is_refused(
        self, connect: Callable[..., Any], send: Callable[..., Any]
    ) -> None:
        for protocol in (WebSocketProtocol(), connect(opened=False).protocol):
            with pytest.raises(LocalError, match="connecting"):
                send(protocol)

    @pytest.mark.parametrize("send", SENDS)
    @pytest.mark.parametrize("when", ["closing", "peer closed", "failed", "lost", "lost in closed"])
    def test_a_message_after_a_close_is_refused(
        self, connect: Callable[..., Any], when: str, send: Callable[..., Any]
    ) -> None:
        caught: list[BaseException] = []

        class Late(Noting):
            def closed(self, reason: CloseReason) -> None:
                if when == "lost in closed":
                    with pytest.raises(ConnectionClosed) as error:
                        send(self)
                    caught.append(error.value)

        peer = connect(Late)
        if when == "closing":
            peer.protocol.close()
        elif when == "peer closed":
            peer.sends(peer.close())
        elif when == "failed":
            peer.sends(b"\xff\xff")
        else:
            peer.leaves()
        peer.reads()
        with pytest.raises(ConnectionClosed) as error:
            send(peer.protocol)
        assert error.value.reason.sent == peer.protocol.close_reason.sent
        assert peer.reads() == b""
        assert len(caught) == (when == "lost in closed")

    def test_a_text_with_surrogates_is_refused(self, connect: Callable[..., Any]) -> None:
        peer = connect()
        with pytest.raises(UnicodeEncodeError):
            peer.protocol.send("\ud800")
        assert peer.reads() == b""
        assert peer.protocol.state is State.OPEN

    def test_a_ping_that_is_too_long_is_refused(self, connect: Callable[..., Any]) -> None:
        peer = connect()
        with pytest.raises(LocalError, match="126 bytes"):
            peer.protocol.ping(bytes(126))
        with pytest.raises(LocalError, match="126 bytes"):
            peer.protocol.pong(bytes(126))
        assert peer.reads() == b""


LIMITS: dict[str, Any] = {"max_message_size": 1000, "max_buffered": 1000, "high_water": 500, "low_water": 100}


def stall(peer: Any) -> None:
    """Stall the transport, which takes one more frame and then pauses the server."""
    peer.transport.stall()
    peer.protocol.send("-")
    assert peer.reads() == text("-")


class TestSlowReader:
    """The policies for peers that read too slowly (`docs/topics/backpressure.md`)."""

    @pytest.mark.parametrize("size", [999, 1000, 1001])
    def test_the_policy_close_closes_with_1013_at_the_limit(
        self, connect: Callable[..., Any], clock: Clock, size: int
    ) -> None:
        peer = connect(Noting, limits=Limits(**LIMITS))
        stall(peer)
        peer.protocol.send(bytes(size - 504))
        peer.protocol.send(bytes(496))
        if size <= 1000:
            assert peer.protocol.buffered_amount == size + 3
            assert peer.protocol.state is State.OPEN
            peer.transport.flow()
            assert len(peer.reads()) == size
            return
        # The server discards pending messages, so that a slow reader has only the close frame to read.
        assert peer.protocol.state is State.CLOSING
        assert peer.protocol.close_reason.sent == Close(1013, "too slow a reader")
        with pytest.raises(ConnectionClosed):
            peer.protocol.send("a")
        peer.transport.flow()
        assert peer.reads() == close(1013, "too slow a reader")
        peer.sends(peer.close(1013))
        assert peer.transport.disconnecting
        peer.leaves()
        assert peer.protocol.close_reason.clean
        assert clock.calls == []

    def test_a_peer_that_never_reads_is_closed(self, connect: Callable[..., Any], clock: Clock) -> None:
        peer = connect(Noting, limits=Limits(**LIMITS), timeouts=Timeouts(close=5.0))
        stall(peer)
        for _ in range(3):
            peer.protocol.send(bytes(400))
        clock.advance(5.1)
        assert peer.transport.disconnected
        peer.leaves(ConnectionAborted())
        assert clock.calls == []
        assert peer.protocol.names() == ["opened", "closed"]

    def test_the_policy_drop_skips_messages_at_the_limit(self, connect: Callable[..., Any]) -> None:
        peer = connect(limits=Limits(slow_reader="drop", **LIMITS))
        stall(peer)
        for size in (900, 95, 1, 90, 50):
            peer.protocol.send(bytes(size))
        assert peer.protocol.dropped_messages == 2
        assert peer.protocol.state is State.OPEN
        peer.transport.flow()
        read = peer.reads()
        assert read == b"\x82\x7e\x03\x84" + bytes(900) + b"\x82\x01\x00" + b"\x82\x5a" + bytes(90)

    def test_the_policy_pause_raises_buffer_full_at_the_limit(self, connect: Callable[..., Any]) -> None:
        peer = connect(limits=Limits(slow_reader="pause", **LIMITS))
        stall(peer)
        peer.protocol.send(bytes(900))
        with pytest.raises(BufferFull, match="1000"):
            peer.protocol.send(bytes(100))
        peer.protocol.send(bytes(94))
        assert peer.protocol.state is State.OPEN
        drained = Outcome(peer.protocol.drain())
        assert drained == []
        peer.transport.flow()
        assert drained == [None]
        assert len(peer.reads()) == 904 + 96
        peer.protocol.send(bytes(900))

    @pytest.mark.parametrize("policy", ["close", "drop", "pause"])
    def test_a_message_that_can_never_fit_is_refused(self, connect: Callable[..., Any], policy: Any) -> None:
        peer = connect(limits=Limits(slow_reader=policy, **LIMITS))
        peer.protocol.send(bytes(996))
        with pytest.raises(LocalError, match="1205 bytes"):
            peer.protocol.send(bytes(1201))
        assert peer.protocol.state is State.OPEN
        assert len(peer.reads()) == 1000

    def test_a_flood_of_pings_of_a_stalled_peer_is_bounded(self, connect: Callable[..., Any]) -> None:
        peer = connect(limits=Limits(**LIMITS))
        stall(peer)
        for number in range(10_000):
            peer.sends(peer.frame(0x89, b"%d" % number))
        assert peer.protocol.buffered_amount <= 1000
        assert peer.reads() == b""
        peer.transport.flow()
        assert peer.reads() == b"\x8a\x049999"

    def test_a_flood_of_pings_in_chunks_is_bounded(self, connect: Callable[..., Any]) -> None:
        peer = connect(limits=Limits(**LIMITS))
        peer.transport.stall()
        flood = peer.frame(0x89, bytes(125)) * 500
        for _ in range(100):
            peer.sends(flood)
        assert len(peer.reads()) < 2 << 16
        assert peer.protocol.buffered_amount < 2 << 16

    def test_echoes_of_a_chunk_to_a_stalled_peer_are_bounded(self, connect: Callable[..., Any]) -> None:
        for policy in ("close", "drop", "pause"):
            peer = connect(Echo, limits=Limits(slow_reader=policy, **LIMITS))
            stall(peer)
            if policy == "pause":
                continue
            peer.sends(peer.frame(0x82, bytes(100)) * 100)
            assert peer.protocol.buffered_amount <= 1003 + 25
            assert (peer.protocol.state is State.OPEN) == (policy == "drop")

    def test_control_frames_are_sent_before_pending_messages(self, connect: Callable[..., Any]) -> None:
        peer = connect(limits=Limits(**LIMITS))
        stall(peer)
        peer.protocol.send(bytes(996))
        peer.protocol.pong(b"pong")
        Outcome(peer.protocol.ping(b"ping"))
        peer.protocol.close()
        peer.transport.flow()
        read = peer.reads()
        assert read.startswith(b"\x8a\x04pong\x89\x04ping\x82\x7e")
        assert read.endswith(NORMAL)
        peer.leaves()


class TestDrain:
    """`drain`: wait until the pending data has left."""

    def test_drain_fires_at_once_if_no_data_is_pending(self, connect: Callable[..., Any]) -> None:
        peer = connect()
        peer.protocol.send(bytes(10_000))
        assert Outcome(peer.protocol.drain()) == [None]

    def test_drain_fails_when_the_connection_ends(self, connect: Callable[..., Any]) -> None:
        peer = connect(limits=Limits(**LIMITS))
        stall(peer)
        peer.protocol.send(bytes(500))
        waiting = Outcome(peer.protocol.drain())
        peer.leaves()
        assert waiting.types == [ConnectionClosed]
        assert Outcome(peer.protocol.drain()).types == [ConnectionClosed]

    def test_a_cancelled_drain_changes_nothing(self, connect: Callable[..., Any]) -> None:
        peer = connect(limits=Limits(**LIMITS))
        stall(peer)
        peer.protocol.send(bytes(500))
        waiting = peer.protocol.drain()
        outcome = Outcome(waiting)
        waiting.cancel()
        assert outcome.types == [CancelledError]
        peer.transport.flow()
        assert peer.protocol.state is State.OPEN


class TestMessageTypes:
    """Messages of another type than str or bytes."""

    @pytest.mark.parametrize("message", [5, None, {}, Deferred()], ids=repr)
    def test_a_value_of_another_kind_is_not_sent(
        self, connect: Callable[..., Any], message: Deferred[Any] | dict[Any, Any] | int | None
    ) -> None:
        peer = connect(Noting)
        with pytest.raises(TypeError) as refused:
            peer.protocol.send(message)
        hint = ": await or yield it?" * isinstance(message, Deferred)
        told = f"send() takes str, bytes or what prepare() made, not {type(message).__name__}{hint}"
        assert str(refused.value) == told
        assert peer.reads() == b""

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_bytes_of_every_kind_are_sent(self, connect: Callable[..., Any], kind: type[Any]) -> None:
        peer = connect(Noting)
        peer.protocol.send(kind(b"abc"))
        assert peer.reads() == b"\x82\x03abc"


class TestKeptSend:
    """An application may store ``send``: the stored method stays equal to the connection's ``send``."""

    def test_a_kept_method_is_the_same(self, connect: Callable[..., Any]) -> None:
        room: list[Any] = []

        class Member(WebSocketProtocol):
            def opened(self) -> None:
                room.append(self.send)

            def closed(self, reason: CloseReason) -> None:
                room.remove(self.send)

        peer = connect(Member)
        (send,) = room
        send("hello")
        assert peer.reads() == b"\x81\x05hello"
        peer.leaves()
        assert room == []
        with pytest.raises(ConnectionClosed):
            send("hello")
        with pytest.raises(ConnectionClosed):
            peer.protocol.send("hello")

    def test_a_kept_method_may_be_held_weakly(self, connect: Callable[..., Any]) -> None:
        peer = connect()
        send = weakref.WeakMethod(peer.protocol.send)
        kept = send()
        assert kept is not None
        kept("hello")
        assert peer.reads() == b"\x81\x05hello"


def test_a_long_text_does_not_keep_its_bytes(connect: Callable[..., Any]) -> None:
    text = "\N{EURO SIGN}" * 20_000
    size = sys.getsizeof(text)
    peer = connect()
    peer.protocol.send(text)
    assert peer.reads().endswith(text.encode())
    assert sys.getsizeof(text) == size


class TestPing:
    """RFC 6455 §5.5.2 and §5.5.3: `ping` and its round trip."""

    def test_a_ping_may_be_ignored(self, connect: Callable[..., Any]) -> None:
        """The caller may ignore the Deferred: the ``logged`` fixture would find an unhandled error."""
        peer = connect()
        for _ in range(3):
            peer.protocol.ping()
        peer.protocol.ping().addCallback(lambda seconds: None)
        peer.leaves()

    def test_a_late_callback_of_a_ping_is_called(self, connect: Callable[..., Any]) -> None:
        peer = connect()
        answered = peer.protocol.ping()
        peer.leaves()
        assert Outcome(answered).types == [ConnectionClosed]

    def test_the_round_trip_has_the_time_that_sending_takes(
        self, connect: Callable[..., Any], clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        peer = connect()
        emit = inside(peer.protocol).outgoing.write_control

        def write_slowly(_: object, *frame: Any) -> None:
            clock.advance(0.5)
            emit(*frame)

        monkeypatch.setattr(Outgoing, "write_control", write_slowly)
        answered = Outcome(peer.protocol.ping(b"a"))
        peer.sends(peer.frame(0x8A, b"a"))
        assert answered == [0.5]

    def test_a_ping_has_the_round_trip_time(self, connect: Callable[..., Any], clock: Clock) -> None:
        peer = connect()
        answered = Outcome(peer.protocol.ping(b"a"))
        assert peer.reads() == b"\x89\x01a"
        clock.advance(0.25)
        peer.sends(peer.frame(0x8A, b"a"))
        assert answered == [0.25]
        assert peer.protocol.latency == 0.25

    def test_a_pong_answers_all_earlier_pings(self, connect: Callable[..., Any], clock: Clock) -> None:
        peer = connect()
        answered = [Outcome(peer.protocol.ping(payload)) for payload in (b"a", b"b", b"c")]
        clock.advance(1)
        peer.sends(peer.frame(0x8A, b"b"))
        assert answered == [[1.0], [1.0], []]

    def test_a_cancelled_ping_leaves_the_others(self, connect: Callable[..., Any], clock: Clock) -> None:
        peer = connect()
        first, second = peer.protocol.ping(b"a"), peer.protocol.ping(b"b")
        outcomes = [Outcome(first), Outcome(second)]
        first.cancel()
        peer.sends(peer.frame(0x8A, b"a"))
        assert outcomes[0].types == [CancelledError]
        peer.sends(peer.frame(0x8A, b"b"))
        assert outcomes[1] == [0.0]

    def test_a_ping_fails_when_the_connection_ends(self, connect: Callable[..., Any]) -> None:
        peer = connect()
        answered = Outcome(peer.protocol.ping())
        peer.leaves()
        assert answered.types == [ConnectionClosed]


class TestClose:
    """RFC 6455 §7.1.2: `close` and `abort`."""

    def test_close_fires_after_the_peers_close_frame_and_the_end_of_tcp(
        self, connect: Callable[..., Any], clock: Clock
    ) -> None:
        peer = connect(Noting)
        closed = Outcome(peer.protocol.close(4001, "why"))
        assert peer.reads() == close(4001, "why")
        assert peer.protocol.state is State.CLOSING
        assert not peer.transport.disconnecting
        peer.sends(peer.text("thrown away"), peer.frame(0x89))
        assert peer.reads() == b""
        peer.sends(peer.close(4001, b"so"))
        assert peer.transport.disconnecting
        assert closed == []
        peer.leaves()
        expected = CloseReason(4001, "so", True, "local", Close(4001, "why"), Close(4001, "so"))
        assert closed == [expected]
        assert peer.protocol.heard == [("opened",), ("ping", b""), ("closed", expected)] or peer.protocol.heard == [
            ("opened",),
            ("closed", expected),
        ]
        assert clock.calls == []

    def test_callers_of_when_closed_are_notified_before_the_hook(self, connect: Callable[..., Any]) -> None:
        peer = connect(opened=False)
        with pytest.raises(LocalError):
            peer.protocol.when_closed()
        peer = connect(Noting)
        told = []
        peer.protocol.when_closed().addCallback(lambda reason: told.append((reason.code, *peer.protocol.names())))
        peer.leaves(ConnectionLost())
        assert told == [(1006, "opened")]
        assert peer.protocol.names() == ["opened", "closed"]
        assert Outcome(peer.protocol.when_closed())[0].code == 1006

    def test_a_second_close_changes_nothing(self, connect: Callable[..., Any]) -> None:
        peer = connect(Noting)
        closed = [Outcome(peer.protocol.close(4001)), Outcome(peer.protocol.close(4002))]
        assert peer.reads() == close(4001)
        peer.sends(peer.close(4001))
        closed.append(Outcome(peer.protocol.close(4003)))
        peer.leaves()
        closed.append(Outcome(peer.protocol.close(4004)))
        assert peer.reads() == b""
        assert [one[0].sent for one in closed] == [Close(4001)] * 4
        assert peer.protocol.names() == ["opened", "closed"]

    @pytest.mark.parametrize("answers_at", [None, 9.0])
    def test_the_close_timeout_runs_to_the_end_of_tcp(
        self, connect: Callable[..., Any], clock: Clock, answers_at: float | None
    ) -> None:
        """The timeout runs from our close frame; the peer's close frame does not extend it."""
        peer = connect(Noting, timeouts=Timeouts(close=10.0))
        closed = Outcome(peer.protocol.close())
        clock.advance(9.0)
        if answers_at is not None:
            peer.sends(peer.close())
        clock.advance(0.9)
        assert not peer.transport.disconnected
        clock.advance(0.2)
        assert peer.transport.disconnected
        peer.leaves(ConnectionAborted())
        assert closed[0].clean == (answers_at is not None)
        assert closed[0].code == (1006 if answers_at is None else 1000)
        assert clock.calls == []

    def test_both_ends_may_close_at_once(self, connect: Callable[..., Any]) -> None:
        peer = connect(Noting)
        closed = Outcome(peer.protocol.close(4001))
        peer.sends(peer.close(4002))
        assert peer.reads() == close(4001)
        assert peer.transport.disconnecting
        peer.leaves()
        assert closed == [CloseReason(4002, "", True, "local", Close(4001), Close(4002))]

    @pytest.mark.parametrize(
        ("code", "reason", "answer", "told"),
        [
            (1000, b"", NORMAL, 1000),
            (1001, b"bye", close(1001), 1001),
            (None, b"", NORMAL, 1005),
            (4999, b"", close(4999), 4999),
        ],
    )
    def test_a_close_of_the_peer_is_answered(
        self, connect: Callable[..., Any], code: int | None, reason: bytes, answer: bytes, told: int
    ) -> None:
        peer = connect(Noting)
        peer.sends(peer.close(code, reason) + peer.text("too late"))
        assert peer.reads() == answer
        assert peer.transport.disconnecting
        peer.leaves()
        end = peer.protocol.close_reason
        assert (end.code, end.reason, end.clean, end.began) == (told, reason.decode(), True, "peer")

    def test_an_end_of_tcp_without_a_close_frame_has_the_code_1006(self, connect: Callable[..., Any]) -> None:
        peer = connect(Noting)
        peer.leaves(ConnectionDone())
        reason = peer.protocol.close_reason
        assert (reason.code, reason.clean, reason.began, reason.sent) == (1006, False, "transport", None)
        assert type(reason.error) is ConnectionDone
        assert peer.protocol.heard == [("opened",), ("closed", reason)]

    def test_a_half_close_of_tcp_without_a_close_frame_has_the_code_1006(self, connect: Callable[..., Any]) -> None:
        peer = connect(Noting)
        peer.protocol.readConnectionLost()
        assert peer.transport.disconnecting
        peer.leaves()
        reason = peer.protocol.close_reason
        assert (reason.code, reason.clean, reason.began) == (1006, False, "transport")

    def test_a_half_close_of_tcp_after_the_closing_handshake_is_clean(self, connect: Callable[..., Any]) -> None:
        peer = connect(Noting)
        closed = Outcome(peer.protocol.close())
        peer.sends(peer.close())
        peer.protocol.readConnectionLost()
        peer.leaves()
        assert closed[0].clean

    def test_a_code_that_may_not_be_sent_is_refused(self, connect: Callable[..., Any]) -> None:
        peer = connect(Noting)
        for code in (0, 999, 1004, 1006, 1015, 2999, 5000):
            with pytest.raises(LocalError, match=str(code)):
                peer.protocol.close(code)
        assert peer.reads() == b""
        assert peer.protocol.state is State.OPEN

    def test_a_close_without_a_code_is_sent(self, connect: Callable[..., Any]) -> None:
        peer = connect(Noting)
        peer.protocol.close(CloseCode.NO_STATUS)
        assert peer.reads() == b"\x88\x00"

    def test_a_close_before_the_opening_drops_the_connection(self, connect: Callable[..., Any]) -> None:
        peer = connect(Noting, opened=False)
        closed = Outcome(peer.protocol.close())
        assert peer.transport.disconnected
        assert closed[0].code == 1006
        peer.leaves(ConnectionAborted())
        assert peer.protocol.heard == []

    @pytest.mark.parametrize("hook", ["opened", "text", "ping"])
    def test_a_hook_can_close(self, connect: Callable[..., Any], hook: str) -> None:
        peer = connect(Hooked, opened=False)
        closed: list[Outcome] = []
        peer.protocol.does[hook] = lambda *_: closed.append(Outcome(peer.protocol.close(4000)))
        peer.sends(peer.HEAD + peer.frame(0x89) + peer.text("a") + peer.text("b"))
        assert peer.reads().endswith(close(4000))
        peer.sends(peer.close(4000))
        peer.leaves()
        assert closed[0][0].clean
        assert "b" not in [one[1:] for one in peer.protocol.heard]
        assert peer.protocol.names()[-1] == "closed"

    def test_earlier_messages_are_sent_before_the_close(self, connect: Callable[..., Any]) -> None:
        peer = connect(Noting)
        stall(peer)
        peer.protocol.send("a")
        peer.protocol.close()
        peer.sends(peer.close())
        assert not peer.transport.disconnecting
        peer.transport.flow()
        assert peer.reads() == text("a") + NORMAL
        assert peer.transport.disconnecting

    def test_cancelling_the_deferred_of_a_close_changes_nothing(self, connect: Callable[..., Any]) -> None:
        peer = connect(Noting)
        closed = peer.protocol.close()
        outcome = Outcome(closed)
        closed.cancel()
        peer.sends(peer.close())
        peer.leaves()
        assert outcome.types == [CancelledError]
        assert peer.protocol.close_reason.clean

    def test_an_abort_is_final(self, connect: Callable[..., Any]) -> None:
        peer = connect(Noting)
        peer.protocol.abort()
        assert peer.transport.disconnected
        assert peer.reads() == b""
        peer.leaves(ConnectionAborted())
        peer.protocol.abort()
        assert peer.protocol.close_reason.code == 1006

    @pytest.mark.parametrize(
        "way", [lambda ws: ws.abort(), lambda ws: ws.transport.abortConnection()], ids=["abort", "transport"]
    )
    def test_an_abort_in_a_hook_is_final(self, connect: Callable[..., Any], way: Callable[..., Any]) -> None:
        """After an abort, the hooks get no more messages of the chunk, and the server sends nothing more."""

        class Suspicious(Noting):
            def text_received(self, text: str) -> None:
                self.note("text", text)
                self.send(f"answer to {text}")
                if text == "bad":
                    way(self)
                    with pytest.raises(ConnectionClosed):
                        self.send("more")

        peer = connect(Suspicious)
        peer.sends(peer.text("good") + peer.text("bad") + peer.text("transfer") + peer.frame(0x89))
        assert peer.protocol.names() == ["opened", "text", "text"]
        assert peer.transport.disconnected
        assert peer.reads() == b""
        peer.leaves(ConnectionAborted())
        assert peer.protocol.names() == ["opened", "text", "text", "closed"]
        assert (peer.protocol.close_reason.code, peer.protocol.close_reason.clean) == (1006, False)

    def test_lose_connection_of_the_transport_sends_a_close_frame(self, connect: Callable[..., Any]) -> None:
        peer = connect(Noting)
        peer.protocol.transport.loseConnection()
        assert peer.reads() == NORMAL
        assert not peer.transport.disconnecting

    def test_lose_connection_of_the_transport_leaves_a_pending_answer(self, connect: Callable[..., Any]) -> None:
        peer = connect(Noting, opened=False)
        transport = peer.protocol.transport
        peer.sends(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n")
        assert (peer.reads()[:12], peer.protocol.state) == (b"HTTP/1.0 400", State.CLOSING)
        transport.loseConnection()
        assert not peer.transport.disconnected


class TestLiveness:
    """Pings and timeouts of an open connection (`docs/topics/timeouts.md`)."""

    def test_pings_are_sent_at_their_interval(self, connect: Callable[..., Any], clock: Clock) -> None:
        peer = connect(Noting, timeouts=Timeouts(ping_interval=5.0))
        for _ in range(3):
            clock.pump([1.0] * 5)
            assert peer.reads() == PING
            clock.advance(0.5)
            peer.sends(peer.frame(0x8A))
            assert peer.protocol.latency == 0.5
            clock.advance(-0.5)

    def test_pings_are_skipped_while_data_waits(self, connect: Callable[..., Any], clock: Clock) -> None:
        peer = connect(Noting, timeouts=Timeouts(ping_interval=5.0))
        stall(peer)
        clock.pump([1.0] * 20)
        assert peer.protocol.buffered_amount == 3
        peer.transport.flow()
        assert peer.reads() == b""

    def test_a_silent_peer_is_closed(self, connect: Callable[..., Any], clock: Clock) -> None:
        peer = connect(Noting, timeouts=Timeouts(idle=10.0, ping_interval=None))
        clock.advance(9.9)
        peer.sends(b"\x8a")
        clock.advance(9.9)
        assert peer.protocol.state is State.OPEN
        clock.advance(0.15)
        assert peer.reads() == close(1011, "nothing was received for 10 s")
        assert peer.transport.disconnecting
        peer.leaves()
        assert isinstance(peer.protocol.close_reason.error, TimeoutError)
        assert clock.calls == []

    def test_silence_does_not_count_while_we_do_not_read(self, connect: Callable[..., Any], clock: Clock) -> None:
        peer = connect(Noting, timeouts=Timeouts(idle=10.0, ping_interval=None))
        peer.sends(peer.text("a") * 20)
        clock.pump([1.0] * 100)
        assert peer.protocol.state is State.OPEN
        for _ in range(20):
            peer.protocol.receive()
        clock.pump([1.0] * 9)
        assert state_of(peer.protocol) is State.OPEN
        clock.pump([1.0] * 2)
        assert state_of(peer.protocol) is State.CLOSING

    def test_only_pongs_are_signs_of_life_if_strict(self, connect: Callable[..., Any], clock: Clock) -> None:
        peer = connect(Noting, timeouts=Timeouts(idle=10.0, ping_interval=None, strict_pong=True))
        clock.advance(5.0)
        peer.sends(peer.frame(0x8A))
        clock.advance(9.0)
        peer.sends(peer.text("a"))
        assert state_of(peer.protocol) is State.OPEN
        clock.advance(1.1)
        assert state_of(peer.protocol) is State.CLOSING

    @pytest.mark.parametrize("strict", [False, True])
    def test_the_time_in_which_we_did_not_read_does_not_count_as_silence(
        self, connect: Callable[..., Any], clock: Clock, strict: bool
    ) -> None:
        peer = connect(Noting, timeouts=Timeouts(idle=10.0, ping_interval=None, strict_pong=strict))
        clock.pump([1.0] * 4)
        peer.sends(*[peer.text("a")] * 16)
        clock.pump([0.5] * 95)
        for _ in range(16):
            peer.protocol.receive()
        clock.pump([0.5] * 11)
        assert state_of(peer.protocol) is State.OPEN
        clock.pump([0.5] * 9)
        assert state_of(peer.protocol) is State.CLOSING

    def test_a_message_that_is_not_finished_in_time_closes_the_connection(
        self, connect: Callable[..., Any], clock: Clock
    ) -> None:
        peer = connect(Noting, timeouts=Timeouts(message=10.0, ping_interval=None))
        peer.sends(peer.frame(0x01, b"a"))
        for _ in range(4):
            clock.advance(3.0)
            peer.sends(peer.frame(0x00, b"b"))
        assert peer.reads() == close(1011, "a message was not finished in 10 s")
        peer.leaves()

    def test_a_message_that_we_do_not_read_does_not_time_out(self, connect: Callable[..., Any], clock: Clock) -> None:
        waiting: Deferred[None] = Deferred()
        peer = connect(Streaming, timeouts=Timeouts(message=10.0, ping_interval=None, idle=None))
        peer.protocol.does["fragment"] = lambda *_: waiting
        peer.sends(peer.frame(0x01, b"a"))
        clock.pump([1.0] * 100)
        assert peer.protocol.state is State.OPEN
        peer.protocol.does.clear()
        waiting.callback(None)
        clock.pump([1.0] * 9)
        assert state_of(peer.protocol) is State.OPEN
        clock.pump([1.0] * 2)
        assert state_of(peer.protocol) is State.CLOSING

    def test_an_old_connection_is_closed(self, connect: Callable[..., Any], clock: Clock) -> None:
        peer = connect(Noting, timeouts=Timeouts(max_lifetime=60.0, ping_interval=None))
        for _ in range(59):
            clock.advance(1.0)
            peer.sends(peer.text("a"))
        assert peer.reads() == b""
        clock.advance(1.0)
        assert peer.reads() == close(1001, "the connection has reached its maximum lifetime")
        assert not peer.transport.disconnecting
        peer.sends(peer.close(1001))
        peer.leaves()
        assert peer.protocol.close_reason.clean

    def test_a_peer_that_does_not_leave_is_aborted(self, connect: Callable[..., Any], clock: Clock) -> None:
        peer = connect(Noting, timeouts=Timeouts(idle=10.0, ping_interval=None, close=5.0))
        clock.advance(10.1)
        clock.advance(4.9)
        assert not peer.transport.disconnected
        clock.advance(0.2)
        assert peer.transport.disconnected

    def test_many_connections_have_one_timer(self, connect: Callable[..., Any], clock: Clock) -> None:
        peers = [connect(Noting) for _ in range(50)]
        assert len(clock.calls) == 1
        for peer in peers:
            peer.leaves()
        assert clock.calls == []


def reads_little(peer: Any) -> None:
    stall(peer)
    for _ in range(3):
        peer.protocol.send(bytes(400))


def fails_a_hook(peer: Any) -> None:
    peer.protocol.does["text"] = lambda *_: 1 // 0
    peer.sends(peer.text("a"))


def waits_in_a_hook(peer: Any) -> None:
    waiting: Deferred[None] = Deferred()
    peer.protocol.does["text"] = lambda *_: waiting
    peer.sends(peer.text("a") + peer.text("b"))
    peer.leaves()
    peer.protocol.does.clear()
    waiting.callback(None)


def thinks_in_http_requested(peer: Any) -> None:
    peer.protocol.http_requested = lambda request: Deferred()
    peer.sends(peer.HEAD)


def pings_and_drains(peer: Any) -> None:
    stall(peer)
    peer.protocol.send(bytes(500))
    Outcome(peer.protocol.ping())
    Outcome(peer.protocol.drain())


ENDS: dict[str, Callable[[Any], Any]] = {
    "lost before a request": lambda peer: None,
    "lost in a request": lambda peer: peer.sends(peer.HEAD[:40]),
    "refused": lambda peer: peer.sends(peer.HEAD.replace(b"GET", b"PUT")),
    "not HTTP": lambda peer: peer.sends(b"\0"),
    "too large a head": lambda peer: peer.sends(b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000),
    "handshake timeout": lambda peer: (peer.sends(peer.HEAD[:40]), peer.clock.advance(31.0)),
    "handshake aborted": lambda peer: (peer.sends(peer.HEAD[:40]), peer.clock.advance(31.0), peer.clock.advance(11.0)),
    "lost while http_requested thinks": thinks_in_http_requested,
    "half closed before a request": lambda peer: peer.protocol.readConnectionLost(),
    "open: lost": lambda peer: None,
    "open: half closed": lambda peer: peer.protocol.readConnectionLost(),
    "open: peer closes": lambda peer: peer.sends(peer.close()),
    "open: we close": lambda peer: (peer.protocol.close(), peer.sends(peer.close())),
    "open: we close, no answer": lambda peer: (peer.protocol.close(), peer.clock.advance(11.0)),
    "open: abort": lambda peer: peer.protocol.abort(),
    "open: protocol error": lambda peer: peer.sends(b"\xff\xff\xff\xff\xff\xff"),
    "open: not UTF-8": lambda peer: peer.sends(peer.frame(0x81, b"\xff")),
    "open: not UTF-8 in fragments": lambda peer: peer.sends(peer.frame(0x01, b"\xff")),
    "open: too big": lambda peer: peer.sends(b"\x82\xff\0\0\0\0\xff\0\0\0\0\0\0\0"),
    "open: a hook fails": fails_a_hook,
    "open: a hook is slow": waits_in_a_hook,
    "open: idle": lambda peer: peer.clock.pump([100.0] * 4),
    "open: slow reader": reads_little,
    "open: ping and drain wait": pings_and_drains,
    "open: in a message": lambda peer: peer.sends(peer.frame(0x01, b"a"), peer.frame(0x00, b"b")[:3]),
}


@pytest.fixture
def failures_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore `Failure.cleanFailure`, which pytest-twisted disables: it releases the frames of a traceback."""
    spec = find_spec("twisted.python.failure")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(Failure, "cleanFailure", module.Failure.cleanFailure)


@pytest.mark.usefixtures("failures_as_they_are")
class TestEnds:
    """However a connection ends, no timer, no object and no entry in the factory is left."""

    @pytest.mark.parametrize("end", ENDS)
    def test_nothing_is_left(
        self, connect: Callable[..., Any], clock: Clock, logged: Callable[..., list[Any]], end: str
    ) -> None:
        peer = connect(Hooked, opened=end.startswith("open: "), limits=Limits(**LIMITS))
        factory = peer.protocol.factory
        assert factory.connections == {peer.protocol}
        with uncollected():
            ENDS[end](peer)
            if peer.protocol.state is not State.CLOSED:
                peer.leaves()
            opened = end.startswith("open: ")
            assert peer.protocol.names().count("closed") == opened
            assert peer.protocol.names()[-1:] == ["closed"] * opened
            assert clock.calls == []
            assert factory.connections == set()
            reason = peer.protocol.close_reason
            gone = weakref.ref(peer.protocol)
            del peer
            assert gone() is None
            assert str(reason)
        if end == "open: a hook fails":
            assert len(logged(ZeroDivisionError)) == 1

    @pytest.mark.parametrize("end", ["returns", "raises", "lost", "closed by us"])
    def test_nothing_is_left_of_a_coroutine(
        self, connect: Callable[..., Any], clock: Clock, logged: Callable[..., list[Any]], end: str
    ) -> None:
        async def handler(ws: WebSocketProtocol) -> None:
            async for message in ws:
                if end == "returns":
                    return
                if end == "raises":
                    raise ZeroDivisionError(message)
                if end == "closed by us":
                    ws.close()

        peer = connect(handler)
        with uncollected():
            if end != "lost":
                peer.sends(peer.text("a"))
                peer.sends(peer.close())
            peer.leaves()
            gone = weakref.ref(peer.protocol)
            del peer
            assert clock.calls == []
            assert gone() is None
        if end == "raises":
            assert len(logged(ZeroDivisionError)) == 1

    @pytest.mark.parametrize("end", ["closed", "lost"])
    @pytest.mark.parametrize("waits", ["async for", "async for twice", "receive", "drain", "ping", "close"])
    def test_nothing_is_left_of_a_coroutine_that_the_end_finds_waiting(
        self, connect: Callable[..., Any], clock: Clock, waits: str, end: str
    ) -> None:
        """In Python 3.12 a traceback keeps its callers' frames, which once made a reference cycle."""
        met: list[str | int] = []

        async def handler(ws: WebSocketProtocol) -> None:
            for _ in range(2 if waits == "async for twice" else 1):
                try:
                    if waits.startswith("async for"):
                        async for _ in ws:
                            pass
                    elif waits == "drain":
                        await ws.drain()
                    elif waits == "ping":
                        await ws.ping()
                    elif waits == "close":
                        await ws.close()
                    else:
                        await ws.receive()
                    met.append("its end")
                except ConnectionClosed as closed:
                    met.append(closed.reason.code)

        peer = connect(handler, opened=False, limits=Limits(low_water=1))
        if waits == "drain":
            peer.transport.stall()
        peer.sends(peer.HEAD)
        assert met == []
        with uncollected():
            if end == "closed":
                peer.sends(peer.close(1000))
            peer.leaves()
            gone = weakref.ref(peer.protocol)
            del peer
            assert met
            assert clock.calls == []
            assert gone() is None

    def test_an_idle_connection_keeps_no_buffers(self, connect: Callable[..., Any]) -> None:
        peer = connect(Hooked)
        peer.sends(peer.text("a") * 1000)
        peer.transport.stall()
        peer.protocol.send("a")
        peer.protocol.send("b")
        peer.transport.flow()
        # No public name shows whether memory of the queue is left.
        assert inside(peer.protocol).outgoing._queue is None
        assert peer.protocol.buffered_amount == 0

    def test_a_response_does_not_end_the_connection(self, connect: Callable[..., Any]) -> None:
        class Page(Noting):
            def http_requested(self, request: Any) -> Response:
                return Response(200)

        peer = connect(Page, opened=False)
        for _ in range(3):
            peer.sends(peer.HEAD)
            assert peer.reads().startswith(b"HTTP/1.1 200 OK\r\n")
        peer.leaves()
        assert peer.protocol.heard == []


class TestTransport:
    """The transport of a connection, as the application uses it."""

    @pytest.mark.parametrize("write", ["write", "writeSequence"])
    def test_raw_bytes_are_refused_in_a_websocket(self, connect: Callable[..., Any], write: str) -> None:
        peer = connect()
        with pytest.raises(
            LocalError, match=rf"transport\.{write}\(\) would put raw bytes .*: use the connection's send"
        ):
            getattr(peer.protocol.transport, write)(b"" if write == "write" else [])
        peer.protocol.close()
        with pytest.raises(LocalError):
            getattr(peer.protocol.transport, write)(b"")
        assert peer.reads() == NORMAL
        peer.leaves()
        with pytest.raises(LocalError):
            getattr(peer.protocol.transport, write)(b"")

    def test_raw_bytes_are_allowed_before_the_websocket_opens(self, connect: Callable[..., Any]) -> None:
        peer = connect(opened=False)
        peer.protocol.transport.write(b"HTTP/1.1 102 Processing\r\n\r\n")
        peer.protocol.transport.writeSequence([b"a", b"b"])
        assert peer.reads() == b"HTTP/1.1 102 Processing\r\n\r\nab"

    def test_a_hook_that_writes_raw_bytes_closes_with_1011(
        self, connect: Callable[..., Any], logged: Callable[..., list[Any]]
    ) -> None:
        class Raw(WebSocketProtocol):
            def text_received(self, text: str) -> None:
                assert self.transport is not None
                self.transport.write(text.encode())

        peer = connect(Raw)
        peer.sends(peer.text("raw"))
        assert peer.reads() == b"\x88\x02\x03\xf3"
        assert len(logged(LocalError)) == 1

    def test_a_producer_belongs_to_the_connection(self, connect: Callable[..., Any]) -> None:
        peer = connect()
        with pytest.raises(LocalError, match="register the producer with the connection itself"):
            peer.protocol.transport.registerProducer(object(), True)
        with pytest.raises(LocalError, match="registered with the connection itself"):
            peer.protocol.transport.unregisterProducer()


class TestCloseReason:
    """RFC 6455 §7.1.5 and §7.1.6: the property `close_reason`."""

    def test_the_close_reason_is_none_before_the_connection_closes(self, connect: Callable[..., Any]) -> None:
        peer = connect(opened=False)
        assert peer.protocol.close_reason is None
        peer.sends(peer.HEAD)
        assert (peer.protocol.state, peer.protocol.close_reason) == (State.OPEN, None)
        peer.protocol.close(1001)
        reason: Any = peer.protocol.close_reason
        assert reason.sent == Close(1001, "")
        peer.sends(peer.close(1001))
        peer.leaves()
        reason = peer.protocol.close_reason
        assert reason.clean

    def test_a_connection_that_never_opened_has_the_code_1006(self, connect: Callable[..., Any]) -> None:
        peer = connect(opened=False)
        peer.leaves()
        assert peer.protocol.close_reason.code == 1006

    def test_code_that_traps_twisteds_errors_can_handle_the_end(self, connect: Callable[..., Any]) -> None:
        caught: list[str] = []

        async def handler(ws: WebSocketProtocol) -> None:
            try:
                await ws.receive()
            except ConnectionDone:
                caught.append("done")
            except TwistedConnectionLost:
                caught.append("lost")

        for end in ("close", "loss"):
            peer = connect(handler)
            if end == "close":
                peer.sends(peer.close(1000))
            peer.leaves()
        assert caught == ["done", "lost"]
