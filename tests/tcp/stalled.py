"""The memory that a connection takes if its peer reads nothing, by the size of the messages sent to it.

``python stalled.py`` prints a table. Each figure is the peak growth of the server's resident memory, from before the
first message until the write buffer reached ``Limits.max_buffered`` and the reactor ran a few more iterations. Each
figure comes from a new server process: memory that one connection freed would hide the growth of the next.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

SIZES = (0, 1, 10, 100, 1000, 10_000)
MAX_BUFFERED = (1 << 18, 1 << 20, 1 << 22)
LIMITS = {"slow_reader": "pause"}
PATIENCE = 60.0
"""Seconds until a socket operation counts as failed."""
PAUSES = 5
"""How many times the server fills the connection again: the system takes more bytes for a while."""
PAUSE = 0.01
SEND_BUFFER = 1 << 16
HEAD = (
    b"GET /chat HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def allowed(max_buffered: int) -> int:
    """Return the bytes of memory that a connection may take."""
    return max_buffered * 3 // 2 + (1 << 16)


def measure(
    reactor: str, secure: bool, sizes: tuple[int, ...] = SIZES, max_buffered: int = MAX_BUFFERED[-1]
) -> dict[int, int]:
    """Return, for each message size, the bytes that a server on ``reactor`` grew by.

    Args:
        reactor: ``default`` or ``uvloop``.
        secure: use TLS.
        sizes: the sizes of the messages; the server gets one connection for each.
        max_buffered: the value for `Limits`.
    """
    limits = {**LIMITS, "max_buffered": max_buffered, "max_message_size": min(max_buffered, 1 << 20)}
    # The first connection also pays for objects that are created once, so its figure is not used.
    sizes = (1000, *sizes)
    arguments = [reactor, "tls" if secure else "plain", json.dumps(limits), *map(str, sizes)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    growth: dict[int, int] = {}
    with ExitStack() as stack:
        server = subprocess.Popen(
            [sys.executable, __file__, *arguments], stdout=subprocess.PIPE, env=environment, text=True
        )
        stack.callback(server.wait)
        stack.callback(server.kill)
        assert server.stdout is not None
        port = int(server.stdout.readline())
        for size in sizes:
            stack.enter_context(_opened(port, secure))
            growth[size] = int(server.stdout.readline())
    return growth


def _opened(port: int, secure: bool) -> socket.socket:
    """Return a connection that has sent its handshake request and reads nothing."""
    connection = socket.socket()
    connection.settimeout(PATIENCE)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
    connection.connect(("127.0.0.1", port))
    if secure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = context.wrap_socket(connection)
    connection.sendall(HEAD)
    return connection


def serve(reactor_name: str, layer: str, limits: str, *sizes: str) -> None:
    """Run the server: print the port, then the memory growth of each connection on a line."""
    root = Path(__file__).parents[1]
    sys.path[:0] = [str(root / "support"), str(root / "tcp")]
    if reactor_name == "uvloop":
        from twisted_beastws.uvreactor import install

        install()
    from certificates import identity
    from measured import Meter
    from twisted.internet import reactor
    from twisted.internet.endpoints import SSL4ServerEndpoint, TCP4ServerEndpoint

    from twisted_beastws import BufferFull, Limits, WebSocketProtocol, WebSocketServerFactory

    waiting = list(map(int, sizes))

    class Stalled(WebSocketProtocol):
        def opened(self) -> None:
            self.content = bytes(waiting.pop(0))
            self.meter = Meter()
            self.fill(PAUSES)

        def fill(self, again: int) -> None:
            try:
                while True:
                    self.send(self.content)
            except BufferFull:
                pass
            if again:
                reactor.callLater(PAUSE, self.fill, again - 1)
            else:
                print(self.meter.growth(), flush=True)

    factory = WebSocketServerFactory(Stalled, limits=Limits(**json.loads(limits)))
    if layer == "tls":
        endpoint: Any = SSL4ServerEndpoint(reactor, 0, identity().options(), interface="127.0.0.1")
    else:
        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")

    def listening(port: Any) -> None:
        # Accepted connections inherit this size. The default buffer would take millions of small writes to fill.
        port.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        print(port.getHost().port, flush=True)

    endpoint.listen(factory).addCallback(listening)
    reactor.run()


def main() -> None:
    print("| `max_buffered`, reactor | " + " | ".join(f"{size} bytes" for size in SIZES) + " | allowed |")
    for max_buffered in MAX_BUFFERED:
        for reactor in ("default", "uvloop"):
            for secure in (False, True):
                costs = [measure(reactor, secure, (size,), max_buffered)[size] for size in SIZES]
                title = f"{max_buffered / (1 << 20):g} MiB, {reactor}, {'TLS' if secure else 'plain'}"
                row = " | ".join(f"{cost / (1 << 20):.2f}" for cost in (*costs, allowed(max_buffered)))
                print(f"| {title} | {row} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:]:
        serve(*sys.argv[1:])
    else:
        main()
