"""What may be shown on a terminal: what a peer sends must not move the cursor, and must not pass for ours."""

from __future__ import annotations

from unicodedata import category, combining, east_asian_width

MAX_HEX = 1024
"""Bytes of a binary message that a terminal is shown, 1 KiB: more is not read by anyone."""

# Zero-width (non-)joiners: emoji and Persian are written with them, and they only shape their neighbours.
_JOINERS = "\u200c\u200d"


def _is_safe(character: str) -> bool:
    # Controls (C1 too: an 8-bit terminal obeys them), characters that turn the direction of writing, surrogates and
    # separators.
    return category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp") or character in _JOINERS


def escape(text: str, keep: str = "") -> str:
    """``text`` with each character that a terminal could obey as Python writes it, but for those in ``keep``."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in keep or _is_safe(c) else c.encode("unicode_escape").decode("ascii") for c in text)


def paragraph(text: str) -> str:
    """A text message for a terminal: safe, its further lines indented, so that none looks like another message."""
    return escape(text, "\n\t").replace("\n", "\n  ")


def hexadecimal(data: bytes) -> str:
    """A binary message for a terminal: its length, and its first `MAX_HEX` bytes."""
    count = counted(len(data), "byte")
    if not data:
        return count
    more = ", ..." if len(data) > MAX_HEX else ""
    return f"{count}: {data[:MAX_HEX].hex(' ')}{more}"


def counted(number: int, noun: str) -> str:
    """``1 byte``, ``2 bytes``."""
    return f"{number} {noun}{'s' * (number != 1)}"


def first_line(body: bytes) -> str:
    """The first line of a body that says something, safe, and cut to 200 characters."""
    lines = (line.strip() for line in body.decode(errors="replace").splitlines())
    return escape(next(filter(None, lines), "")[:200])


def milliseconds(seconds: float) -> str:
    """A short time for people, with three digits."""
    # What rounds to 1000 ms would be written with an exponent.
    return f"{seconds * 1000:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"


def drawn(character: str) -> str:
    """What stands for ``character`` in the line being typed: one that is not printable has no width of its own."""
    if character == "\t":
        return " "
    return character if _is_safe(character) else "\N{REPLACEMENT CHARACTER}"


def width(character: str) -> int:
    """The columns that a drawn character takes."""
    if combining(character) or character in _JOINERS or "\ufe00" <= character <= "\ufe0f":
        return 0
    return 2 if east_asian_width(character) in "WF" else 1
