"""Frames as bytes (RFC 6455 §5.2), built without the package's own code."""

from __future__ import annotations

UNCHANGED = bytes(4)
"""A masking key that leaves a payload as it is."""


def _length(size: int, mask: int) -> bytes:
    if size < 126:
        return bytes((mask | size,))
    if size < 1 << 16:
        return bytes((mask | 126,)) + size.to_bytes(2, "big")
    return bytes((mask | 127,)) + size.to_bytes(8, "big")


def masked(first: int, payload: bytes = b"", key: bytes = UNCHANGED) -> bytes:
    """Return a client's frame; ``first`` is its first byte: FIN, the reserved bits and the opcode."""
    size = len(payload)
    if key != UNCHANGED:
        stream = (key * (size // 4 + 1))[:size]
        payload = (int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")).to_bytes(size, "big")
    return bytes((first,)) + _length(size, 0x80) + key + payload


def unmasked(first: int, payload: bytes = b"") -> bytes:
    """Return a server's frame; ``first`` is its first byte."""
    return bytes((first,)) + _length(len(payload), 0) + payload


def close(code: int, reason: str = "") -> bytes:
    """Return a server's close frame."""
    return unmasked(0x88, code.to_bytes(2, "big") + reason.encode())


def chunks(data: bytes, size: int) -> list[bytes]:
    """Return ``data`` cut into pieces of ``size`` bytes; the last one may be shorter."""
    return [data[at : at + size] for at in range(0, len(data), size)]
