"""The minimum cost: a Twisted protocol that sends back the bytes that it receives, without parsing any frame."""

from __future__ import annotations

import serving
from twisted.internet.protocol import Factory, Protocol

ANSWER = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


class Answering(Protocol):
    """Answer the first chunk with a handshake response, without reading it; pass all others to ``received``."""

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(ANSWER)
        self.dataReceived = self.received
        self.factory.connections.append(self)


class Echo(Answering):
    def received(self, data: bytes) -> None:
        self.transport.write(data)


class Closing(Answering):
    def received(self, data: bytes) -> None:
        self.transport.loseConnection()

    def connectionLost(self, reason: object) -> None:
        self.factory.connections.remove(self)


class FanOut(Answering):
    def received(self, data: bytes) -> None:
        for connection in self.factory.connections:
            connection.transport.write(data)


factory = Factory.forProtocol(serving.choose({"echo": Echo, "handshake": Closing, "fanout": FanOut}))
factory.connections = []
serving.run_twisted(factory)
