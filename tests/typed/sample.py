"""A program for type checkers that uses the public names as users do. It is never run.

Twisted's objects are annotated as ``Any`` here: mypy understands Twisted's interfaces only with the plugin mypy-zope,
and much of Twisted has no annotations.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from dataclasses import asdict, dataclass
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from twisted.web.http import Request as WebRequest
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from twisted_beastws import (
    ACCELERATED,
    JSON,
    AccessLog,
    AdminPages,
    ASGIFactory,
    BufferFull,
    CertificateLogin,
    CloseCode,
    CloseReason,
    ConnectionClosed,
    DecoratorError,
    Deflate,
    HandshakeError,
    Headers,
    Hub,
    InvalidMessage,
    Limits,
    LocalError,
    LoginGate,
    MemoryBudget,
    Metrics,
    Observer,
    Opcode,
    Origins,
    PasswordLogin,
    PingScheduler,
    Prepared,
    ProtocolError,
    ReloadableEndpoint,
    Request,
    Response,
    Role,
    Router,
    ShortCollections,
    State,
    Timeouts,
    TrustedProxies,
    UpgradeDeclined,
    WebSocketClientEndpoint,
    WebSocketClientFactory,
    WebSocketError,
    WebSocketProtocol,
    WebSocketResource,
    WebSocketServerFactory,
    __version__,
    broadcast,
    connect,
    drain_at_shutdown,
    is_retryable,
    is_upgrade,
    prepare,
    reconnecting,
    trace_frames,
)
from twisted_beastws.errors import NoSecKey, OriginRefused
from twisted_beastws.hub import LocalBackplane, Message, PublishError
from twisted_beastws.testing import ConnectedPair, Frame, ScriptedPeer, connected_pair, scripted_client

hub = Hub(LocalBackplane(history=10), max_buffered=1 << 16, slow_reader="drop")
accelerated: bool = ACCELERATED
version: str = __version__


class AllHooks(WebSocketProtocol):
    """Override every hook."""

    def http_requested(self, request: Request) -> Response | None:
        if is_upgrade(request):
            return None
        return Response(200, headers=Headers({"Content-Type": ["text/plain"]}), body=f"{request.method} {request.path}")

    async def upgrade_requested(self, request: Request) -> Response | None:
        self.user = request.field("X-User")
        return Response(403, body="no name\n") if self.user is None else None

    def opened(self) -> Deferred[bool]:
        return hub.join(self, "echo", name="anybody", render=rendered, after="0-0")

    def text_received(self, text: str) -> None:
        try:
            self.send(text, compress=len(text) > 100)
        except BufferFull:
            self.close(CloseCode.POLICY_ERROR, "too slow")

    async def binary_received(self, data: bytes) -> None:
        self.send_binary(data)
        await self.drain()

    def ping_received(self, payload: bytes) -> None:
        self.pong(payload)

    def pong_received(self, payload: bytes) -> None:
        latency: float | None = self.latency
        self.send_text(f"{latency} {self.buffered_amount + 1}")

    def closed(self, reason: CloseReason) -> None:
        code: int = reason.code
        if not reason.clean and reason.error is not None and code != CloseCode.ABNORMAL:
            self.log.info("{reason}", reason=reason)


class Upload(WebSocketProtocol):
    """Stream messages in both directions."""

    size: int = 0

    def fragment_received(self, data: bytes, opcode: Opcode, final: bool) -> None:
        self.size += len(data)
        if final:
            with self.message(Opcode.TEXT) as message:
                message.write(f"{self.size}")
                message.write(b" octets")


class ByHand(WebSocketProtocol):
    """Perform the handshake step by step."""

    def serve(self) -> None:
        Deferred.fromCoroutine(self.run()).addErrback(self.failed)

    async def run(self) -> None:
        request: Request = await self.read_request()
        if not is_upgrade(request):
            await self.respond(Response(404))
            return
        accepted: Request = await self.accept(request, b"", decorator=decorate, subprotocols=["chat"])
        assert self.state is State.OPEN and self.request is accepted
        async for message in self:
            self.send(message.upper())

    def failed(self, failure: Failure) -> None:
        if not isinstance(failure.value, (HandshakeError, DecoratorError)):
            self.log.failure("unexpected", failure)


def rendered(message: Message) -> str | None:
    return message.data if isinstance(message.data, str) else None


def decorate(response: Response) -> None:
    status: int = response.status
    response.headers.setRawHeaders("Server", [f"sample on {status}"])


async def handler(ws: WebSocketProtocol) -> None:
    hello: Prepared = prepare("hello", compress=False)
    refused: list[WebSocketProtocol] = broadcast([ws], hello)
    if refused:
        ws.send(hello)
    async for message in ws:
        size: int = len(message)
        ws.send(f"{size}" if isinstance(message, str) else message)
        await ws.drain()
    try:
        identity: str | None = await hub.publish("echo", "somebody left", exclude=ws, keep=False)
        names: dict[str, object] = await hub.who("echo")
        print(identity, names, hub.rooms, hub.members("echo"))
    except PublishError:
        hub.leave(ws, "echo")


class Greet(Resource):
    isLeaf = True

    def render_GET(self, request: WebRequest) -> bytes | int:
        if not is_upgrade(request):
            return b"A WebSocket is here.\n"
        AllHooks().accept(request).addErrback(lambda failure: None)
        return NOT_DONE_YET


@inlineCallbacks
def older(ws: WebSocketProtocol) -> Generator[Deferred[Any], Any, None]:
    ws.send((yield ws.receive()))


def server(clock: Any = None) -> WebSocketServerFactory:
    WebSocketServerFactory(Upload, timeouts=Timeouts.suggested(Role.SERVER))
    WebSocketServerFactory(AllHooks)
    WebSocketServerFactory(older)
    return WebSocketServerFactory(
        handler,
        decorator=decorate,
        subprotocols=["chat"],
        origins=Origins(allowed=("https://example.com",)),
        timeouts=Timeouts(idle=None, ping_interval=20.0),
        limits=Limits(max_message_size=1 << 16, slow_reader="pause"),
        budget=MemoryBudget(1 << 28),
        deflate=Deflate(level=6),
        clock=clock,
    )


async def parts() -> AsyncIterator[str]:
    yield "one"


@dataclass
class Said:
    text: str


def said(value: Any) -> Said:
    return Said(str(value))


class Typed(WebSocketProtocol):
    codec = JSON(Said)
    other = JSON(convert=said, dump=asdict, code=4000)
    plain = JSON()

    def json_received(self, message: Said) -> None:
        text: str = self.codec.decode("{}").text
        more: str = self.other.decode(b"{}").text
        self.send_json(Said(text + more))


class Client(WebSocketProtocol):
    seen: int = 0

    def text_received(self, text: str) -> None:
        self.seen += 1


async def client(reactor: Any) -> None:
    try:
        ws = await connect("wss://example.com/", reactor=reactor, subprotocols=["chat"], deflate=Deflate())
    except UpgradeDeclined as error:
        body: bytes = error.response.body
        print(error.status, body)
        return
    except (NoSecKey, OriginRefused, HandshakeError):
        raise
    subprotocol: str | None = ws.subprotocol
    message: str | bytes = await ws.receive()
    seconds: float = await ws.ping(b"?")
    await ws.send_stream(parts())
    try:
        ws.send(f"{subprotocol} {message!r} {seconds}")
    except (ConnectionClosed, LocalError, ProtocolError, WebSocketError) as error:
        print(error)
    reason: CloseReason = await ws.close(4000, "enough")
    print(reason, ws.response, ws.peer)
    own: Client = await connect("ws://localhost/", protocol=Client, reactor=reactor)
    print(own.seen)
    own.abort()
    async with connect("ws://localhost/", protocol=Client) as inside:
        more: int = inside.seen
        await inside.flush()
        inside.set_options(timeouts=Timeouts(idle=5.0), limits=Limits(), deflate=False)
        print(more)


async def by_hand(endpoint: Any) -> None:
    factory = WebSocketClientFactory(Client, timeouts=Timeouts(), limits=Limits(), deflate=Deflate(), decorator=None)
    ws: WebSocketProtocol = await endpoint.connect(factory)
    response: Response = await ws.handshake("localhost", "/chat")
    request: Request = Request.parse(b"GET / HTTP/1.1\r\n\r\n")
    print(response.status, request.path)


def routed(resource: Resource) -> tuple[WebSocketServerFactory, WebSocketServerFactory]:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})

    try:
        Typed.codec.decode("{")
    except InvalidMessage as error:
        print(error)
    trace_frames("chat", on=False)
    router = Router({"/chat/{room}": Client, "/feed": handler, "/own": server()}, default=resource)
    return WebSocketServerFactory(router), ASGIFactory(application, root_path="/app", limits=Limits())


def service(reactor: Any) -> None:
    factory: Any = Factory.forProtocol(Client)
    endpoint = WebSocketClientEndpoint(reactor, "ws://localhost/", headers={"X-User": "Ada"}, decorator=None)
    running = reconnecting(endpoint, factory)
    running.startService()
    if running.given_up is not None:
        retry: bool = is_retryable(running.given_up)
        print(retry)


class Token(LoginGate):
    """A login of its own."""

    async def identify(self, request: Request, ws: Any) -> str | None:
        return request.field("X-Token")


class Opened(Observer):
    """Count connections."""

    count = 0

    def opened(self, ws: Any) -> None:
        self.count += 1


def service_parts(reactor: Any) -> None:
    factory = server()
    factory.add_gate(PasswordLogin(["file:passwords"]))
    factory.add_gate(CertificateLogin())
    factory.trust_proxies(TrustedProxies(["127.0.0.1"]))
    log = AccessLog("access.log")
    factory.add_observer(log)
    factory.add_observer(Opened())
    server().add_gate(AdminPages(Metrics(factory), ready=lambda: not factory.draining))
    endpoint = ReloadableEndpoint(reactor, "tcp:8000")
    ShortCollections(lambda: len(factory.connections)).startService()
    drain_at_shutdown(reactor, factory, seconds=10, reloads=[log.reopen, endpoint.reload])


def mount(root: Any) -> None:
    root.putChild(b"ws", WebSocketResource(server()))
    before: Resource = WebSocketResource(server()).before(root)
    print(before)


async def main(reactor: Any, endpoint: Any) -> None:
    factory = server()
    await endpoint.listen(factory)
    print(len(factory.connections), PingScheduler)
    await client(reactor)
    await factory.drain(CloseCode.SERVICE_RESTART, "back soon", seconds=5.0)


def tests() -> None:
    pair: ConnectedPair[AllHooks, Client] = connected_pair(AllHooks, Client)
    pair.client.send("hello")
    pair.advance(1.0)
    seen: int = pair.client.seen
    peer: ScriptedPeer[AllHooks] = scripted_client(AllHooks, headers={"X-User": "Ada"})
    peer.send(Frame.text("hello"), Frame.close())
    peer.expect(Frame.text("hello"), Frame.close())
    print(seen, peer.protocol.user)
    other: ConnectedPair[AllHooks, WebSocketProtocol] = connected_pair(AllHooks, WebSocketClientFactory(Client))
    same: ConnectedPair[AllHooks, Client] = connected_pair(
        AllHooks, Client, client_options={"limits": Limits()}, deflate=None
    )
    print(other, same)
