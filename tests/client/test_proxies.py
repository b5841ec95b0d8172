"""Tests of `client.proxies` and `client.socks_proxy`: the choice of a proxy, and SOCKS5 over real TCP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from twisted.internet import error, reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from twisted_beastws import Timeouts, connect
from twisted_beastws.client.proxies import Proxy, parse_proxy, proxy_from_environment
from twisted_beastws.client.reconnecting import is_retryable
from twisted_beastws.errors import HandshakeTimeout, SocksDeclined
from twisted_beastws.wire.url import WebSocketURL

from ..support.certificates import trusting
from ..support.handshakes import switching
from ..support.loopback import Noting, Script, failure_of, leaving_nothing, listening, serving, until
from ..support.timing import ClockedReactor
from ..support.ways import BOTH_WAYS

pytestmark = pytest.mark.usefixtures("logged")


class SocksServer(Protocol):
    """A SOCKS5 proxy that connects to the loopback interface, or answers ``replies``."""

    factory: Any
    far: Any = None

    def __init__(self) -> None:
        self.received = b""
        self.steps = [self.greeted, self.asked]

    def connectionMade(self) -> None:
        self.factory.connections.append(self)

    def dataReceived(self, data: bytes) -> None:
        if self.far is not None:
            self.far.transport.write(data)
            return
        self.received += data
        if self.factory.replies:
            assert self.transport is not None
            self.transport.write(self.factory.replies.pop(0))
        elif self.steps and not self.factory.silent:
            self.steps.pop(0)()

    def greeted(self) -> None:
        assert self.transport is not None
        self.transport.write(b"\x05\x00")

    def asked(self) -> None:
        port = int.from_bytes(self.received[-2:], "big")
        factory = Factory.forProtocol(lambda: Far(self))
        factory.noisy = False
        TCP4ClientEndpoint(reactor, "127.0.0.1", port).connect(factory).addCallback(self.opened)

    def opened(self, far: Any) -> None:
        self.far = far
        assert self.transport is not None
        self.transport.write(b"\x05\x00\x00\x01\x7f\0\0\1\0\1")

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.lost += 1
        if self.far is not None:
            self.far.transport.loseConnection()


class Far(Protocol):
    def __init__(self, near: SocksServer) -> None:
        self.near = near

    def dataReceived(self, data: bytes) -> None:
        assert self.near.transport is not None
        self.near.transport.write(data)

    def connectionLost(self, reason: Any = None) -> None:
        assert self.near.transport is not None
        self.near.transport.loseConnection()


@asynccontextmanager
async def socks(*replies: bytes, silent: bool = False) -> AsyncIterator[tuple[Any, int]]:
    factory: Any = Factory.forProtocol(SocksServer)
    factory.noisy, factory.replies, factory.silent = False, list(replies), silent
    factory.connections, factory.lost = [], 0
    async with listening(factory) as port:
        yield factory, port
        await until(lambda: factory.lost == len(factory.connections))


class TestSocks:
    """RFC 1928 §3, §4 and §6, RFC 1929 §2: a client through a SOCKS5 proxy, over real TCP."""

    @BOTH_WAYS
    @pytest.mark.parametrize("scheme", ["socks5", "SOCKS5H"])
    @leaving_nothing
    async def test_the_proxy_resolves_the_name(self, scheme: str, secure: bool) -> None:
        async with serving(secure=secure) as url, socks() as (proxy, port):
            ws = await connect(url, protocol=Noting, proxy=f"{scheme}://127.0.0.1:{port}", tls=trusting())
            ws.send("hello")
            await until(lambda: ws.heard[1:])
            assert ws.heard == ["opened", "hello"]
            assert proxy.connections[0].received[3:] == (
                b"\x05\x01\x00\x03\x09localhost" + int(url.split(":")[2].split("/")[0]).to_bytes(2, "big")
            )
            await ws.close()

    @leaving_nothing
    async def test_user_and_password_are_sent_when_asked_for(self) -> None:
        async with socks(b"\x05\x02", b"\x01\x01") as (proxy, port):
            connecting = connect("ws://h/", protocol=Noting, proxy=f"socks5://us%40er:pass@127.0.0.1:{port}")
            failure = await failure_of(connecting)
            assert str(failure) == "The SOCKS5 proxy does not connect: the user name or the password is wrong"
            assert proxy.connections[0].received == b"\x05\x02\x00\x02" + b"\x01\x05us@er\x04pass"

    @BOTH_WAYS
    @pytest.mark.parametrize(
        ("replies", "expected"),
        [
            ([b"\x05\xff"], SocksDeclined),
            ([b"\x05\x00", b"\x05\x05\x00\x01\0\0\0\0\0\0"], SocksDeclined),
            ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], SocksDeclined),
        ],
    )
    @leaving_nothing
    async def test_a_proxy_that_does_not_connect_is_reported(
        self, replies: list[bytes], expected: Any, secure: bool
    ) -> None:
        async with socks(*replies) as (_, port):
            connecting = connect(f"ws{'s' * secure}://h/", protocol=Noting, proxy=f"socks5://127.0.0.1:{port}")
            assert type(await failure_of(connecting)) is expected

    @leaving_nothing
    async def test_a_silent_proxy_meets_the_handshake_timeout(self) -> None:
        async with socks(silent=True) as (factory, port):
            proxy, clock = f"socks5://127.0.0.1:{port}", ClockedReactor()
            timeouts = Timeouts(handshake=10.0)
            connecting = connect("ws://h/", protocol=Noting, reactor=clock, proxy=proxy, timeouts=timeouts)
            await until(lambda: factory.connections)
            clock.advance(11.0)
            assert type(await failure_of(connecting)) is HandshakeTimeout

    @leaving_nothing
    async def test_a_response_in_the_segment_of_the_reply_is_read(self) -> None:
        reply = b"\x05\x00\x00\x01\0\0\0\0\0\0HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        async with socks(b"\x05\x00", reply) as (_, port):
            failure: Any = await failure_of(connect("ws://h/", protocol=Noting, proxy=f"socks5://127.0.0.1:{port}"))
            assert failure.status == 404

    @pytest.mark.parametrize(("code", "retryable"), [(5, True), (4, True), (2, False), (None, False)])
    def test_a_temporary_error_of_a_proxy_is_retryable(self, code: int | None, retryable: bool) -> None:
        assert is_retryable(Failure(SocksDeclined("x", code))) is retryable


VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


class TestEnvironment:
    """``proxy="env"``: the environment variables choose the proxy, as they do for curl."""

    @pytest.mark.parametrize(
        ("variables", "url", "host"),
        [
            ({}, "wss://h/", None),
            ({"https_proxy": "http://p:1"}, "wss://h/", "p"),
            ({"HTTPS_PROXY": "http://p:1"}, "wss://h/", "p"),
            ({"https_proxy": "http://p:1", "http_proxy": "http://q:1"}, "ws://h/", "p"),
            ({"http_proxy": "http://q:1"}, "ws://h/", "q"),
            ({"http_proxy": "http://q:1"}, "wss://h/", None),
            ({"all_proxy": "socks5://s:1"}, "wss://h/", "s"),
            ({"all_proxy": "socks5://s:1", "https_proxy": "http://p:1"}, "wss://h/", "p"),
            ({"https_proxy": "p:1"}, "wss://h/", "p"),
            ({"https_proxy": ""}, "wss://h/", None),
            ({"https_proxy": "http://p:1", "no_proxy": "h"}, "wss://h/", None),
            ({"https_proxy": "http://p:1", "no_proxy": "*"}, "wss://h/", None),
            ({"https_proxy": "http://p:1", "no_proxy": "example.com, other"}, "wss://a.example.com/", None),
            ({"https_proxy": "http://p:1", "no_proxy": ".example.com"}, "wss://a.example.com./", None),
            ({"https_proxy": "http://p:1", "no_proxy": "h:444"}, "wss://h/", "p"),
            ({"https_proxy": "http://p:1", "no_proxy": "h:443"}, "wss://h/", None),
            ({"https_proxy": "http://p:1", "no_proxy": "ample.com"}, "wss://example.com/", "p"),
            ({"https_proxy": "http://p:1", "no_proxy": "127.0.0.1"}, "wss://127.0.0.1:5/", None),
            # A client of a CGI program could set HTTP_PROXY with a Proxy field.
            ({"HTTP_PROXY": "http://q:1", "REQUEST_METHOD": "GET"}, "ws://h/", None),
        ],
    )
    def test_the_environment_variables_select_the_proxy(
        self, environment: pytest.MonkeyPatch, variables: dict[str, str], url: str, host: str | None
    ) -> None:
        for name, value in variables.items():
            environment.setenv(name, value)
        proxy = proxy_from_environment(WebSocketURL.parse(url))
        assert (proxy and proxy.host) == host

    def test_the_error_for_a_bad_variable_shows_no_password(self, environment: pytest.MonkeyPatch) -> None:
        environment.setenv("https_proxy", "ftp://user:secret@p")
        with pytest.raises(ValueError) as caught:
            proxy_from_environment(WebSocketURL.parse("wss://h/"))
        told = "'ftp://p' does not begin with http://, https:// or socks5://"
        assert str(caught.value) == f"the environment's https_proxy: {told}"

    @leaving_nothing
    async def test_the_environment_is_read_at_each_connection(self, environment: pytest.MonkeyPatch) -> None:
        opened = b"HTTP/1.1 200 OK\r\n\r\n"
        proxy = Script(lambda ws, head: ws.write(opened if head.startswith(b"CONNECT ") else switching(head)))
        async with proxy.listening() as port:
            environment.setenv("http_proxy", f"http://u:p@127.0.0.1:{port}")
            ws = await connect("ws://server.invalid/", protocol=Noting, proxy="env")
            ws.abort()
            environment.setenv("no_proxy", "localhost")
            refused = connect("ws://localhost:1/", protocol=Noting, proxy="env")
            assert type(await failure_of(refused)) is error.ConnectionRefusedError
            assert [head.split(b"\r\n")[0] for head in proxy.requests] == [
                b"CONNECT server.invalid:80 HTTP/1.1",
                b"GET / HTTP/1.1",
            ]

    @leaving_nothing
    async def test_the_environment_is_not_read_without_proxy(self, environment: pytest.MonkeyPatch) -> None:
        environment.setenv("all_proxy", "socks5://127.0.0.1:1")
        async with serving() as url:
            ws = await connect(url, protocol=Noting)
            await ws.close()


class TestParse:
    """The URL of a proxy."""

    @pytest.mark.parametrize(
        ("text", "parts"),
        [
            ("http://p", ("p", 80, False, False, "", "")),
            ("https://p", ("p", 443, True, False, "", "")),
            ("http://u:p%40@p:3128/", ("p", 3128, False, False, "u", "p@")),
            ("socks5://p", ("p", 1080, False, True, "", "")),
            ("socks5h://u:p@[::1]:9050", ("::1", 9050, False, True, "u", "p")),
            ("http://b\u00fccher.example", ("xn--bcher-kva.example", 80, False, False, "", "")),
            (" http://p ", ("p", 80, False, False, "", "")),
        ],
    )
    def test_each_part_of_a_url_is_parsed(self, text: str, parts: tuple[Any, ...]) -> None:
        proxy = parse_proxy(text)
        assert isinstance(proxy, Proxy)
        assert (proxy.host, proxy.port, proxy.secure, proxy.socks, proxy.user, proxy.password) == parts
