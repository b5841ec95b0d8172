"""The functions over raw bytes that reader and writer share: in pure Python here, compiled in ``_speedups.pyx``."""

from __future__ import annotations

import codecs
import io
from typing import Any

from twisted_beastws.errors import BadFramePayload
from twisted_beastws.wire.frames import apply_mask, decode_text, encode_frame, encode_header

__all__ = [
    "SoloMessage",
    "copy_start",
    "encode_frame",
    "encode_header",
    "joined_fields",
    "lasting_payload",
    "new_solo",
    "payload_bytes",
    "payload_size",
    "payload_source",
    "put_frame",
    "read_length",
    "take_bytes",
    "take_part",
    "take_piece",
    "take_text",
    "text_payload",
]

_utf8_decoder = codecs.getincrementaldecoder("utf-8")


# Received bytes. ``key_at`` is where in ``data`` the mask key is, or -1 without one.


def take_bytes(data: bytes, start: int, size: int, key_at: int) -> bytes:
    """Return a payload, unmasked."""
    payload = data[start : start + size]
    return payload if key_at < 0 else apply_mask(payload, data[key_at : key_at + 4])


def take_text(data: bytes, start: int, size: int, key_at: int) -> str:
    """Return a payload as text. Raises `BadFramePayload` if it is not UTF-8."""
    payload = data[start : start + size]
    return decode_text(payload if key_at < 0 else apply_mask(payload, data[key_at : key_at + 4]))


def take_part(data: bytes, start: int, size: int, key: bytes | None) -> bytes:
    """Return a part of a payload, unmasked by ``key``."""
    part = data[start : start + size]
    return part if key is None else apply_mask(part, key)


def read_length(data: bytes, start: int, end: int) -> int:
    """Return the big-endian number in ``data`` from ``start`` to ``end``."""
    return int.from_bytes(data[start:end], "big")


class SoloMessage:
    """A message in one frame that arrives in several chunks.

    Attributes:
        size: The bytes that arrived.
    """

    __slots__ = ("_bytes", "_decoder", "_text", "size")

    def __init__(self, text: bool) -> None:
        self._decoder = _utf8_decoder()
        self._text = io.StringIO() if text else None
        self._bytes = bytearray()
        self.size = 0

    def add(self, data: bytes, start: int, size: int, key: bytes | None, checked: bool) -> None:
        """Take a part. Raises `BadFramePayload` at the first bad byte of a text that is to be ``checked``."""
        part = take_part(data, start, size, key)
        self.size += size
        if self._text is None:
            self._bytes += part
        elif checked:
            self._text.write(check_utf8(self._decoder, part, False))

    def place(self) -> None:
        """Return None: the pure codec unmasks no bytes in their place."""

    def add_placed(self, size: int, key: bytes | None, checked: bool) -> None:
        """Take a part whose bytes are in `place`."""
        raise NotImplementedError

    def message(self) -> str | bytes:
        """Return the whole message. Raises `BadFramePayload` for a text that ends inside a character."""
        if self._text is None:
            return bytes(self._bytes)
        check_utf8(self._decoder, b"", True)
        return self._text.getvalue()


def new_solo(text: bool, length: int) -> SoloMessage:
    """Return an empty message that will have ``length`` bytes."""
    return SoloMessage(text)


def check_utf8(decoder: codecs.IncrementalDecoder, part: bytes, final: bool) -> str:
    """Decode a part of a text; raise `BadFramePayload` at the first bad byte."""
    try:
        text = decoder.decode(part, final)
    except UnicodeDecodeError:
        # RFC 6455 §8.1: fail at the first bad byte, not at the message's end.
        raise BadFramePayload from None
    # Python waits for the third byte of a surrogate, although the second is bad already.
    if b"\xed\xa0" <= decoder.getstate()[0] < b"\xee":
        raise BadFramePayload
    return text


# Payloads to send. A payload is bytes-like. In the compiled codec, a text that need not be copied may stay ``str``, and
# one that is masked may be an object that encodes it step by step.


def text_payload(text: str, masks: bool) -> Any:
    """Return a text as a payload, which will be masked or not."""
    return text.encode()


def payload_size(payload: str | bytes) -> int:
    """Return the number of bytes in a payload."""
    return len(payload)


def lasting_payload(payload: Any) -> Any:
    """Return a payload as an object with a buffer that nobody can change: itself if possible, else a copy."""
    return payload.encode() if isinstance(payload, str) else bytes(payload)


def payload_source(payload: Any) -> Any:
    """Return the object from which `take_piece` takes the pieces of a payload."""
    return memoryview(payload)


def take_piece(source: Any, at: int, size: int) -> Any:
    """Return ``size`` bytes of a payload. They must follow those that were taken before, which ended at ``at``."""
    return source[at : at + size]


def payload_bytes(payload: str | bytes) -> bytes:
    """Return a payload as bytes-like object."""
    return payload.encode() if isinstance(payload, str) else payload


def put_frame(target: bytearray, at: int, first: int, payload: bytes, key: bytes | None) -> None:
    """Write a frame into ``target``, which has room for it after ``at``."""
    frame = encode_frame(first, payload, key)
    target[at : at + len(frame)] = frame


def copy_start(source: bytearray, size: int) -> bytes:
    """Return the first ``size`` bytes of ``source``."""
    return bytes(memoryview(source)[:size])


# Fields of HTTP.


def joined_fields(fields: dict[bytes, list[bytes]]) -> bytes:
    """Return the fields as lines of names and values."""
    return b"\n".join([b"%b:%b" % (name, value) for name, values in fields.items() for value in values])
