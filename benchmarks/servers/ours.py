"""twisted_beastws: a protocol class with hooks."""

from __future__ import annotations

import serving

import twisted_beastws
from twisted_beastws import Deflate, Limits, WebSocketProtocol, WebSocketServerFactory, connect


class Echo(WebSocketProtocol):
    def text_received(self, text: str) -> None:
        self.send(text)

    def binary_received(self, data: bytes) -> None:
        self.send(data)


class FanOut(WebSocketProtocol):
    def text_received(self, text: str) -> None:
        for connection in self.factory.connections:
            connection.send(text)


class Broadcast(WebSocketProtocol):
    def text_received(self, text: str) -> None:
        twisted_beastws.broadcast(self.factory.connections, text)


class Prepared(WebSocketProtocol):
    def text_received(self, text: str) -> None:
        message = twisted_beastws.prepare(text)
        for connection in self.factory.connections:
            connection.send(message)


modes = {
    "echo": (Echo, None),
    "deflate": (Echo, Deflate()),
    "deflate-1": (Echo, Deflate(level=1)),
    "deflate-isal": (Echo, Deflate(level=1)),
    "handshake": (Echo, None),
    "client": (Echo, None),
    "fanout": (FanOut, None),
}
if hasattr(twisted_beastws, "broadcast"):
    modes["prepared"] = (Broadcast, None)
elif hasattr(twisted_beastws, "prepare"):
    # An older build, for ``--before``.
    modes["prepared"] = (Prepared, None)

protocol, deflate = serving.choose(modes)
# Valgrind slows a server so much that each message would spend the time of a turn.
limits = Limits(max_seconds_per_turn=None) if serving.COUNTED else Limits()
if serving.connects():
    serving.run_twisted_client(lambda: connect(f"ws://{serving.HOST}:{serving.PORT}/", protocol=protocol))
else:
    serving.run_twisted(WebSocketServerFactory(protocol, deflate=deflate, limits=limits))
