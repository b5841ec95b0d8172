"""Tests of `twisted_beastws.client.connect` over real TCP and TLS: `connect`, and its endpoint under ClientService."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from OpenSSL import SSL
from twisted.application.internet import ClientService
from twisted.internet import error, reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ServerEndpoint
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLContextFactory,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import optionsForClientTLS
from zope.interface import implementer
from zope.interface.verify import verifyObject

from twisted_beastws import Deflate, Limits, State, Timeouts, WebSocketProtocol, WebSocketServerFactory, errors
from twisted_beastws._version import __version__
from twisted_beastws.client.connect import HANDSHAKES_OWN, WebSocketClientEndpoint, connect
from twisted_beastws.options import kind_of
from twisted_beastws.tls.unverified import UnverifiedTLS
from twisted_beastws.wire.http import Request, Response

from ..support.certificates import identity, identity_pem, trusting
from ..support.handshakes import field, switching
from ..support.inside import inside
from ..support.loopback import (
    Noting,
    Script,
    Scripted,
    connected,
    failure_of,
    leaving_cycles,
    leaving_nothing,
    listening,
    serving,
    turn,
    until,
)
from ..support.ports import free_port
from ..support.states import state_of
from ..support.timing import ClockedReactor
from ..support.ways import BOTH_WAYS
from ..tls.pki import Server, root, trusted

pytestmark = pytest.mark.usefixtures("logged")

TIMEOUTS = Timeouts(handshake=10.0, close=10.0)


def dial(port: int, secure: bool = False, target: str = "/chat", **options: Any) -> Deferred[Any]:
    """Call `connect` for a server on the loopback interface."""
    options.setdefault("reactor", reactor)
    options.setdefault("protocol", Noting)
    if not secure:
        return connect(f"ws://127.0.0.1:{port}{target}", **options)
    options.setdefault("tls", trusting())
    return connect(f"wss://localhost:{port}{target}", **options)


def closing_with(code: int) -> type[WebSocketProtocol]:
    class Closing(WebSocketProtocol):
        def opened(self) -> None:
            self.close(code)

    return Closing


class Declining(WebSocketProtocol):
    def http_requested(self, request: Request) -> Response:
        return Response(404)


class TestOpen:
    """RFC 6455 §4.1: clients and servers of this package over real TCP."""

    @BOTH_WAYS
    @leaving_nothing
    async def test_a_client_and_a_server_can_talk(self, secure: bool) -> None:
        async with serving(secure=secure) as url:
            ws = await connect(url, reactor=reactor, protocol=Noting, tls=trusting() if secure else None)
            assert type(ws) is Noting
            assert ws.state is State.OPEN
            assert ws.response is not None
            assert ws.response.status == 101
            ws.send("hello")
            await until(lambda: ws.heard[1:])
            assert ws.heard == ["opened", "hello"]
            reason = await ws.close(1000, "done")
            assert (reason.code, reason.clean, reason.began) == (1000, True, "local")
            await turn()
            assert Noting.closings == [reason]

    @BOTH_WAYS
    @leaving_nothing
    async def test_messages_are_queued_by_default(self, secure: bool) -> None:
        async with serving(secure=secure) as url:
            ws = await connect(url, tls=trusting() if secure else None)
            assert type(ws) is WebSocketProtocol
            for message in ("text", b"binary", "x" * 300_000):
                ws.send(message)
                assert await ws.receive() == message
            await ws.close()

    @BOTH_WAYS
    @leaving_nothing
    async def test_async_with_closes_at_the_end_of_the_block(self, secure: bool) -> None:
        async with serving(secure=secure) as url:
            async with connect(url, protocol=Noting, tls=trusting() if secure else None) as ws:
                assert state_of(ws) is State.OPEN
                ws.send("hello")
                await until(lambda: ws.heard[1:])
            assert state_of(ws) is State.CLOSED
            assert ws.close_reason is not None and ws.close_reason.sent is not None
            assert (ws.close_reason.sent.code, ws.close_reason.clean) == (1000, True)

    @leaving_nothing
    async def test_async_with_closes_with_1011_if_the_block_raises(self) -> None:
        async with serving() as url:
            with pytest.raises(ZeroDivisionError):
                async with connect(url) as ws:
                    raise ZeroDivisionError
            assert ws.close_reason is not None
            assert ws.close_reason.sent is not None
            assert ws.close_reason.sent.code == 1011

    @leaving_nothing
    async def test_async_with_raises_the_end_of_the_connection(self) -> None:
        async with serving(closing_with(4001)) as url:
            with pytest.raises(errors.ConnectionClosed) as closed:
                async with connect(url) as ws:
                    await ws.receive()
            assert ws.close_reason is not None
            assert closed.value.reason.code == ws.close_reason.code == 4001

    @leaving_nothing
    async def test_async_with_raises_if_the_handshake_fails(self) -> None:
        async with serving(Declining) as url:
            with pytest.raises(errors.UpgradeDeclined):
                async with connect(url):
                    raise AssertionError("the block must not run")

    @BOTH_WAYS
    @leaving_nothing
    async def test_the_servers_close_is_reported(self, secure: bool) -> None:
        class Closing(WebSocketProtocol):
            def opened(self) -> None:
                self.send("bye")
                self.close(4000, "go")

        async with serving(Closing, secure) as url:
            await connect(url, protocol=Noting, tls=trusting() if secure else None)
            await until(lambda: Noting.closings)
            (reason,) = Noting.closings
            assert (reason.code, reason.reason, reason.clean, reason.began) == (4000, "go", True, "peer")

    @pytest.mark.parametrize("agreed", [False, True])
    @leaving_nothing
    async def test_messages_are_compressed_if_both_ends_agree(self, agreed: bool) -> None:
        async with serving(deflate=Deflate() if agreed else None) as url:
            ws = await connect(url, deflate=Deflate(server_max_window_bits=10))
            assert (ws.extensions is not None) == agreed
            for message in ("hello" * 1000, bytes(100_000)):
                ws.send(message)
                assert await ws.receive() == message
            await ws.close()

    @leaving_nothing
    async def test_the_connection_has_the_callers_limits_and_timeouts(self) -> None:
        limits, timeouts = Limits(max_message_size=10), Timeouts(ping_interval=7.0)
        async with serving() as url:
            ws = await connect(url, limits=limits, timeouts=timeouts)
            assert (inside(ws).settings.limits, inside(ws).settings.timeouts) == (limits, timeouts)
            ws.send("x" * 11)
            with pytest.raises(errors.ConnectionClosed) as closed:
                await ws.receive()
            assert closed.value.reason.sent is not None
            assert closed.value.reason.sent.code == 1009
            await until(lambda: ws.state is State.CLOSED)

    @leaving_nothing
    async def test_frames_in_the_segment_of_the_head_are_delivered(self) -> None:
        script = Script(lambda connection, head: connection.write(switching(head) + b"\x81\x02hi" * 1000))
        async with script.listening() as port:
            ws = await dial(port)
            await until(lambda: len(ws.heard) == 1001)
            assert ws.heard == ["opened"] + ["hi"] * 1000
            ws.abort()


@asynccontextmanager
async def asked(answer: Any = None, secure: bool = False, **options: Any) -> Any:
    """Connect a client with these options. Yield it, the server's port and the server's list of requests."""
    script = Script(answer or (lambda connection, head: connection.write(switching(head))))
    async with script.listening(secure) as port:
        ws = await dial(port, secure, **options)
        yield ws, port, script.requests
        ws.abort()


class TestRequest:
    """RFC 6455 §4.1: the fields of the client's request."""

    @leaving_nothing
    async def test_the_request_has_these_bytes(self) -> None:
        async with asked() as (_, port, requests):
            head = requests[0]
            key = field(head, b"Sec-WebSocket-Key")
            assert key is not None
            assert head == (
                b"GET /chat HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: %b\r\nSec-WebSocket-Version: 13\r\nUser-Agent: twisted_beastws/%b\r\n\r\n"
                % (port, key, __version__.encode())
            )

    @pytest.mark.parametrize(
        ("target", "sent"),
        [
            ("", b"/"),
            ("?a=b", b"/?a=b"),
            ("/", b"/"),
            ("/a b/ü?x=ü y", b"/a%20b/%C3%BC?x=%C3%BC%20y"),
            ("/%2f", b"/%2f"),
        ],
    )
    @leaving_nothing
    async def test_the_target_is_sent(self, target: str, sent: bytes) -> None:
        async with asked(target=target) as (_, _, requests):
            assert requests[0].split(b" ")[1] == sent

    @pytest.mark.parametrize(
        ("url", "host"),
        [
            ("ws://example.com/", b"example.com"),
            ("ws://Example.COM:80/", b"example.com"),
            ("ws://example.com:443/", b"example.com:443"),
            ("ws://[::1]/", b"[::1]"),
            ("ws://[2001:DB8::1]:8080/", b"[2001:db8::1]:8080"),
            ("ws://münchen.example/", b"xn--mnchen-3ya.example"),
        ],
    )
    @leaving_nothing
    async def test_the_host_field_is_that_of_the_url_for_any_endpoint(self, url: str, host: bytes) -> None:
        script = Script(lambda connection, head: connection.write(switching(head)))
        async with script.listening() as port:
            ws = await connect(url, endpoint=TCP4ClientEndpoint(reactor, "127.0.0.1", port))
            assert field(script.requests[0], b"Host") == host
            ws.abort()

    @leaving_nothing
    async def test_tls_is_used_over_an_endpoint(self) -> None:
        script = Script(lambda connection, head: connection.write(switching(head)))
        async with script.listening(secure=True) as port:
            endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
            ws = await connect("wss://localhost/chat", endpoint=endpoint, tls=trusting())
            assert field(script.requests[0], b"Host") == b"localhost"
            ws.abort()

    @leaving_nothing
    async def test_the_tls_function_is_called_for_each_host_of_a_redirect(self) -> None:
        hosts: list[str] = []

        def tls(host: str) -> Any:
            hosts.append(host)
            return trusting(host) if host == "localhost" else optionsForClientTLS(host, trustRoot=trusted())

        there = Script(lambda connection, head: connection.write(switching(head)))
        async with there.listening(Server("IP:127.0.0.1", signer=root()).options()) as port:
            elsewhere = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: wss://127.0.0.1:%d/\r\n\r\n" % port
            async with Script(elsewhere).listening(secure=True) as first:
                ws = await connect(f"wss://localhost:{first}/", tls=tls)
                assert hosts == ["localhost", "127.0.0.1"]
                ws.abort()

    @leaving_nothing
    async def test_an_ipv6_address_is_accepted(self) -> None:
        try:
            port = await TCP6ServerEndpoint(reactor, 0, interface="::1").listen(
                WebSocketServerFactory(WebSocketProtocol)
            )
        except error.CannotListenError:
            pytest.skip("IPV6 IS NOT TESTED: this machine has none")
        url = f"ws://[::1]:{port.getHost().port}/chat"
        ws = await connect(url)
        assert ws.request is not None
        assert ws.request.field("Host") == url[5:-5]
        await ws.close()
        await port.stopListening()

    @pytest.mark.parametrize("name", ["User-Agent", "user-agent"])
    @leaving_nothing
    async def test_the_callers_user_agent_takes_the_place_of_ours(self, name: str) -> None:
        async with asked(headers={name: "mine/1"}) as (_, _, requests):
            assert field(requests[0], b"User-Agent") == b"mine/1"

    @leaving_nothing
    async def test_the_given_fields_are_sent(self) -> None:
        headers = {"X-One": "1", "X-Two": ["2", "3"], "Cookie": "a=b"}
        async with asked(headers=headers) as (_, _, requests):
            assert requests[0].endswith(b"\r\nX-One: 1\r\nX-Two: 2\r\nX-Two: 3\r\nCookie: a=b\r\n\r\n")

    @pytest.mark.parametrize("field", sorted(HANDSHAKES_OWN))
    def test_a_field_of_the_handshake_is_refused(self, field: str) -> None:
        name = field.title()
        with pytest.raises(ValueError) as refused:
            connect("ws://localhost/", headers={"X": "y", name: "websocket"})
        assert str(refused.value) == f"headers[{name!r}]: this field is the handshake's own"

    @pytest.mark.parametrize(
        ("headers", "told"),
        [
            (["X: y"], 'headers: give a mapping such as {"X-User": "Ada"}, not list'),
            ("X: y", 'headers: give a mapping such as {"X-User": "Ada"}, not str'),
            ({"X": 1}, "headers['X']: give str or a list of str, not int"),
            ({"X": None}, "headers['X']: give str or a list of str, not NoneType"),
            ({"X": b"y"}, "headers['X']: give str or a list of str, not bytes"),
            ({"X": ["y", 1]}, "headers['X']: give str or a list of str, not list"),
            ({b"X": "y"}, "headers: b'X' is no field's name: give str"),
        ],
    )
    def test_fields_of_another_type_are_refused(self, headers: Any, told: str) -> None:
        with pytest.raises(TypeError) as refused:
            connect("ws://localhost/", headers=headers)
        assert str(refused.value) == told

    @pytest.mark.parametrize("headers", [{"X y": "z"}, {"X": "y\r\nZ: z"}, {"X": ["y", "\0"]}, {"X": "\ud800"}])
    def test_fields_that_cannot_be_sent_are_refused(self, headers: dict[str, list[str]] | dict[str, str]) -> None:
        with pytest.raises(ValueError, match=r"^headers\['X( y)?'\]: "):
            connect("ws://localhost/", headers=headers)

    @pytest.mark.parametrize("name", ["url", "proxy"])
    @pytest.mark.parametrize("value", [b"ws://user:secret@localhost/", 1])
    def test_a_url_of_another_type_is_refused(self, name: str, value: bytes | int) -> None:
        with pytest.raises(TypeError) as refused:
            connect(**{"url": "ws://localhost/", name: value})  # type: ignore[call-overload]
        assert str(refused.value) == f"{name}: give a URL as str, not {type(value).__name__}"

    @pytest.mark.parametrize(
        ("userinfo", "credentials"),
        [("user:pass", b"user:pass"), ("user", b"user:"), (":pass", b":pass"), ("a%40b:%C3%BC%3A", "a@b:ü:".encode())],
    )
    @leaving_nothing
    async def test_the_userinfo_is_sent_as_credentials(self, userinfo: str, credentials: bytes) -> None:
        script = Script(lambda connection, head: connection.write(switching(head)))
        async with script.listening() as port:
            ws = await connect(f"ws://{userinfo}@127.0.0.1:{port}/")
            assert field(script.requests[0], b"Authorization") == b"Basic " + b64encode(credentials)
            assert field(script.requests[0], b"Host") == b"127.0.0.1:%d" % port
            ws.abort()

    @leaving_nothing
    async def test_authorization_takes_the_place_of_userinfo(self) -> None:
        script = Script(lambda connection, head: connection.write(switching(head)))
        async with script.listening() as port:
            ws = await connect(f"ws://user:pass@127.0.0.1:{port}/", headers={"authorization": "Bearer x"})
            assert field(script.requests[0], b"Authorization") == b"Bearer x"
            ws.abort()

    @pytest.mark.parametrize("how", ["plain", "coroutine"])
    @leaving_nothing
    async def test_a_decorator_may_change_the_request(self, how: str) -> None:
        def decorate(request: Request) -> Any:
            assert request.field("X") == "y"
            request.headers.setRawHeaders("X", ["z"])
            return turn() if how == "coroutine" else None

        async with asked(headers={"X": "y"}, decorator=decorate) as (_, _, requests):
            assert field(requests[0], b"X") == b"z"

    @BOTH_WAYS
    @pytest.mark.parametrize("how", ["plain", "coroutine", "breaking"])
    @leaving_nothing
    async def test_a_decorator_that_fails_fails_the_attempt(self, how: str, secure: bool) -> None:
        async def later() -> None:
            await turn()
            raise ZeroDivisionError

        def decorate(request: Request) -> Any:
            if how == "breaking":
                request.headers.removeHeader("Sec-WebSocket-Key")
                return None
            return later() if how == "coroutine" else 1 // 0

        script = Script(None)
        async with script.listening(secure) as port:
            failure = await failure_of(dial(port, secure, decorator=decorate))
            assert type(failure) is (errors.DecoratorError if how == "breaking" else ZeroDivisionError)
            assert script.requests == []
            assert Noting.closings == []

    @pytest.mark.parametrize("chosen", [None, b"a", b"b"])
    @leaving_nothing
    async def test_the_subprotocols_are_offered_and_one_is_chosen(self, chosen: bytes | None) -> None:
        fields = [] if chosen is None else [b"Sec-WebSocket-Protocol: " + chosen]
        answer = lambda connection, head: connection.write(switching(head, *fields))  # noqa: E731
        async with asked(answer, subprotocols=["a", "b"]) as (ws, _, requests):
            assert field(requests[0], b"Sec-WebSocket-Protocol") == b"a, b"
            assert ws.subprotocol == (chosen.decode() if chosen else None)

    @pytest.mark.parametrize("url", ["http:/x", "ftp://h/", "ws:///chat", "ws://h/#f", "ws://h:x/", "h:80", ""])
    def test_a_text_that_is_no_url_is_refused(self, url: str) -> None:
        with pytest.raises(ValueError, match="not a WebSocket URL"):
            connect(url)

    @pytest.mark.parametrize(
        ("proxy", "told"),
        [
            ("localhost:3128", "'localhost:3128' does not begin with http://, https:// or socks5://"),
            ("socks4://h:1080", "'socks4://h:1080' does not begin with http://, https:// or socks5://"),
            ("socks5://u:secret@:1080", "'socks5://:1080' names no host"),
            ("https://u:secret@h:x", "'https://h:x': a port is a number from 0 to 65535"),
            ("ws://h:3128", "'ws://h:3128' does not begin with http://, https:// or socks5://"),
            ("", "'' does not begin with http://, https:// or socks5://"),
            ("HTTP:///x", "'HTTP:///x' names no host"),
            ("https://h:x/", "'https://h:x/': a port is a number from 0 to 65535"),
        ],
    )
    def test_a_text_that_is_no_url_of_a_proxy_is_refused(self, proxy: str, told: str) -> None:
        with pytest.raises(ValueError) as refused:
            connect("ws://h/", proxy=proxy)
        assert str(refused.value) == f"proxy: {told}"

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            ({"endpoint": "tcp:h:80"}, "endpoint: give one as clientFromString(reactor, ...) makes, not {}"),
            ({"endpoint": TCP4ClientEndpoint}, "endpoint: give one as clientFromString(reactor, ...) makes, not {}"),
            ({"decorator": "x"}, "decorator: give a function, not {}"),
            ({"subprotocols": "chat"}, "subprotocols='chat': give a list of names"),
            ({"protocol": Noting()}, "protocol: give a subclass of WebSocketProtocol, or what makes one, not {}"),
            ({"protocol": Protocol}, "protocol: give a subclass of WebSocketProtocol, or what makes one, not {}"),
            ({"protocol": None}, "protocol: give a subclass of WebSocketProtocol, or what makes one, not {}"),
        ],
    )
    def test_options_of_another_type_are_refused(
        self, options: dict[str, None] | dict[str, Noting] | dict[str, str] | dict[str, type[Any]], told: str
    ) -> None:
        with pytest.raises(TypeError) as refused:
            connect("ws://localhost/", **options)
        assert str(refused.value) == told.format(*map(kind_of, options.values()))

    def test_a_subprotocol_that_is_no_token_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"^subprotocols: 'a b' is no name"):
            connect("ws://localhost/", subprotocols=["a b"])


def with_body(how: str) -> bytes:
    head = b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\n"
    if how == "length":
        return head + b"Content-Length: 12\r\n\r\nwho are you?"
    if how == "chunked":
        return head + b"Transfer-Encoding: chunked\r\n\r\n4\r\nwho \r\n8\r\nare you?\r\n0\r\n\r\n"
    return head + b"\r\nwho are you?"


def drops(connection: Scripted, head: bytes) -> None:
    connection.drop()


def closes(*answers: bytes) -> Callable[[Scripted, bytes], None]:
    def answer(connection: Scripted, head: bytes) -> None:
        connection.write(b"".join(answers))
        connection.close()

    return answer


def pours(head: bytes, more: bytes) -> Callable[[Scripted, bytes], None]:
    """Return an answer that sends ``head``, then ``more`` again and again."""

    def answer(connection: Scripted, _: bytes) -> None:
        class Pour:
            def resumeProducing(self) -> None:
                connection.write(more)

            def stopProducing(self) -> None: ...

        connection.write(head)
        transport: Any = connection.transport
        transport.registerProducer(Pour(), False)

    return answer


# Each answer of a server, and the error that it gives the client.
LOST = (error.ConnectionLost, error.ConnectionDone)
ANSWERS: dict[str, tuple[Any, type[BaseException] | tuple[type[BaseException], ...]]] = {
    "drop": (drops, LOST),
    "close": (closes(), LOST),
    "close inside the head": (closes(b"HTTP/1.1 101 Swi"), LOST),
    "close behind an interim answer": (closes(b"HTTP/1.1 100 Continue\r\n\r\n"), LOST),
    "silence": (None, errors.HandshakeTimeout),
    "silence inside the head": (b"HTTP/1.1 101 Swi", errors.HandshakeTimeout),
    "garbage": (b"\0\1\2\3", errors.BadRequest),
    "garbage and a close": (closes(b"220 mail.example ESMTP\r\n\r\n"), errors.BadRequest),
    "a head without end": (pours(b"HTTP/1.1 101 Switching\r\n", b"X: " + b"x" * 70_000), errors.HeadTooLarge),
    "interim answers without end": (pours(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100), errors.BadRequest),
    "a wrong accept": (
        lambda connection, head: connection.write(switching(head).replace(b"Accept: ", b"Accept: x")),
        errors.BadSecAccept,
    ),
    "no accept": (
        lambda connection, head: connection.write(switching(head).replace(b"Sec-WebSocket-Accept", b"X")),
        errors.NoSecAccept,
    ),
    "HTTP/1.0": (
        lambda connection, head: connection.write(switching(head).replace(b"/1.1", b"/1.0")),
        errors.BadHttpVersion,
    ),
    "a subprotocol nobody offered": (
        lambda connection, head: connection.write(switching(head, b"Sec-WebSocket-Protocol: x")),
        errors.BadSubprotocol,
    ),
    "an extension nobody offered": (
        lambda connection, head: connection.write(switching(head, b"Sec-WebSocket-Extensions: permessage-deflate")),
        errors.BadExtension,
    ),
    "401, length": (with_body("length"), errors.UpgradeDeclined),
    "401, chunked": (with_body("chunked"), errors.UpgradeDeclined),
    "401, until the end": (closes(with_body("end")), errors.UpgradeDeclined),
    "401, never ending": (pours(with_body("end"), bytes(70_000)), errors.UpgradeDeclined),
    "401, silence": (with_body("end"), errors.UpgradeDeclined),
    "426": (
        b"HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 8\r\nContent-Length: 0\r\n\r\n",
        errors.UpgradeDeclined,
    ),
}


class TestFails:
    """RFC 6455 §4.1 and §7.1.7: attempts that fail.

    Each failure fires the Deferred once and ends the connection, leaves nothing, and does not call `closed`.
    """

    @BOTH_WAYS
    @pytest.mark.parametrize("name", ANSWERS)
    @leaving_nothing
    async def test_each_failure_has_its_own_error(self, name: str, secure: bool) -> None:
        answer, expected = ANSWERS[name]
        script = Script(answer)
        async with script.listening(secure) as port:
            clock = ClockedReactor()
            connecting = dial(port, secure, reactor=clock, timeouts=TIMEOUTS)
            if "silence" in name:
                await until(lambda: script.requests)
                await turn()
                clock.advance(11.0)
            failure = await failure_of(connecting)
            assert isinstance(failure, expected)
            if name.startswith("401"):
                assert isinstance(failure, errors.UpgradeDeclined)
                assert failure.status == 401
                body = failure.response.body
                assert body == b"who are you?" or (name == "401, never ending" and len(body) == 1 << 16)
            assert len(script.requests) == 1
            assert Noting.closings == []
            await until(lambda: all(connection.lost.called for connection in script.connections))

    @BOTH_WAYS
    @pytest.mark.parametrize("after", [0.0, 0.05])
    @pytest.mark.parametrize("name", ["silence", "silence inside the head", "401, silence", "401, never ending"])
    @leaving_nothing
    async def test_a_cancelled_attempt_drops_its_connection(self, name: str, after: float, secure: bool) -> None:
        script = Script(ANSWERS[name][0] if name != "401, never ending" else with_body("end"))
        async with script.listening(secure) as port:
            connecting = dial(port, secure)
            if after:
                await until(lambda: script.requests)
                await turn(after)
            connecting.cancel()
            assert isinstance(await failure_of(connecting), CancelledError)
            assert Noting.closings == []
            await turn(0.02)
            assert len(script.connections) == bool(after)

    @BOTH_WAYS
    @leaving_nothing
    async def test_a_refused_connection_is_reported(self, secure: bool) -> None:
        failure = await failure_of(dial(free_port(), secure))
        assert type(failure) is error.ConnectionRefusedError

    @leaving_nothing
    async def test_an_unknown_name_is_reported(self) -> None:
        class Nowhere:
            def resolveHostName(self, receiver: Any, name: str, *args: Any, **options: Any) -> Any:
                receiver.resolutionBegan(None)
                receiver.resolutionComplete()

        resolving: Any = reactor
        before = resolving.installNameResolver(Nowhere())
        try:
            failure = await failure_of(connect("ws://nowhere.invalid/", protocol=Noting))
            assert type(failure) is error.DNSLookupError
        finally:
            resolving.installNameResolver(before)

    @pytest.mark.parametrize("cancel", [False, True])
    @leaving_nothing
    async def test_a_connection_that_takes_too_long_is_cancelled(self, cancel: bool) -> None:
        @implementer(IStreamClientEndpoint)
        class Endless:
            def __init__(self) -> None:
                self.cancelled = 0

            def connect(self, factory: Any) -> Deferred[Any]:
                def cancelled(_: object) -> None:
                    self.cancelled += 1

                return Deferred(cancelled)

        endless = Endless()
        clock = ClockedReactor()
        connecting = connect("ws://localhost/", reactor=clock, endpoint=endless, timeouts=TIMEOUTS)
        if cancel:
            connecting.cancel()
        else:
            clock.advance(11.0)
        failure = await failure_of(connecting)
        assert type(failure) is (CancelledError if cancel else errors.HandshakeTimeout)
        assert endless.cancelled == 1

    @leaving_nothing
    async def test_a_client_without_a_timeout_waits(self) -> None:
        clock = ClockedReactor()
        script = Script(None)
        async with script.listening() as port:
            connecting = dial(port, reactor=clock, timeouts=Timeouts(handshake=None))
            await until(lambda: script.requests)
            clock.advance(3600.0)
            script.connections[0].write(switching(script.requests[0]))
            ws = await connecting
            assert ws.state is State.OPEN
            ws.abort()

    @BOTH_WAYS
    @pytest.mark.parametrize("made", [None, "raises"])
    @leaving_nothing
    async def test_a_factory_that_makes_nothing_fails_the_attempt(
        self, made: str | None, secure: bool, logged: Callable[..., list[Any]]
    ) -> None:
        class Making(Factory):
            def buildProtocol(self, addr: Any) -> Any:
                return None if made is None else 1 // 0

        async with Script(None).listening(secure) as port:
            scheme, host, tls = ("wss", "localhost", trusting()) if secure else ("ws", "127.0.0.1", None)
            endpoint = WebSocketClientEndpoint(reactor, f"{scheme}://{host}:{port}/", tls=tls)
            failure = await failure_of(endpoint.connect(Making()))
            assert type(failure) is (error.NoProtocol if made is None else ZeroDivisionError)

    @pytest.mark.parametrize("what", [Noting, Noting(), "x", None])
    @leaving_nothing
    async def test_a_factory_of_another_type_is_refused(self, what: Any) -> None:
        endpoint = WebSocketClientEndpoint(reactor, "ws://localhost/")
        failure = await failure_of(endpoint.connect(what))
        assert type(failure) is TypeError
        assert str(failure) == f"factory: give Factory.forProtocol(YourProtocol), not {kind_of(what)}"

    @BOTH_WAYS
    @pytest.mark.parametrize("service", [False, True])
    @leaving_nothing
    async def test_a_factory_that_makes_another_protocol_is_refused(
        self, service: bool, secure: bool, logged: Callable[..., list[Any]]
    ) -> None:
        class Plain(Protocol):
            def __repr__(self) -> str:
                return "<Plain>"

        async with Script(None).listening(secure) as port:
            scheme, host, tls = ("wss", "localhost", trusting()) if secure else ("ws", "127.0.0.1", None)
            endpoint = WebSocketClientEndpoint(reactor, f"{scheme}://{host}:{port}/", tls=tls)
            if service:
                client = ClientService(endpoint, Factory.forProtocol(Plain))
                client.startService()
                failure = await failure_of(client.whenConnected(failAfterFailures=1))
                await client.stopService()
            else:
                failure = await failure_of(endpoint.connect(Factory.forProtocol(Plain)))
            made = "<_ReconnectingProtocolProxy wrapping <Plain>>" if service else "<Plain>"
            assert type(failure) is TypeError
            assert str(failure) == f"factory: it made {made}, which is no WebSocketProtocol"


class TestLost:
    """RFC 6455 §7.1.5: `closed` is called once when an open connection ends, and nothing is left."""

    @BOTH_WAYS
    @pytest.mark.parametrize("how", ["drop", "close", "abort", "close frame", "garbage", "cancelled too late"])
    @leaving_nothing
    async def test_closed_is_called_once_and_nothing_is_left(self, how: str, secure: bool) -> None:
        script = Script(lambda connection, head: connection.write(switching(head)))
        async with script.listening(secure) as port:
            clock = ClockedReactor()
            connecting = dial(port, secure, reactor=clock, timeouts=TIMEOUTS)
            ws = await connecting
            (connection,) = script.connections
            if how == "drop":
                connection.drop()
            elif how == "close":
                connection.close()
            elif how == "abort":
                ws.abort()
            elif how == "close frame":
                connection.write(b"\x88\x02\x03\xe8")
                connection.close()
            elif how == "garbage":
                connection.write(b"\xff\xff")
            else:
                connecting.cancel()
                assert ws.state is State.OPEN
                ws.close()
                # The server does not answer the close frame.
                clock.advance(11.0)
            await until(lambda: Noting.closings)
            await until(lambda: connection.lost.called)
            await turn(0.02)
            assert len(Noting.closings) == 1


class TestTLS:
    """RFC 6455 §4.1 (5) and §10.6, RFC 9525 §6: TLS and the identity of the server."""

    @leaving_nothing
    async def test_an_untrusted_certificate_is_refused(self) -> None:
        script = Script(lambda connection, head: connection.write(switching(head)))
        async with script.listening(secure=True) as port:
            failure = await failure_of(dial(port, True, tls=None))
            assert type(failure) is errors.PeerNotVerified
            assert failure.why == "no authority that this client trusts has signed it"
            assert script.requests == []

    @leaving_nothing
    async def test_a_certificate_that_the_platform_trusts_is_accepted(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        roots = tmp_path / "roots.pem"
        roots.write_bytes(identity_pem())
        monkeypatch.setenv("SSL_CERT_FILE", str(roots))
        async with serving(secure=True) as url:
            ws = await connect(url)
            await ws.close()

    @leaving_nothing
    async def test_a_certificate_for_another_name_is_refused(self) -> None:
        script = Script(None)
        async with script.listening(secure=True) as port:
            connecting = connect(f"wss://127.0.0.1:{port}/", protocol=Noting, tls=trusting("127.0.0.1"))
            failure = await failure_of(connecting)
            assert str(failure) == "the certificate for 127.0.0.1 cannot be accepted: it is for localhost"
            assert script.requests == []

    @leaving_nothing
    async def test_a_policy_of_the_caller_that_verifies_nothing_is_refused(self) -> None:
        script = Script(None)
        async with script.listening(secure=True) as port:
            failure = await failure_of(dial(port, True, tls=_Anything()))
            assert type(failure) is errors.PeerNotVerified
            assert failure.why == "the TLS settings of this client verify none"
            assert script.requests == []

    @leaving_nothing
    async def test_a_policy_named_unverified_is_accepted(self) -> None:
        async with serving(secure=True) as url:
            ws = await connect(url, tls=UnverifiedTLS)
            await ws.close()

    @leaving_nothing
    async def test_the_client_names_the_server_in_tls(self) -> None:
        named = []
        options = identity().options()
        options.getContext().set_tlsext_servername_callback(
            lambda connection: named.append(connection.get_servername())
        )

        @implementer(IOpenSSLContextFactory)
        class Options:
            def getContext(self) -> Any:
                return options.getContext()

        listens: Any = reactor
        port = listens.listenSSL(0, Script(None), Options(), interface="127.0.0.1")
        try:
            clock = ClockedReactor()
            connecting = dial(port.getHost().port, True, reactor=clock, timeouts=TIMEOUTS)
            await until(lambda: named == [b"localhost"])
            clock.advance(11.0)
            assert type(await failure_of(connecting)) is errors.HandshakeTimeout
        finally:
            await port.stopListening()

    @pytest.mark.parametrize(
        ("greeting", "expected"),
        [
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", SSL.Error),
            (None, errors.HandshakeTimeout),
            ("drop", LOST),
            ("cancel", CancelledError),
        ],
        ids=["plain HTTP", "silence", "drop", "cancel"],
    )
    @leaving_nothing
    async def test_a_server_that_speaks_no_tls_is_reported(
        self, greeting: bytes | str | None, expected: tuple[type[Exception], type[Exception]] | type[Exception]
    ) -> None:
        class Mute(Protocol):
            def dataReceived(self, data: bytes) -> None:
                if greeting == "drop":
                    cast(ITCPTransport, self.transport).abortConnection()
                elif greeting == "cancel":
                    connecting.cancel()
                elif greeting is not None:
                    assert self.transport is not None and isinstance(greeting, bytes)
                    self.transport.write(greeting)
                else:
                    clock.advance(11.0)

        clock = ClockedReactor()
        factory: Any = Factory.forProtocol(Mute)
        factory.noisy = False
        async with listening(factory) as port:
            connecting = dial(port, True, reactor=clock, timeouts=TIMEOUTS)
            assert isinstance(await failure_of(connecting), expected)


@implementer(IOpenSSLClientConnectionCreator)
class _Anything:
    def clientConnectionForTLS(self, protocol: Any) -> Any:
        return SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)


def redirecting(location: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Found\r\nLocation: {location}\r\nContent-Length: 3\r\n\r\nbye".encode()


def by_path(answers: dict[bytes, Any]) -> Callable[[Scripted, bytes], None]:
    """Answer each target with its entry in ``answers``; accept the handshake for any other target."""

    def answer(connection: Scripted, head: bytes) -> None:
        found = answers.get(head.split(b" ")[1])
        connection.write(switching(head) if found is None else found)

    return answer


CREDENTIALS = {"Authorization": "Bearer x", "Cookie": "a=b", "X": "y"}


class TestRedirects:
    """RFC 6455 §4.1 and RFC 9110 §15.4: the client follows redirects."""

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    @leaving_nothing
    async def test_a_redirect_is_followed(self, status: int) -> None:
        script = Script(by_path({b"/chat": redirecting("/other?x=y", status)}))
        async with script.listening() as port:
            ws = await dial(port, headers=CREDENTIALS, decorator=lambda request: request.headers.addRawHeader("D", "d"))
            assert [head.split(b" ")[1] for head in script.requests] == [b"/chat", b"/other?x=y"]
            for head in script.requests:
                fields = (b"Authorization", b"Cookie", b"X", b"D")
                assert [field(head, name) for name in fields] == [b"Bearer x", b"a=b", b"y", b"d"]
            assert field(script.requests[0], b"Sec-WebSocket-Key") != field(script.requests[1], b"Sec-WebSocket-Key")
            assert ws.heard == ["opened"]
            await until(lambda: script.connections[0].lost.called)
            ws.abort()
            await until(lambda: Noting.closings)
            assert len(Noting.closings) == 1

    @pytest.mark.parametrize(
        ("location", "target"),
        [
            ("other", b"/a/other"),
            ("./other", b"/a/other"),
            ("../other", b"/other"),
            ("?q", b"/a/b?q"),
            ("//127.0.0.1:{port}/x", b"/x"),
            ("http://127.0.0.1:{port}/x", b"/x"),
            ("ws://127.0.0.1:{port}/x", b"/x"),
            ("/x#fragment", b"/x"),
        ],
    )
    @leaving_nothing
    async def test_a_redirect_may_be_relative(self, location: str, target: bytes) -> None:
        def answer(connection: Scripted, head: bytes) -> None:
            again = len(script.requests) > 1
            connection.write(switching(head) if again else redirecting(location.format(port=port)))

        script = Script(answer)
        async with script.listening() as port:
            ws = await dial(port, target="/a/b?c")
            assert script.requests[1].split(b" ")[1] == target
            assert field(script.requests[1], b"Host") == b"127.0.0.1:%d" % port
            ws.abort()

    @leaving_nothing
    async def test_userinfo_is_sent_only_to_its_origin(self) -> None:
        other = Script(lambda connection, head: connection.write(switching(head)))
        async with other.listening() as there:
            script = Script(by_path({b"/": redirecting("/x"), b"/x": redirecting(f"ws://127.0.0.1:{there}/")}))
            async with script.listening() as port:
                ws = await connect(f"ws://user:pass@127.0.0.1:{port}/")
                assert all(field(head, b"Authorization") == b"Basic dXNlcjpwYXNz" for head in script.requests)
                assert field(other.requests[0], b"Authorization") is None
                ws.abort()

    @pytest.mark.parametrize("spelt", [str, str.lower, str.upper])
    @leaving_nothing
    async def test_another_origin_gets_only_harmless_headers(self, spelt: Any) -> None:
        secret = ("Authorization", "Cookie", "Cookie2", "Proxy-Authorization", "X-Api-Key", "Origin", "Referer", "X")
        harmless = ("Accept", "Accept-Language", "Cache-Control", "Pragma", "User-Agent")
        headers = {spelt(name): f"the {name}" for name in (*secret, *harmless)} | {"Host": "internal.example"}
        decorated: list[Request] = []
        other = Script(lambda connection, head: connection.write(switching(head)))
        async with other.listening() as there:
            script = Script(redirecting(f"ws://127.0.0.1:{there}/"))
            async with script.listening() as port:
                ws = await dial(port, headers=headers, subprotocols=["token.secret"], decorator=decorated.append)
                assert all(f"the {name}".encode() in script.requests[0] for name in (*secret, *harmless))
                assert field(script.requests[0], b"Host") == b"internal.example"
                assert field(script.requests[0], b"Sec-WebSocket-Protocol") == b"token.secret"
                (request,) = other.requests
                assert not any(f"the {name}".encode() in request for name in secret)
                assert all(f"the {name}".encode() in request for name in harmless)
                assert field(request, b"Host") == b"127.0.0.1:%d" % there
                assert b"secret" not in request and b"internal" not in request
                assert len(decorated) == 1
                ws.abort()

    @leaving_nothing
    async def test_headers_and_subprotocols_are_sent_within_the_origin(self) -> None:
        script = Script(by_path({b"/chat": redirecting("/x"), b"/x": None}))
        async with script.listening() as port:
            ws = await dial(port, headers={"X-Api-Key": "k"}, subprotocols=["a"])
            assert field(script.requests[1], b"X-Api-Key") == b"k"
            assert field(script.requests[1], b"Sec-WebSocket-Protocol") == b"a"
            ws.abort()

    @leaving_nothing
    async def test_credentials_are_sent_again_to_their_origin(self) -> None:
        def answer(connection: Scripted, head: bytes) -> None:
            connection.write(
                redirecting(f"ws://127.0.0.1:{there}/") if head.startswith(b"GET /chat") else switching(head)
            )

        script = Script(answer)
        async with script.listening() as port:
            other = Script(redirecting(f"ws://127.0.0.1:{port}/back"))
            async with other.listening() as there:
                ws = await dial(port, headers=CREDENTIALS)
                assert field(script.requests[1], b"Authorization") == b"Bearer x"
                ws.abort()

    @leaving_nothing
    async def test_a_redirect_to_tls_is_followed(self) -> None:
        async with serving(secure=True) as url:
            script = Script(redirecting(url.replace("wss", "https")))
            async with script.listening() as port:
                ws = await dial(port, tls=trusting)
                assert ws.state is State.OPEN
                await ws.close()

    @pytest.mark.parametrize("scheme", ["ws", "http"])
    @leaving_nothing
    async def test_a_redirect_away_from_tls_is_refused(self, scheme: str) -> None:
        other = Script(lambda connection, head: connection.write(switching(head)))
        async with other.listening() as there:
            script = Script(redirecting(f"{scheme}://localhost:{there}/"))
            async with script.listening(secure=True) as port:
                failure = await failure_of(dial(port, True))
                assert type(failure) is errors.TooManyRedirects
                assert failure.response.field("Location") == f"{scheme}://localhost:{there}/"
            assert other.connections == []

    @BOTH_WAYS
    @pytest.mark.parametrize("most", [0, 1, 5])
    @leaving_nothing
    async def test_the_number_of_redirects_is_limited(self, most: int, secure: bool) -> None:
        script = Script(redirecting("/chat"))
        async with script.listening(secure) as port:
            failure = await failure_of(dial(port, secure, max_redirects=most))
            assert type(failure) is (errors.TooManyRedirects if most else errors.UpgradeDeclined)
            assert (failure.status, failure.response.body) == (302, b"bye")
            assert len(script.requests) == most + 1
            assert Noting.closings == []

    @leaving_nothing
    async def test_as_many_redirects_as_allowed_are_followed(self) -> None:
        script = Script(by_path({b"/chat": redirecting("/1"), b"/1": redirecting("/2")}))
        async with script.listening() as port:
            ws = await dial(port, max_redirects=2)
            assert len(script.requests) == 3
            ws.abort()

    @pytest.mark.parametrize(
        "location", ["", "mailto:a@b", "ws://", "ftp://h/", "http://h:99999/", "http://[", "http://a b/"]
    )
    @leaving_nothing
    async def test_a_redirect_without_a_valid_location_declines_the_upgrade(self, location: str) -> None:
        answer = redirecting(location) if location else b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"
        script = Script(answer)
        async with script.listening() as port:
            failure = await failure_of(dial(port))
            assert type(failure) is errors.UpgradeDeclined
            assert failure.status == 302
            assert len(script.requests) == 1

    @pytest.mark.parametrize("status", [300, 304, 305])
    @leaving_nothing
    async def test_other_statuses_are_no_redirects(self, status: int) -> None:
        script = Script(
            redirecting("/other", status).replace(b"Content-Length: 3\r\n\r\nbye", b"Content-Length: 0\r\n\r\n")
        )
        async with script.listening() as port:
            failure = await failure_of(dial(port))
            assert isinstance(failure, errors.UpgradeDeclined)
            assert failure.status == status
            assert len(script.requests) == 1

    @leaving_nothing
    async def test_a_failure_after_a_redirect_is_reported(self) -> None:
        script = Script(by_path({b"/chat": redirecting("/x"), b"/x": with_body("length")}))
        async with script.listening() as port:
            failure = await failure_of(dial(port))
            assert type(failure) is errors.UpgradeDeclined
            assert failure.status == 401

    @pytest.mark.parametrize("complete", [False, True])
    @leaving_nothing
    async def test_a_cancelled_attempt_follows_no_redirect(self, complete: bool) -> None:
        """This is also true while the redirect's body is still arriving."""
        answers = {b"/chat": redirecting("/x")[: None if complete else -1], b"/x": b""}
        script = Script(by_path(answers))
        async with script.listening() as port:
            connecting = dial(port)
            await until(lambda: len(script.requests) == 1 + complete)
            await turn(0.02)
            connecting.cancel()
            assert type(await failure_of(connecting)) is CancelledError
            await turn(0.05)
            assert len(script.requests) == 1 + complete

    @pytest.mark.parametrize("elsewhere", ["ws://127.0.0.1:{there}/y", "wss://example.com/", "ws://example.com:81/"])
    @leaving_nothing
    async def test_a_redirect_with_an_endpoint_must_stay_within_the_origin(self, elsewhere: str) -> None:
        """A connection to another origin would bypass the endpoint, which may be Tor's."""
        other = Script(lambda connection, head: connection.write(switching(head)))
        async with other.listening() as there:
            location = elsewhere.format(there=there)
            script = Script(by_path({b"/": redirecting("/x"), b"/x": redirecting(location)}))
            async with script.listening() as port:
                endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
                failure = await failure_of(connect("ws://example.com/", protocol=Noting, endpoint=endpoint))
                assert type(failure) is errors.TooManyRedirects
                assert [head.split(b" ")[1] for head in script.requests] == [b"/", b"/x"]
            assert other.connections == []


class TestEndpoint:
    """`WebSocketClientEndpoint` as an `IStreamClientEndpoint`."""

    def test_the_endpoint_provides_its_interface(self) -> None:
        verifyObject(IStreamClientEndpoint, WebSocketClientEndpoint(reactor, "ws://localhost/"))

    def test_the_reactor_may_be_the_installed_one(self) -> None:
        assert WebSocketClientEndpoint(None, "ws://localhost/").reactor is reactor

    @leaving_nothing
    async def test_the_endpoint_has_the_latest_failure(self) -> None:
        script = Script(lambda connection, head: connection.write(answers.pop(0) or switching(head)))
        answers = [with_body("length"), b"\0", None]
        async with script.listening() as port:
            endpoint = WebSocketClientEndpoint(reactor, f"ws://127.0.0.1:{port}/")
            assert endpoint.last_failure is None
            for expected in (errors.UpgradeDeclined, errors.BadRequest):
                await failure_of(endpoint.connect(Factory.forProtocol(Noting)))
                last: Any = endpoint.last_failure
                assert last.check(expected)
            ws: Any = await endpoint.connect(Factory.forProtocol(Noting))
            assert endpoint.last_failure is None
            ws.abort()

    @leaving_nothing
    async def test_the_factory_is_started_and_stopped(self) -> None:
        heard = []

        class Heard(Factory):
            noisy = False
            protocol = Noting

            def startFactory(self) -> None:
                heard.append("start")

            def stopFactory(self) -> None:
                heard.append("stop")

        async with serving() as url:
            ws: Any = await WebSocketClientEndpoint(reactor, url).connect(Heard())
            assert heard == ["start"]
            await ws.close()
            await until(lambda: heard == ["start", "stop"])

    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("ws://user:secret@localhost/a", "ws://localhost/a"),
            ("https://h:8443", "wss://h:8443/"),
            ("ws://[::1]:9/a?token=secret", "ws://[::1]:9/a?..."),
        ],
    )
    def test_the_repr_shows_the_target_and_no_secret(self, url: str, shown: str) -> None:
        assert repr(WebSocketClientEndpoint(reactor, url)) == f"<WebSocketClientEndpoint {shown}>"


class TestClientService:
    """Twisted's `ClientService` with our endpoint."""

    @staticmethod
    def service(url: str, secure: bool, clock: Any = reactor) -> ClientService:
        endpoint = WebSocketClientEndpoint(clock, url, tls=trusting() if secure else None, timeouts=TIMEOUTS)
        return ClientService(endpoint, Factory.forProtocol(Noting), retryPolicy=lambda _: 0.01)

    @BOTH_WAYS
    @leaving_cycles
    async def test_a_client_service_stops_with_a_closing_handshake(self, secure: bool) -> None:
        closed: list[Any] = []

        class Server(WebSocketProtocol):
            def closed(self, reason: Any) -> None:
                closed.append(reason)

        async with serving(Server, secure) as url:
            service = self.service(url, secure)
            service.startService()
            ws = await connected(service)
            assert type(ws) is Noting
            assert ws.heard == ["opened"]
            await service.stopService()
            assert ws.state is State.CLOSED
            await until(lambda: closed)
            assert [(reason.code, reason.clean, reason.began) for reason in closed] == [(1000, True, "peer")]
            assert [(reason.code, reason.clean, reason.began) for reason in Noting.closings] == [(1000, True, "local")]

    @BOTH_WAYS
    @pytest.mark.parametrize("how", ["drop", "close frame", "ours", "lose"])
    @leaving_cycles
    async def test_a_client_service_can_reconnect(self, how: str, secure: bool) -> None:
        script = Script(lambda connection, head: connection.write(switching(head)))
        async with script.listening(secure) as port:
            url = f"wss://localhost:{port}/" if secure else f"ws://127.0.0.1:{port}/"
            clock = ClockedReactor()
            service = self.service(url, secure, clock)
            service.startService()
            for times in range(1, 4):
                ws = await connected(service)
                await until(lambda: len(script.connections) == times)  # noqa: B023
                if how == "drop":
                    script.connections[-1].drop()
                elif how == "close frame":
                    script.connections[-1].write(b"\x88\x02\x03\xe8")
                    script.connections[-1].close()
                else:
                    (ws.close if how == "ours" else ws.transport.loseConnection)()
                    # The server does not answer the close frame.
                    clock.advance(11.0)
                await until(lambda: ws.state is State.CLOSED)  # noqa: B023
            ws = await connected(service)
            assert len(Noting.closings) == 3
            stopped = service.stopService()
            script.connections[-1].close()
            await stopped

    @BOTH_WAYS
    @pytest.mark.parametrize("name", ANSWERS)
    @leaving_cycles
    async def test_a_client_service_is_connected_after_a_failure(self, name: str, secure: bool) -> None:
        """Nothing is logged, so ClientService's state machine met no transition that it does not know."""

        def answer(connection: Scripted, head: bytes) -> None:
            if len(script.requests) > 1:
                connection.write(switching(head))
            elif callable(ANSWERS[name][0]):
                ANSWERS[name][0](connection, head)
            else:
                connection.write(ANSWERS[name][0] or b"")

        script = Script(answer)
        async with script.listening(secure) as port:
            url = f"wss://localhost:{port}/" if secure else f"ws://127.0.0.1:{port}/"
            clock = ClockedReactor()
            service = self.service(url, secure, clock)
            service.startService()
            if "silence" in name:
                await until(lambda: script.requests)
                await turn()
                clock.advance(11.0)
            ws = await connected(service)
            assert ws.heard == ["opened"]
            await turn(0.05)
            assert len(script.connections) == 2
            ws.abort()
            await service.stopService()
            assert len(Noting.closings) == 1

    @BOTH_WAYS
    @pytest.mark.parametrize("name", ["silence", "silence inside the head", "401, silence", "redirect"])
    @leaving_cycles
    async def test_a_client_service_can_stop_while_it_connects(self, name: str, secure: bool) -> None:
        redirect = redirecting("/x")[:-1]
        script = Script(redirect if name == "redirect" else ANSWERS[name][0])
        async with script.listening(secure) as port:
            service = self.service(f"wss://localhost:{port}/" if secure else f"ws://127.0.0.1:{port}/", secure)
            service.startService()
            await until(lambda: script.requests)
            await turn(0.02)
            await service.stopService()
            await until(lambda: script.connections[0].lost.called)
            assert len(script.requests) == 1

    @leaving_cycles
    async def test_a_client_service_can_be_redirected(self) -> None:
        script = Script(by_path({b"/": redirecting("/x")}))
        async with script.listening() as port:
            service = self.service(f"ws://127.0.0.1:{port}/", False)
            service.startService()
            ws = await connected(service)
            assert ws.request.target == "/x"
            await turn(0.05)
            assert len(script.connections) == 2
            stopped = service.stopService()
            script.connections[-1].close()
            await stopped
