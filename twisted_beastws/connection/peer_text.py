"""The address of a peer, as log lines show it."""

from __future__ import annotations

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
