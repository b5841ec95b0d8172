"""The two ends of a connection under test, as their factories build them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from twisted.internet.task import Clock

from twisted_beastws.client.factory import WebSocketClientFactory
from twisted_beastws.protocol import connection_of
from twisted_beastws.server.factory import WebSocketServerFactory


def build_server(server: Any, clock: Clock | None, options: dict[str, Any]) -> tuple[Any, Clock]:
    """Return the protocol of a server, and the clock of both ends."""
    factory = server if isinstance(server, WebSocketServerFactory) else WebSocketServerFactory(server, **options)
    if clock is None:
        clock = factory.settings.clock if isinstance(factory.settings.clock, Clock) else Clock()
    protocol = factory.buildProtocol(None)
    connection = connection_of(protocol)
    connection.settings = replace(connection.settings, clock=clock)
    return protocol, clock


def build_client(client: Any, options: Mapping[str, Any] | None, clock: Clock) -> Any:
    """Return the protocol of a client."""
    factory = client if isinstance(client, WebSocketClientFactory) else WebSocketClientFactory(client, **options or {})
    protocol = factory.buildProtocol(None)
    return protocol.as_client(replace(factory.settings, clock=clock))
