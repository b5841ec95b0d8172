"""The client's address behind trusted proxies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

    from twisted_beastws.wire.http import Request

PREFIX_HEADER = b"X-Forwarded-Prefix"
"""The field in which Traefik and others send the path that they removed from a request."""

HEADERS = ("x-forwarded-for", "forwarded")

MAX_HOPS = 100
"""Addresses of a forwarding field that count, the last ones, as elements of other lists do."""

UNIX = "unix"
"""In place of a network: all connections to a UNIX socket."""


class TrustedProxies:
    """The proxies that a server trusts to forward the client's address: `WebSocketServerFactory.trust_proxies`.

    Args:
        networks: Their addresses, such as ``10.0.0.0/8`` or ``::1``; ``unix`` stands for all connections to a UNIX
            socket.
        header: The field that they set, ``x-forwarded-for`` or ``forwarded`` (RFC 7239). Only this one is read: proxies
            pass on others from clients.
        prefix: The proxies set ``X-Forwarded-Prefix``, the path that they removed from the request, which becomes the
            ``root_path`` of an ASGI application. Only set this if they replace the field of a client.

    Raises:
        ValueError: A network or the field is invalid.
    """

    def __init__(self, networks: Iterable[str], header: str = HEADERS[0], *, prefix: bool = False) -> None:
        if isinstance(networks, str):
            raise TypeError(f"TrustedProxies(networks): give a list, such as [{networks!r}]")
        if header not in HEADERS:
            raise ValueError(f"TrustedProxies(header={header!r}): give one of {', '.join(HEADERS)}")
        named = set(networks)
        self._unix = UNIX in named
        self._networks = [ip_network(network) for network in named - {UNIX}]
        self._header = header
        self._prefix = prefix

    def client_of(self, peer: IAddress, request: Request) -> IAddress:
        """Return the client's address of a request from ``peer``: the last one that is not a trusted proxy's.

        The port is 0 if the field has none. Text that is no address ends the search at the hop that sent it.
        """
        if not self.trusts(peer):
            return peer
        values = request.headers.getRawHeaders(self._header.encode("ascii"), ())
        for hop in reversed(b",".join(values).decode("latin-1").rsplit(",", MAX_HOPS)[-MAX_HOPS:]):
            found = _address(hop.strip(" \t") if self._header == "x-forwarded-for" else _for_in(hop))
            if found is None:
                break
            peer = found
            if not self.trusts(peer):
                break
        return peer

    def prefix_of(self, peer: Any, request: Request) -> str:
        """Return the path that the proxies removed from a request from ``peer``, percent-decoded; empty if none."""
        if not self._prefix or not self.trusts(peer):
            return ""
        values = request.headers.getRawHeaders(PREFIX_HEADER, ())
        # A field that comes twice may also be a client's.
        path = unquote_to_bytes(values[0].rstrip(b"/")) if len(values) == 1 else b""
        if not path.startswith(b"/") or path.startswith(b"//"):
            return ""
        try:
            prefix = path.decode("utf-8")
        except UnicodeDecodeError:
            return ""
        return prefix if prefix.isprintable() else ""

    def trusts(self, peer: Any) -> bool:
        """Return whether ``peer`` is the address of a trusted proxy."""
        if isinstance(peer, UNIXAddress):
            return self._unix
        try:
            address = _plain(ip_address(peer.host))
        except (AttributeError, ValueError):
            return False
        return any(address in network for network in self._networks)


def _for_in(element: str) -> str:
    """Return the text after ``for=`` in an element of Forwarded; empty if there is none, or more than one."""
    # RFC 7239 §4. A comma or semicolon in a quoted string makes two elements of it, of which none has an address.
    found = [value.strip() for name, _, value in _pairs(element) if name.strip().lower() == "for"]
    return found[0].strip('"') if len(found) == 1 else ""


def _pairs(element: str) -> Iterator[tuple[str, str, str]]:
    return (pair.partition("=") for pair in element.split(";"))


def _address(text: str) -> IAddress | None:
    """The address that ``text`` is, with or without a port; None for anything else, such as ``unknown``."""
    host, port = text, ""
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            return None
        port = port[1:]
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if port and not (port.isascii() and port.isdigit() and len(port) <= 5):
        return None
    try:
        address = _plain(ip_address(host))
    except ValueError:
        return None
    kind: Any = IPv4Address if address.version == 4 else IPv6Address
    return kind("TCP", str(address), int(port or 0))  # type: ignore[no-any-return]


def _plain(address: Any) -> Any:
    """Return the IPv4 address that an IPv6 address stands for, as sockets of both kinds write it."""
    return getattr(address, "ipv4_mapped", None) or address
