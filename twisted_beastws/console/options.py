"""The command line of ``python -m twisted_beastws``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from getopt import GetoptError, gnu_getopt
from typing import Any, ClassVar

from twisted.python.usage import Options as TwistedOptions
from twisted.python.usage import UsageError

from twisted_beastws._version import __version__
from twisted_beastws.amount import read_amount
from twisted_beastws.client.connect import HANDSHAKES_OWN
from twisted_beastws.console.commands import Command, CommandError, Help, parse
from twisted_beastws.wire.url import WebSocketURL

# RFC 9110 §5.6.2
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]+")

# wscat waits for twice as long. This load takes about a second.
DEFAULTS: dict[str, Any] = {"wait": 1.0, "connections": 10, "messages": 1000, "size": 64}
MAX_SIZE = 1 << 20

_FOR_BENCH = ("connections", "messages", "size")
_NOT_FOR_BENCH = ("exec", "wait")


def _number(option: str, least: int, most: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not re.fullmatch("[0-9]{1,12}", text) or not least <= int(text) <= most:
            raise UsageError(f"--{option}={text}: give a number, {least}-{most}")
        return int(text)

    return convert


def _wait(text: str) -> float:
    if text == "forever":
        return math.inf
    try:
        return read_amount(text, "give seconds, such as 5 or 0.5, or forever")
    except ValueError as error:
        raise UsageError(f"--wait={text}: {error}") from None


def _read(option: str, path: str, read: Callable[[str], Any]) -> Any:
    try:
        return read(path)
    except OSError as error:
        raise UsageError(f"--{option}={path}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"--{option}={path}: {error}") from None


def _lines(path: str) -> list[str]:
    with open(path, encoding="utf-8-sig") as file:
        return [line for line in file.read().splitlines() if line.strip()]


class ConsoleOptions(TwistedOptions):
    """The command line. A mistake in it raises ``UsageError`` with a text of one line.

    Attributes:
        url: The parsed URL to connect to.
        script: The commands of ``--exec``, or None without it.
    """

    synopsis = "Usage: python -m twisted_beastws [options] URL"
    longdesc = (
        "Connects to a WebSocket server, such as ws://localhost:1984/chat: type messages, and see what comes; /help "
        "lists the commands. Where the input is not a terminal, each of its lines is a text message, whatever it "
        "begins with. Messages go to the standard output, everything else to the standard error. The exit status is 0 "
        "if the connection was closed cleanly, 1 if there was none, 2 for a bad command line, 3 if it ended otherwise "
        "or before everything was sent, 130 if you interrupted it before it was open."
    )
    optFlags: ClassVar[list[list[Any]]] = [
        ["insecure", "k", "Do not verify the server's certificate: anybody may be at the other end."],
        ["bench", "b", "Put load on a server that echoes texts, and show messages/s and round trips."],
    ]
    # `postOptions` fills in the defaults: until then None shows that an option was not given.
    optParameters: ClassVar[list[list[Any]]] = [
        [
            "wait",
            "w",
            None,
            "Seconds to listen on after the last message of --exec or of the input has been read by the server; or "
            f"forever. [default: {DEFAULTS['wait']:g}]",
            _wait,
        ],
        [
            "connections",
            None,
            None,
            f"Connections of --bench. [default: {DEFAULTS['connections']}]",
            _number("connections", 1, 100_000),
        ],
        [
            "messages",
            None,
            None,
            "Messages of --bench on each connection, each sent when the one before is back. "
            f"[default: {DEFAULTS['messages']}]",
            _number("messages", 1, 10_000_000),
        ],
        [
            "size",
            None,
            None,
            f"Bytes of each message of --bench. [default: {DEFAULTS['size']}]",
            _number("size", 1, MAX_SIZE),
        ],
    ]

    url: WebSocketURL
    script: list[Command] | None = None

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self["header"] = {}
        self["subprotocol"] = []
        self["exec"] = []
        self["cacert"] = self["cert"] = None

    def opt_header(self, field: str) -> None:
        """Header field of the request, as 'Name: value', or @FILE with one field per line: other users see a command
        line in the list of processes; may be repeated."""
        if field.startswith("@"):
            for line in _read("header", field[1:], _lines):
                self._add_field(line)
        else:
            self._add_field(field)

    def _add_field(self, field: str) -> None:
        name, colon, value = field.partition(":")
        value = value.strip()
        if not colon or not _TOKEN.fullmatch(name) or not re.fullmatch(r"[\t -~\x80-\U0010ffff]*", value):
            raise UsageError(f"--header={field!r}: give it as 'Name: value'")
        if name.lower() in HANDSHAKES_OWN:
            raise UsageError(f"--header={field}: {name} is the handshake's own")
        self["header"].setdefault(name.title(), []).append(value)

    def opt_subprotocol(self, name: str) -> None:
        """Subprotocol to offer, the preferred first; may be repeated."""
        if not _TOKEN.fullmatch(name):
            raise UsageError(f"--subprotocol={name}: give a name such as chat.v1, and one at a time")
        if name in self["subprotocol"]:
            raise UsageError(f"--subprotocol={name}: it is given twice")
        self["subprotocol"].append(name)

    def opt_exec(self, line: str) -> None:
        """Line to send in place of typed input: a message, or a command such as /ping; may be repeated."""
        try:
            command = parse(line)
        except CommandError as error:
            raise UsageError(f"--exec={line!r}: {error}") from None
        if isinstance(command, Help):
            raise UsageError("--exec=/help: that is for the prompt; --help is for the command line")
        self["exec"].append(command)

    def opt_cacert(self, file: str) -> None:
        """Trust only certificates that an authority in this file (PEM) signed."""
        from twisted_beastws.tls.pem import read_authorities

        self["cacert"] = _read("cacert", file, read_authorities)

    def opt_cert(self, file: str) -> None:
        """Key and certificate (PEM) for a server that asks for a client certificate."""
        from twisted_beastws.tls.pem import read_identity

        self["cert"] = _read("cert", file, read_identity)

    def opt_version(self) -> None:
        """Display the version and exit."""
        print(f"twisted_beastws {__version__}")
        raise SystemExit(0)

    opt_H = opt_header
    opt_s = opt_subprotocol
    opt_x = opt_exec

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse ``options``; they may also follow the URL. Raises ``UsageError``."""
        try:
            found, arguments = gnu_getopt(list(options or ()), self.shortOpt, self.longOpt)
        except GetoptError as error:
            raise UsageError(str(error)) from None
        ordered: list[str] = []
        for name, value in found:
            takes_value = f"{name[2:]}=" in self.longOpt if name.startswith("--") else f"{name[1:]}:" in self.shortOpt
            ordered += [name, value] if takes_value else [name]
        super().parseOptions([*ordered, "--", *arguments])  # type: ignore[no-untyped-call]

    def parseArgs(self, *arguments: str) -> None:
        """Take the URL. Raises ``UsageError``."""
        if not arguments:
            raise UsageError("give the URL of a WebSocket server, such as ws://localhost:1984/chat")
        if len(arguments) > 1:
            raise UsageError(f"{arguments[1]}: there is one URL, and {arguments[0]} is it; --exec sends messages")
        try:
            self.url = WebSocketURL.parse(arguments[0])
        except ValueError as error:
            raise UsageError(str(error)) from None
        self["url"] = arguments[0]

    def postOptions(self) -> None:
        """Check that the options fit together, and fill in the defaults. Raises ``UsageError``."""
        for option in _NOT_FOR_BENCH if self["bench"] else _FOR_BENCH:
            if self[option] not in (None, []):
                raise UsageError(f"--{option} {'does not go' if self['bench'] else 'only goes'} with --bench")
        if self["insecure"] and self["cacert"] is not None:
            raise UsageError("--insecure trusts anybody: --cacert does not go with it")
        for option in ("cacert", "cert"):
            if self[option] is not None and not self.url.secure:
                raise UsageError(f"--{option} is for TLS, and that is for wss://")
        if self["exec"]:
            self.script = self["exec"]
        for option, default in DEFAULTS.items():
            if self[option] is None:
                self[option] = default
