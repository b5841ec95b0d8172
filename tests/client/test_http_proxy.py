"""Tests of `twisted_beastws.client.http_proxy` over real TCP and TLS: tunnels, and proxies that open none."""

from __future__ import annotations

from base64 import b64encode
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import error, reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from twisted_beastws import State, Timeouts, errors
from twisted_beastws.client.connect import WebSocketClientEndpoint, connect
from twisted_beastws.client.http_proxy import HttpConnect, ProxyEndpoint
from twisted_beastws.wire.fields import Headers
from twisted_beastws.wire.http import Request

from ..support.certificates import identity_pem, trusting
from ..support.handshakes import field, switching
from ..support.loopback import Noting, Script, Scripted, failure_of, leaving_nothing, serving, turn, until
from ..support.ports import free_port
from ..support.timing import ClockedReactor
from ..support.ways import BOTH_WAYS

pytestmark = pytest.mark.usefixtures("logged")

OPENED = b"HTTP/1.1 200 Connection established\r\n\r\n"
LOST = (error.ConnectionLost, error.ConnectionDone)


class Far(Protocol):
    """The far end of a tunnel."""

    def __init__(self, near: Scripted) -> None:
        self.near = near

    def dataReceived(self, data: bytes) -> None:
        self.near.write(data)

    def connectionLost(self, reason: Any = None) -> None:
        self.near.close()


def tunnels(connection: Scripted, head: bytes) -> None:
    """Connect to the requested port, and forward bytes in both directions."""
    port = int(head.split(b" ")[1].rpartition(b":")[2])
    factory = Factory.forProtocol(lambda: Far(connection))
    factory.noisy = False

    def opened(far: Any) -> None:
        connection.dataReceived = far.transport.write  # type: ignore[method-assign]
        connection.lost.addCallback(lambda _: far.transport.loseConnection())
        connection.write(OPENED)

    TCP4ClientEndpoint(reactor, "127.0.0.1", port).connect(factory).addCallback(opened)


def pretends(connection: Scripted, head: bytes) -> None:
    """Open the tunnel, and act as the server at its far end too."""
    connection.write(OPENED if head.startswith(b"CONNECT ") else switching(head))


def dial(port: int, url: str = "ws://server.invalid/chat", **options: Any) -> Deferred[Any]:
    options.setdefault("proxy", f"http://127.0.0.1:{port}")
    options.setdefault("reactor", reactor)
    return connect(url, protocol=Noting, **options)


class TestTunnel:
    """RFC 9110 §9.3.6: CONNECT opens a tunnel through an HTTP proxy."""

    @BOTH_WAYS
    @leaving_nothing
    async def test_a_client_and_a_server_can_talk_through_a_tunnel(self, secure: bool) -> None:
        proxy = Script(tunnels)
        async with proxy.listening() as port, serving(secure=secure) as url:
            ws = await dial(port, url, tls=trusting() if secure else None)
            ws.send("hello" * 100_000)
            await until(lambda: ws.heard[1:])
            assert ws.heard == ["opened", "hello" * 100_000]
            reason = await ws.close()
            assert (reason.code, reason.clean, reason.began) == (1000, True, "local")
            await turn()
            assert Noting.closings == [reason]
            assert len(proxy.requests) == 1

    @BOTH_WAYS
    @leaving_nothing
    async def test_a_proxy_may_use_tls(self, secure: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        roots = tmp_path / "roots.pem"
        roots.write_bytes(identity_pem())
        monkeypatch.setenv("SSL_CERT_FILE", str(roots))
        async with Script(tunnels).listening(secure=True) as port, serving(secure=secure) as url:
            ws = await dial(port, url, proxy=f"https://localhost:{port}")
            ws.send("hello")
            await until(lambda: ws.heard[1:])
            await ws.close()

    @leaving_nothing
    async def test_a_proxy_with_an_untrusted_certificate_is_refused(self) -> None:
        proxy = Script(tunnels)
        async with proxy.listening(secure=True) as port:
            failure = await failure_of(dial(port, proxy=f"https://localhost:{port}"))
            assert "no authority that this client trusts has signed it" in str(failure)
            assert proxy.requests == []

    @pytest.mark.parametrize(
        ("url", "authority", "host"),
        [
            ("ws://server.invalid/chat", b"server.invalid:80", b"server.invalid"),
            ("ws://Server.invalid:1984/chat", b"server.invalid:1984", b"server.invalid:1984"),
            ("ws://[2001:DB8::1]/chat", b"[2001:db8::1]:80", b"[2001:db8::1]"),
        ],
    )
    @leaving_nothing
    async def test_the_proxy_gets_the_host_name_in_these_bytes(self, url: str, authority: bytes, host: bytes) -> None:
        """The proxy resolves the host name, not the client."""
        proxy = Script(pretends)
        async with proxy.listening() as port:
            ws = await dial(port, url)
            assert proxy.requests[0] == b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (authority, authority)
            assert proxy.requests[1].startswith(b"GET /chat HTTP/1.1\r\nHost: %b\r\n" % host)
            ws.abort()

    @leaving_nothing
    async def test_the_connect_request_for_tls_has_the_port(self) -> None:
        proxy = Script(b"HTTP/1.1 403 Forbidden\r\n\r\n")
        async with proxy.listening() as port:
            await failure_of(dial(port, "wss://server.invalid/"))
            assert proxy.requests[0].startswith(b"CONNECT server.invalid:443 HTTP/1.1\r\n")

    @leaving_nothing
    async def test_the_proxy_and_the_server_get_their_own_credentials(self) -> None:
        proxy = Script(pretends)
        async with proxy.listening() as port:
            ws = await dial(port, "ws://a:b@server.invalid/", proxy=f"http://u%40x:p@127.0.0.1:{port}/")
            asked, request = proxy.requests
            assert field(asked, b"Proxy-Authorization") == b"Basic " + b64encode(b"u@x:p")
            assert field(asked, b"Authorization") is None
            assert field(request, b"Authorization") == b"Basic " + b64encode(b"a:b")
            assert field(request, b"Proxy-Authorization") is None
            ws.abort()

    @pytest.mark.parametrize(
        "head",
        [
            OPENED,
            b"HTTP/1.0 299 \r\nContent-Length: 5\r\nX: y\r\n\r\n",
            # RFC 9110 §15.2: interim responses.
            b"HTTP/1.1 100 Continue\r\n\r\n" + OPENED,
            b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 8 + OPENED,
        ],
    )
    @pytest.mark.parametrize("size", [1, 7, 1000])
    @leaving_nothing
    async def test_a_tunnel_opens_for_any_chunks_of_the_head(self, head: bytes, size: int) -> None:
        """The bytes after the head belong to the server: here its response arrives in the same segments."""

        def answer(connection: Scripted, _: bytes) -> None:
            octets = head + b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone"
            transport: Any = connection.transport
            transport.setTcpNoDelay(True)
            # The client may have closed the connection already.
            with suppress(OSError):
                for at in range(0, len(octets), size):
                    transport.getHandle().send(octets[at : at + size])

        async with Script(answer).listening() as port:
            failure = await failure_of(dial(port))
            assert type(failure) is errors.UpgradeDeclined
            assert (failure.status, failure.response.body) == (404, b"gone")

    @leaving_nothing
    async def test_each_redirect_has_its_own_tunnel(self) -> None:
        def answer(connection: Scripted, head: bytes) -> None:
            if head.startswith(b"GET / "):
                connection.write(b"HTTP/1.1 302 Found\r\nLocation: ws://other.invalid/x\r\nContent-Length: 0\r\n\r\n")
            else:
                pretends(connection, head)

        proxy = Script(answer)
        async with proxy.listening() as port:
            ws = await dial(port, "ws://server.invalid/")
            assert [head.split(b" HTTP")[0] for head in proxy.requests] == [
                b"CONNECT server.invalid:80",
                b"GET /",
                b"CONNECT other.invalid:80",
                b"GET /x",
            ]
            ws.abort()

    @BOTH_WAYS
    @pytest.mark.parametrize("how", ["drop", "close", "abort", "close frame"])
    @leaving_nothing
    async def test_each_end_of_a_tunnel_closes_the_other(self, how: str, secure: bool) -> None:
        proxy = Script(tunnels)
        server = Script(lambda connection, head: connection.write(switching(head)))
        async with proxy.listening() as port, server.listening(secure) as there:
            url = f"ws{'s' * secure}://localhost:{there}/"
            ws = await dial(port, url, tls=trusting() if secure else None)
            (near,), (far,) = proxy.connections, server.connections
            if how == "drop":
                near.drop()
            elif how == "close":
                far.close()
            elif how == "abort":
                ws.abort()
            else:
                far.write(b"\x88\x02\x03\xe8")
                far.close()
            await until(lambda: Noting.closings and ws.state is State.CLOSED)
            await until(lambda: near.lost.called and far.lost.called)
            assert [reason.clean for reason in Noting.closings] == [how == "close frame"]


def closing(octets: bytes) -> Any:
    def answer(connection: Scripted, head: bytes) -> None:
        connection.write(octets)
        connection.close()

    return answer


INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
REFUSED = b"HTTP/1.1 %d No\r\nProxy-Authenticate: Basic\r\nContent-Length: 3\r\n\r\nno!"
# Each answer of a proxy, and the error that it gives the client.
ANSWERS: dict[str, tuple[Any, Any]] = {
    **{str(status): (REFUSED % status, errors.ProxyDeclined) for status in (101, 301, 403, 407, 502, 503)},
    "interim answers without end": (INTERIM * 9 + OPENED, errors.BadRequest),
    "silence behind interim answers": (INTERIM * 8, errors.HandshakeTimeout),
    "garbage": (b"\0\1\2\3", errors.BadRequest),
    "a greeting": (b"220 mail.example ESMTP\r\n\r\n", errors.BadRequest),
    "a bad field": (b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n", errors.BadRequest),
    "a head without end": (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, errors.HeadTooLarge),
    "drop": (lambda connection, head: connection.drop(), LOST),
    "close": (closing(b""), LOST),
    "close inside the head": (closing(OPENED[:-1]), LOST),
    "close behind the head": (closing(OPENED), LOST),
    "silence": (None, errors.HandshakeTimeout),
    "silence inside the head": (OPENED[:-1], errors.HandshakeTimeout),
    "silence behind the head": (OPENED, errors.HandshakeTimeout),
}


class TestNoTunnel:
    """RFC 9110 §9.3.6: any answer but a 2xx opens no tunnel."""

    @BOTH_WAYS
    @pytest.mark.parametrize("name", ANSWERS)
    @leaving_nothing
    async def test_each_answer_of_a_proxy_has_its_own_error(self, name: str, secure: bool) -> None:
        answer, expected = ANSWERS[name]
        silent = name == "silence behind the head"

        def answered(connection: Scripted, head: bytes) -> None:
            if not (silent and head.startswith(b"GET ")):
                Script(answer).answer(connection, head)

        proxy = Script(answered)
        scheme = "wss" if secure else "ws"
        async with proxy.listening() as port:
            clock = ClockedReactor()
            timeouts = Timeouts(handshake=10.0, close=10.0)
            connecting = dial(port, f"{scheme}://server.invalid/", reactor=clock, timeouts=timeouts)
            if "silence" in name:
                await until(lambda: proxy.requests)
                # The client reads the answer, and sends its request through the tunnel.
                await turn()
                await turn()
                clock.advance(11.0)
            failure = await failure_of(connecting)
            assert isinstance(failure, expected)
            if name.isdecimal():
                assert failure.status == int(name)
                assert failure.response.field("Proxy-Authenticate") == "Basic"
            if isinstance(failure, errors.BadRequest | errors.HeadTooLarge):
                assert "proxy" in str(failure)
            assert proxy.requests[0].startswith(b"CONNECT ")
            assert Noting.closings == []
            await until(lambda: proxy.connections[0].lost.called)

    @pytest.mark.parametrize("name", ["silence", "silence inside the head", "silence behind the head"])
    @leaving_nothing
    async def test_a_cancelled_attempt_drops_the_connection_to_the_proxy(self, name: str) -> None:
        proxy = Script(lambda connection, head: connection.write(ANSWERS[name][0] or b""))
        async with proxy.listening() as port:
            connecting = dial(port, "wss://server.invalid/")
            await until(lambda: proxy.requests)
            await turn(0.05)
            connecting.cancel()
            assert isinstance(await failure_of(connecting), CancelledError)
            (connection,) = proxy.connections
            await until(lambda: connection.lost.called)

    @pytest.mark.parametrize("more", [OPENED, b"\0" * 10, b"x" * 70_000])
    def test_data_after_a_cancellation_is_ignored(self, more: bytes) -> None:
        request = Request("CONNECT", "host:80", "1.1", Headers())
        tunnel = HttpConnect(Factory(), IPv4Address("TCP", "127.0.0.1", 1), request)
        transport = StringTransport()
        tunnel.makeConnection(transport)  # type: ignore[no-untyped-call]
        tunnel.opened.cancel()
        assert tunnel.transport is transport
        assert transport.disconnected
        tunnel.dataReceived(more)
        tunnel.connectionLost(Failure(error.ConnectionAborted()))
        outcome: list[Failure] = []
        tunnel.opened.addErrback(outcome.append)
        assert [failure.type for failure in outcome] == [CancelledError]

    @leaving_nothing
    async def test_an_absent_proxy_is_reported(self) -> None:
        assert type(await failure_of(dial(free_port()))) is error.ConnectionRefusedError

    @BOTH_WAYS
    @pytest.mark.parametrize("made", [None, "raises"])
    @leaving_nothing
    async def test_a_factory_that_makes_nothing_fails_the_attempt(self, made: str | None, secure: bool) -> None:
        class Making(Factory):
            noisy = False

            def buildProtocol(self, addr: Any) -> Any:
                return None if made is None else 1 // 0

        proxy = Script(OPENED)
        async with proxy.listening() as port:
            url = f"ws{'s' * secure}://server.invalid/"
            endpoint = WebSocketClientEndpoint(reactor, url, proxy=f"http://127.0.0.1:{port}")
            failure = await failure_of(endpoint.connect(Making()))
            assert type(failure) is (error.NoProtocol if made is None else ZeroDivisionError)
            await until(lambda: proxy.connections[0].lost.called)


class TestEndpoint:
    """The endpoint behind the tunnel, as an `IStreamClientEndpoint`."""

    def test_the_endpoint_provides_its_interface(self) -> None:
        verifyObject(IStreamClientEndpoint, ProxyEndpoint(TCP4ClientEndpoint(reactor, "localhost", 1), "host", 80))

    @leaving_nothing
    async def test_any_protocol_can_use_the_endpoint(self) -> None:
        heard: list[bytes] = []

        class Plain(Protocol):
            def connectionMade(self) -> None:
                assert self.transport is not None
                self.transport.write(b"hi\r\n\r\n")

            def dataReceived(self, data: bytes) -> None:
                heard.append(data)

        def answer(connection: Scripted, head: bytes) -> None:
            connection.write(OPENED if head.startswith(b"CONNECT") else head.upper())

        async with Script(answer).listening() as port:
            endpoint = ProxyEndpoint(TCP4ClientEndpoint(reactor, "127.0.0.1", port), "host", 80, "Basic x")
            plain: Any = await endpoint.connect(Factory.forProtocol(Plain))
            assert type(plain) is Plain
            await until(lambda: heard == [b"HI\r\n\r\n"])
            assert plain.transport is not None
            plain.transport.loseConnection()
