"""Observers of Twisted's log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher


def as_observer(observe: Callable[[LogEvent], object]) -> ILogObserver:
    """Return the function itself, typed as the observer that Twisted's log requires."""
    return cast(ILogObserver, observe)


def always(event: LogEvent) -> bool:
    """Return True for every event."""
    return True


SERVICE_NAMESPACES = ("twisted_beastws.service", "twisted_beastws.server", "twisted_beastws.tls.certificates")


def of_the_service(event: LogEvent) -> bool:
    """Return whether the service logged the event; connections of earlier tests may log, too."""
    return str(event.get("log_namespace")).startswith(SERVICE_NAMESPACES)


@contextmanager
def logged_lines(wanted: Callable[[LogEvent], bool] = always) -> Iterator[list[str]]:
    """Collect the lines of the wanted events that are logged in the block."""
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if wanted(event):
            lines.append(formatEvent(event))

    globalLogPublisher.addObserver(as_observer(observe))
    try:
        yield lines
    finally:
        globalLogPublisher.removeObserver(as_observer(observe))
