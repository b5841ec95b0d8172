"""`MessageAssembler`: the payloads of frames to messages (RFC 6455 §5.4), gathered or passed on piece by piece."""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable
from sys import getsizeof
from typing import Any

from twisted_beastws.errors import TooManyFragments, UnacceptableData
from twisted_beastws.wire.frames import FIN, UNLIMITED, Opcode, decode_text
from twisted_beastws.wire.raw import check_utf8
from twisted_beastws.wire.reader import FrameReader

FragmentHook = Callable[[bytes, Opcode, bool], Any]
"""Receives a piece of a message, its opcode, and whether the message ends with the piece."""

_utf8_decoder = codecs.getincrementaldecoder("utf-8")


class MessageAssembler:
    """Puts the messages together that the reader cannot deliver whole.

    Attributes:
        reader: Finds the payloads, and calls the hooks.
        max_fragments: The greatest number of frames of a message.
        on_fragment: If set, this hook gets each piece of a message as it arrives, and nothing is gathered.
        discarding: Discard messages: we sent a close frame, and wait for the peer's.
        final: The message ends with the frame that is arriving.
    """

    __slots__ = (
        "_decoder",
        "_fragments",
        "_message",
        "_wide",
        "discarding",
        "final",
        "max_fragments",
        "on_fragment",
        "reader",
    )

    def __init__(self, reader: FrameReader) -> None:
        self.reader = reader
        self.max_fragments = UNLIMITED
        self.on_fragment: FragmentHook | None = None
        self.discarding = False
        self.final = False
        self._message: io.StringIO | bytearray | None = None
        self._decoder: codecs.IncrementalDecoder | None = None
        self._fragments = 0
        # The text so far has characters beyond ASCII, so that each may take four bytes of memory.
        self._wide = False

    @property
    def size(self) -> int:
        """The bytes of memory that the unfinished message takes, at most."""
        if isinstance(self._message, bytearray):
            return getsizeof(self._message)
        if self._message is None:
            return 0
        return 4 * self.reader.message_size if self._wide else self.reader.message_size

    def stream_to(self, on_fragment: FragmentHook) -> None:
        """Pass the pieces of messages to ``on_fragment`` as they arrive."""
        self.on_fragment = on_fragment
        self.reader.whole = False

    def discard(self) -> None:
        """Discard the unfinished message and all later ones."""
        self._message = self._decoder = None
        self.discarding = True
        self.reader.whole = False
        if self.reader.drop_message():
            self.final = True

    # The reader calls these.

    def begin_frame(self, first: int, length: int) -> None:
        """A data frame begins with the byte ``first``."""
        opcode = first & 0x0F
        self.final = bool(first & FIN)
        if opcode:
            self._begin_message(opcode)
        self._fragments += 1
        if self._fragments > self.max_fragments:
            raise TooManyFragments(f"too many fragments: Limits.max_fragments is {self.max_fragments}")

    def _begin_message(self, opcode: int) -> None:
        reader = self.reader
        reader.begin_message(opcode)
        self._fragments = 0
        hook = reader.on_text if opcode == Opcode.TEXT else reader.on_binary
        if hook is None and self.on_fragment is None and not self.discarding:
            raise UnacceptableData

    def payload_received(self, part: bytes, last: bool) -> None:
        """A part of the frame's payload arrived; ``last`` if the frame ends with it."""
        self.take(part, last and self.final)

    def compressed_received(self, first: int, payload: bytes) -> None:
        """No compressed message passes the reader's checks without an `Inflation`."""
        raise NotImplementedError

    def resume(self) -> None:
        """Nothing is ever left over without an `Inflation`."""

    # Messages.

    def take(self, part: bytes, final: bool) -> None:
        """Take a part of the message; ``final`` if the message ends with it."""
        # RFC 6455 §5.5.1: after our close frame we need not process data, and discard it (as in Beast).
        if self.discarding:
            if final:
                self._end_message()
        elif final and not self.reader.message_size and self.on_fragment is None:
            self._end_message(part if self.reader.message_opcode == Opcode.BINARY else decode_text(part))
        else:
            self._gather(part, final)

    def _gather(self, part: bytes, final: bool) -> None:
        if not self.reader.message_size:
            binary = self.reader.message_opcode == Opcode.BINARY
            self._decoder = None if binary else _utf8_decoder()
            self._wide = False
            if self.on_fragment is None:
                self._message = bytearray() if binary else io.StringIO()
        self.reader.message_size += len(part)
        text = self._check_text(part, final)
        if self.on_fragment is not None:
            self._deliver_fragment(self.on_fragment, part, final)
        elif isinstance(self._message, bytearray):
            self._message += part
        elif self._message is not None:
            self._message.write(text)
            self._wide = self._wide or not text.isascii()
        if final:
            self._end_message(self._gathered_message())

    def _gathered_message(self) -> str | bytes | None:
        if isinstance(self._message, bytearray):
            return bytes(self._message)
        return None if self._message is None else self._message.getvalue()

    def _check_text(self, part: bytes, final: bool) -> str:
        if self._decoder is None:
            return ""
        return check_utf8(self._decoder, part, final)

    def _deliver_fragment(self, hook: FragmentHook, part: bytes, final: bool) -> None:
        if part or final:
            opcode = Opcode(self.reader.message_opcode)
            self.reader.call_hook(lambda data: hook(data, opcode, final), part)

    def _end_message(self, message: str | bytes | None = None) -> None:
        reader = self.reader
        self._message = self._decoder = None
        reader.end_message(self.on_fragment is None and not self.discarding)
        if message is not None:
            reader.call_hook(reader.on_text if isinstance(message, str) else reader.on_binary, message)
