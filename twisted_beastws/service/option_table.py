"""The options of ``twistd beastws`` that take one value, and the flags: names, defaults, help and groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted_beastws.server.gates.forwarded import HEADERS
from twisted_beastws.service import option_values as values
from twisted_beastws.service.chat_limits import JOINS_AT_ONCE, MESSAGES_AT_ONCE
from twisted_beastws.service.secrets import ENVIRONMENT

ANY_ORIGIN = "allow-any-origin-dangerously"
NULL_ORIGIN = "allow-null-origin-dangerously"
FILE_ORIGIN = "allow-file-origin-dangerously"
ORIGIN_FLAGS = (ANY_ORIGIN, NULL_ORIGIN, FILE_ORIGIN)

LISTEN = "tcp:1984:interface=127.0.0.1"
"""The default listener: other machines cannot connect to a service that a user only tries."""

# The limits are far above normal use. The port and the path are of restbed's example, and its ping interval. The idle
# timeout is nginx's proxy_read_timeout, and twelve pings: a phone changes networks within it. Container engines kill a
# process 10 s after SIGTERM.
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
    # The chat sends each message to many clients. A person writes a few a minute, a program a few a second (Mattermost
    # allows 10).
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

CONNECTION_LIMITS = (
    "max-message",
    "max-head",
    "max-connections",
    "max-connections-per-address",
    "max-handshakes",
    "max-handshakes-per-address",
    "max-message-rate",
    "max-byte-rate",
)

FACTORY_SETTINGS = (
    "ping-interval",
    "idle-timeout",
    "handshake-timeout",
    "keep-alive-timeout",
    *CONNECTION_LIMITS,
    "origin",
    *ORIGIN_FLAGS,
    "deflate",
)
"""Options that a `WebSocketServerFactory` of the user's has its own settings for."""

CHAT_ROOMS = (
    *("history", "max-room-history", "max-history", "max-chat-rate", "max-joins-per-address"),
    *("backplane", "backplane-prefix"),
)
"""Options that only the chat has."""

REPEATED = ("listen", "origin", "auth", "trust-proxy", "admin-host")
"""Options that can be given several times."""

GROUPS: Mapping[str, Sequence[str]] = {
    "Service": ("listen", "path", "app", "root-path", "deflate", "workers", "worker-timeout"),
    "Access control": ("origin", *ORIGIN_FLAGS, "auth", "client-ca", "trust-proxy", "proxy-header", "proxy-prefix"),
    "Timeouts": ("ping-interval", "idle-timeout", "handshake-timeout", "keep-alive-timeout"),
    "Limits": (*CONNECTION_LIMITS, "max-memory", "max-login-failures"),
    "Chat rooms": CHAT_ROOMS,
    "HTTP API": ("api", "api-token-file"),
    "Shutdown": ("drain-time", "drain-code"),
    "Monitoring": ("admin", "admin-host", "access-log", "access-log-format"),
}
"""The groups of ``--help``."""

FLAGS: list[list[Any]] = [
    [ANY_ORIGIN, None, "Let the pages of every web site connect, with the rights of their visitors."],
    [NULL_ORIGIN, None, "Let pages connect whose browser hides their origin; any page of the web can do that."],
    [FILE_ORIGIN, None, "Let pages connect that are files, as in some web views; any file opened there can connect."],
    ["proxy-prefix", None, "Read X-Forwarded-Prefix of --trust-proxy as the root path of an asgi: application."],
]


def _parameter(option: str, doc: str, read: Callable[[str], Any] = str) -> list[Any]:
    default = DEFAULTS.get(option)
    if default is not None:
        doc = f"{doc} [default: {default:g}]" if isinstance(default, float) else f"{doc} [default: {default}]"
    # The defaults are filled in later, so that the options that the user gave are known.
    return [option, None, None, doc, values.converter(option, read)]


PARAMETERS: list[list[Any]] = [
    _parameter("path", "Path of the chat.", values.chat_path),
    _parameter(
        "app",
        "Application to serve on every path in place of the chat, as package.module:name: a subclass of "
        "WebSocketProtocol, a coroutine function, a Router, or a WebSocketServerFactory, which has its own origins, "
        "timeouts and limits; or as asgi:package.module:name, an ASGI application.",
    ),
    _parameter(
        "root-path",
        "Path below which an asgi: application is mounted, such as /app, if a proxy removes it from the requests.",
        values.root_path,
    ),
    _parameter(
        "workers",
        "Number of processes that share the sockets, one for each core; 0 is a single process. The chat then needs "
        "--backplane. Each process has the limits to itself.",
        values.workers,
    ),
    _parameter(
        "worker-timeout",
        f"Seconds without a heartbeat, {values.MIN_SILENCE:g} or more, after which a worker is killed and replaced; 0 "
        "is never.",
        values.silence,
    ),
    _parameter(
        "deflate",
        "Compress messages for clients that offer it: on, or parameters such as "
        "'level=6, server_max_window_bits=12, server_no_context_takeover'.",
        values.deflate,
    ),
    _parameter("ping-interval", "Seconds between two pings to a connection; 0 is never.", values.seconds),
    _parameter("idle-timeout", "Seconds of silence after which a connection is closed; 0 is never.", values.seconds),
    _parameter("handshake-timeout", "Seconds that a client has for an HTTP request; 0 is no limit.", values.seconds),
    _parameter(
        "keep-alive-timeout",
        "Seconds that an HTTP connection can be idle, more than a balancer in front allows; 0 is no limit.",
        values.seconds,
    ),
    _parameter("max-message", "Bytes of a message; the service closes a connection beyond it with 1009.", values.size),
    _parameter("max-head", "Bytes of an HTTP request; a longer one gets 431.", values.size),
    _parameter("max-connections", "WebSockets at a time; one more gets 503; 0 is no limit.", values.count),
    _parameter("max-connections-per-address", "The same from one address, or IPv6 network of 64 bits.", values.count),
    _parameter("max-handshakes", "HTTP requests a second; more get 503; 0 is no limit.", values.rate),
    _parameter("max-handshakes-per-address", "The same from one address; more get 429.", values.rate),
    _parameter(
        "max-message-rate",
        "Messages and pings that a client can send a second; beyond it the connection is closed with 1008; 0 is no "
        "limit.",
        values.rate,
    ),
    _parameter("max-byte-rate", "The same for bytes; a whole --max-message can always come at once.", values.rate),
    _parameter(
        "max-memory",
        "Bytes that all connections can buffer together, in and out; beyond it the largest are closed with 1013; "
        "0 is no limit.",
        values.memory,
    ),
    _parameter(
        "max-login-failures",
        "Wrong passwords a minute from one address; beyond it logins get 429; 0 is no limit.",
        values.count,
    ),
    _parameter(
        "client-ca",
        "File of authorities (PEM): TLS asks each client for a certificate that one of them signed, and its common "
        "name is the user. --listen then takes only ssl: endpoints.",
        values.authorities,
    ),
    _parameter("proxy-header", "Field with the client's address: x-forwarded-for or forwarded.", values.proxy_header),
    _parameter(
        "max-chat-rate",
        f"Messages that a client of the chat can send a second, and {MESSAGES_AT_ONCE} times as many at once; "
        "beyond it the connection is closed with 1008; 0 is no limit.",
        values.rate,
    ),
    _parameter(
        "max-joins-per-address",
        f"Clients of one address that can join the chat a second, and {JOINS_AT_ONCE} times as many at once; more get "
        "429; 0 is no limit.",
        values.rate,
    ),
    _parameter("history", "Messages of each room to keep for clients that return.", values.messages),
    _parameter("max-room-history", "Bytes of a room's history, with --backplane.", values.size),
    _parameter("max-history", "Bytes of all rooms' histories.", values.size),
    _parameter(
        "backplane-prefix",
        "Beginning of the keys and channels in Redis, or the schema in PostgreSQL; give each chat on one database its "
        "own.",
        values.key_prefix,
    ),
    [
        "backplane",
        None,
        None,
        "Redis or PostgreSQL that joins this chat with those of other processes and machines, as redis://host:6379/0, "
        "rediss://user:password@host, unix:///path, redis+sentinel://host,host/service, redis+cluster://host,host or "
        "postgresql://user:password@host/database; or file:PATH, a file whose first line is the URL. The "
        f"environment variable {ENVIRONMENT['backplane']} stands for it too.",
        values.backplane,
    ],
    _parameter(
        "api",
        "Endpoint for the HTTP API, by which programs publish messages and list rooms, such as "
        "tcp:9091:interface=127.0.0.1; needs --api-token-file.",
    ),
    _parameter("api-token-file", "File with a token on each line: programs that have one can use the API."),
    _parameter("drain-time", "Seconds from SIGTERM until all connections are closed.", values.drain_seconds),
    _parameter("drain-code", "Close code at shutdown: 1001, or 1012 for a restart.", values.drain_code),
    _parameter(
        "admin",
        "Endpoint for /metrics, /healthz and /readyz, such as tcp:9090:interface=127.0.0.1; by default there is none.",
    ),
    _parameter("access-log", "File for a line about each WebSocket; - is the standard output."),
    _parameter("access-log-format", "text or json.", values.log_format),
    _parameter("config", "File of options (TOML), such as ping-interval = 5. The command line takes precedence."),
]
