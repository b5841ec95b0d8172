"""The access log: one line for each WebSocket when it ends, and for each refused handshake."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TextIO, cast

from twisted.application.service import Service
from twisted.logger import Logger

from twisted_beastws.connection.observer import Observer
from twisted_beastws.server.observers.metering import TrafficCounter, count_traffic, refusal_status
from twisted_beastws.server.observers.traffic import Traffic
from twisted_beastws.server.peers import plain_host

if TYPE_CHECKING:
    from twisted_beastws.protocol import WebSocketProtocol
    from twisted_beastws.wire.closing import CloseReason

STANDARD_OUTPUT = "-"

_BARE = re.compile(r"[!#-<>-\[\]-~]+")


class CannotLog(SystemExit, Exception):
    """The file cannot be opened. The program need not catch it: it ends with one line and exit status 1."""


def as_text(entry: dict[str, Any]) -> str:
    """``time name=value ...``: a value with spaces, quotes or the like is a JSON string, none is ``-``."""
    time, *fields = entry.items()
    return " ".join([time[1], *(f"{name}={_value(value)}" for name, value in fields)])


def as_json(entry: dict[str, Any]) -> str:
    """A JSON object."""
    return _dumped(entry)


def _value(value: object) -> str:
    if value is None:
        return "-"
    text = str(value)
    return text if _BARE.fullmatch(text) and text != "-" else _dumped(text)


def _dumped(value: object) -> str:
    # JSON leaves DEL as it is.
    return json.dumps(value).replace("\x7f", "\\u007f")


FORMATS = {"text": as_text, "json": as_json}


class AccessLog(Service, Observer):
    """An observer that writes a line for each WebSocket when it ends, and for each refused handshake.

    It is a service, too, which need not be started: it opens the file when it starts, and raises `CannotLog` if that
    fails, or else at the first line. The file is readable by its owner and group only.

    Args:
        path: The file to append to; ``-`` is the standard output.
        format: ``text``, or ``json`` for one JSON object a line.
        relay: Takes each line in place of a standard output or a pipe, in which the lines of several processes would
            mix.
    """

    log = Logger()

    def __init__(
        self, path: str = STANDARD_OUTPUT, format: str = "text", relay: Callable[[str], None] | None = None
    ) -> None:
        if format not in FORMATS:
            raise ValueError(f"AccessLog(format={format!r}): give one of {', '.join(FORMATS)}")
        # The working directory may change before the file is opened.
        self.path = path if path == STANDARD_OUTPUT else os.path.abspath(path)
        self._format = FORMATS[format]
        self._file: TextIO | None = None
        self._relay = relay
        self._relays = False
        self._failing = self._ended = False
        self._counters: dict[WebSocketProtocol, TrafficCounter] = {}

    def startService(self) -> None:
        """Open the file, when twistd has shed its privileges: so it can be opened again."""
        super().startService()  # type: ignore[no-untyped-call]
        self._ended = False
        self._relays = self._relay is not None and (self.path == STANDARD_OUTPUT or _is_pipe(self.path))
        if self._relays:
            return
        try:
            self._file = self._open()
        except OSError as error:
            raise CannotLog(f"cannot write the access log {self.path}: {error.strerror}") from None

    def stopService(self) -> None:
        """Close it."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._ended = True
        file, self._file = self._file, None
        if file is not sys.__stdout__:
            _close(file)

    def reopen(self) -> None:
        """Continue in the file that has the name now. If it cannot be opened, log that and keep the old one.

        Call it when a program such as logrotate has moved the file.
        """
        if self._file is None or self.path == STANDARD_OUTPUT:
            return
        try:
            file = self._open()
        except OSError as error:
            self.log.error("cannot reopen the access log {path}: {error}", path=self.path, error=error.strerror)
            return
        before, self._file = self._file, file
        _close(before)

    def _open(self) -> TextIO | None:
        # twistd redirects sys.stdout to its log.
        if self.path == STANDARD_OUTPUT:
            return sys.__stdout__
        return open(self.path, "a", buffering=1, encoding="ascii", errors="backslashreplace", opener=_open_private)

    def opened(self, ws: WebSocketProtocol) -> None:
        """Count the messages."""
        self._counters[ws] = count_traffic(ws)

    def not_opened(self, ws: WebSocketProtocol, error: BaseException | None) -> None:
        """Write a line if a handshake was answered with a status other than 101."""
        status = refusal_status(ws, error)
        if status is not None:
            self._write({**_who(ws), "status": status})

    def closed(self, ws: WebSocketProtocol, seconds: float) -> None:
        """Write the line of a WebSocket that was open for so many seconds."""
        counter = self._counters.pop(ws, None)
        traffic = Traffic() if counter is None else counter.traffic
        reason = cast("CloseReason", ws.close_reason)
        told = reason.sent if reason.began == "local" and reason.sent is not None else reason
        self._write(
            {
                **_who(ws),
                "status": 101,
                "code": int(told.code),
                "began": reason.began,
                "duration": round(seconds, 3),
                "received_messages": traffic.received_texts + traffic.received_binaries,
                "received_bytes": traffic.received_text_octets + traffic.received_binary_octets,
                "sent_messages": traffic.sent_texts + traffic.sent_binaries,
                "sent_bytes": traffic.sent_text_octets + traffic.sent_binary_octets,
            }
        )

    def _write(self, entry: dict[str, Any]) -> None:
        line = self._format(entry)
        if self._relays and self._relay is not None:
            self._relay(line)
        else:
            self.write_line(line)

    def write_line(self, line: str) -> None:
        """Append a line."""
        if self._ended:
            return
        try:
            if self._file is None:
                self._file = self._open()
            if self._file is None:
                # The process has no standard output.
                return
            self._file.write(line + "\n")
            self._file.flush()
        except OSError as error:
            # Log a full disk once, not with each connection.
            if not self._failing:
                self.log.error("cannot write the access log {path}: {error}", path=self.path, error=error.strerror)
            self._failing = True
        else:
            self._failing = False


def _open_private(path: str, flags: int) -> int:
    # The file contains addresses and user names, so only the owner and the group may read it.
    return os.open(path, flags, 0o640)


def _is_pipe(path: str) -> bool:
    # A line that is appended to a regular file stays whole, even if another process appends too.
    return os.path.exists(path) and not os.path.isfile(path)


def _close(file: TextIO | None) -> None:
    # A write that failed for a full disk is tried again; the log already has a line about it.
    with suppress(OSError):
        if file is not None:
            file.close()


def _who(protocol: WebSocketProtocol) -> dict[str, Any]:
    request = protocol.request
    peer = protocol.peer
    host = getattr(peer, "host", None)
    now = datetime.now(timezone.utc)
    return {
        "time": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "connection": protocol.connection_id,
        # The client of a UNIX socket has no address.
        "address": None if host is None else plain_host(host),
        # A proxy may not have forwarded it.
        "port": getattr(peer, "port", None) or None,
        # Without a request this would be the user of the previous request.
        "user": None if request is None or protocol.user is None else str(protocol.user),
        "target": None if request is None else request.target,
        "origin": None if request is None else request.field("Origin"),
        "subprotocol": protocol.subprotocol,
    }
