"""Names of peers and protocols in the form that Twisted uses."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import ILoggingContext


def log_prefix(protocol: object) -> str:
    """Return the name of a protocol in the log."""
    if ILoggingContext.providedBy(protocol):
        prefix: str = protocol.logPrefix()
        return prefix
    return type(protocol).__name__


def ip_address(name: tuple[Any, ...]) -> IPv4Address | IPv6Address:
    """Convert an address of the socket module to Twisted's."""
    if len(name) == 2:
        return IPv4Address("TCP", *name)
    if name[3]:
        # The scope is part of a link-local address.
        host, _ = socket.getnameinfo(name, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
        name = (host, *name[1:])
    return IPv6Address("TCP", *name)
