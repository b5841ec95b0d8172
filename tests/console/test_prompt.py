"""The client on a terminal: typing, messages shown, commands, and ends."""

from __future__ import annotations

import os
import signal
import sys
import termios
import time
from collections.abc import Iterator

import pytest

from ..support.patience import PATIENCE
from ..support.waiting import await_that
from .processes import Console, Heard, answering, console, deaf, echo, serving

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no prompt on Windows")


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def client(heard: Heard) -> Iterator[Console]:
    """Yield a client at its prompt, connected to ``heard``."""
    with serving(heard) as url, console(url) as client:
        client.until("the prompt", lambda screen: screen.row == ">" and len(screen.rows) == 2 and heard.ws)
        yield client


def hears(heard: Heard, *messages: str | bytes) -> None:
    await_that(f"the server hears {messages}", lambda: heard.messages == [*messages])


class TestTyping:
    """The typed line."""

    def test_the_client_shows_the_url_of_the_connection(self, client: Console) -> None:
        (welcome, _) = client.screen.rows
        assert welcome.startswith("* connected to ws://localhost:")
        assert welcome.endswith(" ms; /help lists the commands, Ctrl-D closes")

    def test_a_line_is_a_message_and_its_echo_is_shown(self) -> None:
        with serving(echo) as url, console(url) as client:
            client.types("hello\r")
            client.shows("< hello")
            assert "> hello" in client.screen
            client.types("\x04")
            assert client.ends() == 0
            assert client.screen.rows[-2:] == ["* closed: 1000 (normal)", ""]

    def test_messages_do_not_disturb_the_line_being_typed(self, client: Console, heard: Heard) -> None:
        client.types("half a l")
        client.until("what was typed", lambda screen: screen.row == "> half a l")
        for number in range(300):
            heard.ws.send(f"message {number}")
            if number == 150:
                client.types("in")
        client.shows("< message 299")
        client.until("the line", lambda screen: (screen.row, screen.column) == ("> half a lin", 12))
        assert client.screen.rows[1:-1] == [f"< message {number}" for number in range(300)]
        client.types("e\r")
        hears(heard, "half a line")

    def test_keys_can_edit_the_line(self, client: Console, heard: Heard) -> None:
        client.types("wrld\x1b[D\x1b[D\x1b[Do\x01hello \x1b[F!!\x7f\r")
        hears(heard, "hello world!")

    def test_keys_can_recall_lines(self, client: Console, heard: Heard) -> None:
        client.types("one\rtwo\rdraft\x1b[A\x1b[A\r")
        hears(heard, "one", "two", "one")
        client.types("\x1b[A\x1b[A\x1b[A\x1b[B\r")
        hears(heard, "one", "two", "one", "two")

    def test_characters_may_be_read_in_pieces(self, client: Console, heard: Heard) -> None:
        for one_byte in "grüß 日本 🙂".encode():
            client.types(bytes((one_byte,)))
            client.until("the byte is taken", lambda screen: screen)
        client.types("\r")
        hears(heard, "grüß 日本 🙂")
        client.shows("> grüß 日本 🙂")

    def test_a_paste_of_lines_is_a_message_each(self, client: Console, heard: Heard) -> None:
        client.types("one\ntwo\nthree")
        hears(heard, "one", "two")
        client.until("the rest", lambda screen: screen.row == "> three")

    def test_an_empty_line_is_no_message(self, client: Console, heard: Heard) -> None:
        client.types("\r\rx\r")
        hears(heard, "x")

    def test_a_long_line_keeps_to_its_row(self, client: Console, heard: Heard) -> None:
        client.types("".join(f"{number:04}" for number in range(60)))
        client.until("its end", lambda screen: screen.row.endswith("00580059"))
        assert len(client.screen.rows) == 2 and client.screen.column < 100
        client.types("\x01")
        client.until("its start", lambda screen: screen.row.startswith("> 00000001") and screen.column == 2)
        client.types("\r")
        hears(heard, "".join(f"{number:04}" for number in range(60)))

    def test_the_line_is_drawn_on_a_narrower_terminal(self, client: Console) -> None:
        client.types("0123456789" * 5)
        client.until("the line", lambda screen: screen.row == "> " + "0123456789" * 5)
        client.resize(20)
        client.until("its end", lambda screen: len(screen.row) < 20 and screen.row.endswith("9"))


class TestShown:
    """Received messages on the terminal."""

    def test_control_characters_are_escaped(self, client: Console, heard: Heard) -> None:
        heard.ws.send("\x1b[2J\x1b]0;title\x07 \x9b31m\r\x08\u202eevil\x7f")
        client.shows(r"< \x1b[2J\x1b]0;title\x07 \x9b31m\r\x08\u202eevil\x7f")

    def test_a_line_break_in_a_message_cannot_imitate_another_message(self, client: Console, heard: Heard) -> None:
        heard.ws.send("one\n> two\n* closed")
        client.shows("  * closed")
        assert client.screen.rows[1:4] == ["< one", "  > two", "  * closed"]

    def test_binary_is_shown_in_hexadecimal(self, client: Console, heard: Heard) -> None:
        heard.ws.send(b"\x00\x1b\xff")
        client.shows("< binary, 3 bytes: 00 1b ff")

    def test_control_characters_in_a_close_reason_are_escaped(self, client: Console, heard: Heard) -> None:
        heard.ws.close(4000, "\x1b[2Jgone")
        assert client.ends() == 3
        assert client.screen.rows[-2:] == [r"! closed by the server: 4000: \x1b[2Jgone", ""]

    def test_received_messages_are_coloured(self, client: Console, heard: Heard) -> None:
        heard.ws.send("x")
        client.shows("< x")
        assert b"\x1b[32m<\x1b[0m x" in client.output

    def test_no_colours_are_used_if_the_environment_says_so(self, heard: Heard) -> None:
        with serving(heard) as url, console(url, NO_COLOR="1") as client:
            client.until("the prompt", lambda screen: screen.row == ">" and heard.ws)
            heard.ws.send("x")
            client.shows("< x")
            assert b"m<" not in client.output and b"m>" not in client.output

    def test_a_dumb_terminal_is_sufficient(self) -> None:
        with serving(echo) as url, console(url, TERM="dumb") as client:
            client.until("the connection", lambda screen: "connected to" in screen.rows[0])
            client.types("hello\n")
            client.shows("< hello")
            client.types("\x04")
            assert client.ends() == 0
            assert b"\x1b" not in client.output


class TestCommands:
    """Commands on the terminal."""

    def test_the_command_help_is_answered(self, client: Console) -> None:
        client.types("/help\r")
        client.shows("  /help                 this")

    def test_the_command_ping_is_answered(self, client: Console) -> None:
        client.types("/ping\r")
        client.until("the pong", lambda screen: any(row.startswith("* pong after ") for row in screen.rows))
        client.types("\x04")
        assert client.ends() == 0
        assert client.screen.rows[-2].startswith("* closed: 1000 (normal); the latest round trip took ")

    def test_the_command_binary_is_sent(self, client: Console, heard: Heard) -> None:
        client.types("/binary 00 ff 1b\r")
        hears(heard, b"\x00\xff\x1b")

    def test_the_command_send_is_sent(self, client: Console, heard: Heard) -> None:
        client.types(f"/send {__file__}\r")
        with open(__file__, "rb") as file:
            hears(heard, file.read())

    def test_the_command_close_is_sent(self, client: Console, heard: Heard) -> None:
        client.types("/close 4001 see you\r")
        assert client.ends() == 0
        await_that("the server hears it", lambda: heard.closed == (4001, "see you"))
        assert client.screen.rows[-2] == "* closed: 4001: see you"

    def test_an_unknown_command_is_refused(self, client: Console, heard: Heard) -> None:
        client.types("/nope\r")
        client.shows("! /nope: no such command; /help lists them, // begins a text with a slash")
        client.types("//nope\r")
        hears(heard, "/nope")


class TestEnds:
    """The end of the client on a terminal."""

    @pytest.mark.parametrize("key", ["\x04", "\x03"])
    def test_the_connection_is_closed_by_both_keys(self, client: Console, heard: Heard, key: str) -> None:
        client.types(key)
        assert client.ends() == 0
        await_that("the server hears it", lambda: heard.closed == (1000, ""))
        assert client.screen.rows[-2:] == ["* closed: 1000 (normal)", ""]

    def test_the_terminal_is_restored(self, client: Console) -> None:
        assert not termios.tcgetattr(client.slave)[3] & termios.ECHO
        client.types("\x04")
        client.ends()
        assert termios.tcgetattr(client.slave) == client.mode
        assert os.get_blocking(client.slave)

    def test_an_interrupt_ends_the_client_on_a_stopped_terminal(self, client: Console, heard: Heard) -> None:
        # Ctrl-S stops the terminal; the message is larger than its buffer.
        client.types("\x13")
        heard.ws.send("x" * (1 << 16))
        time.sleep(0.3)
        client.types("\x03")
        await_that("the server hears it", lambda: heard.closed == (1000, ""))
        time.sleep(0.3)
        assert client.process.poll() is None
        client.signal(signal.SIGINT)
        client.process.wait(PATIENCE)
        assert client.ends() == 130
        assert b"Traceback" not in client.output
        assert termios.tcgetattr(client.slave) == client.mode

    def test_a_character_is_deleted_by_ctrl_d_in_a_line(self, client: Console, heard: Heard) -> None:
        client.types("abx\x01\x06\x06\x04\r")
        hears(heard, "ab")

    def test_a_second_ctrl_c_ends_the_client_if_the_server_does_not_answer(self) -> None:
        with answering(deaf) as port, console(f"ws://localhost:{port}/") as client:
            client.until("the prompt", lambda screen: screen.row == ">")
            client.types("\x03")
            time.sleep(0.2)
            assert client.process.poll() is None
            client.types("\x03")
            assert client.ends() == 3
            assert client.screen.rows[-2] == "! closed with 1000 (normal), and without an answer to it (1006)"

    @pytest.mark.parametrize(("code", "status"), [(1000, 0), (1001, 0), (1011, 3), (4000, 3)])
    def test_the_client_ends_when_the_server_closes(
        self, client: Console, heard: Heard, code: int, status: int
    ) -> None:
        heard.ws.close(code)
        assert client.ends() == status
        assert client.screen.rows[-2][2:].startswith(f"closed by the server: {code}")

    def test_the_connection_is_closed_if_the_terminal_hangs_up(self, client: Console, heard: Heard) -> None:
        client.hangs_up()
        assert client.ends() == 0
        # The code depends on which the client notices first: the signal or the failed write.
        await_that("the server hears it", lambda: heard.closed in ((1000, ""), (1001, "")))

    def test_the_client_comes_back_from_the_background(self, client: Console) -> None:
        client.types("half")
        client.until("what was typed", lambda screen: screen.row == "> half")
        termios.tcsetattr(client.slave, termios.TCSANOW, client.mode)
        client.screen.write("\r\n")
        client.signal(signal.SIGCONT)
        client.until("the line", lambda screen: screen.row == "> half")
        assert not termios.tcgetattr(client.slave)[3] & termios.ECHO
