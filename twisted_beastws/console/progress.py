"""A bar that shows how far something is."""

from __future__ import annotations

from typing import TextIO

WIDTH = 30
"""Columns of the bar itself."""


class Progress:
    """Draws on ``stream`` where that is a terminal, and nothing elsewhere."""

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
        """Take the bar away."""
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
