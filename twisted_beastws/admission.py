"""Who may come in: a server's limits of connections and of requests, in all and from one address."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from ipaddress import IPv6Address, IPv6Network
from math import ceil
from typing import TYPE_CHECKING

from twisted_beastws.errors import TooManyConnections, TooManyRequests
from twisted_beastws.wire.rate import Bucket

if TYPE_CHECKING:
    from twisted_beastws.options import Limits
    from twisted_beastws.protocol import WebSocketProtocol

LEAST_SWEPT = 1000
"""Addresses whose rates are remembered before the first look for those that can be forgotten."""

FROM_ADDRESS = "from this address; try again later"


class Admission:
    """Counts a server's connections by address, and the requests of the last second.

    now: the time in seconds. refusals: of each of `Limits`, by its name, how often somebody met it.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.refusals: Counter[str] = Counter()
        self._now = now
        self._peers: Counter[str] = Counter()
        self._peer_of: dict[WebSocketProtocol, str] = {}
        # In the order in which they came.
        self._opening: dict[WebSocketProtocol, None] = {}
        self._requests: Bucket | None = None
        self._requests_of: dict[str, Bucket] = {}
        self._sweep_at = LEAST_SWEPT

    def arrive(self, protocol: WebSocketProtocol, limits: Limits) -> None:
        """A connection is made; beyond ``max_opening`` the one that has been opening for longest is dropped."""
        most = limits.max_opening
        if most is None:
            return
        while len(self._opening) >= most:
            oldest = next(iter(self._opening))
            del self._opening[oldest]
            self.refusals["max_opening"] += 1
            oldest.abort()
        self._opening[protocol] = None

    def count_request(self, protocol: WebSocketProtocol, limits: Limits) -> None:
        """A request's head is complete; raises `TooManyRequests` (429) or `TooManyConnections` (503) if too many are.

        Those that are refused count nowhere: who asks too often is let in at the rate that is allowed.
        """
        per_peer, in_all = limits.max_handshakes_per_peer, limits.max_handshakes
        if per_peer is not None and (peer := _peer(protocol)):
            wait = self._bucket_of(peer, per_peer).take(1, self._now())
            if wait:
                self.refusals["max_handshakes_per_peer"] += 1
                raise TooManyRequests(f"There are too many requests {FROM_ADDRESS}", retry_after=ceil(wait))
        if in_all is not None:
            if self._requests is None:
                self._requests = Bucket(in_all)
            wait = self._requests.take(1, self._now())
            if wait:
                self.refusals["max_handshakes"] += 1
                raise TooManyConnections("The server has too many requests; try again later", retry_after=ceil(wait))

    def _bucket_of(self, peer: str, rate: float) -> Bucket:
        bucket = self._requests_of.get(peer)
        if bucket is None:
            if len(self._requests_of) >= self._sweep_at:
                now = self._now()
                self._requests_of = {peer: known for peer, known in self._requests_of.items() if not known.full(now)}
                self._sweep_at = max(LEAST_SWEPT, 2 * len(self._requests_of))
            bucket = self._requests_of[peer] = Bucket(rate)
        return bucket

    def admit(self, protocol: WebSocketProtocol, limits: Limits) -> None:
        """A connection is about to open; raises `TooManyConnections` (503) beyond the limits."""
        in_all, per_peer = limits.max_connections, limits.max_connections_per_peer
        if in_all is not None or per_peer is not None:
            peer = "" if per_peer is None else _peer(protocol)
            if in_all is not None and len(self._peer_of) >= in_all:
                self.refusals["max_connections"] += 1
                raise TooManyConnections
            # Those of a UNIX socket have no address, and may be anybody.
            if peer and per_peer is not None and self._peers[peer] >= per_peer:
                self.refusals["max_connections_per_peer"] += 1
                raise TooManyConnections(f"The server has too many connections {FROM_ADDRESS}")
            self._peer_of[protocol] = peer
            self._peers[peer] += 1
        self._opening.pop(protocol, None)

    def dismiss(self, protocol: WebSocketProtocol, limits: Limits) -> None:
        """A connection did not open, and may try again."""
        self._release(protocol)
        if limits.max_opening is not None:
            self._opening[protocol] = None

    def forget(self, protocol: WebSocketProtocol) -> None:
        """A connection is gone."""
        self._release(protocol)
        self._opening.pop(protocol, None)

    def _release(self, protocol: WebSocketProtocol) -> None:
        peer = self._peer_of.pop(protocol, None)
        if peer is not None:
            self._peers[peer] -= 1
            if not self._peers[peer]:
                del self._peers[peer]


def _peer(protocol: WebSocketProtocol) -> str:
    return peer_of(getattr(protocol.peer, "host", None) or "")


def peer_of(host: str) -> str:
    """What counts as one peer: an IPv4 address, or the 64 bits of an IPv6 address that a network has to itself."""
    host = plain_host(host.partition("%")[0])
    try:
        # RFC 7421: whoever has one address of a subnet may have all of them.
        return str(IPv6Network((host, 64), strict=False)) if ":" in host else host
    except ValueError:
        # Whatever a PROXY header said.
        return host


def plain_host(host: str) -> str:
    """An IPv6 address in its one short spelling, or as the IPv4 address that it stands for; all else as it is."""
    if ":" not in host:
        return host
    try:
        address = IPv6Address(host)
    except ValueError:
        return host
    # RFC 4291 §2.5.5.2: an IPv4 address on a socket of both kinds.
    return str(address.ipv4_mapped or address)
