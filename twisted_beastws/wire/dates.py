"""The current time as HTTP writes it."""

from __future__ import annotations

from email.utils import formatdate
from functools import lru_cache
from time import time


def http_date() -> str:
    """Return the current time for a Date field (RFC 9110 §5.6.7)."""
    return _written(int(time()))


@lru_cache(maxsize=1)
def _written(second: int) -> str:
    return formatdate(second, usegmt=True)
