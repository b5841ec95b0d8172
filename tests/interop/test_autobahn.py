"""Interoperability with `autobahn` as client and server, on the same reactor."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from autobahn.twisted.websocket import (
    WebSocketClientFactory,
    WebSocketClientProtocol,
    WebSocketServerFactory,
    WebSocketServerProtocol,
)
from autobahn.websocket.compress import (
    PerMessageDeflateOffer,
    PerMessageDeflateOfferAccept,
    PerMessageDeflateResponseAccept,
)
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS

from twisted_beastws import Deflate

from ..support.certificates import trusting
from ..support.loopback import listening
from .conversation import (
    FRAGMENTED,
    MESSAGES,
    OUR_CLOSE,
    PART,
    PARTS,
    THEIR_CLOSE,
    converse,
    our_server,
    within,
)

pytestmark = pytest.mark.usefixtures("logged")


class Client(WebSocketClientProtocol):
    def __init__(self) -> None:
        super().__init__()
        self.opening: Deferred[None] = Deferred()
        self.messages: DeferredQueue[str | bytes] = DeferredQueue()
        self.pongs: DeferredQueue[bytes] = DeferredQueue()
        self.closing: Deferred[tuple[bool, int, str | None]] = Deferred()

    def onOpen(self) -> None:
        self.opening.callback(None)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.messages.put(payload if isBinary else payload.decode())

    def onPong(self, payload: bytes) -> None:
        self.pongs.put(payload)

    def onClose(self, wasClean: bool, code: int, reason: str) -> None:
        self.closing.callback((wasClean, code, reason))


async def connected(url: str, deflate: Deflate | None) -> Client:
    factory: Any = WebSocketClientFactory(url)  # type: ignore[no-untyped-call]
    factory.protocol = Client
    # It counts an end that takes a second as unclean, and a busy machine may take that long.
    factory.setProtocolOptions(closeHandshakeTimeout=0, serverConnectionDropTimeout=0)
    if deflate is not None:
        factory.setProtocolOptions(
            perMessageCompressionOffers=[PerMessageDeflateOffer()],  # type: ignore[no-untyped-call]
            perMessageCompressionAccept=PerMessageDeflateResponseAccept,
        )
    endpoint: Any = HostnameEndpoint(reactor, "localhost", factory.port)
    if factory.isSecure:
        endpoint = wrapClientTLS(trusting(), endpoint)
    client: Client = await within(endpoint.connect(factory))
    await within(client.opening)
    assert (client.websocket_extensions_in_use != []) == (deflate is not None)
    return client


def send(end: Any, message: str | bytes) -> None:
    payload = message.encode() if isinstance(message, str) else message
    end.sendMessage(payload, isinstance(message, bytes), fragmentSize=PART)


@pytest_twisted.ensureDeferred
async def test_their_client_can_talk_to_our_server(deflate: Deflate | None, secure: bool) -> None:
    async with our_server(deflate, secure, FRAGMENTED) as url:
        client = await connected(url, deflate)
        for message in MESSAGES:
            send(client, message)
            assert await within(client.messages.get()) == message
        client.beginMessage()
        for part in PARTS:
            client.sendMessageFrame(part.encode())
        client.endMessage()
        assert await within(client.messages.get()) == "".join(PARTS)
        client.sendPing(b"ping")
        assert await within(client.pongs.get()) == b"ping"
        client.sendClose(*OUR_CLOSE)
        assert await within(client.closing) == (True, OUR_CLOSE[0], None)

        client = await connected(url, deflate)
        send(client, "close")
        assert await within(client.closing) == (True, *THEIR_CLOSE)


class Server(WebSocketServerProtocol):
    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if payload == b"close":
            self.sendClose(*THEIR_CLOSE)
        else:
            send(self, payload if isBinary else payload.decode())


@pytest_twisted.ensureDeferred
async def test_our_client_can_talk_to_their_server(deflate: Deflate | None, secure: bool) -> None:
    factory: Any = WebSocketServerFactory()  # type: ignore[no-untyped-call]
    factory.protocol = Server
    if deflate is not None:
        factory.setProtocolOptions(perMessageCompressionAccept=lambda offers: PerMessageDeflateOfferAccept(offers[0]))  # type: ignore[no-untyped-call]
    async with listening(factory, secure) as port:
        await converse(f"ws{'s' * secure}://localhost:{port}/chat", deflate, FRAGMENTED)
