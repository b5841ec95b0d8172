"""Admission: the limits of a server on connections and requests, for all peers together and for one peer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

from twisted_beastws.errors import TooManyConnections, TooManyRequests
from twisted_beastws.server.peers import NETWORK_FACTOR, UNKNOWN, Crowd, Peer, peer_at
from twisted_beastws.wire.rate import Bucket

if TYPE_CHECKING:
    from twisted_beastws.options import Limits
    from twisted_beastws.protocol import WebSocketProtocol

MIN_SWEPT = 1000
"""The number of peers with a token bucket at which full buckets are removed for the first time."""

BURST = 5.0
"""Seconds in which connections of one peer that come at once are not dropped for each other, within ``max_opening``.

Behind a proxy or a NAT all clients are one peer, and all of them come back when a server starts again. On a busy
machine 1500 of them took 3 seconds from their connections to their requests.
"""

READ_TURNS = 2
"""Turns of the reactor after which it has read what new connections sent: it may be late, not the clients."""

FROM_ADDRESS = "from this address; try again later"


class Buckets:
    """Token buckets by peer, and by network of peers; `NETWORK_FACTOR` applies to the latter."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._buckets: dict[str, Bucket] = {}
        self._sweep_at = MIN_SWEPT

    def __len__(self) -> int:
        return len(self._buckets)

    def wait(self, peer: Peer, rate: float, size: float | None = None) -> float:
        """Return 0 if the peer has a token left, else the seconds until it has one."""
        now = self._now()
        return max(bucket.wait(1, now) for bucket in self._of(peer, rate, size))

    def take(self, peer: Peer, rate: float, size: float | None = None) -> float:
        """Take a token and return 0, or take none and return the seconds until there is one."""
        now = self._now()
        buckets = self._of(peer, rate, size)
        wait = max(bucket.wait(1, now) for bucket in buckets)
        if not wait:
            for bucket in buckets:
                bucket.take(1, now)
        return wait

    def put_back(self, peer: Peer) -> None:
        """Undo a `take`."""
        now = self._now()
        for name in {peer.name, peer.network}:
            if name in self._buckets:
                self._buckets[name].put_back(1, now)

    def _of(self, peer: Peer, rate: float, size: float | None) -> Sequence[Bucket]:
        own = self._bucket(peer.name, rate, size)
        if not peer.shares_network:
            return (own,)
        return own, self._bucket(peer.network, NETWORK_FACTOR * rate, None if size is None else NETWORK_FACTOR * size)

    def _bucket(self, name: str, rate: float, size: float | None) -> Bucket:
        bucket = self._buckets.get(name)
        if bucket is None:
            if len(self._buckets) >= self._sweep_at:
                now = self._now()
                self._buckets = {name: known for name, known in self._buckets.items() if not known.full(now)}
                self._sweep_at = max(MIN_SWEPT, 2 * len(self._buckets))
            bucket = self._buckets[name] = Bucket(rate, size)
        return bucket


class Admission:
    """Counts the connections of a server by peer, and the requests of the last second.

    Args:
        now: Returns the time in seconds.
        next_turn: Calls a function in the next turn of the reactor.

    Attributes:
        refusals: How often each of `Limits` was met, by its name.
        is_proxy: Returns whether a trusted proxy connects from an address. Until its connection forwards the address of
            the client, the limits for one peer do not apply to it.
    """

    def __init__(self, now: Callable[[], float], next_turn: Callable[[Callable[[], None]], object]) -> None:
        self.refusals: Counter[str] = Counter()
        self.is_proxy: Callable[[Any], bool] = lambda address: False
        self._now = now
        self._next_turn = next_turn
        # The peers that exceed their limit for a while, and the turns until they are checked.
        self._crowded: dict[str, Peer] = {}
        self._turns = 0
        self._open: Crowd[WebSocketProtocol] = Crowd()
        self._opening: Crowd[WebSocketProtocol] = Crowd()
        self._requests: Bucket | None = None
        self._requests_of = Buckets(now)

    def arrive(self, protocol: WebSocketProtocol, limits: Limits, address: Any = None) -> None:
        """Count a new connection.

        Beyond ``max_opening_per_peer`` the peer's oldest opening connection is dropped; beyond ``max_opening``, the
        oldest one of the peer with the most connections. So a client that only connects cannot keep out others. If
        both limits are set, a peer may exceed its own limit for the time of a `BURST`, and until the reactor has read
        the requests of its clients.
        """
        in_all, per_peer = limits.max_opening, limits.max_opening_per_peer
        if in_all is None and per_peer is None:
            return
        peer = UNKNOWN if self.is_proxy(address) else peer_at(address)
        if per_peer is not None and not self._opening.has_room(peer, per_peer):
            if in_all is None:
                self._make_room(peer, per_peer)
            elif peer.name not in self._crowded:
                self._crowded[peer.name] = peer
                self._await_reading(per_peer)
        while in_all is not None and len(self._opening) >= in_all:
            self._drop(self._opening.oldest_of_largest(), "max_opening")
        self._opening.add(protocol, peer, self._now())

    def _make_room(self, peer: Peer, per_peer: int, age: float = 0.0) -> None:
        """Drop the oldest opening connections of a peer, until it has room for one more."""
        while not self._opening.has_room(peer, per_peer):
            oldest = self._opening.oldest_of_crowded(peer, per_peer)
            if self._now() - self._opening.arrived_at(oldest) < age:
                return
            self._drop(oldest, "max_opening_per_peer")

    def _await_reading(self, per_peer: int) -> None:
        if self._turns:
            return
        self._turns = READ_TURNS

        def turn() -> None:
            self._turns -= 1
            if self._turns:
                self._next_turn(turn)
                return
            crowded, self._crowded = self._crowded, {}
            for peer in crowded.values():
                # The newest connection is counted already.
                self._make_room(peer, per_peer + 1, BURST)

        self._next_turn(turn)

    def identify(self, protocol: WebSocketProtocol, limits: Limits, address: Any) -> None:
        """Count an opening connection as one of the client at ``address``, which its proxy has forwarded.

        None means that the proxy has forwarded no address yet.
        """
        if self._opening.discard(protocol) is not None:
            self.arrive(protocol, limits, address)

    def _drop(self, protocol: WebSocketProtocol, limit: str) -> None:
        self._opening.discard(protocol)
        self.refusals[limit] += 1
        protocol.abort()

    def count_request(self, protocol: WebSocketProtocol, limits: Limits) -> None:
        """Count a request with a complete head.

        Refused requests do not count, so an eager client is still served at the allowed rate.

        Raises:
            TooManyRequests: The peer makes too many (429).
            TooManyConnections: All peers together make too many (503).
        """
        per_peer, in_all = limits.max_handshakes_per_peer, limits.max_handshakes
        if per_peer is not None and (peer := peer_at(protocol.peer)).name:
            wait = self._requests_of.take(peer, per_peer)
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

    def admit(self, protocol: WebSocketProtocol, limits: Limits) -> None:
        """Count a connection that is about to open.

        Raises:
            TooManyConnections: There are too many (503).
        """
        in_all, per_peer = limits.max_connections, limits.max_connections_per_peer
        if in_all is not None or per_peer is not None:
            peer = UNKNOWN if per_peer is None else peer_at(protocol.peer)
            if in_all is not None and len(self._open) >= in_all:
                self.refusals["max_connections"] += 1
                raise TooManyConnections
            if per_peer is not None and not self._open.has_room(peer, per_peer):
                self.refusals["max_connections_per_peer"] += 1
                raise TooManyConnections(f"The server has too many connections {FROM_ADDRESS}")
            self._open.add(protocol, peer)
        if limits.max_opening is not None or limits.max_opening_per_peer is not None:
            self._opening.discard(protocol)

    def dismiss(self, protocol: WebSocketProtocol, limits: Limits) -> None:
        """Count a connection as opening again: its handshake was declined, and another may follow."""
        self._open.discard(protocol)
        if limits.max_opening is not None or limits.max_opening_per_peer is not None:
            self._opening.discard(protocol)
            self._opening.add(protocol, peer_at(protocol.peer), self._now())

    def forget(self, protocol: WebSocketProtocol) -> None:
        """Stop counting a connection that is gone."""
        self._open.discard(protocol)
        self._opening.discard(protocol)
