"""The options of connections: frozen values. Each default has a unit and a named precedent."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from inspect import isasyncgenfunction, isclass, isgeneratorfunction
from typing import TYPE_CHECKING, Any, Literal

from twisted_beastws.budget import MemoryBudget
from twisted_beastws.wire.origin import check_allowed

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime


# RFC 9110 §5.6.2: token.
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class Role(Enum):
    """The end of a connection (Beast: ``beast::role_type``)."""

    SERVER = "server"
    CLIENT = "client"


def kind_of(value: object) -> str:
    """Describe a value of a wrong type, for the text of an error."""
    return f"the class {value.__name__}" if isclass(value) else f"a value of type {type(value).__name__}"


def check_clock(clock: object) -> None:
    """Raise TypeError unless ``clock`` is None or an ``IReactorTime``."""
    if clock is not None and (isclass(clock) or not (hasattr(clock, "callLater") and hasattr(clock, "seconds"))):
        raise TypeError(f"clock: give a reactor or another IReactorTime, not {kind_of(clock)}")


def check_decorator(decorator: object) -> None:
    """Raise TypeError unless ``decorator`` is None or can be called and would run."""
    if decorator is None:
        return
    if not callable(decorator):
        raise TypeError(f"decorator: give a function, not {kind_of(decorator)}")
    if isgeneratorfunction(decorator) or isasyncgenfunction(decorator):
        raise TypeError(
            f"decorator: {decorator!r} is a generator function, whose body would never run: use await in it instead of "
            "yield (async def), or put @inlineCallbacks over it"
        )


def checked_subprotocols(names: Any) -> tuple[str, ...]:
    """Return the names of subprotocols as a tuple.

    Raises:
        TypeError: ``names`` is not a list of ``str``.
        ValueError: A name is not a token.
    """
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(f"subprotocols={names!r}: give a list of names")
    listed = tuple(names)
    for name in listed:
        if not isinstance(name, str):
            raise TypeError(f"subprotocols: {name!r} is no name: give str")
        # RFC 6455 §4.1: each is a token, as a field's name is.
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"subprotocols: {name!r} is no name: only the characters of a token may stand in it")
    return listed


def _check(value: object, name: str, good: Callable[[Any], bool], wanted: str) -> None:
    number = getattr(value, name)
    told = f"{type(value).__name__}({name}={number!r}): must be {wanted}"
    try:
        fits = good(number)
    except TypeError:
        raise TypeError(told) from None
    if not fits:
        raise ValueError(told)


def _check_positive(value: Any, *names: str) -> None:
    # A subclass may annotate Optional[...], or use None as its default.
    may_be_none = {
        field.name
        for field in fields(value)
        if field.default is None or any(word in str(field.type) for word in ("None", "Optional"))
    }
    for name in names:
        if name not in may_be_none:
            _check(value, name, lambda number: number > 0, "a number greater than 0")
        elif getattr(value, name) is not None:
            _check(value, name, lambda number: number > 0, "a number greater than 0, or None")


def _make_whole(value: Any) -> None:
    """Turn whole numbers that were given as float, such as 1e6, into int. Raises TypeError for other fractions."""
    for field in fields(value):
        number = getattr(value, field.name)
        if isinstance(number, float) and "float" not in str(field.type):
            if not number.is_integer():
                raise TypeError(f"{type(value).__name__}({field.name}={number!r}): must be a whole number")
            object.__setattr__(value, field.name, int(number))


def _check_range(value: object, least: int, most: int, *names: str) -> None:
    for name in names:
        _check(value, name, lambda number: least <= number <= most, f"a number, {least}-{most}")


class DerivedSeconds(float):
    """A default in seconds that follows another option, as `Derived` does."""


@dataclass(frozen=True)
class Timeouts:
    """The timeouts of a connection, in seconds; ``None`` is never.

    A deadline is kept to within 1/32 s, and is never early.

    Args:
        handshake: The time for the opening handshake, from the connection, or from the first byte after an HTTP answer.
            30 (Beast, suggested).
        keep_alive: The time from an HTTP answer to the first byte of the next request. 75 (nginx's
            ``keepalive_timeout``): a balancer that keeps an idle connection for 60 seconds closes it first.
        idle: The longest silence of the peer. The time in which we paused reading does not count, unless bytes wait for
            the peer and it takes none. 300 (Beast, suggested for a server).
        ping_interval: The interval between pings to the peer; less than idle. 30 (half of nginx's
            ``proxy_read_timeout``), or half of idle if that is less.
        send: The longest time in which bytes wait for the peer and it accepts none of them, whatever it sends. 60
            (nginx's ``send_timeout``).
        close: The time from our close frame, or from a failure, to the end of TCP. 10 (websockets' ``close_timeout``).
        message: The age of an unfinished message. 300 (Node.js' ``requestTimeout``).
        max_lifetime: The age at which a connection is closed with 1001. None (uWebSockets has it off).
        strict_pong: Only a pong counts as a sign of life; otherwise any byte does. False (Beast).

    Raises:
        ValueError: A number is not allowed, or idle is not more than ping_interval.
    """

    handshake: float | None = 30.0
    keep_alive: float | None = 75.0
    idle: float | None = 300.0
    ping_interval: float | None = DerivedSeconds(30.0)
    send: float | None = 60.0
    close: float | None = 10.0
    message: float | None = 300.0
    max_lifetime: float | None = None
    strict_pong: bool = False

    def __post_init__(self) -> None:
        names = ("handshake", "keep_alive", "idle", "ping_interval", "send", "close", "message", "max_lifetime")
        _check_positive(self, *names)
        if isinstance(self.ping_interval, DerivedSeconds):
            most = 30.0 if self.idle is None else min(30.0, self.idle / 2)
            object.__setattr__(self, "ping_interval", DerivedSeconds(most))
        if self.idle is not None and self.ping_interval is not None and self.ping_interval >= self.idle:
            raise ValueError(
                f"Timeouts(idle={self.idle:g}, ping_interval={self.ping_interval:g}): a peer that has nothing to say "
                f"would be closed before it is pinged: give ping_interval={self.idle / 2:g}, or None for no pings"
            )

    @classmethod
    def suggested(cls, role: Role | str) -> Timeouts:
        """Return Beast's ``timeout::suggested``: a server pings at half its idle timeout, a client never."""
        if Role(role) is Role.SERVER:
            return cls(handshake=30.0, idle=300.0, ping_interval=150.0, close=30.0)
        return cls(handshake=30.0, idle=None, ping_interval=None, close=30.0)


class Derived(int):
    """A default that follows another option. A number that the user gives is a plain ``int``, and stays as it is."""


BYTES_A_FRAGMENT = 256
"""The smallest average size of the fragments of a message of ``max_message_size``: 4096 fragments for 1 MiB."""


@dataclass(frozen=True)
class Limits:
    """The limits of a connection. Sizes are in bytes. A limit refuses values *beyond* its number, and accepts the
    number itself.

    A message that is received can be sent back: a ValueError says which of ``max_message_size``, ``max_buffered`` and
    ``max_fragments`` do not fit together. A limit that you leave out follows ``max_message_size``.

    Args:
        max_message_size: The size of a message after decompression; ``None`` is unlimited. 1 MiB (websockets'
            ``max_size``).
        max_frame_size: The size of the payload of one frame as it was sent; ``None`` leaves it to max_message_size.
        max_fragments: The frames of one message, empty ones included; ``None`` is unlimited. 4096 (websockets), or one
            for each 256 bytes of max_message_size.
        max_head_size: The size of an HTTP head with its empty line. 16 KiB (Node.js' ``--max-http-header-size``).
        max_head_lines: The lines of an HTTP head. 128 (websockets' ``MAX_NUM_HEADERS``).
        high_water: The size of the write buffer above which producers are paused. 64 KiB (asyncio's transports).
        low_water: The size of the write buffer at which producers are resumed and `drain` fires. A quarter of
            high_water (asyncio's transports).
        max_buffered: The memory that the bytes for a slow reader take; a hard limit. 4 MiB, or four times
            max_message_size.
        slow_reader: The policy at max_buffered: ``close`` (with 1013), ``drop`` (whole messages, which are counted) or
            ``pause`` (`BufferFull` is raised).
        fragment_size: Longer messages are sent in frames of this size, so that pings and pongs can go in between; None
            sends each message in one frame. 256 KiB (Beast's ``auto_fragment``, at 4 KiB).
        max_queued: The messages that are received and not yet consumed; beyond it the transport is paused. 16
            (websockets' ``max_queue``).
        max_queued_size: The memory of the messages that are received and not yet consumed; beyond it the transport is
            paused. 1 MiB, or max_message_size.
        max_connections: The open connections of one factory; beyond it requests are answered with 503. ``None`` is
            unlimited.
        max_connections_per_peer: The open connections of one peer. A peer is an IPv4 address or an IPv6 network of 64
            bits; an IPv6 network of 48 bits may have four times as many, here and in the limits below. All programs on
            UNIX sockets are one peer, unless a proxy forwards its clients' addresses.
        max_opening: The connections that are not a WebSocket yet. For one more the server drops the oldest connection
            of the peer that has the most of them. None.
        max_opening_per_peer: The same for one peer, whose own oldest connection is dropped; if max_opening is set, only
            when that connection is 5 seconds old. None.
        max_handshakes: The HTTP requests per second on average, and the number that may come at once; beyond it
            requests are answered with 503. None.
        max_handshakes_per_peer: The same for one peer; beyond it requests are answered with 429. None.
        max_message_rate: The messages, pings and pongs that a peer may send per second on average, and the number that
            may come at once; beyond it the connection is closed with 1008. None.
        max_byte_rate: The same for bytes as received; a message of max_message_size may always come at once. None.
        max_messages_per_turn: The messages, pings, pongs and fragments, or HTTP requests before them, that a connection
            handles in one turn of the reactor. A connection that has spent this budget is not read, and the rest of its
            chunk waits for the next turn, so that the other connections get theirs. ``None`` is unlimited. 1000.
        max_seconds_per_turn: The seconds of work in one turn of the reactor, with the same effect. ``None`` is
            unlimited. 0.002 (Linux's ``netdev_budget_usecs``, 2 ms for the packets of a poll).

    Raises:
        TypeError: A number is not a whole number.
        ValueError: A number is not allowed, or two limits do not fit together.
    """

    max_message_size: int | None = 1 << 20
    max_frame_size: int | None = None
    max_fragments: int | None = Derived(4096)
    max_head_size: int = 1 << 14
    max_head_lines: int = 128
    high_water: int = 1 << 16
    low_water: int = 1 << 14
    max_buffered: int = Derived(1 << 22)
    slow_reader: Literal["close", "drop", "pause"] = "close"
    fragment_size: int | None = 1 << 18
    max_queued: int = 16
    max_queued_size: int = Derived(1 << 20)
    max_connections: int | None = None
    max_connections_per_peer: int | None = None
    max_opening: int | None = None
    max_opening_per_peer: int | None = None
    max_handshakes: float | None = None
    max_handshakes_per_peer: float | None = None
    max_message_rate: float | None = None
    max_byte_rate: float | None = None
    max_messages_per_turn: int | None = 1000
    max_seconds_per_turn: float | None = 0.002

    def __post_init__(self) -> None:
        _check_positive(self, *(field.name for field in fields(self) if field.name != "slow_reader"))
        _make_whole(self)
        if self.max_message_size is not None:
            self._derive(self.max_message_size)
            self._check_echo(self.max_message_size)
        if not self.low_water <= self.high_water <= self.max_buffered:
            raise ValueError(
                f"Limits(low_water={self.low_water}, high_water={self.high_water}, max_buffered={self.max_buffered}): "
                "low_water must not be more than high_water, nor high_water more than max_buffered"
            )
        if self.slow_reader not in ("close", "drop", "pause"):
            raise ValueError(f"Limits(slow_reader={self.slow_reader!r}): must be 'close', 'drop' or 'pause'")

    def _frames(self, message: int) -> int:
        """Return the number of frames in which a message of that size is sent."""
        return 1 if self.fragment_size is None else -(-message // self.fragment_size)

    def _derive(self, message: int) -> None:
        derived = {
            "max_buffered": max(1 << 22, 4 * message),
            "max_fragments": max(4096, -(-message // BYTES_A_FRAGMENT), self._frames(message)),
            "max_queued_size": max(1 << 20, message),
        }
        for name, number in derived.items():
            if isinstance(getattr(self, name), Derived):
                object.__setattr__(self, name, Derived(number))

    def _check_echo(self, message: int) -> None:
        if self.max_buffered < message:
            raise ValueError(
                f"Limits(max_message_size={message}, max_buffered={self.max_buffered}): a message that is received "
                f"could not be sent back: give max_buffered={message} or more, or max_message_size={self.max_buffered} "
                "or less"
            )
        frames = self._frames(message)
        if self.max_fragments is not None and frames > self.max_fragments:
            raise ValueError(
                f"Limits(max_message_size={message}, fragment_size={self.fragment_size}, "
                f"max_fragments={self.max_fragments}): a message of max_message_size is sent in {frames} frames, and a "
                f"peer with these limits refuses them: give max_fragments={frames} or more, or a greater "
                "fragment_size"
            )


@dataclass(frozen=True)
class Origins:
    """Allowed web sites: only their pages may connect (RFC 6455 §10.2). A request without an Origin passes.

    Args:
        allowed: Origins to accept in addition to this site itself, as ``https://host`` or ``https://host:port``.
        same_site: Accept pages from the host and port in the request's Host field. True (Tornado, coder/websocket).
        allow_any_origin_dangerously: Accept every page of the web, with its visitor's cookies.
        allow_null_origin_dangerously: Accept pages with a hidden origin (``null``). Some web views send it, but any
            page of the web can get this origin in a sandboxed frame.
        allow_file_origin_dangerously: Accept pages that are files (``file://``), as some web views send. Any file that
            is opened there can then connect.

    Raises:
        TypeError: ``allowed`` is no sequence of ``str``.
        ValueError: No page can have one of ``allowed``; the text says what to write instead.
    """

    allowed: tuple[str, ...] = ()
    same_site: bool = True
    allow_any_origin_dangerously: bool = False
    allow_null_origin_dangerously: bool = False
    allow_file_origin_dangerously: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.allowed, str) or not isinstance(self.allowed, Iterable):
            raise TypeError(
                f"Origins(allowed={self.allowed!r}): must be a sequence of origins, such as ['https://example.com']"
            )
        object.__setattr__(self, "allowed", tuple(self.allowed))
        for origin in self.allowed:
            try:
                check_allowed(origin)
            except (TypeError, ValueError) as error:
                raise type(error)(f"Origins(allowed=...): {error}") from None


@dataclass(frozen=True)
class Deflate:
    """Compression by permessage-deflate (RFC 7692; Beast: ``permessage_deflate``, which has these defaults).

    A window is given as its base-2 logarithm: 15 is 32 KiB, 9 is 512 bytes. 8 is not allowed, because zlib cannot
    compress with it. From its first compressed message on, a connection holds 2 ** (bits + 2) + 2 ** (mem_level + 9)
    bytes to send, and 2 ** bits and 7 KiB to receive. In a direction without context takeover it holds nothing between
    messages.

    Args:
        server_max_window_bits: The window that the server compresses with, at most. 9-15; 15 (Beast).
        client_max_window_bits: The window that the client compresses with, at most. 9-15; 15 (Beast).
        server_no_context_takeover: The server compresses each message by itself. False (Beast).
        client_no_context_takeover: The client compresses each message by itself. False (Beast).
        level: The level of zlib, 0 (stored) to 9 (smallest). 8 (Beast).
        mem_level: The memory of zlib for its search, 1-9. 4 (Beast).
        threshold: Messages of fewer bytes are sent uncompressed. 0 (Beast's ``msg_size_threshold``).

    Raises:
        ValueError: A number is not allowed.
    """

    server_max_window_bits: int = 15
    client_max_window_bits: int = 15
    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    level: int = 8
    mem_level: int = 4
    threshold: int = 0

    def __post_init__(self) -> None:
        _check_range(self, 9, 15, "server_max_window_bits", "client_max_window_bits")
        _check_range(self, 0, 9, "level")
        _check_range(self, 1, 9, "mem_level")
        _check(self, "threshold", lambda number: number >= 0, "a number, 0 or greater")


Decorator = Callable[[Any], Any]
"""A function that may change a `Response` before a server sends it, or a `Request` before a client sends it."""


@dataclass(frozen=True)
class Settings:
    """The options that all connections of one factory share.

    Attributes:
        target: The only path that a server answers, or None for all. Other paths get 404, before any login.
    """

    decorator: Decorator | None = None
    subprotocols: Sequence[str] = ()
    origins: Origins = Origins()
    timeouts: Timeouts = Timeouts()
    limits: Limits = Limits()
    deflate: Deflate | None = None
    clock: IReactorTime | None = None
    budget: MemoryBudget | None = None
    target: str | None = None

    def __post_init__(self) -> None:
        # Without these checks a mistake would show only when the first client comes.
        check_decorator(self.decorator)
        object.__setattr__(self, "subprotocols", checked_subprotocols(self.subprotocols))
        kinds = {"origins": Origins, "timeouts": Timeouts, "limits": Limits, "deflate": Deflate, "budget": MemoryBudget}
        for name, kind in kinds.items():
            value = getattr(self, name)
            if not isinstance(value, kind) and (value is not None or name not in ("deflate", "budget")):
                raise TypeError(f"{name}={value!r}: give {kind.__name__}(...)")
