# cython: wraparound=False, initializedcheck=False
"""`FrameWriter`: messages to frames (RFC 6455 §5), written at once or gathered and written together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted_beastws.wire.direct import leave_by
from twisted_beastws.wire.frames import FIN, FIN_BINARY, FIN_TEXT, GATHER_LIMIT, UNLIMITED, LongFrame, mask_keys
from twisted_beastws.wire.prepared import Prepared
from twisted_beastws.wire.raw import (
    copy_start,
    encode_frame,
    encode_header,
    lasting_payload,
    payload_bytes,
    payload_size,
    payload_source,
    put_frame,
    take_piece,
    text_payload,
)


class Sink(Protocol):
    """The write buffer that takes a writer's frames.

    Attributes:
        free: The buffer is empty, so several frames may be written as one.
        at_once: A way past the buffer for fewer than `GATHER_LIMIT` bytes. It returns the number of bytes that left,
            and raises OSError if none did. None: there is no such way now.
    """

    free: bool
    at_once: Callable[[bytes], int] | None

    def write(self, data: bytes | LongFrame) -> None:
        """Take data frames. A full sink may refuse them by its policy."""

    def admits(self, size: int) -> bool:
        """Return whether ``size`` bytes of data frames may be written; if not, the policy was carried out.

        Raises:
            LocalError: So many bytes can never fit.
        """

    def hold(self, size: int) -> None:
        """Count ``size`` more admitted bytes that wait in a `MessageSender`; a negative size takes them off."""

    def admits_part(self, size: int) -> None:
        """Admit a further part of a message.

        Raises:
            BufferFull: The part may not be written now.
        """

    def write_admitted(self, data: bytes | LongFrame) -> None:
        """Take data frames that were admitted."""

    def write_rest(self, frame: bytes, gone: int) -> None:
        """Take a frame of which ``at_once`` took the first ``gone`` bytes."""

    def write_control(self, opcode: int, frame: bytes) -> None:
        """Take a control frame in any case: a close frame last, a ping or pong ahead of waiting data frames."""


class Backlog(Protocol):
    """Handles the messages that a writer cannot put into one frame at once."""

    def send_other(self, message: Any, compress: bool | None) -> None:
        """Send a message that is not ``str``, or with a choice of compression."""

    def send_held(self, first: int, payload: bytes) -> None:
        """Keep a message until the message under way has ended."""

    def emit_fragments(self, first: int, payload: bytes) -> None:
        """Send a message in several frames."""


class FrameWriter:
    """Puts messages into frames, and frames into a sink.

    Between `cork` and `uncork` the writer gathers frames while nothing waits in the sink, and writes them together:
    the answers to the messages of one chunk are sent with one write. One writer at a time can gather. A writer that is
    corked meanwhile writes each frame by itself.

    Attributes:
        server: A server sends frames unmasked, a client masks them (RFC 6455 §5.1).
        sink: The write buffer.
        backlog: Takes the messages that cannot be sent at once in one frame.
        fragment_size: The greatest payload of a data frame; longer messages go to ``backlog``.
        sendable: Messages may be sent now: none is being streamed, and no close frame was sent.
        closed: No frame may follow, because a close frame was sent or the connection is gone.
        gathered_size: The bytes of the gathered frames.
    """

    # A bound method may be held weakly.
    __slots__ = (
        "__weakref__",
        "_corked",
        "backlog",
        "closed",
        "fragment_size",
        "gathered_size",
        "sendable",
        "server",
        "sink",
    )

    def __init__(self, server: bool, sink: Sink) -> None:
        self.server = server
        self.sink = sink
        self.backlog: Backlog | None = None
        self.fragment_size = UNLIMITED
        self.sendable = True
        self.closed = False
        self.gathered_size = 0
        self._corked = False

    # Messages.

    def send(self, message: Any, *, compress: bool | None = None) -> None:
        """Send a message; see ``WebSocketProtocol.send``."""
        if compress is None and isinstance(message, str):
            if self.sendable:
                # The shortest path, for the most frequent case.
                self.emit(FIN_TEXT, text_payload(message, not self.server))
            else:
                self._send(FIN_TEXT, message.encode())
        elif isinstance(message, Prepared) and self.sendable and self.server:
            self._send_prepared(message)
        elif self.backlog is not None:
            self.backlog.send_other(message, compress)

    def send_text(self, text: str) -> None:
        """Send a text message in one frame."""
        self._send(FIN_TEXT, text_payload(text, not self.server))

    def send_binary(self, data: bytes) -> None:
        """Send a binary message in one frame."""
        self._send(FIN_BINARY, data)

    def send_frame(self, first: int, payload: bytes) -> None:
        """Send a data frame whose first byte is ``first``, or keep it in ``backlog`` if it may not leave now."""
        self._send(first, payload)

    def _send_prepared(self, message: Any) -> None:
        first, payload, frame = message.plain
        if len(payload) <= self.fragment_size:
            self.emit_frame(first, frame)
        else:
            self._send(first, payload)

    def _send(self, first: int, payload: Any) -> None:
        if self.sendable:
            self.emit(first, payload)
        elif self.backlog is not None:
            self.backlog.send_held(first, payload_bytes(payload))

    # Whether messages may be sent.

    def hold(self) -> None:
        """Send messages to ``backlog`` until `release`: a message is under way."""
        self.sendable = False

    def release(self) -> None:
        """Allow messages to be sent again, unless the writer is closed."""
        self.sendable = not self.closed

    def close(self) -> None:
        """Allow no further messages. A close frame may still be emitted."""
        self.sendable = False
        self.closed = True

    # Frames.

    def way_past(self, size: int) -> Callable[[bytes], int] | None:
        """Return the sink's ``at_once`` if a server's frame with ``size`` bytes of payload may leave by it now."""
        if not self.sendable or not self.server or self._corked or self.gathered_size or size > self.fragment_size:
            return None
        return self.sink.at_once

    def emit(self, first: int, payload: Any) -> None:
        """Write a frame, or gather it while the writer is corked and nothing waits in the sink."""
        size = payload_size(payload)
        # RFC 6455 §5.5: a control frame is never fragmented.
        if size > self.fragment_size and not first & 0x08 and self.backlog is not None:
            self.backlog.emit_fragments(first, lasting_payload(payload))
            return
        key = None
        size += 2 if size < 126 else 4 if size < 65536 else 10
        if not self.server:
            key = mask_keys.next()
            size += 4
        if not self._gathers(size):
            if size < GATHER_LIMIT or key is not None:
                self._write(first, encode_frame(first, payload, key))
            else:
                self._write_long(first, memoryview(lasting_payload(payload)))
        elif size > GATHER_LIMIT - self.gathered_size:
            self._flush(encode_frame(first, payload, key))
        else:
            put_frame(_gathered, self.gathered_size, first, payload, key)
            self._has_gathered(size)

    def emit_frame(self, first: int, frame: bytes) -> None:
        """Write or gather a finished frame, as `emit` does; ``first`` is its first byte."""
        size = len(frame)
        if not self._gathers(size):
            self._write(first, frame)
        elif size > GATHER_LIMIT - self.gathered_size:
            self._flush(frame)
        else:
            _gathered[self.gathered_size : self.gathered_size + size] = frame
            self._has_gathered(size)

    def _write(self, first: int, frame: bytes) -> None:
        if self.gathered_size:
            self._flush(b"")
        if len(frame) < GATHER_LIMIT and self._left_at_once(frame):
            return
        if first & 0x08:
            self.sink.write_control(first & 0x0F, frame)
        else:
            self.sink.write(frame)

    def _write_long(self, first: int, payload: memoryview) -> None:
        if self.gathered_size:
            self._flush(b"")
        self.sink.write(LongFrame(encode_header(first, len(payload)), payload, len(payload)))

    def emit_pieces(self, first: int, payload: bytes) -> None:
        """Write an admitted payload in frames of ``fragment_size``; if ``first`` has FIN, the last frame has it.

        Writing stops if the connection closes in between.
        """
        if self.gathered_size:
            self._flush(b"")
        long = self.server and len(payload) >= GATHER_LIMIT
        source = payload_source(lasting_payload(payload) if long else payload)
        fin, opcode = first & FIN, first & ~FIN
        end = len(source)
        at = 0
        # RFC 6455 §5.5.1: no data frame follows a close frame.
        while not self.closed:
            size = end - at
            if size > self.fragment_size:
                size = self.fragment_size
            last = fin if at + size == end else 0
            piece: Any = take_piece(source, at, size)
            if long and size >= GATHER_LIMIT:
                self.sink.write_admitted(LongFrame(encode_header(opcode | last, size), piece, at + size))
            else:
                self.sink.write_admitted(encode_frame(opcode | last, piece, None if self.server else mask_keys.next()))
            opcode = 0
            at += size
            if at >= end:
                return

    # Gathering.

    def cork(self) -> None:
        """Gather frames until `uncork`."""
        self._corked = True

    def uncork(self) -> None:
        """Write the gathered frames, and each further one at once."""
        self._corked = False
        if self.gathered_size:
            self._flush(b"")

    def flush(self) -> None:
        """Write the gathered frames."""
        if self.gathered_size:
            self._flush(b"")

    def _gathers(self, size: int) -> bool:
        if not self._corked or size >= GATHER_LIMIT:
            return False
        # The first gathered frame asks; nothing is written before the others.
        if not self.gathered_size and not self.sink.free:
            return False
        return _gatherer is None or _gatherer is self

    def _has_gathered(self, size: int) -> None:
        global _gatherer
        _gatherer = self
        self.gathered_size += size
        if self.gathered_size == GATHER_LIMIT:
            self._flush(b"")

    def _flush(self, last: bytes) -> None:
        # Writes the gathered frames and ``last``, for which there is no room.
        global _gatherer
        frames = copy_start(_gathered, self.gathered_size)
        if last:
            frames += last
        self.gathered_size = 0
        _gatherer = None
        # The sink was free when the first was gathered, and each frame could have been written alone.
        if not self._left_at_once(frames):
            self.sink.write_admitted(frames)

    def _left_at_once(self, frames: bytes) -> bool:
        at_once = self.sink.at_once
        if at_once is None:
            return False
        gone = leave_by(at_once, frames)
        if gone != len(frames):
            self.sink.write_rest(frames, gone)
        return True


# The frames that one writer, the gatherer, has gathered.
_gathered = bytearray(GATHER_LIMIT)
_gatherer: FrameWriter | None = None
