"""`Traffic`: the messages and bytes of one connection, or of many."""

from __future__ import annotations

from typing import NamedTuple


class Traffic(NamedTuple):
    """Messages and the bytes in them, uncompressed, by direction and type."""

    received_texts: int = 0
    received_text_octets: int = 0
    received_binaries: int = 0
    received_binary_octets: int = 0
    sent_texts: int = 0
    sent_text_octets: int = 0
    sent_binaries: int = 0
    sent_binary_octets: int = 0

    def plus(self, other: Traffic) -> Traffic:
        """Return the sum of both."""
        return Traffic(*(one + more for one, more in zip(self, other, strict=True)))
