"""`Inflation`: compressed payloads to plain ones (RFC 7692 §6.2), between a reader and its assembler."""

from __future__ import annotations

from collections.abc import Iterator

from twisted_beastws.errors import MessageTooBig, UnacceptableData
from twisted_beastws.wire.assembler import MessageAssembler
from twisted_beastws.wire.deflate import PerMessageDeflate
from twisted_beastws.wire.frames import RUNNING, Opcode, decode_text


class Inflation:
    """Inflates compressed messages piece by piece, and passes other messages on.

    Between two pieces it checks whether the application paused, the connection closed, or the turn is over.
    """

    __slots__ = ("_assembler", "_deflate", "_pieces")

    def __init__(self, assembler: MessageAssembler, deflate: PerMessageDeflate) -> None:
        self._assembler = assembler
        self._deflate = deflate
        self._pieces: Iterator[tuple[bytes, bool]] | None = None

    def begin_frame(self, first: int, length: int) -> None:
        """A data frame begins with the byte ``first``."""
        self._assembler.begin_frame(first, length)

    def payload_received(self, part: bytes, last: bool) -> None:
        """A part of the frame's payload arrived; ``last`` if the frame ends with it."""
        assembler, reader = self._assembler, self._assembler.reader
        if reader.compressed and not assembler.discarding:
            room = reader.max_message_size - reader.message_size
            self._deliver(self._deflate.inflate(part, last and assembler.final, room))
        else:
            assembler.payload_received(part, last)

    def compressed_received(self, first: int, payload: bytes) -> None:
        """A whole compressed message arrived in one frame."""
        reader = self._assembler.reader
        text = first & 0x0F == Opcode.TEXT
        hook = reader.on_text if text else reader.on_binary
        if hook is None:
            raise UnacceptableData
        message = self._deflate.inflate_whole(payload, reader.max_message_size)
        if isinstance(message, bytes):
            reader.call_hook(hook, decode_text(message) if text else message)
            return
        reader.compressed = True
        self._assembler.begin_frame(first, len(payload))
        self._deliver(message)

    def resume(self) -> None:
        """Deliver the remaining pieces of the payload."""
        if self._pieces is not None:
            self._deliver(self._pieces)

    def _deliver(self, pieces: Iterator[tuple[bytes, bool]]) -> None:
        assembler, reader = self._assembler, self._assembler.reader
        self._pieces, reader.unfinished = pieces, True
        try:
            for piece, ended in pieces:
                assembler.take(piece, ended)
                if reader.halted != RUNNING or reader.budget.out_of_time():
                    return
                if assembler.discarding:
                    # Discard the other pieces, and notice the end of the message.
                    assembler.take(b"", assembler.final and not reader.remaining)
                    break
        except MessageTooBig:
            raise reader.too_big() from None
        self._pieces, reader.unfinished = None, False
