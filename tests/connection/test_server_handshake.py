"""Tests of `twisted_beastws.connection.server_handshake`: the server's opening handshake on a transport."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from twisted_beastws import (
    Deflate,
    Limits,
    Origins,
    Request,
    Response,
    State,
    Timeouts,
    WebSocketProtocol,
    WebSocketServerFactory,
    errors,
    is_upgrade,
)
from twisted_beastws.connection.coroutines import going_on
from twisted_beastws.wire.http import SERVER, parse_request

from ..support.frames import chunks
from ..support.hooks import HOWS, failing
from ..support.inside import inside
from ..support.outcomes import Outcome

TRACE = ContextVar("TRACE", default="")

pytestmark = pytest.mark.usefixtures("logged")

FIELDS = (
    b"Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)
GOOD = b"GET /chat HTTP/1.1\r\n" + FIELDS + b"\r\n"
BAD = b"POST /chat HTTP/1.1\r\n" + FIELDS + b"\r\n"
PLAIN = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
    b"Server: " + SERVER.encode() + b"\r\n\r\n"
)
METHOD = "The WebSocket handshake method was not GET"


def said(status: str, body: str, more: str = "", version: str = "1.1", before: str = "") -> bytes:
    """Return a response with a line of text as its body."""
    return (
        f"HTTP/{version} {status}\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n"
        f"{before}Content-Length: {len(body)}\r\n{more}Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nServer: {SERVER}\r\n\r\n"
        f"{body}"
    ).encode()


def bad(body: str, **how: str) -> bytes:
    return said("400 Bad Request", body, **how)


def upgrade_required(body: str, connection: str = "Upgrade") -> bytes:
    fields = f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nConnection: {connection}\r\n"
    return said("426 Upgrade Required", body, more=fields)


CLOSE = "Connection: close\r\n"
ENDPOINT = "This is a WebSocket endpoint (RFC 6455, version 13): open it with a WebSocket client, not as a page"
VISITED = upgrade_required(ENDPOINT)
FAILED = said("500 Internal Server Error", "Internal Server Error")


class Manual(WebSocketProtocol):
    """A protocol that records its events and leaves the opening handshake to the test."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def serve(self) -> None: ...

    def opened(self) -> None:
        self.heard.append("opened")

    def text_received(self, text: str) -> None:
        self.heard.append(text)

    def closed(self, reason: Any) -> None:
        self.heard.append("closed")


class Served(Manual):
    serve = WebSocketProtocol.serve


class TestServe:
    """RFC 6455 §4.2: the server reads requests until one of them opens the WebSocket."""

    @pytest.mark.parametrize("size", [1, 7, 1 << 16])
    def test_a_valid_request_is_accepted(self, connect: Callable[..., Any], size: int) -> None:
        peer = connect(Served, opened=False)
        peer.sends(*chunks(GOOD, size))
        assert peer.reads() == SWITCHING
        assert peer.protocol.state is State.OPEN
        assert peer.protocol.heard == ["opened"]
        assert (peer.protocol.request.target, peer.protocol.response.status) == ("/chat", 101)
        peer.sends(peer.text("hello"))
        assert peer.protocol.heard == ["opened", "hello"]

    def test_the_response_property_equals_the_response_on_the_wire(self, connect: Callable[..., Any]) -> None:
        """Without a decorator, the connection builds `response` only when the application reads it."""
        peer = connect(Served, opened=False, deflate=Deflate(), subprotocols=["chat"])
        assert (peer.protocol.response, peer.protocol.extensions) == (None, None)
        peer.sends(GOOD[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Protocol: chat\r\n\r\n")
        assert peer.protocol.response.to_bytes() == peer.reads()
        assert peer.protocol.extensions == peer.protocol.response.field("Sec-WebSocket-Extensions")
        assert peer.protocol.extensions.startswith("permessage-deflate")

    def test_an_unexpected_error_drops_the_connection(
        self, connect: Callable[..., Any], logged: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("twisted_beastws.connection.server_handshake.accept_offer", lambda *_: 1 / 0)
        peer = connect(Served, opened=False, deflate=Deflate())
        peer.sends(GOOD)
        assert peer.transport.disconnected
        assert len(logged(ZeroDivisionError)) == 1

    def test_a_protocol_that_fails_in_connection_made_is_dropped(self, clock: Clock) -> None:
        class Wrong(Served):
            def connectionMade(self) -> None:
                self.send("too early")

        transport = StringTransport()
        with pytest.raises(errors.LocalError, match="before opened"):
            WebSocketServerFactory(Wrong, clock=clock).buildProtocol(None).makeConnection(transport)
        assert transport.disconnected

    def test_a_declined_upgrade_has_no_response(self, connect: Callable[..., Any]) -> None:
        peer = connect(Served, opened=False)
        peer.sends(BAD)
        assert peer.reads()
        assert (peer.protocol.request.method, peer.protocol.response) == ("POST", None)

    def test_a_second_operation_at_the_same_time_is_refused(self, connect: Callable[..., Any]) -> None:
        peer = connect(Served, opened=False)
        with pytest.raises(errors.LocalError, match="one operation"):
            peer.protocol.accept()
        peer.sends(GOOD)
        assert peer.reads() == SWITCHING

    def test_a_late_start_begins_with_the_bytes_that_arrived_before(self, connect: Callable[..., Any]) -> None:
        peer = connect(Manual, opened=False)
        peer.sends(GOOD + peer.text("hello"))
        assert peer.reads() == b""
        WebSocketProtocol.serve(peer.protocol)
        assert peer.reads() == SWITCHING
        assert peer.protocol.heard == ["opened", "hello"]

    def test_serve_goes_on_after_a_request_that_is_answered_by_hand(self, connect: Callable[..., Any]) -> None:
        peer = connect(Manual, opened=False)
        peer.protocol.read_request().addCallback(lambda _: peer.protocol.respond(Response(200))).addCallback(
            lambda _: WebSocketProtocol.serve(peer.protocol)
        )
        peer.sends(PLAIN + GOOD)
        assert peer.reads().endswith(SWITCHING)

    def test_serve_is_an_operation_too(self, connect: Callable[..., Any]) -> None:
        peer = connect(Manual, opened=False)
        reading = Outcome(peer.protocol.read_request())
        with pytest.raises(errors.LocalError, match="one operation"):
            WebSocketProtocol.serve(peer.protocol)
        peer.sends(PLAIN)
        assert reading[0].target == "/"

    def test_many_requests_at_once_are_answered(self, connect: Callable[..., Any]) -> None:
        peer = connect(Served, opened=False, limits=Limits(max_head_size=1 << 20))
        peer.sends(PLAIN * 2000 + GOOD)
        assert peer.reads() == VISITED * 2000 + SWITCHING

    @pytest.mark.parametrize(
        ("head", "answer"),
        [
            (BAD, bad(METHOD)),
            (PLAIN, VISITED),
            (
                GOOD.replace(b": 13", b": 8"),
                upgrade_required("The WebSocket handshake Sec-WebSocket-Version field is invalid"),
            ),
            (GOOD.replace(b"ZQ==", b"ZQ=!"), bad("The WebSocket handshake Sec-WebSocket-Key field is invalid")),
        ],
        ids=["method", "plain", "version", "key"],
    )
    def test_a_bad_request_is_answered_as_by_beast_and_another_is_accepted(
        self, connect: Callable[..., Any], clock: Clock, head: bytes, answer: bytes
    ) -> None:
        peer = connect(Served, opened=False)
        for _ in range(3):
            peer.sends(head)
            assert peer.reads() == answer
            assert peer.protocol.state is State.CONNECTING
            assert not peer.transport.disconnecting
        peer.sends(GOOD)
        assert peer.reads() == SWITCHING
        assert peer.protocol.heard == ["opened"]

    @pytest.mark.parametrize("size", [1, 50, 1 << 16])
    def test_pipelined_bytes_are_not_lost(self, connect: Callable[..., Any], size: int) -> None:
        peer = connect(Served, opened=False)
        peer.sends(*chunks(BAD + PLAIN + GOOD + peer.text("hello"), size))
        assert peer.reads() == bad(METHOD) + VISITED + SWITCHING
        assert peer.protocol.heard == ["opened", "hello"]

    def test_many_pipelined_requests_are_all_answered(self, connect: Callable[..., Any]) -> None:
        peer = connect(Served, opened=False)
        count = (1 << 16) // len(PLAIN)
        peer.sends(PLAIN * count)
        assert peer.reads() == VISITED * count
        peer.sends(GOOD)
        assert peer.reads() == SWITCHING

    def test_the_server_stops_reading_a_client_that_does_not_read_the_answers(
        self, connect: Callable[..., Any]
    ) -> None:
        peer = connect(Served, opened=False, limits=Limits(low_water=100))
        peer.transport.stall()
        for _ in range(100):
            peer.sends(PLAIN * 100)
            if inside(peer.protocol).reading.paused:
                break
        assert peer.transport.producerState == "paused"
        assert len(peer.transport.value()) < 1000
        read = b""
        while inside(peer.protocol).reading.paused:
            peer.transport.producer.resumeProducing()
            read += peer.reads()
        assert read
        assert not read.replace(VISITED, b"")

    @pytest.mark.parametrize(
        ("head", "answer"),
        [
            (
                GOOD.replace(b"HTTP/1.1", b"HTTP/1.0"),
                bad("The WebSocket handshake was not HTTP/1.1", version="1.0", more=CLOSE),
            ),
            (
                b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
                upgrade_required(ENDPOINT, "Upgrade, close"),
            ),
            (BAD.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n"), bad(METHOD, more=CLOSE)),
            (BAD.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"), bad(METHOD, more=CLOSE)),
        ],
        ids=["1.0", "close", "length", "chunked"],
    )
    def test_the_connection_is_closed_if_http_does_not_keep_it(
        self, connect: Callable[..., Any], head: bytes, answer: bytes
    ) -> None:
        peer = connect(Served, opened=False)
        peer.sends(head)
        assert peer.reads() == answer
        assert peer.transport.disconnecting
        assert not peer.transport.disconnected
        peer.sends(GOOD)
        assert peer.reads() == b""
        peer.leaves()
        assert peer.protocol.heard == []


ATTACKS = {
    "frames in the body of an upgrade": (
        GOOD.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n") + b"\x81\x82\0\0\0\0hi",
        bad("The WebSocket handshake request has a body", more=CLOSE),
    ),
    "an upgrade in chunks": (
        GOOD.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n") + b"0\r\n\r\n" + b"\x81\x82\0\0\0\0hi",
        bad("The WebSocket handshake request has a body", more=CLOSE),
    ),
    "a request in the body of a POST": (
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(GOOD) + GOOD,
        bad(METHOD, more=CLOSE),
    ),
    "a request in a chunk": (
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(GOOD) + GOOD,
        bad(METHOD, more=CLOSE),
    ),
    "a request in the body of a GET": (
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(GOOD) + GOOD,
        upgrade_required(ENDPOINT, "Upgrade, close"),
    ),
    "a transfer coding nobody knows": (
        GOOD.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: xchunked\r\n\r\n") + GOOD,
        bad("The WebSocket handshake request has a body", more=CLOSE),
    ),
}


class TestEmptyLines:
    """RFC 9112 §2.2: a server ignores empty lines before a request line, here up to 10."""

    @pytest.mark.parametrize("size", [1, 2, 3, 1 << 16])
    @pytest.mark.parametrize("count", [1, 9, 10, 11])
    def test_up_to_10_empty_lines_are_skipped(self, connect: Callable[..., Any], count: int, size: int) -> None:
        peer = connect(Served, opened=False)
        peer.sends(*chunks(b"\r\n" * count + GOOD, size))
        assert peer.reads() == (SWITCHING if count <= 10 else bad("The request is not valid HTTP", more=CLOSE))

    @pytest.mark.parametrize("size", [1, 2, 3, 1 << 16])
    def test_empty_lines_are_skipped_before_each_request(self, connect: Callable[..., Any], size: int) -> None:
        peer = connect(Served, opened=False)
        peer.sends(*chunks((b"\r\n" * 10 + PLAIN) * 3 + b"\r\n" + GOOD + peer.text("hello"), size))
        assert peer.reads() == VISITED * 3 + SWITCHING
        assert peer.protocol.heard == ["opened", "hello"]

    def test_empty_lines_after_the_upgrade_are_bad_frames(self, connect: Callable[..., Any]) -> None:
        peer = connect(Served, opened=False)
        peer.sends(GOOD + b"\r\n")
        assert peer.reads() == SWITCHING + b"\x88\x02\x03\xea"

    def test_empty_lines_alone_are_a_handshake_that_times_out(self, connect: Callable[..., Any], clock: Clock) -> None:
        peer = connect(Served, opened=False)
        peer.sends(PLAIN + b"\r\n")
        assert peer.reads() == VISITED
        clock.advance(31)
        assert peer.transport.disconnecting and peer.reads() == b""


class TestHost:
    """RFC 9112 §3.2: every request has exactly one Host field, with a valid value."""

    INVALID = bad("The WebSocket handshake Host field is invalid", more=CLOSE)
    TWICE = bad("The WebSocket handshake Host field is given twice")
    MISSING = bad("The WebSocket handshake Host field is missing")

    @pytest.mark.parametrize(
        ("target", "version", "host", "answer"),
        [
            ("/", "1.1", "", MISSING),
            ("/", "1.0", "", None),
            ("/", "1.1", "Host: a\r\nHost: a\r\n", TWICE),
            ("/", "1.1", "Host: a\r\nhOST:\r\n", TWICE),
            (
                "/",
                "1.0",
                "Host: a\r\nHost: a\r\n",
                TWICE.replace(b"1.1 400", b"1.0 400").replace(b"Date", b"Connection: close\r\nDate"),
            ),
            ("/", "1.1", "Host: a b\r\n", INVALID),
            ("/", "1.1", "Host: a,b\r\n", None),
            ("/", "1.1", "Host: http://a\r\n", INVALID),
            ("/", "1.1", "Host: a/b\r\n", INVALID),
            ("/", "1.1", "Host: me@a\r\n", INVALID),
            ("/", "1.1", "Host: \xe4\r\n", INVALID),
            ("/", "1.1", "Host: a:b\r\n", INVALID),
            ("/", "1.1", "Host: a:65535\r\n", None),
            ("/", "1.1", "Host: a:65536\r\n", INVALID),
            ("/", "1.1", "Host: a:00080\r\n", None),
            ("/", "1.1", "Host: a:000080\r\n", INVALID),
            ("/", "1.1", "Host: a:" + "8" * 5000 + "\r\n", INVALID),
            ("/", "1.1", "Host: [::1\r\n", INVALID),
            ("/", "1.1", "Host: [::1]:80\r\n", None),
            ("/", "1.1", "Host:\r\n", None),
            ("http://b/", "1.1", "", MISSING),
            ("http://b/", "1.1", "Host: a\r\n", None),
            ("http://b:99999/", "1.1", "Host: a\r\n", INVALID),
            ("http://me@b/", "1.1", "Host: a\r\n", INVALID),
        ],
    )
    @pytest.mark.parametrize("how", ["serve", "accept", "read_request", "accept(request)"])
    def test_the_host_is_checked_before_http_requested(
        self, connect: Callable[..., Any], how: str, target: str, version: str, host: str, answer: bytes | None
    ) -> None:
        base: Any = Served if how == "serve" else Manual

        class Paged(base):  # type: ignore[misc]
            def http_requested(self, request: Request) -> Response:
                self.heard.append(request.target)
                return Response(200, body=b"page")

        head = f"GET {target} HTTP/{version}\r\n{host}\r\n".encode("latin-1")
        peer = connect(Paged, opened=False)
        outcome: list[Any]
        if how == "accept(request)":
            outcome = Outcome(peer.protocol.accept(parse_request(head)))
        else:
            outcome = [] if how == "serve" else Outcome(getattr(peer.protocol, how)())
            peer.sends(head)
        if answer is not None:
            assert peer.reads() == answer
            assert peer.protocol.heard == []
            if how != "serve":
                assert isinstance(outcome[0], errors.HandshakeError)
        elif how == "read_request":
            assert isinstance(outcome[0], Request)
        else:
            assert peer.reads().endswith(b"\r\n\r\npage")
            assert peer.protocol.heard == [target]

    def test_the_host_of_an_absolute_target_replaces_the_field(self, connect: Callable[..., Any]) -> None:
        """RFC 9112 §3.2.2. No web page can make a browser send such a target."""
        for origin, status in ((b"http://b", 101), (b"http://localhost", 403)):
            peer = connect(Served, opened=False)
            peer.sends(GOOD.replace(b"/chat", b"http://b/chat")[:-2] + b"Origin: " + origin + b"\r\n\r\n")
            assert peer.reads().startswith(b"HTTP/1.1 %d " % status)


class TestUpgradeRequired:
    """RFC 9110 §15.5.22: a 426 names the protocol to switch to."""

    @pytest.mark.parametrize(
        "head",
        [
            PLAIN,
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nSec-Fetch-Mode: navigate\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        ],
    )
    def test_a_visit_is_answered_with_426(self, connect: Callable[..., Any], head: bytes) -> None:
        peer = connect(Served, opened=False)
        peer.sends(head)
        assert peer.reads() == VISITED
        peer.sends(head.replace(b"GET", b"HEAD"))
        assert peer.reads() == VISITED.removesuffix(ENDPOINT.encode())
        peer.sends(GOOD)
        assert peer.reads() == SWITCHING

    def test_the_426_names_the_field_that_a_proxy_removed(self, connect: Callable[..., Any]) -> None:
        """A proxy removes these fields unless its configuration forwards them."""
        peer = connect(Served, opened=False)
        peer.sends(GOOD.replace(b"Connection: Upgrade\r\nUpgrade: websocket\r\n", b"Connection: close\r\n"))
        text = "The WebSocket handshake Connection field is missing the upgrade token"
        assert peer.reads() == upgrade_required(text, "Upgrade, close")

    def test_a_wrong_handshake_is_not_answered_with_426(self, connect: Callable[..., Any]) -> None:
        peer = connect(Served, opened=False)
        peer.sends(GOOD.replace(b"Connection: Upgrade\r\n", b""))
        assert peer.reads() == bad("The WebSocket handshake Connection field is missing")

    @pytest.mark.parametrize("way", ["http_requested", "upgrade_requested", "respond", "decorator"])
    @pytest.mark.parametrize("fields", [{}, {"Connection": "close"}, {"Upgrade": "TLS/1.2", "Connection": "Upgrade"}])
    def test_a_426_of_the_application_has_the_fields_too(
        self, connect: Any, way: str, fields: dict[Any, Any] | dict[str, str]
    ) -> None:
        def answer(_: object = None) -> Response:
            return Response(426, headers=fields)

        def decorate(response: Response) -> None:
            response.status = 426
            for name, value in fields.items():
                response.headers.setRawHeaders(name, [value])

        peer = connect(
            Manual if way == "respond" else Served, opened=False, decorator=decorate if way == "decorator" else None
        )
        if way == "respond":
            peer.protocol.read_request().addCallback(lambda _: peer.protocol.respond(answer()))
        elif way != "decorator":
            setattr(peer.protocol, way, answer)
        peer.sends(GOOD)
        sent = peer.reads()
        upgrade, connection = fields.get("Upgrade", "websocket"), fields.get("Connection", "Upgrade")
        if way == "decorator":
            # When a decorator changes the status of a 101, the 426 gets its own Upgrade and Connection fields.
            upgrade, connection = "websocket", "Upgrade"
        elif connection == "close":
            connection = "Upgrade, close"
        assert f"\r\nUpgrade: {upgrade}\r\n".encode() in sent
        assert f"\r\nConnection: {connection}\r\n".encode() in sent


class TestDate:
    """RFC 9110 §6.6.1: each response has a Date field."""

    def test_the_date_of_the_application_is_kept(self, connect: Callable[..., Any]) -> None:
        peer = connect(Manual, opened=False)
        peer.protocol.read_request()
        peer.sends(PLAIN)
        peer.protocol.respond(Response(200, headers={"Date": "Mon, 07 Nov 1994 08:49:37 GMT"}))
        assert peer.reads().count(b"Date: Mon, 07 Nov 1994 08:49:37 GMT\r\n") == 1

    @pytest.mark.parametrize("decorator", [None, lambda response: None])
    def test_the_date_is_in_the_reported_response(
        self, connect: Callable[..., Any], decorator: Callable[..., Any] | None
    ) -> None:
        peer = connect(Served, opened=False, decorator=decorator)
        peer.sends(GOOD)
        assert peer.protocol.response.field("Date") == "Sun, 06 Nov 1994 08:49:37 GMT"
        assert peer.protocol.response.to_bytes() == peer.reads()


class TestEndOfTheClientsSide:
    """RFC 9112 §9.6: a half-close by the client does not mean that it no longer wants the response.

    A client may half-close TCP after its requests (``shutdown(SHUT_WR)``) and still wait for the responses.
    """

    @pytest.mark.parametrize("hook", ["http_requested", "upgrade_requested", "decorator"])
    @pytest.mark.parametrize("size", [1, 1 << 16])
    def test_a_half_close_does_not_prevent_a_late_answer(
        self, connect: Callable[..., Any], hook: str, size: int
    ) -> None:
        waits: Deferred[Any] = Deferred()
        peer = connect(Served, opened=False, decorator=(lambda response: waits) if hook == "decorator" else None)
        if hook != "decorator":
            setattr(peer.protocol, hook, lambda request: waits)
        peer.sends(*chunks(GOOD, size))
        peer.protocol.readConnectionLost()
        assert peer.reads() == b"" and not peer.transport.disconnecting
        waits.callback(None if hook == "decorator" else Response(404))
        if hook == "decorator":
            assert peer.reads() == SWITCHING
            assert peer.protocol.heard == ["opened"]
        else:
            assert peer.reads().startswith(b"HTTP/1.1 404 Not Found\r\nConnection: close\r\n")
        assert peer.transport.disconnecting
        peer.leaves()

    def test_a_half_close_after_pipelined_requests_lets_all_be_answered(self, connect: Callable[..., Any]) -> None:
        waits: Deferred[None] = Deferred()
        peer = connect(Served, opened=False)
        peer.protocol.http_requested = lambda request: waits
        peer.sends(PLAIN * 3)
        peer.protocol.readConnectionLost()
        waits.callback(None)
        assert peer.reads() == VISITED * 2 + upgrade_required(ENDPOINT, "Upgrade, close")
        assert peer.transport.disconnecting

    @pytest.mark.parametrize("behind", [b"", b"GET / HT", b"\r\n"])
    def test_a_half_close_after_half_a_request_ends_the_connection(
        self, connect: Callable[..., Any], behind: bytes
    ) -> None:
        waits: Deferred[None] = Deferred()
        peer = connect(Served, opened=False)
        peer.protocol.http_requested = lambda request: waits
        peer.sends(PLAIN + behind)
        peer.protocol.readConnectionLost()
        waits.callback(None)
        assert peer.reads() == (VISITED if behind else upgrade_required(ENDPOINT, "Upgrade, close"))
        assert peer.transport.disconnecting

    def test_messages_after_the_handshake_are_delivered_before_the_end(self, connect: Callable[..., Any]) -> None:
        waits: Deferred[None] = Deferred()
        peer = connect(Served, opened=False)
        peer.protocol.upgrade_requested = lambda request: waits
        peer.sends(GOOD + peer.text("hi"))
        peer.protocol.readConnectionLost()
        waits.callback(None)
        assert peer.reads() == SWITCHING
        peer.leaves()
        assert peer.protocol.heard == ["opened", "hi", "closed"]

    def test_requests_read_by_hand_are_answered_after_a_half_close(self, connect: Callable[..., Any]) -> None:
        peer = connect(Manual, opened=False)
        peer.protocol.read_request()
        peer.sends(PLAIN + PLAIN)
        peer.protocol.readConnectionLost()
        assert Outcome(peer.protocol.respond(Response(200))) == [None]
        assert b"Connection" not in peer.reads()
        assert isinstance(Outcome(peer.protocol.read_request())[0], Request)
        assert Outcome(peer.protocol.respond(Response(200))) == [None]
        assert b"Connection: close\r\n" in peer.reads()
        assert peer.transport.disconnecting

    @pytest.mark.parametrize("pieces", [[], [b"GET / HT"]])
    def test_a_half_close_before_a_request_ends_the_connection(
        self, connect: Callable[..., Any], pieces: list[Any] | list[bytes]
    ) -> None:
        peer = connect(Manual, opened=False)
        read = Outcome(peer.protocol.read_request())
        peer.sends(*pieces)
        peer.protocol.readConnectionLost()
        assert type(read[0]) is ConnectionDone
        assert peer.transport.disconnecting

    def test_a_half_close_leaves_the_handshake_its_time(self, connect: Callable[..., Any], clock: Clock) -> None:
        peer = connect(Served, opened=False, timeouts=Timeouts(handshake=5))
        peer.protocol.http_requested = lambda request: Deferred()
        peer.sends(PLAIN)
        peer.protocol.readConnectionLost()
        clock.advance(4.9)
        assert not peer.transport.disconnecting
        clock.advance(0.2)
        assert peer.transport.disconnecting


class TestBodies:
    """RFC 9112 §6: a body is neither a request nor a frame."""

    @pytest.mark.parametrize("size", [1, 1 << 16])
    @pytest.mark.parametrize("attack", ATTACKS)
    def test_a_body_is_never_read_as_a_request_or_a_frame(
        self, connect: Callable[..., Any], attack: str, size: int
    ) -> None:
        sent, answer = ATTACKS[attack]
        peer = connect(Served, opened=False)
        peer.sends(*chunks(sent, size))
        assert peer.reads() == answer
        assert peer.transport.disconnecting
        assert peer.protocol.heard == []

    def test_a_body_of_any_size_does_not_stop_the_reading(self, connect: Callable[..., Any]) -> None:
        """Unread bytes would make TCP reset the connection and lose the response, and would hide the peer's close."""
        peer = connect(Served, opened=False)
        peer.sends(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n" + bytes(60_000))
        assert peer.reads() == bad(METHOD, more=CLOSE)
        assert peer.transport.producerState == "producing"

    def test_a_body_after_a_request_read_by_hand_is_discarded(self, connect: Callable[..., Any]) -> None:
        peer = connect(Manual, opened=False)
        peer.sends(*ATTACKS["a request in the body of a POST"][:1])
        request = Outcome(peer.protocol.read_request())[0]
        assert (request.method, request.has_body) == ("POST", True)
        peer.protocol.respond(Response(200, body="thanks"))
        assert peer.reads() == (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n"
            b"Connection: close\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 6\r\n"
            b"Server: " + SERVER.encode() + b"\r\n\r\nthanks"
        )
        assert peer.transport.disconnecting

    def test_the_next_request_is_not_searched_in_a_body(self, connect: Callable[..., Any]) -> None:
        peer = connect(Manual, opened=False)
        peer.sends(ATTACKS["a request in the body of a POST"][0])
        peer.protocol.read_request()
        for again in (peer.protocol.read_request, peer.protocol.accept):
            assert isinstance(outcome_or_raised(again), errors.LocalError)
        assert peer.reads() == b""


def outcome_or_raised(call: Callable[[], Deferred[Any]]) -> Any:
    """Return the result or error of ``call``. To an awaiting caller, a raised error equals a failed Deferred."""
    try:
        return (Outcome(call()) or [None])[0]
    except errors.LocalError as error:
        return error


class TestNotHttp:
    """RFC 9112 §2.2 and RFC 9110 §15.5: bytes that are no request."""

    @pytest.mark.parametrize(
        "garbage",
        [
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
            b"\r\n" * 11 + GOOD,
            b"\n" + GOOD,
            b"\r" + GOOD,
            b"GET / HTTP/1.1.1\r\n\r\n",
            b"GET /\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n",
            b"GET / HTTP/1.1\nHost: localhost\n\n",
            b"GET / HTTP/1.1\r\nHost: local\0host\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
            b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"\x81\x82\0\0\0\0hi",
        ],
    )
    def test_a_peer_that_speaks_no_http_is_answered_and_closed(
        self, connect: Callable[..., Any], garbage: bytes
    ) -> None:
        peer = connect(Served, opened=False)
        peer.sends(garbage + GOOD)
        assert peer.reads() == bad("The request is not valid HTTP", more=CLOSE)
        assert peer.transport.disconnecting

    @pytest.mark.parametrize("size", [999, 1000, 1001])
    @pytest.mark.parametrize("at_once", [False, True])
    def test_the_size_of_the_head_is_limited(self, connect: Callable[..., Any], size: int, at_once: bool) -> None:
        peer = connect(Served, opened=False, limits=Limits(max_head_size=1000))
        head = GOOD[:-2] + b"X: " + b"x" * (size - len(GOOD) - 5) + b"\r\n\r\n"
        assert len(head) == size
        peer.sends(*([head] if at_once else chunks(head, 1)))
        if size <= 1000:
            assert peer.reads() == SWITCHING
        else:
            body = "The request's head is too large"
            assert peer.reads() == said("431 Request Header Fields Too Large", body, more=CLOSE)
            assert peer.transport.disconnecting

    @pytest.mark.parametrize("lines", [9, 10, 11])
    def test_the_lines_of_the_head_are_limited(self, connect: Callable[..., Any], lines: int) -> None:
        peer = connect(Served, opened=False, limits=Limits(max_head_lines=10))
        peer.sends(GOOD[:-2] + b"X: x\r\n" * (lines - 6) + b"\r\n")
        assert peer.reads().startswith(b"HTTP/1.1 %d " % (101 if lines <= 10 else 431))

    def test_a_head_without_end_is_refused(self, connect: Callable[..., Any]) -> None:
        peer = connect(Served, opened=False)
        peer.sends(b"GET / HTTP/1.1\r\nX: " + b"x" * 65_000)
        assert peer.reads().startswith(b"HTTP/1.1 431 ")
        assert peer.transport.producerState == "producing"
        peer.sends(*[b"x" * 65_000] * 10)
        assert peer.reads() == b""

    def test_a_reader_by_hand_gets_the_error_and_the_peer_is_answered(self, connect: Callable[..., Any]) -> None:
        peer = connect(Manual, opened=False)
        read, garbage = Outcome(peer.protocol.read_request()), b" "
        peer.sends(garbage)
        assert type(read[0]) is errors.BadRequest
        assert peer.protocol.state is State.CLOSING
        with pytest.raises(errors.LocalError, match="closing"):
            peer.protocol.read_request()


TAIL = b"\x81\x82\0\0\0\0hi\x81\x85\0\0\0\0there"


class TestFormsOfAccept:
    """RFC 6455 §4.2.2: each form of `accept` completes the server's handshake."""

    def check(self, peer: Any, accepted: Outcome) -> None:
        assert peer.reads() == SWITCHING
        # Messages that arrived before accept() stay queued until the code that awaits it has run.
        peer.clock.advance(0)
        assert len(accepted) == 1
        assert isinstance(accepted[0], Request)
        assert peer.protocol.request is accepted[0]
        assert peer.protocol.heard == ["opened", "hi", "there"]

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60)
    @given(st.integers(0, len(GOOD + TAIL)), st.integers(0, len(GOOD + TAIL)), st.integers(0, len(GOOD + TAIL)))
    def test_buffered_bytes_may_be_split_anywhere(
        self, connect: Callable[..., Any], first: int, second: int, early: int
    ) -> None:
        """Other code read the first bytes, the next ones arrive before accept(), and the rest after it."""
        first, second = sorted((first, second))
        data = GOOD + TAIL
        peer = connect(Manual, opened=False)
        early = min(early, second - first)
        if early:
            peer.sends(data[first : first + early])
        accepted = Outcome(peer.protocol.accept(buffered=data[:first]))
        peer.sends(*filter(None, (data[first + early : second], data[second:])))
        self.check(peer, accepted)

    def test_accept_needs_no_argument(self, connect: Callable[..., Any]) -> None:
        peer = connect(Manual, opened=False)
        accepted = Outcome(peer.protocol.accept())
        peer.sends(GOOD, TAIL)
        self.check(peer, accepted)

    def test_accept_can_be_given_the_request(self, connect: Callable[..., Any]) -> None:
        peer = connect(Manual, opened=False)
        request = parse_request(GOOD)
        accepted = Outcome(peer.protocol.accept(request))
        peer.sends(TAIL)
        self.check(peer, accepted)
        assert accepted[0] is request

    @pytest.mark.parametrize("at", range(len(TAIL) + 1))
    def test_accept_can_be_given_the_request_and_the_bytes_after_it(self, connect: Callable[..., Any], at: int) -> None:
        peer = connect(Manual, opened=False)
        accepted = Outcome(peer.protocol.accept(parse_request(GOOD), TAIL[:at]))
        peer.sends(TAIL[at:])
        self.check(peer, accepted)

    def test_accept_can_be_given_the_request_read_before(self, connect: Callable[..., Any]) -> None:
        peer = connect(Manual, opened=False)
        read = Outcome(peer.protocol.read_request())
        peer.sends(GOOD + TAIL)
        assert is_upgrade(read[0])
        accepted = Outcome(peer.protocol.accept(read[0]))
        self.check(peer, accepted)

    def test_a_bytearray_is_accepted(self, connect: Callable[..., Any]) -> None:
        peer = connect(Manual, opened=False)
        accepted = Outcome(peer.protocol.accept(buffered=bytearray(GOOD + TAIL)))
        self.check(peer, accepted)

    def test_frames_wait_for_the_callbacks_of_accept(self, connect: Callable[..., Any]) -> None:
        peer = connect(Manual, opened=False)
        heard = peer.protocol.heard
        peer.protocol.accept().addCallback(lambda request: heard.append("accepted"))
        peer.sends(GOOD + TAIL)
        assert heard == ["opened", "accepted", "hi", "there"]

    def test_a_client_may_try_again_after_a_refusal(self, connect: Callable[..., Any]) -> None:
        peer = connect(Manual, opened=False)
        refused = Outcome(peer.protocol.accept(buffered=PLAIN + GOOD))
        assert type(refused[0]) is errors.NoConnection
        assert peer.reads() == VISITED
        accepted = Outcome(peer.protocol.accept(buffered=b""))
        peer.sends(TAIL)
        self.check(peer, accepted)

    def test_a_body_that_an_http_server_read_is_ignored(self, connect: Callable[..., Any]) -> None:
        peer = connect(Manual, opened=False)
        request = parse_request(GOOD.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n"))
        request.body_read = True
        accepted = Outcome(peer.protocol.accept(request, TAIL))
        self.check(peer, accepted)


def whole(ws: Manual, before: bytes) -> Deferred[Request]:
    return ws.accept()


def buffered(ws: Manual, before: bytes) -> Deferred[Request]:
    return ws.accept(buffered=before)


async def given_request(ws: Manual, before: bytes) -> Request:
    return await ws.accept(await ws.read_request())


async def given_request_and_bytes(ws: Manual, before: bytes) -> Request:
    request, end = await ws.read_request(), before.find(b"\r\n\r\n") + 4
    return await ws.accept(request, before[end:] if end > 3 else b"")


class TestOrder:
    """`opened`, the code that awaits `accept`, and the first message come in this order, however the bytes arrive."""

    EXPECTED: ClassVar[list[str]] = ["opened", "accepted", "hi", "there", "closed"]

    @pytest.mark.parametrize("size", [1, 7, 200, len(GOOD) + 5, 1 << 16])
    @pytest.mark.parametrize("form", [whole, buffered, given_request, given_request_and_bytes])
    @pytest.mark.parametrize("early", [False, True])
    def test_the_order_is_the_same_for_each_form_of_accept(
        self, connect: Callable[..., Any], form: Callable[..., Any], size: int, early: bool
    ) -> None:
        async def accept(ws: Manual, before: bytes) -> None:
            await form(ws, before)
            ws.heard.append("accepted")

        peer = connect(Manual, opened=False)
        pieces = chunks(GOOD + TAIL, size)
        if form is buffered:
            pieces, before = pieces[1:], pieces[0]
        elif form is given_request_and_bytes and len(GOOD + TAIL) <= size:
            # Other code read the request and the frames, and passed only the request to the protocol.
            pieces, before = [GOOD], GOOD + TAIL
        else:
            before = b""
        if early:
            peer.sends(*pieces)
            pieces = []
        Deferred.fromCoroutine(accept(peer.protocol, before))
        assert peer.protocol.heard[2:] == []
        peer.sends(*pieces)
        peer.clock.advance(0)
        peer.leaves()
        assert peer.protocol.heard == self.EXPECTED
        assert peer.clock.getDelayedCalls() == []

    @pytest.mark.parametrize("hook", ["http_requested", "upgrade_requested", "decorator"])
    @pytest.mark.parametrize("size", [1, 1 << 16])
    def test_the_order_is_the_same_if_a_hook_takes_time(self, connect: Any, hook: str, size: int) -> None:
        waits: Deferred[None] = Deferred()
        decorator = (lambda response: waits) if hook == "decorator" else None
        peer = connect(Manual, opened=False, decorator=decorator)
        if decorator is None:
            setattr(peer.protocol, hook, lambda request: waits)
        peer.protocol.accept().addCallback(lambda _: peer.protocol.heard.append("accepted"))
        peer.sends(*chunks(GOOD + TAIL, size))
        assert peer.protocol.heard == []
        waits.callback(None)
        peer.leaves()
        assert peer.protocol.heard == self.EXPECTED

    def test_the_order_is_the_same_if_serve_opens_by_hand(self, connect: Callable[..., Any]) -> None:
        """The messages after the request are delivered in the same reactor turn."""

        class ByHand(Manual):
            def serve(self) -> None:
                Deferred.fromCoroutine(self.run())

            async def run(self) -> None:
                request = await self.read_request()
                await self.respond(Response(404))
                request = await self.read_request()
                await self.accept(request)
                self.heard.append("accepted")

        peer = connect(ByHand, opened=False)
        peer.sends(PLAIN + GOOD + TAIL)
        assert peer.protocol.heard == self.EXPECTED[:-1]

    @pytest.mark.parametrize("event", ["more bytes", "the end of the peer's side", "a lost connection"])
    def test_the_order_is_the_same_if_something_happens_before_the_next_turn(
        self, connect: Callable[..., Any], event: str
    ) -> None:
        peer = connect(Manual, opened=False)
        peer.sends(GOOD + TAIL[:-3])
        peer.protocol.accept().addCallback(lambda _: peer.protocol.heard.append("accepted"))
        assert peer.protocol.heard == ["opened", "accepted"]
        if event == "more bytes":
            peer.sends(TAIL[-3:])
            assert peer.protocol.heard == self.EXPECTED[:-1]
        else:
            if event == "the end of the peer's side":
                peer.protocol.readConnectionLost()
            peer.leaves()
            assert peer.protocol.heard == ["opened", "accepted", "hi", "closed"]

    def test_the_awaiting_code_may_abort(self, connect: Callable[..., Any]) -> None:
        peer = connect(Manual, opened=False)
        peer.sends(GOOD + TAIL)
        peer.protocol.accept().addCallback(lambda _: peer.protocol.abort())
        peer.leaves()
        peer.clock.advance(0)
        assert peer.protocol.heard == ["opened", "closed"]


class TestRespond:
    """RFC 9110 §15 and RFC 9112 §9.3: responses of the application."""

    def test_any_response_can_be_sent_and_the_next_request_read(self, connect: Callable[..., Any]) -> None:
        peer = connect(Manual, opened=False)
        for status, line in ((200, b"200 OK"), (404, b"404 Not Found"), (503, b"503 Service Unavailable")):
            read = Outcome(peer.protocol.read_request())
            peer.sends(PLAIN)
            assert read[0].path == "/"
            response = Response(status, body="text")
            response.headers.setRawHeaders("X-Here", ["there"])
            assert Outcome(peer.protocol.respond(response)) == [None]
            assert peer.reads() == (
                b"HTTP/1.1 " + line + b"\r\nContent-Type: text/plain; charset=utf-8\r\n"
                b"X-Content-Type-Options: nosniff\r\nX-Here: there\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
                b"Content-Length: 4\r\nServer: " + SERVER.encode() + b"\r\n\r\ntext"
            )
        accepted = Outcome(peer.protocol.accept())
        peer.sends(GOOD)
        assert len(accepted) == 1

    @pytest.mark.parametrize("status", [100, 101, 199])
    def test_an_interim_status_is_refused(self, connect: Callable[..., Any], status: int) -> None:
        peer = connect(Manual, opened=False)
        peer.protocol.read_request()
        peer.sends(PLAIN)
        (refused,) = Outcome(peer.protocol.respond(Response(status)))
        assert isinstance(refused, errors.LocalError) and peer.reads() == b""
        assert Outcome(peer.protocol.respond(Response(404))) == [None]

    @pytest.mark.parametrize("status", [200, 204, 304])
    def test_the_response_to_head_has_no_body(self, connect: Callable[..., Any], status: int) -> None:
        peer = connect(Manual, opened=False)
        peer.protocol.read_request()
        peer.sends(PLAIN.replace(b"GET", b"HEAD"))
        peer.protocol.respond(Response(status, body=b"text"))
        assert peer.reads().endswith(b"\r\n\r\n")
        assert peer.protocol.state is State.CONNECTING

    def test_connection_close_of_either_side_closes(self, connect: Callable[..., Any]) -> None:
        for request, response in ((b"Connection: close\r\n", {}), (b"", {"Connection": ["close"]})):
            peer = connect(Manual, opened=False)
            peer.protocol.read_request()
            peer.sends(PLAIN[:-2] + request + b"\r\n")
            answer = Response(200)
            for name, values in response.items():
                answer.headers.setRawHeaders(name, values)
            peer.protocol.respond(answer)
            assert peer.reads().count(b"Connection: close\r\n") == 1
            assert peer.transport.disconnecting
            assert peer.protocol.state is State.CLOSING

    def test_respond_fires_when_little_data_is_pending(self, connect: Callable[..., Any]) -> None:
        peer = connect(Manual, opened=False, limits=Limits(low_water=10))
        peer.protocol.read_request()
        peer.sends(PLAIN)
        peer.transport.stall()
        responded = Outcome(peer.protocol.respond(Response(200, body=bytes(100))))
        assert responded == []
        peer.transport.flow()
        assert responded == [None]

    def test_pipelined_requests_are_read_one_by_one(self, connect: Callable[..., Any]) -> None:
        peer = connect(Manual, opened=False)
        peer.sends(b"".join(PLAIN.replace(b" / ", b" /%d " % number) for number in range(5)))
        for number in range(5):
            assert Outcome(peer.protocol.read_request())[0].path == f"/{number}"
            peer.protocol.respond(Response(200))

    def test_a_response_without_a_request_is_refused(self, connect: Callable[..., Any]) -> None:
        peer = connect(Manual, opened=False)
        assert isinstance(outcome_or_raised(lambda: peer.protocol.respond(Response(200))), errors.LocalError)
        peer.protocol.read_request()
        peer.sends(PLAIN)
        peer.protocol.respond(Response(200))
        assert isinstance(outcome_or_raised(lambda: peer.protocol.respond(Response(200))), errors.LocalError)
        assert peer.reads().count(b"HTTP/1.1") == 1

    def test_a_value_that_is_no_response_is_refused_and_another_can_be_sent(self, connect: Callable[..., Any]) -> None:
        peer = connect(Manual, opened=False)
        peer.protocol.read_request()
        peer.sends(PLAIN)
        response = Response(200)
        response.reason = "O\r\nK"
        assert isinstance(Outcome(peer.protocol.respond(response))[0], ValueError)
        assert peer.reads() == b""
        assert Outcome(peer.protocol.respond(Response(200))) == [None]


class TestMistakes:
    """Calls that the state of the connection does not allow raise `LocalError`."""

    @pytest.mark.parametrize("second", ["accept", "read_request", "respond"])
    @pytest.mark.parametrize("first", ["accept", "read_request"])
    def test_two_operations_at_once_are_refused(self, connect: Callable[..., Any], first: str, second: str) -> None:
        peer = connect(Manual, opened=False)
        done = Outcome(getattr(peer.protocol, first)())
        with pytest.raises(errors.LocalError, match="one operation"):
            getattr(peer.protocol, second)(*[Response(200)] * (second == "respond"))
        peer.sends(GOOD)
        assert isinstance(done[0], Request)

    def test_an_open_connection_cannot_be_opened(self, connect: Callable[..., Any]) -> None:
        peer = connect(Served)
        for operation in (
            peer.protocol.accept,
            peer.protocol.read_request,
            lambda: peer.protocol.respond(Response(100)),
        ):
            with pytest.raises(errors.LocalError, match="open"):
                operation()

    def test_a_closed_connection_cannot_be_opened(self, connect: Callable[..., Any]) -> None:
        peer = connect(Manual, opened=False)
        peer.leaves()
        with pytest.raises(errors.LocalError, match="closed"):
            peer.protocol.accept()

    def test_a_protocol_without_connection_cannot_be_opened(self) -> None:
        with pytest.raises(errors.LocalError):
            WebSocketProtocol().accept()


def returning(value: Any, how: str) -> tuple[Any, Callable[[], None]]:
    """Return ``value`` in a form that a hook may return, and the function that makes the result available."""
    if how == "plain":
        return value, lambda: None
    if how == "fired":
        return succeed(value), lambda: None
    later: Deferred[Any] = Deferred()
    if how == "Deferred":
        return later, lambda: later.callback(value)

    async def coroutine() -> Any:
        await later
        return value

    return coroutine(), lambda: later.callback(None)


class Decorator:
    """A decorator that records responses and changes them, at once or when the test calls `come`."""

    def __init__(self, change: Callable[[Response], Any] = lambda response: None, how: str = "plain") -> None:
        self.change = change
        self.how = how
        self.seen: list[tuple[int, bytes]] = []
        self.come: Callable[[], None] = lambda: None

    def __call__(self, response: Response) -> Any:
        self.seen.append((response.status, response.request.method.encode() if response.request else b""))
        result, self.come = returning(self.change(response), self.how)
        return result


def name(response: Response) -> None:
    response.headers.setRawHeaders("Server", ["mine"])


class TestDecorator:
    """RFC 6455 §4.2.2: a decorator may change the response."""

    @pytest.mark.parametrize("how", HOWS)
    @pytest.mark.parametrize("given", ["factory", "accept"])
    def test_a_decorator_changes_the_response_before_it_is_sent(
        self, connect: Callable[..., Any], how: str, given: str
    ) -> None:
        decorator = Decorator(name, how)
        peer = connect(Manual, opened=False, decorator=decorator if given == "factory" else None)
        accepted = Outcome(peer.protocol.accept(decorator=decorator if given == "accept" else None))
        peer.sends(GOOD)
        if how in ("Deferred", "coroutine"):
            assert peer.reads() == b""
            assert accepted == []
            decorator.come()
        date, server = b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", b"Server: " + SERVER.encode() + b"\r\n"
        assert peer.reads() == SWITCHING.replace(date + server, b"Server: mine\r\n" + date)
        assert decorator.seen == [(101, b"GET")]
        assert len(accepted) == 1

    @pytest.mark.parametrize(("head", "seen"), [(GOOD, (101, b"GET")), (b"no head\r\n\r\n", (400, b""))])
    def test_a_decorator_of_accept_is_called_before_the_factorys(
        self, connect: Callable[..., Any], head: bytes, seen: tuple[int, bytes]
    ) -> None:
        mine, theirs = Decorator(), Decorator()
        peer = connect(Manual, opened=False, decorator=theirs)
        Outcome(peer.protocol.accept(decorator=mine))
        peer.sends(head)
        assert (mine.seen, theirs.seen) == ([seen], [])

    @pytest.mark.parametrize("how", HOWS)
    @pytest.mark.parametrize(
        ("head", "status"),
        [
            (BAD, 400),
            (GOOD.replace(b": 13", b": 8"), 426),
            (GOOD[:-2] + b"Origin: https://evil.example\r\n\r\n", 403),
            (b"\0", 400),
            (b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000, 431),
        ],
    )
    def test_a_decorator_gets_failures_too(
        self, connect: Callable[..., Any], how: str, head: bytes, status: int
    ) -> None:
        decorator = Decorator(name, how)
        peer = connect(Served, opened=False, decorator=decorator)
        peer.sends(head)
        decorator.come()
        answer = peer.reads()
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert b"\r\nServer: mine\r\n" in answer
        assert len(decorator.seen) == 1
        assert peer.transport.disconnecting == (head[:1] == b"\0" or status == 431)

    @pytest.mark.parametrize("how", HOWS)
    def test_a_decorator_gets_the_response_of_a_hook(self, connect: Callable[..., Any], how: str) -> None:
        class Page(Served):
            def http_requested(self, request: Request) -> Response:
                return Response(200, body="page")

        decorator = Decorator(name, how)
        peer = connect(Page, opened=False, decorator=decorator)
        peer.sends(PLAIN)
        decorator.come()
        assert b"\r\nServer: mine\r\n" in peer.reads()
        assert decorator.seen == [(200, b"GET")]

    @pytest.mark.parametrize("how", HOWS)
    def test_a_decorator_that_returns_another_response_is_answered_500(
        self, connect: Callable[..., Any], logged: Callable[..., list[Any]], how: str
    ) -> None:
        """The decorator meant to refuse the client, so its mistake must not admit the client."""
        decorator = Decorator(lambda response: Response(401), how)
        peer = connect(Manual, opened=False)
        failed = Outcome(peer.protocol.accept(decorator=decorator))
        peer.sends(GOOD)
        decorator.come()
        assert peer.reads().startswith(b"HTTP/1.1 500 ")
        assert type(failed[0]) is errors.HookFailed
        assert "changes the response that it is given" in str(logged(TypeError)[0])

    def test_a_decorator_may_return_the_response_that_it_got(self, connect: Callable[..., Any]) -> None:
        peer = connect(Manual, opened=False)
        Outcome(peer.protocol.accept(decorator=lambda response: response))
        peer.sends(GOOD)
        assert peer.reads() == SWITCHING

    def test_a_decorator_gets_the_response_of_respond(self, connect: Callable[..., Any]) -> None:
        decorator = Decorator(name)
        peer = connect(Manual, opened=False, decorator=decorator)
        peer.protocol.read_request()
        peer.sends(PLAIN)
        peer.protocol.respond(Response(200))
        assert b"\r\nServer: mine\r\n" in peer.reads()

    @pytest.mark.parametrize("how", HOWS)
    def test_a_decorator_declines_by_another_status(self, connect: Callable[..., Any], how: str) -> None:
        def forbid(response: Response) -> None:
            response.status = 403
            response.body = "not you"

        decorator = Decorator(forbid, how)
        peer = connect(Manual, opened=False)
        declined = Outcome(peer.protocol.accept(decorator=decorator))
        peer.sends(GOOD)
        decorator.come()
        assert peer.reads() == (
            b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain; charset=utf-8\r\n"
            b"X-Content-Type-Options: nosniff\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 7\r\nServer: "
            + SERVER.encode()
            + b"\r\n\r\nnot you"
        )
        assert type(declined[0]) is errors.UpgradeDeclined
        assert (declined[0].status, declined[0].response.body) == (403, b"not you")
        assert peer.protocol.state is State.CONNECTING
        assert peer.protocol.heard == []
        assert decorator.seen == [(101, b"GET")]
        accepted = Outcome(peer.protocol.accept())
        peer.sends(GOOD)
        assert isinstance(accepted[0], Request)

    @pytest.mark.parametrize("chosen", ["a", "b", None])
    def test_a_decorator_may_choose_the_subprotocol(self, connect: Callable[..., Any], chosen: str | None) -> None:
        """The protocol's `subprotocol` is the one in the response."""

        def choose(response: Response) -> None:
            response.headers.removeHeader("Sec-WebSocket-Protocol")
            if chosen is not None:
                response.headers.setRawHeaders("Sec-WebSocket-Protocol", [chosen])

        peer = connect(Served, opened=False, decorator=choose, subprotocols=["a"])
        peer.sends(GOOD[:-2] + b"Sec-WebSocket-Protocol: a, b\r\n\r\n")
        assert (b"\r\nSec-WebSocket-Protocol: %b\r\n" % (chosen or "").encode() in peer.reads()) is (chosen is not None)
        assert peer.protocol.subprotocol == chosen
        assert peer.protocol.state is State.OPEN

    @pytest.mark.parametrize("way", ["Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"])
    def test_a_decorator_that_declines_removes_the_fields_of_the_handshake(
        self, connect: Callable[..., Any], way: str
    ) -> None:
        def decline(response: Response) -> None:
            response.status = 403

        peer = connect(Served, opened=False, decorator=decline, subprotocols=["a"], deflate=Deflate())
        peer.sends(GOOD[:-2] + b"Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
        sent = peer.reads()
        assert sent.startswith(b"HTTP/1.1 403 ") and b"Sec-WebSocket" not in sent

    @pytest.mark.parametrize(
        ("field", "values"),
        [
            ("Sec-WebSocket-Protocol", ["mine"]),
            ("Sec-WebSocket-Protocol", [""]),
            ("Sec-WebSocket-Protocol", ["a", "b"]),
            ("Sec-WebSocket-Protocol", ["a, b"]),
            ("Sec-WebSocket-Extensions", ["permessage-deflate"]),
            ("Upgrade", ["h2c"]),
            ("Upgrade", []),
            ("Connection", ["close"]),
            ("Connection", ["Upgrade", "Upgrade"]),
            ("Sec-WebSocket-Accept", ["AAAAAAAAAAAAAAAAAAAAAAAAAAA="]),
            ("Sec-WebSocket-Accept", []),
        ],
    )
    def test_a_decorator_may_not_break_a_101(
        self, connect: Any, logged: Callable[..., list[Any]], field: str, values: list[Any] | list[str]
    ) -> None:
        def spoil(response: Response) -> None:
            response.headers.setRawHeaders(field, values)

        peer = connect(Manual, opened=False)
        failed = Outcome(peer.protocol.accept(decorator=spoil))
        peer.sends(GOOD)
        assert peer.reads() == FAILED
        assert type(failed[0]) is errors.DecoratorError
        assert field in str(failed[0])
        assert len(logged(errors.DecoratorError)) == 1
        assert peer.protocol.heard == []

    @pytest.mark.parametrize("head", [BAD, PLAIN])
    def test_a_failure_cannot_be_made_a_101(
        self, connect: Callable[..., Any], logged: Callable[..., list[Any]], head: bytes
    ) -> None:
        def lie(response: Response) -> None:
            response.status = 101

        class Page(Manual):
            def http_requested(self, request: Request) -> Response | None:
                return Response(200) if head == PLAIN else None

        peer = connect(Page, opened=False, decorator=lie)
        failed = Outcome(peer.protocol.accept())
        peer.sends(head)
        assert peer.reads() == FAILED
        assert type(failed[0]) is errors.DecoratorError
        assert len(logged(errors.DecoratorError)) == 1
        assert peer.protocol.heard == []

    @pytest.mark.parametrize("how", HOWS)
    @pytest.mark.parametrize("head", [GOOD, BAD, b"\0"])
    def test_a_decorator_that_raises_is_logged_once_and_answered_500(
        self, connect: Any, logged: Callable[..., list[Any]], head: bytes, how: str
    ) -> None:
        later: Deferred[None] = Deferred()
        peer = connect(Manual, opened=False, decorator=failing(how, later))
        failed = Outcome(peer.protocol.accept())
        peer.sends(head)
        later.callback(None)
        closes = head == b"\0"
        expected = said("500 Internal Server Error", "Internal Server Error", more=CLOSE if closes else "")
        assert peer.reads() == expected
        assert isinstance(failed[0], errors.HookFailed)
        assert isinstance(failed[0].__cause__, ZeroDivisionError)
        assert len(logged(ZeroDivisionError)) == 1
        assert peer.transport.disconnecting == closes

    def test_a_decorator_that_sets_an_impossible_field_is_logged(
        self, connect: Callable[..., Any], logged: Callable[..., list[Any]]
    ) -> None:
        def inject(response: Response) -> None:
            response.headers.setRawHeaders("X", ["a\r\nb"])

        peer = connect(Served, opened=False, decorator=inject)
        peer.sends(GOOD)
        assert peer.reads() == FAILED
        assert len(logged(ValueError)) == 1

    @pytest.mark.parametrize("head", [GOOD, BAD])
    def test_a_response_that_cannot_be_written_is_answered_500(
        self, connect: Callable[..., Any], logged: Callable[..., list[Any]], head: bytes
    ) -> None:
        def spoil(response: Response) -> None:
            response.reason = "a\r\nb"

        peer = connect(Served, opened=False, decorator=spoil)
        peer.sends(head)
        assert peer.reads() == FAILED
        assert len(logged(ValueError)) == 1
        assert peer.protocol.heard == []


class Hooked(Served):
    """A protocol with hooks that return the values of `http` and `upgrade`, or call them."""

    http: Any = None
    upgrade: Any = None

    def http_requested(self, request: Request) -> Any:
        self.heard.append(f"http {request.target}")
        return self.http() if callable(self.http) else self.http

    def upgrade_requested(self, request: Request) -> Any:
        self.heard.append(f"upgrade {request.target}")
        return self.upgrade() if callable(self.upgrade) else self.upgrade


class TestHooks:
    """RFC 6455 §4.2.2: the hooks that accept or refuse a request."""

    def test_the_hooks_are_called_in_order(self, connect: Callable[..., Any]) -> None:
        peer = connect(Hooked, opened=False)
        peer.sends(BAD, PLAIN, GOOD)
        assert peer.protocol.heard == ["http /chat", "http /", "http /chat", "upgrade /chat", "opened"]

    @pytest.mark.parametrize("how", HOWS)
    @pytest.mark.parametrize("hook", ["http", "upgrade"])
    def test_a_hook_that_returns_none_lets_the_handshake_go_on(
        self, connect: Callable[..., Any], hook: str, how: str
    ) -> None:
        peer = connect(Hooked, opened=False)
        result, come = returning(None, how)
        setattr(peer.protocol, hook, result)
        peer.sends(GOOD)
        come()
        assert peer.reads() == SWITCHING
        assert peer.protocol.heard[-1] == "opened"

    @pytest.mark.parametrize("how", HOWS)
    @pytest.mark.parametrize("hook", ["http", "upgrade"])
    def test_a_response_of_a_hook_is_the_answer(self, connect: Callable[..., Any], hook: str, how: str) -> None:
        peer = connect(Hooked, opened=False)
        result, come = returning(Response(404, body=b"no"), how)
        setattr(peer.protocol, hook, result)
        peer.sends(GOOD)
        come()
        assert peer.reads() == (
            b"HTTP/1.1 404 Not Found\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 2\r\n"
            b"Server: " + SERVER.encode() + b"\r\n\r\nno"
        )
        assert peer.protocol.state is State.CONNECTING
        setattr(peer.protocol, hook, None)
        peer.sends(GOOD)
        assert peer.reads() == SWITCHING

    def test_accept_fails_with_the_response_of_a_hook(self, connect: Callable[..., Any]) -> None:
        class Busy(Manual):
            def upgrade_requested(self, request: Request) -> Response:
                return Response(503, body="busy")

        peer = connect(Busy, opened=False)
        declined = Outcome(peer.protocol.accept())
        peer.sends(GOOD)
        assert type(declined[0]) is errors.UpgradeDeclined
        assert declined[0].response.body == b"busy"

    @pytest.mark.parametrize("how", HOWS)
    @pytest.mark.parametrize("hook", ["http", "upgrade"])
    def test_a_hook_that_raises_is_logged_once_and_answered_500(
        self, connect: Callable[..., Any], logged: Callable[..., list[Any]], hook: str, how: str
    ) -> None:
        later: Deferred[None] = Deferred()
        peer = connect(Hooked, opened=False)
        setattr(peer.protocol, hook, failing(how, later))
        peer.sends(GOOD)
        later.callback(None)
        assert peer.reads() == FAILED
        assert len(logged(ZeroDivisionError)) == 1
        setattr(peer.protocol, hook, None)
        peer.sends(GOOD)
        assert peer.reads() == SWITCHING

    @pytest.mark.parametrize("answer", ["text", 200, Response(100), Response(101), Response(199)])
    @pytest.mark.parametrize("hook", ["http", "upgrade"])
    def test_a_result_that_is_no_response_is_answered_500(
        self, connect: Callable[..., Any], logged: Callable[..., list[Any]], hook: str, answer: Response | int | str
    ) -> None:
        peer = connect(Hooked, opened=False)
        setattr(peer.protocol, hook, answer)
        peer.sends(GOOD)
        assert peer.reads() == FAILED
        assert len(logged(TypeError)) == 1

    def test_a_response_that_cannot_be_written_is_answered_500(
        self, connect: Callable[..., Any], logged: Callable[..., list[Any]]
    ) -> None:
        peer = connect(Hooked, opened=False)
        peer.protocol.http = Response(200)
        peer.protocol.http.status = 1000
        peer.sends(GOOD)
        assert peer.reads() == FAILED
        assert len(logged(ValueError)) == 1
        assert peer.protocol.state is State.CONNECTING

    def test_a_hook_can_set_the_user_and_the_subprotocol(self, connect: Callable[..., Any]) -> None:
        class Login(Served):
            async def upgrade_requested(self, request: Request) -> None:
                assert self.subprotocol == "a"
                self.user = request.query
                self.subprotocol = "b"

        peer = connect(Login, opened=False, subprotocols=["a"])
        peer.sends(GOOD.replace(b"/chat", b"/chat?me")[:-2] + b"Sec-WebSocket-Protocol: a, b\r\n\r\n")
        assert b"\r\nSec-WebSocket-Protocol: b\r\n" in peer.reads()
        assert (peer.protocol.user, peer.protocol.subprotocol) == ("me", "b")

    @pytest.mark.parametrize("offered", [b"", b"Sec-WebSocket-Protocol: chat, v2\r\n"])
    @pytest.mark.parametrize("chosen", ["mine", "", b"chat", "chat, v2"])
    def test_a_subprotocol_that_was_not_offered_is_answered_500(
        self, connect: Callable[..., Any], logged: Callable[..., list[Any]], offered: bytes, chosen: Any
    ) -> None:
        class Choosing(Manual):
            def upgrade_requested(self, request: Request) -> None:
                self.subprotocol = chosen

        peer = connect(Choosing, opened=False)
        failed = Outcome(peer.protocol.accept())
        peer.sends(GOOD[:-2] + offered + b"\r\n")
        assert peer.reads() == FAILED
        (mistake,) = logged(errors.LocalError)
        assert str(mistake) == f"upgrade_requested set self.subprotocol to {chosen!r}, which the client did not offer"
        assert type(failed[0]) is errors.HookFailed
        assert failed[0].__cause__ is mistake
        assert peer.protocol.heard == []

    def test_each_handshake_has_its_own_context(self, connect: Any) -> None:
        waiting: Deferred[None] = Deferred()
        seen = []

        class Tracing(Served):
            async def http_requested(self, request: Request) -> None:
                token = TRACE.set(request.target)
                await waiting
                seen.append(TRACE.get())
                TRACE.reset(token)
                TRACE.set("for the next hook")

            async def upgrade_requested(self, request: Request) -> None:
                seen.append(TRACE.get())

        peer = connect(Tracing, opened=False)
        peer.sends(GOOD)
        assert TRACE.get() == ""
        waiting.callback(None)
        assert seen == ["/chat", "for the next hook"]
        assert peer.reads() == SWITCHING
        assert TRACE.get() == ""

    @pytest.mark.parametrize("ending", ["abort", "loseConnection", "lost"])
    @pytest.mark.parametrize("hook", ["http_requested", "upgrade_requested"])
    def test_a_hook_that_ends_the_connection_prevents_the_opening(self, connect: Any, hook: str, ending: str) -> None:
        heard = []

        def end(self: Any, request: Request) -> None:
            if ending == "abort":
                self.abort()
            elif ending == "loseConnection":
                self.transport.loseConnection()
            else:
                peer.leaves()

        class Ending(WebSocketProtocol):
            def opened(self) -> None:
                heard.append("opened")

            def text_received(self, text: str) -> None:
                heard.append(text)

        setattr(Ending, hook, end)
        peer = connect(Ending, opened=False)
        peer.sends(GOOD + peer.frame(0x81, b"hello"), peer.frame(0x81, b"again"))
        if ending == "loseConnection":
            peer.leaves()
        assert (heard, peer.reads()) == ([], b"")
        assert peer.protocol.state is not State.OPEN
        assert peer.clock.getDelayedCalls() == [] or ending == "abort"

    @pytest.mark.parametrize("hook", ["http_requested", "upgrade_requested"])
    @pytest.mark.parametrize("waits", [False, True])
    def test_the_exception_of_a_hook_that_ended_the_connection_has_no_cause(
        self, connect: Any, hook: str, waits: bool
    ) -> None:
        """As its own cause, it would stay in memory until the garbage collector runs."""
        error = ZeroDivisionError()

        def end(self: Any, request: Request) -> Any:
            self.abort()
            if waits:
                return fail(error)
            raise error

        class Ending(WebSocketProtocol):
            pass

        setattr(Ending, hook, end)
        connect(Ending, opened=False).sends(GOOD)
        assert error.__cause__ is None

    def test_a_hook_that_loses_the_connection_and_waits_is_cancelled(self, connect: Any) -> None:
        cancelled: list[Any] = []

        def lose(self: Any, request: Request) -> Deferred[None]:
            peer.leaves()
            return Deferred(cancelled.append)

        peer = connect(type("Losing", (WebSocketProtocol,), {"http_requested": lose}), opened=False)
        peer.sends(GOOD)
        assert len(cancelled) == 1

    def test_a_later_exception_of_the_application_has_no_context_of_the_library(
        self, connect: Callable[..., Any]
    ) -> None:
        contexts = []

        class Raising(WebSocketProtocol):
            def text_received(self, text: str) -> None:
                try:
                    raise ValueError
                except ValueError as error:
                    contexts.append(error.__context__)

        peer = connect(Raising, opened=False)
        peer.sends(GOOD + peer.frame(0x81, b"hello"))
        assert contexts == [None]

    def test_a_hook_that_never_ends_is_closed_without_an_error(self, connect: Callable[..., Any]) -> None:
        closed = []

        class Thinking(Served):
            async def http_requested(self, request: Request) -> None:
                try:
                    await Deferred()
                finally:
                    closed.append("hook")

        coroutine = Thinking().http_requested(parse_request(GOOD))
        rest = going_on(coroutine, coroutine.send(None), copy_context())
        next(rest)
        rest.close()
        assert closed == ["hook"]
        coroutine = Thinking().http_requested(parse_request(GOOD))
        rest = going_on(coroutine, coroutine.send(None), copy_context())
        next(rest)
        coroutine.close()
        rest.close()
        assert closed == ["hook", "hook"]


class TestSubprotocols:
    """RFC 6455 §4.2.2 (4) and §11.3.4: the server chooses one of the subprotocols that the client offers."""

    @pytest.mark.parametrize(
        ("spoken", "offered", "chosen"),
        [
            (["a", "b"], b"b, a", "a"),
            (["a", "b"], b"c,b", "b"),
            (["a"], b"A", None),
            (["a"], None, None),
            ([], b"a", None),
        ],
    )
    def test_the_first_of_our_subprotocols_that_is_offered_is_chosen(
        self, connect: Callable[..., Any], spoken: list[Any] | list[str], offered: bytes | None, chosen: str | None
    ) -> None:
        peer = connect(Served, opened=False, subprotocols=spoken)
        more = b"" if offered is None else b"Sec-WebSocket-Protocol: %b\r\n" % offered
        peer.sends(GOOD[:-2] + more + b"\r\n")
        answer = peer.reads()
        assert answer.startswith(b"HTTP/1.1 101 ")
        assert peer.protocol.subprotocol == chosen
        if chosen is None:
            assert b"Sec-WebSocket-Protocol" not in answer
        else:
            assert f"\r\nSec-WebSocket-Protocol: {chosen}\r\n".encode() in answer

    def test_the_subprotocols_of_accept_replace_the_factorys(self, connect: Callable[..., Any]) -> None:
        peer = connect(Manual, opened=False, subprotocols=["a"])
        peer.protocol.accept(subprotocols=["b"])
        peer.sends(GOOD[:-2] + b"Sec-WebSocket-Protocol: a, b\r\n\r\n")
        assert peer.protocol.subprotocol == "b"

    def test_the_choice_of_a_subprotocol_applies_to_one_request(self, connect: Callable[..., Any]) -> None:
        class Once(Served):
            def upgrade_requested(self, request: Request) -> Response | None:
                return Response(403) if request.target == "/no" else None

        peer = connect(Once, opened=False, subprotocols=["a"])
        peer.sends(GOOD.replace(b"/chat", b"/no")[:-2] + b"Sec-WebSocket-Protocol: a\r\n\r\n", GOOD)
        assert peer.protocol.subprotocol is None
        assert b"Sec-WebSocket-Protocol" not in peer.reads()


class TestOrigins:
    """RFC 6455 §4.2.2 (4) and §10.2: the server refuses the pages of other sites."""

    def test_a_foreign_page_is_refused_and_the_connection_is_kept(self, connect: Callable[..., Any]) -> None:
        peer = connect(Served, opened=False)
        peer.sends(GOOD[:-2] + b"Origin: https://evil.example\r\n\r\n")
        answer = peer.reads()
        assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert b"https://evil.example" in answer
        assert b"localhost" in answer
        peer.sends(GOOD[:-2] + b"Origin: http://localhost\r\n\r\n")
        assert peer.reads() == SWITCHING

    @pytest.mark.parametrize(
        "origins", [Origins(allowed=("https://evil.example",)), Origins(allow_any_origin_dangerously=True)]
    )
    def test_the_operator_may_allow_other_origins(self, connect: Callable[..., Any], origins: Origins) -> None:
        peer = connect(Served, opened=False, origins=origins)
        peer.sends(GOOD[:-2] + b"Origin: https://evil.example\r\n\r\n")
        assert peer.reads() == SWITCHING


class TestTimeout:
    """`Timeouts.handshake` and `Timeouts.keep_alive` (`docs/topics/timeouts.md`)."""

    @pytest.mark.parametrize("sent", [b"", GOOD[:50], PLAIN + b"GET /"])
    def test_the_timeout_ends_the_handshake(self, connect: Callable[..., Any], clock: Clock, sent: bytes) -> None:
        peer = connect(Manual, opened=False, timeouts=Timeouts(handshake=5.0))
        if sent.startswith(PLAIN):
            peer.protocol.accept().addErrback(lambda _: None)
        waiting = Outcome(peer.protocol.accept()) if not sent.startswith(PLAIN) else None
        peer.sends(sent)
        if waiting is None:
            waiting = Outcome(peer.protocol.accept())
        peer.reads()
        clock.advance(4.99)
        assert waiting == []
        assert peer.protocol.state is State.CONNECTING
        clock.advance(0.05)
        assert type(waiting[0]) is errors.HandshakeTimeout
        assert peer.transport.disconnecting
        assert peer.reads() == b""
        peer.leaves()
        assert len(waiting) == 1
        assert clock.calls == []
        assert peer.protocol.heard == []

    def test_the_timeout_in_serve_is_quiet_and_final(self, connect: Callable[..., Any], clock: Clock) -> None:
        peer = connect(Hooked, opened=False, timeouts=Timeouts(handshake=5.0))
        slow: Deferred[None] = Deferred()
        peer.protocol.http = lambda: slow
        peer.sends(GOOD + GOOD)
        clock.advance(5.1)
        assert peer.transport.disconnecting
        # The server does not read the second request, and ignores the hook's late result.
        assert peer.protocol.heard == ["http /chat"]
        if not slow.called:
            slow.callback(None)
        assert peer.reads() == b""
        peer.leaves()
        assert peer.protocol.heard == ["http /chat"]
        assert clock.calls == []

    def test_a_trickle_does_not_extend_the_timeout(self, connect: Callable[..., Any], clock: Clock) -> None:
        peer = connect(Served, opened=False, timeouts=Timeouts(handshake=5.0))
        for octet in GOOD[:51]:
            peer.sends(bytes((octet,)))
            clock.advance(0.1)
        assert peer.transport.disconnecting

    def test_a_response_starts_the_keep_alive_timeout(self, connect: Callable[..., Any], clock: Clock) -> None:
        peer = connect(Served, opened=False, timeouts=Timeouts(handshake=5.0))
        for _ in range(5):
            clock.advance(4.0)
            peer.sends(PLAIN)
            assert peer.reads() == VISITED

    def test_an_idle_connection_is_kept_for_longer_than_a_minute(
        self, connect: Callable[..., Any], clock: Clock
    ) -> None:
        peer = connect(Served, opened=False, timeouts=Timeouts(handshake=5.0))
        peer.sends(PLAIN)
        for _ in range(3):
            assert peer.reads() == VISITED
            clock.advance(60.1)
            peer.sends(PLAIN)

    @pytest.mark.parametrize(("seconds", "kept"), [(9.9, True), (10.1, False)])
    def test_an_idle_connection_is_kept_for_the_keep_alive_timeout(
        self, connect: Callable[..., Any], clock: Clock, seconds: float, kept: bool
    ) -> None:
        peer = connect(Served, opened=False, timeouts=Timeouts(handshake=5.0, keep_alive=10.0))
        peer.sends(PLAIN)
        clock.advance(seconds)
        assert peer.transport.disconnecting != kept

    @pytest.mark.parametrize("begun", [b"G", b"\r\n", GOOD[:-1]])
    def test_the_next_request_has_its_own_time_from_its_first_byte(
        self, connect: Callable[..., Any], clock: Clock, begun: bytes
    ) -> None:
        peer = connect(Served, opened=False, timeouts=Timeouts(handshake=5.0))
        peer.sends(PLAIN)
        clock.advance(70.0)
        peer.sends(begun)
        clock.advance(4.9)
        assert not peer.transport.disconnecting
        clock.advance(0.2)
        assert peer.transport.disconnecting

    def test_a_request_that_follows_in_the_same_segment_has_its_own_time(
        self, connect: Callable[..., Any], clock: Clock
    ) -> None:
        peer = connect(Served, opened=False, timeouts=Timeouts(handshake=5.0))
        peer.sends(PLAIN + GOOD[:-1])
        clock.advance(5.1)
        assert peer.transport.disconnecting

    def test_a_peer_that_does_not_leave_is_aborted(self, connect: Callable[..., Any], clock: Clock) -> None:
        peer = connect(Served, opened=False, timeouts=Timeouts(handshake=5.0, close=2.0))
        clock.advance(5.1)
        assert not peer.transport.disconnected
        clock.advance(2.1)
        assert peer.transport.disconnected

    def test_the_timeout_cancels_a_slow_hook_and_is_final(self, connect: Callable[..., Any], clock: Clock) -> None:
        peer = connect(Hooked, opened=False, timeouts=Timeouts(handshake=5.0))
        cancelled: list[bool] = []
        peer.protocol.upgrade = lambda: Deferred(lambda _: cancelled.append(True))
        peer.sends(GOOD)
        clock.advance(5.1)
        assert cancelled == [True]
        assert peer.transport.disconnecting
        assert peer.reads() == b""

    def test_a_handshake_without_a_timeout_never_ends(self, connect: Callable[..., Any], clock: Clock) -> None:
        peer = connect(Served, opened=False, timeouts=Timeouts(handshake=None))
        assert clock.calls == []
        clock.advance(1e6)
        peer.sends(GOOD)
        assert peer.reads() == SWITCHING


class TestSlowHooks:
    """A hook of the handshake that takes time, while the client already sends more."""

    @pytest.mark.parametrize("hook", ["http", "upgrade", "decorator"])
    def test_frames_are_neither_lost_nor_early(self, connect: Callable[..., Any], hook: str) -> None:
        later: Deferred[None] = Deferred()
        peer = connect(Hooked, opened=False, decorator=(lambda _: later) if hook == "decorator" else None)
        if hook != "decorator":
            setattr(peer.protocol, hook, lambda: later)
        peer.sends(*chunks(GOOD + TAIL, 3))
        assert peer.reads() == b""
        assert "hi" not in peer.protocol.heard
        later.callback(None)
        assert peer.reads() == SWITCHING
        assert peer.protocol.heard[-3:] == ["opened", "hi", "there"]

    def test_many_frames_during_a_hook_are_bounded_by_a_pause(self, connect: Callable[..., Any]) -> None:
        later: Deferred[None] = Deferred()
        peer = connect(Hooked, opened=False, limits=Limits(max_head_size=1000))
        peer.protocol.upgrade = lambda: later
        peer.sends(GOOD)
        size, message = 0, peer.text("x" * 90)
        while peer.transport.producerState == "producing":
            peer.sends(message)
            size += len(message)
            assert size < 1200
        assert size > 1000
        later.callback(None)
        assert peer.transport.producerState == "producing"
        assert peer.protocol.heard[3:] == ["x" * 90] * (size // len(message))

    def test_many_bytes_after_a_refused_request_are_bounded_by_a_pause(self, connect: Callable[..., Any]) -> None:
        later: Deferred[Response] = Deferred()
        peer = connect(Hooked, opened=False, limits=Limits(max_head_size=1000))
        peer.protocol.http = lambda: later
        peer.sends(PLAIN + GOOD + peer.text("x" * 900))
        assert peer.transport.producerState == "paused"
        peer.protocol.http = None
        later.callback(Response(200))
        assert peer.transport.producerState == "producing"
        assert peer.reads().endswith(SWITCHING)
        assert peer.protocol.heard[-1] == "x" * 900


class TestCancelling:
    """The application cancels an operation of the handshake."""

    @pytest.mark.parametrize("operation", ["accept", "read_request"])
    def test_a_cancelled_operation_aborts_the_connection(
        self, connect: Callable[..., Any], clock: Clock, operation: str
    ) -> None:
        peer = connect(Manual, opened=False)
        waiting = getattr(peer.protocol, operation)()
        outcome = Outcome(waiting)
        waiting.cancel()
        assert isinstance(outcome[0], CancelledError)
        assert peer.transport.disconnected
        peer.sends(GOOD)
        assert peer.reads() == b""
        assert peer.protocol.heard == []
        peer.leaves()
        assert len(outcome) == 1
        assert clock.calls == []

    @pytest.mark.parametrize("hook", ["http_requested", "upgrade_requested", "decorator"])
    def test_a_cancelled_operation_during_a_hook_is_aborted(
        self, connect: Callable[..., Any], clock: Clock, hook: str
    ) -> None:
        """The connection is lost one reactor turn after the cancellation. A hook's result in between is ignored."""
        later: Deferred[None] = Deferred(lambda deferred: deferred.callback(None))
        peer = connect(Manual, opened=False, decorator=(lambda _: later) if hook == "decorator" else None)
        if hook != "decorator":
            setattr(peer.protocol, hook, lambda request: later)
        waiting = peer.protocol.accept()
        outcome = Outcome(waiting)
        peer.sends(GOOD)
        waiting.cancel()
        assert later.called
        assert isinstance(outcome[0], CancelledError)
        peer.leaves()
        assert len(outcome) == 1
        assert peer.reads() == b""
        assert peer.protocol.heard == []
        assert clock.calls == []

    def test_a_cancelled_response_is_aborted(self, connect: Callable[..., Any], clock: Clock) -> None:
        peer = connect(Manual, opened=False, limits=Limits(low_water=10))
        peer.protocol.read_request()
        peer.sends(PLAIN)
        peer.transport.stall()
        waiting = peer.protocol.respond(Response(200, body=bytes(100)))
        outcome = Outcome(waiting)
        waiting.cancel()
        assert isinstance(outcome[0], CancelledError)
        assert peer.transport.disconnected
        peer.leaves()
        assert clock.calls == []


class TestLost:
    """The connection is lost during the handshake."""

    @pytest.mark.parametrize("sent", [b"", GOOD[:40]])
    @pytest.mark.parametrize("operation", ["accept", "read_request"])
    def test_a_loss_during_the_reading_is_reported(
        self, connect: Callable[..., Any], clock: Clock, operation: str, sent: bytes
    ) -> None:
        peer = connect(Manual, opened=False)
        outcome = Outcome(getattr(peer.protocol, operation)())
        peer.sends(sent)
        peer.leaves(ConnectionLost())
        assert [type(one) for one in outcome] == [ConnectionLost]
        assert peer.protocol.heard == []
        assert clock.calls == []

    @pytest.mark.parametrize("how", ["Deferred", "coroutine", "stubborn"])
    @pytest.mark.parametrize("hook", ["http_requested", "upgrade_requested", "decorator", "decorated failure"])
    def test_a_loss_during_a_hook_is_reported_once(self, connect: Any, clock: Clock, hook: str, how: str) -> None:
        """The loss is no error of the hook: nothing is logged, and the hook's result is ignored."""
        later: Deferred[None] = Deferred()
        if how == "stubborn":
            later = Deferred(lambda deferred: deferred.callback(None))

        async def coroutine() -> None:
            await later

        def think(_: object) -> Any:
            return coroutine() if how == "coroutine" else later

        peer = connect(Manual, opened=False)
        decorator = None
        if hook.startswith("decorat"):
            decorator = think
        else:
            setattr(peer.protocol, hook, think)
        outcome = Outcome(peer.protocol.accept(decorator=decorator))
        peer.sends(BAD if hook == "decorated failure" else GOOD)
        assert outcome == []
        peer.leaves(ConnectionLost())
        assert [type(one) for one in outcome] == [ConnectionLost]
        assert peer.protocol.heard == []
        assert peer.protocol.state is State.CLOSED
        assert peer.reads() == b""
        assert clock.calls == []

    def test_a_loss_during_a_response_is_reported(self, connect: Callable[..., Any], clock: Clock) -> None:
        peer = connect(Manual, opened=False, limits=Limits(low_water=10))
        peer.protocol.read_request()
        peer.sends(PLAIN)
        peer.transport.stall()
        outcome = Outcome(peer.protocol.respond(Response(200, body=bytes(100))))
        peer.leaves()
        assert [type(one) for one in outcome] == [ConnectionDone]
        assert clock.calls == []

    def test_a_loss_between_operations_is_quiet(self, connect: Callable[..., Any], clock: Clock) -> None:
        peer = connect(Manual, opened=False)
        peer.sends(GOOD)
        peer.leaves()
        assert clock.calls == []
        assert peer.protocol.heard == []

    @pytest.mark.parametrize("sent", [b"", GOOD[:40], BAD, BAD + GOOD[:40], b"\0"])
    def test_a_loss_in_serve_is_quiet(self, connect: Callable[..., Any], clock: Clock, sent: bytes) -> None:
        """The `logged` fixture fails the test if an error is logged as unhandled."""
        peer = connect(Served, opened=False)
        peer.sends(sent)
        peer.leaves()
        assert clock.calls == []


class TestHalfClose:
    """RFC 9112 §8: a half-close before the end of a request leaves the request incomplete.

    Twisted reports a half-close on plain TCP to an `IHalfCloseableProtocol`.
    """

    @pytest.mark.parametrize("sent", [b"", GOOD[:40], BAD])
    def test_a_half_close_before_the_end_of_a_request_ends_the_connection(
        self, connect: Callable[..., Any], clock: Clock, sent: bytes
    ) -> None:
        peer = connect(Manual, opened=False)
        outcome = Outcome(peer.protocol.accept())
        peer.sends(sent)
        peer.protocol.readConnectionLost()
        assert len(outcome) == 1
        assert peer.transport.disconnecting
        peer.leaves()
        assert len(outcome) == 1
        assert clock.calls == []

    def test_nothing_is_accepted_after_a_half_close(self, connect: Any) -> None:
        peer = connect(Manual, opened=False)
        again: list[Any] = []

        def try_again(failure: Any) -> None:
            try:
                peer.protocol.accept().addErrback(lambda _: None)
            except errors.LocalError as error:
                again.append(error)

        peer.protocol.accept().addErrback(try_again)
        peer.protocol.readConnectionLost()
        assert len(again) == 1
        peer.leaves()
