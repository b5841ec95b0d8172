"""Tests of `twisted_beastws.wire.handshake`."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.testing import StringTransport
from twisted.web import http

from twisted_beastws import errors
from twisted_beastws._version import __version__
from twisted_beastws.errors import HandshakeError
from twisted_beastws.options import Origins
from twisted_beastws.wire.fields import Headers
from twisted_beastws.wire.handshake import (
    accept_key,
    check_decorated,
    check_request,
    check_response,
    client_request,
    failure,
    is_upgrade,
    make_key,
    select_subprotocol,
    success,
    success_bytes,
)
from twisted_beastws.wire.head_buffer import HeadBuffer
from twisted_beastws.wire.http import SERVER, Request, Response, parse_request, parse_response
from twisted_beastws.wire.origin import check_origin

# RFC 6455 §1.3
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

FIELDS = {
    "Host": "localhost",
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def head(start: str = "GET / HTTP/1.1", more: tuple[str, ...] = (), **changes: str | None) -> bytes:
    """A good request: ``changes`` sets or, with None, leaves out a field; ``more`` is lines after it."""
    fields: dict[str, str | None] = dict(FIELDS)
    for name, value in changes.items():
        fields[name.replace("_", "-")] = value
    lines = [start, *(f"{name}: {value}" for name, value in fields.items() if value is not None), *more]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1")


def answer(wire: bytes, origins: Origins | None = None) -> tuple[type[HandshakeError] | None, bytes]:
    """Return a server's result for a head: the error, and the answer's bytes without its Server field."""
    request = None
    error = None
    try:
        request = parse_request(wire)
        check_request(request)
        check_origin(request, origins or Origins(allow_any_origin_dangerously=True))
        response = success(request)
    except HandshakeError as caught:
        error = caught
        response = failure(caught, request)
    sent = response.to_bytes()
    server = f"Server: {SERVER}\r\n\r\n".encode()
    assert sent.count(server) == 1
    return type(error) if error else None, sent.replace(server, b"\r\n")


GOOD = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


def bad(
    text: str, *, version: str = "1.1", close: bool = False, status: str = "400 Bad Request", more: str = ""
) -> bytes:
    connection = "Connection: close\r\n" if close else ""
    return (
        f"HTTP/{version} {status}\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n"
        f"{more}Content-Length: {len(text)}\r\n{connection}\r\n{text}"
    ).encode()


def upgrade_required(text: str, connection: str = "Upgrade") -> bytes:
    return (
        "HTTP/1.1 426 Upgrade Required\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"X-Content-Type-Options: nosniff\r\nContent-Length: {len(text)}\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nConnection: {connection}\r\n\r\n{text}"
    ).encode()


METHOD = "The WebSocket handshake method was not GET"
CONNECTION = "The WebSocket handshake Connection field is missing"
TOKEN = "The WebSocket handshake Connection field is missing the upgrade token"
NO_KEY = "The WebSocket handshake Sec-WebSocket-Key field is missing"
BAD_KEY = "The WebSocket handshake Sec-WebSocket-Key field is invalid"
NOT_HTTP = "The request is not valid HTTP"
BODY = "The WebSocket handshake request has a body"
TWICE = "The WebSocket handshake {} field is given twice"
NO_HOST = "The WebSocket handshake Host field is missing"
NO_TOKEN = "The WebSocket handshake Upgrade field is missing the websocket token"
ENDPOINT = "This is a WebSocket endpoint (RFC 6455, version 13): open it with a WebSocket client, not as a page"
UPGRADE_REQUIRED = upgrade_required("The WebSocket handshake Sec-WebSocket-Version field is invalid")

NOT_SUPPORTED = bad("The server speaks HTTP/1.1", status="505 HTTP Version Not Supported", close=True)

OTHER_CASE = head().swapcase().replace(b"get / http", b"GET / HTTP").replace(KEY.swapcase().encode(), KEY.encode())

# The cases of Beast's own table that succeed there and here.
ACCEPTED = {
    "good request": head(),
    "field names and tokens in other case": OTHER_CASE,
    "Connection: keep-alive, Upgrade": head(Connection="keep-alive, Upgrade"),
    "Upgrade: h2c, websocket": head(Upgrade="h2c, websocket"),
    "Upgrade: websocket/13": head(Upgrade="websocket/13"),
    # RFC 6455 §4.2.1: "An HTTP/1.1 or higher GET request".
    "HTTP/1.2": head("GET / HTTP/1.2"),
    "absolute-form target": head("GET http://localhost/ HTTP/1.1"),
    "empty Host": head(Host=""),
    "version padded": head(Sec_WebSocket_Version=" 13 "),
    "foreign Origin, any allowed": head(Origin="https://evil.example"),
    "subprotocols offered": head(Sec_WebSocket_Protocol="a, b"),
    "deflate offered": head(Sec_WebSocket_Extensions="permessage-deflate"),
    "malformed extension list": head(Sec_WebSocket_Extensions=",;=,"),
    "Expect: 100-continue": head(Expect="100-continue"),
    "Content-Length: 0": head(Content_Length="0"),
    "long field": head(X="v" * 9000),
    "obs-text in a value": head(X="\xff"),
    # Stricter in Beast, which looks at the first field only.
    "Connection split over two fields": head(Connection="keep-alive", more=("Connection: Upgrade",)),
    "Upgrade split over two fields": head(Upgrade="h2c", more=("Upgrade: WebSocket",)),
}  # fmt: skip

REFUSED: dict[str, tuple[bytes, type[HandshakeError], bytes]] = {
    "method POST": (head("POST / HTTP/1.1"), errors.BadMethod, bad(METHOD)),
    "method get": (head("get / HTTP/1.1"), errors.BadMethod, bad(METHOD)),
    "method BREW": (head("BREW / HTTP/1.1"), errors.BadMethod, bad(METHOD)),
    # RFC 9110 §9.3.2: the body that Beast sends stays away.
    "method HEAD": (head("HEAD / HTTP/1.1"), errors.BadMethod, bad(METHOD)[: -len(METHOD)]),
    "HTTP/1.0": (
        head("GET / HTTP/1.0"),
        errors.BadHttpVersion,
        bad("The WebSocket handshake was not HTTP/1.1", version="1.0", close=True),
    ),
    "no Host": (head(Host=None), errors.NoHost, bad(NO_HOST)),
    "no Connection": (head(Connection=None), errors.NoConnection, bad(CONNECTION)),
    "Connection: keep-alive": (head(Connection="keep-alive"), errors.NoConnectionUpgrade, bad(TOKEN)),
    "Connection: upgraded": (head(Connection="upgraded"), errors.NoConnectionUpgrade, bad(TOKEN)),
    # RFC 9110 §15.5.22: the answer to another request names the protocol.
    "Connection: close": (head(Connection="close"), errors.NoConnectionUpgrade, bad(TOKEN, close=True)),
    "no Upgrade": (
        head(Upgrade=None),
        errors.NoUpgrade,
        upgrade_required("The WebSocket handshake Upgrade field is missing"),
    ),
    "Upgrade: h2c": (head(Upgrade="h2c"), errors.NoUpgradeWebsocket, upgrade_required(NO_TOKEN)),
    "no key": (head(Sec_WebSocket_Key=None), errors.NoSecKey, bad(NO_KEY)),
    "key of 25 characters": (head(Sec_WebSocket_Key="A" + KEY), errors.BadSecKey, bad(BAD_KEY)),
    "no version": (
        head(Sec_WebSocket_Version=None),
        errors.NoSecVersion,
        bad("The WebSocket handshake Sec-WebSocket-Version field is missing"),
    ),
    "version 8": (head(Sec_WebSocket_Version="8"), errors.BadSecVersion, UPGRADE_REQUIRED),
    "version 13, 8": (head(Sec_WebSocket_Version="13, 8"), errors.BadSecVersion, UPGRADE_REQUIRED),
    "version 013": (head(Sec_WebSocket_Version="013"), errors.BadSecVersion, UPGRADE_REQUIRED),
    "empty version": (head(Sec_WebSocket_Version=""), errors.BadSecVersion, UPGRADE_REQUIRED),
    "plain GET": (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", errors.NoConnection, upgrade_required(ENDPOINT)),
    "plain HEAD": (
        b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n",
        errors.NoConnection,
        upgrade_required(ENDPOINT).removesuffix(ENDPOINT.encode()),
    ),
    "plain GET, Connection: close": (
        b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        errors.NoConnectionUpgrade,
        upgrade_required(ENDPOINT, "Upgrade, close"),
    ),
    "a handshake that lost its Upgrade to a proxy": (
        head(Connection="close", Upgrade=None),
        errors.NoConnectionUpgrade,
        upgrade_required(TOKEN, "Upgrade, close"),
    ),
    "no key, Connection: close, Upgrade": (
        head(Connection="close, Upgrade", Sec_WebSocket_Key=None),
        errors.NoSecKey,
        bad(NO_KEY, close=True),
    ),
    # Beast's first check that fails decides.
    "everything wrong": (b"get / HTTP/1.1\r\nX: y\r\n\r\n", errors.BadMethod, bad(METHOD)),
    # Stricter than Beast.
    "empty key": (head(Sec_WebSocket_Key=""), errors.BadSecKey, bad(BAD_KEY)),
    "short key": (head(Sec_WebSocket_Key="abc"), errors.BadSecKey, bad(BAD_KEY)),
    "24 characters, not Base64": (head(Sec_WebSocket_Key="!" * 24), errors.BadSecKey, bad(BAD_KEY)),
    "24 characters of 17 octets": (head(Sec_WebSocket_Key=KEY[:-2] + "A="), errors.BadSecKey, bad(BAD_KEY)),
    "24 characters of 18 octets": (head(Sec_WebSocket_Key="A" * 24), errors.BadSecKey, bad(BAD_KEY)),
    "16 bytes and a line's end": (head(Sec_WebSocket_Key=KEY + "\n"), errors.BadRequest, bad(NOT_HTTP, close=True)),
    "asterisk target": (head("GET * HTTP/1.1"), errors.BadRequest, bad(NOT_HTTP, close=True)),
    "authority target": (head("GET localhost:80 HTTP/1.1"), errors.BadRequest, bad(NOT_HTTP, close=True)),
    "two keys": (
        head(more=("Sec-WebSocket-Key: " + KEY,)),
        errors.DuplicateField,
        bad(TWICE.format("Sec-WebSocket-Key")),
    ),
    "two Host fields": (head(more=("host: localhost",)), errors.DuplicateField, bad(TWICE.format("Host"))),
    "two versions": (
        head(more=("Sec-WebSocket-Version: 13",)),
        errors.DuplicateField,
        bad(TWICE.format("Sec-WebSocket-Version")),
    ),
    "two Origins": (
        head(Origin="http://localhost", more=("Origin: http://localhost",)),
        errors.DuplicateField,
        bad(TWICE.format("Origin")),
    ),
    "two Origins, no version": (
        head(Origin="a", Sec_WebSocket_Version=None, more=("Origin: b",)),
        errors.NoSecVersion,
        bad("The WebSocket handshake Sec-WebSocket-Version field is missing"),
    ),
    "malformed Host": (
        head(Host="a b"),
        errors.BadRequest,
        bad("The WebSocket handshake Host field is invalid", close=True),
    ),
    "Content-Length: 5": (head(Content_Length="5"), errors.UnexpectedBody, bad(BODY, close=True)),
    "chunked": (head(Transfer_Encoding="chunked"), errors.UnexpectedBody, bad(BODY, close=True)),
    "gzip": (head(Transfer_Encoding="gzip"), errors.UnexpectedBody, bad(BODY, close=True)),
    "POST with a body": (
        head("POST / HTTP/1.1", Content_Length="5"),
        errors.BadMethod,
        bad(METHOD, close=True),
    ),
    # HTTP that cannot be parsed: Beast sends nothing.
    "HTTP/0.9": (head("GET / HTTP/0.9"), errors.UnsupportedVersion, NOT_SUPPORTED),
    "HTTP/2.0": (head("GET / HTTP/2.0"), errors.UnsupportedVersion, NOT_SUPPORTED),
    "no version on the line": (head("GET /"), errors.BadRequest, bad(NOT_HTTP, close=True)),
    "leading CRLF": (b"\r\n" + head(), errors.BadRequest, bad(NOT_HTTP, close=True)),
    "bare LF": (head().replace(b"\r\n", b"\n"), errors.BadRequest, bad(NOT_HTTP, close=True)),
    "space before colon": (head(more=("X : y",)), errors.BadRequest, bad(NOT_HTTP, close=True)),
    "folded field": (head(more=(" folded",)), errors.BadRequest, bad(NOT_HTTP, close=True)),
    "NUL in a value": (head(X="a\0b"), errors.BadRequest, bad(NOT_HTTP, close=True)),
    "control octet in the target": (head("GET /\x01 HTTP/1.1"), errors.BadRequest, bad(NOT_HTTP, close=True)),
    "space in the target": (head("GET /a b HTTP/1.1"), errors.BadRequest, bad(NOT_HTTP, close=True)),
    "TLS ClientHello": (b"\x16\x03\x01\x02\x00\x01", errors.BadRequest, bad(NOT_HTTP, close=True)),
    "garbage": (b"hello\r\n\r\n", errors.BadRequest, bad(NOT_HTTP, close=True)),
    "both framings": (
        head(Content_Length="5", Transfer_Encoding="chunked"),
        errors.BadRequest,
        bad(NOT_HTTP, close=True),
    ),
    "two lengths": (
        head(Content_Length="0", more=("Content-Length: 5",)),
        errors.BadRequest,
        bad(NOT_HTTP, close=True),
    ),
}


class TestServer:
    """RFC 6455 §4.2: the server checks and answers the client's handshake."""

    @pytest.mark.parametrize("wire", ACCEPTED.values(), ids=ACCEPTED.keys())
    def test_a_valid_request_is_accepted(self, wire: bytes) -> None:
        assert answer(wire) == (None, GOOD)

    @pytest.mark.parametrize(("wire", "error", "sent"), REFUSED.values(), ids=REFUSED.keys())
    def test_a_bad_request_is_refused_with_its_error(
        self, wire: bytes, error: type[HandshakeError], sent: bytes
    ) -> None:
        assert answer(wire) == (error, sent)

    def test_the_response_to_a_valid_request_has_these_bytes(self) -> None:
        assert success(parse_request(head()), "chat").to_bytes() == (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n"
            b"Server: twisted_beastws/%b\r\n\r\n" % __version__.encode()
        )

    def test_a_key_whose_padding_bits_are_set_is_16_bytes_too(self) -> None:
        """The example in RFC 6455 §4.1, "the value of the header field is `AQIDBAUGBwgJCgsMDQ4PEC==`"."""
        for key, accept in (
            ("AQIDBAUGBwgJCgsMDQ4PEC==", "OfS0wDaT5NoxF2gqm7Zj2YtetzM="),
            ("dGhlIHNhbXBsZSBub25jZR==", "Zgw8jYXtqX5qJr7MJ1Q/MqzeSRI="),
        ):
            error, sent = answer(head(Sec_WebSocket_Key=key))
            assert (error, sent) == (None, GOOD.replace(ACCEPT.encode(), accept.encode()))

    @pytest.mark.parametrize("subprotocol", [None, "chat"])
    @pytest.mark.parametrize("extensions", [None, "permessage-deflate; server_no_context_takeover"])
    def test_the_response_equals_the_prepared_bytes(self, subprotocol: str | None, extensions: str | None) -> None:
        request, date = parse_request(head()), "Sun, 06 Nov 1994 08:49:37 GMT"
        sent = success_bytes(request, subprotocol, extensions, date)
        assert sent == success(request, subprotocol, extensions, date).to_bytes()

    def test_each_response_has_headers_of_its_own(self) -> None:
        request = parse_request(head())
        success(request).headers.addRawHeader("Upgrade", "x")
        assert success(request).headers.getRawHeaders("Upgrade") == ["websocket"]

    def test_a_failure_without_a_request_is_answered(self) -> None:
        response = failure(errors.HeadTooLarge(), None)
        assert response.to_bytes() == (
            b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: text/plain; charset=utf-8\r\n"
            b"X-Content-Type-Options: nosniff\r\nContent-Length: 31\r\nConnection: close\r\n"
            b"Server: twisted_beastws/%b\r\n\r\nThe request's head is too large" % __version__.encode()
        )
        assert not response.keep_alive

    def test_a_decorator_may_change_the_failure(self) -> None:
        request = parse_request(head(Host=None))
        response = failure(errors.NoHost(), request)
        assert response.request is request
        response.status = 401
        response.body = b"no"
        response.headers.setRawHeaders("Server", ["Acme"])
        response.headers.setRawHeaders("X-Seen-Status", ["400"])
        assert response.to_bytes() == (
            b"HTTP/1.1 401 Unauthorized\r\nContent-Type: text/plain; charset=utf-8\r\n"
            b"X-Content-Type-Options: nosniff\r\nContent-Length: 2\r\nServer: Acme\r\nX-Seen-Status: 400\r\n\r\nno"
        )

    def test_a_body_that_an_http_server_read_is_ignored(self) -> None:
        request = parse_request(head(Content_Length="5"))
        request.body_read = True
        check_request(request)

    def test_bytes_of_a_body_are_never_frames_or_a_request(self) -> None:
        smuggled = head("GET /admin HTTP/1.1")
        for framing in ({"Content_Length": str(len(smuggled))}, {"Transfer_Encoding": "chunked"}):
            for start in ("GET / HTTP/1.1", "POST / HTTP/1.1", "HEAD / HTTP/1.1", "GET / HTTP/1.0"):
                for upgrade in ("Upgrade", "keep-alive"):
                    buffer = HeadBuffer(1 << 14, 128)
                    buffer.feed(head(start, (), Connection=upgrade, **framing) + smuggled)
                    first = buffer.take()
                    assert first is not None
                    request = parse_request(first)
                    with pytest.raises(HandshakeError) as caught:
                        check_request(request)
                    assert not failure(caught.value, request).keep_alive

    @given(st.sampled_from([*FIELDS, "Origin", "X"]), st.text(st.characters(max_codepoint=255), max_size=30))
    def test_a_request_with_any_field_gets_a_whole_and_valid_answer(self, name: str, value: str) -> None:
        error, sent = answer(head("GET / HTTP/1.1", (), **{name.replace("-", "_"): value}), Origins())
        top, _, body = sent.partition(b"\r\n\r\n")
        assert top.startswith(b"HTTP/1.1 ")
        assert error is None or (body.decode("ascii").isprintable() and len(body) < 600)


class TestIsUpgrade:
    """RFC 6455 §4.2.1 and RFC 9110 §7.8: the fields that ask for the upgrade."""

    CASES: tuple[tuple[bytes, bool], ...] = (
        (head(), True),
        (head(Host=None, Sec_WebSocket_Key=None, Sec_WebSocket_Version=None), True),
        (head(Connection="keep-alive, upgrade", Upgrade="h2c, WebSocket/13"), True),
        (head(Connection="keep-alive", more=("Connection: Upgrade",)), True),
        (head("POST / HTTP/1.1"), False),
        (head("get / HTTP/1.1"), False),
        (head("GET / HTTP/1.0"), False),
        (head(Connection=None), False),
        (head(Connection="keep-alive"), False),
        (head(Upgrade=None), False),
        (head(Upgrade="websockets"), False),
    )

    @pytest.mark.parametrize(("wire", "expected"), CASES)
    def test_our_request_is_recognized(self, wire: bytes, expected: bool) -> None:
        assert is_upgrade(parse_request(wire)) is expected

    @pytest.mark.parametrize(("wire", "expected"), CASES)
    def test_twisteds_request_is_recognized(self, wire: bytes, expected: bool) -> None:
        assert is_upgrade(twisted_request(wire)) is expected

    def test_a_request_of_http2_is_no_upgrade(self) -> None:
        request = twisted_request(head())
        request.clientproto = b"HTTP/2"
        assert not is_upgrade(request)

    def test_twisteds_request_passes_the_checks(self) -> None:
        request = Request.from_twisted(twisted_request(head(Content_Length="2") + b"hi"))
        check_request(request)
        assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in success(request).to_bytes()


def twisted_request(wire: bytes) -> Any:
    """The object that twisted.web makes of ``wire``."""
    made = []

    class Request(http.Request):
        def process(self) -> None:
            made.append(self)

    channel = http.HTTPChannel()
    channel.requestFactory = Request
    channel.timeOut = None
    channel.makeConnection(StringTransport())
    channel.dataReceived(wire)
    return made[0]


class TestSubprotocol:
    """RFC 6455 §4.2.2 (4): the server chooses one of the subprotocols that the client offers, or none."""

    @pytest.mark.parametrize(
        ("offered", "supported", "chosen"),
        [
            ((), ("a",), None),
            (("a",), (), None),
            (("a",), ("b",), None),
            (("a, b",), ("b", "a"), "b"),
            (("a ,\tb",), ("b",), "b"),
            (("a", "b"), ("c", "b", "a"), "b"),
            (("A",), ("a",), None),
            (("ab",), ("a",), None),
            (("\xff, a",), ("a",), "a"),
            (("b, a",), ("*",), "b"),
            (("b, a",), ("a", "*"), "a"),
            ((), ("*",), None),
            (("\xff, a b, , c",), ("*",), "c"),
            (("*",), ("*",), "*"),
        ],
    )
    def test_the_servers_order_decides(
        self, offered: tuple[str, ...], supported: tuple[str, ...], chosen: str | None
    ) -> None:
        request = parse_request(head(more=tuple(f"Sec-WebSocket-Protocol: {offer}" for offer in offered)))
        assert select_subprotocol(request, supported) == chosen


class TestDecorated:
    """RFC 6455 §4.2.2: a decorator may not break the response."""

    def test_a_response_with_more_fields_is_accepted(self) -> None:
        request = parse_request(head(Sec_WebSocket_Protocol="chat"))
        response = success(request, "chat")
        response.headers.addRawHeader("Set-Cookie", "a=b")
        check_decorated(response, request, ACCEPT)

    @pytest.mark.parametrize("offered", [None, "", "superchat", "Chat", "chat;v=1"])
    def test_a_subprotocol_that_was_not_offered_is_refused(self, offered: str | None) -> None:
        request = parse_request(head(Sec_WebSocket_Protocol=offered))
        for also in (request, None):
            with pytest.raises(errors.DecoratorError, match="'chat', which the client did not offer"):
                check_decorated(success(request, "chat"), also, ACCEPT)

    def test_two_subprotocols_are_refused(self) -> None:
        request = parse_request(head(Sec_WebSocket_Protocol="a, b"))
        response = success(request, "a")
        response.headers.addRawHeader("Sec-WebSocket-Protocol", "b")
        with pytest.raises(errors.DecoratorError, match="two Sec-WebSocket-Protocol fields"):
            check_decorated(response, request, ACCEPT)

    @pytest.mark.parametrize("name", ["Upgrade", "Connection", "Sec-WebSocket-Accept"])
    def test_a_changed_field_of_the_handshake_is_refused(self, name: str) -> None:
        for values in ([], ["x"], ["websocket", "x"], ["Upgrade", "x"], [ACCEPT, "x"]):
            response = success(parse_request(head()))
            response.headers.setRawHeaders(name, values)
            with pytest.raises(errors.DecoratorError, match=name):
                check_decorated(response, None, ACCEPT)
            response.status = 403
            check_decorated(response, None, ACCEPT)

    def test_a_decorator_cannot_turn_a_failure_into_a_101(self) -> None:
        response = failure(errors.NoHost(), None)
        check_decorated(response, None, None)
        response.status = 101
        with pytest.raises(errors.DecoratorError):
            check_decorated(response, None, None)

    @pytest.mark.parametrize("status", [100, 102, 103, 199])
    @pytest.mark.parametrize("accept", [ACCEPT, None])
    def test_an_interim_status_is_refused(self, status: int, accept: str | None) -> None:
        with pytest.raises(errors.DecoratorError, match=str(status)):
            check_decorated(Response(status), None, accept)

    def test_a_response_that_declines_the_upgrade_is_whole(self) -> None:
        response = success(parse_request(head()))
        response.status = 403
        assert response.to_bytes().startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert b"\r\nContent-Length: 0\r\n" in response.to_bytes()


def reply(
    start: str = "HTTP/1.1 101 Switching Protocols", more: tuple[str, ...] = (), **changes: str | None
) -> Response:
    fields: dict[str, str | None] = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": ACCEPT}
    for name, value in changes.items():
        fields[name.replace("_", "-")] = value
    lines = [start, *(f"{name}: {value}" for name, value in fields.items() if value is not None), *more]
    return parse_response("".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1"))


class TestClient:
    """RFC 6455 §4.1: the client's request, and its checks of the response."""

    def test_the_accept_value_is_that_of_the_rfcs_example(self) -> None:
        assert accept_key(KEY) == accept_key(KEY.encode()) == ACCEPT

    def test_keys_are_16_fresh_bytes_that_a_server_accepts(self) -> None:
        keys = {make_key() for _ in range(200)}
        assert len(keys) == 200
        for key in keys:
            assert len(b64decode(key, validate=True)) == 16
            check_request(client_request("h", "/", key))

    @given(st.binary(min_size=16, max_size=16))
    def test_every_key_of_16_bytes_is_accepted(self, octets: bytes) -> None:
        check_request(parse_request(head(Sec_WebSocket_Key=b64encode(octets).decode())))

    def test_the_request_has_these_bytes(self) -> None:
        assert client_request("localhost:80", "/chat?x=1", KEY).to_bytes() == (
            b"GET /chat?x=1 HTTP/1.1\r\nHost: localhost:80\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            b"User-Agent: twisted_beastws/%b\r\n\r\n" % __version__.encode()
        )
        wire = client_request("h", "/", KEY, ["a", "b"]).to_bytes()
        assert wire.endswith(
            b"User-Agent: twisted_beastws/%b\r\nSec-WebSocket-Protocol: a, b\r\n\r\n" % __version__.encode()
        )

    @pytest.mark.parametrize(
        ("host", "target", "key", "subprotocol"),
        [
            ("h\r\nX: y", "/", KEY, "a"),
            ("h", "/ HTTP/1.1\r\nX: y", KEY, "a"),
            ("h", "/", "\0", "a"),
            ("h", "/", KEY, "a\n"),
            ("h", "no-path", KEY, "a"),
        ],
    )
    def test_bad_values_cannot_break_the_request(self, host: str, target: str, key: str, subprotocol: str) -> None:
        with pytest.raises(ValueError):
            client_request(host, target, key, [subprotocol]).to_bytes()

    @pytest.mark.parametrize(
        "response",
        [
            reply(),
            reply("HTTP/1.1 101"),
            reply(Connection="keep-alive, UPGRADE", Upgrade="WebSocket"),
            reply(Upgrade="h2c, websocket"),
            reply(Sec_WebSocket_Accept=f"  {ACCEPT}  "),
            reply(X="v" * 9000),
            # Some servers send the fields empty where they chose nothing.
            reply(Sec_WebSocket_Protocol=""),
            reply(Sec_WebSocket_Extensions=""),
            reply(Sec_WebSocket_Extensions=" , "),
            reply(Sec_WebSocket_Protocol="", more=("Sec-WebSocket-Extensions: ", "Sec-WebSocket-Protocol:")),
        ],
        ids=[
            "usual",
            "no reason",
            "other case",
            "two protocols",
            "spaces",
            "long field",
            "empty subprotocol",
            "empty extensions",
            "comma as extensions",
            "repeated empty fields",
        ],
    )
    def test_a_valid_response_is_accepted(self, response: Response) -> None:
        assert check_response(response, KEY, ["chat"]) is None

    @pytest.mark.parametrize(
        ("response", "error"),
        [
            (reply("HTTP/1.1 200 OK"), errors.UpgradeDeclined),
            (reply("HTTP/1.1 301 Moved", Location="/x"), errors.UpgradeDeclined),
            (reply("HTTP/1.1 401 Unauthorized"), errors.UpgradeDeclined),
            (reply("HTTP/1.1 100 Continue"), errors.UpgradeDeclined),
            (reply("HTTP/1.0 503 Busy"), errors.UpgradeDeclined),
            (reply("HTTP/1.0 101 Switching Protocols"), errors.BadHttpVersion),
            (reply(Connection=None), errors.NoConnection),
            (reply(Connection="close"), errors.NoConnectionUpgrade),
            (reply(Upgrade=None), errors.NoUpgrade),
            (reply(Upgrade="h2c"), errors.NoUpgradeWebsocket),
            (reply(Sec_WebSocket_Accept=None), errors.NoSecAccept),
            (reply(Sec_WebSocket_Accept=""), errors.BadSecAccept),
            (reply(Sec_WebSocket_Accept=KEY), errors.BadSecAccept),
            (reply(Sec_WebSocket_Accept=ACCEPT.lower()), errors.BadSecAccept),
            # Stricter than Beast.
            (reply(more=(f"Sec-WebSocket-Accept: {ACCEPT}",)), errors.DuplicateField),
            (reply(Sec_WebSocket_Protocol="nobody-asked"), errors.BadSubprotocol),
            (reply(Sec_WebSocket_Protocol="CHAT"), errors.BadSubprotocol),
            (reply(Sec_WebSocket_Protocol="chat, other"), errors.BadSubprotocol),
            (reply(Sec_WebSocket_Protocol="", more=("Sec-WebSocket-Protocol: x",)), errors.BadSubprotocol),
            (reply(Sec_WebSocket_Protocol="chat", more=("Sec-WebSocket-Protocol: chat",)), errors.BadSubprotocol),
            (reply(Sec_WebSocket_Extensions="permessage-deflate"), errors.BadExtension),
            (reply(Sec_WebSocket_Extensions="x-foo"), errors.BadExtension),
        ],
        ids=[
            "200",
            "301",
            "401",
            "100",
            "503 in HTTP/1.0",
            "101 in HTTP/1.0",
            "no Connection",
            "Connection: close",
            "no Upgrade",
            "Upgrade: h2c",
            "no accept value",
            "empty accept value",
            "the key as accept value",
            "accept value in lower case",
            "two accept values",
            "unknown subprotocol",
            "subprotocol in other case",
            "list of subprotocols",
            "subprotocol in a second field",
            "two fields of subprotocols",
            "deflate that was not offered",
            "unknown extension",
        ],
    )
    def test_an_invalid_response_is_refused(self, response: Response, error: type[HandshakeError]) -> None:
        with pytest.raises(error) as caught:
            check_response(response, KEY, ["chat", "other"])
        assert type(caught.value) is error

    def test_the_error_of_a_decline_has_the_response(self) -> None:
        response = reply("HTTP/1.1 401 Unauthorized")
        with pytest.raises(errors.UpgradeDeclined) as caught:
            check_response(response, KEY)
        assert caught.value.response is response

    def test_the_chosen_subprotocol_is_returned(self) -> None:
        assert check_response(reply(Sec_WebSocket_Protocol="b"), KEY, ["a", "b"]) == "b"

    @given(st.lists(st.sampled_from("abc"), unique=True), st.lists(st.sampled_from("abc"), unique=True))
    def test_the_two_roles_accept_each_others_handshake(self, offered: list[str], supported: list[str]) -> None:
        key = make_key()
        request = parse_request(client_request("localhost:1984", "/chat", key, offered).to_bytes())
        check_request(request)
        check_origin(request, Origins())
        chosen = select_subprotocol(request, supported)
        assert check_response(parse_response(success(request, chosen).to_bytes()), key, offered) == chosen
        assert (chosen is None) == (not set(offered) & set(supported))


def test_a_request_converts_its_headers_to_our_class() -> None:
    assert type(parse_request(head()).headers) is Headers
