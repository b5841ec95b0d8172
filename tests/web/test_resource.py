"""Tests of `twisted_beastws.web.resource` and `twisted_beastws.connection.takeover` with a site in memory."""

from __future__ import annotations

import gc
import gzip
import re
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import EncodingResourceWrapper, IResource, Resource
from twisted.web.server import NOT_DONE_YET, GzipEncoderFactory, Site
from zope.interface.verify import verifyObject

from twisted_beastws import (
    Headers,
    Limits,
    LocalError,
    Origins,
    Response,
    Role,
    State,
    Timeouts,
    UpgradeDeclined,
    WebSocketProtocol,
    WebSocketServerFactory,
)
from twisted_beastws.errors import HandshakeTimeout, NoUpgrade, OriginRefused, UnexpectedBody
from twisted_beastws.web.resource import WebSocketResource

from ..support.frames import masked
from ..support.handshakes import upgrade_request
from ..support.inside import inside
from ..support.loopback import uncollected

pytestmark = pytest.mark.usefixtures("logged")


async def talk(ws: WebSocketProtocol) -> None:
    """A handler coroutine, which is not a factory."""


@pytest.mark.parametrize(
    ("argument", "what"),
    [
        (WebSocketProtocol, "the class WebSocketProtocol"),
        (talk, "a value of type function"),
        (WebSocketServerFactory, "the class WebSocketServerFactory"),
    ],
)
def test_a_value_that_is_no_factory_is_refused(argument: Any, what: str) -> None:
    with pytest.raises(TypeError) as refused:
        WebSocketResource(argument)
    assert str(refused.value) == f"factory: give WebSocketServerFactory(YourProtocol), not {what}"


GET = upgrade_request("/ws")
HEAD = GET[:-2]
PAGE = b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n"


frame = partial(masked, key=b"\x11\x92\xa3\x04")


def text(content: str) -> bytes:
    return frame(0x81, content.encode())


def answer_to(content: str) -> bytes:
    """Return the server's text frame for a content of less than 126 bytes."""
    return bytes((0x81, len(content))) + content.encode()


CLOSE = frame(0x88, b"\x03\xe8")
CLOSED = b"\x88\x02\x03\xe8"


class Recorded(WebSocketProtocol):
    """Echoes texts; ``heard`` records an instance's events, and ``made`` the instances of the class."""

    made: list[Recorded] = []  # noqa: RUF012

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.made = []

    def __init__(self) -> None:
        self.made.append(self)
        self.heard: list[Any] = []

    def connectionMade(self) -> None:
        self.heard.append("made")

    def opened(self) -> None:
        self.heard.append("opened")

    def text_received(self, text: str) -> None:
        self.heard.append(text)
        self.send(text)

    def closed(self, reason: Any) -> None:
        self.heard.append(reason.code)

    def connectionLost(self, reason: Any = None) -> None:
        super().connectionLost(reason)
        self.heard.append("lost")


def recorded_class() -> type[Recorded]:
    return type("Recorded", (Recorded,), {})


class Page(Resource):
    isLeaf = True
    size = 5

    def render_GET(self, request: Any) -> bytes:
        return b"p" * self.size


class Accepting(Resource):
    """An application's resource that calls ``accept(request)``, and then ``then(request)`` if that was given."""

    isLeaf = True

    def __init__(self, make: Callable[[], WebSocketProtocol], then: Callable[[Any], Any] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.make = make
        self.then = then
        self.forget()

    def forget(self) -> None:
        self.outcome: list[Any] = []
        self.requests: list[Any] = []
        self.protocol: Any = None

    def render(self, request: Any) -> Any:
        self.requests.append(request)
        self.protocol = self.make()
        self.protocol.accept(request).addCallbacks(
            self.outcome.append, lambda failure: self.outcome.append(failure.value)
        )
        return NOT_DONE_YET if self.then is None else self.then(request)


class Transport(StringTransport):
    """A transport that checks producers as strictly as TCP does; ``reading`` is False while it is paused."""

    reading = True
    aborted = False

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert self.producer is None, f"{self.producer} was never unregistered"
        super().registerProducer(producer, streaming)  # type: ignore[no-untyped-call]

    def pauseProducing(self) -> None:
        super().pauseProducing()  # type: ignore[no-untyped-call]
        self.reading = False

    def resumeProducing(self) -> None:
        super().resumeProducing()  # type: ignore[no-untyped-call]
        self.reading = True

    def abortConnection(self) -> None:
        self.aborted = True


class Web:
    """A connection to a site with ``resource`` at /ws and a page at /page."""

    def __init__(self, resource: Resource, clock: Clock, directory: Path | None = None, channel: Any = None) -> None:
        root = Resource()
        root.putChild(b"ws", resource)
        root.putChild(b"page", Page())
        self.log_path = None if directory is None else directory / "access.log"
        self.site = Site(root, logPath=self.log_path and str(self.log_path), reactor=clock)
        self.site.startFactory()
        self.clock = clock
        self.transport = Transport()
        if channel is None:
            self.channel = self.site.buildProtocol(None)
        else:
            self.channel = channel()
            self.channel.site = self.site
            self.channel.requestFactory = self.site.requestFactory
            self.channel.timeOut, self.channel.callLater = self.site.timeOut, clock.callLater
        self.channel.makeConnection(self.transport)

    def sends(self, *parts: bytes) -> None:
        for part in parts:
            self.channel.dataReceived(part)

    def reads(self) -> bytes:
        read: bytes = self.transport.value()
        self.transport.clear()
        return read

    def opens(self, *rest: bytes) -> bytes:
        """Upgrade the connection, and return the server's bytes after the 101 response."""
        self.sends(GET + b"".join(rest))
        head, _, sent = self.reads().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n"), head
        return sent

    def leaves(self, reason: Exception | None = None) -> None:
        channel, self.channel = self.channel, None
        self.transport.connected = False
        self.transport.producer = None
        channel.connectionLost(Failure(reason or ConnectionDone()))

    @property
    def log(self) -> list[str]:
        assert self.log_path is not None
        return self.log_path.read_text().splitlines()

    def stop(self) -> None:
        self.site.stopFactory()


def factory(protocol: Any, clock: Clock, **options: Any) -> WebSocketServerFactory:
    return WebSocketServerFactory(protocol, clock=clock, **options)


def web(protocol: Any, clock: Clock, directory: Path | None = None, **options: Any) -> Web:
    return Web(WebSocketResource(factory(protocol, clock, **options)), clock, directory)


def parse(answer: bytes) -> tuple[int, Headers, bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    line, *fields = head.split(b"\r\n")
    headers = Headers()
    for field in fields:
        name, _, value = field.partition(b": ")
        headers.addRawHeader(name, value)
    return int(line.split(b" ")[1]), headers, body


def from_chunks(body: bytes) -> bytes:
    content = b""
    while not body.startswith(b"0\r\n"):
        size, _, rest = body.partition(b"\r\n")
        content += rest[: int(size, 16)]
        body = rest[int(size, 16) + 2 :]
    return content


class TestTakeOver:
    """RFC 6455 §4.2.2 and RFC 9110 §15.2.2: the connection leaves twisted.web after the 101."""

    def test_the_resource_is_a_leaf(self, clock: Clock) -> None:
        resource = WebSocketResource(factory(Recorded, clock))
        assert verifyObject(IResource, resource)
        assert resource.isLeaf

    def test_the_response_is_a_101(self, clock: Clock) -> None:
        peer = web(recorded_class(), clock, subprotocols=["chat"])
        peer.sends(HEAD + b"Sec-WebSocket-Protocol: other, chat\r\n\r\n")
        status, headers, rest = parse(peer.reads())
        assert (status, rest) == (101, b"")
        assert {name for name, _ in headers.getAllRawHeaders()} == {
            b"Upgrade",
            b"Connection",
            b"Sec-Websocket-Accept",
            b"Sec-Websocket-Protocol",
            b"Server",
            b"Date",
        }
        assert headers.getRawHeaders("Sec-WebSocket-Accept") == ["s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]
        assert headers.getRawHeaders("Sec-WebSocket-Protocol") == ["chat"]
        servers = headers.getRawHeaders("Server")
        assert servers is not None and servers[0].startswith("TwistedWeb/")

    @pytest.mark.parametrize("channel", [None, HTTPChannel], ids=["as Site builds it", "a bare HTTPChannel"])
    def test_messages_are_passed_both_ways_until_the_end(self, clock: Clock, channel: Any) -> None:
        protocol = recorded_class()
        peer = Web(WebSocketResource(factory(protocol, clock)), clock, channel=channel)
        assert peer.opens() == b""
        peer.sends(text("one"), text("two")[:4], text("two")[4:] + CLOSE)
        assert peer.reads() == answer_to("one") + answer_to("two") + CLOSED
        assert peer.transport.disconnecting
        peer.leaves()
        assert protocol.made[0].heard == ["made", "opened", "one", "two", 1000, "lost"]

    @pytest.mark.parametrize("path", [b"/ws/", b"/ws/a/b?c=d"])
    def test_a_path_below_the_resource_is_accepted(self, clock: Clock, path: bytes) -> None:
        protocol = recorded_class()
        peer = web(protocol, clock)
        peer.sends(GET.replace(b"/ws", path, 1))
        assert peer.reads().startswith(b"HTTP/1.1 101 ")
        request = protocol.made[0].request
        assert request is not None
        assert request.target == path.decode()

    def test_the_connection_is_the_transports_producer(self, clock: Clock) -> None:
        protocol = recorded_class()
        peer = web(protocol, clock)
        peer.opens()
        assert peer.transport.producer is inside(protocol.made[0]).outgoing.outlet
        produced: list[str] = []

        class Producer:
            def pauseProducing(self) -> None:
                produced.append("pause")

            def resumeProducing(self) -> None:
                produced.append("resume")

            def stopProducing(self) -> None:
                produced.append("stop")

        protocol.made[0].registerProducer(Producer(), True)
        peer.transport.producer.pauseProducing()
        protocol.made[0].send(bytes(100_000))
        assert produced == ["pause"]
        peer.transport.producer.resumeProducing()
        assert produced == ["pause", "resume"]

    def test_the_sites_timeouts_are_cancelled(self, clock: Clock) -> None:
        peer = web(recorded_class(), clock, timeouts=Timeouts(idle=None, ping_interval=None, message=None, send=None))
        peer.opens()
        clock.advance(3600)
        peer.sends(text("still here"))
        clock.advance(3600)
        assert peer.reads() == answer_to("still here")
        assert not peer.transport.disconnecting
        peer.leaves()
        peer.stop()
        assert clock.getDelayedCalls() == []

    def test_the_connections_own_idle_timeout_is_effective(self, clock: Clock) -> None:
        peer = web(recorded_class(), clock, timeouts=Timeouts(idle=10.0, ping_interval=None))
        peer.opens()
        clock.pump([1.0] * 12)
        assert peer.reads()[2:4] == (1011).to_bytes(2, "big")

    def test_a_request_with_connection_close_and_upgrade_is_accepted(self, clock: Clock) -> None:
        peer = web(recorded_class(), clock)
        peer.sends(GET.replace(b"Connection: Upgrade", b"Connection: close\r\nConnection: Upgrade") + text("one"))
        assert peer.reads().endswith(b"\r\n\r\n" + answer_to("one"))
        assert not peer.transport.disconnecting

    def test_an_upgrade_is_accepted_while_an_earlier_answer_is_pending(self, clock: Clock) -> None:
        peer = web(recorded_class(), clock)
        assert peer.transport.producer is not None
        peer.transport.producer.pauseProducing()
        assert not peer.transport.reading
        assert peer.opens(text("one")) == answer_to("one")
        assert peer.transport.reading

    def test_a_channel_class_of_the_site_learns_of_the_end(self, clock: Clock) -> None:
        lost: list[Any] = []

        class Channel(HTTPChannel):
            def connectionLost(self, reason: Any = None) -> None:
                lost.append(reason.type)
                super().connectionLost(reason)  # type: ignore[no-untyped-call]

        peer = Web(WebSocketResource(factory(recorded_class(), clock)), clock, channel=Channel)
        peer.opens()
        peer.leaves()
        assert lost == [ConnectionDone]

    def test_cookies_and_fields_of_the_application_are_sent(self, clock: Clock) -> None:
        class Session(Resource):
            def getChild(self, path: bytes, request: Any) -> Resource:
                request.addCookie(b"a", b"1")
                request.setHeader(b"X-Frame-Options", b"DENY")
                request.setHeader(b"Content-Type", b"text/html")
                return WebSocketResource(factory(recorded_class(), clock))

        peer = Web(Session(), clock)
        peer.sends(GET.replace(b"/ws", b"/ws/session", 1))
        status, headers, _ = parse(peer.reads())
        assert status == 101
        assert headers.getRawHeaders("Set-Cookie") == ["a=1"]
        assert headers.getRawHeaders("X-Frame-Options") == ["DENY"]
        assert not headers.hasHeader("Content-Type")
        peer.sends(GET.replace(b"/ws", b"/ws/session", 1).replace(b"websocket", b"other"))

    def test_an_upgrade_below_a_compressing_resource_is_not_compressed(self, clock: Clock) -> None:
        resource = EncodingResourceWrapper(WebSocketResource(factory(recorded_class(), clock)), [GzipEncoderFactory()])
        peer = Web(resource, clock)
        peer.sends(HEAD.replace(b"websocket\r\n", b"other\r\n", 1) + b"Accept-Encoding: gzip\r\n\r\n")
        status, headers, body = parse(peer.reads())
        assert (status, headers.getRawHeaders("Content-Encoding")) == (426, ["gzip"])
        assert headers.getRawHeaders("Transfer-Encoding") == ["chunked"]
        assert gzip.decompress(from_chunks(body)).startswith(b"The WebSocket handshake Upgrade")
        peer.sends(HEAD + b"Accept-Encoding: gzip\r\n\r\n")
        status, headers, rest = parse(peer.reads())
        assert (status, headers.hasHeader("Content-Encoding"), rest) == (101, False, b"")
        peer.sends(text("plain") + CLOSE)
        assert peer.reads() == answer_to("plain") + CLOSED
        peer.leaves()


class TestBytesAfterTheHead:
    """Bytes that arrive after the head of the request."""

    LONG = "x" * 100_000

    def test_a_few_bytes_after_the_head_are_kept(self, clock: Clock) -> None:
        peer = web(recorded_class(), clock)
        assert peer.opens(text("one"), text("two")[:3]) == answer_to("one")
        peer.sends(text("two")[3:])
        assert peer.reads() == answer_to("two")

    def test_many_bytes_after_the_head_are_kept(self, clock: Clock) -> None:
        protocol = recorded_class()
        peer = web(protocol, clock)
        assert peer.opens(text(self.LONG), text("end")).endswith(answer_to("end"))
        assert protocol.made[0].heard == ["made", "opened", self.LONG, "end"]
        assert peer.transport.reading

    @pytest.mark.parametrize("size", [1, 100, 16_000, 100_000])
    def test_bytes_after_the_head_are_kept_for_a_slow_hook(self, clock: Clock, size: int) -> None:
        decision: Deferred[None] = Deferred()
        protocol = recorded_class()
        protocol.upgrade_requested = lambda self, request: decision  # type: ignore[method-assign]
        peer = web(protocol, clock)
        stream = GET + text("x" * size) + text("end")
        for at in range(0, len(stream), 7000):
            peer.sends(stream[at : at + 7000])
        # A large enough message pauses reading until the hook's Deferred fires.
        assert peer.transport.reading is (size < 0x4000 - 100)
        assert protocol.made[0].heard == ["made"]
        decision.callback(None)
        assert protocol.made[0].heard == ["made", "opened", "x" * size, "end"]
        assert peer.transport.reading
        peer.sends(text("more"))
        assert peer.reads().endswith(answer_to("end") + answer_to("more"))

    def test_an_upgrade_after_another_request_is_accepted(self, clock: Clock) -> None:
        peer = web(recorded_class(), clock)
        peer.sends(PAGE + GET + text("one"))
        read = peer.reads()
        assert read.startswith(b"HTTP/1.1 200 OK\r\n")
        assert re.search(b"\r\n\r\npppppHTTP/1.1 101 ", read)
        assert read.endswith(b"\r\n\r\n" + answer_to("one"))

    @pytest.mark.parametrize("size", [1, 2, 50])
    def test_the_bytes_may_be_split_anywhere(self, clock: Clock, size: int) -> None:
        peer = web(recorded_class(), clock)
        stream = GET + text("one") + text("two") + CLOSE
        for at in range(0, len(stream), size):
            peer.sends(stream[at : at + size])
        assert peer.reads().endswith(b"\r\n\r\n" + answer_to("one") + answer_to("two") + CLOSED)

    def test_bytes_that_the_application_read_are_used(self, clock: Clock) -> None:
        protocol = recorded_class()

        class Reading(Resource):
            isLeaf = True

            def render(self, request: Any) -> int:
                factory(protocol, clock).buildProtocol(None).accept(request, text("first"))
                return NOT_DONE_YET

        peer = Web(Reading(), clock)
        assert peer.opens() == b""
        # The bytes given to accept() are delivered one turn later, after the code that awaits accept().
        clock.advance(0)
        peer.sends(text("second"))
        assert peer.reads() == answer_to("first") + answer_to("second")

    def test_a_paused_application_gets_no_message(self, clock: Clock) -> None:
        protocol = recorded_class()
        protocol.opened = lambda self: self.pauseProducing()  # type: ignore[method-assign]
        peer = web(protocol, clock)
        assert peer.opens(text("one")) == b""
        assert not peer.transport.reading
        protocol.made[0].resumeProducing()
        assert peer.reads() == answer_to("one")
        assert peer.transport.reading


class TestEnd:
    """The end of the connection, as twisted.web's request reports it."""

    def opened(self, clock: Clock, directory: Path) -> tuple[Web, Any, list[Any]]:
        resource = Accepting(lambda: factory(recorded_class(), clock).buildProtocol(None))
        peer = Web(resource, clock, directory)
        finished: list[Any] = []
        resource.then = lambda request: request.notifyFinish().addBoth(finished.append) and NOT_DONE_YET
        peer.opens()
        return peer, resource, finished

    def test_a_clean_end_is_reported_as_finished(self, clock: Clock, tmp_path: Path) -> None:
        peer, resource, finished = self.opened(clock, tmp_path)
        peer.sends(CLOSE)
        assert (finished, peer.log) == ([], [])
        peer.leaves()
        assert finished == [None]
        assert len(peer.log) == 1
        assert re.search(r'"GET /ws HTTP/1\.1" 101 - "-" "-"$', peer.log[0])
        with pytest.raises(RuntimeError, match="after its connection was lost"):
            resource.requests[0].finish()

    def test_an_unclean_end_is_reported_as_a_failure(self, clock: Clock, tmp_path: Path) -> None:
        peer, _, finished = self.opened(clock, tmp_path)
        peer.leaves(ConnectionLost())
        assert [type(failure.value) for failure in finished] == [ConnectionLost]
        assert len(peer.log) == 1

    def test_an_end_after_the_site_stopped_is_reported(self, clock: Clock, tmp_path: Path) -> None:
        peer, _, finished = self.opened(clock, tmp_path)
        peer.stop()
        peer.sends(text("still here"), CLOSE)
        assert peer.reads() == answer_to("still here") + CLOSED
        peer.leaves()
        assert (finished, peer.log) == ([None], [])

    def test_an_exception_in_connection_lost_still_ends_the_request(self, clock: Clock, tmp_path: Path) -> None:
        peer, resource, finished = self.opened(clock, tmp_path)

        def connectionLost(reason: Any) -> None:
            WebSocketProtocol.connectionLost(resource.protocol, reason)
            raise ZeroDivisionError

        resource.protocol.connectionLost = connectionLost
        with pytest.raises(ZeroDivisionError):
            peer.leaves(ConnectionLost())
        assert len(finished) == len(peer.log) == 1

    @pytest.mark.parametrize("gone", ["closed", "lost", "aborted", "timed out"])
    def test_no_object_is_kept_alive_after_the_end(self, clock: Clock, tmp_path: Path, gone: str) -> None:
        peer, resource, _ = self.opened(clock, tmp_path)
        protocol, request = resource.protocol, resource.requests[0]
        alive = [weakref.ref(each) for each in (protocol, request, request.channel)]
        if gone == "closed":
            peer.sends(CLOSE)
        elif gone == "aborted":
            protocol.abort()
            assert peer.transport.aborted
        elif gone == "timed out":
            clock.pump([10.0] * 60)
        with uncollected():
            peer.leaves(ConnectionDone() if gone == "closed" else ConnectionLost())
            assert protocol.state is State.CLOSED
            protocol.made.clear()
            resource.forget()
            del protocol, request
            assert [reference() for reference in alive] == [None] * 3
        clock.advance(120)


class TestFinishedRequest:
    """The application or twisted.web finishes the request first."""

    def test_a_request_finished_by_the_application_is_handled(self, clock: Clock) -> None:
        resource = Accepting(lambda: factory(recorded_class(), clock).buildProtocol(None))
        peer = Web(resource, clock)
        peer.opens()
        resource.requests[0].write(b"no frame")
        resource.requests[0].finish()
        assert peer.reads() == CLOSED
        peer.sends(CLOSE)
        peer.leaves()
        assert resource.protocol.close_reason.clean

    def test_a_request_finished_by_twisted_web_is_handled(self, clock: Clock, tmp_path: Path, logged: Any) -> None:
        def fail(request: Any) -> None:
            raise ZeroDivisionError

        peer = Web(Accepting(lambda: factory(recorded_class(), clock).buildProtocol(None), fail), clock, tmp_path)
        assert peer.opens() == b"\x88\x02" + (1011).to_bytes(2, "big")
        assert len(logged(ZeroDivisionError)) == 1
        peer.sends(frame(0x88, (1011).to_bytes(2, "big")))
        peer.leaves()
        assert '"GET /ws HTTP/1.1" 500 ' in peer.log[0]

    def test_a_request_finished_during_a_slow_hook_is_handled(self, clock: Clock) -> None:
        decision: Deferred[None] = Deferred()
        protocol = recorded_class()
        protocol.upgrade_requested = lambda self, request: decision  # type: ignore[method-assign]
        resource = Accepting(lambda: factory(protocol, clock).buildProtocol(None))
        peer = Web(resource, clock)
        peer.sends(GET)
        resource.requests[0].write(b"nothing here")
        resource.requests[0].finish()
        assert b"nothing here" in peer.reads()
        assert [type(error) for error in resource.outcome] == [ConnectionDone]
        assert resource.protocol.state is State.CLOSED
        peer.sends(PAGE)
        assert peer.reads().endswith(b"ppppp")


class TestAnswersOtherThan101:
    """RFC 6455 §4.2.2 and RFC 9110 §15: the site keeps the connection."""

    def test_a_failed_handshake_is_answered(self, clock: Clock, tmp_path: Path) -> None:
        made = factory(recorded_class(), clock)
        resource = Accepting(lambda: made.buildProtocol(None))
        peer = Web(resource, clock, tmp_path)
        peer.sends(b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\n\r\n")
        status, headers, body = parse(peer.reads())
        text = b"This is a WebSocket endpoint (RFC 6455, version 13): open it with a WebSocket client, not as a page"
        assert (status, body) == (426, text)
        fields = {name: values for name, values in headers.getAllRawHeaders() if name not in (b"Date", b"Server")}
        assert fields == {
            b"Content-Length": [b"99"],
            b"Content-Type": [b"text/plain; charset=utf-8"],
            b"X-Content-Type-Options": [b"nosniff"],
            b"Sec-Websocket-Version": [b"13"],
            b"Upgrade": [b"websocket"],
            b"Connection": [b"Upgrade"],
        }
        assert [type(error) for error in resource.outcome] == [NoUpgrade]
        assert (resource.protocol.state, made.connections) == (State.CLOSED, set())
        assert resource.protocol.heard == ["made", "lost"]
        assert '"GET /ws HTTP/1.1" 426 99 ' in peer.log[0]

    @pytest.mark.parametrize("host", [b"", b"Host: a\r\nHost: a\r\n", b"Host: a b\r\n", b"Host: a:99999\r\n"])
    def test_the_host_is_checked_before_http_requested(self, clock: Clock, host: bytes) -> None:
        protocol = recorded_class()
        protocol.http_requested = lambda self, request: Response(200)  # type: ignore[method-assign]
        peer = web(protocol, clock)
        peer.sends(b"GET /ws HTTP/1.1\r\n" + host + b"\r\n")
        assert parse(peer.reads())[0] == 400

    def test_the_connection_still_belongs_to_twisted_web(self, clock: Clock) -> None:
        protocol = recorded_class()
        peer = web(protocol, clock)
        peer.sends(GET.replace(b"13\r\n", b"12\r\n") + PAGE)
        read = peer.reads()
        status, headers, _ = parse(read)
        assert (status, headers.getRawHeaders("Sec-WebSocket-Version")) == (426, ["13"])
        assert (headers.getRawHeaders("Upgrade"), headers.getRawHeaders("Connection")) == (["websocket"], ["Upgrade"])
        assert read.endswith(b"\r\n\r\nppppp")
        assert not peer.transport.disconnecting
        assert peer.opens(text("one")) == answer_to("one")
        assert [each.state for each in protocol.made] == [State.CLOSED, State.OPEN]

    @pytest.mark.parametrize(
        ("head", "answer"),
        [
            (GET.replace(b"HTTP/1.1", b"HTTP/1.0", 1), (400, ["close"])),
            (b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", (426, ["Upgrade, close"])),
        ],
        ids=["HTTP/1.0", "Connection: close"],
    )
    def test_the_connection_is_closed_if_http_does_not_keep_it(
        self, clock: Clock, head: bytes, answer: tuple[int, list[str]]
    ) -> None:
        peer = web(recorded_class(), clock)
        peer.sends(head)
        status, headers, _ = parse(peer.reads())
        assert (status, headers.getRawHeaders("Connection")) == answer
        assert peer.transport.disconnecting

    @pytest.mark.parametrize("line", [b"HTTP/1.0\r\n", b"HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"])
    def test_no_second_response_is_sent_after_a_hooks(self, clock: Clock, line: bytes) -> None:
        protocol = recorded_class()
        protocol.http_requested = lambda self, request: Response(200, body="page")  # type: ignore[method-assign]
        peer = web(protocol, clock)
        peer.sends(b"GET /ws " + line + b"\r\n")
        assert peer.reads().endswith(b"\r\n\r\npage")
        assert peer.transport.disconnecting

    @pytest.mark.parametrize("hook", ["http_requested", "upgrade_requested"])
    @pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])
    def test_a_hooks_response_is_sent(self, clock: Clock, hook: str, later: bool) -> None:
        response = Response(
            401, headers=Headers({"WWW-Authenticate": ['Basic realm="x"'], "X-Y": ["1", "2"]}), body="ö"
        )
        decision: Deferred[Response] = Deferred()
        protocol = recorded_class()
        setattr(protocol, hook, lambda self, request: decision if later else response)
        peer = web(protocol, clock)
        peer.sends(GET)
        if later:
            assert peer.reads() == b""
            decision.callback(response)
        status, headers, body = parse(peer.reads())
        assert (status, body) == (401, "ö".encode())
        assert headers.getRawHeaders("WWW-Authenticate") == ['Basic realm="x"']
        assert headers.getRawHeaders("X-Y") == ["1", "2"]
        assert headers.getRawHeaders("Content-Type") == ["text/plain; charset=utf-8"]
        assert headers.getRawHeaders("Content-Length") == ["2"]
        peer.sends(PAGE)
        assert peer.reads().endswith(b"ppppp")

    @pytest.mark.parametrize(
        ("status", "phrase", "fields"),
        [
            (200, b"OK", [b"Content-Length: 0"]),
            (204, b"No Content", []),
            (304, b"Not Modified", []),
            (599, b"Own Words", [b"Content-Length: 0"]),
        ],
    )
    def test_a_status_without_a_body_is_sent(
        self, clock: Clock, status: int, phrase: bytes, fields: list[bytes]
    ) -> None:
        protocol = recorded_class()
        response = Response(status, phrase.decode())
        protocol.http_requested = lambda self, request: response  # type: ignore[method-assign]
        peer = web(protocol, clock)
        peer.sends(b"GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head, _, body = peer.reads().partition(b"\r\n\r\n")
        line, *rest = head.split(b"\r\n")
        assert (line, body) == (b"HTTP/1.1 %d %b" % (status, phrase), b"")
        assert [field for field in rest if not field.startswith((b"Server", b"Date"))] == fields

    def test_a_content_length_of_the_application_is_removed(self, clock: Clock) -> None:
        protocol = recorded_class()
        protocol.http_requested = lambda self, request: Response(204)  # type: ignore[method-assign]
        resource = WebSocketResource(factory(protocol, clock))
        render = resource.render
        resource.render = lambda request: (request.setHeader(b"Content-Length", b"5"), render(request))[1]  # type: ignore[method-assign]
        peer = Web(resource, clock)
        peer.sends(GET)
        assert b"Content-Length" not in peer.reads()

    def test_the_response_to_head_has_no_body(self, clock: Clock) -> None:
        protocol = recorded_class()
        page = Response(200, body="page")
        protocol.http_requested = lambda self, request: page  # type: ignore[method-assign]
        peer = web(protocol, clock)
        peer.sends(b"HEAD /ws HTTP/1.1\r\nHost: localhost\r\n\r\n")
        status, headers, body = parse(peer.reads())
        assert (status, headers.getRawHeaders("Content-Length"), body) == (200, ["4"], b"")

    def test_any_method_is_handled(self, clock: Clock) -> None:
        protocol = recorded_class()
        methods: list[str] = []
        protocol.http_requested = lambda self, request: methods.append(request.method)  # type: ignore[method-assign]
        peer = web(protocol, clock)
        peer.sends(b"POST /ws HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello" + PAGE)
        read = peer.reads()
        assert parse(read)[2].startswith(b"The WebSocket handshake method was not GET")
        assert read.endswith(b"ppppp")
        assert methods == ["POST"]

    @pytest.mark.parametrize(
        "body", [b"Content-Length: 5\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"]
    )
    def test_an_upgrade_with_a_body_is_refused_and_closed(self, clock: Clock, body: bytes) -> None:
        protocol = recorded_class()
        peer = web(protocol, clock)
        peer.sends(HEAD + body + text("one") + PAGE)
        status, headers, told = parse(peer.reads())
        assert (status, headers.getRawHeaders("Connection")) == (400, ["close"])
        assert told == str(UnexpectedBody()).encode()
        assert peer.transport.disconnecting
        assert protocol.made[0].heard == ["made", "lost"]

    def test_an_empty_body_does_not_count_as_a_body(self, clock: Clock) -> None:
        peer = web(recorded_class(), clock)
        peer.sends(HEAD + b"Content-Length: 0\r\n\r\n" + text("one"))
        assert peer.reads().endswith(b"\r\n\r\n" + answer_to("one"))

    def test_an_answer_with_connection_close_closes(self, clock: Clock) -> None:
        protocol = recorded_class()
        answer = Response(403, headers=Headers({"Connection": ["close"]}), body="no")
        protocol.http_requested = lambda self, request: answer  # type: ignore[method-assign]
        peer = web(protocol, clock)
        peer.sends(GET + PAGE)
        status, headers, body = parse(peer.reads())
        assert (status, headers.getRawHeaders("Connection"), body) == (403, ["close"], b"no")
        assert peer.transport.disconnecting

    def test_cookies_of_the_site_and_of_the_answer_are_sent(self, clock: Clock) -> None:
        protocol = recorded_class()
        answer = Response(403, headers=Headers({"Set-Cookie": ["b=2", "c=3"]}), body="no")
        protocol.http_requested = lambda self, request: answer  # type: ignore[method-assign]
        resource = WebSocketResource(factory(protocol, clock))
        render = resource.render
        resource.render = lambda request: (request.addCookie(b"a", b"1"), render(request))[1]  # type: ignore[method-assign]
        peer = Web(resource, clock)
        peer.sends(GET)
        assert parse(peer.reads())[1].getRawHeaders("Set-Cookie") == ["a=1", "b=2", "c=3"]

    def test_a_hook_that_raises_is_answered_500(self, clock: Clock, logged: Any) -> None:
        protocol = recorded_class()
        protocol.upgrade_requested = lambda self, request: 1 // 0  # type: ignore[method-assign]
        peer = web(protocol, clock)
        peer.sends(GET)
        status, _, body = parse(peer.reads())
        assert (status, body) == (500, b"Internal Server Error")
        assert len(logged(ZeroDivisionError)) == 1

    def test_a_decorator_may_decline(self, clock: Clock) -> None:
        decision: Deferred[None] = Deferred()

        async def decorate(response: Response) -> None:
            await decision
            response.headers.setRawHeaders("X-Decorated", [str(response.status)])
            response.status, response.body = 402, "pay"

        resource = Accepting(lambda: factory(recorded_class(), clock, decorator=decorate).buildProtocol(None))
        peer = Web(resource, clock)
        peer.sends(GET)
        assert peer.reads() == b""
        decision.callback(None)
        status, headers, body = parse(peer.reads())
        assert (status, headers.getRawHeaders("X-Decorated"), body) == (402, ["101"], b"pay")
        assert not headers.hasHeader("Upgrade")
        assert not headers.hasHeader("Connection")
        assert [type(error) for error in resource.outcome] == [UpgradeDeclined]
        peer.sends(PAGE)
        assert peer.reads().endswith(b"ppppp")

    def test_a_decorator_may_add_fields(self, clock: Clock) -> None:
        def decorate(response: Response) -> None:
            response.headers.setRawHeaders("Server", ["mine"])

        peer = web(recorded_class(), clock, decorator=decorate)
        peer.sends(GET)
        status, headers, _ = parse(peer.reads())
        assert (status, headers.getRawHeaders("Server")) == (101, ["mine"])

    def test_the_origin_is_checked(self, clock: Clock) -> None:
        resource = Accepting(
            lambda: factory(recorded_class(), clock, origins=Origins(allowed=("https://a.example",))).buildProtocol(
                None
            )
        )
        peer = Web(resource, clock)
        peer.sends(HEAD + b"Origin: https://b.example\r\n\r\n")
        status, _, body = parse(peer.reads())
        assert (status, body.startswith(b"The Origin https://b.example is not this site")) == (403, True)
        assert [type(error) for error in resource.outcome] == [OriginRefused]
        for origin in (b"https://a.example", b"http://localhost"):
            peer = Web(resource, clock)
            peer.sends(HEAD + b"Origin: " + origin + b"\r\n\r\n")
            assert parse(peer.reads())[0] == 101

    def test_too_many_connections_are_refused(self, clock: Clock) -> None:
        resource = WebSocketResource(factory(recorded_class(), clock, limits=Limits(max_connections=1)))
        one, other = Web(resource, clock), Web(resource, clock)
        one.opens()
        other.sends(GET)
        assert parse(other.reads())[0] == 503
        one.leaves()
        assert other.opens() == b""


class TestServedByHand:
    """`read_request` and `respond` under twisted.web."""

    def test_a_request_can_be_answered_by_hand(self, clock: Clock) -> None:
        targets: list[str] = []

        class ByHand(WebSocketProtocol):
            def serve(self) -> None:
                Deferred.fromCoroutine(self.talk())

            async def talk(self) -> None:
                request = await self.read_request()
                targets.append(request.target)
                if request.path == "/ws/page":
                    await self.respond(Response(200, body="by hand"))
                    assert self.state is State.CLOSED
                    with pytest.raises(LocalError):
                        self.read_request()
                else:
                    await self.accept(request, subprotocols=["a"])
                    self.send("welcome")

        peer = web(ByHand, clock)
        peer.sends(GET.replace(b"/ws", b"/ws/page"))
        assert parse(peer.reads())[2] == b"by hand"
        assert peer.opens() == answer_to("welcome")
        assert targets == ["/ws/page", "/ws"]

    def test_only_one_operation_is_allowed_at_a_time(self, clock: Clock) -> None:
        decision: Deferred[None] = Deferred()
        protocol = recorded_class()
        protocol.upgrade_requested = lambda self, request: decision  # type: ignore[method-assign]
        web(protocol, clock).sends(GET)
        with pytest.raises(LocalError, match="one operation"):
            protocol.made[0].read_request()


class TestSlowHooks:
    """A hook of the handshake takes time."""

    @pytest.fixture
    def slow(self) -> type[Recorded]:
        slow = recorded_class()
        slow.cancelled = []  # type: ignore[attr-defined]

        async def upgrade_requested(self: Any, request: Any) -> None:
            self.heard.append(self.peer)
            try:
                await Deferred()
            except CancelledError:
                slow.cancelled.append(True)  # type: ignore[attr-defined]
                raise

        slow.upgrade_requested = upgrade_requested  # type: ignore[method-assign]
        return slow

    def waiting(
        self, slow: type[Recorded], clock: Clock, **options: Any
    ) -> tuple[Web, Accepting, WebSocketServerFactory]:
        made = factory(slow, clock, **options)
        resource = Accepting(lambda: made.buildProtocol(None))
        peer = Web(resource, clock)
        peer.sends(GET)
        assert resource.outcome == []
        return peer, resource, made

    def test_the_peer_is_known_and_nothing_can_be_sent(self, slow: type[Recorded], clock: Clock) -> None:
        peer, resource, _ = self.waiting(slow, clock)
        protocol = resource.protocol
        assert protocol.heard == ["made", peer.transport.getPeer()]
        assert protocol.transport.getHost() == peer.transport.getHost()
        assert protocol.transport.hostAddr == peer.transport.hostAddr
        assert protocol.buffered_amount == 0
        assert protocol.drain().called
        with pytest.raises(LocalError):
            protocol.send("early")

    def test_a_client_that_leaves_ends_the_handshake(self, slow: type[Recorded], clock: Clock) -> None:
        peer, resource, made = self.waiting(slow, clock)
        peer.leaves(ConnectionLost())
        assert [type(error) for error in resource.outcome] == [ConnectionLost]
        assert slow.cancelled == [True]  # type: ignore[attr-defined]
        assert (resource.protocol.state, made.connections) == (State.CLOSED, set())
        assert resource.protocol.peer is not None
        peer.stop()
        assert clock.getDelayedCalls() == []

    def test_a_hook_that_takes_too_long_is_cancelled(self, slow: type[Recorded], clock: Clock) -> None:
        peer, resource, made = self.waiting(slow, clock, timeouts=Timeouts(handshake=5.0, close=3.0))
        clock.pump([1.0] * 4)
        assert resource.outcome == []
        clock.pump([1.0] * 2)
        assert [type(error) for error in resource.outcome] == [HandshakeTimeout]
        assert (peer.reads(), peer.transport.disconnecting, peer.transport.aborted) == (b"", True, False)
        clock.pump([1.0] * 4)
        assert peer.transport.aborted
        peer.leaves()
        assert made.connections == set()

    def test_cancelling_the_handshake_aborts_the_connection(self, clock: Clock) -> None:
        outcome: list[Any] = []

        class Slow(WebSocketProtocol):
            def upgrade_requested(self, request: Any) -> Any:
                return Deferred()

        class Cancelling(Resource):
            isLeaf = True

            def render(self, request: Any) -> int:
                accepted = factory(Slow, clock).buildProtocol(None).accept(request)
                accepted.addErrback(lambda failure: outcome.append(failure.type))
                accepted.cancel()
                return NOT_DONE_YET

        peer = Web(Cancelling(), clock)
        peer.sends(GET)
        assert (outcome, peer.transport.aborted) == ([CancelledError], True)

    def test_a_drain_drops_the_connection(self, slow: type[Recorded], clock: Clock) -> None:
        peer, _, made = self.waiting(slow, clock)
        drained: list[None] = []
        made.drain().addCallback(drained.append)
        assert (peer.transport.aborted, drained) == (True, [])
        peer.leaves(ConnectionAborted())
        assert drained == [None]

    def test_the_application_may_close_the_transport(self, slow: type[Recorded], clock: Clock) -> None:
        peer, resource, _ = self.waiting(slow, clock)
        resource.protocol.transport.loseConnection()
        assert peer.transport.disconnecting
        peer.leaves()
        assert [type(error) for error in resource.outcome] == [ConnectionDone]

    def test_no_object_is_kept_alive_after_a_loss(self, slow: type[Recorded], clock: Clock) -> None:
        peer, resource, _ = self.waiting(slow, clock)
        request = resource.requests[0]
        alive = [weakref.ref(each) for each in (resource.protocol, request, request.channel)]
        slow.made.clear()
        with uncollected():
            peer.leaves(ConnectionLost())
            resource.forget()
            del request
            # Older versions of Twisted leave the frames of a cancelled coroutine in a reference cycle.
            gc.collect()
            assert [reference() for reference in alive] == [None] * 3


class TestDrain:
    """A drain of connections under twisted.web."""

    def test_a_drain_closes_open_connections_and_refuses_later_ones(self, clock: Clock) -> None:
        made = factory(recorded_class(), clock)
        resource = WebSocketResource(made)
        one, other = Web(resource, clock), Web(resource, clock)
        one.opens()
        drained: list[None] = []
        made.drain().addCallback(drained.append)
        assert one.reads()[:4] == b"\x88\x1d" + (1001).to_bytes(2, "big")
        other.sends(GET)
        assert parse(other.reads())[0] == 503
        assert drained == []
        one.sends(frame(0x88, (1001).to_bytes(2, "big")))
        assert one.transport.disconnecting
        one.leaves()
        assert drained == [None]


class TestHttp2:
    """RFC 9113 §8.6: HTTP/2 has no upgrade, so its requests get 501.

    A stand-in takes the place of Twisted's HTTP/2 stream. Twisted does not support RFC 8441 §5, which brings WebSocket
    to HTTP/2.
    """

    class Stream:
        transport = None
        aborted = False

        def __init__(self, site: Site) -> None:
            self.site = self.factory = site
            self.sent: list[Any] = []

        def getPeer(self) -> Any:
            return Transport().getPeer()

        getHost = getPeer

        def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Any) -> None:
            self.sent += [code, headers]

        def write(self, data: bytes) -> None:
            self.sent.append(data)

        def requestDone(self, request: Any) -> None:
            self.sent.append("done")

        def abortConnection(self) -> None:
            self.aborted = True

    def requested(self, clock: Clock, protocol: Any, upgrade: bool = True) -> tuple[Any, Any]:
        root = Resource()
        root.putChild(b"ws", WebSocketResource(factory(protocol, clock)))
        site = Site(root, reactor=clock)
        stream = self.Stream(site)
        request = site.requestFactory(stream)
        request.gotLength(0)
        request.requestHeaders.setRawHeaders(b"Host", [b"localhost"])
        request.requestReceived(b"GET", b"/ws", b"HTTP/2")
        return request, stream

    def test_an_upgrade_over_http2_is_answered_501(self, clock: Clock) -> None:
        _, stream = self.requested(clock, recorded_class())
        code, headers, body, done = stream.sent
        assert (code, body, done) == (b"501", b"The WebSocket handshake was not HTTP/1.1", "done")
        names = {name.lower() for name, _ in headers.getAllRawHeaders()}
        assert names == {b"server", b"date", b"content-type", b"x-content-type-options", b"content-length"}

    def test_a_hooks_response_is_sent_over_http2(self, clock: Clock) -> None:
        protocol = recorded_class()
        page = Response(200, headers=Headers({"Connection": ["close"], "X-Y": ["z"]}), body="page")
        protocol.http_requested = lambda self, request: page  # type: ignore[method-assign]
        _, stream = self.requested(clock, protocol)
        code, headers, body, _ = stream.sent
        assert (code, body, headers.getRawHeaders(b"X-Y")) == (b"200", b"page", [b"z"])
        assert not headers.hasHeader(b"Connection")

    @pytest.mark.parametrize("how", ["abort", "lose"])
    def test_a_dropped_stream_ends_the_handshake(self, clock: Clock, how: str) -> None:
        protocol = recorded_class()
        protocol.http_requested = lambda self, request: Deferred()  # type: ignore[method-assign]
        _, stream = self.requested(clock, protocol)
        if how == "abort":
            protocol.made[0].abort()
        else:
            protocol.made[0].transport.loseConnection()  # type: ignore[union-attr]
        assert stream.aborted
        assert protocol.made[0].state is State.CLOSED
        protocol.made[0].abort()


def keeping() -> tuple[Resource, list[Any]]:
    """Return a resource that answers no request, and the list of its requests."""
    requests: list[Any] = []
    resource = Resource()
    resource.isLeaf = True

    def render(request: Any) -> int:
        requests.append(request)
        return NOT_DONE_YET

    resource.render = render  # type: ignore[method-assign]
    return resource, requests


class TestCallersMistakes:
    """Calls that raise `LocalError`."""

    def test_a_protocol_with_a_connection_cannot_accept(self, clock: Clock) -> None:
        protocol = factory(Recorded, clock).buildProtocol(None)
        protocol.makeConnection(StringTransport())
        resource = Accepting(lambda: protocol)
        request = self.captured(clock)
        with pytest.raises(LocalError, match="brings its connection"):
            resource.render(request)

    def captured(self, clock: Clock) -> Any:
        resource, requests = keeping()
        self.web = Web(resource, clock)
        self.web.sends(GET)
        return requests[0]

    def test_a_request_whose_answer_has_begun_cannot_be_accepted(self, clock: Clock) -> None:
        request = self.captured(clock)
        request.write(b"hello")
        with pytest.raises(LocalError, match="has begun"):
            factory(Recorded, clock).buildProtocol(None).accept(request)
        request.finish()
        with pytest.raises(LocalError, match="has begun"):
            factory(Recorded, clock).buildProtocol(None).accept(request)

    def test_an_accepted_request_cannot_be_accepted_again(self, clock: Clock) -> None:
        request = self.captured(clock)
        factory(Recorded, clock).buildProtocol(None).accept(request)
        with pytest.raises(LocalError, match="has begun"):
            factory(Recorded, clock).buildProtocol(None).accept(request)

    def test_a_client_cannot_accept(self, clock: Clock) -> None:
        protocol = factory(Recorded, clock).buildProtocol(None)
        inside(protocol).role = Role.CLIENT
        with pytest.raises(LocalError, match="server's part"):
            protocol.accept(self.captured(clock))

    def test_accept_fails_if_the_client_has_left(self, clock: Clock) -> None:
        request = self.captured(clock)
        self.web.leaves()
        made = factory(recorded_class(), clock)
        failures: list[Any] = []
        protocol = made.buildProtocol(None)
        protocol.accept(request).addErrback(lambda failure: failures.append(failure.type))
        assert (failures, protocol.state, made.connections) == ([ConnectionLost], State.CLOSED, set())
        assert WebSocketResource(made).render(request) == NOT_DONE_YET
        assert made.connections == set()
        self.web.stop()
        assert clock.getDelayedCalls() == []


def test_a_request_may_be_accepted_later(clock: Clock) -> None:
    resource, requests = keeping()
    peer = Web(resource, clock)
    peer.sends(GET + text("one"))
    protocol = factory(recorded_class(), clock).buildProtocol(None)
    accepted: list[Any] = []
    protocol.accept(requests[0], subprotocols=["x"]).addCallback(accepted.append)
    assert accepted == [protocol.request]
    clock.advance(0)
    assert peer.reads().endswith(b"\r\n\r\n" + answer_to("one"))


def test_a_hook_may_return_a_fired_deferred(clock: Clock) -> None:
    protocol = recorded_class()
    protocol.upgrade_requested = lambda self, request: succeed(None)  # type: ignore[method-assign]
    assert web(protocol, clock).opens() == b""
