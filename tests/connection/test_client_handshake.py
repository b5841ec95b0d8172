"""Tests of `twisted_beastws.connection.client_handshake`: the client's opening handshake on a transport."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock

from twisted_beastws import Deflate, Limits, Response, State, Timeouts, WebSocketProtocol, errors
from twisted_beastws._version import __version__
from twisted_beastws.connection.client_handshake import MAX_BODY, MAX_INTERIM
from twisted_beastws.options import Settings
from twisted_beastws.wire import frames
from twisted_beastws.wire.http import Request

from ..support.frames import chunks
from ..support.hooks import HOWS, failing
from ..support.inside import inside
from ..support.loopback import uncollected
from ..support.outcomes import Outcome

pytestmark = pytest.mark.usefixtures("logged")

REQUEST = (
    b"GET /chat HTTP/1.1\r\nHost: localhost:1984\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"User-Agent: twisted_beastws/" + __version__.encode() + b"\r\n\r\n"
)
SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
TAIL = b"\x81\x02hi\x81\x05there"
MISSING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nX: y\r\n\r\ngone"


class Noting(WebSocketProtocol):
    """A protocol that records its events."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def opened(self) -> None:
        self.heard.append("opened")

    def text_received(self, text: str) -> None:
        self.heard.append(text)

    def closed(self, reason: Any) -> None:
        self.heard.append("closed")


def with_fields(head: bytes, *lines: bytes) -> bytes:
    return head[:-2] + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twisted_beastws.wire.handshake.make_key", lambda: "dGhlIHNhbXBsZSBub25jZQ==")


@pytest.fixture
def dial(connect: Any, clock: Any, key: Any) -> Callable[..., Any]:
    """``dial(protocol, **settings)``: a client that has sent nothing yet. The test acts as its server."""

    def dial(protocol: Any = Noting, **settings: Any) -> Any:
        chosen = Settings(clock=clock, **settings)
        factory = SimpleNamespace(buildProtocol=lambda _: protocol().as_client(chosen))
        return connect(factory=factory, opened=False)

    return dial


@pytest.fixture
def ask(dial: Callable[..., Any]) -> Callable[..., Any]:
    """``ask(**settings)``: a client that has sent its request, and the outcome of its handshake."""

    def ask(**settings: Any) -> Any:
        peer = dial(**settings)
        outcome = Outcome(peer.protocol.handshake("localhost:1984", "/chat"))
        assert peer.reads() == REQUEST
        assert outcome == []
        return peer, outcome

    return ask


class TestAccepted:
    """RFC 6455 §4.1: the server accepts the client's handshake."""

    @pytest.mark.parametrize("size", [1, 7, 1 << 16])
    def test_the_connection_opens(self, ask: Callable[..., Any], size: int) -> None:
        peer, outcome = ask()
        peer.sends(*chunks(SWITCHING, size))
        assert [response.status for response in outcome] == [101]
        assert peer.protocol.state is State.OPEN
        assert peer.protocol.heard == ["opened"]
        assert peer.protocol.response is outcome[0]
        assert peer.protocol.request.to_bytes() == REQUEST
        assert peer.reads() == b""

    @pytest.mark.parametrize("size", [1, 7, 1 << 16])
    def test_messages_after_the_head_are_delivered_after_the_deferred(
        self, dial: Callable[..., Any], size: int
    ) -> None:
        peer = dial()
        opening = peer.protocol.handshake("localhost:1984", "/chat")
        opening.addCallback(lambda response: peer.protocol.heard.append(response.status))
        peer.sends(*chunks(SWITCHING + TAIL, size))
        assert peer.protocol.heard == ["opened", 101, "hi", "there"]

    @pytest.mark.parametrize("size", [1, 7, 1 << 16])
    def test_messages_in_the_first_segment_are_delivered_after_the_deferred(
        self, dial: Callable[..., Any], size: int, clock: Clock
    ) -> None:
        """A server in memory answers while the client still writes the request."""
        peer = dial()
        peer.sends(*chunks(SWITCHING + TAIL, size))
        opening = peer.protocol.handshake("localhost:1984", "/chat")
        opening.addCallback(lambda response: peer.protocol.heard.append(response.status))
        clock.advance(0)
        assert peer.protocol.heard == ["opened", 101, "hi", "there"]

    def test_sent_frames_are_masked_with_keys_of_the_pool(
        self, ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        peer, _ = ask()
        peer.sends(SWITCHING)
        # The pool is random, so the test fills it.
        monkeypatch.setattr(frames.mask_keys, "_pool", b"\0\0\0\0\1\2\3\4")
        monkeypatch.setattr(frames.mask_keys, "_at", 0)
        peer.protocol.send("hi")
        assert peer.reads() == b"\x81\x82\x01\x02\x03\x04" + bytes((ord("h") ^ 1, ord("i") ^ 2))

    def test_the_target_is_a_slash_by_default(self, dial: Callable[..., Any]) -> None:
        peer = dial()
        peer.protocol.handshake("localhost:1984").addErrback(lambda _: None)
        assert peer.reads() == REQUEST.replace(b"/chat", b"/")

    def test_each_attempt_has_its_own_key(self, dial: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.undo()
        keys = set()
        for _ in range(10):
            peer = dial()
            peer.protocol.handshake("localhost").addErrback(lambda _: None)
            keys.add(peer.protocol.request.field("Sec-WebSocket-Key"))
        assert len(keys) == 10

    @pytest.mark.parametrize(("host", "target"), [("a\r\nb", "/"), ("a", "/\r\nX: y"), ("a", "chat"), ("a", "/a b")])
    def test_a_bad_host_or_target_is_refused(self, dial: Callable[..., Any], host: str, target: str) -> None:
        peer = dial()
        outcome = Outcome(peer.protocol.handshake(host, target))
        assert isinstance(outcome[0], ValueError)
        assert peer.reads() == b""
        again = Outcome(peer.protocol.handshake("localhost:1984", "/chat"))
        peer.sends(SWITCHING)
        assert again[0].status == 101


class TestTheCallersMistakes:
    """Calls that the state of the connection does not allow raise `LocalError`."""

    def test_a_second_handshake_at_the_same_time_is_refused(self, ask: Callable[..., Any]) -> None:
        peer, outcome = ask()
        with pytest.raises(errors.LocalError, match="another"):
            peer.protocol.handshake("localhost")
        peer.sends(SWITCHING)
        assert outcome[0].status == 101

    def test_a_handshake_on_an_open_connection_is_refused(self, ask: Callable[..., Any]) -> None:
        peer, _ = ask()
        peer.sends(SWITCHING)
        with pytest.raises(errors.LocalError, match="open"):
            peer.protocol.handshake("localhost")

    def test_a_handshake_without_a_connection_is_refused(self) -> None:
        with pytest.raises(errors.LocalError, match="connecting"):
            WebSocketProtocol().as_client(Settings()).handshake("localhost")

    def test_a_server_cannot_start_a_handshake(self, dial: Callable[..., Any], connect: Callable[..., Any]) -> None:
        with pytest.raises(errors.LocalError, match="client's end"):
            dial().protocol.accept()
        with pytest.raises(errors.LocalError, match="server's end"):
            connect(Noting, opened=False).protocol.handshake("localhost")

    def test_a_message_before_the_opening_is_refused(self, ask: Callable[..., Any]) -> None:
        peer, _ = ask()
        with pytest.raises(errors.LocalError):
            peer.protocol.send("hi")


ACCEPT = b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
NO_ANSWERS = {
    "TLS": (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", errors.BadRequest),
    "an empty line": (b"\r\n" + SWITCHING, errors.BadRequest),
    "another protocol": (b"220 mail.example ESMTP\r\n\r\n", errors.BadRequest),
    "HTTP/2": (SWITCHING.replace(b"HTTP/1.1", b"HTTP/2.0"), errors.BadRequest),
    "HTTP/1.0": (SWITCHING.replace(b"HTTP/1.1", b"HTTP/1.0"), errors.BadHttpVersion),
    "LF alone": (SWITCHING.replace(b"\r\n", b"\n"), errors.BadRequest),
    "NUL": (SWITCHING.replace(b": websocket", b": web\0socket"), errors.BadRequest),
    "frames": (TAIL, errors.BadRequest),
    "no Connection": (SWITCHING.replace(b"Connection: Upgrade\r\n", b""), errors.NoConnection),
    "another Connection": (SWITCHING.replace(b": Upgrade", b": keep-alive"), errors.NoConnectionUpgrade),
    "no Upgrade": (SWITCHING.replace(b"Upgrade: websocket\r\n", b""), errors.NoUpgrade),
    "another Upgrade": (SWITCHING.replace(b"websocket", b"h2c"), errors.NoUpgradeWebsocket),
    "no accept": (SWITCHING.replace(ACCEPT, b""), errors.NoSecAccept),
    "wrong accept": (SWITCHING.replace(b"s3pP", b"S3pP"), errors.BadSecAccept),
    "two accepts": (SWITCHING.replace(ACCEPT, ACCEPT * 2), errors.DuplicateField),
    "a subprotocol": (with_fields(SWITCHING, b"Sec-WebSocket-Protocol: chat"), errors.BadSubprotocol),
    "an extension": (with_fields(SWITCHING, b"Sec-WebSocket-Extensions: permessage-deflate"), errors.BadExtension),
}


class TestInvalidResponse:
    """RFC 6455 §4.1: the client fails the connection if the response is not HTTP or breaks a rule."""

    @pytest.mark.parametrize("size", [1, 1 << 16])
    @pytest.mark.parametrize("name", NO_ANSWERS)
    def test_each_fault_has_its_own_error_and_ends_the_connection(
        self, ask: Callable[..., Any], clock: Clock, name: str, size: int
    ) -> None:
        answer, error = NO_ANSWERS[name]
        peer, outcome = ask()
        peer.sends(*chunks(answer, size))
        assert [type(one) for one in outcome] == [error]
        assert peer.protocol.state is State.CLOSING
        assert peer.transport.disconnecting
        peer.sends(SWITCHING + TAIL)
        peer.leaves()
        assert peer.reads() == b""
        assert len(outcome) == 1
        assert peer.protocol.heard == []
        assert clock.calls == []

    @pytest.mark.parametrize("size", [999, 1000, 1001])
    @pytest.mark.parametrize("at_once", [False, True])
    def test_the_size_of_the_head_is_limited(self, ask: Callable[..., Any], size: int, at_once: bool) -> None:
        peer, outcome = ask(limits=Limits(max_head_size=1000))
        head = with_fields(SWITCHING, b"X: " + b"x" * (size - len(SWITCHING) - 5))
        assert len(head) == size
        peer.sends(*([head] if at_once else chunks(head, 1)))
        assert type(outcome[0]) is (Response if size <= 1000 else errors.HeadTooLarge)

    @pytest.mark.parametrize("lines", [9, 10, 11])
    def test_the_lines_of_the_head_are_limited(self, ask: Callable[..., Any], lines: int) -> None:
        peer, outcome = ask(limits=Limits(max_head_lines=10))
        peer.sends(with_fields(SWITCHING, *[b"X: x"] * (lines - 4)))
        assert type(outcome[0]) is (Response if lines <= 10 else errors.HeadTooLarge)

    def test_the_text_of_the_error_names_the_response(self, ask: Callable[..., Any]) -> None:
        peer, outcome = ask()
        peer.sends(b"\0")
        assert str(outcome[0]) == "The response is not valid HTTP"


class TestInterim:
    """RFC 9110 §15.2: a client accepts interim responses, even ones that it did not expect."""

    @pytest.mark.parametrize("size", [1, 1 << 16])
    def test_an_interim_response_is_skipped(self, ask: Callable[..., Any], size: int) -> None:
        peer, outcome = ask()
        hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
        peer.sends(*chunks(b"HTTP/1.1 100 Continue\r\n\r\n" + hints + SWITCHING + TAIL, size))
        assert outcome[0].status == 101
        assert peer.protocol.heard == ["opened", "hi", "there"]

    def test_an_interim_response_before_a_decline_is_skipped(self, ask: Callable[..., Any]) -> None:
        peer, outcome = ask()
        peer.sends(b"HTTP/1.1 100 Continue\r\n\r\n" + MISSING)
        assert (outcome[0].status, outcome[0].response.body) == (404, b"gone")

    @pytest.mark.parametrize("count", [MAX_INTERIM - 1, MAX_INTERIM, MAX_INTERIM + 1])
    def test_the_number_of_interim_responses_is_limited(self, ask: Callable[..., Any], count: int) -> None:
        peer, outcome = ask()
        peer.sends(b"HTTP/1.1 100 Continue\r\n\r\n" * count + SWITCHING)
        assert type(outcome[0]) is (Response if count <= MAX_INTERIM else errors.BadRequest)
        assert peer.transport.disconnecting == (count > MAX_INTERIM)


def chunked(body: bytes, size: int = 1000) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in chunks(body, size)) + b"0\r\n\r\n"


def declining(body: bytes, how: str) -> bytes:
    """Return a 401 response with ``body``; ``how`` names the way that HTTP marks the body's end."""
    head = b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\n"
    if how == "length":
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    if how == "chunked":
        return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body)
    return head + b"\r\n" + body


class TestDeclined:
    """RFC 6455 §4.1 and RFC 9110 §15: the server answers with another status than 101."""

    def check(self, outcome: Outcome, body: bytes) -> None:
        assert [type(one) for one in outcome] == [errors.UpgradeDeclined]
        response = outcome[0].response
        assert (outcome[0].status, response.status, response.reason) == (401, 401, "Unauthorized")
        assert response.field("WWW-Authenticate") == "Basic"
        assert response.body == body

    @pytest.mark.parametrize("size", [1, 7, 1 << 16])
    @pytest.mark.parametrize("body", [b"", b"x", b"who are you?" * 300])
    @pytest.mark.parametrize("how", ["length", "chunked"])
    def test_the_error_has_the_whole_response_and_the_connection_is_kept(
        self, ask: Callable[..., Any], how: str, body: bytes, size: int
    ) -> None:
        peer, outcome = ask()
        answer = declining(body, how)
        peer.sends(*chunks(answer[:-1], size))
        assert outcome == []
        peer.sends(answer[-1:])
        self.check(outcome, body)
        assert peer.protocol.state is State.CONNECTING
        assert not peer.transport.disconnecting
        assert peer.protocol.heard == []

    @pytest.mark.parametrize("half", [False, True])
    @pytest.mark.parametrize("body", [b"", b"x", b"who are you?" * 300])
    def test_the_body_may_end_with_the_connection(
        self, ask: Callable[..., Any], clock: Clock, body: bytes, half: bool
    ) -> None:
        peer, outcome = ask()
        peer.sends(*chunks(declining(body, "until the end"), 100))
        assert outcome == []
        if half:
            peer.protocol.readConnectionLost()
            self.check(outcome, body)
            assert peer.transport.disconnecting
        peer.leaves()
        self.check(outcome, body)
        assert clock.calls == []

    @pytest.mark.parametrize("more", [-1, 0, 1, 100_000])
    @pytest.mark.parametrize("how", ["length", "chunked", "until the end"])
    @pytest.mark.parametrize("size", [1000, 1 << 20])
    def test_the_size_of_the_body_is_limited(self, ask: Callable[..., Any], how: str, more: int, size: int) -> None:
        peer, outcome = ask()
        body = (b"0123456789abcdef" * (MAX_BODY // 8))[: MAX_BODY + more]
        peer.sends(*chunks(declining(body, how), size))
        if more <= 0 and how == "until the end":
            assert outcome == []
            peer.leaves()
        self.check(outcome, body[:MAX_BODY])
        kept = more <= 0 and how != "until the end"
        assert peer.transport.disconnecting == (not kept and how != "until the end") or more > 0

    @pytest.mark.parametrize("how", ["length", "chunked", "until the end"])
    def test_a_body_that_is_too_long_is_not_awaited(self, ask: Callable[..., Any], how: str) -> None:
        peer, outcome = ask()
        answer = declining(bytes(MAX_BODY + 5000), how)
        peer.sends(answer[: MAX_BODY + 4000])
        self.check(outcome, bytes(MAX_BODY))
        assert peer.transport.disconnecting
        assert peer.transport.producerState == "producing"

    @pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
    def test_the_body_may_be_absent(self, ask: Callable[..., Any], status: bytes) -> None:
        peer, outcome = ask()
        peer.sends(b"HTTP/1.1 " + status + b"\r\n\r\n")
        assert (outcome[0].status, outcome[0].response.body) == (int(status[:3]), b"")
        assert peer.protocol.state is State.CONNECTING

    @pytest.mark.parametrize("answer", [declining(b"who are you?", "length")[:-3], declining(b"who", "chunked")[:-8]])
    @pytest.mark.parametrize("end", ["lost", "half", "silence"])
    def test_the_error_has_the_part_of_the_body_that_arrived(
        self, ask: Callable[..., Any], clock: Clock, answer: bytes, end: str
    ) -> None:
        peer, outcome = ask(timeouts=Timeouts(handshake=5.0))
        peer.sends(answer)
        if end == "silence":
            clock.advance(5.1)
            assert peer.transport.disconnecting
        elif end == "half":
            peer.protocol.readConnectionLost()
            assert peer.transport.disconnecting
        peer.leaves(ConnectionLost())
        self.check(outcome, answer.partition(b"\r\n\r\n")[2].removeprefix(b"3\r\n"))
        assert clock.calls == []

    @pytest.mark.parametrize("garbage", [b"xyz\r\n", b"-1\r\n", b"5\r\nhelloworld", b"fffffffffffffffffff\r\n"])
    def test_an_invalid_chunk_ends_the_body(self, ask: Callable[..., Any], garbage: bytes) -> None:
        peer, outcome = ask()
        peer.sends(declining(b"who", "chunked")[:-5] + garbage)
        assert outcome[0].response.body in (b"who", b"whohello")
        assert peer.transport.disconnecting

    @pytest.mark.parametrize(
        "answer",
        [
            MISSING.replace(b"X: y", b"Connection: close"),
            MISSING.replace(b"X: y", b"Connection: keep-alive, close"),
            MISSING.replace(b"HTTP/1.1", b"HTTP/1.0"),
        ],
    )
    def test_the_connection_is_closed_if_http_does_not_keep_it(self, ask: Callable[..., Any], answer: bytes) -> None:
        peer, outcome = ask()
        peer.sends(answer)
        assert outcome[0].response.body == b"gone"
        assert peer.protocol.state is State.CLOSING
        assert peer.transport.disconnecting

    @pytest.mark.parametrize("more", [b"x", b"HTTP/1.1 ", MISSING, SWITCHING])
    def test_bytes_after_the_response_are_no_other_response(self, ask: Callable[..., Any], more: bytes) -> None:
        peer, outcome = ask()
        peer.sends(MISSING + more)
        assert outcome[0].response.body == b"gone"
        assert peer.protocol.state is State.CLOSING
        assert peer.transport.disconnecting

    @pytest.mark.parametrize(
        "answer", [MISSING, declining(b"", "length"), declining(b"no", "chunked"), b"HTTP/1.1 204 No\r\n\r\n"]
    )
    def test_another_handshake_is_possible_on_the_same_connection(self, ask: Callable[..., Any], answer: bytes) -> None:
        peer, declined = ask()
        for _ in range(3):
            peer.sends(answer)
            declined = Outcome(peer.protocol.handshake("localhost:1984", "/chat"))
            assert peer.reads() == REQUEST
        peer.sends(SWITCHING + TAIL)
        assert declined[0].status == 101
        assert peer.protocol.heard == ["opened", "hi", "there"]

    def test_another_handshake_can_be_started_by_the_errback(self, dial: Callable[..., Any]) -> None:
        peer = dial()
        opening = peer.protocol.handshake("localhost:1984", "/chat")
        outcome = Outcome(opening.addErrback(lambda _: peer.protocol.handshake("localhost:1984", "/chat")))
        peer.sends(MISSING, SWITCHING)
        assert outcome[0].status == 101
        assert peer.reads() == REQUEST * 2

    @pytest.mark.parametrize("name", NO_ANSWERS)
    def test_another_handshake_that_fails_closes(self, ask: Callable[..., Any], name: str) -> None:
        peer, _ = ask()
        peer.sends(MISSING)
        outcome = Outcome(peer.protocol.handshake("localhost:1984", "/chat"))
        peer.sends(NO_ANSWERS[name][0])
        assert type(outcome[0]) is NO_ANSWERS[name][1]
        assert peer.protocol.state is State.CLOSING
        assert peer.transport.disconnecting

    def test_another_handshake_has_its_own_timeout(self, ask: Callable[..., Any], clock: Clock) -> None:
        peer, _ = ask(timeouts=Timeouts(handshake=5.0))
        for _ in range(3):
            clock.advance(4.0)
            peer.sends(MISSING)
            outcome = Outcome(peer.protocol.handshake("localhost:1984", "/chat"))
        clock.advance(4.0)
        peer.sends(SWITCHING)
        assert outcome[0].status == 101


class Adding:
    """A decorator that adds a field, either at once or when the test calls `come`."""

    def __init__(self, how: str = "plain") -> None:
        self.how = how
        self.later: Deferred[None] = Deferred()
        self.seen: list[Request] = []

    def __call__(self, request: Request) -> Any:
        self.seen.append(request)
        if self.how == "coroutine":
            return self.wait(request)
        if self.how == "Deferred":
            return self.later.addCallback(lambda _: self.add(request))
        self.add(request)
        return succeed(None) if self.how == "fired" else None

    async def wait(self, request: Request) -> None:
        await self.later
        self.add(request)

    def add(self, request: Request) -> None:
        request.headers.setRawHeaders("Cookie", ["a=b"])

    def come(self) -> None:
        self.later.callback(None)


class TestDecorator:
    """RFC 6455 §4.1: a decorator may add fields to the client's request."""

    @pytest.mark.parametrize("how", HOWS)
    @pytest.mark.parametrize("own", [False, True])
    def test_a_decorator_may_add_fields(self, dial: Callable[..., Any], how: str, own: bool) -> None:
        decorator = Adding(how)
        peer = dial(decorator=None if own else decorator)
        opening = peer.protocol.handshake("localhost:1984", "/chat", decorator=decorator if own else None)
        outcome = Outcome(opening)
        if how in ("Deferred", "coroutine"):
            assert peer.reads() == b""
        decorator.come()
        assert peer.reads() == with_fields(REQUEST, b"Cookie: a=b")
        assert len(decorator.seen) == 1
        peer.sends(SWITCHING)
        assert outcome[0].status == 101

    def test_a_decorator_of_the_call_replaces_that_of_the_settings(self, dial: Callable[..., Any]) -> None:
        peer = dial(decorator=lambda request: 1 // 0)
        Outcome(peer.protocol.handshake("localhost:1984", "/chat", decorator=Adding()))
        assert peer.reads() == with_fields(REQUEST, b"Cookie: a=b")

    def test_a_decorator_is_called_for_each_handshake(self, dial: Callable[..., Any]) -> None:
        decorator = Adding()
        peer = dial(decorator=decorator)
        for _ in range(3):
            Outcome(peer.protocol.handshake("localhost:1984", "/chat"))
            peer.sends(MISSING)
        assert len(decorator.seen) == 3

    def test_a_decorator_may_replace_the_host_and_the_target(self, dial: Callable[..., Any]) -> None:
        def replace(request: Request) -> None:
            request.headers.setRawHeaders("Host", ["example.com"])
            request.target = "/other"

        peer = dial()
        Outcome(peer.protocol.handshake("localhost:1984", "/chat", decorator=replace))
        assert peer.reads() == REQUEST.replace(b"localhost:1984", b"example.com").replace(b"/chat", b"/other")

    @pytest.mark.parametrize("how", HOWS)
    def test_an_exception_of_a_decorator_is_reported(self, dial: Any, how: str) -> None:
        later: Deferred[None] = Deferred()
        peer = dial()
        outcome = Outcome(peer.protocol.handshake("localhost:1984", "/chat", decorator=failing(how, later)))
        later.callback(None)
        assert [type(one) for one in outcome] == [ZeroDivisionError]
        assert peer.reads() == b""
        assert peer.protocol.state is State.CONNECTING
        again = Outcome(peer.protocol.handshake("localhost:1984", "/chat"))
        peer.sends(SWITCHING)
        assert again[0].status == 101

    @pytest.mark.parametrize(
        ("field", "values"),
        [
            ("Upgrade", ["h2c"]),
            ("Upgrade", []),
            ("Connection", ["close"]),
            ("Connection", ["Upgrade", "close"]),
            ("Sec-WebSocket-Key", ["AAAAAAAAAAAAAAAAAAAAAA=="]),
            ("Sec-WebSocket-Version", ["8"]),
            ("Sec-WebSocket-Extensions", ["permessage-deflate"]),
            ("Content-Length", ["5"]),
            ("Transfer-Encoding", ["chunked"]),
        ],
    )
    def test_a_decorator_may_not_break_the_handshake(
        self, dial: Any, field: str, values: list[Any] | list[str]
    ) -> None:
        def spoil(request: Request) -> None:
            request.headers.setRawHeaders(field, values)

        peer = dial()
        outcome = Outcome(peer.protocol.handshake("localhost:1984", "/chat", decorator=spoil))
        assert [type(one) for one in outcome] == [errors.DecoratorError]
        assert field in str(outcome[0])
        assert peer.reads() == b""
        assert peer.protocol.state is State.CONNECTING

    @pytest.mark.parametrize(("name", "value"), [("method", "POST"), ("version", "1.0")])
    def test_a_decorator_may_not_break_the_request_line(self, dial: Any, name: str, value: str) -> None:
        peer = dial()
        spoil = lambda request: setattr(request, name, value)  # noqa: E731
        outcome = Outcome(peer.protocol.handshake("localhost:1984", "/chat", decorator=spoil))
        assert [type(one) for one in outcome] == [errors.DecoratorError]
        assert peer.reads() == b""

    def test_a_decorator_cannot_inject_lines(self, dial: Callable[..., Any]) -> None:
        peer = dial()

        def inject(request: Request) -> None:
            request.target = "/ HTTP/1.1\r\nX: y\r\n\r\n"

        outcome = Outcome(peer.protocol.handshake("localhost:1984", "/chat", decorator=inject))
        assert isinstance(outcome[0], ValueError)
        assert peer.reads() == b""

    @pytest.mark.parametrize("how", ["Deferred", "coroutine"])
    @pytest.mark.parametrize("end", ["lost", "half", "silence", "cancel"])
    def test_an_end_during_a_decorator_is_reported_once(
        self, dial: Callable[..., Any], clock: Clock, how: str, end: str
    ) -> None:
        decorator = Adding(how)
        decorator.later = Deferred(lambda deferred: deferred.callback(None))
        peer = dial(timeouts=Timeouts(handshake=5.0))
        opening = peer.protocol.handshake("localhost:1984", "/chat", decorator=decorator)
        outcome = Outcome(opening)
        if end == "cancel":
            opening.cancel()
            assert peer.transport.disconnected
        elif end == "half":
            peer.protocol.readConnectionLost()
        elif end == "silence":
            clock.advance(5.1)
        peer.leaves(ConnectionLost())
        expected = {"lost": ConnectionLost, "half": ConnectionDone, "silence": errors.HandshakeTimeout}
        assert [type(one) for one in outcome] == [expected.get(end, CancelledError)]
        assert peer.reads() == b""
        assert peer.protocol.heard == []
        assert clock.calls == []


class TestSubprotocols:
    """RFC 6455 §4.1 (10) and §11.3.4: the subprotocols that the client offers, and the one that the server chose."""

    OFFER = b"Sec-WebSocket-Protocol: a, b"

    def offering(self, dial: Any, how: str) -> Any:
        def decorator(request: Request) -> None:
            request.headers.setRawHeaders("Sec-WebSocket-Protocol", ["a, b"])

        peer = dial(subprotocols=("a", "b") if how == "settings" else ())
        given: dict[str, dict[str, Any]] = {
            "argument": {"subprotocols": ["a", "b"]},
            "decorator": {"decorator": decorator},
            "settings": {},
        }
        options = given[how]
        outcome = Outcome(peer.protocol.handshake("localhost:1984", "/chat", **options))
        assert peer.reads() == with_fields(REQUEST, self.OFFER)
        return peer, outcome

    @pytest.mark.parametrize("how", ["argument", "settings", "decorator"])
    @pytest.mark.parametrize("chosen", ["a", "b", "", None])
    def test_the_chosen_subprotocol_is_known(self, dial: Callable[..., Any], how: str, chosen: str | None) -> None:
        peer, outcome = self.offering(dial, how)
        fields = [] if chosen is None else [f"Sec-WebSocket-Protocol: {chosen}".encode()]
        peer.sends(with_fields(SWITCHING, *fields))
        assert outcome[0].status == 101
        assert peer.protocol.subprotocol == (chosen or None)

    @pytest.mark.parametrize("how", ["argument", "settings", "decorator"])
    @pytest.mark.parametrize("chosen", [b"c", b"A", b"a, b"])
    def test_a_subprotocol_that_was_not_offered_is_refused(
        self, dial: Callable[..., Any], how: str, chosen: bytes
    ) -> None:
        peer, outcome = self.offering(dial, how)
        peer.sends(with_fields(SWITCHING, b"Sec-WebSocket-Protocol: " + chosen))
        assert [type(one) for one in outcome] == [errors.BadSubprotocol]
        assert peer.protocol.subprotocol is None
        assert peer.transport.disconnecting

    def test_the_subprotocols_of_the_call_replace_those_of_the_settings(self, dial: Callable[..., Any]) -> None:
        peer = dial(subprotocols=("a", "b"))
        outcome = Outcome(peer.protocol.handshake("localhost:1984", "/chat", subprotocols=["c"]))
        assert peer.reads() == with_fields(REQUEST, b"Sec-WebSocket-Protocol: c")
        peer.sends(with_fields(SWITCHING, b"Sec-WebSocket-Protocol: a"))
        assert type(outcome[0]) is errors.BadSubprotocol


# RFC 7692 §7.2.3.2: "Hello" twice, with context takeover.
HELLO, HELLO_AGAIN = b"\xf2\x48\xcd\xc9\xc9\x07\x00", b"\xf2\x00\x11\x00\x00"


class TestDeflate:
    """RFC 7692 §7.1: connections that use the result of the negotiation.

    `tests.wire.test_deflate` tests the negotiation itself.
    """

    def asking(self, dial: Any, offer: bytes = b"permessage-deflate; client_max_window_bits", **options: Any) -> Any:
        peer = dial(deflate=Deflate(**options))
        outcome = Outcome(peer.protocol.handshake("localhost:1984", "/chat"))
        request = REQUEST[:-2] + b"Sec-WebSocket-Extensions: " + offer + b"\r\n\r\n"
        assert peer.reads() == request
        return peer, outcome

    def test_an_accepted_offer_compresses_both_ways(self, dial: Callable[..., Any]) -> None:
        peer, outcome = self.asking(dial)
        hello = b"\xc1" + bytes((len(HELLO),)) + HELLO + b"\xc1" + bytes((len(HELLO_AGAIN),)) + HELLO_AGAIN
        peer.sends(with_fields(SWITCHING, b"Sec-WebSocket-Extensions: permessage-deflate") + hello)
        assert outcome[0].status == 101
        assert peer.protocol.deflate.answer == "permessage-deflate"
        assert peer.protocol.heard == ["opened", "Hello", "Hello"]
        peer.protocol.send("Hello")
        sent = peer.reads()
        assert sent[:2] == b"\xc1\x87"
        assert bytes(octet ^ sent[2 + at % 4] for at, octet in enumerate(sent[6:])) == HELLO

    def test_the_offer_has_the_options(self, dial: Callable[..., Any]) -> None:
        offer = b"permessage-deflate; server_max_window_bits=10; client_max_window_bits=11; client_no_context_takeover"
        bits = {"server_max_window_bits": 10, "client_max_window_bits": 11}
        peer, _ = self.asking(dial, offer, **bits, client_no_context_takeover=True)
        answer = b"permessage-deflate; server_max_window_bits=9; client_max_window_bits=10"
        peer.sends(with_fields(SWITCHING, b"Sec-WebSocket-Extensions: " + answer))
        agreed = peer.protocol.deflate
        assert (agreed.server_max_window_bits, agreed.client_max_window_bits) == (9, 10)
        assert (agreed.server_no_context_takeover, agreed.client_no_context_takeover) == (False, True)

    def test_a_declined_offer_compresses_nothing(self, dial: Callable[..., Any]) -> None:
        peer, outcome = self.asking(dial)
        peer.sends(SWITCHING)
        assert outcome[0].status == 101
        assert peer.protocol.deflate is None
        peer.sends(b"\xc1" + bytes((len(HELLO),)) + HELLO)
        assert peer.protocol.close_reason.sent.code == 1002

    @pytest.mark.parametrize(
        "answer",
        [
            b"x-webkit-deflate-frame",
            b"permessage-deflate; unknown",
            b"permessage-deflate; client_max_window_bits=8",
            b"permessage-deflate, permessage-deflate",
            b"permessage-deflate;",
        ],
    )
    def test_a_response_that_does_not_fit_the_offer_is_refused(self, dial: Callable[..., Any], answer: bytes) -> None:
        peer, outcome = self.asking(dial)
        peer.sends(with_fields(SWITCHING, b"Sec-WebSocket-Extensions: " + answer))
        assert [type(one) for one in outcome] == [errors.BadExtension]
        assert peer.protocol.deflate is None
        assert peer.transport.disconnecting

    @pytest.mark.parametrize("values", [[], ["permessage-deflate"], ["permessage-deflate; server_no_context_takeover"]])
    def test_a_decorator_may_not_change_the_offer(
        self, dial: Callable[..., Any], values: list[Any] | list[str]
    ) -> None:
        def spoil(request: Request) -> None:
            request.headers.setRawHeaders("Sec-WebSocket-Extensions", values)

        peer = dial(deflate=Deflate())
        outcome = Outcome(peer.protocol.handshake("localhost:1984", "/chat", decorator=spoil))
        assert [type(one) for one in outcome] == [errors.DecoratorError]
        assert peer.reads() == b""


def ends(peer: Any, clock: Any, how: str, opening: Deferred[Any]) -> None:
    """End a handshake without a response, in the way that ``how`` names."""
    if how == "half":
        peer.protocol.readConnectionLost()
        assert peer.transport.disconnecting
    elif how == "silence":
        clock.advance(4.99)
        assert not opening.called
        clock.advance(0.05)
        assert peer.transport.disconnecting
    elif how == "cancel":
        opening.cancel()
        assert peer.transport.disconnected
    elif how == "abort":
        peer.protocol.abort()
    elif how == "close":
        peer.protocol.close()
    peer.leaves(ConnectionLost())


class TestEnds:
    """RFC 6455 §7.2.1: a connection that ends during the handshake, and `Timeouts.handshake`."""

    @pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 101 Swi", b"HTTP/1.1 100 Continue\r\n\r\n", MISSING[:-2]])
    @pytest.mark.parametrize("how", ["lost", "half", "silence", "cancel", "abort", "close"])
    def test_each_end_is_reported_once(self, dial: Callable[..., Any], clock: Clock, sent: bytes, how: str) -> None:
        peer = dial(timeouts=Timeouts(handshake=5.0))
        opening = peer.protocol.handshake("localhost:1984", "/chat")
        outcome = Outcome(opening)
        peer.sends(sent)
        ends(peer, clock, how, opening)
        expected = {"half": ConnectionDone, "silence": errors.HandshakeTimeout, "cancel": CancelledError}
        error = expected.get(how, ConnectionLost)
        if sent == MISSING[:-2] and how != "cancel":
            error = errors.UpgradeDeclined
        assert [type(one) for one in outcome] == [error]
        assert peer.protocol.state is State.CLOSED
        assert peer.reads() == REQUEST
        assert peer.protocol.heard == []
        assert clock.calls == []
        with pytest.raises(errors.LocalError, match="closed"):
            peer.protocol.handshake("localhost")

    @pytest.mark.parametrize("how", ["lost", "half", "silence"])
    def test_an_end_without_a_handshake_is_quiet(self, dial: Callable[..., Any], clock: Clock, how: str) -> None:
        peer = dial(timeouts=Timeouts(handshake=5.0))
        ends(peer, clock, how, Deferred())
        assert clock.calls == []
        assert peer.protocol.heard == []

    def test_a_trickle_does_not_extend_the_timeout(self, dial: Callable[..., Any], clock: Clock) -> None:
        peer = dial(timeouts=Timeouts(handshake=5.0))
        outcome = Outcome(peer.protocol.handshake("localhost:1984", "/chat"))
        for octet in b"HTTP/1.1 100 Continue\r\n\r\n" * 3:
            peer.sends(bytes((octet,)))
            clock.advance(0.1)
        assert type(outcome[0]) is errors.HandshakeTimeout

    def test_data_before_the_handshake_is_bounded(self, dial: Callable[..., Any]) -> None:
        peer = dial()
        size = 0
        while peer.transport.producerState == "producing":
            peer.sends(bytes(1000))
            size += 1000
            assert size < 20_000
        assert type(Outcome(peer.protocol.handshake("localhost"))[0]) is errors.BadRequest
        assert peer.transport.producerState == "producing"

    @pytest.mark.parametrize("sent", [b"", SWITCHING[:50], MISSING, MISSING[:-2], SWITCHING, SWITCHING + TAIL, b"\0"])
    @pytest.mark.parametrize("how", ["lost", "half", "silence", "cancel"])
    def test_no_timer_and_no_object_is_left(
        self, dial: Callable[..., Any], clock: Clock, sent: bytes, how: str
    ) -> None:
        with uncollected():
            peer = dial(timeouts=Timeouts(handshake=5.0, ping_interval=None), decorator=Adding("coroutine"))
            protocol = weakref.ref(peer.protocol)
            opening = peer.protocol.handshake("localhost:1984", "/chat")
            opening.addErrback(lambda _: None)
            inside(peer.protocol).settings.decorator.come()
            peer.sends(sent)
            if how == "silence" and sent == MISSING:
                clock.advance(5.1)
            elif not opening.called:
                ends(peer, clock, how, opening)
            peer.leaves()
            del peer, opening
            assert protocol() is None
            assert clock.calls == []
