"""The line being typed, and those before it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import accumulate

from twisted_beastws.console.text import drawn, width


class Line:
    """Editing as in the shell, without a screen: the typed text, the place of the cursor, and a history.

    text: the text typed so far. cursor: the character that it stands on, ``len(text)`` after the last.
    """

    MAX_HISTORY = 1000
    """Lines remembered; in memory only, for they may hold secrets."""

    def __init__(self) -> None:
        self.text = ""
        self.cursor = 0
        self._history: list[str] = []
        self._recalled = 0
        self._draft = ""

    def enter(self) -> str:
        """End the line, and return it; it is remembered unless it is empty or the same as the one before."""
        text = self.text
        if text and self._history[-1:] != [text]:
            self._history = [*self._history[-self.MAX_HISTORY + 1 :], text]
        self._recalled = len(self._history)
        self._draft = ""
        self._become("")
        return text

    def insert(self, characters: str) -> None:
        """Type ``characters`` where the cursor is."""
        self.text = self.text[: self.cursor] + characters + self.text[self.cursor :]
        self.cursor += len(characters)

    def left(self) -> None:
        self.cursor = max(self.cursor - 1, 0)

    def right(self) -> None:
        self.cursor = min(self.cursor + 1, len(self.text))

    def home(self) -> None:
        self.cursor = 0

    def end(self) -> None:
        self.cursor = len(self.text)

    def word_left(self) -> None:
        """To the start of the word before the cursor."""
        self.cursor = len(self.text[: self.cursor].rstrip().rpartition(" ")[0])
        if self.cursor:
            self.cursor += 1

    def word_right(self) -> None:
        """Behind the end of the word that follows."""
        behind = self.text[self.cursor :]
        spaces = len(behind) - len(behind.lstrip())
        self.cursor += spaces + len(behind.lstrip().partition(" ")[0])

    def backspace(self) -> None:
        if self.cursor:
            self._cut(self.cursor - 1, self.cursor)

    def delete(self) -> None:
        self._cut(self.cursor, self.cursor + 1)

    def delete_word(self) -> None:
        """Delete back to the start of a word."""
        end = self.cursor
        self.word_left()
        self._cut(self.cursor, end)

    def delete_to_start(self) -> None:
        self._cut(0, self.cursor)

    def delete_to_end(self) -> None:
        self._cut(self.cursor, len(self.text))

    def earlier(self) -> None:
        """Recall the line before; the unfinished line comes back after the last one."""
        if self._recalled:
            if self._recalled == len(self._history):
                self._draft = self.text
            self._recalled -= 1
            self._become(self._history[self._recalled])

    def later(self) -> None:
        """Recall the next line."""
        if self._recalled < len(self._history):
            self._recalled += 1
            self._become([*self._history, self._draft][self._recalled])

    def window(self, columns: int) -> tuple[str, int]:
        """As much of the line as ``columns`` hold, and the cursor's column in it, which is less than ``columns``.

        A line that is too long is scrolled by half its window, so that there is context on both sides.
        """
        text = self.text if self.text.isprintable() else "".join(map(drawn, self.text))
        widths = [1] * len(text) if text.isascii() else map(width, text)
        # The column of each character, and of the end.
        at = list(accumulate(widths, initial=0))
        before, scrolled = at[self.cursor], 0
        if before >= columns:
            half = max(columns // 2, 1)
            scrolled = ((before - columns) // half + 1) * half
        # A wide character that an edge cuts is left out.
        start = bisect_left(at, scrolled)
        end = bisect_right(at, at[start] + columns) - 1
        return text[start:end], before - at[start]

    def _cut(self, start: int, end: int) -> None:
        self.text = self.text[:start] + self.text[end:]
        self.cursor = start

    def _become(self, text: str) -> None:
        self.text = text
        self.cursor = len(text)
