"""The admin listener: the metrics and the state of health, for operators."""

from __future__ import annotations

from collections.abc import Iterable

from twisted_beastws.options import Limits, Timeouts
from twisted_beastws.protocol import WebSocketProtocol
from twisted_beastws.server.factory import WebSocketServerFactory
from twisted_beastws.server.gates.admin_pages import AdminPages, MetricsPage, Ready
from twisted_beastws.wire.http import Request, Response

MAX_CONNECTIONS = 100
"""The most connections at a time. For one more, the oldest is dropped."""

NOT_FOUND = "There are /metrics, /healthz and /readyz\n"


class Admin(WebSocketProtocol):
    """Opens no WebSocket, and has no pages but those of the gate before it."""

    def http_requested(self, request: Request) -> Response:
        return Response(404, body=NOT_FOUND)


def admin_factory(metrics: MetricsPage, ready: Ready, names: Iterable[str] = ()) -> WebSocketServerFactory:
    """Return the factory of the admin listener. The arguments are those of `AdminPages`."""
    factory = WebSocketServerFactory(
        Admin,
        timeouts=Timeouts(handshake=60.0, close=5.0),
        limits=Limits(max_opening=MAX_CONNECTIONS),
    )
    factory.add_gate(AdminPages(metrics, ready, names))
    return factory
