"""autobahn on Twisted's default reactor."""

from __future__ import annotations

import serving
from autobahn.twisted.websocket import (
    WebSocketClientFactory,
    WebSocketClientProtocol,
    WebSocketServerFactory,
    WebSocketServerProtocol,
)
from autobahn.websocket.compress import PerMessageDeflateOfferAccept


class Echo(WebSocketServerProtocol):
    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.sendMessage(payload, isBinary)


class Client(WebSocketClientProtocol):
    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.sendMessage(payload, isBinary)


class Kept(WebSocketServerProtocol):
    def onOpen(self) -> None:
        self.factory.connections.append(self)


class FanOut(Kept):
    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        for connection in self.factory.connections:
            connection.sendMessage(payload, isBinary)


class Prepared(Kept):
    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        message = self.factory.prepareMessage(payload, isBinary)
        for connection in self.factory.connections:
            connection.sendPreparedMessage(message)


modes = {"echo": Echo, "deflate": Echo, "handshake": Echo, "client": Client, "fanout": FanOut, "prepared": Prepared}
protocol = serving.choose(modes)
if serving.connects():
    from twisted.internet import reactor

    client = WebSocketClientFactory(f"ws://{serving.HOST}:{serving.PORT}/")
    client.protocol = protocol
    serving.run_twisted_client(lambda: reactor.connectTCP(serving.HOST, serving.PORT, client))
factory = WebSocketServerFactory()
factory.protocol = protocol
factory.connections = []
factory.setProtocolOptions(
    perMessageCompressionAccept=lambda offers: PerMessageDeflateOfferAccept(offers[0], no_context_takeover=True)
)
serving.run_twisted(factory)
