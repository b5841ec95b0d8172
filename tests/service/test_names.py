"""Names that users choose."""

from __future__ import annotations

import pytest

from twisted_beastws.service.names import MAX_MARKS, tidy

MARKS = "\u0301\u0316\u0334\u0362\u0489"


class TestNames:
    """Names of users, normalized and checked (`docs/chat.md`)."""

    @pytest.mark.parametrize(
        "name",
        [
            "ann",
            "Ann B.",
            "caf\u00e9",
            "\u5f20\u4f1f",
            "\u0639\u0644\u064a",
            "\u05e9\u05b8\u05bc\u05c1",
            "\u0e1b\u0e39\u0e48",
            "\u0928\u092e\u0938\u094d\u0924\u0947",
            "\ud55c\uad6d",
            "Nguy\u1ec5n",
            "\U0001f600",
            "x" * 32,
        ],
    )
    def test_a_plain_name_is_kept_unchanged(self, name: str) -> None:
        assert tidy(name, 32) == name

    @pytest.mark.parametrize(
        ("given", "name"),
        [
            ("Jose\u0301", "Jos\u00e9"),
            ("\uff21\uff4e\uff4e", "Ann"),
            ("\ufb01sh", "fish"),
            ("Ann  B", "Ann B"),
            ("Ann\u00a0B", "Ann B"),
            ("\u2764\ufe0f", "\u2764"),
            ("Ann\ufe0f", "Ann"),
            ("\U000e0100Ann", "Ann"),
            ("\u1112\u1161\u11ab", "\ud55c"),
        ],
    )
    def test_names_that_look_alike_are_one(self, given: str, name: str) -> None:
        assert tidy(given, 32) == name

    @pytest.mark.parametrize(
        "name",
        [
            "",
            " ",
            " a",
            "a ",
            "a\n",
            "\u200b",
            "\u202ea",
            "\u3164",
            "\uffa0",
            "\u115f\u1160",
            "a\u3164",
            "\u2800",
            "\u2800\u2800a",
            "\U0001d159",
            "\u034f",
            "a\u034f",
            "\u17b4",
            "\u180b",
            "\ufe0f",
            "\u3000",
            "\xad",
            "\ud800",
        ],
    )
    def test_an_invisible_name_is_refused(self, name: str) -> None:
        assert tidy(name, 32) is None

    @pytest.mark.parametrize("marks", [MAX_MARKS - 1, MAX_MARKS, MAX_MARKS + 1])
    def test_the_combining_marks_of_a_character_are_limited(self, marks: int) -> None:
        name = "x" + MARKS[:marks] + "x"
        assert (tidy(name, 32) is not None) is (marks <= MAX_MARKS)

    def test_a_name_may_not_begin_with_a_combining_mark(self) -> None:
        assert tidy("\u0316a", 32) is None

    @pytest.mark.parametrize("length", [31, 32, 33])
    def test_the_length_of_a_name_is_limited(self, length: int) -> None:
        assert (tidy("x" * length, 32) is not None) is (length <= 32)

    def test_the_length_of_a_name_is_that_after_normalization(self) -> None:
        assert tidy("\ufdfa" * 2, 32) is None
        assert tidy("\ufdfa", 32) is not None
