"""`trace_frames`: lines in the log about each frame of a connection, and about its handshake."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from twisted.logger import Logger

from twisted_beastws.connection.shared import Shared
from twisted_beastws.errors import LocalError
from twisted_beastws.wire.fields import Headers
from twisted_beastws.wire.frames import FIN, RSV1, LongFrame, Opcode
from twisted_beastws.wire.http import Request, Response

FIRST_BYTES = 32
"""Bytes of a payload that a line shows."""

SECRET_FIELDS = frozenset(("authorization", "proxy-authorization", "cookie", "set-cookie", "sec-websocket-protocol"))
"""The fields, in lower case, whose values a line hides. Some clients send a token as a subprotocol."""

VARIABLE = "TWISTED_BEASTWS_TRACE"
"""The environment variable that lists the traced namespaces, with commas between them; ``*`` is all."""

NAMESPACES: set[str] = {name for name in os.environ.get(VARIABLE, "").replace(" ", "").split(",") if name}
"""The namespaces whose connections are traced from their handshake on."""


def namespace_of(application: Any) -> str:
    """Return the namespace ``module.Class`` of a protocol, or ``module.function`` of the handler that serves it."""
    served_by = getattr(application, "handler", None)
    named = served_by if callable(served_by) and hasattr(served_by, "__qualname__") else type(application)
    return f"{named.__module__}.{named.__qualname__}"


def is_traced(namespace: str) -> bool:
    """Return whether the connections with this namespace are traced."""
    return any(name == "*" or namespace == name or namespace.startswith(name + ".") for name in NAMESPACES)


def begin(connection: Shared) -> None:
    """Trace an open connection from now on.

    Raises:
        LocalError: The connection is not open.
    """
    session, application = connection.session, connection.application
    if session is None or application is None:
        raise LocalError(f"trace_frames(connection): it is {connection.state.value}; call this in opened(), or later")
    sink = session.writer.sink
    if isinstance(sink, TracedSink):
        return
    write_line = _line_writer(namespace_of(application), connection.connection_id)
    _trace_handshake(application, write_line)
    traced: Any = TracedSink(sink, FrameTrace(write_line, ">").feed)
    session.writer.sink = traced
    feed, trace = session.feed, FrameTrace(write_line, "<").feed

    def traced_feed(data: bytes) -> None:
        trace(data)
        feed(data)

    session.feed = traced_feed
    if connection.handshake is None:
        connection.receive_by(traced_feed)


def _line_writer(namespace: str, number: int) -> Callable[[str], None]:
    log = Logger(namespace=namespace)

    def write_line(line: str) -> None:
        log.debug("connection {connection} {line}", connection=number, line=line)

    return write_line


def _trace_handshake(application: Any, write_line: Callable[[str], None]) -> None:
    request, response = application.request, application.response
    if isinstance(request, Request):
        write_line(f"request {_request_line(request)}: {_fields(request.headers)}")
    if isinstance(response, Response):
        write_line(f"response {response.status}: {_fields(response.headers)}")


def _request_line(request: Request) -> str:
    # A query may hold a token.
    return f"{request.method} {request.path}{'?...' if request.query else ''}"


def _fields(headers: Headers) -> str:
    shown: list[str] = []
    for raw_name, values in headers.getAllRawHeaders():
        name = raw_name.decode("latin-1")
        for value in values:
            hidden = name.lower() in SECRET_FIELDS
            shown.append(f"{name}={'(hidden)' if hidden else repr(value.decode('latin-1'))}")
    return ", ".join(shown)


class FrameTrace:
    """Finds the frames in the bytes of one direction, and writes a line about each.

    Args:
        write_line: writes a line.
        arrow: ``<`` for received frames, ``>`` for sent ones.
    """

    def __init__(self, write_line: Callable[[str], None], arrow: str) -> None:
        self._write_line = write_line
        self._arrow = arrow
        # The header, and the first bytes of the payload.
        self._begun = bytearray()
        self._rest = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        view = memoryview(data)
        while view:
            if self._rest:
                skipped = min(self._rest, len(view))
                self._rest -= skipped
                view = view[skipped:]
                continue
            missing = self._missing()
            self._begun += view[:missing]
            view = view[missing:]
            if not self._missing():
                self._frame_begun()

    def _missing(self) -> int:
        """Return how many bytes the header and the first bytes of the payload lack at least."""
        begun = self._begun
        if len(begun) < 2:
            return 2 - len(begun)
        size, at, length = _layout(begun)
        if length is None:
            return at - len(begun)
        return at + min(length, FIRST_BYTES) - len(begun) if len(begun) >= size else at - len(begun)

    def _frame_begun(self) -> None:
        begun, self._begun = bytes(self._begun), bytearray()
        _, at, length = _layout(begun)
        assert length is not None
        first, masked = begun[0], bool(begun[1] & 0x80)
        payload = begun[at:]
        self._rest = length - len(payload)
        if masked:
            key = begun[at - 4 : at]
            payload = bytes(byte ^ key[place & 3] for place, byte in enumerate(payload))
        try:
            name = Opcode(first & 0x0F).name
        except ValueError:
            name = f"opcode {first & 0x0F}"
        flags = [
            *(["not final"] if not first & FIN else ()),
            *(["compressed"] if first & RSV1 else ()),
            *(["masked"] if masked else ()),
        ]
        about = "".join(f", {flag}" for flag in flags)
        self._write_line(f"{self._arrow} {name}, {length} bytes{about}: {payload!r}{'...' if self._rest else ''}")


def _layout(header: bytes | bytearray) -> tuple[int, int, int | None]:
    """Return the size of the header without a key, where the payload begins, and its length if that is known."""
    short = header[1] & 0x7F
    extra = {126: 2, 127: 8}.get(short, 0)
    size = 2 + extra
    at = size + (4 if header[1] & 0x80 else 0)
    if len(header) < at:
        return size, at, None
    return size, at, int.from_bytes(header[2:size], "big") if extra else short


class TracedSink:
    """A write buffer whose frames are traced. It never bypasses the buffer, so all frames come here."""

    def __init__(self, sink: Any, trace: Callable[[bytes], None]) -> None:
        self._sink = sink
        self._trace = trace

    at_once: Callable[[bytes], int] | None = None

    def write(self, data: bytes | LongFrame) -> None:
        """Take data frames."""
        self._trace(bytes(data))
        self._sink.write(data)

    def write_admitted(self, data: bytes | LongFrame) -> None:
        """Take data frames that were admitted."""
        self._trace(bytes(data))
        self._sink.write_admitted(data)

    def write_control(self, opcode: int, frame: bytes) -> None:
        """Take a control frame."""
        self._trace(frame)
        self._sink.write_control(opcode, frame)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sink, name)


def names_of(namespaces: Iterable[str]) -> set[str]:
    """Return namespaces that can be traced. Raises TypeError for other values."""
    names = set(namespaces)
    for name in names:
        if not isinstance(name, str) or not name:
            raise TypeError(f"trace_frames({name!r}): give an open connection, or the namespace of a logger, or '*'")
    return names
