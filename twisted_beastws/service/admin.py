"""The admin listener: the metrics and the state of health, for operators."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from ipaddress import ip_address
from socket import gethostname
from typing import Any

from twisted.internet.address import UNIXAddress

from twisted_beastws.connection.running import settled
from twisted_beastws.options import Limits, Timeouts
from twisted_beastws.protocol import WebSocketProtocol
from twisted_beastws.server.factory import WebSocketServerFactory
from twisted_beastws.server.observers.metrics import NOT_INSTALLED, Metrics
from twisted_beastws.service.summing import AggregatedMetrics
from twisted_beastws.wire.http import Headers, Request, Response

Ready = Callable[[], bool | Awaitable[bool]]

MAX_CONNECTIONS = 100
"""The most connections at a time. For one more, the oldest is dropped."""

HEALTH = ("/healthz", "/readyz")
"""Paths that answer under any host name: they have no secrets, and a balancer may use its own name."""

MISDIRECTED = "Ask by this listener's address, by localhost, or by a name that --admin-host gives\n"
NOT_FOUND = "There are /metrics, /healthz and /readyz\n"
NOT_ALLOWED = "It can only be read: GET or HEAD\n"


_PORT = re.compile(r":[0-9]*$")


class HostNames:
    """The host names under which the admin listener answers.

    An attacker can point the name of its page at this machine (DNS rebinding); the page's requests have that name, and
    get no answer. Addresses, ``localhost`` and the machine's own name are no attacker's.

    Args:
        names: Further names.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = {name.lower().rstrip(".") for name in (*names, "localhost", gethostname())}

    def include(self, request: Request) -> bool:
        """Return whether a request is for one of these names."""
        fields = request.headers.getRawHeaders(b"Host", ())
        if not fields:
            # HAProxy sends HTTP/1.0 without a Host. A browser always sends one.
            return True
        if len(fields) > 1:
            return False
        name = _PORT.sub("", fields[0].decode("latin-1").strip().lower()).rstrip(".")
        return name in self._names or name.endswith(".localhost") or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ip_address(name[1:-1] if name.startswith("[") and name.endswith("]") else name)
    except ValueError:
        return False
    return True


class Admin(WebSocketProtocol):
    """Answers plain HTTP requests only; it opens no WebSocket.

    Args:
        metrics: its ``render(accept)`` returns the page's type and bytes for an Accept field, or awaits them.
        ready: returns whether new connections are welcome, or awaits it.
        names: The host names under which the listener answers.
    """

    def __init__(self, metrics: Metrics | AggregatedMetrics, ready: Ready, names: HostNames) -> None:
        self._metrics = metrics
        self._ready = ready
        self._names = names

    async def http_requested(self, request: Request) -> Response:
        if request.path not in HEALTH and not self._may_ask(request):
            return Response(421, body=MISDIRECTED)
        if request.path not in ("/metrics", *HEALTH):
            return Response(404, body=NOT_FOUND)
        if request.method not in ("GET", "HEAD"):
            return Response(405, headers=Headers({"Allow": ["GET, HEAD"]}), body=NOT_ALLOWED)
        if request.path == "/metrics":
            return await self._render(request)
        if request.path == "/healthz" or await settled(self._ready()):
            return _uncached(200, b"text/plain; charset=utf-8", b"ok\n")
        return _uncached(503, b"text/plain; charset=utf-8", b"not ready\n")

    def _may_ask(self, request: Request) -> bool:
        # A page cannot make a browser send a request to a UNIX socket.
        return isinstance(self.peer, UNIXAddress) or self._names.include(request)

    async def _render(self, request: Request) -> Response:
        accept = b",".join(request.headers.getRawHeaders(b"Accept", ())).decode("latin-1")
        try:
            rendered: Any = self._metrics.render(accept)
            kind, body = await settled(rendered)
        except ImportError:
            return Response(501, body=NOT_INSTALLED)
        response = _uncached(200, kind.encode("ascii"), body)
        response.headers.setRawHeaders(b"Vary", [b"Accept"])
        return response


def _uncached(status: int, kind: bytes, body: bytes) -> Response:
    headers = Headers(
        {b"Content-Type": [kind], b"X-Content-Type-Options": [b"nosniff"], b"Cache-Control": [b"no-store"]}
    )
    return Response(status, headers=headers, body=body)


def admin_factory(
    metrics: Metrics | AggregatedMetrics, ready: Ready, names: HostNames | None = None
) -> WebSocketServerFactory:
    """Return the factory of `Admin` connections."""
    return WebSocketServerFactory(
        partial(Admin, metrics, ready, names or HostNames()),
        timeouts=Timeouts(handshake=60.0, close=5.0),
        limits=Limits(max_opening=MAX_CONNECTIONS),
    )
