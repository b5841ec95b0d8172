"""The command line of ``twistd beastws``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, cast

from twisted.python.usage import Options as TwistedOptions
from twisted.python.usage import UsageError

from twisted_beastws._version import __version__
from twisted_beastws.options import Limits, Origins, Timeouts
from twisted_beastws.server import WebSocketServerFactory
from twisted_beastws.service.app import AppError, Served, find_app

if TYPE_CHECKING:
    from twisted.internet.interfaces import IStreamServerEndpoint

# RFC 3986 §3.3: what a path is made of; a browser would send anything else in another spelling.
_PATH = re.compile(r"/[A-Za-z0-9\-._~!$&'()*+,;=:@%/]*")

# The port and the path of restbed's example, and its pings. The idle timeout is nginx's proxy_read_timeout, and twelve
# pings: a phone changes networks within it, and what does not answer in a minute will not.
DEFAULTS: dict[str, Any] = {
    "path": "/chat",
    "ping-interval": 5.0,
    "idle-timeout": 60.0,
    "handshake-timeout": 30.0,
    "max-message": 1 << 20,
}


def _seconds(option: str) -> Callable[[str], float]:
    def convert(text: str) -> float:
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if not 0 <= seconds < math.inf:
            raise UsageError(f"--{option}={text}: give seconds, such as 5 or 0.5; 0 is never")
        return seconds

    return convert


def _octets(option: str) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not re.fullmatch("0*[1-9][0-9]{0,17}", text):
            raise UsageError(f"--{option}={text}: give a number of octets, 1 or more")
        return int(text)

    return convert


def _path(text: str) -> str:
    if not _PATH.fullmatch(text):
        raise UsageError(f"--path={text}: give a path such as /chat: from a slash on, without a query, percent-encoded")
    return text


class Options(TwistedOptions):
    """What the user asked for; a value that cannot be served raises ``UsageError``, whose text is one line.

    endpoints: what to listen on, each with the string that it was given as.
    app: what ``--app`` names, or None for the chat.
    """

    synopsis = "[options]"
    longdesc = (
        "Serves a chat for WebSocket clients at --path and a page for it at /: each text goes to everyone, its sender "
        "too. With --app it serves your own application, on every path and without the page. SIGTERM closes every "
        "connection with code 1001."
    )
    # The defaults are filled in later, so that it shows which options were given.
    optParameters: ClassVar[list[list[Any]]] = [
        ["path", None, None, f"Path of the chat. [default: {DEFAULTS['path']}]", _path],
        [
            "ping-interval",
            None,
            None,
            f"Seconds between two pings to a connection; 0 is never. [default: {DEFAULTS['ping-interval']:g}]",
            _seconds("ping-interval"),
        ],
        [
            "idle-timeout",
            None,
            None,
            "Seconds of silence, not even a pong, after which a connection is closed; 0 is never. "
            f"[default: {DEFAULTS['idle-timeout']:g}]",
            _seconds("idle-timeout"),
        ],
        [
            "handshake-timeout",
            None,
            None,
            "Seconds that a client has for an HTTP request, from connecting or from the last answer on; 0 is no limit. "
            f"[default: {DEFAULTS['handshake-timeout']:g}]",
            _seconds("handshake-timeout"),
        ],
        [
            "max-message",
            None,
            None,
            "Octets that a message may have; a longer one is refused with close code 1009. "
            f"[default: {DEFAULTS['max-message']}]",
            _octets("max-message"),
        ],
        [
            "app",
            None,
            None,
            "What to serve in place of the chat, as package.module:name, looked for in the current directory first: a "
            "subclass of WebSocketProtocol, a coroutine function that gets each connection, or a "
            "WebSocketServerFactory, which has settings of its own and takes none but --listen.",
        ],
    ]

    app: Served | WebSocketServerFactory | None = None
    endpoints: tuple[tuple[str, IStreamServerEndpoint], ...] = ()

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self["listen"] = []
        self["origin"] = []

    def opt_listen(self, description: str) -> None:
        """Endpoint to listen on, such as tcp:80 or ssl:443:privateKey=key.pem; may be repeated. [default: tcp:1984]"""
        self["listen"].append(description)

    def opt_origin(self, origin: str) -> None:
        """Web site, such as https://example.com, whose pages may connect as this host's own may; may be repeated."""
        try:
            Origins(allowed=(origin,))
        except ValueError:
            raise UsageError(f"--origin={origin}: give https://host or https://host:port") from None
        self["origin"].append(origin)

    def opt_version(self) -> None:
        """Display the version and exit."""
        print(f"twisted_beastws {__version__}")
        raise SystemExit(0)

    def parseArgs(self, *arguments: str) -> None:
        """There are none. Raises ``UsageError``."""
        if arguments:
            raise UsageError(f"{arguments[0]}: beastws takes options only")

    def postOptions(self) -> None:
        """Resolve what the options name. Raises ``UsageError``."""
        if not self["listen"]:
            self["listen"].append("tcp:1984")
        self.endpoints = tuple((description, _endpoint(description)) for description in self["listen"])
        if self["app"] is not None:
            self.app = self._find_app()
        for option, default in DEFAULTS.items():
            if self[option] is None:
                self[option] = default
        if 0 < self["idle-timeout"] <= self["ping-interval"]:
            raise UsageError(
                f"--idle-timeout={self['idle-timeout']:g} is not more than --ping-interval={self['ping-interval']:g}: "
                "a client that has nothing to say would be closed before it is asked"
            )

    def _find_app(self) -> Served | WebSocketServerFactory:
        try:
            app = find_app(self["app"])
        except AppError as error:
            raise UsageError(f"--app={self['app']}: {error}") from error
        if self["path"] is not None:
            raise UsageError("--path is where the chat is: an --app is served on every path")
        if isinstance(app, WebSocketServerFactory):
            for option in (*DEFAULTS, "origin"):
                if self[option] not in (None, []):
                    raise UsageError(f"--{option} does not reach a WebSocketServerFactory: {self['app']} has its own")
        return app

    @property
    def timeouts(self) -> Timeouts:
        """How long things may take."""
        return Timeouts(
            handshake=self["handshake-timeout"] or None,
            idle=self["idle-timeout"] or None,
            ping_interval=self["ping-interval"] or None,
            # A container's engine kills what is not gone in 10 s.
            close=5.0,
        )

    @property
    def limits(self) -> Limits:
        """How much a connection may hold."""
        # What may come in may go out again, to a reader with some of it still before them.
        buffered = max(Limits.max_buffered, 4 * self["max-message"])
        return Limits(max_message_size=self["max-message"], max_buffered=buffered)

    @property
    def origins(self) -> Origins:
        """Which web sites' pages may connect."""
        return Origins(allowed=tuple(self["origin"]))


def _endpoint(description: str) -> IStreamServerEndpoint:
    # Importing the reactor installs it: not before twistd has read its own options.
    from twisted.internet import reactor
    from twisted.internet.endpoints import serverFromString

    try:
        return cast("IStreamServerEndpoint", serverFromString(reactor, description))
    except OSError as error:
        raise UsageError(f"--listen={description}: {error.filename}: {error.strerror}") from error
    except Exception as error:
        why = " ".join(str(error).split())
        raise UsageError(f"--listen={description}: not an endpoint string, such as tcp:1984: {why}") from error
