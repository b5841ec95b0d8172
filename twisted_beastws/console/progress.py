"""A progress bar."""

from __future__ import annotations

from typing import TextIO

WIDTH = 30
"""The width of the bar in columns."""


class Progress:
    """Draws on ``stream`` if it is a terminal, and otherwise does nothing."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown = stream.isatty()

    def show(self, what: str, done: int, total: int) -> None:
        """Draw the bar at ``done`` of ``total``, followed by ``what``."""
        if self._shown:
            filled = WIDTH * done // total
            bar = "#" * filled + "-" * (WIDTH - filled)
            self._stream.write(f"\r[{bar}] {100 * done // total:3}% {what}\x1b[K")
            self._stream.flush()

    def clear(self) -> None:
        """Erase the bar."""
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
