"""twistd's own log: its file, reopened when something else has moved it, and the standard output."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator

from twisted.logger import LogPublisher, globalLogPublisher
from twisted.python.logfile import BaseLogFile


def reopen_log_files(publisher: LogPublisher = globalLogPublisher) -> None:
    """Reopen each log file that ``publisher`` writes to, such as twistd's ``--logfile``, by its name."""
    for file in list(_log_files(publisher)):
        file.reopen()


def _log_files(publisher: LogPublisher) -> Iterator[BaseLogFile]:
    # twistd keeps its log file to itself: an observer's attributes are the only way to it.
    for observer in getattr(publisher, "_observers", ()):
        if isinstance(observer, LogPublisher):
            yield from _log_files(observer)
        file = getattr(observer, "_outFile", None)
        if isinstance(file, BaseLogFile):
            yield file


def buffer_standard_output() -> None:
    """Give the standard output a buffer, if it has none, as with ``python -u`` or ``PYTHONUNBUFFERED``.

    Without one Python drops the rest of a line when a signal comes while the line waits for a reader. Each line is
    still written at once. Half a character, such as JSON's "\\ud800", is escaped: its whole line would be lost.
    """
    stream = sys.stdout
    raw = getattr(stream, "buffer", None)
    # Leave a stream of another class alone: its owner may need it as it is.
    if type(stream) is not io.TextIOWrapper:
        return
    stream.reconfigure(errors="backslashreplace")
    if isinstance(raw, io.RawIOBase):
        buffered = io.BufferedWriter(raw)
        sys.stdout = io.TextIOWrapper(buffered, stream.encoding, stream.errors, line_buffering=True)
        if stream is sys.__stdout__:
            sys.__stdout__ = sys.stdout  # type: ignore[misc]
