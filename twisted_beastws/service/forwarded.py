"""The client's address where proxies that are trusted stand before the service."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

    from twisted_beastws.wire.http import Request

HEADERS = ("x-forwarded-for", "forwarded")

MAX_HOPS = 100
"""Addresses of a forwarding field that count, the last ones, as elements of other lists do."""

UNIX = "unix"
"""In place of a network: whoever comes by a UNIX socket."""


class TrustedProxies:
    """Who is believed when it says for whom it asks.

    networks: such as ``10.0.0.0/8`` or ``::1``, and `UNIX`; raises ``ValueError`` for what is none. header: the field,
    one of `HEADERS`, that they set. Another they may pass on as the client sent it, and so it is never read.
    """

    def __init__(self, networks: Iterable[str], header: str) -> None:
        named = set(networks)
        self._unix = UNIX in named
        self._networks = [ip_network(network) for network in named - {UNIX}]
        self._header = header

    def client_of(self, peer: IAddress, request: Request) -> IAddress:
        """Who made a request that came from ``peer``: the last address before those that are trusted.

        Its port is 0 where nobody says it. What is no address ends the search: it was the one before it that said so.
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
    """What an element of Forwarded says after ``for=``; empty for nothing, or more than one."""
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
    """An IPv4 address that is written as an IPv6 one, as sockets of both kinds do, as what it is."""
    return getattr(address, "ipv4_mapped", None) or address
