"""Run both ends of a tunnel that echoes data at the pace of a slow reader; print the growth of memory as JSON.

``python carried.py MEBIBYTES``
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

sys.path.insert(0, str(Path(__file__).parent))
from measured import Meter

PART = 1 << 16
MEBI = 1 << 20
SLEEP = 0.002
"""Seconds that the reader sleeps after each mebibyte."""


class Echoing(Protocol):
    """Echo the data, and read no faster than the peer reads the echoes."""

    transport: Any

    def connectionMade(self) -> None:
        self.transport.registerProducer(self.transport, True)

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)


@implementer(IPushProducer)
class Sender:
    """Write numbered parts at the transport's pace."""

    def __init__(self, transport: Any, parts: int) -> None:
        self.transport = transport
        self.parts = parts
        self.sent = 0
        self.paused = False

    def resumeProducing(self) -> None:
        self.paused = False
        while self.sent < self.parts and not self.paused:
            self.transport.write(part(self.sent))
            self.sent += 1
        if self.sent == self.parts:
            self.transport.unregisterProducer()

    def pauseProducing(self) -> None:
        self.paused = True

    def stopProducing(self) -> None:
        self.pauseProducing()


def part(number: int) -> bytes:
    return number.to_bytes(8, "big") * (PART // 8)


class Reader(Protocol):
    """Check every echoed part."""

    transport: Any

    def connectionMade(self) -> None:
        self.meter = Meter()
        self.began = time.monotonic()
        self.parts = int(sys.argv[1]) * MEBI // PART
        self.seen = 0
        self.rest = bytearray()
        sender = Sender(self.transport, self.parts)
        self.transport.registerProducer(sender, True)
        sender.resumeProducing()

    def dataReceived(self, data: bytes) -> None:
        self.rest += data
        while len(self.rest) >= PART:
            assert self.rest[:PART] == part(self.seen)
            del self.rest[:PART]
            self.seen += 1
            if self.seen % (MEBI // PART) == 0:
                self.transport.pauseProducing()
                reactor.callLater(SLEEP, self.transport.resumeProducing)
        if self.seen == self.parts:
            self.transport.loseConnection()

    def connectionLost(self, reason: Any = None) -> None:
        outcome = {
            "octets": self.seen * PART,
            "growth": self.meter.growth(),
            "end": reason.type.__name__,
            "seconds": round(time.monotonic() - self.began, 1),
        }
        print(json.dumps(outcome), flush=True)
        reactor.stop()


async def main() -> None:
    port: Any = await serverFromString(reactor, "beastws:tcp:0:interface=127.0.0.1").listen(
        Factory.forProtocol(Echoing)
    )
    endpoint = clientFromString(reactor, f"ws:127.0.0.1:{port.getHost().port}")
    await endpoint.connect(Factory.forProtocol(Reader))


if __name__ == "__main__":
    from twisted.internet.defer import Deferred

    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(main()).addErrback(lambda why: why.printTraceback()))
    reactor.run()
