"""An echo server as a protocol class: ``python echo.py [--listen tcp:9000]``.

It sends every message back unchanged, up to 16 MiB in any number of fragments, and compressed if the client can. A
conformance suite's fuzzing client needs such a server.
"""

from __future__ import annotations

import argparse
import sys

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import react
from twisted.logger import globalLogBeginner, textFileLogObserver

from twisted_beastws import Deflate, Limits, Timeouts, WebSocketProtocol, WebSocketServerFactory

LIMITS = Limits(max_message_size=16 << 20)
# A suite reports an unexpected ping as a fault.
TIMEOUTS = Timeouts(ping_interval=None)


class Echo(WebSocketProtocol):
    def text_received(self, text: str) -> None:
        self.send(text)

    def binary_received(self, data: bytes) -> None:
        self.send(data)


async def main(reactor: object, listen: str) -> None:
    factory = WebSocketServerFactory(Echo, limits=LIMITS, timeouts=TIMEOUTS, deflate=Deflate())
    port: IListeningPort = await serverFromString(reactor, listen).listen(factory)
    print("listening on", port.getHost(), flush=True)
    await Deferred()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", default="tcp:9000", help="an endpoint string (default: %(default)s)")
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    react(main, [parser.parse_args().listen])
