"""Mixed load on `twisted_beastws.uvreactor` with connections cut at random: ``python soak.py SECONDS``.

It prints JSON: the number of connections, the logged events, and the objects and descriptors that are left.
"""

from __future__ import annotations

import gc
import json
import os
import random
import sys
from typing import Any, cast

if __name__ == "__main__":
    from twisted_beastws.uvreactor import install

    install()

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, LogLevel, globalLogBeginner
from zope.interface import implementer

from twisted_beastws import WebSocketClientEndpoint, WebSocketProtocol, WebSocketServerFactory

PARALLEL = 40
"""Concurrent connections of each kind."""
KINDS = (
    "NativeConnection",
    "ConnectionWriter",
    "Held",
    "TCPTransport",
    "Plain",
    "Served",
    "Client",
    "Connector",
    "Failure",
    "Deferred",
)
LASTING = 0.2
"""The longest life of a connection in seconds."""
SIZES = (1, 100, 4096, 70_000, 1 << 20)


def cut(transport: Any) -> None:
    """End a connection in a random way."""
    way = random.choice(("abortConnection", "loseConnection", "loseWriteConnection", "close"))
    if way == "close":
        transport.socket.close()
    else:
        getattr(transport, way)()


@implementer(IHalfCloseableProtocol, IPushProducer)
class Plain(Protocol):
    """Echoes at the peer's pace; either end may cut the connection."""

    transport: Any

    def connectionMade(self) -> None:
        counts["made"] += 1
        self.transport.registerProducer(self, True)
        self.call: Any = reactor.callLater(random.random() * LASTING, self.end)
        if random.random() < 0.2:
            self.transport.pauseProducing()
        if self.factory.speaks:
            self.transport.write(bytes(random.choice(SIZES)))

    def end(self) -> None:
        self.call = None
        if random.random() < 0.5:
            self.transport.unregisterProducer()
        transport = self.transport
        cut(transport)
        # The connection may be half closed, or wait for its producer or for a peer that does not read: abort it then.
        reactor.callLater(LASTING, transport.abortConnection)
        if transport.fileno() == -1:
            self.factory.lost(self)

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)

    def pauseProducing(self) -> None:
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self.transport.resumeProducing()

    def stopProducing(self) -> None:
        pass

    def readConnectionLost(self) -> None:
        pass

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Any = None) -> None:
        if self.call is not None:
            self.call.cancel()
        self.factory.lost(self)


class PlainServer(Factory):
    protocol = Plain
    noisy = False
    speaks = False

    def lost(self, protocol: Plain) -> None:
        pass


class PlainClient(ClientFactory):
    protocol = Plain
    noisy = False
    speaks = True

    def __init__(self) -> None:
        self.ended: Deferred[None] = Deferred()

    def lost(self, protocol: Plain) -> None:
        if not self.ended.called:
            self.ended.callback(None)

    def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
        counts["failed"] += 1
        self.lost(None)  # type: ignore[arg-type]


class Served(WebSocketProtocol):
    def binary_received(self, data: bytes) -> None:
        self.send(data)


class Client(WebSocketProtocol):
    def opened(self) -> None:
        counts["opened"] += 1
        self.send(bytes(random.choice(SIZES[:4])))

    def binary_received(self, data: bytes) -> None:
        self.send(data)


async def plain(port: int) -> None:
    factory = PlainClient()
    reactor.connectTCP("127.0.0.1", port, factory)
    await factory.ended


async def websocket(port: int) -> None:
    client: Any = await WebSocketClientEndpoint(reactor, f"ws://127.0.0.1:{port}/").connect(Factory.forProtocol(Client))
    await deferLater(reactor, random.random() * LASTING)
    if random.random() < 0.5:
        await client.close()
    else:
        client.abort()


async def again_and_again(kind: Any, port: int, until: float) -> None:
    while reactor.seconds() < until:
        await kind(port)


def left() -> dict[str, int]:
    """Count the live objects of each kind that connections consist of, and the descriptors."""
    gc.collect()
    found = dict.fromkeys(KINDS, 0)
    for each in gc.get_objects():
        name = type(each).__name__
        if name in found:
            found[name] += 1
    return {**found, "objects": len(gc.get_objects()), "descriptors": len(os.listdir("/proc/self/fd")), **native()}


def native() -> dict[str, int]:
    ours: Any = reactor
    return {"native": len(ours.native), "calls": len(reactor.getDelayedCalls())}


async def soak(seconds: float) -> None:
    listens: Any = reactor
    plain_port = listens.listenTCP(0, PlainServer(), interface="127.0.0.1")
    server = WebSocketServerFactory(Served)
    server_port = listens.listenTCP(0, server, interface="127.0.0.1")
    ports = ((plain, plain_port.getHost().port), (websocket, server_port.getHost().port))

    async def load(seconds: float) -> None:
        until = reactor.seconds() + seconds
        running = [
            Deferred.fromCoroutine(again_and_again(kind, port, until)) for kind, port in ports for _ in range(PARALLEL)
        ]
        for each in running:
            await each
        await deferLater(reactor, 5 * LASTING)

    # The first load creates caches and other objects that stay; count only after it.
    await load(1.0)
    before = left()
    await load(seconds)
    print(json.dumps({"before": before, "after": left(), "counts": counts, "logged": logged}))
    reactor.stop()


counts = {"made": 0, "opened": 0, "failed": 0}
logged: list[str] = []


def note(event: Any) -> None:
    if event["log_level"] >= LogLevel.warn:
        failure = event.get("log_failure")
        logged.append(failure.getTraceback() if failure else str(event.get("log_text") or event["log_format"]))


if __name__ == "__main__":
    globalLogBeginner.beginLoggingTo([cast(ILogObserver, note)], redirectStandardIO=False, discardBuffer=True)

    def finished(failure: Any) -> None:
        print(failure.getTraceback(), file=sys.stderr)
        reactor.stop()

    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(soak(float(sys.argv[1]))).addErrback(finished))
    reactor.run()
