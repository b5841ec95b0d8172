"""`ChatLimits`: how often clients may enter the chat and send messages."""

from __future__ import annotations

from math import ceil

from twisted_beastws.protocol import WebSocketProtocol, connection_of
from twisted_beastws.server.admission import FROM_ADDRESS, Buckets
from twisted_beastws.server.peers import peer_at
from twisted_beastws.wire.closing import CloseCode
from twisted_beastws.wire.fields import Headers
from twisted_beastws.wire.http import Response
from twisted_beastws.wire.rate import Bucket

JOINS_AT_ONCE = 20
"""Seconds' worth of joins that can come at once.

By default as many as one address may have connections: after a restart they all come back.
"""

MESSAGES_AT_ONCE = 10
"""Seconds' worth of messages that a client can send at once, such as a text in many lines (Mattermost has 10, too)."""


class ChatLimits:
    """The rates of a chat's clients. All connections share one.

    Args:
        joins: joins a second from one address on average, and `JOINS_AT_ONCE` times as many at once; None is no limit.
        messages: messages a second from one connection, and `MESSAGES_AT_ONCE` times as many at once; the same.
    """

    def __init__(self, joins: float | None, messages: float | None) -> None:
        self._joins = joins
        self._messages = messages
        self._seconds = 0.0
        self._joins_of = Buckets(lambda: self._seconds)

    def refuse_join(self, member: WebSocketProtocol, seconds: float, *, count: bool = True) -> Response | None:
        """Count a join, at a time in seconds; return the answer to one beyond the limit.

        count: False only returns the answer.
        """
        peer = peer_at(member.peer)
        if self._joins is None or not peer.name:
            return None
        self._seconds = seconds
        ask = self._joins_of.take if count else self._joins_of.wait
        wait = ask(peer, self._joins, max(1.0, JOINS_AT_ONCE * self._joins))
        if not wait:
            return None
        if count:
            _count_refusal(member, "max_joins_per_address")
        headers = Headers({"Retry-After": [str(ceil(wait))]})
        return Response(429, headers=headers, body=f"There are too many joins {FROM_ADDRESS}\n")

    def bucket(self) -> Bucket | None:
        """Return the counter of one connection's messages, or None without a limit."""
        if self._messages is None:
            return None
        return Bucket(self._messages, max(1.0, MESSAGES_AT_ONCE * self._messages))

    def close(self, member: WebSocketProtocol) -> None:
        """Close a connection that exceeded its limit."""
        _count_refusal(member, "max_chat_rate")
        member.close(CloseCode.POLICY_ERROR, f"more than {self._messages:g} messages a second")


def _count_refusal(member: WebSocketProtocol, limit: str) -> None:
    server = connection_of(member).server
    if server is not None:
        server.refusals[limit] += 1
