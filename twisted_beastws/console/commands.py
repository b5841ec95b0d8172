"""The commands of the console. A line is a message, or a command if it begins with a slash."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from twisted_beastws.console.text import counted, escape, milliseconds
from twisted_beastws.protocol import WebSocketProtocol
from twisted_beastws.wire.closing import MAX_REASON, CloseCode, may_be_sent
from twisted_beastws.wire.frames import Opcode

HELP = """\
what to type:
  TEXT                  send a text message; //TEXT one that begins with a slash
  /binary HEX           send a binary message, such as 00 ff 10
  /send FILE            send a file as one binary message
  /send-text FILE       send a file as one text message
  /ping [TEXT]          ping, and show how long the pong takes
  /close [CODE REASON]  close with a code, 1000 by default
  /help                 this"""

CHUNK = 1 << 16
"""Bytes read from a file at a time: 64 KiB, as `Limits.high_water`."""

Tell = Callable[[str], None]


class CommandError(Exception):
    """A line is not a valid command, or the command failed; ``str(error)`` gives the reason in one line."""


class Command(Protocol):
    """A command. It shows its result with ``tell``, and raises `CommandError` and the errors of ``ws``."""

    async def run(self, ws: WebSocketProtocol, tell: Tell) -> None: ...


@dataclass(frozen=True)
class MessageCommand:
    """Send a message."""

    message: str | bytes

    async def run(self, ws: WebSocketProtocol, tell: Tell) -> None:
        ws.send(self.message)


@dataclass(frozen=True)
class File:
    """Send a file as one message, at the pace of the connection."""

    path: str
    opcode: Opcode

    async def run(self, ws: WebSocketProtocol, tell: Tell) -> None:
        with self._open() as file:
            size = os.fstat(file.fileno()).st_size
            if self.opcode is Opcode.TEXT:
                _require_text(file, self.path)
            await ws.send_stream(_chunks(file), self.opcode)
        tell(f"sent {counted(size, 'byte')} of {escape(self.path)}")

    def _open(self) -> BinaryIO:
        path = os.path.expanduser(self.path)
        # Opening a FIFO could block the reactor, and a device may have no end.
        if os.path.exists(path) and not os.path.isfile(path):
            raise CommandError(f"{escape(self.path)}: not a file")
        try:
            return open(path, "rb")
        except OSError as error:
            raise CommandError(f"{escape(self.path)}: {error.strerror}") from None


@dataclass(frozen=True)
class Ping:
    """Ping, and show the round-trip time."""

    payload: bytes = b""

    async def run(self, ws: WebSocketProtocol, tell: Tell) -> None:
        tell(f"pong after {milliseconds(await ws.ping(self.payload))}")


@dataclass(frozen=True)
class CloseCommand:
    """Close with the closing handshake."""

    code: int = CloseCode.NORMAL
    reason: str = ""

    async def run(self, ws: WebSocketProtocol, tell: Tell) -> None:
        await ws.close(self.code, self.reason)


@dataclass(frozen=True)
class Help:
    """Show the list of commands."""

    async def run(self, ws: WebSocketProtocol, tell: Tell) -> None:
        tell(HELP)


def parse(line: str) -> Command:
    """Return the command of a line. Raises `CommandError`."""
    if not line.startswith("/"):
        return MessageCommand(line)
    if line.startswith("//"):
        return MessageCommand(line[1:])
    name, _, argument = line[1:].partition(" ")
    parser = _PARSERS.get(name)
    if parser is None:
        raise CommandError(f"/{escape(name)}: no such command; /help lists them, // begins a text with a slash")
    return parser(argument.strip())


def _parse_binary(argument: str) -> Command:
    digits = re.sub(r"\s|0[xX]", "", argument)
    try:
        return MessageCommand(bytes.fromhex(digits))
    except ValueError:
        raise CommandError(f"/binary {escape(argument)}: give two hexadecimal digits for each byte: 00 ff 10") from None


def _parse_file(opcode: Opcode) -> Callable[[str], Command]:
    def parse_file(argument: str) -> Command:
        if not argument:
            raise CommandError("/send and /send-text want the name of a file")
        return File(argument, opcode)

    return parse_file


def _parse_ping(argument: str) -> Command:
    payload = argument.encode()
    # RFC 6455 §5.5
    if len(payload) > 125:
        raise CommandError(f"/ping: a ping holds 125 bytes, and these are {len(payload)}")
    return Ping(payload)


def _parse_close(argument: str) -> Command:
    code, _, reason = argument.partition(" ")
    reason = reason.strip()
    if not code:
        return CloseCommand()
    if not re.fullmatch("[0-9]{4}", code) or not may_be_sent(int(code)):
        raise CommandError(f"/close {escape(code)}: give a code that may be sent: 1000-1003, 1007-1014 or 3000-4999")
    if len(reason.encode()) > MAX_REASON:
        raise CommandError(f"/close: a reason holds {MAX_REASON} bytes, and these are {len(reason.encode())}")
    return CloseCommand(int(code), reason)


def _parse_help(argument: str) -> Command:
    return Help()


_PARSERS: dict[str, Callable[[str], Command]] = {
    "binary": _parse_binary,
    "send": _parse_file(Opcode.BINARY),
    "send-text": _parse_file(Opcode.TEXT),
    "ping": _parse_ping,
    "close": _parse_close,
    "help": _parse_help,
}


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        yield chunk


def _require_text(file: BinaryIO, path: str) -> None:
    # Check the file before its first byte is sent: a peer closes the connection on text that is not UTF-8.
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for chunk in _chunks(file):
            decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise CommandError(f"{escape(path)}: not UTF-8, which a text message is; /send sends it as binary") from None
    file.seek(0)
