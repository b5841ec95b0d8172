"""The service's answers to plain HTTP."""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode, b64encode
from html.parser import HTMLParser

import pytest

from twisted_beastws import Headers, Request, Response
from twisted_beastws.service.site import Site

UPGRADE = {"Connection": ["Upgrade"], "Upgrade": ["websocket"]}


def ask(
    target: str, method: str = "GET", *, chat: str = "/chat", fields: dict[str, list[str]] | None = None
) -> Response:
    response = Site(chat, 1000).answer(Request(method, target, "1.1", Headers(fields or {})))
    assert response is not None
    return response


def is_left_to_the_handshake(target: str, method: str = "GET", *, chat: str = "/chat") -> bool:
    return Site(chat, 1000).answer(Request(method, target, "1.1", Headers(UPGRADE))) is None


class TestPaths:
    """RFC 9110 §9.3 and §15.5: the paths and methods of the service."""

    @pytest.mark.parametrize("target", ["/", "/?", "/?a=/chat", "http://example.com", "http://example.com/?a"])
    def test_the_page_is_at_the_root(self, target: str) -> None:
        assert ask(target).status == 200

    @pytest.mark.parametrize(
        "target", ["/chat", "/chat?", "/chat?room=/", "http://example.com/chat", "ws://h:1/chat?a"]
    )
    @pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
    def test_requests_for_the_chat_are_left_to_the_handshake(self, target: str, method: str) -> None:
        assert is_left_to_the_handshake(target, method)

    @pytest.mark.parametrize("target", ["/chat", "/chat?room=/", "http://example.com/chat"])
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_a_browser_that_opens_the_chat_gets_a_link_to_the_page(self, target: str, method: str) -> None:
        response = ask(target, method, fields={"Connection": ["keep-alive"]})
        assert response.status == 426
        assert response.field("Content-Type") == "text/plain; charset=utf-8"
        assert response.field("X-Content-Type-Options") == "nosniff"
        assert response.body == (
            b"This is the chat's WebSocket endpoint, for WebSocket clients; the page that talks to it is at /\n"
        )
        assert Site("/chat", 1000).answer(Request("POST", target, "1.1", Headers())) is None

    def test_the_method_options_of_the_server_is_answered(self) -> None:
        response = ask("*", "OPTIONS")
        assert (response.status, response.field("Allow"), response.body) == (204, "GET, HEAD", b"")

    @pytest.mark.parametrize(
        "target", ["/nope", "/chat/", "/CHAT", "/chat/x", "//chat", "/ch%61t", "/index.html", "example.com:80"]
    )
    @pytest.mark.parametrize("fields", [{}, UPGRADE])
    def test_every_other_path_is_answered_404(self, target: str, fields: dict[str, list[str]]) -> None:
        response = ask(target, fields=fields)
        assert response.status == 404
        assert response.field("Content-Type") == "text/plain; charset=utf-8"
        room = b"This is no room: its name must be 1 to 64 visible characters, percent-encoded, without a slash\n"
        assert response.body == (
            room if target.startswith("/chat/") else b"There is nothing here; the chat's page is at /\n"
        )

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get"])
    def test_other_methods_are_refused_for_the_page(self, method: str) -> None:
        response = ask("/", method)
        assert response.status == 405
        assert response.field("Allow") == "GET, HEAD"
        assert response.body == b"The chat's page can only be read: GET or HEAD\n"

    def test_a_chat_at_the_root_shares_it_with_the_page(self) -> None:
        assert is_left_to_the_handshake("/", chat="/")
        assert ask("/", chat="/").status == 200
        assert ask("/", "HEAD", chat="/").status == 200
        assert ask("/chat", chat="/", fields=UPGRADE).status == 404


class Inline(HTMLParser):
    """The text of a page's script and style elements, as a browser hashes it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: dict[str, list[str]] = {"script": [], "style": []}
        self._element = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._element = tag

    def handle_endtag(self, tag: str) -> None:
        self._element = ""

    def handle_data(self, data: str) -> None:
        if self._element in self.found:
            self.found[self._element].append(data)


class TestPage:
    """The response with the page."""

    def test_the_page_has_these_fields(self) -> None:
        fields = {
            name: values for name, values in ask("/").headers.getAllRawHeaders() if name != b"Content-Security-Policy"
        }
        assert fields == {
            b"Content-Type": [b"text/html; charset=utf-8"],
            b"X-Content-Type-Options": [b"nosniff"],
            b"Referrer-Policy": [b"no-referrer"],
            b"Cache-Control": [b"no-store"],
        }

    def test_the_policy_allows_only_the_pages_own_script_and_style(self) -> None:
        response = ask("/")
        inline = Inline(response.body.decode()).found
        policy = response.field("Content-Security-Policy")
        assert policy is not None
        directives = {name: values for name, *values in (directive.split() for directive in policy.split("; "))}
        hashes = {
            name: f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
            for name, (text,) in inline.items()
        }
        assert directives == {
            "default-src": ["'none'"],
            "script-src": [hashes["script"]],
            "style-src": [hashes["style"]],
            "img-src": ["data:"],
            "connect-src": ["'self'"],
            "base-uri": ["'none'"],
            "form-action": ["'none'"],
            "frame-ancestors": ["'none'"],
        }
        assert len(b64decode(hashes["script"][8:-1])) == 32

    def test_the_page_has_the_path_of_the_chat_and_the_size_limit(self) -> None:
        assert b'data-path="/chat"' in ask("/").body
        assert b'data-max-message="1000"' in ask("/").body
        assert b'data-path="/a/b;c=%20"' in ask("/", chat="/a/b;c=%20").body
        assert not re.search(rb"\{\{|\}\}", ask("/").body)

    def test_a_path_is_escaped_in_its_attribute(self) -> None:
        body = ask("/", chat="/&amp'\"<x>").body
        assert b'data-path="/&amp;amp&#x27;&quot;&lt;x&gt;"' in body

    def test_each_answer_has_headers_of_its_own(self) -> None:
        site = Site("/chat", 1000)
        request = Request("GET", "/", "1.1", Headers())
        first, second = site.answer(request), site.answer(request)
        assert first is not None and second is not None
        first.headers.removeHeader("Cache-Control")
        assert second.field("Cache-Control") == "no-store"
