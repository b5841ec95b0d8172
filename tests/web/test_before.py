"""Tests of `WebSocketResource.before`: it handles upgrades on any path; the site handles all other requests."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.web.resource import Resource
from twisted.web.server import Site

from twisted_beastws import WebSocketResource, WebSocketServerFactory
from twisted_beastws.testing import upgrade_request

from ..support.protocols import Echo


class Page(Resource):
    """Shows its name and the rest of the path."""

    def __init__(self, name: bytes, leaf: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.name = name
        self.isLeaf = leaf

    def render_GET(self, request: Any) -> bytes:
        return self.name + b" " + b"/".join(request.postpath)


def site(root: Any) -> Any:
    websockets = WebSocketResource(WebSocketServerFactory(Echo, clock=Clock()))
    return Site(websockets.before(root))


def ask(site: Any, request: bytes) -> bytes:
    channel, transport = site.buildProtocol(None), StringTransport()
    transport.abortConnection = transport.loseConnection  # type: ignore[method-assign]
    channel.makeConnection(transport)
    channel.dataReceived(request)
    answer: bytes = transport.value()
    return answer


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()


def tree() -> Page:
    root = Page(b"root")
    root.putChild(b"", Page(b"index"))
    root.putChild(b"docs", Page(b"docs", leaf=True))
    return root


class TestBefore:
    """`WebSocketResource.before`, on a site in memory."""

    @pytest.mark.parametrize("path", ["/", "/docs", "/docs/a", "/no/such/page"])
    def test_an_upgrade_on_any_path_is_a_websocket(self, path: str) -> None:
        for root in (tree(), Page(b"leaf", leaf=True)):
            assert ask(site(root), upgrade_request(path)).startswith(b"HTTP/1.1 101 ")

    @pytest.mark.parametrize(
        ("path", "page"),
        [("/", b"index "), ("/docs", b"docs "), ("/docs/a/b", b"docs a/b"), ("/none", b"No luck")],
    )
    def test_other_requests_are_handled_by_the_site(self, path: str, page: bytes) -> None:
        answer = ask(site(tree()), get(path))
        assert answer.startswith(b"HTTP/1.1 404 " if path == "/none" else b"HTTP/1.1 200 ")
        assert page in answer

    def test_a_leaf_gets_the_whole_path(self) -> None:
        assert ask(site(Page(b"leaf", leaf=True)), get("/a/b")).endswith(b"\r\n\r\nleaf a/b")

    def test_the_site_answers_unknown_methods_itself(self) -> None:
        assert ask(site(tree()), get("/").replace(b"GET", b"PATCH")).startswith(b"HTTP/1.1 501 ")

    def test_the_resource_can_be_a_child(self) -> None:
        root = Page(b"root")
        websockets = WebSocketResource(WebSocketServerFactory(Echo, clock=Clock()))
        root.putChild(b"app", websockets.before(tree()))
        outer = Site(root)
        assert ask(outer, upgrade_request("/app/x")).startswith(b"HTTP/1.1 101 ")
        assert ask(outer, get("/app/docs/a")).endswith(b"\r\n\r\ndocs a")
        assert ask(outer, upgrade_request("/elsewhere")).startswith(b"HTTP/1.1 404 ")

    @pytest.mark.parametrize("given", [None, Page, "page"])
    def test_another_argument_is_refused(self, given: Any) -> None:
        with pytest.raises(TypeError, match=r"^before\(resource\): give a twisted.web resource, not "):
            site(given)
