"""Checks of a hub's arguments. Each error is one line that says what to give instead."""

from __future__ import annotations

import re
from inspect import isclass

from twisted_beastws.options import kind_of
from twisted_beastws.wire.prepared import forgotten

_PREFIX = re.compile(r"[!-~]{1,64}")


def check_hub(
    backplane: object,
    max_buffered: object,
    slow_reader: object,
    max_waiting: object,
    may_join: object,
    may_publish: object,
) -> None:
    """Raise TypeError or ``ValueError`` for a wrong argument of `Hub`."""
    if slow_reader not in ("close", "drop"):
        raise ValueError(f"Hub(slow_reader={slow_reader!r}): must be 'close' or 'drop'")
    if max_buffered is not None and (isinstance(max_buffered, bool) or not isinstance(max_buffered, int)):
        raise TypeError(f"Hub(max_buffered={max_buffered!r}): give a number of bytes, or None")
    if max_buffered is not None and max_buffered < 1:
        raise ValueError(f"Hub(max_buffered={max_buffered!r}): must be greater than 0, or None")
    if backplane is not None and (isclass(backplane) or not hasattr(backplane, "subscribe")):
        raise TypeError(f"Hub() takes a backplane such as RedisBackplane(url), not {kind_of(backplane)}")
    if isinstance(max_waiting, bool) or not isinstance(max_waiting, int):
        raise TypeError(f"Hub(max_waiting={max_waiting!r}): give a number of bytes")
    if max_waiting < 1:
        raise ValueError(f"Hub(max_waiting={max_waiting!r}): must be greater than 0")
    for argument, function in (("may_join", may_join), ("may_publish", may_publish)):
        if function is not None and not callable(function):
            raise TypeError(f"Hub({argument}={function!r}): give a function of a connection and a room, or None")


def check_redis(kind: str, prefix: str) -> None:
    """Raise ``ValueError`` for a prefix that a backplane of this kind cannot use in a Redis."""
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(f"{kind}(prefix={prefix!r}): must be 1 to 64 printable ASCII characters")


def check_cluster(prefix: str) -> None:
    """Raise ``ValueError`` for a prefix that a `RedisClusterBackplane` cannot use."""
    if {"{", "}"} & set(prefix):
        raise ValueError(f"{prefix!r}: a prefix in a Redis Cluster must have no braces, which say where a key belongs")


def check_budgets(kind: str, max_room_history: int, max_history: int) -> None:
    """Raise ``ValueError`` for budgets that a backplane of this kind cannot use."""
    if not 0 < max_room_history <= max_history:
        raise ValueError(f"{kind}(max_room_history={max_room_history}): must be from 1 to max_history ({max_history})")


def check_join(connection: object, room: object, name: object, after: object, render: object, gap: object) -> None:
    """Raise TypeError for an argument of the wrong kind."""
    if not hasattr(connection, "when_closed"):
        raise TypeError(f"join(connection, room): give an open WebSocketProtocol first, not {kind_of(connection)}")
    check_room(room)
    for argument, value in (("name", name), ("after", after)):
        if not isinstance(value, str | None):
            raise TypeError(f"join({argument}={value!r}): give str, or None")
    for argument, function in (("render", render), ("gap", gap)):
        if not callable(function):
            raise TypeError(f"join({argument}={function!r}): give a function of a Message")


def check_room(room: object) -> None:
    """Raise TypeError for a room that is not a ``str``."""
    if not isinstance(room, str):
        raise TypeError(f"room: give its name as str, not {kind_of(room)}")
    if room.startswith("\0"):
        raise ValueError(f"room={room!r}: names that begin with NUL are the hub's own")


def checked_message(message: str | bytes) -> str | bytes:
    """Return a message in memory that the caller cannot change; raise an error for one that cannot be sent."""
    if isinstance(message, str):
        if not message.isascii():
            message.encode()
        return message
    if not isinstance(message, (bytes, bytearray, memoryview)):
        raise TypeError(f"publish() takes str or bytes, not {type(message).__name__}{forgotten(message)}")
    return bytes(message)
