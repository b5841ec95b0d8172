"""The opening handshake: requests and responses with the sample key of RFC 6455 §1.3, and responses to other keys."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha1

SAMPLE_KEY = "dGhlIHNhbXBsZSBub25jZQ=="
SAMPLE_ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

UPGRADE_HEADERS = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": SAMPLE_KEY,
    "Sec-WebSocket-Version": "13",
}
"""The fields of an upgrade request, except for ``Host``."""

UPGRADE_FIELDS = "".join(f"{name}: {value}\r\n" for name, value in UPGRADE_HEADERS.items()).encode()


def upgrade_request(target: str = "/chat", *fields: str, host: str = "localhost") -> bytes:
    """Return a client's request (RFC 6455 §4.2.1); ``fields`` are further lines."""
    more = "".join(f"{line}\r\n" for line in fields)
    return f"GET {target} HTTP/1.1\r\nHost: {host}\r\n".encode() + UPGRADE_FIELDS + f"{more}\r\n".encode()


def field(head: bytes, name: bytes) -> bytes | None:
    """Return the value of a field in the head of a message, or None; a repeated field fails the test."""
    values = [line.partition(b": ")[2] for line in head.split(b"\r\n") if line.startswith(name + b": ")]
    assert len(values) <= 1
    return values[0] if values else None


def switching(head: bytes, *fields: bytes) -> bytes:
    """Return the response that accepts a request (RFC 6455 §4.2.2); ``fields`` are further lines."""
    key = field(head, b"Sec-WebSocket-Key")
    assert key is not None
    accept = b64encode(sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    lines = (b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade", *fields)
    return b"\r\n".join((*lines, b"Sec-WebSocket-Accept: " + accept, b"", b""))
