"""Origins of web pages (RFC 6454): the valid ones, and the ones that the server accepts."""

from __future__ import annotations

import re
import socket
from functools import lru_cache
from ipaddress import IPv6Address
from typing import NamedTuple, Protocol

from twisted_beastws.errors import OriginRefused
from twisted_beastws.wire.fields import raw_fields
from twisted_beastws.wire.http import Request

NULL, FILE = "null", "file://"
"""The origin of sandboxed pages, which any page of the web can make, and that of files."""

MAX_PORT = 65535

_HOST_NAME = r"\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~!$&'()*+,;=%]"
# RFC 9110 §7.2: uri-host [ ":" port ], and both may be empty. Five digits hold every port.
_HOST = re.compile(rf"({_HOST_NAME}*)(?::([0-9]{{0,5}}))?")
# RFC 6454 §6.2: scheme "://" host [ ":" port ], and nothing else.
_ORIGIN = re.compile(rf"([A-Za-z][A-Za-z0-9+.\-]*)://({_HOST_NAME}+)(?::([0-9]{{1,5}}))?")
# A URL, or a part of one, that a caller may take for an origin: scheme, userinfo, host, port, and the rest.
_LIKE_AN_ORIGIN = re.compile(
    r"(?:([a-z][a-z0-9+.\-]*):/+(?!/)|(?![a-z][a-z0-9+.\-]*:/))(?:[^/?#@]*@)?"
    r"(\[[^/?#\]]*\]|[^/?#:\[\]\s]*)(?::([0-9]*))?(?:[/?#].*)?"
)
# A host as a browser writes it in an origin: names in ASCII and lower case, with one dot at most after them.
_NAME = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?")
_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?")
_DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}
_PAGES_SCHEMES = {"ws": "http", "wss": "https"}
_UNPRINTABLE = re.compile(r"[^ -~]|[<>&\"'\\]")
_SHOWN = 200


class AllowedOrigins(Protocol):
    """The options that `check_origin` reads: `Origins`."""

    @property
    def allowed(self) -> tuple[str, ...]: ...

    @property
    def same_site(self) -> bool: ...

    @property
    def allow_any_origin_dangerously(self) -> bool: ...

    @property
    def allow_null_origin_dangerously(self) -> bool: ...

    @property
    def allow_file_origin_dangerously(self) -> bool: ...


class Origin(NamedTuple):
    """Scheme and host in lower case; the port is the scheme's own where none is written, or None."""

    scheme: str
    host: str
    port: int | None


def is_host(text: str) -> bool:
    """Return whether ``text`` is a valid value of the Host field."""
    match = _HOST.fullmatch(text)
    return match is not None and int(match[2] or 0) <= MAX_PORT


def check_allowed(value: object) -> None:
    """Raise unless a page can have the origin ``value``.

    Raises:
        TypeError: It is not a ``str``.
        ValueError: No page can have it; the text names the form to write instead.
    """
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not an origin: give str, such as 'https://example.com'")
    if value == "*":
        raise ValueError(f"'*' is no origin; {_lets_in('any')} every page of the web")
    if value.lower() == NULL:
        raise ValueError(f"{value!r} can be any page's; {_lets_in('null')} them all")
    if value.lower().startswith("file:"):
        raise ValueError(f"{value!r} can be any file's; {_lets_in('file')} them all")
    written = _written(value)
    if written != value.lower():
        advice = "write it as https://host or https://host:port" if written is None else f"write {written!r}"
        raise ValueError(f"{value!r} is the origin of no page: {_trouble(value, written)}; {advice}")


def _lets_in(kind: str) -> str:
    # A program's setting, and twistd beastws'.
    return f"Origins(allow_{kind}_origin_dangerously=True) or --allow-{kind}-origin-dangerously lets in"


def _written(text: str) -> str | None:
    """Return the origin that ``text`` probably means, as a browser writes it; None if there is none."""
    match = _taken_apart(text)
    if match is None:
        return None
    scheme, host = match[1] or "https", _host_written(match[2])
    if host is None or len(match[3] or "") > 5 or not 0 <= int(match[3] or 0) <= MAX_PORT:
        return None
    port = f":{match[3]}" if match[3] and int(match[3]) else ""
    return f"{_PAGES_SCHEMES.get(scheme, scheme)}://{host}{port}"


def _taken_apart(text: str) -> re.Match[str] | None:
    return _LIKE_AN_ORIGIN.fullmatch(text.strip().replace("\\", "/").lower())


def _host_written(host: str) -> str | None:
    if host.startswith("["):
        return _ipv6_written(host[1:-1])
    # Convert to ASCII first, because the ASCII form can be a number: "\u00b9" becomes "1".
    if not host.isascii():
        host = _ascii_name(host) or ""
    if _NUMBER.fullmatch(host):
        # Browsers convert 127.1 and 0x7f.1 to a normal address.
        try:
            return socket.inet_ntoa(socket.inet_aton(host.rstrip(".")))
        except (OSError, ValueError):
            return None
    return host if _NAME.fullmatch(host) else None


def _ipv6_written(text: str) -> str | None:
    try:
        address = IPv6Address(text)
    except ValueError:
        return None
    if address.scope_id is not None:
        return None
    if address.ipv4_mapped is not None:
        # Python writes it with dots, from 3.13 on.
        packed = address.packed
        return f"[::ffff:{int.from_bytes(packed[12:14], 'big'):x}:{int.from_bytes(packed[14:], 'big'):x}]"
    return f"[{address.compressed}]"


def _ascii_name(host: str) -> str | None:
    try:
        import idna
    except ImportError:
        # idna is installed with TLS. Without it, the advice is less exact.
        return None
    try:
        return idna.encode(host, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        return None


def _trouble(value: str, written: str | None) -> str:
    """Return the fault of a value that is not as browsers write origins."""
    match = _taken_apart(value)
    if match is None:
        return "it has characters that an origin never has"
    scheme, host, port = match.groups()
    if scheme is None:
        return "it has no scheme"
    if "*" in host:
        return "patterns are not matched, so name each site"
    if scheme in _PAGES_SCHEMES:
        return f"pages come by {_PAGES_SCHEMES[scheme]}:"
    if not host.isascii():
        return "browsers send a host's name in ASCII"
    if _host_written(host) is None:
        return "it has no valid host"
    if port is not None and (len(port) > 5 or not 0 < int(port or 0) <= MAX_PORT):
        return f"a port is a number from 1 to {MAX_PORT}"
    if written is not None and _host_written(host) != host:
        return "browsers write this address in another way"
    return "an origin has a scheme, a host and perhaps a port, and nothing else"


_IN_CLEAR = frozenset(("http", "ws"))


def _parse(text: str) -> Origin | None:
    match = _ORIGIN.fullmatch(text)
    if match is None:
        return None
    scheme, host, port = match.groups()
    scheme = scheme.lower()
    return Origin(scheme, host.lower(), int(port) if port else _DEFAULT_PORTS.get(scheme))


@lru_cache(maxsize=64)
def _parse_allowed(allowed: tuple[str, ...]) -> frozenset[Origin | None]:
    return frozenset(map(_parse, allowed))


def check_origin(request: Request, origins: AllowedOrigins, *, over_tls: bool = False) -> None:
    """Check the page that made a request (RFC 6455 §10.2).

    A page of this site is one of http, https, ws or wss whose host and port are those of the request's Host; a port
    that is not written is the default of the origin's scheme. If the connection is TLS, so must be the page's:
    an attacker on the way can write a page that is sent in clear.

    Args:
        request: The request.
        origins: The pages to accept.
        over_tls: The connection is TLS that ends here. Without it, TLS may end in a proxy.

    Raises:
        OriginRefused: The page is not allowed.
    """
    values = raw_fields(request.headers).get(b"Origin")
    if not values or origins.allow_any_origin_dangerously:
        return
    origin = values[0].decode("latin-1")
    if (origin == NULL and origins.allow_null_origin_dangerously) or (
        origin == FILE and origins.allow_file_origin_dangerously
    ):
        return
    parsed, host = _parse(origin), request.authority or request.field("Host")
    if parsed is not None:
        if origins.same_site and _is_same_site(parsed, host) and not (over_tls and parsed.scheme in _IN_CLEAR):
            return
        if parsed in _parse_allowed(tuple(origins.allowed)):
            return
    missed = (
        f"this site (Host: {shown(host or '')}{', over TLS' if over_tls else ''})"
        if origins.same_site
        else "an allowed one"
    )
    raise OriginRefused(f"The Origin {shown(origin)} is not {missed}{_advice(origin, parsed)}")


def _advice(origin: str, parsed: Origin | None) -> str:
    """Return the settings that let in pages of ``origin``: of a program, twistd beastws and an endpoint string."""
    if origin == NULL:
        return f"; {_lets_in('null')} all pages that send it"
    if origin == FILE:
        return f"; {_lets_in('file')} all pages that send it"
    if parsed is None or _written(origin) != origin.lower():
        # No browser sends this, and it cannot be allowed.
        return ""
    return "; allow it with Origins(allowed=...), --origin or origins="


def _is_same_site(origin: Origin, host: str | None) -> bool:
    default = _DEFAULT_PORTS.get(origin.scheme)
    match = _HOST.fullmatch(host) if host else None
    if default is None or match is None:
        return False
    name, port = match.groups()
    return name.lower() == origin.host and (int(port) if port else default) == origin.port


def shown(text: str) -> str:
    """Return the peer's text, made harmless for a log, a terminal, and a browser that takes the body for HTML."""
    return _UNPRINTABLE.sub(lambda match: f"\\x{ord(match[0]):02x}", text[:_SHOWN])[:_SHOWN]
