"""What an operator may ask on a listener of its own: the metrics, and whether the service is well."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from twisted_beastws.operation import settled
from twisted_beastws.options import Limits, Timeouts
from twisted_beastws.protocol import WebSocketProtocol
from twisted_beastws.server import WebSocketServerFactory
from twisted_beastws.service.metrics import NOT_INSTALLED, Metrics
from twisted_beastws.service.summing import Summed
from twisted_beastws.wire.http import Headers, Request, Response

Ready = Callable[[], bool | Awaitable[bool]]

MAX_CONNECTIONS = 100
"""Connections at a time; for one more the oldest is dropped."""

NOT_FOUND = "There are /metrics, /healthz and /readyz\n"
NOT_ALLOWED = "It can only be read: GET or HEAD\n"


class Admin(WebSocketProtocol):
    """Answers every request itself: there is no WebSocket.

    metrics: whose ``render()``, or what that awaits, is the page's type and octets. ready: whether new connections are
    welcome; it may take its time, too.
    """

    def __init__(self, metrics: Metrics | Summed, ready: Ready) -> None:
        self._metrics = metrics
        self._ready = ready

    async def http_requested(self, request: Request) -> Response:
        if request.path not in ("/metrics", "/healthz", "/readyz"):
            return Response(404, body=NOT_FOUND)
        if request.method not in ("GET", "HEAD"):
            return Response(405, headers=Headers({"Allow": ["GET, HEAD"]}), body=NOT_ALLOWED)
        if request.path == "/metrics":
            return await self._render()
        if request.path == "/healthz" or await settled(self._ready()):
            return _uncached(200, b"text/plain; charset=utf-8", b"ok\n")
        return _uncached(503, b"text/plain; charset=utf-8", b"not ready\n")

    async def _render(self) -> Response:
        try:
            rendered: Any = self._metrics.render()
            kind, body = await settled(rendered)
        except ImportError:
            return Response(501, body=NOT_INSTALLED)
        return _uncached(200, kind.encode("ascii"), body)


def _uncached(status: int, kind: bytes, body: bytes) -> Response:
    return Response(status, headers=Headers({b"Content-Type": [kind], b"Cache-Control": [b"no-store"]}), body=body)


def admin_factory(metrics: Metrics | Summed, ready: Ready) -> WebSocketServerFactory:
    """The factory of `Admin` connections, which are kept for a minute between two requests."""
    return WebSocketServerFactory(
        partial(Admin, metrics, ready),
        timeouts=Timeouts(handshake=60.0, close=5.0),
        limits=Limits(max_opening=MAX_CONNECTIONS),
    )
