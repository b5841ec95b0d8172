"""WebSockets under twisted.web, over TCP and TLS."""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.protocols.haproxy._wrapper import HAProxyWrappingFactory
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from websockets.sync.client import connect

from twisted_beastws import Deflate, Limits, Response, Timeouts, WebSocketServerFactory
from twisted_beastws.web.resource import WebSocketResource

from ..support.certificates import trusting
from ..support.frames import masked, unmasked
from ..support.handshakes import upgrade_request
from ..support.loopback import listening, turn, uncollected, until
from ..support.patience import PATIENCE
from ..support.protocols import Commanded
from ..support.ways import BOTH_WAYS

pytestmark = pytest.mark.usefixtures("logged")

GET = upgrade_request("/ws")
PAGE = b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n"


CLOSE, CLOSED = masked(0x88, b"\x03\xe8"), b"\x88\x02\x03\xe8"


class Page(Resource):
    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        return b"a page"


class Noting(Resource):
    """Call ``accept(request)`` from ``render``; record the objects of each request, and how it ended."""

    isLeaf = True

    def __init__(self, factory: WebSocketServerFactory) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.factory = factory
        self.used: list[Any] = []
        self.ends: list[Any] = []

    def render(self, request: Any) -> int:
        request.notifyFinish().addBoth(self._finished)
        protocol = self.factory.buildProtocol(request.getClientAddress())
        self.used += [protocol, request, request.channel]
        protocol.accept(request).addErrback(lambda failure: None)
        return NOT_DONE_YET

    def _finished(self, result: Any) -> None:
        self.ends.append(getattr(result, "type", None))


class Client(Protocol):
    """A client that keeps the bytes that it reads."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = True

    def send(self, data: bytes) -> None:
        self.transport.write(data)  # type: ignore[union-attr]

    async def reads(self, end: bytes) -> bytes:
        """Wait for data that ends with ``end``, and return the data received since the last call."""
        await until(lambda: self.data.endswith(end))
        data, self.data = bytes(self.data), bytearray()
        return data

    async def opens(self, behind: bytes = b"") -> None:
        self.send(GET + behind)
        await until(lambda: b"\r\n\r\n" in self.data)
        head, _, self.data = self.data.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")


class Web:
    """A listening site; ``connect()`` opens clients to it."""

    def __init__(self, site: Site, port: int, secure: bool, log: Path) -> None:
        self.site = site
        self.port = port
        self.secure = secure
        self._log = log

    async def connect(self) -> Client:
        endpoint: Any = HostnameEndpoint(reactor, "localhost", self.port)
        if self.secure:
            endpoint = wrapClientTLS(trusting(), endpoint)
        client: Client = await connectProtocol(endpoint, Client())
        return client

    @property
    def log(self) -> list[str]:
        return self._log.read_text().splitlines()


def identical(factory: Factory) -> Factory:
    return factory


@pytest.fixture
def serve(tmp_path: Path) -> Callable[..., Any]:
    """Return ``serve(resource, secure)``, a context manager for a site with ``resource`` at /ws and a page."""

    @asynccontextmanager
    async def serve(
        resource: Resource, secure: bool = False, wrapper: Callable[[Factory], Factory] = identical, **options: Any
    ) -> AsyncIterator[Web]:
        root = Resource()
        root.putChild(b"ws", resource)
        root.putChild(b"page", Page())
        before = set(reactor.getDelayedCalls())
        site: Any = Site(root, logPath=str(tmp_path / "access.log"), **options)
        async with listening(wrapper(site), secure) as port:
            yield Web(site, port, secure, tmp_path / "access.log")
        await until(lambda: set(reactor.getDelayedCalls()) <= before)

    return serve


def echo(protocol: Any = Commanded, **options: Any) -> WebSocketResource:
    return WebSocketResource(WebSocketServerFactory(protocol, **options))


@BOTH_WAYS
@pytest.mark.parametrize("size", [0, 100, 40_000])
@pytest_twisted.ensureDeferred
async def test_bytes_in_the_segment_of_the_head_are_kept(serve: Callable[..., Any], secure: bool, size: int) -> None:
    async with serve(echo(), secure) as web:
        client = await web.connect()
        await client.opens(masked(0x82, bytes(size)) * 3 + masked(0x81, b"last"))
        data = await client.reads(b"\x81\x04last")
        assert data == unmasked(0x82, bytes(size)) * 3 + b"\x81\x04last"
        client.send(masked(0x82, bytes(50_000)) + CLOSE)
        assert len(await client.reads(CLOSED)) == 4 + 50_000 + 4
        await until(lambda: client.lost)


@BOTH_WAYS
@pytest_twisted.ensureDeferred
async def test_bytes_after_the_head_are_kept_for_a_slow_hook(serve: Callable[..., Any], secure: bool) -> None:
    decision: Deferred[None] = Deferred()

    class Slow(Commanded):
        def upgrade_requested(self, request: Any) -> Deferred[None]:
            return decision

    async with serve(echo(Slow), secure) as web:
        client = await web.connect()
        client.send(GET)
        await turn(0.05)
        client.send(masked(0x82, bytes(60_000)) * 10 + masked(0x81, b"last"))
        await turn(0.05)
        assert client.data == b""
        decision.callback(None)
        data = await client.reads(b"\x81\x04last")
        assert data.partition(b"\r\n\r\n")[2] == unmasked(0x82, bytes(60_000)) * 10 + b"\x81\x04last"
        client.send(CLOSE)
        await until(lambda: client.lost)


@BOTH_WAYS
@pytest_twisted.ensureDeferred
async def test_the_request_ends_with_the_connection(serve: Callable[..., Any], secure: bool) -> None:
    resource = Noting(WebSocketServerFactory(Commanded))
    async with serve(resource, secure) as web:
        client = await web.connect()
        await client.opens(masked(0x81, b"one"))
        await client.reads(b"one")
        assert (resource.ends, web.log) == ([], [])
        client.send(CLOSE)
        await client.reads(CLOSED)
        await until(lambda: resource.ends)
        assert resource.ends == [None]
        assert [line.partition("] ")[2] for line in web.log] == ['"GET /ws HTTP/1.1" 101 - "-" "-"']


async def closes(client: Client) -> None:
    client.send(CLOSE)


async def leaves(client: Client) -> None:
    client.transport.loseConnection()  # type: ignore[union-attr]


async def aborts(client: Client) -> None:
    client.transport.abortConnection()  # type: ignore[union-attr]


async def is_silent(client: Client) -> None:
    await client.reads(b"nothing was received for 0.2 s")
    client.send(CLOSE)


def asks(text: bytes) -> Callable[[Client], Awaitable[None]]:
    async def asked(client: Client) -> None:
        client.send(masked(0x81, text))
        if text != b"abort":
            await until(lambda: client.data)
            client.send(CLOSE)

    return asked


async def violates(client: Client) -> None:
    client.send(b"\xff\xff")


@BOTH_WAYS
@pytest.mark.parametrize(
    ("ends", "clean", "failure"),
    [
        (closes, True, None),
        (leaves, False, None),
        (aborts, False, None),
        (is_silent, False, None),
        (violates, False, None),
        (asks(b"close"), True, None),
        (asks(b"abort"), False, None),
        (asks(b"fail"), False, ZeroDivisionError),
    ],
    ids=["close", "leave", "abort", "silence", "violation", "our close", "our abort", "failure"],
)
@pytest_twisted.ensureDeferred
async def test_nothing_is_left_however_a_connection_ends(
    serve: Callable[..., Any],
    logged: Callable[..., list[Any]],
    secure: bool,
    ends: Callable[..., Any],
    clean: bool,
    failure: type[Exception] | None,
) -> None:
    timeouts = Timeouts(idle=0.2 if ends is is_silent else PATIENCE, ping_interval=None, close=1.0)
    factory = WebSocketServerFactory(Commanded, timeouts=timeouts)
    resource = Noting(factory)
    async with serve(resource, secure) as web:
        client = await web.connect()
        await client.opens()
        alive = [weakref.ref(each) for each in resource.used]
        with uncollected():
            resource.used.clear()
            await ends(client)
            await until(lambda: client.lost and resource.ends and not factory.connections)
            if failure is not None:
                assert len(logged(failure)) == 1
            await until(lambda: [reference() for reference in alive] == [None] * 3)
        assert (resource.ends == [None]) is clean
        assert len(web.log) == 1


@BOTH_WAYS
@pytest_twisted.ensureDeferred
async def test_a_rejection_keeps_the_connection_for_http(serve: Callable[..., Any], secure: bool) -> None:
    class Picky(Commanded):
        def upgrade_requested(self, request: Any) -> Response:
            return Response(418, body="no")

    async with serve(echo(Picky), secure) as web:
        client = await web.connect()
        client.send(GET)
        assert (await client.reads(b"\r\n\r\nno")).startswith(b"HTTP/1.1 418 ")
        client.send(PAGE)
        assert (await client.reads(b"\r\n\r\na page")).startswith(b"HTTP/1.1 200 ")
        client.send(GET + PAGE)
        assert (await client.reads(b"\r\n\r\na page")).startswith(b"HTTP/1.1 418 ")
        await leaves(client)


@BOTH_WAYS
@pytest_twisted.ensureDeferred
async def test_the_sites_timeout_does_not_end_a_websocket(serve: Callable[..., Any], secure: bool) -> None:
    clock = Clock()
    async with serve(echo(), secure, timeout=10, reactor=clock) as web:
        client = await web.connect()
        await client.opens()
        clock.advance(11)
        client.send(masked(0x81, b"still here") + CLOSE)
        await client.reads(b"still here" + CLOSED)
        await until(lambda: client.lost)


@BOTH_WAYS
@pytest_twisted.ensureDeferred
async def test_producers_are_paused_for_a_slow_reader(serve: Callable[..., Any], secure: bool) -> None:
    class Producing(Commanded):
        """Send 20 MB; ``most`` is the largest buffered amount, ``paused`` the number of pauses."""

        left = 1280
        most = paused = 0
        running = False

        def opened(self) -> None:
            used.append(self)
            self.registerProducer(self.Source(self), True)
            self.go_on()

        class Source:
            def __init__(self, owner: Any) -> None:
                self.owner = owner

            def pauseProducing(self) -> None:
                self.owner.paused += 1
                self.owner.running = False

            def resumeProducing(self) -> None:
                self.owner.go_on()

            def stopProducing(self) -> None:
                self.owner.running = False

        def go_on(self) -> None:
            self.running = True
            while self.running and self.left:
                self.left -= 1
                self.send(bytes(16_000))
                self.most = max(self.most, self.buffered_amount)
            if not self.left:
                self.unregisterProducer()
                self.close()

    used: list[Any] = []
    async with serve(echo(Producing), secure) as web:
        client = await web.connect()
        client.dataReceived = lambda data: None
        client.send(GET)
        await until(lambda: used)
        client.transport.pauseProducing()
        await turn(0.1)
        (producing,) = used
        assert producing.left > 0
        received: list[int] = []
        client.dataReceived = lambda data: received.append(len(data))
        client.transport.resumeProducing()
        await until(lambda: not producing.left and producing.state.name == "CLOSING")
        await until(lambda: sum(received) > 1280 * 16_000 - (8 << 20))
        client.send(CLOSE)
        await until(lambda: client.lost)
        assert producing.paused > 2
        assert producing.most <= (1 << 17) + 16_010


@pytest_twisted.ensureDeferred
async def test_a_client_that_ends_its_side_gets_queued_messages(serve: Callable[..., Any]) -> None:
    # More bytes than the sockets' buffers hold.
    message = bytes(24 << 20)

    class Sending(Commanded):
        def opened(self) -> None:
            self.send(message)

    async with serve(echo(Sending, limits=Limits(max_buffered=32 << 20))) as web:
        client = await web.connect()
        await client.opens()
        client.transport.pauseProducing()
        client.transport.loseWriteConnection()
        await turn(0.1)
        client.transport.resumeProducing()
        await until(lambda: client.lost)
        assert len(client.data) >= len(message)


@pytest_twisted.ensureDeferred
async def test_an_endpoint_with_the_proxy_protocol_can_serve_a_site(serve: Callable[..., Any]) -> None:
    peers: list[Any] = []

    class Asking(Commanded):
        def opened(self) -> None:
            peers.append(self.peer)

    async with serve(echo(Asking), wrapper=HAProxyWrappingFactory) as web:
        client = await web.connect()
        client.send(b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 80\r\n")
        await client.opens(masked(0x81, b"one"))
        await client.reads(b"one")
        assert (peers[0].host, peers[0].port) == ("192.0.2.1", 1000)
        client.send(CLOSE)
        await until(lambda: client.lost)


@pytest_twisted.ensureDeferred
async def test_a_client_of_another_library_can_talk(serve: Callable[..., Any]) -> None:
    def conversation(port: int) -> list[Any]:
        with connect(f"ws://localhost:{port}/ws", open_timeout=PATIENCE, close_timeout=PATIENCE, proxy=None) as client:
            received: list[Any] = []
            for message in ("text", b"binary", "long " * 50_000):
                client.send(message)
                received.append(client.recv(timeout=PATIENCE) == message)
            received.append(client.protocol.extensions[0].name)
        return received

    async with serve(echo(deflate=Deflate())) as web:
        assert await deferToThread(conversation, web.port) == [True, True, True, "permessage-deflate"]
        await until(lambda: web.log)
