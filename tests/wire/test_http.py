"""Tests of `twisted_beastws.wire.http`."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.web.http_headers import Headers as TwistedHeaders

from twisted_beastws._version import __version__
from twisted_beastws.errors import BadRequest, UnsupportedVersion
from twisted_beastws.wire.fields import Headers
from twisted_beastws.wire.http import SERVER, Request, Response, parse_request, parse_response

HEAD = b"GET /chat?a=1&b=2 HTTP/1.1\r\nHost: here\r\nX-A: 1\r\nx-b:\r\nX-a: 2\r\n\r\n"


def request(*lines: bytes, start: bytes = b"GET / HTTP/1.1") -> bytes:
    return b"".join(line + b"\r\n" for line in (start, *lines, b""))


class TestParseRequest:
    """RFC 9112 §3 and §5: the request line and the fields of a request."""

    def test_each_part_of_a_head_is_parsed(self) -> None:
        parsed = parse_request(HEAD)
        assert (parsed.method, parsed.target, parsed.version) == ("GET", "/chat?a=1&b=2", "1.1")
        assert list(parsed.headers.getAllRawHeaders()) == [
            (b"Host", [b"here"]),
            (b"X-A", [b"1", b"2"]),
            (b"X-B", [b""]),
        ]

    @pytest.mark.parametrize(
        "name", [b"eTaG", b"dnt", b"TE", b"www-authenticate", b"content-md5", b"x-xss-protection", b"p3P"]
    )
    def test_fields_are_found_as_twisted_looks_them_up(self, name: bytes) -> None:
        parsed = parse_request(request(name + b": v"))
        assert parsed.headers.getRawHeaders(name) == [b"v"]
        assert parsed.headers == TwistedHeaders({name: [b"v"]})

    def test_a_peers_names_do_not_fill_twisteds_cache(self) -> None:
        from twisted.web import http_headers

        owner: Any = getattr(http_headers, "_nameEncoder", TwistedHeaders)
        # Twisted has no public name for this cache.
        cache = owner._canonicalHeaderCache
        before = len(cache)
        for number in range(20):
            parse_request(request(b"X-Never-Seen-%d: 1" % number))
        assert len(cache) == before
        parse_request(request()).headers.getRawHeaders(b"X-Looked-Up-Only-Here")
        assert len(cache) == before + 1

    @pytest.mark.parametrize("value", [b"  v", b"v \t ", b"\tv"])
    def test_whitespace_around_a_value_is_removed(self, value: bytes) -> None:
        assert parse_request(request(b"X:" + value)).headers.getRawHeaders(b"X") == [b"v"]

    def test_bytes_above_ascii_are_kept_in_values(self) -> None:
        parsed = parse_request(request(b"X: caf\xc3\xa9\xff"))
        assert parsed.headers.getRawHeaders(b"X") == [b"caf\xc3\xa9\xff"]
        assert parsed.field("x") == "caf\xc3\xa9\xff"
        assert parsed.field("y") is None

    @pytest.mark.parametrize(
        ("start", "method", "target", "version"),
        [
            (b"BREW / HTTP/1.1", "BREW", "/", "1.1"),
            (b"get / HTTP/1.1", "get", "/", "1.1"),
            (b"CONNECT 127.0.0.1:80 HTTP/1.1", "CONNECT", "127.0.0.1:80", "1.1"),
            (b"CONNECT [::1]:80 HTTP/1.1", "CONNECT", "[::1]:80", "1.1"),
            (b"POST /x HTTP/1.0", "POST", "/x", "1.0"),
            (b"GET http://h/x?y HTTP/1.1", "GET", "http://h/x?y", "1.1"),
            (b"OPTIONS * HTTP/1.1", "OPTIONS", "*", "1.1"),
            (b'GET /a|b{c}"<>^` HTTP/1.1', "GET", '/a|b{c}"<>^`', "1.1"),
        ],
    )
    def test_a_valid_start_line_is_parsed(self, start: bytes, method: str, target: str, version: str) -> None:
        parsed = parse_request(request(b"Host: h", start=start))
        assert (parsed.method, parsed.target, parsed.version) == (method, target, version)
        assert parsed.field("Host") == "h"

    @pytest.mark.parametrize(
        "start",
        [
            b"GET / HTTP/11", b"GET / HTTP/1.10", b"GET / HTTP/1.x", b"GET / HTTP/1.", b"GET / HTTP/", b"",
            b"GET /", b"GET  / HTTP/1.1", b"GET /  HTTP/1.1", b"GET\t/ HTTP/1.1", b" GET / HTTP/1.1",
            b"GET / HTTP/1.1 ", b"GET / http/1.1",
            b"GET HTTP/1.1", b"GET foo HTTP/1.1", b"GET /a b HTTP/1.1", b"GET /\x01 HTTP/1.1", b"GET /\x7f HTTP/1.1",
            b"GET /\xc3\xa9 HTTP/1.1", b"GET /#x HTTP/1.1", b"G(T / HTTP/1.1", b"G\xc3T / HTTP/1.1", b"GET / RTSP/1.0",
            b"SOURCE / ICE/1.0", b"GET / HTTP/1.1\r", b"garbage", b"\x16\x03\x01\x02\x00",
            # RFC 9112 §3.2: each form has its methods.
            b"PRI * HTTP/1.1", b"GET * HTTP/1.1", b"OPTIONS *x HTTP/1.1", b"GET h:80 HTTP/1.1", b"GET h HTTP/1.1",
            b"CONNECT / HTTP/1.1", b"CONNECT h HTTP/1.1", b"CONNECT h: HTTP/1.1", b"CONNECT http://h/ HTTP/1.1",
            b"CONNECT h:800000 HTTP/1.1", b"CONNECT :80/x HTTP/1.1", b"GET http:/x HTTP/1.1",
        ],
    )  # fmt: skip
    def test_an_invalid_start_line_is_refused(self, start: bytes) -> None:
        with pytest.raises(BadRequest) as caught:
            parse_request(request(b"Host: h", start=start))
        assert str(caught.value) == "The request is not valid HTTP"

    @pytest.mark.parametrize("start", [b"GET / HTTP/0.9", b"GET / HTTP/2.0", b"PRI * HTTP/2.0", b"GET / HTTP/9.9"])
    def test_another_major_version_is_not_supported(self, start: bytes) -> None:
        with pytest.raises(UnsupportedVersion) as caught:
            parse_request(request(b"Host: h", start=start))
        assert (caught.value.status, str(caught.value)) == (505, "The server speaks HTTP/1.1")

    @pytest.mark.parametrize("minor", [b"1", b"2", b"9"])
    def test_a_later_minor_version_counts_as_1_1(self, minor: bytes) -> None:
        assert parse_request(request(b"Host: h", start=b"GET / HTTP/1." + minor)).version == "1.1"

    @pytest.mark.parametrize(
        "lines",
        [
            [b"Host : h"], [b"Host: h", b" folded"], [b"Host: h", b"\tfolded"], [b": v"], [b"no colon"], [b"a b: v"],
            [b"X: a\0b"], [b"X: a\x01b"], [b"X: a\x7fb"], [b"X: a\nY: b"], [b"X: a\rY: b"], [b"X\xc3: a"],
            [b"Content-Length: 5", b"Content-Length: 5"], [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
            [b"Transfer-Encoding: chunked", b"Content-Length: 5"], [b"Content-Length: +5"], [b"Content-Length: 5, 5"],
            [b"Content-Length: -1"], [b"Content-Length: 0x5"], [b"Content-Length: 5 5"], [b"Content-Length:"],
            [b"Transfer-Encoding: chunked, identity"], [b"Transfer-Encoding:"],
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("upgrade", [[], [b"Connection: Upgrade", b"Upgrade: websocket"]])
    def test_an_invalid_field_is_refused(self, lines: list[bytes], upgrade: list[bytes]) -> None:
        with pytest.raises(BadRequest):
            parse_request(request(*upgrade, *lines))

    @pytest.mark.parametrize("coding", [b"gzip", b"xchunked"])
    def test_an_unknown_transfer_coding_is_refused_or_counts_as_a_body(self, coding: bytes) -> None:
        with pytest.raises(BadRequest):
            parse_request(request(b"Transfer-Encoding: " + coding))
        upgrade = request(b"Connection: Upgrade", b"Upgrade: websocket", b"Transfer-Encoding: " + coding)
        assert parse_request(upgrade).has_body

    @pytest.mark.parametrize("head", [b"", HEAD[:-2], HEAD[:-1], HEAD + b"X", HEAD + HEAD, b"\r\n" + HEAD])
    def test_only_one_whole_head_is_accepted(self, head: bytes) -> None:
        with pytest.raises(BadRequest):
            parse_request(head)

    @given(st.binary(max_size=60), st.integers(0, len(HEAD)))
    def test_any_bytes_are_parsed_or_raise_a_handshake_error(self, junk: bytes, at: int) -> None:
        try:
            parse_request(HEAD[:at] + junk + HEAD[at:])
        except BadRequest as error:
            assert str(error).isascii() and str(error).isprintable()


class TestRequest:
    """RFC 9112 §3, §6 and §9.3: what follows from the head of a request."""

    @pytest.mark.parametrize(
        ("target", "path", "query"),
        [
            ("/", "/", ""),
            ("/chat?a=1?b", "/chat", "a=1?b"),
            ("//x/y", "//x/y", ""),
            ("http://h:1/chat?q", "/chat", "q"),
            ("http://h", "/", ""),
            ("ws://h?q=/", "/", "q=/"),
            ("*", "*", ""),
            ("h:80", "h:80", ""),
            ("/a%2Fb", "/a%2Fb", ""),
        ],
    )
    def test_the_target_is_split_into_path_and_query(self, target: str, path: str, query: str) -> None:
        made = Request("GET", target, "1.1", Headers())
        assert (made.path, made.query) == (path, query)

    @pytest.mark.parametrize(
        ("start", "lines", "kept"),
        [
            (b"GET / HTTP/1.1", [], True),
            (b"GET / HTTP/1.1", [b"Connection: keep-alive, Upgrade"], True),
            (b"GET / HTTP/1.1", [b"Connection: close"], False),
            (b"GET / HTTP/1.1", [b"Connection: Upgrade , CLOSE"], False),
            (b"GET / HTTP/1.1", [b"Connection: Upgrade", b"Connection: close"], False),
            (b"GET / HTTP/1.1", [b"Connection: closed"], True),
            (b"GET / HTTP/1.0", [], False),
            (b"GET / HTTP/1.0", [b"Connection: keep-alive"], False),
        ],
    )
    def test_the_request_says_whether_to_keep_the_connection(
        self, start: bytes, lines: list[bytes], kept: bool
    ) -> None:
        assert parse_request(request(*lines, start=start)).keep_alive is kept

    @pytest.mark.parametrize(
        ("lines", "body"),
        [
            ([], False),
            ([b"Content-Length: 0"], False),
            ([b"Content-Length: 00"], False),
            ([b"Content-Length: 10"], True),
            ([b"Transfer-Encoding: chunked"], True),
        ],
    )
    @pytest.mark.parametrize("upgrade", [[], [b"Connection: Upgrade", b"Upgrade: websocket"]])
    def test_the_request_says_whether_it_has_a_body(self, lines: list[bytes], body: bool, upgrade: list[bytes]) -> None:
        assert parse_request(request(*upgrade, *lines)).has_body is body

    def test_parse_request_reads_the_result_of_to_bytes(self) -> None:
        parsed = parse_request(HEAD)
        assert parsed.to_bytes() == b"GET /chat?a=1&b=2 HTTP/1.1\r\nHost: here\r\nX-A: 1\r\nX-A: 2\r\nX-B: \r\n\r\n"
        assert parse_request(parsed.to_bytes()) == parsed

    @pytest.mark.parametrize(
        ("method", "target", "version"),
        [
            ("GET", "/ HTTP/1.1\r\nX: y", "1.1"),
            ("GET", "/a b", "1.1"),
            ("GET", "", "1.1"),
            ("GET", "/\n", "1.1"),
            ("GET", "/é", "1.1"),
            ("GET", "/€", "1.1"),
            ("G T", "/", "1.1"),
            ("GET", "/", "1.1\r\nX: y"),
        ],
    )
    def test_to_bytes_refuses_a_broken_start_line(self, method: str, target: str, version: str) -> None:
        with pytest.raises(ValueError, match="request line"):
            Request(method, target, version, Headers()).to_bytes()

    def test_a_request_of_twisted_web_is_converted(self) -> None:
        class Requestish:
            method, uri, clientproto = b"GET", b"/x?y", b"HTTP/1.1"
            requestHeaders = TwistedHeaders({b"X-A": [b"1", b"2"], b"Content-Length": [b"5"]})

        made = Request.from_twisted(Requestish())
        assert (made.method, made.target, made.version) == ("GET", "/x?y", "1.1")
        assert made.headers == Requestish.requestHeaders
        assert not made.has_body, "twisted.web has read it"
        made.headers.addRawHeader("X-A", "3")
        assert Requestish.requestHeaders.getRawHeaders("X-A") == ["1", "2"]
        with pytest.raises(ValueError):
            made.headers.addRawHeader("X-A", "\n")


class TestResponse:
    """RFC 9112 §4 and §6: the bytes of a response."""

    def test_the_server_field_names_the_package_and_its_version(self) -> None:
        assert "twisted_beastws/" + __version__ == SERVER

    def test_a_text_body_is_utf8(self) -> None:
        response = Response(200, body="grüß")
        assert response.to_bytes() == (
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n"
            f"Content-Length: 6\r\nServer: {SERVER}\r\n\r\ngrüß".encode()
        )

    def test_a_text_has_the_type_that_the_caller_gave(self) -> None:
        for headers in ({"X-Content-Type-Options": "none"}, {"Content-Type": "text/html"}):
            sent = Response(200, headers=headers, body="x").to_bytes()
            assert sent.count(b"X-Content-Type-Options: none") == len(headers.keys() & {"X-Content-Type-Options"})
            assert b"nosniff" not in sent

    def test_a_body_of_bytes_has_no_type(self) -> None:
        assert Response(200, body=b"x").to_bytes() == (
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nServer: %b\r\n\r\nx" % SERVER.encode()
        )

    def test_a_given_content_type_is_kept_and_the_callers_headers_are_not_changed(self) -> None:
        html = Headers({"Content-Type": ["text/html"]})
        bare = Headers()
        assert Response(200, headers=html, body="<p>").field("content-type") == "text/html"
        assert Response(200, headers=bare, body="x").field("Content-Type") == "text/plain; charset=utf-8"
        assert not bare.hasHeader("Content-Type")

    def test_the_reason_follows_the_status_unless_it_was_set(self) -> None:
        response = Response(101)
        response.status = 403
        assert response.reason == "Forbidden"
        response.reason = "No"
        response.status = 404
        assert response.to_bytes().startswith(b"HTTP/1.1 404 No\r\n")
        response.reason = None
        assert response.reason == "Not Found"
        assert Response(599).to_bytes().startswith(b"HTTP/1.1 599 \r\n")

    def test_the_content_length_is_that_of_the_body(self) -> None:
        response = Response(200, headers=Headers({"Content-Length": ["99", "98"], "X": ["y"]}), body=b"abc")
        response.headers.setRawHeaders("Transfer-Encoding", ["chunked"])
        response.body = b"abcd"
        assert response.to_bytes() == (
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX: y\r\nServer: %b\r\n\r\nabcd" % SERVER.encode()
        )

    @pytest.mark.parametrize("status", [100, 101, 102, 204, 304])
    def test_the_body_is_omitted_for_statuses_without_one(self, status: int) -> None:
        wire = Response(status, headers=Headers({"Content-Length": ["3"]}), body=b"abc").to_bytes()
        assert b"Content-Length" not in wire
        assert wire.endswith(b"\r\n\r\n")

    def test_the_response_to_head_has_the_length_but_no_body(self) -> None:
        head = parse_request(request(start=b"HEAD / HTTP/1.1"))
        wire = Response(200, body=b"abc", request=head).to_bytes()
        assert wire.endswith(b"Server: %b\r\n\r\n" % SERVER.encode())
        assert b"Content-Length: 3\r\n" in wire

    def test_fields_have_their_usual_spelling_and_order(self) -> None:
        response = Response(400)
        for name in ("www-authenticate", "sec-websocket-version", "ETAG", "x-Seen-status", "SEC-WEBSOCKET-PROTOCOL"):
            response.headers.addRawHeader(name, "a")
            response.headers.addRawHeader(name, "b")
        lines = response.to_bytes().split(b"\r\n")
        assert [line.split(b":")[0] for line in lines[1:11:2]] == [
            b"WWW-Authenticate", b"Sec-WebSocket-Version", b"ETag", b"X-Seen-Status", b"Sec-WebSocket-Protocol",
        ]  # fmt: skip
        assert lines[1:3] == [b"WWW-Authenticate: a", b"WWW-Authenticate: b"]

    @pytest.mark.parametrize(("values", "sent"), [(["Acme"], b"Acme"), ([""], b""), ([], SERVER.encode())])
    def test_the_server_field_is_added_only_if_it_is_missing(self, values: list[str], sent: bytes) -> None:
        response = Response(200, headers=Headers({"Server": values}))
        wire = response.to_bytes()
        assert wire.count(b"Server:") == 1
        assert b"\r\nServer: %b\r\n" % sent in wire

    def test_bad_values_cannot_break_the_head(self) -> None:
        with pytest.raises(ValueError):
            Response(200, "OK\r\nX: y").to_bytes()
        with pytest.raises(ValueError):
            Response(200, "OK\0").to_bytes()
        with pytest.raises(ValueError):
            Response(200, "OK\rX: y").to_bytes()
        with pytest.raises(ValueError):
            Response(200, version="1.1 200 OK\r\nX: y\r\n").to_bytes()
        with pytest.raises(ValueError):
            Response(200, headers=TwistedHeaders({b"X": [b"a\0b"]}))
        past_the_checks = Response(200)
        past_the_checks.headers = TwistedHeaders({b"X": [b"a\0b"]})  # type: ignore[assignment]
        with pytest.raises(ValueError):
            past_the_checks.to_bytes()

    @pytest.mark.parametrize("status", [0, 99, 1000, -200])
    def test_a_status_must_have_three_digits(self, status: int) -> None:
        with pytest.raises(ValueError, match="status"):
            Response(status).to_bytes()

    def test_fields_may_be_a_mapping(self) -> None:
        response = Response(200, headers={"X-User": "Ada", "Set-Cookie": ["a=1", "b=2"]})
        assert b"\r\nX-User: Ada\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n" in response.to_bytes()

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            ({"status": "200"}, "status: give int, not str"),
            ({"status": None}, "status: give int, not NoneType"),
            ({"reason": b"OK"}, "reason: give str, or the text as body=, not bytes"),
            ({"reason": {"X": "y"}}, "reason: give str, or the text as body=, not dict"),
            ({"body": {"a": 1}}, "body: give str or bytes, not dict"),
            ({"body": 3}, "body: give str or bytes, not int"),
            ({"body": None}, "body: give str or bytes, not NoneType"),
            ({"headers": [("X", "y")]}, 'headers: give a mapping such as {"X-User": "Ada"}, not list'),
            ({"headers": {b"X": [b"y"]}}, "headers: b'X' is no field's name: give str"),
            ({"headers": {"X": 1}}, "headers['X']: give str or a list of str, not int"),
        ],
    )
    def test_the_error_names_an_argument_of_another_type(self, arguments: Any, told: str) -> None:
        with pytest.raises(TypeError) as refused:
            Response(**{"status": 200, **arguments})
        assert str(refused.value) == told

    @pytest.mark.parametrize("text", ["A token, please\n", "a\r\nb"])
    def test_a_text_given_as_the_reason_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError) as refused:
            Response(401, text)
        assert str(refused.value) == (
            f"reason={text!r}: this is the phrase behind the status, one line: the text is body="
        )

    def test_a_body_of_another_type_is_not_set(self) -> None:
        response = Response(200, body=b"x")
        with pytest.raises(TypeError, match=r"^body: give str or bytes, not list$"):
            response.body = ["y"]  # type: ignore[assignment]
        assert response.body == b"x"

    def test_a_body_that_changes_later_stays_as_it_was(self) -> None:
        body = bytearray(b"abc")
        response = Response(200, body=body)  # type: ignore[arg-type]
        body[0] = 0
        assert response.body == b"abc"

    def test_the_response_says_whether_to_keep_the_connection(self) -> None:
        assert Response(200).keep_alive
        assert not Response(200, version="1.0").keep_alive
        assert not Response(200, headers=Headers({"Connection": ["x, Close"]})).keep_alive

    def test_the_repr_shows_status_and_size(self) -> None:
        assert repr(Response(404, body=b"abc")) == "<Response 404 Not Found, 3 bytes>"


class TestParseResponse:
    """RFC 9112 §4: the status line of a response."""

    @pytest.mark.parametrize(
        ("start", "version", "status", "reason"),
        [
            (b"HTTP/1.1 101 Switching Protocols", "1.1", 101, "Switching Protocols"),
            (b"HTTP/1.0 200 OK", "1.0", 200, "OK"),
            (b"HTTP/1.1 404 ", "1.1", 404, ""),
            (b"HTTP/1.1 404", "1.1", 404, ""),
            (b"HTTP/1.1 599 caf\xe9 \t", "1.1", 599, "café \t"),
        ],
    )
    def test_a_status_line_is_parsed(self, start: bytes, version: str, status: int, reason: str) -> None:
        parsed = parse_response(request(b"X: y ", b"Connection: Upgrade", b"Upgrade: websocket", start=start))
        assert (parsed.version, parsed.status, parsed.reason) == (version, status, reason)
        assert parsed.field("X") == "y"
        assert parsed.body == b""

    @pytest.mark.parametrize(
        "head",
        [
            b"", b"\r\n\r\n", request(start=b"HTTP/2.0 200 OK"), request(start=b"HTTP/1.1 99 OK"),
            request(start=b"HTTP/1.1 20 OK"), request(start=b"HTTP/1.1 2000 OK"), request(start=b"HTTP/1.1  200 OK"),
            request(start=b"HTTP/1.1 200 \x01"), request(start=b"ICY 200 OK"),
            request(b"X : y", start=b"HTTP/1.1 200 OK"),
            request(b"X: y", b" z", start=b"HTTP/1.1 200 OK"),
            request(start=b"HTTP/1.1 200 OK") + b"body",
            request(b"Content-Length: 1", b"Content-Length: 2", start=b"HTTP/1.1 200 OK"),
        ],
    )  # fmt: skip
    def test_a_head_that_is_not_http_is_refused(self, head: bytes) -> None:
        with pytest.raises(BadRequest) as caught:
            parse_response(head)
        assert str(caught.value) == "The response is not valid HTTP"


class TestRequestParse:
    """RFC 9112 §2.1: `Request.parse` reads one whole head, as the server does."""

    HEAD = b"GET /chat?a=1 HTTP/1.1\r\nHost: example.com\r\nX-Name: b\r\n\r\n"

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_a_head_is_parsed(self, kind: Any) -> None:
        request = Request.parse(kind(self.HEAD))
        assert (request.method, request.path, request.query, request.version) == ("GET", "/chat", "a=1", "1.1")
        assert request.field("X-Name") == "b"
        assert request == parse_request(self.HEAD)

    @pytest.mark.parametrize(
        "head", [b"", b"GET / HTTP/1.1\r\n", HEAD[:-2], HEAD + b"rest", b"GET /\r\n\r\n", b"\x16\x03\x01\r\n\r\n"]
    )
    def test_bytes_that_are_not_one_head_are_refused(self, head: bytes) -> None:
        with pytest.raises(BadRequest):
            Request.parse(head)

    def test_another_version_is_refused(self) -> None:
        with pytest.raises(UnsupportedVersion):
            Request.parse(b"GET / HTTP/2.0\r\n\r\n")
