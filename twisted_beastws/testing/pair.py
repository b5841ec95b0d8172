"""`connected_pair`: a server and a client, connected in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar, overload

from twisted.internet.task import Clock

from twisted_beastws.client.factory import WebSocketClientFactory
from twisted_beastws.protocol import WebSocketProtocol
from twisted_beastws.server.factory import Handler, WebSocketServerFactory
from twisted_beastws.testing.ends import build_client, build_server
from twisted_beastws.testing.link import Link, finish
from twisted_beastws.testing.transport import CHUNK

S = TypeVar("S", bound=WebSocketProtocol)
C = TypeVar("C", bound=WebSocketProtocol)


class ConnectedPair(Link, Generic[S, C]):
    """Both ends of a connection, from `connected_pair`.

    Attributes:
        server: The server's protocol.
        client: The client's protocol.
        server_transport: The transport of the server.
        client_transport: The transport of the client.
    """

    def __init__(self, server: S, client: C, clock: Clock, chunk: int) -> None:
        self.server = server
        self.client = client
        super().__init__(client, server, clock, chunk)
        self.client_transport, self.server_transport = self.ends


@overload
def connected_pair(server: Callable[[], S], client: Callable[[], C], **options: Any) -> ConnectedPair[S, C]: ...


@overload
def connected_pair(
    server: Callable[[], S], client: WebSocketClientFactory = ..., **options: Any
) -> ConnectedPair[S, WebSocketProtocol]: ...


@overload
def connected_pair(
    server: WebSocketServerFactory | Handler, client: Callable[[], C], **options: Any
) -> ConnectedPair[WebSocketProtocol, C]: ...


@overload
def connected_pair(
    server: WebSocketServerFactory | Handler, client: WebSocketClientFactory = ..., **options: Any
) -> ConnectedPair[WebSocketProtocol, WebSocketProtocol]: ...


def connected_pair(
    server: Any,
    client: Any = WebSocketProtocol,
    *,
    client_options: Mapping[str, Any] | None = None,
    host: str = "localhost",
    target: str = "/",
    clock: Clock | None = None,
    chunk: int = CHUNK,
    opened: bool = True,
    **options: Any,
) -> ConnectedPair[Any, Any]:
    """Connect a server and a client in memory, and perform the opening handshake.

    Args:
        server: A `WebSocketServerFactory`, or its first argument: a protocol class or a coroutine function.
        client: A `WebSocketClientFactory`, or its first argument: a protocol class.
        client_options: The options of the client's factory: ``timeouts``, ``limits``, ``deflate``, ``subprotocols`` and
            ``decorator``.
        host: The client's Host field.
        target: The target of the client's request.
        clock: The time of both ends; None is the clock of the server's factory, if that is a ``Clock``, or a new one.
        chunk: The most bytes to deliver at once.
        opened: Perform the handshake. Otherwise call ``pair.client.handshake`` and ``pair.flush()`` yourself.
        options: The options of the server's factory.

    Raises:
        HandshakeError: The handshake failed.
        AssertionError: The handshake did not complete.
    """
    far, clock = build_server(server, clock, options)
    near = build_client(client, client_options, clock)
    pair = ConnectedPair(far, near, clock, chunk)
    if opened:
        finish(pair, near.handshake(host, target))
    return pair
