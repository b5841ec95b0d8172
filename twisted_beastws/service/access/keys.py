"""The keys that sign tokens: a shared secret, a public key or a set of keys (JWKS), from a file."""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from twisted.logger import Logger

MIN_SECRET = 32
"""Bytes of a secret for HS256 (RFC 7518 §3.2)."""

MIN_RSA = 2048
"""Bits of a key for RS256 (RFC 7518 §3.3)."""

MAX_FILE = 1 << 20
"""Bytes of a file of keys, 1 MiB: some 500 keys."""


class SigningKey(NamedTuple):
    """A key, and the only algorithm that it is used with.

    The algorithm follows from the key, never from the token: a token could name one for which the public key is a
    secret (RFC 8725 §3.1).
    """

    algorithm: str
    key: Any


class SigningKeys:
    """The keys of a file, which is read again when its time, size or inode changes.

    If the file cannot be read then, the last keys stay valid, and the log has the reason.

    Args:
        kind: ``secret``, a shared secret; ``key``, a public key in PEM; ``jwks``, a JSON Web Key Set (RFC 7517).
        path: the file.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file has no key that can be used.
    """

    log = Logger()

    def __init__(self, kind: str, path: str) -> None:
        self.path = os.path.abspath(path)
        self._kind = kind
        self._version = self._current_version()
        self._keys = self._read()

    @property
    def is_secret(self) -> bool:
        """Whether the file has a shared secret."""
        return self._kind == "secret"

    def of(self, key_id: Any) -> SigningKey | None:
        """Return the key that a token names. A token without a name can only mean the only key."""
        keys = self._fresh()
        if key_id is None or self._kind != "jwks":
            return next(iter(keys.values())) if len(keys) == 1 else None
        return keys.get(key_id) if isinstance(key_id, str) else None

    def _fresh(self) -> dict[str | None, SigningKey]:
        try:
            version = self._current_version()
            if version != self._version:
                self._version = version
                self._keys = self._read()
                self.log.info("{path}: read again, keys: {count}", path=self.path, count=len(self._keys))
        except (OSError, ValueError) as error:
            self.log.warn("{path}: {error}: the keys of before stay valid", path=self.path, error=error)
        return self._keys

    def _current_version(self) -> tuple[int, ...]:
        status = os.stat(self.path)
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _read(self) -> dict[str | None, SigningKey]:
        with open(self.path, "rb") as file:
            data = file.read(MAX_FILE)
        if self._kind == "secret":
            return {None: _secret(data.rstrip(b"\r\n"))}
        if self._kind == "key":
            return {None: _public(load_pem_public_key(data))}
        return _key_set(data)


def _secret(secret: bytes) -> SigningKey:
    if len(secret) < MIN_SECRET:
        raise ValueError(f"a secret needs {MIN_SECRET} bytes or more, such as from 'openssl rand -hex 32'")
    return SigningKey("HS256", secret)


def _public(key: Any) -> SigningKey:
    if isinstance(key, RSAPublicKey):
        if key.key_size < MIN_RSA:
            raise ValueError(f"an RSA key needs {MIN_RSA} bits or more")
        return SigningKey("RS256", key)
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return SigningKey("ES256", key)
    if isinstance(key, Ed25519PublicKey):
        return SigningKey("EdDSA", key)
    raise ValueError("give a public key for RS256, ES256 (P-256) or EdDSA (Ed25519)")


def _key_set(data: bytes) -> dict[str | None, SigningKey]:
    from jwt import PyJWK
    from jwt.exceptions import PyJWTError

    try:
        listed = json.loads(data)["keys"]
        entries = [entry for entry in listed if entry.get("use", "sig") == "sig"]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError('not a JSON Web Key Set, such as {"keys": [...]}') from None
    keys: dict[str | None, SigningKey] = {}
    for entry in entries:
        name = entry.get("kid")
        try:
            key = PyJWK(entry).key
            signing = _secret(key) if isinstance(key, bytes) else _public(key)
        except (PyJWTError, ValueError, NotImplementedError) as error:
            raise ValueError(f"key {name!r}: {error}") from None
        if entry.get("alg", signing.algorithm) != signing.algorithm:
            raise ValueError(f"key {name!r}: alg must be {signing.algorithm} for a key of this kind")
        if name in keys:
            raise ValueError(f"key {name!r} is there twice: each needs a kid of its own")
        keys[name] = signing
    if not keys:
        raise ValueError("there is no key for signatures")
    return keys
