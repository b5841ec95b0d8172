"""`Joins`: bounds how often clients of one address enter the chat."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from twisted_beastws.admission import FROM_ADDRESS, Buckets
from twisted_beastws.peers import peer_at
from twisted_beastws.wire.http import Headers, Response

if TYPE_CHECKING:
    from twisted_beastws.protocol import WebSocketProtocol

AT_ONCE = 20
"""Seconds' worth of joins that can come at once.

By default as many as one address may have connections: after a restart they all come back.
"""

LIMIT = "max_joins_per_address"


class Joins:
    """A token bucket for each address.

    Args:
        rate: joins a second from one address on average, and `AT_ONCE` times as many at once; None is no limit.
    """

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._seconds = 0.0
        self._buckets = Buckets(lambda: self._seconds)

    def refuse(self, member: WebSocketProtocol, seconds: float) -> Response | None:
        """Count a join; return the answer to one beyond the limit.

        Args:
            member: the connection that joins.
            seconds: the time.
        """
        peer = peer_at(member.peer)
        if self._rate is None or not peer.name:
            return None
        self._seconds = seconds
        wait = self._buckets.take(peer, self._rate, max(1.0, AT_ONCE * self._rate))
        if not wait:
            return None
        if member.server is not None:
            member.server.admission.refusals[LIMIT] += 1
        headers = Headers({"Retry-After": [str(ceil(wait))]})
        return Response(429, headers=headers, body=f"There are too many joins {FROM_ADDRESS}\n")
