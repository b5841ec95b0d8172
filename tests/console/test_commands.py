"""The commands that lines are parsed into, and the effects of these commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from twisted_beastws import Opcode
from twisted_beastws.console.commands import (
    HELP,
    CloseCommand,
    Command,
    CommandError,
    File,
    Help,
    MessageCommand,
    Ping,
    parse,
)
from twisted_beastws.testing import connected_pair


class TestParse:
    """A typed line as a command."""

    @pytest.mark.parametrize(
        ("line", "command"),
        [
            ("hello", MessageCommand("hello")),
            (" /ping", MessageCommand(" /ping")),
            ("", MessageCommand("")),
            ("//ping", MessageCommand("/ping")),
            ("//", MessageCommand("/")),
            ("/binary 00ff1B", MessageCommand(b"\x00\xff\x1b")),
            ("/binary 00 ff\t1b", MessageCommand(b"\x00\xff\x1b")),
            ("/binary 0x00 0XFF", MessageCommand(b"\x00\xff")),
            ("/binary", MessageCommand(b"")),
            ("/send a file", File("a file", Opcode.BINARY)),
            ("/send-text a.json ", File("a.json", Opcode.TEXT)),
            ("/ping", Ping()),
            ("/ping x y", Ping(b"x y")),
            ("/ping " + "x" * 125, Ping(b"x" * 125)),
            ("/close", CloseCommand(1000, "")),
            ("/close 4001", CloseCommand(4001, "")),
            ("/close 1011 out of tea", CloseCommand(1011, "out of tea")),
            ("/close 1000 " + "x" * 123, CloseCommand(1000, "x" * 123)),
            ("/help", Help()),
        ],
    )
    def test_a_command_is_parsed(self, line: str, command: Command) -> None:
        assert parse(line) == command

    @pytest.mark.parametrize(
        ("line", "why"),
        [
            ("/", "/: no such command"),
            ("/nope x", "/nope: no such command"),
            ("/\x1b[m", r"/\x1b[m: no such command"),
            ("/binary 0", "/binary 0: give two hexadecimal digits for each byte"),
            ("/binary zz", "/binary zz: give two hexadecimal digits for each byte"),
            ("/send", "/send and /send-text want the name of a file"),
            ("/send-text ", "/send and /send-text want the name of a file"),
            ("/ping " + "x" * 126, "/ping: a ping holds 125 bytes, and these are 126"),
            ("/ping " + "ü" * 63, "/ping: a ping holds 125 bytes, and these are 126"),
            *(
                (f"/close {code}", f"/close {code}: give a code that may")
                for code in ("1", "1005", "1006", "5000", "x")
            ),
            ("/close 1000 " + "x" * 124, "/close: a reason holds 123 bytes, and these are 124"),
        ],
    )
    def test_a_bad_command_is_refused(self, line: str, why: str) -> None:
        with pytest.raises(CommandError) as caught:
            parse(line)
        assert str(caught.value).startswith(why)

    @given(st.text())
    def test_any_text_can_be_sent(self, text: str) -> None:
        assert parse(f"/{text}" if text.startswith("/") else text) == MessageCommand(text)

    def test_the_help_names_every_command(self) -> None:
        assert {line.split()[0] for line in HELP.splitlines()[1:]} == {
            "TEXT",
            "/binary",
            "/send",
            "/send-text",
            "/ping",
            "/close",
            "/help",
        }


class Ran:
    """Run commands on a client; its server records the messages that it receives."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.pair = connected_pair(self._serve)
        self.heard: list[Any] = []

    async def _serve(self, ws: Any) -> None:
        async for message in ws:
            self.heard.append(message)

    def run(self, command: Command) -> None:
        outcome: list[Any] = []
        Deferred.fromCoroutine(command.run(self.pair.client, self.told.append)).addBoth(outcome.append)
        while not outcome:
            self.pair.advance(0.1)
        self.pair.flush()
        if outcome != [None]:
            outcome[0].raiseException()


@pytest.fixture
def ran() -> Ran:
    return Ran()


class TestRun:
    """The effects of commands."""

    def test_messages_are_sent(self, ran: Ran) -> None:
        ran.run(MessageCommand("text"))
        ran.run(MessageCommand(b"\x00"))
        assert ran.heard == ["text", b"\x00"]
        assert ran.told == []

    @pytest.mark.parametrize("size", [0, 1, 1 << 16, (1 << 20) - 1])
    def test_a_file_is_one_message(self, ran: Ran, tmp_path: Path, size: int) -> None:
        file = tmp_path / "a file"
        file.write_bytes(b"\xff" * size)
        ran.run(File(str(file), Opcode.BINARY))
        assert ran.heard == [b"\xff" * size]
        assert ran.told == [f"sent {size} byte{'s' * (size != 1)} of {file}"]

    def test_a_file_of_text_is_sent(self, ran: Ran, tmp_path: Path) -> None:
        file = tmp_path / "text"
        # Some characters are split between two of the chunks that the command reads.
        text = "x" + "ü" * (1 << 16)
        file.write_text(text, encoding="utf-8")
        ran.run(File(str(file), Opcode.TEXT))
        assert ran.heard == [text]

    @pytest.mark.parametrize("data", [b"abc\xff", b"\xc3"])
    def test_a_file_that_is_not_utf_8_is_refused_as_text(self, ran: Ran, tmp_path: Path, data: bytes) -> None:
        file = tmp_path / "data"
        file.write_bytes(data)
        with pytest.raises(CommandError, match="not UTF-8, which a text message is; /send sends it as binary"):
            ran.run(File(str(file), Opcode.TEXT))
        assert ran.heard == []

    @pytest.mark.parametrize(
        ("path", "why"),
        [("/nope", "/nope: No such file or directory"), ("/dev/zero", "/dev/zero: not a file"), ("/", "/: not a file")],
    )
    def test_a_bad_file_is_refused(self, ran: Ran, path: str, why: str) -> None:
        with pytest.raises(CommandError) as caught:
            ran.run(File(path, Opcode.BINARY))
        assert str(caught.value) == why

    def test_a_path_in_the_home_directory_is_expanded(
        self, ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "x").write_bytes(b"1")
        ran.run(File("~/x", Opcode.BINARY))
        assert ran.heard == [b"1"]

    def test_a_ping_is_sent(self, ran: Ran) -> None:
        ran.run(Ping(b"x"))
        assert len(ran.told) == 1 and ran.told[0].startswith("pong after ")

    def test_a_close_is_sent(self, ran: Ran) -> None:
        ran.run(CloseCommand(4001, "bye"))
        assert ran.pair.server.close_reason is not None
        received = ran.pair.server.close_reason.received
        assert received is not None and tuple(received) == (4001, "bye")

    def test_the_help_is_shown(self, ran: Ran) -> None:
        ran.run(Help())
        assert ran.told == [HELP]
