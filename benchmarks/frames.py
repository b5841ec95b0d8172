"""The frames that the benchmarks' clients need: they build masked frames, and read messages."""

from __future__ import annotations

import re
import socket
import zlib
from base64 import b64encode
from hashlib import sha1

TEXT, BINARY = 1, 2
FIN, RSV1 = 0x80, 0x40
KEY = b"\x1c\xa5\x36\xdb"
CLOSE = b"\x88\x82" + KEY + bytes(byte ^ mask for byte, mask in zip((1000).to_bytes(2, "big"), KEY, strict=False))

OFFER = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"


def mask(payload: bytes, key: bytes = KEY) -> bytes:
    """Mask or unmask a payload (RFC 6455 §5.3)."""
    size = len(payload)
    key = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def frame(opcode: int, payload: bytes, compressed: bool = False, masked: bool = True) -> bytes:
    """Return a whole message in one frame."""
    if compressed:
        payload = deflate(payload)
    first = FIN | opcode | (RSV1 if compressed else 0)
    size = len(payload)
    bit = 0x80 if masked else 0
    if size < 126:
        header = bytes((first, bit | size))
    elif size < 1 << 16:
        header = bytes((first, bit | 126)) + size.to_bytes(2, "big")
    else:
        header = bytes((first, bit | 127)) + size.to_bytes(8, "big")
    return header + KEY + mask(payload) if masked else header + payload


def deflate(payload: bytes) -> bytes:
    """Compress a message without context takeover (RFC 7692 §7.2.1)."""
    codec = zlib.compressobj(wbits=-15)
    return (codec.compress(payload) + codec.flush(zlib.Z_SYNC_FLUSH))[:-4]


def answer(head: bytes) -> bytes:
    """Return a server's answer to a handshake request (RFC 6455 §4.2.2)."""
    (key,) = re.findall(rb"(?im)^sec-websocket-key: *(\S+)", head)
    accept = b64encode(sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    lines = (
        b"HTTP/1.1 101 Switching Protocols",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: " + accept,
    )
    return b"\r\n".join((*lines, b"", b""))


def read_message(connection: socket.socket) -> tuple[bytes, int]:
    """Read a whole message from a blocking socket; return its inflated payload, and its size on the wire."""
    payload, taken, compressed = b"", 0, False
    while True:
        first, second = _read(connection, 2)
        compressed |= bool(first & RSV1)
        header = 2
        size = second & 0x7F
        if size > 125:
            extended = 2 if size == 126 else 8
            size = int.from_bytes(_read(connection, extended), "big")
            header += extended
        # Servers send unmasked frames, except the bare protocol, which sends our masked frames back.
        key = _read(connection, 4) if second & 0x80 else b""
        header += len(key)
        part = _read(connection, size)
        payload += mask(part, key) if key else part
        taken += header + size
        if first & FIN:
            break
    if compressed:
        payload = zlib.decompressobj(wbits=-15).decompress(payload + b"\0\0\xff\xff")
    return payload, taken


def _read(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionError(f"the server ended the connection: {size} bytes expected, {len(data)} received")
        data += part
    return bytes(data)
