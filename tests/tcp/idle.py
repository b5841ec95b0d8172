"""The memory that an idle connection takes in a server, as Python's own allocations.

``python idle.py default`` or ``python idle.py uvloop`` starts a server and prints its port. The answer to a request for
``/allocated`` is the number of bytes that are allocated at that time. `measure` runs it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from typing import Any

FIRST = 100
"""Connections before the measurement, so that everything that is created once does not count."""
NUMBER = 300
PATIENCE = 60.0
"""Seconds until a socket operation counts as failed."""
UPGRADE = (
    b"Host: 127.0.0.1:8000\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def measure(reactor: str) -> float:
    """Return the bytes that one idle connection takes on ``reactor``: ``default`` or ``uvloop``."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with ExitStack() as stack:
        server = subprocess.Popen(
            [sys.executable, __file__, reactor], stdout=subprocess.PIPE, env=environment, text=True
        )
        stack.callback(server.wait)
        stack.callback(server.kill)
        assert server.stdout is not None
        port = int(server.stdout.readline())

        def ask(request: bytes) -> bytes:
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE))
            connection.sendall(request)
            return connection.recv(1000)

        def allocated() -> int:
            return int(ask(b"GET /allocated HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").split()[-1])

        def open_connections(number: int) -> None:
            for _ in range(number):
                assert ask(b"GET / HTTP/1.1\r\n" + UPGRADE).startswith(b"HTTP/1.1 101 ")

        open_connections(FIRST)
        # The connection that asks stays open, too.
        allocated()
        before = allocated()
        open_connections(NUMBER)
        return (allocated() - before) / (NUMBER + 1)


def serve(reactor_name: str) -> None:
    """Run the server."""
    if reactor_name == "uvloop":
        from twisted_beastws.uvreactor import install
    else:
        # Under pytest --uvloop, a program that installs no reactor gets the other one.
        from twisted.internet.default import install
    install()
    import gc
    import tracemalloc

    from twisted.internet import reactor

    from twisted_beastws import Request, Response, WebSocketProtocol, WebSocketServerFactory

    class Allocating(WebSocketProtocol):
        def http_requested(self, request: Request) -> Response | None:
            if request.target != "/allocated":
                return None
            gc.collect()
            return Response(200, body=str(tracemalloc.get_traced_memory()[0]))

        def text_received(self, text: str) -> None:
            self.send(text)

        def binary_received(self, data: bytes) -> None:
            self.send(data)

    # Deadlines at one time share a set, so the figure would rise with the time that opening the connections takes.
    started = reactor.seconds()
    reactor.seconds = lambda: started  # type: ignore[method-assign]
    tracemalloc.start()
    factory: Any = WebSocketServerFactory(Allocating)
    port: Any = reactor.listenTCP(0, factory, interface="127.0.0.1")
    print(port.getHost().port, flush=True)
    reactor.run()


if __name__ == "__main__":
    serve(sys.argv[1])
