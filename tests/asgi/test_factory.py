"""Tests of `ASGIFactory` in memory: scopes, handshakes, messages, flow control, closing, and the lifespan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.web.resource import Resource
from twisted.web.static import Data

from twisted_beastws import ASGIFactory, Headers, Limits, Request, Response, TrustedProxies
from twisted_beastws.asgi import Disconnected
from twisted_beastws.testing import Frame, ScriptedPeer, scripted_client, upgrade_request

from ..support.inside import inside

Event = dict[str, Any]
WAITED: list[Deferred[None]] = []


@pytest.fixture(autouse=True)
def without_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run applications without asyncio's Tasks, as on any other reactor: they go on inside of each call.

    ``test_tasks.py`` has the tests on an asyncio loop.
    """
    monkeypatch.setattr("twisted_beastws.asgi.conversation.running_loop", lambda: None)


class Application:
    """An application that runs the test's coroutine ``conversation``, and records its scopes and received events."""

    def __init__(self, conversation: Callable[..., Any], lifespan: Callable[..., Any] | None = None) -> None:
        self.conversation = conversation
        self.lifespan = lifespan
        self.scopes: list[Any] = []
        self.received: list[Event] = []
        self.raised: list[BaseException] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            if self.lifespan is None:
                raise NotImplementedError
            await self.lifespan(scope, receive, send)
            return
        self.scopes.append(scope)

        async def noted() -> Event:
            event: Event = await receive()
            self.received.append(event)
            return event

        try:
            await self.conversation(noted, send)
        except BaseException as error:
            self.raised.append(error)
            raise


async def accepts(receive: Any, send: Any) -> None:
    assert await receive() == {"type": "websocket.connect"}
    await send({"type": "websocket.accept"})


def receiving_after(later: Deferred[None]) -> Any:
    """Return an application that accepts at once, and receives until the end once ``later`` fires."""

    async def conversation(receive: Any, send: Any) -> None:
        await accepts(receive, send)
        await later
        while (await receive())["type"] == "websocket.receive":
            pass

    return conversation


async def echoes(receive: Any, send: Any) -> None:
    await accepts(receive, send)
    while (event := await receive())["type"] == "websocket.receive":
        await send({**event, "type": "websocket.send"})


def serve(conversation: Any, *, lifespan: Any = None, **options: Any) -> tuple[Application, ASGIFactory]:
    application = Application(conversation, lifespan)
    return application, ASGIFactory(application, clock=Clock(), **options)


def ask(
    factory: ASGIFactory, target: str = "/", headers: dict[str, str] | None = None
) -> tuple[ScriptedPeer[Any], bytes]:
    """Send a handshake; return the client and the head of the response."""
    peer = scripted_client(factory, opened=False)
    peer.send(upgrade_request(target, headers=headers or {}))
    return peer, peer.read_head()


class TestScope:
    """The scope of a connection, as the ASGI specification defines it."""

    def test_the_scope_has_all_parts_of_the_request(self) -> None:
        application, factory = serve(echoes)
        ask(factory, "/a%20b/c?q=%31", {"Sec-WebSocket-Protocol": "one, two", "X-Twice": "a"})
        (scope,) = application.scopes
        headers = dict(scope.pop("headers"))
        assert headers[b"x-twice"] == b"a" and headers[b"host"] == b"localhost"
        assert scope.pop("client")[0] and scope.pop("server")[0]
        assert scope == {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": "1.1",
            "scheme": "ws",
            "path": "/a b/c",
            "raw_path": b"/a%20b/c",
            "query_string": b"q=%31",
            "root_path": "",
            "subprotocols": ["one", "two"],
            "extensions": {"websocket.http.response": {}},
        }

    def test_the_root_path_goes_before_the_path(self) -> None:
        application, factory = serve(echoes, root_path="/app")
        ask(factory, "/%C3%BC")
        (scope,) = application.scopes
        assert (scope["root_path"], scope["path"], scope["raw_path"]) == ("/app", "/app/ü", b"/app/%C3%BC")

    @pytest.mark.parametrize(
        ("address", "place"),
        [
            (IPv4Address("TCP", "192.0.2.1", 7), ("192.0.2.1", 7)),
            (UNIXAddress("/run/socket"), ("/run/socket", None)),
            (UNIXAddress(None), None),
            (None, None),
        ],
    )
    def test_addresses_are_written_as_asgi_does(self, address: Any, place: Any) -> None:
        from twisted_beastws.asgi.events import place_of

        assert place_of(address) == place

    @pytest.mark.parametrize(
        ("networks", "values", "root_path"),
        [
            (["192.0.2.1"], ["/shop/"], "/shop"),
            (["192.0.2.1"], ["/a%20b"], "/a b"),
            (["192.0.2.1"], [], "/app"),
            (["192.0.2.1"], ["/one", "/two"], "/app"),
            (["192.0.2.1"], ["shop"], "/app"),
            (["192.0.2.1"], ["//evil.example"], "/app"),
            (["192.0.2.1"], ["/%FF"], "/app"),
            (["192.0.2.1"], ["/a%0Ab"], "/app"),
            (["198.51.100.1"], ["/shop"], "/app"),
        ],
    )
    def test_a_trusted_proxy_forwards_the_root_path(
        self, networks: list[str], values: list[str], root_path: str
    ) -> None:
        request = Request("GET", "/", "1.1", Headers({"X-Forwarded-Prefix": values} if values else {}))
        transport = StringTransport(peerAddress=IPv4Address("TCP", "192.0.2.1", 4711))
        _, factory = serve(echoes, root_path="/app")
        factory.trust_proxies(TrustedProxies(networks, prefix=True))
        assert factory.root_path_of(request, transport) == root_path
        factory.trust_proxies(TrustedProxies(networks))
        assert factory.root_path_of(request, transport) == "/app"

    @pytest.mark.parametrize("root_path", ["app", "/app/", "/"])
    def test_an_invalid_root_path_is_refused(self, root_path: str) -> None:
        with pytest.raises(ValueError, match="give a path such as /app"):
            serve(echoes, root_path=root_path)

    @pytest.mark.parametrize("wrong", [{"application": 3}, {"application": print, "default": "page"}])
    def test_a_wrong_argument_is_refused(self, wrong: Any) -> None:
        with pytest.raises(TypeError, match="give a"):
            ASGIFactory(**wrong)


class TestHandshake:
    """``websocket.accept``, ``websocket.close`` and a response, before the connection opens."""

    def test_accept_chooses_a_subprotocol_and_adds_headers(self) -> None:
        async def conversation(receive: Any, send: Any) -> None:
            await send(
                {
                    "type": "websocket.accept",
                    "subprotocol": "two",
                    "headers": [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"connection", b"close")],
                }
            )
            await receive()

        _, factory = serve(conversation)
        _, head = ask(factory, headers={"Sec-WebSocket-Protocol": "one, two"})
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"\r\nSec-WebSocket-Protocol: two\r\n" in head
        assert head.count(b"\r\nSet-Cookie: ") == 2 and b"Connection: Upgrade\r\n" in head
        assert factory.accepting == {}

    def test_close_refuses_with_403(self) -> None:
        async def conversation(receive: Any, send: Any) -> None:
            await send({"type": "websocket.close", "code": 1000})

        application, factory = serve(conversation)
        peer, head = ask(factory)
        assert head.startswith(b"HTTP/1.1 403 ")
        peer.read()
        # The HTTP connection stays open, and the next request runs the application again.
        peer.send(upgrade_request("/again"))
        assert peer.read_head().startswith(b"HTTP/1.1 403 ")
        assert [scope["path"] for scope in application.scopes] == ["/", "/again"]

    def test_the_application_can_refuse_with_its_own_response(self) -> None:
        async def conversation(receive: Any, send: Any) -> None:
            start = {"type": "websocket.http.response.start", "status": 418, "headers": [(b"x-a", b"b")]}
            await send(start)
            await send({"type": "websocket.http.response.body", "body": b"tea", "more_body": True})
            await send({"type": "websocket.http.response.body", "body": b"pot"})

        _, factory = serve(conversation)
        peer, head = ask(factory)
        assert head.startswith(b"HTTP/1.1 418 ") and b"\r\nX-A: b\r\n" in head and b"\r\nContent-Length: 6\r\n" in head
        assert peer.read() == b"teapot"

    def test_a_subprotocol_that_the_client_did_not_offer_is_answered_500(self, logged: Any) -> None:
        async def conversation(receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept", "subprotocol": "three"})

        application, factory = serve(conversation)
        _, head = ask(factory, headers={"Sec-WebSocket-Protocol": "one"})
        assert head.startswith(b"HTTP/1.1 500 ")
        assert len(logged(Exception)) >= 1
        _ = application

    @pytest.mark.parametrize(
        "events",
        [
            [{"type": "websocket.send", "text": "a"}],
            [{"type": "websocket.http.response.body"}],
            [{"type": "websocket.accept", "headers": [(b"a b", b"c")]}],
            [{"type": "websocket.accept", "headers": [(b"a", b"b\r\nc: d")]}],
            [{"type": "websocket.accept", "headers": [("a", "b")]}],
            [{"type": "http.response.start"}],
        ],
    )
    def test_a_mistake_before_the_answer_is_answered_500(self, events: list[Event], logged: Any) -> None:
        async def conversation(receive: Any, send: Any) -> None:
            for event in events:
                await send(event)

        _, factory = serve(conversation)
        _, head = ask(factory)
        assert head.startswith(b"HTTP/1.1 500 ")
        assert len(logged(RuntimeError)) == 1

    def test_an_exception_before_the_answer_is_answered_500(self, logged: Any) -> None:
        async def conversation(receive: Any, send: Any) -> None:
            raise KeyError("a")

        _, factory = serve(conversation)
        assert ask(factory)[1].startswith(b"HTTP/1.1 500 ")
        assert len(logged(KeyError)) == 1

    def test_a_return_before_the_answer_is_answered_500(self) -> None:
        async def conversation(receive: Any, send: Any) -> None: ...

        _, factory = serve(conversation)
        assert ask(factory)[1].startswith(b"HTTP/1.1 500 ")

    def test_the_decorator_of_the_caller_runs_as_well(self) -> None:
        def decorator(response: Response) -> None:
            response.headers.setRawHeaders("X-Ours", ["yes"])

        _, factory = serve(echoes, decorator=decorator)
        assert b"\r\nX-Ours: yes\r\n" in ask(factory)[1]

    def test_a_client_that_leaves_before_the_answer_is_a_disconnect(self) -> None:
        async def conversation(receive: Any, send: Any) -> None:
            await receive()
            await receive()

        application, factory = serve(conversation)
        peer = scripted_client(factory, opened=False)
        peer.send(upgrade_request("/"))
        peer.cut()
        assert application.received[1] == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
        assert factory.conversations == set()

    def test_a_request_for_no_websocket_is_answered_404(self) -> None:
        _, factory = serve(echoes)
        peer = scripted_client(factory, opened=False)
        peer.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert peer.read_head().startswith(b"HTTP/1.1 404 ")
        assert peer.read() == b"This port serves only the WebSockets of an ASGI application, and no pages.\n"

    def test_a_resource_answers_requests_for_no_websocket(self) -> None:
        root = Resource()
        root.putChild(b"", Data(b"the page", "text/plain"))
        _, factory = serve(echoes, default=root)
        for request, answer in (
            (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"the page"),
            (upgrade_request("/"), b"HTTP/1.1 101 "),
        ):
            transport = StringTransport()
            protocol = factory.buildProtocol(transport.getPeer())
            protocol.makeConnection(transport)
            protocol.dataReceived(request)
            assert answer in transport.value()


class TestMessages:
    """``websocket.receive`` and ``websocket.send``, with backpressure."""

    def test_text_and_bytes_are_echoed(self) -> None:
        application, factory = serve(echoes)
        peer, _ = ask(factory)
        peer.send(Frame.text("a"), Frame.binary(b"b"))
        peer.expect(Frame.text("a"), Frame.binary(b"b"))
        assert application.received[1:] == [
            {"type": "websocket.receive", "text": "a"},
            {"type": "websocket.receive", "bytes": b"b"},
        ]

    def test_the_connect_comes_first_even_if_the_application_receives_late(self) -> None:
        later: Deferred[None] = Deferred()

        async def conversation(receive: Any, send: Any) -> None:
            await send({"type": "websocket.accept"})
            await later
            await receive()
            await receive()

        application, factory = serve(conversation)
        peer, _ = ask(factory)
        peer.send(Frame.text("a"))
        later.callback(None)
        assert [event["type"] for event in application.received] == ["websocket.connect", "websocket.receive"]

    def test_messages_sent_before_the_accept_are_delivered_after_it(self) -> None:
        later: Deferred[None] = Deferred()

        async def conversation(receive: Any, send: Any) -> None:
            await later
            await echoes(receive, send)

        _, factory = serve(conversation)
        peer = scripted_client(factory, opened=False)
        peer.send(upgrade_request("/"), Frame.text("early"))
        later.callback(None)
        assert peer.read_head().startswith(b"HTTP/1.1 101 ")
        peer.flush()
        peer.expect(Frame.text("early"))

    def test_an_application_that_does_not_receive_pauses_the_reading(self) -> None:
        later: Deferred[None] = Deferred()
        application, factory = serve(receiving_after(later), limits=Limits(max_queued=4))
        peer, _ = ask(factory)
        for number in range(3):
            peer.send(Frame.text(str(number)))
        assert not inside(peer.protocol).reading.paused
        peer.send(Frame.text("3"))
        peer.send(Frame.text("4"))
        # This uses a private attribute, because no public name shows the pause.
        assert inside(peer.protocol).reading.paused
        assert len(application.received) == 1
        later.callback(None)
        peer.advance(0)
        assert [event["text"] for event in application.received[1:]] == ["0", "1", "2", "3", "4"]

    def test_send_waits_for_a_client_that_does_not_read(self, connect: Any) -> None:
        sent: list[int] = []

        async def conversation(receive: Any, send: Any) -> None:
            await accepts(receive, send)
            for number in range(5):
                await send({"type": "websocket.send", "bytes": bytes(1000)})
                sent.append(number)
            await receive()

        _, factory = serve(conversation, limits=Limits(high_water=1500, low_water=100))
        peer = connect(factory=factory, opened=False)
        peer.transport.stall()
        peer.sends(peer.HEAD)
        assert sent == [0]
        peer.transport.flow()
        assert sent == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize(
        "event",
        [{"type": "websocket.send"}, {"type": "websocket.accept"}, {"type": "websocket.send", "text": 3}],
    )
    def test_a_mistake_closes_with_1011(self, event: Event, logged: Any) -> None:
        async def conversation(receive: Any, send: Any) -> None:
            await accepts(receive, send)
            await send(event)

        _, factory = serve(conversation)
        peer, _ = ask(factory)
        peer.expect(Frame.close(1011))
        assert len(logged(Exception)) == 1


class TestEnd:
    """``websocket.disconnect``, and the end of the application."""

    def test_a_close_of_the_client_is_a_disconnect(self) -> None:
        application, factory = serve(echoes)
        peer, _ = ask(factory)
        peer.send(Frame.close(3001, "done"))
        assert application.received[-1] == {"type": "websocket.disconnect", "code": 3001, "reason": "done"}
        assert factory.conversations == set()

    def test_messages_are_delivered_before_the_disconnect(self) -> None:
        later: Deferred[None] = Deferred()
        application, factory = serve(receiving_after(later))
        peer, _ = ask(factory)
        peer.send(Frame.text("a"), Frame.close())
        later.callback(None)
        assert [event["type"] for event in application.received] == [
            "websocket.connect",
            "websocket.receive",
            "websocket.disconnect",
        ]

    def test_the_application_closes_with_its_code_and_reason(self) -> None:
        async def conversation(receive: Any, send: Any) -> None:
            await accepts(receive, send)
            await send({"type": "websocket.close", "code": 4000, "reason": "enough"})

        _, factory = serve(conversation)
        peer, _ = ask(factory)
        peer.expect(Frame.close(4000, "enough"))

    def test_an_application_that_returns_closes_with_1000(self) -> None:
        _, factory = serve(accepts)
        peer, _ = ask(factory)
        peer.expect(Frame.close(1000))

    def test_an_application_that_raises_closes_with_1011(self, logged: Any) -> None:
        async def conversation(receive: Any, send: Any) -> None:
            await accepts(receive, send)
            raise KeyError("a")

        _, factory = serve(conversation)
        peer, _ = ask(factory)
        peer.expect(Frame.close(1011))
        assert len(logged(KeyError)) == 1

    def test_sending_after_the_end_raises_an_oserror_that_is_not_logged(self, logged: Any) -> None:
        later: Deferred[None] = Deferred()

        async def conversation(receive: Any, send: Any) -> None:
            await accepts(receive, send)
            await later
            await send({"type": "websocket.send", "text": "a"})

        application, factory = serve(conversation)
        peer, _ = ask(factory)
        peer.cut()
        later.callback(None)
        assert [type(error) for error in application.raised] == [Disconnected]
        assert isinstance(application.raised[0], OSError)

    def test_an_application_that_does_not_return_is_cancelled(self) -> None:
        never: Deferred[None] = Deferred()

        async def conversation(receive: Any, send: Any) -> None:
            await accepts(receive, send)
            await never

        _, factory = serve(conversation, close_timeout=5)
        peer, _ = ask(factory)
        peer.cut()
        peer.advance(4.9)
        assert len(factory.conversations) == 1
        peer.advance(0.2)
        assert factory.conversations == set()
        assert never.called


class TestLifespan:
    """The lifespan protocol of ASGI."""

    @staticmethod
    async def good(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "lifespan.startup"
        scope["state"]["database"] = "open"
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        scope["state"]["database"] = "closed"
        await send({"type": "lifespan.shutdown.complete"})

    def test_each_connection_has_a_copy_of_the_state(self) -> None:
        application, factory = serve(echoes, lifespan=self.good)
        ask(factory)
        ask(factory)
        first, second = (scope["state"] for scope in application.scopes)
        assert first == second == {"database": "open"} and first is not second

    def test_connections_are_accepted_after_the_startup(self) -> None:
        later: Deferred[None] = Deferred()

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await later
            await send({"type": "lifespan.startup.complete"})
            await receive()

        application, factory = serve(echoes, lifespan=slow)
        peer = scripted_client(factory, opened=False)
        peer.send(upgrade_request("/"))
        assert application.scopes == []
        later.callback(None)
        assert peer.read_head().startswith(b"HTTP/1.1 101 ")

    def test_draining_ends_with_the_shutdown(self) -> None:
        application, factory = serve(echoes, lifespan=self.good)
        peer, _ = ask(factory)
        drained = factory.drain()
        peer.expect(Frame.close(1001, "the server is shutting down"))
        assert not drained.called
        peer.send(Frame.close(1001))
        assert drained.called
        assert application.received[-1]["code"] == 1001
        assert factory.lifespan.state == {"database": "closed"}

    def test_a_failed_startup_is_answered_503(self, logged: Any) -> None:
        async def bad(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "no database"})

        reported: list[str] = []
        _, factory = serve(echoes, lifespan=bad)
        factory.lifespan.failed = reported.append
        assert ask(factory)[1].startswith(b"HTTP/1.1 503 ")
        assert reported == ["the startup of the ASGI application failed: no database"]
        assert str(factory.lifespan.error) == "no database"

    def test_an_application_without_a_lifespan_has_no_state(self) -> None:
        application, factory = serve(echoes)
        ask(factory)
        assert "state" not in application.scopes[0]
        assert factory.lifespan.stop().called
