"""Tests of `WebSocketServerFactory.add_gate`: gates decide about requests before the protocol's own hooks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Site

from twisted_beastws import Request, Response, Router, WebSocketProtocol, WebSocketResource, WebSocketServerFactory
from twisted_beastws.server.observers.metering import Meter
from twisted_beastws.testing import scripted_client, upgrade_request


class Talk(WebSocketProtocol):
    asked: list[str]

    def http_requested(self, request: Request) -> None:
        factory: Any = self.factory
        factory.asked.append("protocol")

    def text_received(self, text: str) -> None:
        self.send(f"{self.user}: {text}")


def served(*gates: Any, protocol: Any = Talk) -> Any:
    factory: Any = WebSocketServerFactory(protocol, clock=Clock())
    factory.asked = []
    for gate in gates:
        factory.add_gate(gate)
    return factory


def noting(factory: Any, name: str, answer: Any = None) -> Callable[..., Any]:
    def gate(request: Request, ws: WebSocketProtocol) -> Any:
        factory.asked.append(name)
        return answer

    return gate


def status_of(factory: Any, target: str = "/") -> bytes:
    peer = scripted_client(factory, opened=False)
    peer.send(upgrade_request(target))
    head: bytes = peer.read_head()
    return head.split(b" ", 2)[1]


class TestOrder:
    """Gates are asked before the protocol's own hooks, in their order."""

    def test_gates_are_asked_in_their_order_and_then_the_protocol(self) -> None:
        factory = served()
        factory.add_gate(noting(factory, "first"))
        assert status_of(factory) == b"101"
        factory.add_gate(noting(factory, "second"))
        assert status_of(factory) == b"101"
        assert factory.asked == ["first", "protocol", "first", "second", "protocol"]

    def test_the_first_answer_counts(self) -> None:
        factory = served()
        for name, answer in (("first", None), ("second", Response(403)), ("third", None)):
            factory.add_gate(noting(factory, name, answer))
        assert status_of(factory) == b"403"
        assert factory.asked == ["first", "second"]

    def test_a_gate_may_take_time_and_set_the_user(self) -> None:
        pending: Deferred[Response | None] = Deferred()

        async def gate(request: Request, ws: WebSocketProtocol) -> Response | None:
            answer = await pending
            ws.user = "ann"
            return answer

        factory = served(gate)
        peer = scripted_client(factory, opened=False)
        peer.send(upgrade_request())
        assert factory.asked == []
        pending.callback(None)
        peer.flush()
        assert b" 101 " in peer.read_head() and factory.asked == ["protocol"]
        (ws,) = factory.connections
        assert ws.user == "ann"

    def test_a_gate_that_raises_is_answered_500(self, logged: Any) -> None:
        def broken(request: Request, ws: WebSocketProtocol) -> None:
            raise ZeroDivisionError

        assert status_of(served(broken)) == b"500"
        assert status_of(served(lambda request, ws: None, broken)) == b"500"
        assert len(logged(ZeroDivisionError)) == 2

    def test_a_gate_that_raises_fails_read_request_after_a_500(self, logged: Any) -> None:
        class ByHand(WebSocketProtocol):
            def serve(self) -> None:
                self.read_request().addBoth(results.append)

        results: list[Any] = []
        assert status_of(served(lambda request, ws: 1 / 0, protocol=ByHand)) == b"500"
        assert results[0].value.status == 500
        logged(ZeroDivisionError)


class Page(Resource):
    isLeaf = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rendered: list[bytes] = []

    def render_GET(self, request: Any) -> bytes:
        self.rendered.append(request.uri)
        return b"the page"

    def render_POST(self, request: Any) -> Any:
        return request.content.read()

    def render_PUT(self, request: Any) -> bytes:
        raise ZeroDivisionError


def connect(site: Any) -> tuple[Any, Any]:
    channel, transport = site.buildProtocol(None), StringTransport()
    transport.abortConnection = transport.loseConnection  # type: ignore[method-assign]
    channel.makeConnection(transport)
    return channel, transport


def ask(site: Any, method: str = "GET", body: bytes = b"", close: bool = True) -> bytes:
    channel, transport = connect(site)
    end = "Connection: close\r\n" if close else ""
    channel.dataReceived(
        f"{method} /a?b HTTP/1.1\r\nHost: localhost\r\n{end}Content-Length: {len(body)}\r\n\r\n".encode() + body
    )
    answer: bytes = transport.value()
    if not close:
        channel.connectionLost(Failure(ConnectionDone()))
    return answer


WAYS = ("before", "router")


def site_of(way: str, page: Page, *gates: Any) -> Any:
    """Return a site with pages and a factory's WebSockets, and the factory."""
    if way == "router":
        return served(*gates, protocol=Router({"/talk": Talk}, page))
    factory = served(*gates)
    site: Any = Site(WebSocketResource(factory).before(page))
    site.served = factory
    return site


@pytest.mark.parametrize("way", WAYS)
class TestPages:
    """Gates and requests that are no upgrades."""

    def test_a_gate_answers_a_page(self, way: str) -> None:
        page = Page()
        gate = lambda request, ws: Response(401, body=f"{request.method} {request.target}: who?")  # noqa: E731
        answer = ask(site_of(way, page, gate))
        assert answer.startswith(b"HTTP/1.1 401 ") and answer.endswith(b"\r\n\r\nGET /a?b: who?")
        assert page.rendered == []

    def test_a_page_answers_when_all_gates_let_the_request_in(self, way: str) -> None:
        page = Page()
        site = site_of(way, page, lambda request, ws: None, lambda request, ws: None)
        answer = ask(site)
        assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"\r\n\r\nthe page")
        assert page.rendered == [b"/a?b"]

    def test_a_page_gets_the_body_of_its_request(self, way: str) -> None:
        assert ask(site_of(way, Page(), lambda request, ws: None), "POST", b"a body").endswith(b"\r\n\r\na body")

    def test_a_head_request_and_an_unknown_method_are_answered_as_without_a_gate(self, way: str) -> None:
        site = site_of(way, Page(), lambda request, ws: None)
        assert ask(site, "HEAD").startswith(b"HTTP/1.1 200 ") and ask(site, "HEAD").endswith(b"\r\n\r\n")
        assert ask(site, "DELETE").startswith(b"HTTP/1.1 501 ")

    def test_a_page_that_raises_is_answered_500(self, way: str, logged: Any) -> None:
        assert ask(site_of(way, Page(), lambda request, ws: None), "PUT").startswith(b"HTTP/1.1 500 ")
        assert len(logged(ZeroDivisionError)) == 1

    def test_a_gate_may_take_time_and_the_client_may_leave_meanwhile(self, way: str) -> None:
        page, pending = Page(), [Deferred[Any](), Deferred[Any]()]
        waiting = list(pending)
        site = site_of(way, page, lambda request, ws: waiting.pop(0))
        stays, transport = connect(site)
        stays.dataReceived(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        leaves, _ = connect(site)
        leaves.dataReceived(b"GET /left HTTP/1.1\r\nHost: a\r\n\r\n")
        leaves.connectionLost(Failure(ConnectionDone()))
        for each in pending:
            if not each.called:
                each.callback(None)
        assert transport.value().endswith(b"\r\n\r\nthe page") and page.rendered == [b"/"]

    def test_a_gate_that_raises_is_answered_500(self, way: str, logged: Any) -> None:
        page = Page()
        assert ask(site_of(way, page, lambda request, ws: 1 / 0)).startswith(b"HTTP/1.1 500 ")
        assert page.rendered == [] and len(logged(ZeroDivisionError)) == 1

    @pytest.mark.parametrize("later", [False, True])
    def test_a_refused_page_is_counted_as_a_response(self, way: str, later: bool) -> None:
        pending: Deferred[Response] = Deferred()
        site = site_of(way, Page(), lambda request, ws: pending if later else Response(401))
        factory = site if way == "router" else site.served
        meter = Meter()
        factory.add_observer(meter)
        channel, transport = connect(site)
        channel.dataReceived(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        pending.callback(Response(401))
        assert transport.value().startswith(b"HTTP/1.1 401 ")
        assert (meter.responses, meter.handshakes) == ({"401": 1}, {})

    def test_the_connection_is_kept_and_the_factory_forgets_each_page(self, way: str) -> None:
        page, seen = Page(), []
        site = site_of(way, page, lambda request, ws: seen.append(ws))
        channel, transport = connect(site)
        for _ in range(3):
            channel.dataReceived(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert transport.value().count(b"HTTP/1.1 200 ") == 3
        assert len(seen) == 3 and seen[0].factory.connections == set()
        channel.connectionLost(Failure(ConnectionDone()))


class TestTargets:
    """A target of a `Router` that is a factory keeps its own gates and observers."""

    def test_the_gates_of_the_router_and_then_those_of_the_target_decide(self) -> None:
        outer, inner = served(), served()
        inner.add_gate(noting(outer, "inner", Response(403)))
        router = WebSocketServerFactory(Router({"/inner": inner, "/talk": lambda: Talk()}), clock=Clock())
        router.asked = outer.asked  # type: ignore[attr-defined]
        router.add_gate(noting(outer, "outer"))
        assert status_of(router, "/inner") == b"403"
        assert status_of(router, "/talk") == b"101"
        assert outer.asked == ["outer", "inner", "outer", "protocol"]
