"""Names that users choose, of themselves and of rooms, as other users see them."""

from __future__ import annotations

import re
import unicodedata

MAX_MARKS = 4
"""Combining marks on one character (UTS #39 §5.4). No script that is in use stacks more."""

# The names that Unicode gave to characters that are printable and show nothing: HANGUL FILLER, BRAILLE PATTERN BLANK...
_INVISIBLE = re.compile(r"\b(BLANK|FILLER|NULL|JOINER|INHERENT|SELECTOR)\b")


def tidy(name: str, most: int) -> str | None:
    """Return a name as it is used, or None if it cannot be one.

    Two spellings that look alike become one: it is normalized (NFKC), each run of spaces becomes one space, and the
    variation selectors of symbols go.

    Args:
        name: the name from the user.
        most: characters that the result can have. It must have one, and a space is neither the first nor the last.
            Each must be printable and visible, with at most `MAX_MARKS` combining marks on it.
    """
    if len(name) > most:
        return None
    name = unicodedata.normalize("NFKC", name)
    if not name.isascii():
        name = "".join(character for character in name if not _is_variation(character))
    name = re.sub(" +", " ", name)
    if not 1 <= len(name) <= most or name != name.strip() or not name.isprintable():
        return None
    return name if name.isascii() or _is_visible(name) else None


def _is_variation(character: str) -> bool:
    return unicodedata.name(character, "").startswith("VARIATION SELECTOR")


def _is_visible(name: str) -> bool:
    # A mark needs a character to stand on.
    marks = MAX_MARKS
    for character in name:
        if _INVISIBLE.search(unicodedata.name(character, "")):
            return False
        marks = marks + 1 if unicodedata.category(character).startswith("M") else 0
        if marks > MAX_MARKS:
            return False
    return True
