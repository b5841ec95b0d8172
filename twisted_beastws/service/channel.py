"""A worker's two pipes to its supervisor: one JSON array per line. Writes never wait for the supervisor."""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections import deque
from collections.abc import Callable
from threading import RLock, get_ident
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReadDescriptor, IWriteDescriptor
from twisted.internet.main import CONNECTION_DONE
from twisted.logger import ILogObserver, Logger, LoggingFile, LogLevel, eventAsText
from zope.interface import implementer

if TYPE_CHECKING:
    from twisted.logger import LogEvent

MAX_BACKLOG = 1 << 20
"""The most bytes of log lines that wait for the supervisor (Docker's ``max-buffer-size``); more are dropped."""

MAX_FIELD = 1 << 10
"""The most characters of a field of a log event. A longer field is omitted, and remains in the text."""

MAX_TEXT = 1 << 16
"""Characters of one log event; the rest of a longer one is cut off."""

_LAST_WORDS = 5.0
"""The most seconds that an ending process waits for the supervisor to read its last lines."""

_PLAIN = (str, int, float, bool, type(None))


@implementer(IWriteDescriptor, ILogObserver)
class Reports:
    """Messages to the supervisor, on the descriptor ``writing``, which becomes non-blocking.

    Any thread may send. Until `attach` the backlog is tried again at each message; from then on the reactor writes it.
    """

    def __init__(self, writing: int) -> None:
        self._writing = writing
        os.set_blocking(writing, False)
        self._backlog: deque[bytes] = deque()
        self._size = 0
        self._lost = 0
        self._closed = False
        self._lock = RLock()
        self._reactor: Any = None
        self._thread = 0

    def send(self, *message: Any) -> None:
        """Send a message that must arrive, such as an answer."""
        self._put(message, MAX_BACKLOG * 2)

    def say(self, *message: Any) -> None:
        """Send a message; drop and count it if the supervisor reads too slowly."""
        self._put(message, MAX_BACKLOG)

    def access_line(self, line: str) -> None:
        """Send a line of the access log."""
        self.say("access", line)

    def __call__(self, event: LogEvent) -> None:
        """Send a log event as its text, with the traceback if it has one (a Twisted log observer)."""
        text = eventAsText(event, includeTimestamp=False, includeSystem=False)
        if text:
            level = event.get("log_level") or LogLevel.info
            fields = {key: value for key, value in event.items() if isinstance(value, _PLAIN) and key[:4] != "log_"}
            about = {"time": event.get("log_time"), "level": level.name, "namespace": event.get("log_namespace", "-")}
            self.say("event", {**about, "text": _cut(text), "fields": _short(fields)})

    def take_standard_output(self) -> None:
        """Send the lines that Python code prints: they come whole, and printing never waits."""
        for name, level in (("stdout", LogLevel.info), ("stderr", LogLevel.warn)):
            setattr(sys, name, LoggingFile(Logger(name, observer=self), level))

    def flush(self, seconds: float = _LAST_WORDS) -> None:
        """Give the supervisor time to read the backlog; call this when the reactor has ended."""
        deadline = time.monotonic() + seconds
        while self._write_backlog() and (left := deadline - time.monotonic()) > 0:
            select.select([], [self._writing], [], left)

    def _put(self, message: tuple[Any, ...], limit: int) -> None:
        line = json.dumps(message).encode("ascii") + b"\n"
        with self._lock:
            if self._closed:
                return
            if self._size + len(line) > limit:
                self._lost += 1
            else:
                self._append(line)
            waits = self._write_backlog()
        if waits and self._reactor is not None:
            if get_ident() == self._thread:
                self._reactor.addWriter(self)
            else:
                self._reactor.callFromThread(self._reactor.addWriter, self)

    def _append(self, line: bytes) -> None:
        self._backlog.append(line)
        self._size += len(line)

    def _write_backlog(self) -> bool:
        """Write as much as the pipe takes; return whether a backlog is left."""
        with self._lock:
            while self._backlog and not self._closed:
                line = self._backlog[0]
                try:
                    written = os.write(self._writing, line)
                except BlockingIOError:
                    return True
                except OSError:
                    # The supervisor no longer reads.
                    self._closed = True
                    self._backlog.clear()
                    return False
                self._size -= written
                if written < len(line):
                    self._backlog[0] = line[written:]
                else:
                    self._backlog.popleft()
                if self._lost and self._size < MAX_BACKLOG // 2:
                    lost, self._lost = self._lost, 0
                    self._append(json.dumps(["lost", lost]).encode("ascii") + b"\n")
            return bool(self._backlog)

    # Called by the reactor.

    def attach(self, reactor: Any) -> None:
        """Make the reactor write the backlog from now on. Call this in the reactor's thread."""
        self._reactor = reactor
        self._thread = get_ident()

    def detach(self) -> None:
        """Have the reactor do so no more."""
        reactor, self._reactor = self._reactor, None
        if reactor is not None:
            reactor.removeWriter(self)

    def fileno(self) -> int:
        return self._writing

    def logPrefix(self) -> str:
        return "reports"

    def doWrite(self) -> None:
        if not self._write_backlog() and self._reactor is not None:
            self._reactor.removeWriter(self)

    def connectionLost(self, reason: Any) -> None:
        self.detach()
        with self._lock:
            self._closed = True
            self._backlog.clear()


@implementer(IReadDescriptor)
class Orders:
    """Messages from the supervisor, on the descriptor ``reading``, which ends when the supervisor is gone."""

    def __init__(self, reading: int) -> None:
        self._reading = reading
        self._read = b""
        self._reactor: Any = None
        self._received: Callable[[list[Any]], None]
        self._ended: Callable[[], None]

    def first(self) -> Any:
        """Wait for the first message. Raises EOFError if the supervisor is gone."""
        while b"\n" not in self._read:
            more = os.read(self._reading, 1 << 16)
            if not more:
                raise EOFError("the supervisor is gone")
            self._read += more
        line, _, self._read = self._read.partition(b"\n")
        return json.loads(line)

    def wait_for_end(self) -> None:
        """Wait until the supervisor is gone, in a thread of its own."""
        hangup = select.poll()
        hangup.register(self._reading, 0)
        hangup.poll()

    def attach(self, reactor: Any, received: Callable[[list[Any]], None], ended: Callable[[], None]) -> None:
        """Have the reactor read from now on.

        Args:
            received: called with each message.
            ended: called once, when the supervisor is gone.
        """
        self._reactor = reactor
        self._received, self._ended = received, ended
        os.set_blocking(self._reading, False)
        reactor.addReader(self)

    def detach(self) -> None:
        """Have the reactor do so no more."""
        reactor, self._reactor = self._reactor, None
        if reactor is not None:
            reactor.removeReader(self)

    def fileno(self) -> int:
        return self._reading

    def logPrefix(self) -> str:
        return "orders"

    def doRead(self) -> Any:
        try:
            data = os.read(self._reading, 1 << 16)
        except BlockingIOError:
            return None
        if not data:
            return CONNECTION_DONE
        *lines, self._read = (self._read + data).split(b"\n")
        for line in lines:
            self._received(json.loads(line))
        return None

    def connectionLost(self, reason: Any) -> None:
        self.detach()
        self._ended()


def _cut(text: str) -> str:
    # A log cannot write half of a character, such as JSON's "\ud800", and would lose the whole event.
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} [{len(text) - MAX_TEXT} characters more]"


def _short(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if not isinstance(value, str) or len(value) <= MAX_FIELD}
