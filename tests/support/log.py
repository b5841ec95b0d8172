"""Observers of Twisted's log."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from twisted.logger import ILogObserver, LogEvent


def as_observer(observe: Callable[[LogEvent], object]) -> ILogObserver:
    """Return the function itself, typed as the observer that Twisted's log requires."""
    return cast(ILogObserver, observe)
