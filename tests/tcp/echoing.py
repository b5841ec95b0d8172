"""A process that echoes messages, and prints how much more memory than before the first each long one took at most.

``python echoing.py server|client default|uvloop SIZE [PORT]``, where SIZE is ``Limits.max_message_size``. The server
prints its port first; the client connects to PORT.
"""

from __future__ import annotations

import sys
from typing import Any


def main(role: str, reactor_name: str, size: str, port: str = "") -> None:
    """Run the process."""
    if reactor_name == "uvloop":
        from twisted_beastws.uvreactor import install

        install()
    from measured import Meter
    from twisted.internet import reactor
    from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
    from twisted.internet.interfaces import IReactorCore

    from twisted_beastws import Limits, WebSocketClientFactory, WebSocketProtocol, WebSocketServerFactory

    running: Any = IReactorCore(reactor)

    class Measured(WebSocketProtocol):
        meter: Meter | None = None

        def text_received(self, text: str) -> Any:
            return self.echo(text)

        def binary_received(self, data: bytes) -> Any:
            return self.echo(data)

        def echo(self, message: str | bytes) -> Any:
            self.send(message)
            if len(message) > 1000:
                return self.report()
            # The code that answers is loaded now. What earlier long messages leave counts as memory of the later ones.
            if self.meter is None:
                self.meter = Meter()
            self.meter.begin()
            return None

        async def report(self) -> None:
            await self.flush()
            assert self.meter is not None
            print(self.meter.growth(), flush=True)

    limits = Limits(max_message_size=int(size))
    if role == "server":
        endpoint = TCP4ServerEndpoint(running, 0, interface="127.0.0.1")
        listening = endpoint.listen(WebSocketServerFactory(Measured, limits=limits))
        listening.addCallback(lambda listening_port: print(listening_port.getHost().port, flush=True))
    else:
        factory = WebSocketClientFactory(Measured, limits=limits)
        connected: Any = TCP4ClientEndpoint(running, "127.0.0.1", int(port)).connect(factory)
        connected.addCallback(lambda ws: ws.handshake("localhost"))
    running.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
