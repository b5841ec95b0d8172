"""`FrameWriter`: messages to frames (RFC 6455 §5), written at once or gathered and written together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted_beastws.wire.frames import (
    FIN,
    FIN_BINARY,
    FIN_TEXT,
    GATHER_LIMIT,
    UNLIMITED,
    Opcode,
    encode_frame,
    mask_keys,
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

    def write(self, data: bytes) -> None:
        """Take data frames. A full sink may refuse them by its policy."""

    def admits(self, size: int) -> bool:
        """Return whether ``size`` bytes of data frames may be written; if not, the policy was carried out.

        Raises:
            LocalError: So many bytes can never fit.
        """

    def hold(self, size: int) -> None:
        """Count ``size`` more admitted bytes that wait in a `MessageSender`; a negative size takes them off."""

    def admits_part(self, size: int) -> None:
        """Admit a part of a message whose beginning was sent.

        Raises:
            BufferFull: The part may not be written now.
        """

    def write_admitted(self, data: bytes) -> None:
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
    the answers to the messages of one chunk leave as one write.

    Attributes:
        server: A server sends frames unmasked, a client masks them (RFC 6455 §5.1).
        sink: The write buffer.
        backlog: Takes the messages that cannot leave at once in one frame.
        fragment_size: The greatest payload of a data frame; longer messages go to ``backlog``.
        sendable: Messages may leave now: none is being streamed, and no close frame was sent.
        closed: No frame may follow, because a close frame was sent or the connection is gone.
    """

    # A bound method may be held weakly.
    __slots__ = (
        "__weakref__",
        "_corked",
        "_gathered",
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
        self._corked = False
        # One bytearray for all frames: the object of a small frame is many times its content.
        self._gathered = bytearray()
        self.gathered_size = 0

    # Messages.

    def send(self, message: Any, *, compress: bool | None = None) -> None:
        """Send a message; see ``WebSocketProtocol.send``."""
        if compress is None and isinstance(message, str):
            self.send_text(message)
        elif self.backlog is not None:
            self.backlog.send_other(message, compress)

    def send_text(self, text: str) -> None:
        """Send a text message in one frame."""
        self.send_frame(FIN_TEXT, text.encode())

    def send_binary(self, data: bytes) -> None:
        """Send a binary message in one frame."""
        self.send_frame(FIN_BINARY, data)

    def send_frame(self, first: int, payload: bytes) -> None:
        """Send a data frame whose first byte is ``first``, or keep it in ``backlog`` if it may not leave now."""
        if self.sendable:
            self.emit(first, payload)
        elif self.backlog is not None:
            self.backlog.send_held(first, payload)

    # Whether messages may leave.

    def hold(self) -> None:
        """Send messages to ``backlog`` until `release`: a message is under way."""
        self.sendable = False

    def release(self) -> None:
        """Let messages leave again, unless the writer is closed."""
        self.sendable = not self.closed

    def close(self) -> None:
        """Let no further message leave. A close frame may still be emitted."""
        self.sendable = False
        self.closed = True

    # Frames.

    def emit(self, first: int, payload: bytes) -> None:
        """Write a frame, or gather it while the writer is corked and nothing waits in the sink."""
        # RFC 6455 §5.5: a control frame is never fragmented.
        if len(payload) > self.fragment_size and not first & 0x08 and self.backlog is not None:
            self.backlog.emit_fragments(first, payload)
            return
        self.emit_frame(first, encode_frame(first, payload, None if self.server else mask_keys.next()))

    def emit_frame(self, first: int, frame: bytes) -> None:
        """Write or gather a finished frame, as `emit` does; ``first`` is its first byte."""
        # The first gathered frame asks whether the sink is free; nothing is written before the others.
        if self._corked and len(frame) < GATHER_LIMIT and (self.gathered_size or self.sink.free):
            self._gathered += frame
            self.gathered_size += len(frame)
            if self.gathered_size >= GATHER_LIMIT:
                self.flush()
            return
        if self.gathered_size:
            self.flush()
        if len(frame) < GATHER_LIMIT and self._left_at_once(frame):
            return
        if first & 0x08:
            self.sink.write_control(first & 0x0F, frame)
        else:
            self.sink.write(frame)

    def emit_pieces(self, first: int, payload: bytes) -> None:
        """Write an admitted payload in frames of ``fragment_size``; if ``first`` has FIN, the last frame has it.

        Writing stops if the connection closes in between.
        """
        if self.gathered_size:
            self.flush()
        fin, opcode = first & FIN, first & ~FIN
        end = len(payload)
        for at in range(0, end or 1, self.fragment_size):
            # RFC 6455 §5.5.1: no data frame follows a close frame.
            if self.closed:
                return
            piece = payload[at : at + self.fragment_size]
            last = fin if at + len(piece) == end else 0
            self.sink.write_admitted(encode_frame(opcode | last, piece, None if self.server else mask_keys.next()))
            opcode = Opcode.CONTINUATION

    # Gathering.

    def cork(self) -> None:
        """Gather frames until `uncork`."""
        self._corked = True

    def uncork(self) -> None:
        """Write the gathered frames, and each further one at once."""
        self._corked = False
        if self.gathered_size:
            self.flush()

    def flush(self) -> None:
        """Write the gathered frames."""
        gathered = bytes(self._gathered)
        self._gathered.clear()
        self.gathered_size = 0
        # The sink was free when the first was gathered, and each frame could have been written alone.
        if gathered and not self._left_at_once(gathered):
            self.sink.write_admitted(gathered)

    def _left_at_once(self, frames: bytes) -> bool:
        at_once = self.sink.at_once
        if at_once is None:
            return False
        try:
            gone = at_once(frames)
        except OSError:
            gone = 0
        if gone != len(frames):
            self.sink.write_rest(frames, gone)
        return True
