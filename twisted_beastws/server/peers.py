"""Peers: the addresses that count as one client, and the client with the most connections."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network
from typing import Any, Generic, NamedTuple, TypeVar

from twisted.internet.address import UNIXAddress

NETWORK_FACTOR = 4
"""An IPv6 network of 48 bits may have four times what one of 64 bits may.

RFC 6177 §2: a site gets a network of 48 to 64 bits. So a large site has room, and made-up addresses are limited.
"""


class Peer(NamedTuple):
    """One client, as far as its address identifies it.

    Attributes:
        name: An IPv4 address, or an IPv6 network of 64 bits; empty for a connection without an address.
        network: An IPv4 address, or an IPv6 network of 48 bits.
    """

    name: str
    network: str

    @property
    def shares_network(self) -> bool:
        """Other peers may be in the same network."""
        return self.network != self.name


UNKNOWN = Peer("", "")
"""A connection in memory, or one of a proxy that has not forwarded an address yet."""

LOCAL = Peer("unix", "unix")
"""All programs on UNIX sockets that forward no address."""


@lru_cache(maxsize=1024)
def peer_of(host: str) -> Peer:
    """Return the peer that ``host`` is part of."""
    host = plain_host(host.partition("%")[0])
    if ":" not in host:
        return Peer(host, host)
    try:
        # RFC 7421 §1: a subnet is a /64, and a client may have all of it. RFC 6177 §2: a site may have 65536 subnets.
        return Peer(*(str(IPv6Network((host, bits), strict=False)) for bits in (64, 48)))
    except ValueError:
        return Peer(host, host)


def plain_host(host: str) -> str:
    """Return the short form of an IPv6 address, or the IPv4 address in it; other text unchanged."""
    if ":" not in host:
        return host
    try:
        address = IPv6Address(host)
    except ValueError:
        return host
    # RFC 4291 §2.5.5.2: an IPv4 address on a socket of both kinds.
    return str(address.ipv4_mapped or address)


class Tally:
    """Counts by name, and knows the name with the highest count without a search."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        # Names are in the order in which they reached the count.
        self._names: dict[int, dict[str, None]] = {}
        self._highest = 0

    def __getitem__(self, name: str) -> int:
        return self._counts.get(name, 0)

    def __len__(self) -> int:
        return len(self._counts)

    def add(self, name: str) -> None:
        """Count one more."""
        self._move(name, self[name], self[name] + 1)
        self._highest = max(self._highest, self[name])

    def remove(self, name: str) -> None:
        """Count one less."""
        self._move(name, self[name], self[name] - 1)
        while self._highest and self._highest not in self._names:
            self._highest -= 1

    def highest(self) -> str:
        """Return the name with the highest count; of several, the one that has had that count for the longest time."""
        return next(iter(self._names[self._highest]))

    def _move(self, name: str, before: int, after: int) -> None:
        if before:
            names = self._names[before]
            del names[name]
            if not names:
                del self._names[before]
        if after:
            self._counts[name] = after
            self._names.setdefault(after, {})[name] = None
        else:
            del self._counts[name]


T = TypeVar("T")


class Crowd(Generic[T]):
    """Connections by peer, in the order of their arrival, and the connection to drop for a new one."""

    def __init__(self) -> None:
        self._peer_of: dict[T, Peer] = {}
        # Each connection with the time of its arrival.
        self._connections: dict[str, dict[T, float]] = {}
        self._networks = Tally()
        self._peers: dict[str, Tally] = {}

    def __len__(self) -> int:
        return len(self._peer_of)

    def add(self, connection: T, peer: Peer, now: float = 0.0) -> None:
        """Count a connection of a peer that arrives now."""
        self._peer_of[connection] = peer
        self._connections.setdefault(peer.name, {})[connection] = now
        self._networks.add(peer.network)
        self._peers.setdefault(peer.network, Tally()).add(peer.name)

    def arrived_at(self, connection: T) -> float:
        """Return the time when a connection arrived."""
        return self._connections[self._peer_of[connection].name][connection]

    def discard(self, connection: T) -> Peer | None:
        """Stop counting a connection. Return its peer, or None if it was not counted."""
        peer = self._peer_of.pop(connection, None)
        if peer is None:
            return None
        self._networks.remove(peer.network)
        peers = self._peers[peer.network]
        peers.remove(peer.name)
        if not peers:
            del self._peers[peer.network]
        connections = self._connections[peer.name]
        del connections[connection]
        if not connections:
            del self._connections[peer.name]
        return peer

    def has_room(self, peer: Peer, limit: int) -> bool:
        """Return whether both the peer and its network are below their limits."""
        if not peer.name:
            return True
        in_network = self._networks[peer.network] < NETWORK_FACTOR * limit
        return in_network and len(self._connections.get(peer.name, ())) < limit

    def oldest_of_crowded(self, peer: Peer, limit: int) -> T:
        """Return the connection to drop so that a peer without room gets some: its own, or one of its network."""
        name = peer.name if len(self._connections.get(peer.name, ())) >= limit else self._peers[peer.network].highest()
        return next(iter(self._connections[name]))

    def oldest_of_largest(self) -> T:
        """Return the oldest connection of the largest peer in the largest network."""
        return next(iter(self._connections[self._peers[self._networks.highest()].highest()]))


def peer_at(address: Any) -> Peer:
    """Return the peer at an ``IAddress``, or at None."""
    host = getattr(address, "host", None)
    if host:
        return peer_of(host)
    return LOCAL if isinstance(address, UNIXAddress) else UNKNOWN
