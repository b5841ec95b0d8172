"""The types of gates and of trusted proxies, as a server uses them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from twisted_beastws.connection.running import settled
from twisted_beastws.protocol import WebSocketProtocol
from twisted_beastws.wire.http import Request, Response

Answer = Response | None
Gate = Callable[[Request, WebSocketProtocol], Answer | Awaitable[Answer] | Deferred[Answer]]
"""A function that returns None to let a request in, or the `Response` to it. See `WebSocketServerFactory.add_gate`."""


class Forwarding(Protocol):
    """The proxies that a server trusts to forward the addresses of clients."""

    def client_of(self, peer: Any, request: Request) -> Any:
        """Return the address of the client of a request that came from ``peer``."""

    def prefix_of(self, peer: Any, request: Request) -> str:
        """Return the path that a proxy removed from a request that came from ``peer``, or an empty text."""

    def trusts(self, peer: Any) -> bool:
        """Return whether ``peer`` is the address of a trusted proxy."""


def in_turn(gates: Sequence[Gate]) -> Gate | None:
    """Return a gate that asks these, the first one first, until one answers; None for none."""
    if len(gates) <= 1:
        return gates[0] if gates else None
    asked = tuple(gates)

    async def gate(request: Request, ws: WebSocketProtocol) -> Answer:
        for each in asked:
            answer: Answer = await settled(each(request, ws))
            if answer is not None:
                return answer
        return None

    return gate
