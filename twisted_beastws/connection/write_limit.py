"""How many bytes may wait, and the errors of those that may not."""

from __future__ import annotations

from twisted_beastws.errors import BufferFull, LocalError


def most_at_once(max_buffered: int) -> int:
    """Return the most bytes that may be written at once: a message of ``max_buffered`` in its frames.

    RFC 6455 §5.2 adds headers. A compressor may lengthen a message by this bound (zlib's ``deflateBound``).
    """
    return max_buffered + (max_buffered >> 3) + (max_buffered >> 6) + 64


def check_fits(size: int, max_buffered: int) -> None:
    """Raise a `LocalError` for a message that is too long even if nothing else waits."""
    if size > most_at_once(max_buffered):
        raise LocalError(
            f"{size} bytes at once, where Limits.max_buffered is {max_buffered}: raise it, or send less at a time"
        )


def full(waiting: int, max_buffered: int) -> BufferFull:
    """Return the error of a message for which there is no room."""
    return BufferFull(f"{waiting} bytes wait for a slow reader: Limits.max_buffered is {max_buffered}")
