"""The look of lines on a terminal."""

from __future__ import annotations

import os
from dataclasses import dataclass

from twisted_beastws.console.text import hexadecimal, paragraph

_GREEN, _CYAN, _RED, _DIM = "32", "36", "31", "2"


@dataclass(frozen=True)
class Style:
    """Formats lines. With ``colours``, the mark at the start of a line is coloured."""

    colours: bool

    @classmethod
    def wanted(cls) -> Style:
        """Return the style that the environment asks for (https://no-color.org)."""
        return cls(not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb")

    @property
    def prompt(self) -> str:
        """The prompt: two columns before the typed text."""
        return self._marked(">", _CYAN, "")

    def received(self, message: str | bytes) -> str:
        if isinstance(message, str):
            return self._marked("<", _GREEN, paragraph(message))
        return self._marked("<", _GREEN, f"binary, {hexadecimal(message)}")

    def sent(self, line: str) -> str:
        return self._marked(">", _CYAN, paragraph(line))

    def note(self, text: str) -> str:
        return self._coloured(f"* {text}", _DIM)

    def fault(self, text: str) -> str:
        return self._marked("!", _RED, text)

    def _marked(self, mark: str, colour: str, text: str) -> str:
        return f"{self._coloured(mark, colour)} {text}"

    def _coloured(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self.colours else text
