"""The interface of a transport that receives long payloads into the memory that they are delivered from."""

from __future__ import annotations

from typing import Any, Protocol

LOOK = 1 << 12
"""Bytes read, and copied, in search of the next long payload: 4 KiB, a page."""


class Places(Protocol):
    """The receiver of the bytes of a transport. It has places in memory for those of long payloads."""

    def place(self) -> Any:
        """Return a buffer for the next bytes, or None if they must go to ``dataReceived``.

        The caller reads into the buffer at once, and calls `placed` before anything else happens; or it gives the
        buffer up.
        """

    def placed(self, size: int) -> None:
        """The first ``size`` bytes of the latest `place` arrived."""

    def chunks_only(self) -> None:
        """From the next turn of the reactor on, all bytes come in chunks again."""
