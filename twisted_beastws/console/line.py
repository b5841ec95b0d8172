"""The line being edited, and the history of lines."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import accumulate

from twisted_beastws.console.text import drawn, width


class Line:
    """Edits a line as a shell does, without drawing it.

    Attributes:
        text: The text typed so far.
        cursor: The index of the character under the cursor; ``len(text)`` if the cursor is at the end.
    """

    MAX_HISTORY = 1000
    """The number of remembered lines. They stay in memory only, because they may contain secrets."""

    def __init__(self) -> None:
        self.text = ""
        self.cursor = 0
        self._history: list[str] = []
        self._recalled = 0
        self._draft = ""

    def enter(self) -> str:
        """End the line and return it. The history keeps it unless it is empty or repeats the previous line."""
        text = self.text
        if text and self._history[-1:] != [text]:
            self._history = [*self._history[-self.MAX_HISTORY + 1 :], text]
        self._recalled = len(self._history)
        self._draft = ""
        self._become("")
        return text

    def insert(self, characters: str) -> None:
        """Insert ``characters`` at the cursor."""
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
        """Move to the start of the word before the cursor."""
        self.cursor = len(self.text[: self.cursor].rstrip().rpartition(" ")[0])
        if self.cursor:
            self.cursor += 1

    def word_right(self) -> None:
        """Move to the end of the next word."""
        behind = self.text[self.cursor :]
        spaces = len(behind) - len(behind.lstrip())
        self.cursor += spaces + len(behind.lstrip().partition(" ")[0])

    def backspace(self) -> None:
        if self.cursor:
            self._cut(self.cursor - 1, self.cursor)

    def delete(self) -> None:
        self._cut(self.cursor, self.cursor + 1)

    def delete_word(self) -> None:
        """Delete back to the start of the word."""
        end = self.cursor
        self.word_left()
        self._cut(self.cursor, end)

    def delete_to_start(self) -> None:
        self._cut(0, self.cursor)

    def delete_to_end(self) -> None:
        self._cut(self.cursor, len(self.text))

    def earlier(self) -> None:
        """Recall the previous line of the history. `later` returns to the unfinished line."""
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
        """Return the visible part of the line and the column of the cursor in it.

        A line longer than the window scrolls by half a window, so that both sides of the cursor have context.

        Args:
            columns: The width of the window. The cursor's column is less.
        """
        text = self.text if self.text.isprintable() else "".join(map(drawn, self.text))
        widths = [1] * len(text) if text.isascii() else map(width, text)
        # The column of each character, and the column after the last one.
        at = list(accumulate(widths, initial=0))
        before, scrolled = at[self.cursor], 0
        if before >= columns:
            half = max(columns // 2, 1)
            scrolled = ((before - columns) // half + 1) * half
        # Leave out a wide character at an edge if only half of it fits.
        start = bisect_left(at, scrolled)
        end = bisect_right(at, at[start] + columns) - 1
        return text[start:end], before - at[start]

    def _cut(self, start: int, end: int) -> None:
        self.text = self.text[:start] + self.text[end:]
        self.cursor = start

    def _become(self, text: str) -> None:
        self.text = text
        self.cursor = len(text)
