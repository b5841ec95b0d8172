"""Text that is safe for a terminal: data of a peer must not move the cursor or look like our own output."""

from __future__ import annotations

from unicodedata import category, combining, east_asian_width

MAX_HEX = 1024
"""Bytes of a binary message shown on a terminal: 1 KiB, since people read no more."""

# Zero-width (non-)joiners: emoji and Persian need them, and they only change how their neighbours look.
_JOINERS = "\u200c\u200d"


def _is_safe(character: str) -> bool:
    # Unsafe are control characters (an 8-bit terminal also obeys C1), characters that change the writing direction,
    # surrogates and separators.
    return category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp") or character in _JOINERS


def escape(text: str, keep: str = "") -> str:
    """Return ``text`` with Python escapes for unsafe characters, except those in ``keep``."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in keep or _is_safe(c) else c.encode("unicode_escape").decode("ascii") for c in text)


def paragraph(text: str) -> str:
    """Return a text message, safe for a terminal. Its further lines are indented, so that none looks like a message."""
    return escape(text, "\n\t").replace("\n", "\n  ")


def hexadecimal(data: bytes) -> str:
    """Return a binary message for a terminal: its length and its first `MAX_HEX` bytes."""
    count = counted(len(data), "byte")
    if not data:
        return count
    more = ", ..." if len(data) > MAX_HEX else ""
    return f"{count}: {data[:MAX_HEX].hex(' ')}{more}"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 byte``, ``2 bytes``."""
    return f"{number} {noun}{'s' * (number != 1)}"


def first_line(body: bytes) -> str:
    """Return the first line of a body that is not empty, safe and cut to 200 characters; "" for an HTML page."""
    lines = (line.strip() for line in body.decode(errors="replace").splitlines())
    line = next(filter(None, lines), "")
    return "" if line.lower().startswith(("<!doctype", "<html")) else escape(line[:200])


def milliseconds(seconds: float) -> str:
    """Return a short time for people, with three digits."""
    # A time that rounds to 1000 ms would be formatted with an exponent.
    return f"{seconds * 1000:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"


def drawn(character: str) -> str:
    """Return the character to draw for ``character`` in the edited line: an unprintable one has no width."""
    if character == "\t":
        return " "
    return character if _is_safe(character) else "\N{REPLACEMENT CHARACTER}"


def width(character: str) -> int:
    """Return the number of columns that a drawn character takes."""
    if combining(character) or character in _JOINERS or "\ufe00" <= character <= "\ufe0f":
        return 0
    return 2 if east_asian_width(character) in "WF" else 1
