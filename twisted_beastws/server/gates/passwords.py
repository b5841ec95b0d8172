"""Files of names and passwords, and hashed passwords."""

from __future__ import annotations

import os
import re
import time
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections import OrderedDict
from collections.abc import Callable, Iterator
from hashlib import blake2b, scrypt
from hmac import compare_digest
from typing import Any, NamedTuple

from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twisted_beastws.server.gates.slow_calls import SlowCalls

LOG2_N, R, P = 14, 8, 5
"""scrypt's cost: 16 MiB, and some 0.25 s of CPU time (OWASP's Password Storage Cheat Sheet)."""

MAX_MEMORY = 1 << 28
"""Bytes that a hash may cost, 256 MiB: OWASP's most costly parameters take half of it."""

SALT_SIZE, HASH_SIZE = 16, 32
"""Bytes: NIST SP 800-132 asks for a salt of 16 at least."""

MAX_KNOWN = 10_000
"""Logins that were right and are not hashed again: as many as there may be connections by default."""

SETTLED = 2.0
"""Seconds since its last change after which a file is known by its time (FAT has steps of 2 s)."""

PREFIX = b"$scrypt$"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# The form in which passlib writes scrypt, too.
_HASH = re.compile(rb"\$scrypt\$ln=(\d{1,2}),r=(\d{1,3}),p=(\d{1,3})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)")


class Hash(NamedTuple):
    """A hashed password."""

    log2_n: int
    r: int
    p: int
    salt: bytes
    digest: bytes

    @classmethod
    def of(cls, password: bytes) -> Hash:
        """Hash a password with a new salt."""
        salt = os.urandom(SALT_SIZE)
        return cls(LOG2_N, R, P, salt, _scrypt(password, salt, LOG2_N, R, P, HASH_SIZE))

    @classmethod
    def parse(cls, text: bytes) -> Hash:
        """Read what `to_bytes` wrote.

        Raises:
            ValueError: it is not a hash, or costs too much.
        """
        match = _HASH.fullmatch(text)
        if match is None:
            raise ValueError("it is not of the form $scrypt$ln=14,r=8,p=5$SALT$HASH")
        log2_n, r, p = map(int, match.groups()[:3])
        if not (log2_n >= 1 and r and p) or log2_n > 24 or _memory(log2_n, r, p) > MAX_MEMORY:
            raise ValueError("its cost is 0, or more than 256 MiB")
        return cls(log2_n, r, p, _decode(match[4]), _decode(match[5]))

    def to_bytes(self) -> bytes:
        """Return the hash as it stands in a file."""
        cost = b"ln=%d,r=%d,p=%d" % self[:3]
        return PREFIX + b"$".join((cost, _encode(self.salt), _encode(self.digest)))

    def matches(self, password: bytes) -> bool:
        """Return whether this is the password's hash. It takes some 0.25 s, in which other threads run."""
        return compare_digest(self.digest, _scrypt(password, self.salt, self.log2_n, self.r, self.p, len(self.digest)))


def _scrypt(password: bytes, salt: bytes, log2_n: int, r: int, p: int, size: int) -> bytes:
    memory = _memory(log2_n, r, p) + (1 << 20)
    return scrypt(password, salt=salt, n=1 << log2_n, r=r, p=p, dklen=size, maxmem=memory)


def _memory(log2_n: int, r: int, p: int) -> int:
    # RFC 7914 §5 and §6: N blocks of scryptROMix, p blocks of scrypt, and two to work on.
    return 128 * r * ((1 << log2_n) + p + 2)


def _encode(data: bytes) -> bytes:
    return b64encode(data).rstrip(b"=")


def _decode(text: bytes) -> bytes:
    try:
        return b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except Base64Error:
        raise ValueError("its salt or hash is not base64") from None


class PasswordFile:
    """A checker of `twisted.cred` that knows a file of lines ``name:password`` or ``name:$scrypt$...``.

    A password may have colons. Lines that begin with ``#`` are comments. The file is read again when its time, size or
    inode changes.

    Args:
        filename: the file.
        slow_calls: runs the hashing.
    """

    credentialInterfaces = (IUsernamePassword,)
    log = Logger()

    def __init__(self, filename: str, slow_calls: SlowCalls) -> None:
        self.filename = filename
        self._slow_calls = slow_calls
        self._version: tuple[int, ...] | None = None
        self._data = b""
        self._stored: dict[bytes, bytes | Hash] = {}
        self._key = os.urandom(32)
        self._known: OrderedDict[bytes, None] = OrderedDict()
        # An unknown name takes as long as a known one: a hash that nothing has.
        self._decoy: Hash | None = None

    def faults(self) -> list[str]:
        """Return a line for each fault in the file as it is now."""
        try:
            with open(self.filename, "rb") as file:
                entries = _entries(file.read())
        except OSError as error:
            return [f"{self.filename}: {error.strerror}"]
        faults = []
        for number, name, password in entries:
            if not name:
                faults.append(f"{self.filename}, line {number}: it is not of the form name:password")
            elif password.startswith(PREFIX):
                try:
                    Hash.parse(password)
                except ValueError as error:
                    faults.append(f"{self.filename}, line {number}: this hash lets no one in: {error}")
        return faults

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes]:
        """See ``ICredentialsChecker``; ``credentials`` has a name and a password."""
        return Deferred.fromCoroutine(self._check(credentials.username, credentials.password))

    async def _check(self, name: bytes, password: bytes) -> bytes:
        stored = self._read().get(name, self._decoy)
        right = await self._hashed(name, stored, password) if isinstance(stored, Hash) else _equal(stored, password)
        if not right or stored is self._decoy:
            raise UnauthorizedLogin
        return name

    async def _hashed(self, name: bytes, stored: Hash, password: bytes) -> bool:
        parts = (name, stored.to_bytes(), password)
        known = blake2b(b"".join(b"%d:%s" % (len(part), part) for part in parts), key=self._key).digest()
        if known in self._known:
            self._known.move_to_end(known)
            return True
        right: bool = await self._slow_calls.call(stored.matches, password)
        if right:
            self._known[known] = None
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        return right

    def _read(self) -> dict[bytes, bytes | Hash]:
        try:
            status = os.stat(self.filename)
            version = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
            # A file that has just changed may change again within one step of the file system's clock.
            if version != self._version or abs(time.time() - status.st_mtime) < SETTLED:
                with open(self.filename, "rb") as file:
                    data = file.read()
                self._version = version
                if data != self._data:
                    self._data, self._stored = data, self._parse(data)
        except OSError as error:
            if self._version != ():
                self.log.error("cannot read the passwords in {path}: {why}", path=self.filename, why=error.strerror)
            self._version, self._data, self._stored = (), b"", {}
        return self._stored

    def _parse(self, data: bytes) -> dict[bytes, bytes | Hash]:
        stored: dict[bytes, bytes | Hash] = {}
        self._decoy = None
        for number, name, password in _entries(data):
            if not name or name in stored:
                continue
            if not password.startswith(PREFIX):
                stored[name] = password
                continue
            try:
                stored[name] = hashed = Hash.parse(password)
            except ValueError as error:
                # Not a password as it stands: that would be the hash.
                self.log.error(
                    "{path}, line {number}: this hash lets no one in: {why}",
                    path=self.filename,
                    number=number,
                    why=error,
                )
            else:
                self._decoy = self._decoy or hashed._replace(salt=os.urandom(SALT_SIZE))
        return stored


def _entries(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Return the number, name and password of each line but empty ones and comments; a malformed line has no name."""
    for number, line in enumerate(data.removeprefix(BYTE_ORDER_MARK).split(b"\n"), 1):
        if line.strip() and not line.startswith(b"#"):
            name, colon, password = line.rstrip().partition(b":")
            yield number, name if colon else b"", password


def _equal(stored: bytes | None, password: bytes) -> bool:
    # Of digests: the time to compare the passwords themselves would show the length of the right one.
    digests = [blake2b(text).digest() for text in (stored or b"", password)]
    return compare_digest(*digests) and stored is not None


def password_line(name: str, ask: Callable[[str], str]) -> str:
    """Ask for a password, twice, and return the line of a password file for it.

    Raises:
        ValueError: the name or the password cannot be used.
    """
    if not name or name.startswith("#") or ":" in name or not name.isprintable():
        raise ValueError("a name has printable characters, none of them a colon, and does not begin with #")
    password = ask(f"Password for {name}: ")
    if not password or not password.isprintable():
        raise ValueError("a password has one character or more, and only printable ones")
    if ask("Again: ") != password:
        raise ValueError("the passwords differ")
    return f"{name}:{Hash.of(password.encode()).to_bytes().decode('ascii')}"
