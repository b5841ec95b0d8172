"""twistd's own log file, reopened when something else has moved it."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.logger import LogPublisher, globalLogPublisher
from twisted.python.logfile import BaseLogFile


def reopen_log_files(publisher: LogPublisher = globalLogPublisher) -> None:
    """Reopen each log file that ``publisher`` writes to, such as twistd's ``--logfile``, by its name."""
    for file in list(_log_files(publisher)):
        file.reopen()


def _log_files(publisher: LogPublisher) -> Iterator[BaseLogFile]:
    # twistd opens its log file where nobody else can see it: an observer's attributes are the only way to it.
    for observer in getattr(publisher, "_observers", ()):
        if isinstance(observer, LogPublisher):
            yield from _log_files(observer)
        file = getattr(observer, "_outFile", None)
        if isinstance(file, BaseLogFile):
            yield file
