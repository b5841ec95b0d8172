"""Origin checks for WebSockets over TLS that this server terminates."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.web.resource import Resource
from twisted.web.server import Site

from twisted_beastws import WebSocketProtocol, WebSocketResource, WebSocketServerFactory, connect
from twisted_beastws.errors import UpgradeDeclined

from ..support.certificates import trusting
from ..support.loopback import failure_of, listening

pytestmark = pytest.mark.usefixtures("logged")


def factory_of(kind: str) -> Any:
    factory = WebSocketServerFactory(WebSocketProtocol, clock=reactor)
    if kind == "our server":
        return factory
    resource = WebSocketResource(factory)
    root = Resource()
    root.putChild(b"", resource)
    return Site(root)


@pytest.mark.parametrize("kind", ["our server", "twisted.web"])
@pytest.mark.parametrize("secure", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_page_in_clear_is_this_site_only_without_tls(kind: str, secure: bool) -> None:
    async with listening(factory_of(kind), secure) as port:
        scheme = "wss" if secure else "ws"

        def dial(origin: str) -> Any:
            endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
            return connect(f"{scheme}://localhost/", endpoint=endpoint, tls=trusting(), headers={"Origin": origin})

        ws = await dial("https://localhost")
        await ws.close()
        if secure:
            failure = await failure_of(dial("http://localhost"))
            assert type(failure) is UpgradeDeclined
            assert failure.status == 403
            assert b"is not this site (Host: localhost, over TLS)" in failure.response.body
        else:
            ws = await dial("http://localhost")
            await ws.close()
