"""Parse ``ws:`` and ``wss:`` URLs (RFC 6455 §3)."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass, replace
from typing import ClassVar
from urllib.parse import quote, unquote, urljoin, urlsplit

import idna

_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
# RFC 3986 §3.3 and §3.4: the characters that a path or query has unquoted; "%" is for those quoted already.
_ASCII = "".join(map(chr, range(128)))
_UNQUOTED = "/?:@!$&'()*+,;=-._~%"

MAX_SHOWN = 200
"""The most characters of an invalid URL in the text of an error."""

# Names (RFC 952, and the underscores of local networks), and IPv6 literals without a zone.
_HOST = re.compile(r"[0-9A-Za-z._-]+|[0-9A-Fa-f:.]+")

# The part after a host's last colon; within brackets it belongs to an IPv6 literal.
_PORT = re.compile(r":([^:@\]]+)$")


@dataclass(frozen=True, slots=True)
class WebSocketURL:
    """The address that a client connects to, and the resource that it requests.

    Attributes:
        scheme: ``ws`` or ``wss``.
        host: The host in ASCII; an IPv6 literal has no brackets.
        target: The path and query.
        user, password: The parts of the userinfo; empty without one.
    """

    DEFAULT_PORTS: ClassVar[dict[str, int]] = {"ws": 80, "wss": 443}

    scheme: str
    host: str
    port: int
    target: str
    user: str = ""
    password: str = ""

    @classmethod
    def parse(cls, text: str) -> WebSocketURL:
        """Parse a URL; ``http`` and ``https`` stand for ``ws`` and ``wss``. Raises ``ValueError`` with the reason.

        A fragment is refused (RFC 6455 §3); an international host name becomes its ASCII form.
        """
        shown = repr(text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "...")
        try:
            parts = urlsplit(text.strip())
            host, port = parts.hostname, _port(parts.netloc)
            ascii_host = host and ascii_name(host)
        except ValueError as error:
            raise ValueError(f"not a WebSocket URL: {shown}: {str(error)[:MAX_SHOWN]}") from None
        scheme = _SCHEMES.get(parts.scheme)
        if scheme is None:
            raise ValueError(f"not a WebSocket URL: {shown} does not begin with ws:// or wss://")
        if not ascii_host:
            raise ValueError(f"not a WebSocket URL: {shown} names no host")
        if parts.fragment:
            raise ValueError(f"not a WebSocket URL: {shown} has a fragment, which RFC 6455 §3 forbids")
        target = quote(parts.path or "/", _UNQUOTED) + ("?" + quote(parts.query, _UNQUOTED) if parts.query else "")
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        return cls(scheme, ascii_host, cls.DEFAULT_PORTS[scheme] if port is None else port, target, user, password)

    @property
    def secure(self) -> bool:
        """Whether the connection uses TLS."""
        return self.scheme == "wss"

    @property
    def host_field(self) -> str:
        """The Host field's value: the port only if it is not the default one (RFC 6455 §4.1)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == self.DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> tuple[str, str, int]:
        """The origin, which credentials must not leave (RFC 6454 §4)."""
        return self.scheme, self.host, self.port

    @property
    def authorization(self) -> str | None:
        """The userinfo as HTTP Basic credentials (RFC 7617), or None without one."""
        return basic_credentials(self.user, self.password) if self.user or self.password else None

    def join(self, location: str) -> WebSocketURL:
        """Return where a redirect leads (RFC 9110 §10.2.2); userinfo stays within the origin.

        Args:
            location: The Location field's value, each byte one character (Latin-1).

        Raises:
            ValueError: It does not lead to a WebSocket URL.
        """
        try:
            location = location.encode("latin-1").decode()
        except UnicodeError:
            # Some servers send UTF-8, as browsers expect. Other bytes are sent back unchanged.
            location = quote(location, _ASCII, "latin-1")
        base = f"{'https' if self.secure else 'http'}://{self.host_field}{self.target}"
        target = WebSocketURL.parse(urljoin(base, location).partition("#")[0])
        if not target.user and target.origin == self.origin:
            target = replace(target, user=self.user, password=self.password)
        return target


def _port(netloc: str) -> int | None:
    digits = _PORT.search(netloc)
    if digits is None:
        return None
    # Not by int() before: a peer's redirect may have thousands of digits.
    if not re.fullmatch("[0-9]{1,5}", digits[1]) or int(digits[1]) > 65535:
        raise ValueError("a port is a number from 0 to 65535")
    return int(digits[1])


def ascii_name(host: str) -> str:
    """Return the ASCII form of a host: IDNA 2008 with the mapping that browsers use (UTS #46).

    Args:
        host: A name, with or without the dot of the DNS root, or an address without brackets.

    Raises:
        ValueError: It is neither.
    """
    if not host.isascii():
        host = idna.encode(host, uts46=True).decode("ascii")
    if not _HOST.fullmatch(host):
        raise ValueError("the host has characters that none may have")
    # RFC 1035 §2.3.4
    if ":" not in host and not (
        len(host) < 255 and all(0 < len(label) < 64 for label in host.removesuffix(".").split("."))
    ):
        raise ValueError("a label of the host is empty or too long")
    return host.lower()


def basic_credentials(user: str, password: str) -> str:
    """The value of an Authorization or Proxy-Authorization field (RFC 7617 §2)."""
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode("ascii")
