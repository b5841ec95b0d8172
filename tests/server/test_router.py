"""Tests of `Router`, which chooses the protocol or factory for each path."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.static import Data

from twisted_beastws import (
    Hub,
    Limits,
    Request,
    Response,
    Router,
    State,
    WebSocketProtocol,
    WebSocketServerFactory,
)
from twisted_beastws.testing import Frame, scripted_client, upgrade_request

MADE: list[str] = []


class Chat(WebSocketProtocol):
    def __init__(self) -> None:
        MADE.append("Chat")
        self.lost = False

    def opened(self) -> None:
        assert self.request is not None
        self.send("in " + self.request.path_parameters["room"])

    def text_received(self, text: str) -> None:
        self.send(text)

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = True


async def feed(ws: WebSocketProtocol) -> None:
    MADE.append("feed")
    async for message in ws:
        ws.send("feed of " + str(message))


@pytest.fixture(autouse=True)
def nothing_made() -> None:
    MADE.clear()


def ask(router: Router, target: str, *, factory: Any = None, **options: Any) -> Any:
    """Return a client that has sent the handshake request for ``target``."""
    peer = scripted_client(factory or WebSocketServerFactory(router, **options), opened=False)
    peer.send(upgrade_request(target))
    return peer


def status(peer: Any) -> bytes:
    head: bytes = peer.read_head()
    return head.split(b" ", 2)[1]


ROUTES: dict[str, Any] = {"/chat/{room}": Chat, "/feed": feed}


class TestPaths:
    """RFC 6455 §4.2.2 (4): the server chooses by the resource name."""

    def test_a_class_and_a_coroutine_serve_their_paths_and_only_they_are_made(self) -> None:
        router = Router(ROUTES)
        peer = ask(router, "/chat/lobby")
        assert status(peer) == b"101"
        peer.expect(Frame.text("in lobby"))
        peer.send(Frame.text("a"))
        peer.expect(Frame.text("a"))
        assert MADE == ["Chat"]
        peer = ask(router, "/feed?since=3")
        assert status(peer) == b"101"
        peer.send(Frame.text("a"))
        peer.expect(Frame.text("feed of a"))
        assert MADE == ["Chat", "feed"]

    @pytest.mark.parametrize(
        ("target", "room"),
        [("/chat/a%20b", "a b"), ("/chat/%C3%BC", "ü"), ("/chat/a%2Fb", "a/b"), ("/chat/x?room=y", "x")],
    )
    def test_a_parameter_is_decoded(self, target: str, room: str) -> None:
        peer = ask(Router(ROUTES), target)
        assert status(peer) == b"101"
        peer.expect(Frame.text("in " + room))

    @pytest.mark.parametrize("target", ["/", "/chat", "/chat/", "/chat/a/b", "/chat/%FF", "/feed/", "/FEED"])
    def test_another_path_is_answered_404_and_keeps_the_connection(self, target: str) -> None:
        peer = ask(Router(ROUTES), target)
        assert status(peer) == b"404"
        peer.read()
        assert MADE == []
        peer.send(upgrade_request("/feed"))
        assert status(peer) == b"101"

    def test_another_method_is_answered_405_with_the_allowed_one(self) -> None:
        peer = scripted_client(WebSocketServerFactory(Router(ROUTES)), opened=False)
        peer.send(b"DELETE /feed HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head = peer.read_head()
        assert head.startswith(b"HTTP/1.1 405 ") and b"\r\nAllow: GET\r\n" in head

    def test_a_get_that_is_no_upgrade_is_answered_426(self) -> None:
        peer = scripted_client(WebSocketServerFactory(Router(ROUTES)), opened=False)
        peer.send(b"GET /feed HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert status(peer) == b"426"

    def test_a_path_without_parameters_goes_first(self) -> None:
        router = Router({"/{name}": Chat, "/feed": feed})
        assert status(ask(router, "/feed")) == b"101"
        assert MADE == ["feed"]

    def test_the_default_serves_all_other_paths(self) -> None:
        router = Router({"/chat/{room}": Chat}, feed)
        assert status(ask(router, "/anything/at/all")) == b"101"
        assert MADE == ["feed"]

    def test_a_page_of_one_target_goes_before_another_target_on_the_same_connection(self) -> None:
        class Page(WebSocketProtocol):
            async def http_requested(self, request: Request) -> Response:
                return Response(200, body=request.method)

        peer = scripted_client(WebSocketServerFactory(Router({"/page": Page, **ROUTES})), opened=False)
        peer.send(b"POST /page HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert status(peer) == b"200"
        peer.read()
        peer.send(upgrade_request("/chat/a"))
        assert status(peer) == b"101"
        peer.expect(Frame.text("in a"))


class TestProtocols:
    """The protocol that a `Router` chose serves the connection."""

    def test_the_protocol_has_the_connection(self) -> None:
        made: list[Any] = []

        class Notes(WebSocketProtocol):
            def connectionMade(self) -> None:
                made.append(self)
                assert self.transport is not None

            def upgrade_requested(self, request: Request) -> Any:
                self.subprotocol = "chat"
                self.user = "ada"
                later: Deferred[None] = Deferred()
                later.callback(None)
                return later

            async def text_received(self, text: str) -> None:
                self.send(f"{self.user} {text} {self.connection_id > 0} {self.state is State.OPEN}")

        peer = scripted_client(WebSocketServerFactory(Router({"/": Notes}), subprotocols=["chat"]), opened=False)
        peer.send(upgrade_request("/", headers={"Sec-WebSocket-Protocol": "chat"}))
        assert b"\r\nSec-WebSocket-Protocol: chat\r\n" in peer.read_head()
        peer.send(Frame.text("a"), Frame.ping(b"b"))
        peer.expect(Frame.text("ada a True True"), Frame.pong(b"b"))
        peer.send(Frame.close())
        assert made[0].close_reason.clean

    def test_the_end_reaches_the_protocol_and_the_server_forgets_it(self) -> None:
        factory = WebSocketServerFactory(Router(ROUTES))
        peer = ask(Router(ROUTES), "/chat/a", factory=factory)
        assert status(peer) == b"101"
        (counted,) = factory.connections
        assert counted.state is State.OPEN
        peer.read()
        peer.send(Frame.close())
        assert factory.connections == set()

    def test_draining_closes_routed_connections(self) -> None:
        factory = WebSocketServerFactory(Router(ROUTES))
        peer = ask(Router(ROUTES), "/feed", factory=factory)
        peer.read_head()
        drained = factory.drain()
        peer.expect(Frame.close(1001, "the server is shutting down"))
        peer.send(Frame.close(1001))
        assert drained.called

    def test_a_routed_protocol_is_a_member_of_a_hub(self) -> None:
        hub = Hub()

        class Member(WebSocketProtocol):
            def opened(self) -> None:
                hub.join(self, "room")

        peer = ask(Router({"/": Member}), "/")
        peer.read_head()
        assert hub.connections == 1
        peer.send(Frame.close())
        assert hub.connections == 0

    def test_a_factory_has_its_own_options_and_knows_its_connections(self) -> None:
        small = WebSocketServerFactory(Chat, limits=Limits(max_message_size=10, max_connections=1))
        router = Router({"/small/{room}": small, "/chat/{room}": Chat})
        outer = WebSocketServerFactory(router)
        peer = ask(router, "/small/a", factory=outer)
        assert status(peer) == b"101"
        (mine,) = small.connections
        assert type(mine) is Chat and mine.factory is small
        assert len(outer.connections) == 1
        second = ask(router, "/small/b", factory=outer)
        assert status(second) == b"503"
        peer.read()
        peer.send(Frame.text("x" * 11))
        assert peer.protocol.close_reason.sent.code == 1009
        peer.send(Frame.close(1009))
        assert small.connections == outer.connections - {second.protocol} == set()
        # The same connection then asks for another route, which has the options of the outer factory.
        second.read()
        second.send(upgrade_request("/chat/a"))
        assert status(second) == b"101"
        second.send(Frame.text("x" * 11))
        second.expect(Frame.text("in a"), Frame.text("x" * 11))

    def test_a_failing_hook_is_answered_500(self, logged: Any) -> None:
        class Fails(WebSocketProtocol):
            def http_requested(self, request: Request) -> None:
                raise KeyError("a")

        assert status(ask(Router({"/": Fails}), "/")) == b"500"
        assert len(logged(KeyError)) == 1


class TestMistakes:
    """Routes that the constructor refuses."""

    @pytest.mark.parametrize(
        ("routes", "text"),
        [
            ({"chat": Chat}, "'chat' is no path: give one that starts with a slash"),
            ({"/a{b}": Chat}, "a parameter stands for a whole segment"),
            ({"/{a}/{a}": Chat}, "give each parameter a name of its own"),
            ({"/{1a}": Chat}, "give each parameter a name of its own"),
            ({"/{a}": Chat, "/{b}": feed}, "'/{a}' and '/{b}' match the same paths"),
        ],
    )
    def test_a_path_that_cannot_be_matched_is_refused(self, routes: Any, text: str) -> None:
        with pytest.raises(ValueError, match=r"^Router: ") as caught:
            Router(routes)
        assert text in str(caught.value)

    @pytest.mark.parametrize("target", [3, "name", Resource, None])
    def test_a_target_that_cannot_serve_is_refused(self, target: Any) -> None:
        with pytest.raises(TypeError, match=r"^Router: '/a': "):
            Router({"/a": target})

    def test_a_class_that_reads_requests_itself_is_refused(self) -> None:
        class ByHand(WebSocketProtocol):
            def serve(self) -> None: ...

        with pytest.raises(TypeError, match=r"overrides serve\(\)"):
            Router({"/": ByHand})

    def test_routes_that_are_no_mapping_are_refused(self) -> None:
        with pytest.raises(TypeError, match=r"give a mapping such as"):
            Router([Chat])  # type: ignore[arg-type]


class TestPages:
    """A `Router` under twisted.web."""

    @pytest.fixture(autouse=True)
    def lost(self) -> Iterator[None]:
        """Lose the connections: their timeouts are calls of the reactor."""
        self.protocols: list[Any] = []
        yield
        for protocol in self.protocols:
            protocol.connectionLost(Failure(ConnectionDone()))

    def site(self) -> tuple[Any, Any]:
        root = Resource()
        root.putChild(b"", Data(b"the page", "text/plain"))
        return root, WebSocketServerFactory(Router(ROUTES, root))

    def connect(self, factory: Any, request: bytes) -> bytes:
        transport = StringTransport()
        protocol = factory.buildProtocol(transport.getPeer())
        self.protocols.append(protocol)
        protocol.makeConnection(transport)
        protocol.dataReceived(request)
        written: bytes = transport.value()
        return written

    def test_a_resource_and_a_websocket_share_a_site(self) -> None:
        _, factory = self.site()
        answer = self.connect(factory, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and b"the page" in answer
        assert self.connect(factory, b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n").startswith(b"HTTP/1.1 404 ")

    def test_a_socket_opens_and_another_path_is_answered_404(self) -> None:
        _, factory = self.site()
        answer = self.connect(factory, upgrade_request("/chat/a"))
        assert answer.startswith(b"HTTP/1.1 101 ") and answer.endswith(b"in a")
        assert self.connect(factory, upgrade_request("/none")).startswith(b"HTTP/1.1 404 ")
        (mine,) = factory.connections
        assert mine.state is State.OPEN
