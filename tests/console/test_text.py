"""Text from a peer, made safe for a terminal."""

from __future__ import annotations

from unicodedata import category

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_beastws.console.text import (
    MAX_HEX,
    counted,
    drawn,
    escape,
    first_line,
    hexadecimal,
    milliseconds,
    paragraph,
    width,
)

ANYTHING = st.text(st.characters(exclude_categories=()))


@given(ANYTHING)
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    for shown in (escape(text), paragraph(text).replace("\n", "").replace("\t", ""), "".join(map(drawn, text))):
        assert not any(category(c) in ("Cc", "Cs", "Zl", "Zp") or "\u202a" <= c <= "\u202e" for c in shown)


@given(ANYTHING)
def test_each_further_line_is_indented(text: str) -> None:
    _, *others = paragraph(text).split("\n")
    assert len(others) == text.count("\n")
    assert all(other.startswith("  ") for other in others)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("grüß 日本 🙂", "grüß 日本 🙂"),
        ("👨\u200d👩\u200d👧", "👨\u200d👩\u200d👧"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\U000e0041", r"\U000e0041"),
        ("a\r\n\tb", r"a\r\n\tb"),
        ("\ud800", r"\ud800"),
    ],
)
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    assert escape(text) == shown


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"", "0 bytes"),
        (b"\x0a", "1 byte: 0a"),
        (b"\x00\xff", "2 bytes: 00 ff"),
        (b"a" * MAX_HEX, f"{MAX_HEX} bytes: {'61 ' * (MAX_HEX - 1)}61"),
        (b"a" * (MAX_HEX + 1), f"{MAX_HEX + 1} bytes: {'61 ' * (MAX_HEX - 1)}61, ..."),
    ],
)
def test_bytes_are_shown_in_hexadecimal(data: bytes, shown: str) -> None:
    assert hexadecimal(data) == shown


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b"", ""),
        (b"\r\n  \n Not here \nsecond", "Not here"),
        (b"\xff\x1b[m", "\ufffd\\x1b[m"),
        (b"x" * 201, "x" * 200),
    ],
)
def test_the_first_line_of_a_body_is_shown(body: bytes, shown: str) -> None:
    assert first_line(body) == shown


def test_numbers_are_shown_with_their_unit() -> None:
    assert [counted(number, "byte") for number in (0, 1, 2)] == ["0 bytes", "1 byte", "2 bytes"]
    assert [milliseconds(s) for s in (0.0004219, 0.25, 0.9994, 0.9996, 1.5)] == [
        "0.422 ms",
        "250 ms",
        "999 ms",
        "1 s",
        "1.5 s",
    ]


def test_each_character_has_its_width() -> None:
    assert [width(c) for c in "aé日🙂\u0301\u200d\ufe0f "] == [1, 1, 2, 2, 0, 0, 0, 1]
    assert [drawn(c) for c in "a\t\x7f\x9b日"] == ["a", " ", "\ufffd", "\ufffd", "日"]
