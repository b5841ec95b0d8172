"""The clients of an attack: the honest ones, which measure and answer pings, and the attacker's functions."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.frames import FIN, TEXT, frame, read_message

HOST = "127.0.0.1"
PING, PONG = 9, 10
PAUSE = 0.01
"""Seconds between a witness's questions."""


def connect(port: int, target: str, patience: float, subprotocol: str | None = None) -> socket.socket:
    """Open a WebSocket, and return its blocking socket; each step may take ``patience`` seconds."""
    connection = socket.create_connection((HOST, port), patience)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    fields = [
        f"GET {target} HTTP/1.1",
        f"Host: {HOST}:{port}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    ]
    if subprotocol is not None:
        fields.append(f"Sec-WebSocket-Protocol: {subprotocol}")
    connection.sendall("\r\n".join([*fields, "", ""]).encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        # The server may send a frame at once: read nothing after the head.
        part = connection.recv(1)
        if not part:
            raise ConnectionError(f"no handshake: {head!r}")
        head += part
    if not head.startswith(b"HTTP/1.1 101 "):
        raise ConnectionError(f"no handshake: {head!r}")
    return connection


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process's main thread, which does not depend on the load of the machine."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9


def echo(connection: socket.socket) -> None:
    """Ask an echo handler one question, and wait for its answer."""
    connection.sendall(frame(TEXT, b"witness"))
    payload = None
    while payload != b"witness":
        payload, _ = read_message(connection)


@dataclass(frozen=True)
class Testimony:
    """A witness's result: its longest wait, in seconds and in the server's CPU seconds, and why it stopped early."""

    answers: int
    worst: float
    worst_cpu: float
    failure: str | None


class Witness:
    """An honest client in its own process, which asks a question every `PAUSE` seconds.

    ``ask`` sends one question and returns when the answer has come.
    """

    def __init__(self, connection: socket.socket, pid: int, ask: Callable[[socket.socket], None] = echo) -> None:
        context = get_context("fork")
        ours, theirs = context.Pipe()
        self._pipe: Any = ours
        self._process = context.Process(target=_testify, args=(connection, pid, ask, theirs), daemon=True)
        self._process.start()
        theirs.close()
        connection.close()
        # The attack begins after the witness has received its first answer.
        self._pipe.recv()

    def stop(self) -> Testimony:
        """Stop asking, and return the result."""
        self._pipe.send(None)
        testimony: Testimony = self._pipe.recv()
        self._process.join()
        return testimony


def _testify(connection: socket.socket, pid: int, ask: Callable[[socket.socket], None], pipe: Connection) -> None:
    answers, worst, worst_cpu, failure = 0, 0.0, 0.0, None
    while not (answers and pipe.poll(PAUSE)) and failure is None:
        began, cpu = time.monotonic(), cpu_seconds(pid)
        try:
            ask(connection)
            answers += 1
            if answers == 1:
                pipe.send(None)
        except OSError as error:
            failure = repr(error)
        worst = max(worst, time.monotonic() - began)
        worst_cpu = max(worst_cpu, cpu_seconds(pid) - cpu)
    if not answers:
        pipe.send(None)
    pipe.send(Testimony(answers, worst, worst_cpu, failure))


class Readers:
    """Honest clients that only read and answer pings, in a thread.

    closed: the number of clients that the server closed. last_bytes: the last bytes that it sent to one of them.
    """

    def __init__(self, connections: list[socket.socket]) -> None:
        self.received = 0
        self.closed = 0
        self.last_bytes = b""
        self._stopped = False
        self._connections = {each.fileno(): each for each in connections}
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close the connections."""
        self._stopped = True
        self._thread.join()
        for connection in self._connections.values():
            connection.close()

    def _read(self) -> None:
        epoll = select.epoll()
        for fd in self._connections:
            epoll.register(fd, select.EPOLLIN)
        pong = frame(PONG, b"")
        while not self._stopped:
            for fd, _ in epoll.poll(0.1):
                data = b""
                with suppress(OSError):
                    data = os.read(fd, 1 << 18)
                self.received += len(data)
                if not data:
                    self.closed += 1
                    epoll.unregister(fd)
                elif bytes((FIN | PING, 0)) in data:
                    with suppress(OSError):
                        os.write(fd, pong)
                self.last_bytes = data or self.last_bytes
        epoll.close()


def flood(connection: socket.socket, chunk: bytes, chunks: int, patience: float) -> None:
    """Send ``chunk`` ``chunks`` times, and read the answers until the server has handled all of them.

    Raises:
        TimeoutError: The server has not handled the flood within ``patience`` seconds.
        ConnectionError: The server closed the connection.
    """
    # The server answers a ping after it has handled all data before the ping.
    rest = memoryview(chunk * chunks + frame(PING, b"handled"))
    answer = bytes((FIN | PONG, 7)) + b"handled"
    tail = b""
    until = time.monotonic() + patience
    connection.setblocking(False)
    polled = select.poll()
    while answer not in tail:
        if time.monotonic() > until:
            raise TimeoutError(f"the server has not handled the flood in {patience:g} s")
        polled.register(connection, select.POLLIN | (select.POLLOUT if rest else 0))
        polled.poll(100)
        with suppress(BlockingIOError):
            rest = rest[connection.send(rest) :] if rest else rest
        with suppress(BlockingIOError):
            data = connection.recv(1 << 18)
            if not data:
                raise ConnectionError(f"the server ended the attacker's connection: {tail!r}")
            tail = tail[-len(answer) :] + data
