"""A server with metrics for Prometheus.

``python metrics.py [--listen tcp:9012] [--metrics tcp:9013:interface=127.0.0.1]``

It needs the extra ``metrics``. Prometheus scrapes ``http://localhost:9013/metrics``. The metrics have a port of their
own, on the loopback interface, so that no client of the server can read them. The port also has ``/healthz`` and
``/readyz``.
"""

from __future__ import annotations

import argparse
import sys

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IReactorCore
from twisted.internet.task import react
from twisted.logger import globalLogBeginner, textFileLogObserver

from twisted_beastws import AdminPages, Metrics, WebSocketProtocol, WebSocketServerFactory, drain_at_shutdown


class Echo(WebSocketProtocol):
    def text_received(self, text: str) -> None:
        self.send(text)


async def main(reactor: IReactorCore, listen: str, metrics: str) -> None:
    factory = WebSocketServerFactory(Echo)
    admin = WebSocketServerFactory(WebSocketProtocol)
    admin.add_gate(AdminPages(Metrics(factory), ready=lambda: not factory.draining))
    drain_at_shutdown(reactor, factory)
    scraped: IListeningPort = await serverFromString(reactor, metrics).listen(admin)
    port: IListeningPort = await serverFromString(reactor, listen).listen(factory)
    print("metrics on", scraped.getHost(), flush=True)
    print("listening on", port.getHost(), flush=True)
    await Deferred()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", default="tcp:9012", help="an endpoint string (default: %(default)s)")
    parser.add_argument(
        "--metrics", default="tcp:9013:interface=127.0.0.1", help="an endpoint for Prometheus (default: %(default)s)"
    )
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    options = parser.parse_args()
    react(main, [options.listen, options.metrics])
