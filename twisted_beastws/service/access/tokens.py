"""`TokenVerifier`: checks tokens (JWT, RFC 7519), and `TokenUser`: the user that a token names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple

from twisted_beastws.protocol import WebSocketProtocol

MAX_TOKEN = 8192
"""Characters of a token (nginx allows 8 KiB for a header field)."""

MAX_USER = 128
"""Characters of a user's name."""

MAX_LEEWAY = 300.0
"""Seconds of leeway, at most: 5 minutes (Kerberos)."""

_PART = re.compile(r"(?:[^:\\]|\\.)*")
_KINDS = ("secret", "key", "jwks")
_FIELDS = (*_KINDS, "audience", "issuer", "leeway", "name")
_FORM = "jwt:secret=FILE, jwt:key=FILE or jwt:jwks=FILE, then perhaps :audience=NAME:issuer=NAME:leeway=10:name=CLAIM"


class InvalidToken(Exception):
    """A token is not accepted; the message has the reason, and nothing of the token."""


class RoomRights(NamedTuple):
    """The rooms that a user may read, and write in: names, or beginnings of names that end with ``*``."""

    read: tuple[str, ...]
    write: tuple[str, ...]

    def may_read(self, room: str) -> bool:
        """Return whether the user gets the messages of a room."""
        return _matches(self.read, room)

    def may_write(self, room: str) -> bool:
        """Return whether the user can publish in a room."""
        return _matches(self.write, room)

    def may_join(self, room: str) -> bool:
        """Return whether the user can enter a room at all."""
        return self.may_read(room) or self.may_write(room)


class TokenUser(str):
    """The name of a user, with the claims of its token.

    Attributes:
        claims: of the token.
        expires: seconds since 1970 after which the connection is closed.
        rights: the rooms of the user.
    """

    __slots__ = ("claims", "expires", "rights")

    claims: Mapping[str, Any]
    expires: float
    rights: RoomRights


EVERY_ROOM = RoomRights(("*",), ("*",))


def rights_of(connection: WebSocketProtocol) -> RoomRights:
    """Return the rooms of a connection's user: every room, unless a token has the names of some."""
    return connection.user.rights if isinstance(connection.user, TokenUser) else EVERY_ROOM


class TokenVerifier:
    """Checks the signature and the claims of tokens.

    Args:
        description: ``secret=FILE``, ``key=FILE`` or ``jwks=FILE``, and perhaps ``audience``, ``issuer``, ``leeway``
            (seconds, 10) and ``name`` (the claim with the user's name, ``sub``), joined by colons.

    Raises:
        ValueError: the description is wrong, or its file cannot be used.
    """

    def __init__(self, description: str) -> None:
        if find_spec("jwt") is None:
            raise ValueError("tokens need an extra: pip install 'twisted_beastws[jwt]'")
        # Without this import at the top, services without tokens start sooner.
        from twisted_beastws.service.access.keys import SigningKeys

        fields = _fields_of(description)
        given = [kind for kind in _KINDS if kind in fields]
        if len(given) != 1:
            raise ValueError(f"give {_FORM}")
        try:
            self.keys = SigningKeys(given[0], fields[given[0]])
        except OSError as error:
            raise ValueError(f"{fields[given[0]]}: {error.strerror}") from None
        except ValueError as error:
            raise ValueError(f"{fields[given[0]]}: {error}") from None
        self._audience = fields.get("audience")
        self._issuer = fields.get("issuer")
        self._name = fields.get("name", "sub")
        self.leeway = _leeway(fields.get("leeway", "10"))
        fields[given[0]] = self.keys.path
        self.description = "jwt:" + ":".join(
            f"{name}={re.sub(r'([:])', lambda found: chr(92) + found[0], value)}" for name, value in fields.items()
        )

    def verify(self, token: str) -> TokenUser:
        """Return the user of a token. Raises `InvalidToken`."""
        import jwt

        if len(token) > MAX_TOKEN:
            raise InvalidToken(f"the token has more than {MAX_TOKEN} characters")
        try:
            key = self.keys.of(jwt.get_unverified_header(token).get("kid"))
            if key is None:
                raise InvalidToken("the token names no key that is known")
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm],
                audience=self._audience,
                issuer=self._issuer,
                leeway=self.leeway,
                options={"require": ["exp", self._name]},
            )
        except InvalidToken:
            raise
        except jwt.PyJWTError as error:
            raise InvalidToken(_reason(error)) from None
        # Claims can be any JSON: numbers of thousands of digits, Infinity, lists where a text is due.
        except (ValueError, TypeError, ArithmeticError, RecursionError, AttributeError):
            raise InvalidToken("the token is malformed") from None
        return self._user(claims)

    def _user(self, claims: Mapping[str, Any]) -> TokenUser:
        name = claims[self._name]
        if not isinstance(name, str) or not 1 <= len(name) <= MAX_USER or not name.isprintable():
            raise InvalidToken(f"the claim {self._name} must be a name of 1 to {MAX_USER} printable characters")
        user = TokenUser(name)
        user.claims = claims
        user.expires = float(claims["exp"]) + self.leeway
        user.rights = _rights(claims)
        return user


def _rights(claims: Mapping[str, Any]) -> RoomRights:
    both, read, write = (_rooms(claims, name) for name in ("rooms", "read", "write"))
    if both is read is write is None:
        return EVERY_ROOM
    return RoomRights((*(both or ()), *(read or ())), (*(both or ()), *(write or ())))


def _rooms(claims: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    rooms = claims.get(name)
    if rooms is None and name not in claims:
        return None
    if not isinstance(rooms, list) or not all(isinstance(room, str) for room in rooms):
        raise InvalidToken(f"the claim {name} must be a list of rooms")
    return tuple(rooms)


def _matches(patterns: tuple[str, ...], room: str) -> bool:
    return any(room.startswith(pattern[:-1]) if pattern.endswith("*") else room == pattern for pattern in patterns)


def _fields_of(description: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for part in (found for found in _PART.findall(description) if found):
        name, equals, value = part.partition("=")
        if not equals or name not in _FIELDS or name in fields:
            raise ValueError(f"give {_FORM}")
        fields[name] = re.sub(r"\\(.)", r"\1", value)
    return fields


def _leeway(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,3}(?:\.[0-9]{1,3})?", text) or float(text) > MAX_LEEWAY:
        raise ValueError(f"leeway={text}: give seconds, {MAX_LEEWAY:g} at most")
    return float(text)


def _reason(error: Exception) -> str:
    import jwt

    reasons: dict[type[Exception], str] = {
        jwt.ExpiredSignatureError: "the token has expired",
        jwt.ImmatureSignatureError: "the token is not valid yet",
        jwt.InvalidAudienceError: "the token is for another audience",
        jwt.InvalidIssuerError: "the token is of another issuer",
        jwt.InvalidAlgorithmError: "the token has another algorithm than its key",
        jwt.InvalidSignatureError: "the signature is wrong",
        jwt.MissingRequiredClaimError: f"{error}".lower(),
    }
    return reasons.get(type(error), "the token is malformed")
