"""`DeflatingSender`: messages sent compressed (RFC 7692 §6.1)."""

from __future__ import annotations

from typing import Any

from twisted_beastws.wire.deflate import PerMessageDeflate
from twisted_beastws.wire.frames import FIN_BINARY, FIN_TEXT, RSV1
from twisted_beastws.wire.prepared import Prepared
from twisted_beastws.wire.sender import MessageSender, send_other
from twisted_beastws.wire.writer import FrameWriter


class DeflatingSender:
    """Compresses messages before a `MessageSender` sends them; see `twisted_beastws.wire.sender.Sender`.

    The peer inflates messages in the order in which we compress them. If a message that was compressed may not reach
    the peer, or the peer inflates one that we did not compress, the next message must not refer to earlier ones.
    """

    __slots__ = ("__weakref__", "_compressing", "_deflate", "_may_drop", "_sender", "_writer")

    def __init__(self, writer: FrameWriter, sender: MessageSender, deflate: PerMessageDeflate, may_drop: bool) -> None:
        """Wrap ``sender``. With ``may_drop``, the sink may drop whole messages while the peer reads too slowly."""
        self._writer = writer
        self._sender = sender
        self._deflate = deflate
        self._may_drop = may_drop
        self._compressing = False
        sender.send_admitted = self._send_admitted

    def send(self, message: Any, *, compress: bool | None = None) -> None:
        """See `Sender.send`."""
        if compress is None and isinstance(message, str):
            self.send_message(FIN_TEXT, message.encode())
        else:
            send_other(self, message, compress)

    def send_text(self, text: str) -> None:
        """Send a text message, compressed from ``Deflate.threshold`` bytes on."""
        self.send_message(FIN_TEXT, text.encode())

    def send_binary(self, data: bytes) -> None:
        """Send a binary message, compressed from ``Deflate.threshold`` bytes on."""
        self.send_message(FIN_BINARY, data)

    def send_message(self, first: int, payload: bytes, compress: bool | None = None) -> None:
        """Send a message; ``compress`` overrules the threshold."""
        if compress is None:
            compress = len(payload) >= self._deflate.threshold
        if not self._writer.sendable:
            self._sender.send_held(first, payload, compress)
        elif compress:
            self._send_compressed(first, payload)
        else:
            self._writer.send_frame(first, payload)

    def _send_compressed(self, first: int, payload: bytes) -> None:
        leaves = self._leaves
        # Messages that the application sends because the sink writes refer to this one, and must come after it.
        self._writer.hold()
        sent = False
        try:
            self._writer.emit(first | RSV1, self._deflate.compress(payload))
            sent = leaves
        finally:
            if not sent:
                self._deflate.forget_sent()
            self._sender.release()

    def send_prepared(self, message: Prepared) -> None:
        """Send a prepared message; see `Sender.send_prepared`."""
        writer = self._writer
        compress = message.compress
        if compress is None:
            compress = len(message.plain.payload) >= self._deflate.threshold
        if not compress:
            self._sender.send_prepared(message)
            return
        framed = message.compressed(self._deflate.parameters) if writer.sendable and writer.server else None
        if framed is None or len(framed.payload) > writer.fragment_size:
            self.send_message(message.plain.first, message.plain.payload, True)
            return
        writer.hold()
        try:
            writer.emit_frame(framed.first, framed.frame)
        finally:
            self._deflate.forget_sent()
            self._sender.release()

    # Streamed messages.

    def begin_message(self, opcode: int, compress: bool | None = None) -> None:
        """Begin to stream a message, compressed unless ``compress`` is False; see `Sender.begin_message`."""
        self._sender.begin_message(opcode)
        self._compressing = compress is not False
        if self._compressing:
            self._sender.compress_frames(RSV1)

    def write_part(self, part: bytes) -> None:
        """Send a part, as far as zlib gives it out; see `Sender.write_part`."""
        if not self._compressing:
            self._sender.write_part(part)
            return
        # A refused part can be tried again only if zlib has not taken it.
        self._sender.admit_part(len(part))
        if compressed := self._deflate.compress_part(part):
            self._sender.write_frames(compressed)

    def end_message(self, rest: bytes = b"") -> None:
        """End the streamed message; see `Sender.end_message`."""
        if self._compressing:
            self._compressing = False
            rest = (self._deflate.compress_part(rest) if rest else b"") + self._deflate.finish_parts()
        self._sender.end_message(rest)

    # Waiting messages.

    def _send_admitted(self, first: int, payload: bytes, compress: bool | None) -> None:
        if not compress:
            self._writer.emit_pieces(first, payload)
            return
        leaves = self._leaves
        self._writer.emit_pieces(first | RSV1, self._deflate.compress(payload))
        if not leaves:
            self._deflate.forget_sent()

    @property
    def _leaves(self) -> bool:
        # A message that waits in the sink may still be dropped.
        return self._writer.sink.free or not self._may_drop
