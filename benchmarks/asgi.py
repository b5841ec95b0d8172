"""The cost of ASGI servers: ``python -m benchmarks.asgi``, with uvicorn, hypercorn and daphne installed.

It measures the CPU time of each server for an echoed text of 64 bytes, with 16 connections that have one message in
flight each: in a bare ASGI application, and in a Channels consumer. The servers take turns on one core, each in a new
process, and the load runs on the other cores. The cheapest round counts.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.attacks.clients import PONG
from benchmarks.frames import TEXT, frame
from benchmarks.process import cpu_seconds

APPLICATIONS = """
import django
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings

settings.configure(SECRET_KEY="only a benchmark")
django.setup()


async def echo(scope, receive, send):
    if scope["type"] != "websocket":
        raise NotImplementedError
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event["text"]})


class Consumer(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data=text_data)


consumer = Consumer.as_asgi()
"""

BIN = Path(sys.executable).parent
SERVERS = {
    "beastws, uvloop": "twistd --reactor beastws-uvloop -n --pidfile= beastws --listen tcp:{port}:interface=127.0.0.1 "
    "--app asgi:applications:{name}",
    "beastws, asyncio": "twistd --reactor asyncio -n --pidfile= beastws --listen tcp:{port}:interface=127.0.0.1 "
    "--app asgi:applications:{name}",
    "uvicorn, uvloop": "uvicorn --loop uvloop --log-level warning --port {port} applications:{name}",
    "uvicorn, asyncio": "uvicorn --loop asyncio --log-level warning --port {port} applications:{name}",
    "hypercorn, uvloop": "hypercorn -k uvloop -b 127.0.0.1:{port} applications:{name}",
    "daphne, asyncio": "daphne -v 0 -p {port} applications:{name}",
}
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
PAYLOAD = b"x" * 64
FRAME, ANSWER = frame(TEXT, PAYLOAD), frame(TEXT, PAYLOAD, masked=False)
HEAD = 2
"""Bytes of a short frame's head from a server."""
CONNECTIONS = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000, help="messages in a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: %(default)s)")
    parser.add_argument("--servers", nargs="+", choices=SERVERS, default=list(SERVERS), help="default: all")
    options = parser.parse_args()
    *load_cores, server_core = sorted(os.sched_getaffinity(0))
    if not load_cores:
        sys.exit("two cores are needed: one for the server, and one for the load")
    os.sched_setaffinity(0, load_cores)
    costs: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "applications.py").write_text(APPLICATIONS)
        for _ in range(options.rounds):
            for application in ("echo", "consumer"):
                for server in options.servers:
                    cost = measure(server, application, directory, options.messages, server_core)
                    costs.setdefault((server, application), []).append(cost)
    print("| server | ASGI echo | Channels consumer |\n|---|---|---|")
    for server in options.servers:
        print(f"| {server} | {min(costs[server, 'echo']):.1f} µs | {min(costs[server, 'consumer']):.1f} µs |")


def measure(server: str, application: str, directory: str, messages: int, core: int) -> float:
    """Return the microseconds of CPU time that the server takes for a message."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    program, *arguments = SERVERS[server].format(port=port, name=application).split()
    environment = {**os.environ, "PYTHONPATH": directory}
    with open(Path(directory) / "log", "ab") as log:
        process = subprocess.Popen(
            [str(BIN / program), *arguments], cwd=directory, env=environment, stdout=log, stderr=log
        )
    # Threads and children that the server starts later run there, too.
    os.sched_setaffinity(process.pid, {core})
    try:
        clients = [connect(port) for _ in range(CONNECTIONS)]
        exchange(clients, messages // 4)
        before = cpu_of(process.pid)
        exchange(clients, messages)
        return (cpu_of(process.pid) - before) / messages * 1e6
    finally:
        process.kill()
        process.wait()


def connect(port: int) -> socket.socket:
    deadline = time.monotonic() + 120
    while True:
        try:
            client = socket.create_connection(("127.0.0.1", port), 10)
            break
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    client.sendall(HANDSHAKE)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += client.recv(1)
    assert head.startswith(b"HTTP/1.1 101 "), head
    return client


def exchange(clients: list[socket.socket], messages: int) -> None:
    for _ in range(messages // len(clients)):
        for client in clients:
            client.sendall(FRAME)
        for client in clients:
            head = client.recv(HEAD, socket.MSG_WAITALL)
            # Some servers ping after 20 s, which is less than a round on a busy machine.
            while head[0] == 0x89:
                payload = client.recv(head[1], socket.MSG_WAITALL) if head[1] else b""
                client.sendall(frame(PONG, payload))
                head = client.recv(HEAD, socket.MSG_WAITALL)
            answer = head + client.recv(len(ANSWER) - HEAD, socket.MSG_WAITALL)
            assert answer == ANSWER, answer


def cpu_of(pid: int) -> float:
    """Return the CPU seconds of a process and its children."""
    family = [pid]
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(") ")[2].split()[1]) == pid:
                family.append(int(stat.parent.name))
        except OSError:
            continue
    return cpu_seconds(*family)


if __name__ == "__main__":
    main()
