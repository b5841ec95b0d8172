"""`TokenFile`: the secrets of the programs that may use the API."""

from __future__ import annotations

import os
import re
from hashlib import sha256

from twisted.logger import Logger

MIN_LENGTH = 16
"""Characters of a token, at least: 64 random bits in hexadecimal (OWASP's minimum for session identifiers)."""

MAX_TOKENS = 1000
"""Tokens in a file. A request is compared with one hash, so this only bounds memory."""

# RFC 6750 §2.1: the characters of a Bearer token.
_TOKEN = re.compile(rb"[A-Za-z0-9\-._~+/]+=*")
_BEARER = re.compile(rb"bearer +([^ ]+) *", re.IGNORECASE)


class TokenFile:
    """A file with a token on each line. Lines that begin with ``#`` are comments.

    The file is read again when its time, size or inode changes. If it cannot be read then, the last tokens stay valid,
    and the log has the reason.

    Args:
        path: the file.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file has no token, or an invalid one; the message does not contain it.
    """

    log = Logger()

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self._version = self._current_version()
        self._hashes = self._read()

    def accepts(self, authorization: bytes) -> bool:
        """Return whether an Authorization field has one of the tokens."""
        match = _BEARER.fullmatch(authorization)
        # Looking up a hash takes no time that depends on the number of matching characters.
        return match is not None and sha256(match[1]).digest() in self._fresh()

    def _fresh(self) -> frozenset[bytes]:
        try:
            version = self._current_version()
            if version != self._version:
                self._version = version
                self._hashes = self._read()
                self.log.info("{path}: read again, tokens: {count}", path=self.path, count=len(self._hashes))
        except (OSError, ValueError) as error:
            self.log.warn("{path}: {error}: the tokens of before stay valid", path=self.path, error=error)
        return self._hashes

    def _current_version(self) -> tuple[int, ...]:
        status = os.stat(self.path)
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _read(self) -> frozenset[bytes]:
        with open(self.path, "rb") as file:
            lines = file.read(MAX_TOKENS * 1024).splitlines()
        hashes = set()
        for number, line in enumerate(lines, 1):
            token = line.strip()
            if not token or token.startswith(b"#"):
                continue
            if len(token) < MIN_LENGTH or not _TOKEN.fullmatch(token):
                raise ValueError(f"line {number}: give {MIN_LENGTH} or more letters, digits and -._~+/, then perhaps =")
            hashes.add(sha256(token).digest())
        if not hashes or len(hashes) > MAX_TOKENS:
            raise ValueError(f"give 1 to {MAX_TOKENS} tokens, each on a line of its own")
        return frozenset(hashes)
