"""The session between a front end and a server, in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from twisted_beastws import State, WebSocketProtocol
from twisted_beastws.console.commands import CloseCommand, Command, CommandError, MessageCommand, Ping
from twisted_beastws.console.front import User
from twisted_beastws.console.session import LIMITS, MAX_MESSAGE, TerminalSession
from twisted_beastws.testing import connected_pair


class FakeFront:
    """A front end that records the output that it gets, and how often it is paused."""

    def __init__(self) -> None:
        self.user: Any = None
        self.shown: list[str | bytes] = []
        self.notes: list[str] = []
        self.faults: list[str] = []
        self.produced: list[str] = []

    def start(self, user: User) -> None:
        self.user = user

    def message(self, message: str | bytes) -> None:
        self.shown.append(message)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def fault(self, text: str) -> None:
        self.faults.append(text)

    def stop(self) -> Deferred[None]:
        return succeed(None)

    def pauseProducing(self) -> None:
        self.produced.append("pause")

    def resumeProducing(self) -> None:
        self.produced.append("resume")

    def stopProducing(self) -> None:
        self.produced.append("stop")


class Server(WebSocketProtocol):
    """Greet each client, and echo its messages."""

    def opened(self) -> None:
        self.heard: list[str | bytes] = []
        self.send("welcome")

    def text_received(self, text: str) -> None:
        self.heard.append(text)
        self.send(text)

    def binary_received(self, data: bytes) -> None:
        self.heard.append(data)
        self.send(data)


class Talk:
    def __init__(self, script: Sequence[Command] | None = None, wait: float | None = None, **options: Any) -> None:
        self.clock = Clock()
        self.front = FakeFront()
        self.over: list[Any] = []
        self.pair = connected_pair(
            Server,
            client=lambda: TerminalSession(self.front, self.clock, "ws://h/", script, wait),
            clock=self.clock,
            **options,
        )
        self.session = self.pair.client
        self.session.over.addCallback(self.over.append)
        self.pair.flush()

    @property
    def sent(self) -> Any:
        """The close frame that the server received."""
        assert self.pair.server.close_reason is not None
        return self.pair.server.close_reason.received


class Slow:
    """A command that runs until the test fires ``done``."""

    def __init__(self) -> None:
        self.done: Deferred[None] = Deferred()

    async def run(self, ws: WebSocketProtocol, tell: Any) -> None:
        await self.done


class Failing:
    def __init__(self, error: Exception) -> None:
        self.error = error

    async def run(self, ws: WebSocketProtocol, tell: Any) -> None:
        raise self.error


class TestPerson:
    """A session for a person at a terminal."""

    def test_the_user_is_greeted(self) -> None:
        talk = Talk()
        assert talk.front.notes == ["connected to ws://h/ in 0 ms; /help lists the commands, Ctrl-D closes"]
        assert talk.front.shown == ["welcome"]

    def test_the_typed_commands_are_run(self) -> None:
        talk = Talk()
        talk.front.user.command(MessageCommand("a"))
        talk.front.user.command(MessageCommand(b"b"))
        talk.pair.flush()
        assert talk.pair.server.heard == ["a", b"b"]
        assert talk.front.shown == ["welcome", "a", b"b"]

    def test_the_end_of_input_closes_at_once(self) -> None:
        talk = Talk()
        talk.front.user.input_ended()
        talk.pair.flush()
        assert tuple(talk.sent) == (1000, "")
        assert talk.over[0].clean and talk.session.complete

    def test_the_end_of_input_waits_for_running_commands(self) -> None:
        talk = Talk()
        slow = Slow()
        talk.front.user.command(slow)
        talk.front.user.input_ended()
        talk.pair.flush()
        assert talk.session.state is State.OPEN
        slow.done.callback(None)
        talk.pair.flush()
        assert tuple(talk.sent) == (1000, "")

    def test_an_interrupt_closes_without_waiting_for_commands(self) -> None:
        talk = Talk()
        talk.front.user.command(Slow())
        talk.session.interrupt()
        talk.pair.flush()
        assert tuple(talk.sent) == (1000, "")
        assert talk.over[0].clean

    def test_a_second_interrupt_drops_the_connection(self) -> None:
        talk = Talk()
        talk.session.interrupt()
        talk.session.interrupt()
        talk.pair.flush()
        assert not talk.over[0].clean

    @pytest.mark.parametrize(
        ("error", "told"),
        [
            (CommandError("no"), "no"),
            (OSError(5, "Input/output error"), "[Errno 5] Input/output error"),
        ],
    )
    def test_a_failing_command_is_explained(self, error: Exception, told: str) -> None:
        talk = Talk()
        talk.front.user.command(Failing(error))
        assert talk.front.faults == [told]
        assert talk.session.state is State.OPEN

    def test_half_a_surrogate_pair_is_reported(self) -> None:
        talk = Talk()
        talk.front.user.command(MessageCommand("\ud800"))
        assert talk.front.faults == ["the text has half of a surrogate pair in it, which UTF-8 cannot say"]

    def test_a_message_that_is_too_long_is_reported(self) -> None:
        talk = Talk()
        talk.front.user.command(MessageCommand(b"x" * (5 << 20)))
        assert len(talk.front.faults) == 1 and talk.session.state is State.OPEN

    def test_input_after_the_close_is_ignored(self) -> None:
        talk = Talk()
        talk.session.interrupt()
        talk.front.user.command(MessageCommand("late"))
        talk.pair.flush()
        assert talk.front.faults == []
        assert talk.pair.server.heard == []

    def test_the_subprotocol_is_shown(self) -> None:
        talk = Talk(subprotocols=["chat.v1"], client_options={"subprotocols": ("chat.v1",)})
        assert ", subprotocol chat.v1; " in talk.front.notes[0]


class TestScript:
    """A session for a script."""

    def test_the_client_waits_for_answers(self) -> None:
        talk = Talk([MessageCommand("a"), MessageCommand("b")], wait=1.0)
        talk.pair.advance(0.99)
        assert talk.front.shown == ["welcome", "a", "b"]
        assert talk.session.state is State.OPEN
        talk.pair.advance(0.02)
        assert tuple(talk.sent) == (1000, "")
        assert talk.session.complete and talk.session.latency is not None

    def test_a_wait_of_zero_waits_for_the_pong_alone(self) -> None:
        talk = Talk([MessageCommand("a")], wait=0.0)
        talk.pair.advance(0.0)
        assert talk.front.shown == ["welcome", "a"]
        assert talk.over[0].clean and talk.session.complete

    def test_an_unlimited_wait_lasts_until_the_connection_ends(self) -> None:
        talk = Talk([MessageCommand("a")], wait=math.inf)
        talk.pair.advance(29.0)
        assert talk.session.state is State.OPEN
        talk.pair.server.close()
        talk.pair.flush()
        assert talk.over[0].clean and talk.session.complete

    def test_commands_are_run_one_after_the_other(self) -> None:
        slow = Slow()
        talk = Talk([slow, MessageCommand("b")], wait=0.0)
        talk.pair.advance(1.0)
        assert talk.pair.server.heard == []
        slow.done.callback(None)
        talk.pair.advance(1.0)
        assert talk.pair.server.heard == ["b"]

    def test_a_failing_command_ends_the_session(self) -> None:
        talk = Talk([Failing(CommandError("no")), MessageCommand("b")], wait=0.0)
        talk.pair.advance(1.0)
        assert talk.front.faults == ["no"]
        assert talk.pair.server.heard == []
        assert talk.over[0].clean and not talk.session.complete

    def test_a_close_may_be_the_last_command(self) -> None:
        talk = Talk([MessageCommand("a"), CloseCommand(4000, "x")], wait=9.0)
        talk.pair.advance(1.0)
        assert tuple(talk.sent) == (4000, "x")
        assert talk.session.complete

    def test_commands_after_a_close_are_not_run(self) -> None:
        talk = Talk([CloseCommand(), Ping()], wait=9.0)
        talk.pair.advance(1.0)
        assert talk.over and not talk.session.complete

    def test_a_close_of_the_server_before_the_end_is_a_failure(self) -> None:
        talk = Talk([Slow()], wait=9.0)
        talk.pair.server.close()
        talk.pair.flush()
        assert talk.over[0].clean and not talk.session.complete

    def test_unreadable_input_is_a_failure(self) -> None:
        talk = Talk(wait=0.0)
        talk.front.user.input_ended(False)
        talk.pair.advance(1.0)
        assert talk.over[0].clean and not talk.session.complete


def test_the_input_is_paused_while_the_server_does_not_read() -> None:
    talk = Talk()
    for _ in range(3):
        talk.front.user.command(MessageCommand(b"x" * (1 << 16)))
    assert talk.front.produced == ["pause"]
    talk.pair.flush()
    assert talk.front.produced == ["pause", "resume"]


def test_a_producer_may_be_paused_and_stopped_after_the_end() -> None:
    talk = Talk()
    talk.session.interrupt()
    talk.pair.flush()
    talk.session.pauseProducing()
    talk.session.resumeProducing()
    talk.session.stopProducing()
    assert talk.session.state is State.CLOSED


def test_the_limits_are_sufficient_for_the_largest_message() -> None:
    assert LIMITS.max_message_size == MAX_MESSAGE <= LIMITS.max_buffered
