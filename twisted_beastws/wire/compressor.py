"""Compressors: ISA-L if the extra ``isal`` is installed, else Python's zlib, or as requested."""

from __future__ import annotations

import os
import zlib
from typing import Protocol

ZLIB_VARIABLE = "TWISTED_BEASTWS_ZLIB"
"""This environment variable selects Python's zlib, unless it is 0 or empty."""

try:
    from isal import isal_zlib

    ISAL = os.environ.get(ZLIB_VARIABLE, "0") in ("", "0")
    """ISA-L compresses. Python's zlib inflates in any case: it is no slower, and stops exactly at a limit."""
except ImportError:
    ISAL = False

# zlib's levels as ISA-L's; its level 0 puts 110 bytes of tables before each message. A compressor of ISA-L takes 34 KiB
# at level 1, 82 at 2, 89 at 3; zlib's about 30 at 8.
_LEVELS = (0, 1, 1, 1, 1, 1, 1, 2, 2, 3)


class Compressor(Protocol):
    """A raw deflate stream (``zlib.compressobj``)."""

    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self, mode: int, /) -> bytes: ...


def new_compressor(level: int, window_bits: int, mem_level: int) -> Compressor:
    """Return a compressor of ``level`` 0-9, window bits 9-15 and memory level 1-9."""
    # ISA-L's level 0 compresses, zlib's does not.
    if ISAL and level:
        return isal_zlib.compressobj(_LEVELS[level], zlib.DEFLATED, -window_bits, mem_level)
    return zlib.compressobj(level, zlib.DEFLATED, -window_bits, mem_level)


# Idle compressors for later use: making one costs as much as compressing a message of a kilobyte.
_idle: dict[tuple[int, int, int], Compressor] = {}
_MOST_IDLE = 16

_SHORT = 512
"""ISA-L makes a message of fewer bytes up to a quarter longer by a full flush than by a sync flush."""


def compress_alone(payload: bytes, level: int, window_bits: int, mem_level: int) -> bytes:
    """A message's payload that refers to none before it, without the tail (RFC 7692 §7.2.1), of a compressor for all.

    payload: At least one byte, because zlib flushes nothing otherwise.
    """
    if ISAL and level and len(payload) < _SHORT:
        own = new_compressor(level, window_bits, mem_level)
        return (own.compress(payload) + own.flush(zlib.Z_SYNC_FLUSH))[:-4]
    parameters = (level, window_bits, mem_level)
    # A compressor in use is not idle, so that a nested call, another thread, or a call after an error gets another.
    compressor: Compressor | None = _idle.pop(parameters, None)
    if compressor is None:
        compressor = new_compressor(*parameters)
    # A full flush removes all references to earlier data.
    compressed = (compressor.compress(payload) + compressor.flush(zlib.Z_FULL_FLUSH))[:-4]
    if len(_idle) >= _MOST_IDLE:
        _idle.clear()
    _idle[parameters] = compressor
    return compressed
