"""The address of a peer: from its transport, and as log lines show it."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress

MAX_SHOWN = 100
"""The most characters of an address in a log line: a peer chooses the path of its UNIX socket."""


def peer_text(address: IAddress | None) -> str:
    """Return ``host:port``, ``[host]:port`` for IPv6, or how another kind of address describes itself.

    The text is one line of printable ASCII of at most `MAX_SHOWN` characters: a host from the PROXY protocol or a
    ``Forwarded`` field is the client's own text.
    """
    if address is None:
        return "a peer without an address"
    if isinstance(address, IPv4Address):
        text = f"{address.host}:{address.port}"
    elif isinstance(address, IPv6Address):
        text = f"[{address.host}]:{address.port}"
    else:
        text = str(address)
    return ascii(text)[1:-1][:MAX_SHOWN]


def address_of(transport: Any) -> IAddress | None:
    """Return the address of the peer according to the transport; None without a transport, or if it has none."""
    try:
        return None if transport is None else cast("IAddress", transport.getPeer())
    except Exception:
        # A process transport has no such method, and that of an SSH channel in memory fails.
        return None
