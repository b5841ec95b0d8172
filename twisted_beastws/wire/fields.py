"""The fields of an HTTP message (RFC 9110 §5): their names, their values, and lists in them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any

from twisted.web.http_headers import Headers as TwistedHeaders

from twisted_beastws.wire.codec import joined_fields

MAX_LIST = 100
"""The most elements read from a comma-separated field, as many as Apache httpd accepts fields in a request."""

# RFC 9110 §5.6.2: token.
TCHAR = rb"!#$%&'*+\-.^_`|~0-9A-Za-z"
TOKEN = re.compile(rb"[" + TCHAR + rb"]+")
_NOT_IN_A_FIELD = re.compile(rb"[\r\n\0]")


def _twisted_name(name: bytes) -> bytes:
    return next(iter(TwistedHeaders({name: [b""]}).getAllRawHeaders()))[0]


# Names that Twisted's `Headers` does not spell in Capitalised-Words.
_TWISTED_NAMES = {
    name: _twisted_name(name)
    for name in (b"Content-Md5", b"Dnt", b"Etag", b"P3p", b"Te", b"Www-Authenticate", b"X-Xss-Protection")
}
SPELLINGS = _TWISTED_NAMES | {
    name: name
    for name in (
        *(b"Accept-Encoding", b"Accept-Language", b"Cache-Control", b"Connection", b"Cookie", b"Host", b"Origin"),
        *(b"Pragma", b"Sec-Websocket-Extensions", b"Sec-Websocket-Key", b"Sec-Websocket-Version", b"Upgrade"),
        b"User-Agent",
    )
}
"""The names that Twisted spells in its own way, and those of nearly each request, whose objects all requests share."""

# Names that the RFCs and Twisted's `Headers` spell differently.
RFC_NAMES = {
    b"Expect-Ct": b"Expect-CT",
    b"Http2-Settings": b"HTTP2-Settings",
    b"Sec-Websocket-Accept": b"Sec-WebSocket-Accept",
    b"Sec-Websocket-Extensions": b"Sec-WebSocket-Extensions",
    b"Sec-Websocket-Key": b"Sec-WebSocket-Key",
    b"Sec-Websocket-Protocol": b"Sec-WebSocket-Protocol",
    b"Sec-Websocket-Version": b"Sec-WebSocket-Version",
    b"Www-Authenticate": b"WWW-Authenticate",
}


# Twisted's own cache of names keeps ten thousand of any length in memory, so a peer's names must not get there.
@lru_cache(maxsize=256)
@lru_cache(maxsize=128)
def canonical_name(name: bytes) -> bytes:
    capitalised = b"-".join([word.capitalize() for word in name.split(b"-")])
    return _TWISTED_NAMES.get(capitalised, capitalised)


class Headers(TwistedHeaders):
    """Twisted's ``Headers`` that refuse a value which Twisted's would silently change.

    A name that is not a token (RFC 9110 §5.1) and a value with CR, LF or NUL (RFC 9110 §5.5) raise ``ValueError`` when
    they are set.
    """

    __slots__ = ("_packed",)

    def pack(self) -> None:
        """Store the fields as one ``bytes`` until they are used again, which takes a fifth of the memory."""
        self._packed = joined_fields(self._rawHeaders)
        del self._rawHeaders

    def __getattr__(self, name: str) -> Any:
        # Python calls this when the attribute is missing, so fields that are not packed cost nothing.
        if name != "_rawHeaders":
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        fields: dict[bytes, list[bytes]] = {}
        for line in self._packed.split(b"\n") if self._packed else ():
            key, _, value = line.partition(b":")
            fields.setdefault(key, []).append(value)
        self._rawHeaders = fields
        self._packed = b""
        return fields

    def setRawHeaders(self, name: str | bytes, values: Sequence[str | bytes]) -> None:
        """Set all the values of a field; see Twisted's ``Headers``. Raises ``ValueError``."""
        _check_name(name)
        if not isinstance(values, (list, tuple)):
            raise TypeError(
                f"field {name!r}: give its values as a list, such as [{values!r}], not {type(values).__name__}"
            )
        for value in values:
            _check_value(name, value)
        super().setRawHeaders(name, values)

    def addRawHeader(self, name: str | bytes, value: str | bytes) -> None:
        """Add a value to a field; see Twisted's ``Headers``. Raises ``ValueError``."""
        _check_name(name)
        _check_value(name, value)
        super().addRawHeader(name, value)

    @classmethod
    def from_canonical(cls, fields: dict[bytes, list[bytes]]) -> Headers:
        """Return headers that use ``fields`` unchanged: names in Twisted's spelling, and values known to be valid."""
        # Nearly each handshake comes here, and Twisted's __init__ would make a dict in vain.
        headers = cls.__new__(cls)
        headers._rawHeaders = fields
        return headers


def _check_name(name: str | bytes) -> None:
    raw = name.encode("utf-8") if isinstance(name, str) else name
    if not TOKEN.fullmatch(raw):
        raise ValueError(f"{name!r} is not a field name: only the characters of a token may stand in it")


def _check_value(name: str | bytes, value: str | bytes) -> None:
    raw = value.encode("utf-8") if isinstance(value, str) else value
    if _NOT_IN_A_FIELD.search(raw):
        raise ValueError(f"the value of field {name!r} contains CR, LF or NUL")


def fields_given(headers: Any) -> dict[str, list[str]]:
    """Return a caller's fields, each with a list of values. A TypeError or ``ValueError`` names the argument."""
    if not isinstance(headers, Mapping):
        raise TypeError(f'headers: give a mapping such as {{"X-User": "Ada"}}, not {type(headers).__name__}')
    fields: dict[str, list[str]] = {}
    for name, value in headers.items():
        if not isinstance(name, str):
            raise TypeError(f"headers: {name!r} is no field's name: give str")
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, Sequence) or not all(isinstance(each, str) for each in values):
            raise TypeError(f"headers[{name!r}]: give str or a list of str, not {type(value).__name__}")
        try:
            Headers({name: values})
        except ValueError as error:
            raise ValueError(f"headers[{name!r}]: {error}") from None
        fields[name] = list(values)
    return fields


raw_fields: Callable[[TwistedHeaders], dict[bytes, list[bytes]]] = attrgetter("_rawHeaders")
"""Return the fields by their names in Twisted's spelling, which need no conversion."""


def list_elements(values: Sequence[bytes]) -> list[bytes]:
    """Return the first `MAX_LIST` elements of the comma-separated lists ``values`` (RFC 9110 §5.6.1)."""
    if len(values) == 1 and b"," not in values[0]:
        return [values[0].strip(b" \t")]
    found: list[bytes] = []
    for value in values:
        room = MAX_LIST - len(found)
        found += value.split(b",", room)[:room]
    return [element.strip(b" \t") for element in found]


def has_token(values: Sequence[bytes], token: bytes) -> bool:
    """Return whether the comma-separated lists ``values`` have the lower-case ``token``."""
    if len(values) == 1 and values[0].lower() == token:
        return True
    return token in [element.lower() for element in list_elements(values)]
