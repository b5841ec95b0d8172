"""Tests of connections on which startTLS() was called."""

from __future__ import annotations

import socket
import ssl
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThreadPool

from twisted_beastws import WebSocketServerFactory

from ..support.certificates import identity, identity_pem
from ..support.handshakes import upgrade_request
from ..support.protocols import Echo

REQUEST = upgrade_request("/")


class Securing(Protocol):
    """Starts TLS at the first chunk, and passes the connection on to the inner protocol."""

    inner: Protocol | None = None

    def __init__(self, inner: Any) -> None:
        self.waiting = inner
        self.lost: Deferred[Any] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        if self.inner is None:
            self.inner = self.waiting
            self.transport.write(b"go\n")  # type: ignore[union-attr]
            self.transport.startTLS(identity().options())  # type: ignore[union-attr]
            self.inner.makeConnection(self.transport)
        else:
            self.inner.dataReceived(data)

    def connectionLost(self, reason: Any = None) -> None:
        if self.inner is not None:
            self.inner.connectionLost(reason)
        self.lost.callback(reason.value)


class Secure:
    """A listening port, and blocking client calls that run in a thread."""

    def __init__(self, reactor: Any, inner: Any) -> None:
        self.reactor = reactor
        self.protocol = Securing(inner)
        factory = Factory.forProtocol(lambda: self.protocol)
        factory.noisy = False
        self.port = reactor.listenTCP(0, factory, interface="127.0.0.1")

    def begin(self) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self.port.getHost().port), 5)
        plain.sendall(b"secure\n")
        assert plain.recv(3) == b"go\n"
        context = ssl.create_default_context(cadata=identity_pem().decode())
        return context.wrap_socket(plain, server_hostname="localhost")

    def call(self, function: Any, *arguments: Any) -> Deferred[Any]:
        return deferToThreadPool(self.reactor, self.reactor.getThreadPool(), function, *arguments)


@pytest.fixture(autouse=True)
def its_clock(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Twisted's TLS delays small writes with the installed reactor's clock, which is not this reactor's.
    monkeypatch.setattr("twisted.protocols.tls._get_default_clock", lambda: run.reactor)


def test_a_websocket_writes_through_tls(run: Any) -> None:
    async def test(reactor: Any) -> None:
        factory = WebSocketServerFactory(Echo, clock=reactor)
        secure = Secure(reactor, factory.buildProtocol(None))

        def talk() -> tuple[bytes, bytes]:
            with secure.begin() as peer:
                peer.sendall(REQUEST)
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += peer.recv(4096)
                peer.sendall(b"\x81\x82\0\0\0\0hi")
                return head[:12], peer.recv(4)

        assert await secure.call(talk) == (b"HTTP/1.1 101", b"\x81\x02hi")
        await secure.protocol.lost
        await secure.port.stopListening()

    run(test)


def test_the_socket_is_available(run: Any) -> None:
    async def test(reactor: Any) -> None:
        secure = Secure(reactor, Protocol())
        peer = await secure.call(secure.begin)
        transport: Any = secure.protocol.transport
        assert isinstance(transport.socket, socket.socket)
        assert transport.socket.getpeername() == peer.getsockname()
        peer.close()
        await secure.protocol.lost
        await secure.port.stopListening()

    run(test)


def test_stopping_the_reactor_ends_it(run: Any) -> None:
    ends: list[Any] = []

    async def test(reactor: Any) -> None:
        secure = Secure(reactor, Protocol())
        ends.extend((secure.protocol.lost, await secure.call(secure.begin)))

    run(test)
    lost, peer = ends
    run.stop()
    run.stop = lambda: None
    assert isinstance(lost.result, ConnectionLost)
    with peer:
        assert peer.recv(1) == b""
