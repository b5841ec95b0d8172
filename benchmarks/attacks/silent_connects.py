"""Attack ``twistd beastws`` with silent connections, and check that other clients can still connect.

``python -m benchmarks.attacks.silent_connects --seconds 5 [--uvloop]`` starts ``twistd beastws`` on the loopback
interface, connects from 127.0.0.1 as fast as it can, and keeps the connections open without sending. Meanwhile clients
with a round trip of 50 ms open WebSockets from 127.0.0.2, one after the other. It prints JSON, and exits with status 1
if one of them could not connect.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import selectors
import socket
import struct
import time
from collections import deque
from typing import Any

from benchmarks.attacks.service import service_running

ATTACKER, HONEST = "127.0.0.1", "127.0.0.2"
WAIT = 0.05
"""Seconds: one round trip for the server's SYN-ACK to a client, and its request back."""
HELD = 6000
"""Silent connections that the attacker keeps open: more than the service allows."""
MAX_SECONDS = 60.0
UPGRADE = (
    b"GET /chat HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def attack(port: int, seconds: float, count: Any) -> None:
    """Connect as fast as possible for this many seconds; count the connections in ``count.value``."""
    held: deque[socket.socket] = deque()
    end = time.monotonic() + seconds
    with selectors.DefaultSelector() as connecting:
        while time.monotonic() < end:
            while len(connecting.get_map()) < 64:
                client = socket.socket()
                client.setblocking(False)
                # Close by RST: otherwise each local port would stay in use for a minute.
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.bind((ATTACKER, 0))
                client.connect_ex(("127.0.0.1", port))
                connecting.register(client, selectors.EVENT_WRITE)
            for key, _ in connecting.select(0.1):
                connecting.unregister(key.fileobj)
                held.append(key.fileobj)  # type: ignore[arg-type]
                count.value += 1
            while len(held) > HELD:
                held.popleft().close()


def gets_in(port: int, wait: float) -> bool:
    """Open a WebSocket, with ``wait`` seconds between connection and request; return whether that succeeded."""
    with socket.socket() as client:
        client.settimeout(5.0)
        client.bind((HONEST, 0))
        try:
            client.connect(("127.0.0.1", port))
            time.sleep(wait)
            client.sendall(UPGRADE)
            return client.recv(13) == b"HTTP/1.1 101 "
        except OSError:
            return False


def measure(seconds: float, uvloop: bool, wait: float = WAIT) -> dict[str, float]:
    """Attack a service for this many seconds, and return the figures by their names."""
    with service_running(uvloop) as (port, _):
        count = multiprocessing.Value("L", 0)
        attacking = multiprocessing.Process(target=attack, args=(port, min(seconds, MAX_SECONDS), count))
        attacking.start()
        try:
            while count.value < HELD and attacking.is_alive():
                time.sleep(0.01)
            before, began = count.value, time.monotonic()
            tried = let_in = 0
            while attacking.is_alive():
                tried += 1
                let_in += gets_in(port, wait)
            silent = (count.value - before) / (time.monotonic() - began)
        finally:
            attacking.kill()
            attacking.join()
        return {"silent connects a second": round(silent), "clients": tried, "let in": let_in}


def main() -> None:
    """Run the attack that the command line asks for."""
    parser = argparse.ArgumentParser(description="Connect silently, and see whether another client still gets in.")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--wait", type=float, default=WAIT, help="seconds from a client's connection to its request")
    parser.add_argument("--uvloop", action="store_true")
    options = parser.parse_args()
    measured = measure(options.seconds, options.uvloop, options.wait)
    print(json.dumps(measured))
    raise SystemExit(0 if measured["let in"] == measured["clients"] > 0 else 1)


if __name__ == "__main__":
    main()
