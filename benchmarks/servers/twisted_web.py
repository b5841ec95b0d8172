"""twisted.web.websocket on Twisted's default reactor."""

from __future__ import annotations

from typing import Any

import serving
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.websocket import WebSocketResource


class Echo:
    def __init__(self, connections: list[Any]) -> None:
        self.connections = connections

    def negotiationStarted(self, transport: Any) -> None:
        self.transport = transport

    def negotiationFinished(self) -> None:
        pass

    def pongReceived(self, payload: bytes) -> None:
        pass

    def textMessageReceived(self, message: str) -> None:
        self.transport.sendTextMessage(message)

    def bytesMessageReceived(self, data: bytes) -> None:
        # The payload may be a bytearray, which the sending side rejects.
        self.transport.sendBytesMessage(bytes(data))

    def connectionLost(self, reason: object) -> None:
        pass


class FanOut(Echo):
    def negotiationFinished(self) -> None:
        self.connections.append(self.transport)

    def textMessageReceived(self, message: str) -> None:
        for transport in self.connections:
            transport.sendTextMessage(message)


class Connections:
    def __init__(self, protocol: type[Echo]) -> None:
        self.protocol = protocol
        self.connections: list[Any] = []

    def buildProtocol(self, request: object) -> Echo:
        return self.protocol(self.connections)


modes = {"echo": Echo, "handshake": Echo, "fanout": FanOut}
if serving.CERTIFICATE is not None:
    # Its HTTP channel stays registered as the producer of TLS, which therefore never ends a connection.
    del modes["handshake"]
root = Resource()
root.putChild(b"", WebSocketResource(Connections(serving.choose(modes))))
serving.run_twisted(Site(root))
