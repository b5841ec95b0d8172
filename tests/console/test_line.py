"""The line editor."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_beastws.console.line import Line
from twisted_beastws.console.text import width


def line_at(marked: str) -> Line:
    """Return a line with the cursor at the bar in ``marked``."""
    line = Line()
    before, _, behind = marked.partition("|")
    line.insert(before + behind)
    line.cursor = len(before)
    return line


def marked(line: Line) -> str:
    return f"{line.text[: line.cursor]}|{line.text[line.cursor :]}"


@pytest.mark.parametrize(
    ("action", "before", "after"),
    [
        ("left", "ab|c", "a|bc"),
        ("left", "|abc", "|abc"),
        ("right", "ab|c", "abc|"),
        ("right", "abc|", "abc|"),
        ("home", "ab|c", "|abc"),
        ("end", "a|bc", "abc|"),
        ("word_left", "one two  |three", "one |two  three"),
        ("word_left", "one t|wo", "one |two"),
        ("word_left", "one|", "|one"),
        ("word_left", "|", "|"),
        ("word_right", "one| two three", "one two| three"),
        ("word_right", "o|ne two", "one| two"),
        ("word_right", "one| ", "one |"),
        ("backspace", "ab|c", "a|c"),
        ("backspace", "|abc", "|abc"),
        ("delete", "a|bc", "a|c"),
        ("delete", "abc|", "abc|"),
        ("delete_word", "one two|", "one |"),
        ("delete_word", "one two  |three", "one |three"),
        ("delete_word", "one|", "|"),
        ("delete_to_start", "ab|c", "|c"),
        ("delete_to_end", "a|bc", "a|"),
    ],
)
def test_each_action_edits_the_line(action: str, before: str, after: str) -> None:
    line = line_at(before)
    getattr(line, action)()
    assert marked(line) == after


def test_typed_characters_are_inserted_at_the_cursor() -> None:
    line = line_at("a|d")
    line.insert("bc")
    assert marked(line) == "abc|d"
    assert line.enter() == "abcd"
    assert marked(line) == "|"


class TestHistory:
    """The lines typed before."""

    def history(self, *lines: str) -> Line:
        line = Line()
        for text in lines:
            line.insert(text)
            line.enter()
        return line

    def recalled(self, line: Line, actions: str) -> list[str]:
        texts = []
        for action in actions:
            line.earlier() if action == "^" else line.later()
            texts.append(line.text)
        return texts

    def test_the_history_can_be_read_in_both_directions(self) -> None:
        line = self.history("one", "two")
        line.insert("draft")
        assert self.recalled(line, "^^^vvv") == ["two", "one", "one", "two", "draft", "draft"]
        assert line.cursor == 5

    def test_an_empty_history_is_harmless(self) -> None:
        assert self.recalled(Line(), "^v") == ["", ""]

    def test_empty_and_repeated_lines_are_not_kept(self) -> None:
        assert self.recalled(self.history("one", "", "two", "two"), "^^^") == ["two", "one", "one"]

    def test_a_changed_line_of_the_history_is_a_new_line(self) -> None:
        line = self.history("one", "two")
        line.earlier()
        line.insert("!")
        assert line.enter() == "two!"
        assert self.recalled(line, "^^^") == ["two!", "two", "one"]

    def test_the_length_of_the_history_is_limited(self) -> None:
        line = self.history(*map(str, range(Line.MAX_HISTORY + 2)))
        for _ in range(Line.MAX_HISTORY + 2):
            line.earlier()
        assert line.text == "2"


class TestWindow:
    """The part of a long line that a terminal shows."""

    @given(st.text("ab日\u0301\t\x7f", max_size=60), st.integers(0, 60), st.integers(5, 20))
    def test_the_window_fits_the_width_and_holds_the_cursor(self, text: str, cursor: int, columns: int) -> None:
        line = Line()
        line.insert(text)
        line.cursor = min(cursor, len(text))
        visible, column = line.window(columns)
        assert sum(map(width, visible)) <= columns
        assert 0 <= column <= columns
        assert visible.isprintable()

    @given(st.integers(0, 100), st.integers(5, 20))
    def test_the_cursor_is_on_its_character(self, cursor: int, columns: int) -> None:
        text = "".join(chr(0x100 + at) for at in range(100))
        line = Line()
        line.insert(text)
        line.cursor = cursor
        visible, column = line.window(columns)
        assert f"{visible} "[column] == f"{text} "[cursor]

    def test_a_short_line_is_shown_whole(self) -> None:
        assert line_at("abc|").window(4) == ("abc", 3)
        assert line_at("日|本").window(5) == ("日本", 2)

    def test_a_long_line_scrolls_by_half_a_width(self) -> None:
        assert line_at("01234567|89").window(8) == ("456789", 4)
        assert line_at("0123456|789").window(8) == ("01234567", 7)
        assert line_at("|0123456789").window(8) == ("01234567", 0)
