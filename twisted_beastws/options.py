"""The options that connections share: frozen values, each default with its unit and whose precedent it follows."""

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
    """Which end of a connection this is (Beast: ``beast::role_type``)."""

    SERVER = "server"
    CLIENT = "client"


def kind_of(value: object) -> str:
    """What was given in place of something made of a class: that is for an error's text."""
    return f"the class {value.__name__}" if isclass(value) else f"a value of type {type(value).__name__}"


def check_clock(clock: object) -> None:
    """Raise TypeError unless ``clock`` is None or an ``IReactorTime``."""
    if clock is not None and (isclass(clock) or not (hasattr(clock, "callLater") and hasattr(clock, "seconds"))):
        raise TypeError(f"clock: give a reactor or another IReactorTime, not {kind_of(clock)}")


def check_decorator(decorator: object) -> None:
    """Raise TypeError for what cannot be called, or would never run, and is not None."""
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
    """Return the names of subprotocols. Raises TypeError or ``ValueError`` for what is no list of names."""
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
    # A subclass may say Optional[...], or have None for its default.
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
    """A default that follows another option, as `Derived`, in seconds."""


@dataclass(frozen=True)
class Timeouts:
    """How long things may take, in seconds; ``None`` is never. Deadlines are kept to 1/32 s and are never early.

    handshake: from the connection, or the first byte behind an HTTP answer, to the end of the opening handshake. 30
        (Beast, suggested).
    keep_alive: from an HTTP answer to the first byte of the next request. 75 (nginx's ``keepalive_timeout``): a
        balancer that keeps an idle connection for 60 seconds closes it first.
    idle: silence from the peer, not counting while we ourselves paused reading, unless octets wait and it takes none.
        300 (Beast, suggested for a server).
    ping_interval: a ping to the peer each so often; less than idle. 30 (half of nginx's ``proxy_read_timeout``), or
        half of idle if that is less.
    send: bytes wait for the peer, and it accepts none of them, whatever it sends. 60 (nginx's ``send_timeout``).
    close: from our close frame, or from a failure, to the end of TCP. 10 (websockets' ``close_timeout``).
    message: the age of an unfinished message. 300 (Node.js' ``requestTimeout``).
    max_lifetime: the age of a connection, which then is closed with 1001. None (uWebSockets has it off).
    strict_pong: only a pong counts as life, where otherwise any octet does. False (Beast).
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
        """The values of Beast's ``timeout::suggested``: a server pings at half its idle timeout, a client never."""
        if Role(role) is Role.SERVER:
            return cls(handshake=30.0, idle=300.0, ping_interval=150.0, close=30.0)
        return cls(handshake=30.0, idle=None, ping_interval=None, close=30.0)


class Derived(int):
    """A default that follows another option. One that the user gives is a plain ``int``, and is not changed."""


BYTES_A_FRAGMENT = 256
"""The shortest fragments, on average, in which a message of ``max_message_size`` may come: 4096 fragments for 1 MiB."""


@dataclass(frozen=True)
class Limits:
    """How much a connection may hold; sizes in bytes. Every limit is refused *beyond* its number, not at it.

    A message that is received can be sent back: ValueError says which of ``max_message_size``, ``max_buffered`` and
    ``max_fragments`` do not fit together. Those that you leave out follow ``max_message_size``.

    max_message_size: a message, inflated; ``None`` is unlimited. 1 MiB (websockets' ``max_size``).
    max_frame_size: one frame's payload as sent; ``None`` leaves it to max_message_size.
    max_fragments: frames of one message, empty ones too; ``None`` is unlimited. 4096 (websockets), or one for each 256
        bytes of max_message_size.
    max_head_size: the HTTP head with its empty line. 16 KiB (Node.js' ``--max-http-header-size``).
    max_head_lines: the head's lines. 128 (websockets' ``MAX_NUM_HEADERS``).
    high_water, low_water: above the one producers are paused, at or below the other `drain` fires. 64 KiB and a quarter
        of it (asyncio's transports).
    max_buffered: bytes of memory that wait for a slow reader, hard. 4 MiB, or four times max_message_size.
    slow_reader: what happens at max_buffered: ``close`` (with 1013), ``drop`` (whole messages, counted) or ``pause``
        (`BufferFull` is raised).
    fragment_size: longer messages are sent in frames of so many octets, so that pings and pongs can go in between; None
        sends each in one frame. 256 KiB (Beast's ``auto_fragment``, at 4 KiB).
    max_queued, max_queued_size: messages, and the bytes of memory that they take, received but not yet taken; above
        either the transport is paused. 16 (websockets' ``max_queue``) and 1 MiB, or max_message_size.
    max_connections, max_connections_per_peer: of one factory, answered with 503 beyond; ``None`` is unlimited. A peer
        is an IPv4 address or an IPv6 network of 64 bits; an IPv6 network of 48 bits may have four times as much, here
        and in the limits below. All programs on UNIX sockets are one peer, unless a proxy forwards its clients'
        addresses.
    max_opening: connections that are not a WebSocket yet; for one more the server drops the oldest of the peer that
        has the most of them. None.
    max_opening_per_peer: the same of one peer, whose own oldest one is dropped; if max_opening is set, only when that
        is 5 seconds old. None.
    max_handshakes, max_handshakes_per_peer: HTTP requests a second on average, and as many at once, answered with 503
        and 429 beyond. None.
    max_message_rate: messages, pings and pongs that a peer may send a second on average, and as many at once; beyond it
        the connection is closed with 1008. None.
    max_byte_rate: the same for octets as received; a message of max_message_size may always come at once. None.
    max_messages_per_turn, max_seconds_per_turn: a connection's budget in one turn of the reactor: so many messages,
        pings, pongs and fragments, or HTTP requests before them, and so many seconds of work. A connection that has
        spent either is not read, and the rest of its chunk waits for the next turn, so that the other connections get
        theirs. ``None`` is unlimited.
        1000, and 0.002 (Linux's ``netdev_budget_usecs``, 2 ms for the packets of a poll).
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
        """Frames that a message of that size is sent in."""
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
    """Which web sites' pages may connect (RFC 6455 §10.2). A request without an Origin is no browser's and is let in.

    Args:
        allowed: Origins to let in besides this site itself, as ``https://host`` or ``https://host:port``.
        same_site: Let in pages of the host and port that the request's Host names. True (Tornado, coder/websocket).
        allow_any_origin_dangerously: Let in every page of the web, with its visitor's cookies.
        allow_null_origin_dangerously: Let in pages whose browser hides their origin (``null``). Some web views send it;
            but any page of the web can make itself one, in a sandboxed frame.
        allow_file_origin_dangerously: Let in pages that are files (``file://``), as some web views send; but any file
            that is opened there can connect.

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
    """Compression of messages, permessage-deflate (RFC 7692; Beast: ``permessage_deflate``, whose defaults these are).

    A window is given as its base-2 logarithm: 15 is 32 KiB, 9 is 512 octets. 8 is left out: zlib cannot compress with
    it. What a connection holds from its first compressed message on is, to send, 2 ** (bits + 2) + 2 ** (mem_level + 9)
    octets, and to receive 2 ** bits and 7 KiB; nothing between messages in a direction without context takeover.

    server_max_window_bits, client_max_window_bits: the window each end compresses with, at most. 9-15; 15 (Beast).
    server_no_context_takeover, client_no_context_takeover: that end compresses each message by itself. False (Beast).
    level: zlib's, 0 (stored) to 9 (smallest). 8 (Beast).
    mem_level: zlib's memory for the search, 1-9. 4 (Beast).
    threshold: messages of fewer octets are sent as they are. 0 (Beast's ``msg_size_threshold``).
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
"""Gets the `Response` before a server sends it, or the `Request` before a client does, and may change it."""


@dataclass(frozen=True)
class Settings:
    """The options that all connections of one factory share.

    Attributes:
        target: the only path that a server answers, or None for all. Other paths get 404, before any login.
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
        # Taken as they are, they would fail when the first client comes.
        check_decorator(self.decorator)
        object.__setattr__(self, "subprotocols", checked_subprotocols(self.subprotocols))
        kinds = {"origins": Origins, "timeouts": Timeouts, "limits": Limits, "deflate": Deflate, "budget": MemoryBudget}
        for name, kind in kinds.items():
            value = getattr(self, name)
            if not isinstance(value, kind) and (value is not None or name not in ("deflate", "budget")):
                raise TypeError(f"{name}={value!r}: give {kind.__name__}(...)")
