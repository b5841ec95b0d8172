"""A server that runs one task on one connection, then prints how many bytes its process grew by, as JSON.

While its buffers are full for the first time, ``produce`` and ``send_all`` print "full".

``python measured.py produce|send_all|take LIMITS``, where LIMITS are the arguments of `Limits` as JSON.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import deferLater
from zope.interface import implementer

from twisted_beastws import BufferFull, CloseReason, ConnectionClosed, Limits, WebSocketProtocol, WebSocketServerFactory

SIZE = 1 << 16
COUNT = 1200
"""The number of messages: 75 MiB in total."""
SLEEP = 0.5
"""Seconds that a slow consumer sleeps after its first message."""


def message(number: int) -> bytes:
    return number.to_bytes(4, "big") * (SIZE // 4)


class Meter:
    """How far the process's resident memory rose above what it was when this object was created."""

    def __init__(self) -> None:
        self.begin()
        self.before = self.peak()

    def begin(self) -> None:
        """Forget the peak until now."""
        # Writing 5 resets the peak to the current resident memory; see proc(5).
        Path("/proc/self/clear_refs").write_text("5")

    def peak(self) -> int:
        found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
        assert found is not None
        return int(found[1]) << 10

    def growth(self) -> int:
        return self.peak() - self.before


@implementer(IPushProducer)
class Producer:
    """Write all messages at the pace of the consumer."""

    def __init__(self, ws: Measured) -> None:
        self.ws = ws
        self.pauses = 0

    def resumeProducing(self) -> None:
        pauses = self.pauses
        while self.ws.done < COUNT and self.pauses == pauses:
            self.ws.write(message(self.ws.done))
            self.ws.done += 1
        if self.ws.done == COUNT:
            self.ws.unregisterProducer()
            self.ws.close()

    def pauseProducing(self) -> None:
        if not self.pauses:
            print("full", flush=True)
        self.pauses += 1

    def stopProducing(self) -> None:
        self.pauseProducing()


class Measured(WebSocketProtocol):
    done = 0
    stopped_by = ""

    def opened(self) -> object:
        self.meter = Meter()
        return getattr(self, sys.argv[1])()

    def produce(self) -> None:
        producer = Producer(self)
        self.registerProducer(producer, True)
        producer.resumeProducing()

    def send_all(self) -> None:
        try:
            while self.done < COUNT:
                self.send(message(self.done))
                self.done += 1
        except (BufferFull, ConnectionClosed) as error:
            self.stopped_by = type(error).__name__
        print("full", flush=True)
        self.close()

    async def take(self) -> None:
        async for received in self:
            assert received == message(self.done)
            if not self.done:
                await deferLater(reactor, SLEEP)
            self.done += 1

    def closed(self, reason: CloseReason) -> None:
        growth = self.meter.growth()
        print(json.dumps({"growth": growth, "done": self.done, "stopped_by": self.stopped_by}), flush=True)
        reactor.stop()


def main() -> None:
    factory = WebSocketServerFactory(Measured, limits=Limits(**json.loads(sys.argv[2])))
    listening = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
    listening.addCallback(lambda port: print(port.getHost().port, flush=True))
    reactor.run()


if __name__ == "__main__":
    main()
