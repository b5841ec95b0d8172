"""The command line of ``twistd beastws``."""

from __future__ import annotations

import os
import re
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.python.usage import Options as TwistedOptions
from twisted.python.usage import UsageError

from twisted_beastws._version import __version__
from twisted_beastws.amount import read_amount
from twisted_beastws.budget import MemoryBudget
from twisted_beastws.hub import Hub, LocalBackplane
from twisted_beastws.hub.redis import RedisBackplane
from twisted_beastws.hub.redis_url import RedisURL
from twisted_beastws.options import Deflate, Limits, Origins, Timeouts
from twisted_beastws.server.factory import WebSocketServerFactory
from twisted_beastws.service import worker
from twisted_beastws.service.access_log import FORMATS, AccessLog
from twisted_beastws.service.app import AppError, Served, find_app
from twisted_beastws.service.authentication import Certificates, CheckerError, Checkers, make_checker
from twisted_beastws.service.chat_limits import JOINS_AT_ONCE, MESSAGES_AT_ONCE
from twisted_beastws.service.config import ConfigError, read_config
from twisted_beastws.service.deflating import read_deflate
from twisted_beastws.service.descriptions import with_unix_mode
from twisted_beastws.service.forwarded import HEADERS, TrustedProxies
from twisted_beastws.service.handover import absolute, read_files
from twisted_beastws.service.help import grouped
from twisted_beastws.service.login_limit import LoginLimit
from twisted_beastws.service.secrets import ENVIRONMENT, has_password, read_secret
from twisted_beastws.service.serving import Farewell
from twisted_beastws.wire.origin import check_allowed

if TYPE_CHECKING:
    from twisted_beastws.service.certificates import ReloadableEndpoint
    from twisted_beastws.service.sockets import HeldPort

# RFC 3986 §3.3: what a path is made of; a browser would send anything else in another spelling.
_PATH = re.compile(r"/[A-Za-z0-9\-._~!$&'()*+,;=:@%/]*")

ANY_ORIGIN = "allow-any-origin-dangerously"
NULL_ORIGIN = "allow-null-origin-dangerously"
FILE_ORIGIN = "allow-file-origin-dangerously"
ORIGIN_FLAGS = (ANY_ORIGIN, NULL_ORIGIN, FILE_ORIGIN)

# The PROXY protocol, as haproxy: reads it, is a trusted proxy's, and a UNIX socket is not the network.
_UNENCRYPTED = ("tcp", "tcp6", "systemd")

_DRAIN_REASONS = {1001: "the server is shutting down", 1012: "the server is restarting"}

# The limits are what no fair client comes near. The port and the path are of restbed's example, and its pings. The idle
# timeout is nginx's proxy_read_timeout, and twelve pings: a phone changes networks within it, and what does not answer
# in a minute will not. A container's engine kills what is not gone in 10 s.
DEFAULTS: dict[str, Any] = {
    "path": "/chat",
    "workers": 0,
    "worker-timeout": 30.0,
    "ping-interval": 5.0,
    "idle-timeout": 60.0,
    "handshake-timeout": 30.0,
    "keep-alive-timeout": 75.0,
    "max-message": 1 << 20,
    "max-head": 1 << 14,
    "max-connections": 10000,
    "max-connections-per-address": 2000,
    "max-handshakes": 0.0,
    "max-handshakes-per-address": 1000.0,
    "max-message-rate": 0.0,
    "max-byte-rate": 0.0,
    "max-memory": 1 << 28,
    "max-login-failures": 10,
    "proxy-header": HEADERS[0],
    # The chat's messages go to many. A person sends a few a minute, a program a few a second (Mattermost: 10).
    "max-chat-rate": 100.0,
    "max-joins-per-address": 100.0,
    "history": 100,
    "max-room-history": 1 << 22,
    "max-history": 1 << 26,
    "backplane-prefix": "beastws",
    "drain-time": 8.0,
    "drain-code": 1001,
    "access-log-format": "text",
}

LISTEN = "tcp:1984:interface=127.0.0.1"
"""The default listener: no other machine reaches a service that a user only tries."""

_LOOPBACK = re.compile(r":interface=(?:127\.|localhost\b|\\:\\:1(?!\S))")

MIN_SILENCE = 4 * worker.BEAT
"""Seconds of --worker-timeout, at least: four signs of life. After less, a healthy process that is busy is killed."""

MAX_OPENING = 1000
"""Connections without a WebSocket, at most: with --max-head, this bounds the memory of clients that never open one."""

MAX_OPENING_PER_ADDRESS = 250
"""The same from one address: a quarter, so that a network of 48 bits, which has four times as much, fits too."""

_LIMITS = (
    "max-message",
    "max-head",
    "max-connections",
    "max-connections-per-address",
    "max-handshakes",
    "max-handshakes-per-address",
    "max-message-rate",
    "max-byte-rate",
)

SETTINGS = (
    "ping-interval",
    "idle-timeout",
    "handshake-timeout",
    "keep-alive-timeout",
    *_LIMITS,
    "origin",
    *ORIGIN_FLAGS,
    "deflate",
)
"""Those that a `WebSocketServerFactory` has settings of its own for."""

REPEATED = ("listen", "origin", "auth", "trust-proxy", "admin-host")

_ROOMS = (
    *("history", "max-room-history", "max-history", "max-chat-rate", "max-joins-per-address"),
    *("backplane", "backplane-prefix"),
)

GROUPS: Mapping[str, Sequence[str]] = {
    "What is served": ("listen", "path", "app", "deflate", "workers", "worker-timeout"),
    "Who may come in": ("origin", *ORIGIN_FLAGS, "auth", "client-ca", "trust-proxy", "proxy-header"),
    "Times": ("ping-interval", "idle-timeout", "handshake-timeout", "keep-alive-timeout"),
    "Limits": (*_LIMITS, "max-memory", "max-login-failures"),
    "The chat's rooms": _ROOMS,
    "The end": ("drain-time", "drain-code"),
    "What is to be seen": ("admin", "admin-host", "access-log", "access-log-format"),
}


def _converter(option: str, read: Callable[[str], Any]) -> Callable[[str], Any]:
    """``read``, whose ``ValueError`` says what to give, for a value on the command line."""

    def convert(text: str) -> Any:
        try:
            return read(text)
        except ValueError as error:
            raise UsageError(f"--{option}={text}: {error}") from None

    return convert


def _seconds(text: str) -> float:
    return read_amount(text, "give seconds, such as 5 or 0.5; 0 is never")


def _silence(text: str) -> float:
    expected = f"give seconds, {MIN_SILENCE:g} or more, such as 30; 0 is never"
    seconds = read_amount(text, expected)
    if 0 < seconds < MIN_SILENCE:
        raise ValueError(expected)
    return seconds


def _drain_seconds(text: str) -> float:
    return read_amount(text, "give seconds, such as 8 or 0.5; 0 drops everyone")


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text):
        raise ValueError("give a number; 0 is no limit")
    return int(text)


def _workers(text: str) -> int:
    if not re.fullmatch("[0-9]{1,3}", text):
        raise ValueError("give a number of processes, such as 4; 0 is this one alone")
    return int(text)


def _rate(text: str) -> float:
    return read_amount(text, "give a number a second, such as 10 or 0.5; 0 is no limit")


def _proxy_header(text: str) -> str:
    if text.lower() not in HEADERS:
        raise ValueError(f"give {' or '.join(HEADERS)}")
    return text.lower()


def _octets(text: str) -> int:
    if not re.fullmatch("0*[1-9][0-9]{0,17}", text):
        raise ValueError("give a number of octets, 1 or more")
    return int(text)


def _memory(text: str) -> int:
    if not re.fullmatch("[0-9]{1,18}", text):
        raise ValueError("give a number of bytes, such as 268435456; 0 is no limit")
    return int(text)


def _path(text: str) -> str:
    if not _PATH.fullmatch(text):
        raise ValueError("give a path such as /chat: from a slash on, without a query, percent-encoded")
    return text


def _prefix(text: str) -> str:
    if not re.fullmatch("[!-~]{1,64}", text):
        raise ValueError("give 1 to 64 printable ASCII characters, without a space")
    return text


def _messages(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text):
        raise ValueError("give a number of messages; 0 keeps none")
    return int(text)


def _deflate(text: str) -> str:
    read_deflate(text)
    # A worker reads it again.
    return text


def _backplane(text: str) -> str:
    # What was given may hold a password.
    try:
        url = read_secret(text)
        RedisURL.parse(url)
    except ValueError as error:
        raise UsageError(f"--backplane: {error}") from None
    if find_spec("txredisapi") is None:
        raise UsageError("--backplane needs an extra: pip install 'twisted_beastws[redis]'")
    return url


def _authorities(text: str) -> str:
    from twisted_beastws.tls.pem import read_authorities

    try:
        read_authorities(text if worker.membership is None else worker.membership.handed.path(text))
    except OSError as error:
        raise ValueError(error.strerror) from None
    # The directory may change before it is read again.
    return os.path.abspath(text)


def _drain_code(text: str) -> int:
    if text not in map(str, _DRAIN_REASONS):
        raise ValueError("give 1001, the server goes away, or 1012, it comes back at once")
    return int(text)


def _log_format(text: str) -> str:
    if text not in FORMATS:
        raise ValueError(f"give {' or '.join(FORMATS)}")
    return text


def _parameter(option: str, doc: str, read: Callable[[str], Any] = str) -> list[Any]:
    default = DEFAULTS.get(option)
    if default is not None:
        doc = f"{doc} [default: {default:g}]" if isinstance(default, float) else f"{doc} [default: {default}]"
    # The defaults are filled in later, so that it shows which options were given.
    return [option, None, None, doc, _converter(option, read)]


class Options(TwistedOptions):
    """What the user asked for; a value that cannot be served raises ``UsageError``, whose text is one line.

    endpoints: what to listen on, each with the string that it was given as.
    admin: the same for the metrics and the state of health; None is nowhere.
    app: what ``--app`` names, or None for the chat.
    checkers: who ``--auth`` or ``--client-ca`` lets in; None is everyone.
    access_log: where connections are told; None is nowhere.
    proxies: who is believed when it says for whom it asks; None is nobody.
    membership: what this process is if it is a worker. held: the ports of ``workers``, as far as they listen.
    arguments: a command line that says the same, wherever each option was given. files: the content of those that were
        read for ``workers``, by their paths. directory: that in which the options were parsed.
    """

    synopsis = "[options]"
    longdesc = (
        "Serves a chat for WebSocket clients at --path and a page for it at /, or with --app your own application. "
        "SIGTERM sends every client home, a second one drops those that are left; SIGHUP reopens logs and reads "
        "certificates again."
    )
    optFlags: ClassVar[list[list[Any]]] = [
        [ANY_ORIGIN, None, "Let the pages of every web site connect, in the name of whoever looks at them."],
        [NULL_ORIGIN, None, "Let in pages whose browser hides their origin; any page of the web can make itself one."],
        [FILE_ORIGIN, None, "Let in pages that are files, as some web views send; any file opened there can connect."],
    ]
    optParameters: ClassVar[list[list[Any]]] = [
        _parameter("path", "Path of the chat.", _path),
        _parameter(
            "app",
            "What to serve in place of the chat, on every path, as package.module:name: a subclass of "
            "WebSocketProtocol, a coroutine function, a Router, or a WebSocketServerFactory, which has its own "
            "origins, times and sizes.",
        ),
        _parameter(
            "workers",
            "Processes that share the sockets, one for each core; 0 is this one alone. The chat's need --backplane. "
            "Limits are those of each.",
            _workers,
        ),
        _parameter(
            "worker-timeout",
            f"Seconds without a sign of life, {MIN_SILENCE:g} or more, after which one of these processes is killed "
            "and replaced; 0 is never.",
            _silence,
        ),
        _parameter(
            "deflate",
            "Compress messages for clients that offer it: on, or parameters such as "
            "'level=6, server_max_window_bits=12, server_no_context_takeover'.",
            _deflate,
        ),
        _parameter("ping-interval", "Seconds between two pings to a connection; 0 is never.", _seconds),
        _parameter("idle-timeout", "Seconds of silence after which a connection is closed; 0 is never.", _seconds),
        _parameter("handshake-timeout", "Seconds that a client has for an HTTP request; 0 is no limit.", _seconds),
        _parameter(
            "keep-alive-timeout",
            "Seconds that an HTTP connection may wait for its next request, more than a balancer lets it; 0 is never.",
            _seconds,
        ),
        _parameter("max-message", "Octets that a message may have; a longer one is refused with 1009.", _octets),
        _parameter("max-head", "Octets that an HTTP request may have; a longer one is refused with 431.", _octets),
        _parameter("max-connections", "WebSockets at a time; one more is refused with 503; 0 is no limit.", _count),
        _parameter("max-connections-per-address", "The same from one address, or IPv6 network of 64 bits.", _count),
        _parameter("max-handshakes", "HTTP requests a second; more are refused with 503; 0 is no limit.", _rate),
        _parameter("max-handshakes-per-address", "The same from one address; more are refused with 429.", _rate),
        _parameter(
            "max-message-rate",
            "Messages and pings that a client may send a second; who sends more is closed with 1008; 0 is no limit.",
            _rate,
        ),
        _parameter("max-byte-rate", "The same for octets; a whole --max-message may always come at once.", _rate),
        _parameter(
            "max-memory",
            "Bytes that all connections may buffer together, in and out; beyond it the largest are closed with 1013; "
            "0 is no limit.",
            _memory,
        ),
        _parameter(
            "max-login-failures",
            "Wrong passwords a minute from one address; more logins are refused with 429; 0 is no limit.",
            _count,
        ),
        _parameter(
            "client-ca",
            "File of certificates (PEM): ask for a certificate by TLS, and let in whose one of these has signed, by "
            "the common name in it; --listen takes ssl: alone then.",
            _authorities,
        ),
        _parameter("proxy-header", "Field that they set: x-forwarded-for or forwarded.", _proxy_header),
        _parameter(
            "max-chat-rate",
            f"Messages that a client of the chat may send a second, and {MESSAGES_AT_ONCE} times as many at once; a "
            "client that sends more is closed with 1008; 0 is no limit.",
            _rate,
        ),
        _parameter(
            "max-joins-per-address",
            f"Clients of one address that may enter the chat a second, and {JOINS_AT_ONCE} times as many at once; more "
            "are refused with 429; 0 is no limit.",
            _rate,
        ),
        _parameter("history", "Messages of each room that are kept for clients that come back.", _messages),
        _parameter("max-room-history", "Bytes that those of a room may take, with --backplane.", _octets),
        _parameter("max-history", "Bytes that those of all rooms may take.", _octets),
        _parameter(
            "backplane-prefix",
            "Beginning of the keys and channels in Redis; give each of several chats on one database its own.",
            _prefix,
        ),
        [
            "backplane",
            None,
            None,
            "Redis that joins this chat with those of other processes and machines, as redis://host:6379/0, "
            "rediss://user:password@host or unix:///path; or file:PATH, whose first line is that. Also by "
            f"{ENVIRONMENT['backplane']} in the environment.",
            _backplane,
        ],
        _parameter("drain-time", "Seconds from SIGTERM until all connections are gone.", _drain_seconds),
        _parameter("drain-code", "Close code at the end: 1001, or 1012 for a restart.", _drain_code),
        _parameter(
            "admin",
            "Endpoint for /metrics, /healthz and /readyz, such as tcp:9090:interface=127.0.0.1; without it they are "
            "nowhere.",
        ),
        _parameter("access-log", "File for a line about each WebSocket; - is the standard output."),
        _parameter("access-log-format", "text or json.", _log_format),
        _parameter(
            "config", "File of options (TOML): ping-interval = 5. What is given on the command line goes before it."
        ),
    ]

    app: Served | WebSocketServerFactory | None = None
    endpoints: tuple[tuple[str, ReloadableEndpoint], ...] = ()
    admin: tuple[str, ReloadableEndpoint] | None = None
    checkers: Checkers | Certificates | None = None
    access_log: AccessLog | None = None
    proxies: TrustedProxies | None = None
    arguments: Sequence[str] = ()
    directory = "."

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self["listen"] = []
        self["origin"] = []
        self["auth"] = []
        self["trust-proxy"] = []
        self["admin-host"] = []
        self._from_file: set[str] = set()
        self._from_environment: set[str] = set()
        self._command_line: list[str] = []
        self._checkers: list[str] = []
        self.membership = worker.membership
        self.held: list[HeldPort] = []
        self.files: dict[str, str] = {}

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse a command line. Raises ``UsageError``."""
        self._command_line = [*(sys.argv[1:] if options is None else options)]
        super().parseOptions(self._command_line)  # type: ignore[no-untyped-call]

    def opt_listen(self, description: str) -> None:
        """Endpoint to listen on, such as tcp:80 or ssl:443:privateKey=key.pem; may be
        repeated. Without it only this machine can connect. [default: tcp:1984:interface=127.0.0.1]"""
        self["listen"].append(description)

    def opt_origin(self, origin: str) -> None:
        """Web site, such as https://example.com, whose pages may connect as this host's own may; may be repeated."""
        try:
            check_allowed(origin)
        except ValueError as error:
            raise UsageError(f"--origin={origin}: {error}") from None
        self["origin"].append(origin)

    def opt_auth(self, description: str) -> None:
        """Ask for a name and a password, over HTTP Basic, and let in whom one of these knows, such as
        file:/etc/beastws.passwd with a line name:password for each; may be repeated. Also by BEASTWS_AUTH in the
        environment."""
        try:
            self["auth"].append(make_checker(description))
            self._checkers.append(description)
        except CheckerError as error:
            # What is behind the colon may be a password.
            raise UsageError(f"--auth={description.partition(':')[0]}: {error}") from None

    def opt_hash_password(self, name: str) -> None:
        """Ask for the password of a user, print the line of a password file for it, hashed, and exit."""
        from getpass import getpass

        from twisted_beastws.service.passwords import password_line

        try:
            line = password_line(name, getpass if sys.stdin.isatty() else lambda _: sys.stdin.readline().rstrip("\r\n"))
        except ValueError as error:
            raise UsageError(f"--hash-password={name}: {error}") from None
        print(line)
        raise SystemExit(0)

    def opt_trust_proxy(self, network: str) -> None:
        """Address or network of a proxy that is believed when it says for whom it asks, such as 127.0.0.1 or
        10.0.0.0/8; or unix, for whoever comes by a UNIX socket; may be repeated."""
        try:
            TrustedProxies([network], HEADERS[0])
        except ValueError:
            raise UsageError(
                f"--trust-proxy={network}: give an address, a network such as 10.0.0.0/8, or unix"
            ) from None
        self["trust-proxy"].append(network)

    def opt_admin_host(self, name: str) -> None:
        """Name by which --admin may be asked, besides addresses, localhost and this machine's own name; may be
        repeated."""
        if not re.fullmatch(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*)", name):
            raise UsageError(f"--admin-host={name}: give a host's name such as beastws.internal, without a port")
        self["admin-host"].append(name)

    def opt_version(self) -> None:
        """Display the version and exit."""
        print(f"twisted_beastws {__version__}")
        raise SystemExit(0)

    def opt_help(self) -> None:
        """Display this and exit."""
        print(self)
        raise SystemExit(0)

    def getUsage(self, width: int | None = None) -> str:
        """The text of ``--help``."""
        width = width or int(os.environ.get("COLUMNS", "80"))
        options = grouped(GROUPS, self.longOpt, self.docs, width)
        return "\n".join(["", *textwrap.wrap(self.longdesc, width - 1), options])

    def parseArgs(self, *arguments: str) -> None:
        """There are none. Raises ``UsageError``."""
        if arguments:
            raise UsageError(f"{arguments[0]}: beastws takes options only")

    def postOptions(self) -> None:
        """Resolve what the options name. Raises ``UsageError``."""
        self._read_environment()
        if self["config"] is not None:
            self._read_file(self["config"])
        if not self["listen"]:
            self["listen"].append(LISTEN)
        self.directory = os.path.abspath(".")
        self.arguments = self._as_arguments()
        if self["workers"] and self["app"] is None and self["backplane"] is None:
            raise UsageError(
                f"{self._named('workers')}={self['workers']}: the chat's processes need --backplane, which joins them"
            )
        self.endpoints = tuple(
            (description, self._endpoint("listen", description, place))
            for place, description in enumerate(self["listen"])
        )
        if self["workers"]:
            self.files = self.read_files()
        if self["admin"] is not None and self.membership is None:
            self.admin = (self["admin"], self._endpoint("admin", self["admin"]))
        if self["app"] is not None:
            self.app = self._find_app()
        for option, default in DEFAULTS.items():
            if self[option] is None:
                self[option] = default
        if self["auth"]:
            self.checkers = Checkers(self["auth"], LoginLimit(self["max-login-failures"] or None, time.monotonic))
        elif self["client-ca"] is not None:
            self.checkers = Certificates()
        if self["trust-proxy"]:
            self.proxies = TrustedProxies(self["trust-proxy"], self["proxy-header"])
        if self["access-log"] is not None:
            relay = None if self.membership is None else self.membership.reports.access_line
            self.access_log = AccessLog(self["access-log"], self["access-log-format"], relay)
        if 0 < self["idle-timeout"] <= self["ping-interval"]:
            raise UsageError(
                f"{self._named('idle-timeout')}={self['idle-timeout']:g} is not more than "
                f"{self._named('ping-interval')}={self['ping-interval']:g}: "
                "a client that has nothing to say would be closed before it is asked"
            )

    def _read_environment(self) -> None:
        """Fill in what the command line left out."""
        for option, variable in ENVIRONMENT.items():
            value = os.environ.get(variable)
            if not value or self._is_given(option):
                continue
            self._from_environment.add(option)
            try:
                if option == "auth":
                    self.opt_auth(value)
                else:
                    self[option] = _backplane(value)
            except UsageError as error:
                raise UsageError(f"{variable}: {str(error).partition(': ')[2]}") from None

    def _read_file(self, path: str) -> None:
        """Fill in what the command line left out."""
        parameters = {row[0]: row[4] for row in self.optParameters if row[0] != "config"}
        methods = {name: getattr(self, f"opt_{name.replace('-', '_')}") for name in REPEATED}
        flags = [row[0] for row in self.optFlags]
        try:
            values = read_config(path, flags=flags, single=parameters, repeated=methods)
        except ConfigError as error:
            raise UsageError(f"--config={error}") from None
        for key, given in values.items():
            if self._is_given(key):
                continue
            self._from_file.add(key)
            try:
                for value in given:
                    if key in methods:
                        methods[key](value)
                    else:
                        self[key] = parameters[key](value) if key in parameters else value
            except UsageError as error:
                raise UsageError(f"--config={path}: {str(error).removeprefix('--')}") from None

    def _is_given(self, option: str) -> bool:
        value = self[option]
        # A flag that is not given is 0, and so may be a number that is.
        return bool(value) if isinstance(value, list) or option in ORIGIN_FLAGS else value is not None

    def _named(self, option: str) -> str:
        """The option, as whoever gave it knows it."""
        if option in self._from_environment:
            return ENVIRONMENT[option]
        return f"--config={self['config']}: {option}" if option in self._from_file else f"--{option}"

    def _find_app(self) -> Served | WebSocketServerFactory:
        try:
            app = find_app(self["app"])
        except AppError as error:
            raise UsageError(f"{self._named('app')}={self['app']}: {error}") from error
        if self["path"] is not None:
            raise UsageError(f"{self._named('path')} is where the chat is: an --app is served on every path")
        for option in _ROOMS:
            if self[option] is not None:
                raise UsageError(f"{self._named(option)} is the chat's: an --app makes a Hub of its own")
        if isinstance(app, WebSocketServerFactory):
            for option in SETTINGS:
                if self._is_given(option):
                    raise UsageError(
                        f"{self._named(option)} does not reach a WebSocketServerFactory: {self['app']} has its own"
                    )
        if self["auth"] and hasattr(getattr(app, "make", app), "pages"):
            raise UsageError(
                f"{self._named('auth')} guards WebSockets alone: the Router {self['app']} has a twisted.web resource "
                "as its default, whose pages anyone could get"
            )
        return app

    @property
    def deflate(self) -> Deflate | None:
        """How messages are compressed."""
        return None if self["deflate"] is None else read_deflate(self["deflate"])

    @property
    def timeouts(self) -> Timeouts:
        """How long things may take."""
        return Timeouts(
            handshake=self["handshake-timeout"] or None,
            keep_alive=self["keep-alive-timeout"] or None,
            idle=self["idle-timeout"] or None,
            ping_interval=self["ping-interval"] or None,
            close=5.0,
        )

    @property
    def limits(self) -> Limits:
        """How much a connection may hold, and how many there may be."""
        return Limits(
            max_message_size=self["max-message"],
            max_head_size=self["max-head"],
            max_connections=self["max-connections"] or None,
            max_connections_per_peer=self["max-connections-per-address"] or None,
            max_opening=MAX_OPENING,
            max_opening_per_peer=MAX_OPENING_PER_ADDRESS,
            max_handshakes=self["max-handshakes"] or None,
            max_handshakes_per_peer=self["max-handshakes-per-address"] or None,
            max_message_rate=self["max-message-rate"] or None,
            max_byte_rate=self["max-byte-rate"] or None,
        )

    @property
    def visible(self) -> Sequence[str]:
        """The options whose value on the command line has a password."""
        given = [("auth", description) for description in self._checkers]
        if self["backplane"] is not None:
            given.append(("backplane", self["backplane"]))
        shown = {
            option
            for option, value in given
            if has_password(option, value) and any(value in argument for argument in self._command_line)
        }
        return sorted(shown)

    @property
    def exposed(self) -> Sequence[str]:
        """The endpoints at which passwords come unencrypted, and not from a proxy that is trusted."""
        if not self["auth"] or self["trust-proxy"]:
            return ()
        plain = (description for description in self["listen"] if description.partition(":")[0] in _UNENCRYPTED)
        return [description for description in plain if not _LOOPBACK.search(description)]

    @property
    def budget(self) -> MemoryBudget | None:
        """What all connections may buffer together."""
        limit = self["max-memory"]
        return MemoryBudget(limit) if limit else None

    @property
    def origins(self) -> Origins:
        """Which web sites' pages may connect."""
        return Origins(
            allowed=tuple(self["origin"]),
            allow_any_origin_dangerously=bool(self[ANY_ORIGIN]),
            allow_null_origin_dangerously=bool(self[NULL_ORIGIN]),
            allow_file_origin_dangerously=bool(self[FILE_ORIGIN]),
        )

    @property
    def hub(self) -> Hub:
        """The chat's rooms."""
        history, most, url = self["history"], self["max-history"], self["backplane"]
        if url is None:
            return Hub(LocalBackplane(history=history, max_history=most))
        room, prefix = min(self["max-room-history"], most), self["backplane-prefix"]
        return Hub(RedisBackplane(url, history=history, max_room_history=room, max_history=most, prefix=prefix))

    @property
    def farewell(self) -> Farewell:
        """How connections are sent home."""
        code = self["drain-code"]
        return Farewell(code, _DRAIN_REASONS[code], self["drain-time"])

    def read_files(self) -> dict[str, str]:
        """Read the files that workers are to start with. Raises OSError."""
        return read_files([absolute(description) for description in self["listen"]], self["client-ca"])

    def _as_arguments(self) -> list[str]:
        """The command line for a worker: each option that was given, as it can be read again."""
        single = [row[0] for row in self.optParameters if row[0] not in ("config", "workers", "worker-timeout")]
        given: dict[str, list[Any]] = {name: [self[name]] for name in single if self[name] is not None}
        given |= {name: self._checkers if name == "auth" else self[name] for name in REPEATED}
        flags = [f"--{row[0]}" for row in self.optFlags if self[row[0]]]
        return [*flags, *(f"--{name}={value}" for name, values in given.items() for value in values)]

    def _reactor(self, description: str, place: int | None) -> Any:
        """The reactor for an endpoint. place: that of its ``--listen``, which workers share."""
        # Importing the reactor installs it: not before twistd has read its own options.
        from twisted.internet import reactor

        from twisted_beastws.service.sockets import AdoptingReactor, HoldingReactor, KeepingReactor, ServiceReactor

        if self.membership is not None:
            return AdoptingReactor(reactor, [each for each in self.membership.sockets if each.endpoint == place])
        if self["workers"] and place is not None:
            return ServiceReactor(HoldingReactor(reactor, place, self.held), description)
        return ServiceReactor(KeepingReactor(reactor), description)

    def _endpoint(self, option: str, description: str, place: int | None = None) -> ReloadableEndpoint:
        from twisted_beastws.service.certificates import ReloadableEndpoint, why_no_identity
        from twisted_beastws.service.proxy_protocol import ProxyProtocolReactor

        reactor = ProxyProtocolReactor(self._reactor(description, place))
        client_ca = self["client-ca"] if option == "listen" else None
        handed = None if self.membership is None else self.membership.handed
        named = f"{self._named(option)}={description}"
        try:
            return ReloadableEndpoint(reactor, with_unix_mode(description), client_ca, handed)
        except OSError as error:
            raise UsageError(f"{named}: {error.filename}: {error.strerror}") from error
        except Exception as error:
            why = why_no_identity(error, description)
            if why is None:
                why = f"not an endpoint string, such as tcp:1984: {' '.join(str(error).split())}"
            raise UsageError(f"{named}: {why}") from error
