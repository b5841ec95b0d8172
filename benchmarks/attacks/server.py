"""The server that is attacked: ``python -m benchmarks.attacks.server``. It prints the port that it listens on.

``/echo`` sends each text back. ``/room`` sends each text to all connections of ``/room``.
"""

from __future__ import annotations

import argparse
import signal
import sys


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attacks.server", description=__doc__)
    parser.add_argument("--uvloop", action="store_true", help="run on twisted_beastws.uvreactor")
    parser.add_argument("--idle", type=float, default=300.0, help="Timeouts.idle in seconds; default: %(default)g")
    parser.add_argument("--lifetime", type=int, default=300, help="end after so many seconds; default: %(default)s")
    options = parser.parse_args()
    # The kernel ends the server after its lifetime, even if no other process does.
    signal.alarm(options.lifetime)
    if options.uvloop:
        from twisted_beastws.uvreactor import install

        install()

    from twisted.internet import reactor
    from twisted.logger import globalLogBeginner, textFileLogObserver

    from twisted_beastws import Timeouts, WebSocketProtocol, WebSocketServerFactory

    class Target(WebSocketProtocol):
        def text_received(self, text: str) -> None:
            if self.request is None or self.request.target != "/room":
                self.send(text)
                return
            assert self.factory is not None
            for connection in self.factory.connections:
                if connection.request is not None and connection.request.target == "/room":
                    connection.send(text)

    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    timeouts = Timeouts(idle=options.idle, ping_interval=options.idle / 2)
    factory = WebSocketServerFactory(Target, timeouts=timeouts)
    port = reactor.listenTCP(0, factory, backlog=1024, interface="127.0.0.1")  # type: ignore[attr-defined]
    print(port.getHost().port, flush=True)
    reactor.run()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
