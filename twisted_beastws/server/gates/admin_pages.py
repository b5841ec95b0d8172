"""`AdminPages`: the gate that answers `/metrics` and the questions after the server's health."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from ipaddress import ip_address
from socket import gethostname
from typing import Any, Protocol

from twisted.internet.address import UNIXAddress

from twisted_beastws.connection.running import settled
from twisted_beastws.protocol import WebSocketProtocol
from twisted_beastws.server.observers.metrics import NOT_INSTALLED
from twisted_beastws.wire.fields import Headers
from twisted_beastws.wire.http import Request, Response

Ready = Callable[[], bool | Awaitable[bool]]

HEALTH = ("/healthz", "/readyz")
"""Paths that answer under any host name: they have no secrets, and a balancer may use its own name."""

MISDIRECTED = (
    "Ask by this server's address, by localhost, or by a name that --admin-host gives, or in a program "
    "AdminPages(names=)\n"
)
NOT_ALLOWED = "It can only be read: GET or HEAD\n"

_PORT = re.compile(r":[0-9]*$")


class HostNames:
    """The host names under which the admin pages answer.

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


class MetricsPage(Protocol):
    """The metrics, such as `Metrics`."""

    def render(self, accept: str = "") -> tuple[str, bytes] | Awaitable[tuple[str, bytes]]:
        """Return the type and the bytes of the page for an Accept field, or await them."""


class AdminPages:
    """A gate that answers `/metrics`, `/healthz` and `/readyz`, and lets all other requests in.

    Anyone who can connect to the server can read these pages. So add the gate to a factory that listens on the loopback
    interface or in a private network, or after a gate with a login.

    Args:
        metrics: The `Metrics` to show; None shows none.
        ready: Returns whether new connections are welcome, or awaits it; None is always.
        names: Host names under which `/metrics` answers, besides addresses, ``localhost`` and this machine's name. An
            attacker's page can point a name of its own at this machine.
    """

    def __init__(
        self, metrics: MetricsPage | None = None, ready: Ready | None = None, names: Iterable[str] = ()
    ) -> None:
        self._metrics = metrics
        self._ready = ready or (lambda: True)
        self._names = HostNames(names)
        self.paths = HEALTH if metrics is None else ("/metrics", *HEALTH)

    async def __call__(self, request: Request, ws: WebSocketProtocol) -> Response | None:
        """Answer a request for one of the pages."""
        if request.path not in self.paths:
            return None
        # A page cannot make a browser send a request to a UNIX socket.
        if request.path not in HEALTH and not (isinstance(ws.peer, UNIXAddress) or self._names.include(request)):
            return Response(421, body=MISDIRECTED)
        if request.method not in ("GET", "HEAD"):
            return Response(405, headers=Headers({"Allow": ["GET, HEAD"]}), body=NOT_ALLOWED)
        if request.path == "/metrics" and self._metrics is not None:
            return await _render(self._metrics, request)
        if request.path == "/healthz" or await settled(self._ready()):
            return _uncached(200, b"text/plain; charset=utf-8", b"ok\n")
        return _uncached(503, b"text/plain; charset=utf-8", b"not ready\n")


async def _render(metrics: MetricsPage, request: Request) -> Response:
    accept = b",".join(request.headers.getRawHeaders(b"Accept", ())).decode("latin-1")
    try:
        rendered: Any = metrics.render(accept)
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
