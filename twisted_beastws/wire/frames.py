"""Frames on the wire (RFC 6455 §5): their layout, their masks, and the functions over raw bytes."""

from __future__ import annotations

import os
from enum import IntEnum
from functools import lru_cache

from twisted_beastws.errors import BadFramePayload

GATHER_LIMIT = 1 << 16
"""Bytes gathered from the hooks of one chunk before they are written: 64 KiB, as many as a transport reads at once."""

UNLIMITED = 1 << 63
"""More bytes than a frame can have (RFC 6455 §5.2)."""

RUNNING, PAUSED, STOPPED = range(3)


class Opcode(IntEnum):
    """RFC 6455 §5.2."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


FIN, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10
RESERVED = RSV1 | RSV2 | RSV3
FIN_TEXT, FIN_BINARY = FIN | Opcode.TEXT, FIN | Opcode.BINARY


class MaskKeys:
    """Mask keys from the system's secure source, fetched 1024 at a time (RFC 6455 §5.3, §10.3)."""

    __slots__ = ("_at", "_pool")

    def __init__(self) -> None:
        self._pool = b""
        self._at = 0

    def next(self) -> bytes:
        """Return four bytes, never all zero: a zero key would send the payload as it is (Beast does the same)."""
        while True:
            if self._at == len(self._pool):
                self._pool = os.urandom(4096)
                self._at = 0
            key = self._pool[self._at : self._at + 4]
            self._at += 4
            if key != b"\0\0\0\0":
                return key

    def forget(self) -> None:
        """Drop the remaining keys: after a fork the other process has the same ones."""
        self._pool = b""
        self._at = 0


mask_keys = MaskKeys()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=mask_keys.forget)


STRIDED = 1024
"""Bytes from which on four translations of every fourth byte are faster than one of a big integer: measured."""


@lru_cache(maxsize=256)
def _xor_table(octet: int) -> bytes:
    return bytes(octet ^ other for other in range(256))


def apply_mask(data: bytes, key: bytes) -> bytes:
    """Mask or unmask ``data`` (RFC 6455 §5.3), at the speed of big integers or, where that is greater, of tables."""
    size = len(data)
    if size >= STRIDED:
        masked = bytearray(data)
        for lane in range(4):
            masked[lane::4] = masked[lane::4].translate(_xor_table(key[lane]))
        return bytes(masked)
    stream = (key * (size + 3 >> 2))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(stream, "little")).to_bytes(size, "little")


def encode_header(first: int, size: int, mask_bit: int = 0) -> bytes:
    """Return the header of a frame; ``first`` is its first byte (FIN, RSV and opcode)."""
    # RFC 6455 §5.2: the length in its shortest form.
    if size < 126:
        return bytes((first, mask_bit | size))
    if size < 1 << 16:
        return bytes((first, mask_bit | 126)) + size.to_bytes(2, "big")
    return bytes((first, mask_bit | 127)) + size.to_bytes(8, "big")


def encode_frame(first: int, payload: bytes, key: bytes | None = None) -> bytes:
    """Return a whole frame; ``first`` is its first byte, ``key`` masks it."""
    if key is None:
        return encode_header(first, len(payload)) + payload
    return encode_header(first, len(payload), 0x80) + key + apply_mask(payload, key)


class LongFrame:
    """A frame without a mask whose payload is too long to be copied behind its header.

    Attributes:
        header: The header.
        payload: The payload, in memory that nothing changes.
        kept: The bytes of that memory up to the end of this frame. It may hold earlier frames of the same message.
    """

    __slots__ = ("header", "kept", "payload")

    def __init__(self, header: bytes, payload: memoryview, kept: int) -> None:
        self.header = header
        self.payload = payload
        self.kept = kept

    def __len__(self) -> int:
        return len(self.header) + len(self.payload)

    def __bytes__(self) -> bytes:
        return b"".join((self.header, self.payload))


def decode_text(payload: bytes) -> str:
    """Return a whole text message. Raises `BadFramePayload` if it is not UTF-8."""
    try:
        return payload.decode()
    except UnicodeDecodeError:
        # RFC 6455 §8.1.
        raise BadFramePayload from None
