"""An echo server, a protocol class: ``python echo.py [--listen tcp:9000]``.

Every message comes back as it went, up to 64 MiB.
"""

from __future__ import annotations

import argparse
import sys

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import react
from twisted.logger import globalLogBeginner, textFileLogObserver

from twisted_beastws import Limits, WebSocketProtocol, WebSocketServerFactory


class Echo(WebSocketProtocol):
    def text_received(self, text: str) -> None:
        self.send(text)

    def binary_received(self, data: bytes) -> None:
        self.send(data)


async def main(reactor: object, listen: str) -> None:
    factory = WebSocketServerFactory(Echo, limits=Limits(max_message_size=64 << 20, max_buffered=128 << 20))
    port: IListeningPort = await serverFromString(reactor, listen).listen(factory)
    print("listening on", port.getHost(), flush=True)
    await Deferred()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", default="tcp:9000", help="an endpoint string (default: %(default)s)")
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    react(lambda reactor: Deferred.fromCoroutine(main(reactor, parser.parse_args().listen)))
