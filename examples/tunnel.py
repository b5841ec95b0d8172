"""A tunnel for any TCP service: ``python tunnel.py [--listen ENDPOINT] [--to ENDPOINT]``, once at each end.

A client that connects to one endpoint gets a connection to the other. The endpoint strings alone decide which of
the two speaks WebSocket. To reach the SSH server of a machine with a firewall that passes only HTTP, run there,
and then here:

    python tunnel.py --listen beastws:tcp:9009:target=/ssh --to tcp:localhost:22
    python tunnel.py --listen tcp:2222:interface=127.0.0.1 --to ws:that.machine:9009:target=/ssh

and connect with ``ssh -p 2222 localhost``.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.interfaces import IListeningPort, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import react
from twisted.logger import Logger, globalLogBeginner, textFileLogObserver
from twisted.protocols.portforward import ProxyClientFactory, ProxyServer
from twisted.python.failure import Failure


class Entry(ProxyServer):
    """One connection, and its continuation at the other endpoint. Each half pauses the other when it is too fast."""

    log = Logger()
    factory: Any
    transport: Any

    def connectionMade(self) -> None:
        # Read nothing before the other half is connected.
        self.transport.pauseProducing()
        way_out = ProxyClientFactory()
        way_out.setServer(self)
        self.factory.endpoint.connect(way_out).addErrback(self.not_connected)

    def not_connected(self, failure: Failure) -> None:
        self.log.info("no way out for {peer}: {error}", peer=self.transport.getPeer(), error=failure.value)
        self.transport.abortConnection()


class Tunnel(Factory):
    protocol: Any = Entry

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self.endpoint = endpoint


async def main(reactor: object, listen: str, to: str) -> None:
    tunnel = Tunnel(clientFromString(reactor, to))
    port: IListeningPort = await serverFromString(reactor, listen).listen(tunnel)
    print("listening on", port.getHost(), flush=True)
    await Deferred()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listen", default="beastws:tcp:9009:target=/ssh", help="default: %(default)s")
    parser.add_argument("--to", default="tcp:localhost:22", help="default: %(default)s")
    options = parser.parse_args()
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    react(main, [options.listen, options.to])
