"""Opens connections to a Redis, through txredisapi, which imports the reactor: import this late."""

from __future__ import annotations

from typing import Any, TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory

from twisted_beastws.hub import linked_reconnecting as timing
from twisted_beastws.hub.redis_endpoint import redis_endpoint
from twisted_beastws.hub.redis_protocol import RedisConnection
from twisted_beastws.hub.redis_url import RedisURL

AConnection = TypeVar("AConnection", bound="RedisConnection")


async def connected(connection: AConnection, reactor: IReactorTime) -> AConnection:
    """Open a connection, and return it when it is authenticated; drop it if that fails."""
    endpoint = redis_endpoint(connection.url, reactor, timing.CONNECT_TIMEOUT)
    connecting = endpoint.connect(Single(connection))
    # The endpoint's own timeout does not bound a TLS handshake.
    await connecting.addTimeout(timing.CONNECT_TIMEOUT, reactor)
    try:
        await connection.ready
    except BaseException:
        connection.drop()
        raise
    return connection


async def ask_once(url: RedisURL, reactor: IReactorTime, *command: str) -> Any:
    """Return the answer to one command, on a connection of its own."""
    connection = await connected(RedisConnection(url, reactor, timing.REPLY_TIMEOUT), reactor)
    try:
        return await connection.execute(*command)
    finally:
        connection.drop()


class Single(Factory):
    """A factory that returns one protocol, made before."""

    noisy = False

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    def buildProtocol(self, addr: object) -> RedisConnection:
        return self._connection
