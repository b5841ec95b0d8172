"""`HeadBuffer`: finds the heads of HTTP/1.1 messages (RFC 9112) in a stream of bytes."""

from __future__ import annotations

import re

from twisted_beastws.errors import BadRequest, HeadTooLarge, TargetTooLong
from twisted_beastws.wire.codec import usual_request
from twisted_beastws.wire.fields import SPELLINGS, TOKEN

UsualHead = tuple[str, dict[bytes, list[bytes]]]
"""The head of a GET request with HTTP/1.1: its target, and its fields by their names in Twisted's spelling."""

MAX_EMPTY_LINES = 10
"""The most empty lines that a server skips before a request line (RFC 9112 §2.2), as Apache httpd does."""

HEAD_END = b"\r\n\r\n"
_BAD_OCTET = re.compile(rb"\0|(?<!\r)\n")


class HeadBuffer:
    """Gathers bytes and returns whole heads. The time is linear in the bytes, however they are divided.

    Args:
        max_size: Bytes of a head, including its empty line; more raise `HeadTooLarge`.
        max_lines: Lines of a head, excluding its empty line; more raise `HeadTooLarge`.
        subject: The name of the message in the texts of errors.
        max_empty_lines: Empty lines to skip before each head; they count towards nothing else.

    Bytes after a head do not count, and `take` looks at them only when it is called again.

    Attributes:
        buffer: The bytes that were fed and not taken.
    """

    __slots__ = ("_lines", "_max_empty_lines", "_max_lines", "_max_size", "_seen", "_skipped", "_subject", "buffer")

    def __init__(self, max_size: int, max_lines: int, subject: str = "request", max_empty_lines: int = 0) -> None:
        self._max_size = max_size
        self._max_lines = max_lines
        self._max_empty_lines = max_empty_lines
        self._subject = subject
        self._skipped = 0
        self.buffer = bytearray()
        self._seen = 0
        self._lines = 0

    def feed(self, data: bytes) -> None:
        """Append bytes without reading them."""
        self.buffer += data

    def take(self) -> bytes | None:
        """Return the next head with its empty line, or None while it is incomplete.

        Raises:
            HeadTooLarge: The head exceeds a limit.
            BadRequest: The bytes can no longer become a head: the first of them cannot start a token, or there is a NUL
                or an LF without CR (RFC 9112 §2.2).
        """
        buffer, seen = self.buffer, self._seen
        if not seen and self._skipped < self._max_empty_lines and buffer.startswith(b"\r"):
            self._skip_empty_lines()
            if buffer == b"\r" and self._skipped < self._max_empty_lines:
                return None
        if len(buffer) == seen:
            return None
        end = buffer.find(HEAD_END, max(seen - 3, 0), self._max_size)
        stop = min(len(buffer), self._max_size) if end < 0 else end + 4
        lines = buffer.count(b"\n", seen, stop)
        if (
            lines != buffer.count(b"\r\n", max(seen - 1, 0), stop)
            or buffer.find(b"\0", seen, stop) >= 0
            or (seen == 0 and not TOKEN.match(buffer))
        ):
            raise self._unfit()
        lines += self._lines
        if end < 0:
            if stop == self._max_size or lines > self._max_lines:
                raise self._too_large()
            self._seen, self._lines = stop, lines
            return None
        if lines - 1 > self._max_lines:
            raise self._too_large()
        head = bytes(buffer[:stop])
        del buffer[:stop]
        self._seen = self._lines = self._skipped = 0
        return head

    def take_usual(self) -> UsualHead | None:
        """Take the next request if the compiled codec can read it at once; else take nothing, and return None."""
        if self._seen or usual_request is None:
            return None
        usual = usual_request(self.buffer, self._max_size, self._max_lines, SPELLINGS)
        if usual is None:
            return None
        target, fields, size = usual
        del self.buffer[:size]
        self._skipped = 0
        return target, fields

    def _skip_empty_lines(self) -> None:
        # RFC 9112 §2.2: old clients send an empty line after a body.
        while self._skipped < self._max_empty_lines and self.buffer.startswith(b"\r\n"):
            del self.buffer[:2]
            self._skipped += 1

    def rest(self) -> bytes:
        """Remove and return the remaining bytes."""
        if not self.buffer:
            return b""
        rest = bytes(self.buffer)
        self.buffer.clear()
        self._seen = self._lines = self._skipped = 0
        return rest

    def _too_large(self) -> HeadTooLarge:
        if self._subject == "request" and self.buffer.find(b"\r\n", 0, self._max_size) < 0:
            # RFC 9112 §3: a target that is too long has a status of its own.
            return TargetTooLong()
        return HeadTooLarge(f"The {self._subject}'s head is too large")

    def _unfit(self) -> HeadTooLarge | BadRequest:
        # The first fault decides, so that the result does not depend on how the bytes were divided into chunks.
        fault = _BAD_OCTET.search(self.buffer)
        if fault and TOKEN.match(self.buffer) and self.buffer.count(b"\n", 0, fault.start()) > self._max_lines:
            return self._too_large()
        return BadRequest(f"The {self._subject} is not valid HTTP")
