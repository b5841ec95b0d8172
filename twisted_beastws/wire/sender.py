"""`MessageSender`: messages that cannot be sent at once in one frame: streamed, prepared, long or waiting ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from twisted_beastws.errors import ConnectionClosed, LocalError
from twisted_beastws.wire.closing import ClosingHandshake
from twisted_beastws.wire.frames import FIN, FIN_BINARY, FIN_TEXT, Opcode
from twisted_beastws.wire.prepared import Prepared, forgotten
from twisted_beastws.wire.writer import FrameWriter

HELD_OVERHEAD = 160
"""Bytes of memory that a held message takes beyond its payload: its object, its tuple, and the list's slot."""


class Sender(Protocol):
    """How messages are sent on an open connection. A sender may wrap another: to compress, or to count."""

    def send(self, message: Any, *, compress: bool | None = None) -> None:
        """Send ``str``, ``bytes`` or a `Prepared` message; see ``WebSocketProtocol.send``."""

    def send_text(self, text: str) -> None:
        """Send a text message."""

    def send_binary(self, data: bytes) -> None:
        """Send a binary message."""

    def send_message(self, first: int, payload: bytes, compress: bool | None = None) -> None:
        """Send a message whose first frame begins with the byte ``first``, which has no RSV1."""

    def send_prepared(self, message: Prepared) -> None:
        """Send a message from `prepare`."""

    def begin_message(self, opcode: int, compress: bool | None = None) -> None:
        """Begin to stream a message. Until its end, other messages wait; control frames are sent in between.

        Raises:
            ConnectionClosed: The connection is closing.
            LocalError: Another message is being streamed.
        """

    def write_part(self, part: bytes) -> None:
        """Send a part of the streamed message.

        Raises:
            BufferFull: The part may not be written now; nothing of it was sent.
            ConnectionClosed: The connection is closing.
            LocalError: No message is being streamed.
        """

    def end_message(self, rest: bytes = b"") -> None:
        """End the streamed message with ``rest``, and send the messages that wait for it. Raises as `write_part`."""


def send_other(sender: Sender, message: Any, compress: bool | None) -> None:
    """Send a message of any kind through ``sender``."""
    if isinstance(message, Prepared):
        sender.send_prepared(message)
    elif isinstance(message, str):
        sender.send_message(FIN_TEXT, message.encode(), compress)
    else:
        data = as_bytes(message, "send() takes str, bytes or what prepare() made")
        if compress is None:
            sender.send_binary(data)
        else:
            sender.send_message(FIN_BINARY, data, compress)


def as_bytes(data: Any, accepted: str) -> Any:
    """Return bytes-like ``data`` with items of one byte.

    Raises:
        TypeError: ``data`` is not like ``bytes``; the text begins with ``accepted``.
    """
    if isinstance(data, memoryview):
        # A view may have wider items, and its length counts those.
        return data.cast("B")
    if not isinstance(data, (bytes, bytearray)):
        raise TypeError(f"{accepted}, not {type(data).__name__}{forgotten(data)}")
    return data


class Failing(Protocol):
    """The session of a `MessageSender`. No bound method is kept in its place: each takes 64 bytes."""

    def fail(self, error: BaseException) -> None:
        """Fail the connection."""


class MessageSender:
    """Sends messages without compression.

    Messages that cannot leave in one frame at once go here from the writer: long ones in several frames, and those
    that must wait for the end of a streamed message.

    Attributes:
        send_admitted: If set, this sends a message that waited: its first byte, payload and choice of compression.
    """

    __slots__ = ("_closing", "_held", "_held_size", "_next_first", "_session", "_writer", "send_admitted")

    def __init__(self, writer: FrameWriter, closing: ClosingHandshake, session: Failing) -> None:
        """Send through ``writer``. ``closing`` says how the connection ended, ``session`` can end it."""
        self._writer = writer
        self._closing = closing
        self._session: Failing | None = session
        # The first byte of the streamed message's next frame; None while none is streamed.
        self._next_first: int | None = None
        self._held: list[tuple[int, bytes, bool | None]] | None = None
        self._held_size = 0
        self.send_admitted: Callable[[int, bytes, bool | None], None] | None = None

    # Whole messages: the writer's own methods, with no call in between.

    @property
    def send(self) -> Callable[..., None]:
        """See `Sender.send`."""
        return self._writer.send

    @property
    def send_text(self) -> Callable[[str], None]:
        """See `Sender.send_text`."""
        return self._writer.send_text

    @property
    def send_binary(self) -> Callable[[bytes], None]:
        """See `Sender.send_binary`."""
        return self._writer.send_binary

    def send_other(self, message: Any, compress: bool | None) -> None:
        """Send a message that is not ``str``, or with a choice of compression."""
        send_other(self, message, compress)

    def send_message(self, first: int, payload: bytes, compress: bool | None = None) -> None:
        """Send a message without compression, whatever ``compress`` says: none was agreed on."""
        self._writer.send_frame(first, payload)

    def send_prepared(self, message: Prepared) -> None:
        """Send a prepared message; see `Sender.send_prepared`."""
        first, payload, frame = message.plain
        writer = self._writer
        # RFC 6455 §5.3: a client masks each frame by its own key.
        if writer.sendable and writer.server and len(payload) <= writer.fragment_size:
            writer.emit_frame(first, frame)
        else:
            writer.send_frame(first, payload)

    # Streamed messages.

    def begin_message(self, opcode: int, compress: bool | None = None) -> None:
        """Begin to stream a message; see `Sender.begin_message`."""
        if not self._writer.sendable:
            self._require_open()
            raise LocalError("a streamed message is open: it has to end before another begins")
        self._writer.hold()
        self._next_first = int(opcode)

    def write_part(self, part: bytes) -> None:
        """Send a part in a frame of its own; see `Sender.write_part`."""
        self.admit_part(len(part))
        self.write_frames(part)

    def end_message(self, rest: bytes = b"") -> None:
        """End the streamed message; see `Sender.end_message`."""
        self.write_frames(rest, FIN)
        self.release()

    def compress_frames(self, rsv1: int) -> None:
        """Add RSV1 to the first frame of the streamed message (RFC 7692 §6.1)."""
        self._next_first = self._require_message() | rsv1

    def admit_part(self, size: int) -> None:
        """Return if ``size`` bytes of the streamed message may be written; raise as `Sender.write_part` otherwise."""
        self._require_message()
        self._writer.sink.admits_part(size)
        self._require_message()

    def write_frames(self, part: bytes, fin: int = 0) -> None:
        """Write an admitted part of the streamed message; ``fin`` is FIN for its end."""
        first = self._require_message()
        self._next_first = None if fin else Opcode.CONTINUATION
        self._writer.emit_pieces(first | fin, part)

    def _require_open(self) -> None:
        if self._writer.closed:
            raise ConnectionClosed(self._closing.reason())

    def _require_message(self) -> int:
        self._require_open()
        if self._next_first is None:
            raise LocalError("no streamed message is open")
        return self._next_first

    # Waiting messages.

    def send_held(self, first: int, payload: bytes, compress: bool | None = None) -> None:
        """Keep a message until the one under way has ended, if the sink's policy admits it.

        Raises:
            ConnectionClosed: The connection is closing.
        """
        self._require_open()
        if self._writer.sink.admits(len(payload)):
            if self._held is None:
                self._held = []
            # The caller may change a bytearray.
            self._held.append((first, bytes(payload), compress))
            self._hold(len(payload) + HELD_OVERHEAD)

    def release(self) -> None:
        """The message under way has ended: send the messages that wait for it."""
        # Writing can make the application send, so the list may grow. A close empties it.
        if self._held:
            with self._whole_or_failed():
                for first, payload, compress in self._held:
                    self._hold(-len(payload) - HELD_OVERHEAD)
                    if self.send_admitted is None:
                        self._writer.emit_pieces(first, payload)
                    else:
                        self.send_admitted(first, payload, compress)
            self._held.clear()
        self._writer.release()

    def discard_held(self) -> None:
        """Discard the waiting messages: the connection closes."""
        if self._held:
            self._held.clear()
            self._hold(-self._held_size)

    def detach(self) -> None:
        """The connection has ended: keep no reference that would lead from the writer back to the connection."""
        self._session = self.send_admitted = None
        self._writer.backlog = ClosedBacklog(self._closing)

    def _hold(self, size: int) -> None:
        self._held_size += size
        self._writer.sink.hold(size)

    # Long messages.

    def emit_fragments(self, first: int, payload: bytes) -> None:
        """Send a long message in frames of ``fragment_size``, between which control frames can go (RFC 6455 §5.4)."""
        if self._writer.sink.admits(len(payload)):
            # Messages that the application sends because the sink writes must come after this one.
            self._writer.hold()
            with self._whole_or_failed():
                self._writer.emit_pieces(first, payload)
            self.release()

    @contextmanager
    def _whole_or_failed(self) -> Iterator[None]:
        """Fail the connection if an exception cuts a message short: no other frame can follow its part."""
        try:
            yield
        except BaseException as error:
            if self._session is not None:
                self._session.fail(error)
            raise


class ClosedBacklog:
    """Replaces a `MessageSender` when the connection has ended: nothing can be sent."""

    __slots__ = ("_closing",)

    def __init__(self, closing: ClosingHandshake) -> None:
        self._closing = closing

    def send_other(self, message: Any, compress: bool | None) -> None:
        """Raise `ConnectionClosed`, or TypeError for an object that is not a message."""
        if not isinstance(message, (Prepared, str)):
            as_bytes(message, "send() takes str, bytes or what prepare() made")
        raise ConnectionClosed(self._closing.reason())

    def send_held(self, first: int, payload: bytes) -> None:
        """Raise `ConnectionClosed`."""
        raise ConnectionClosed(self._closing.reason())

    def emit_fragments(self, first: int, payload: bytes) -> None:
        """Send nothing: a closed writer emits no data frame."""
