"""The codec in use: the compiled one if it was built, else the pure Python one, or as requested."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from twisted_beastws.wire import reader, turns, writer

PURE_VARIABLE = "TWISTED_BEASTWS_PURE"
"""This environment variable selects the pure Python codec, unless it is 0 or empty."""


class Codec(NamedTuple):
    """The classes that every byte of a connection passes through."""

    reader: type[reader.FrameReader]
    writer: type[writer.FrameWriter]
    budget: type[turns.TurnBudget]


PURE = Codec(reader.FrameReader, writer.FrameWriter, turns.TurnBudget)


def compiled_codec() -> Codec:
    """Return the compiled codec.

    Raises:
        ImportError: It was not built.
    """
    from twisted_beastws.wire import _broadcast, _reader, _turns, _writer  # noqa: F401

    return Codec(_reader.FrameReader, _writer.FrameWriter, _turns.TurnBudget)


UsualRequest = Callable[
    [bytearray, int, int, dict[bytes, bytes]],
    "tuple[str, dict[bytes, list[bytes]], int] | None",
]


def _choose() -> Codec:
    if os.environ.get(PURE_VARIABLE, "0") not in ("", "0"):
        return PURE
    try:
        return compiled_codec()
    except ImportError:
        return PURE


IN_USE = _choose()
ACCELERATED = IN_USE is not PURE
"""Whether the compiled codec is in use."""

if TYPE_CHECKING or not ACCELERATED:
    from twisted_beastws.wire.direct import clear_send, send_at_once
    from twisted_beastws.wire.raw import joined_fields

    usual_request: UsualRequest | None = None
    """Reads the head of a usual request; llhttp reads the others, and on the pure codec all."""
else:
    from twisted_beastws.wire._broadcast import send_at_once
    from twisted_beastws.wire._direct import clear_send
    from twisted_beastws.wire._speedups import joined_fields, usual_request

__all__ = [
    "ACCELERATED",
    "IN_USE",
    "PURE",
    "PURE_VARIABLE",
    "Codec",
    "clear_send",
    "compiled_codec",
    "joined_fields",
    "send_at_once",
    "usual_request",
]
