"""`Frame`: a WebSocket frame as it is on the wire."""

from __future__ import annotations

from typing import NamedTuple

from twisted_beastws.wire.closing import CloseCode, close_payload
from twisted_beastws.wire.frames import FIN, Opcode, apply_mask, encode_frame

# RFC 6455 §5.7: the mask of the examples.
_MASK = bytes.fromhex("37fa213d")


class Frame(NamedTuple):
    """A frame as it is on the wire (RFC 6455 §5.2), unmasked.

    Attributes:
        opcode: The opcode.
        payload: The payload.
        fin: The frame is the last of its message.
        rsv: The three reserved bits; 4 is RSV1.
    """

    opcode: int
    payload: bytes = b""
    fin: bool = True
    rsv: int = 0

    @classmethod
    def text(cls, text: str, fin: bool = True) -> Frame:
        """Return a text message, or its first frame; a further one is ``Frame(0, ...)``."""
        return cls(Opcode.TEXT, text.encode(), fin)

    @classmethod
    def binary(cls, data: bytes, fin: bool = True) -> Frame:
        """Return a binary message, or its first frame."""
        return cls(Opcode.BINARY, data, fin)

    @classmethod
    def ping(cls, payload: bytes = b"") -> Frame:
        """Return a ping."""
        return cls(Opcode.PING, payload)

    @classmethod
    def pong(cls, payload: bytes = b"") -> Frame:
        """Return a pong."""
        return cls(Opcode.PONG, payload)

    @classmethod
    def close(cls, code: int = CloseCode.NORMAL, reason: str = "") -> Frame:
        """Return a close frame; 1005 makes an empty one."""
        return cls(Opcode.CLOSE, close_payload(code, reason))

    def to_bytes(self, masked: bool) -> bytes:
        """Return the bytes of the frame. The frames of a client are ``masked``."""
        first = (FIN if self.fin else 0) | self.rsv << 4 | self.opcode
        return encode_frame(first, self.payload, _MASK if masked else None)


def take_frame(octets: bytes, masked: bool) -> tuple[Frame, bytes] | None:
    if len(octets) < 2:
        return None
    size = octets[1] & 0x7F
    start = 2 if size < 126 else 4 if size == 126 else 10
    if start > 2:
        size = int.from_bytes(octets[2:start], "big")
    key = octets[start : start + 4] if masked else None
    start += 4 if masked else 0
    if len(octets) < start + size:
        return None
    payload = octets[start : start + size]
    frame = Frame(
        Opcode(octets[0] & 0x0F),
        payload if key is None else apply_mask(payload, key),
        bool(octets[0] & FIN),
        octets[0] >> 4 & 7,
    )
    end = start + size
    if encode_frame(octets[0], frame.payload, key) != octets[:end]:
        raise AssertionError(f"not a correct frame: {octets[:end]!r}")
    return frame, octets[end:]
