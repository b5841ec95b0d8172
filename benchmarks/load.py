"""The load generator: one thread on epoll, which writes prepared frames and counts the bytes of the answers.

It parses no frames: it compares the answer to a first message with that message, and learns the answer's length from
it. Between two polls it makes one read and one write for each window of messages, and lets the kernel discard long
answers. Over TLS it encrypts with the ``ssl`` module, and never resumes a session; it counts the bytes of answers by
the headers of their records, without decrypting them.
"""

from __future__ import annotations

import os
import select
import socket
from contextlib import suppress
from time import perf_counter
from typing import Any

from benchmarks import frames
from benchmarks.secure import Secure, Shaking
from benchmarks.workloads import Workload

HOST = "127.0.0.1"
LONG = 1 << 16
"""Bytes from which the kernel discards an answer, instead of copying it."""
PATIENCE = 10.0
"""Seconds without a byte after which a server counts as stalled."""


class StalledError(Exception):
    """The server did not answer."""


class Load:
    """The base of the loads: the benchmark calls one to warm up, then for the measured time, without a gap.

    secured: reads and writes over TLS.
    """

    secured: type[Secure] | type[Shaking] = Secure

    def __init__(self, port: int, workload: Workload) -> None:
        self.port = port
        self.workload = workload
        self.round_trips: list[float] = []
        self._connections: dict[int, Any] = {}
        self._epoll = select.epoll()
        self._secure: Any = self.secured(self._connections) if workload.secure else None
        # Like os.write.
        self._write: Any = os.write if self._secure is None else self._secure.write

    def drive(self, seconds: float) -> int:
        """Run the load for this many seconds; return the number of completed units of the workload."""
        raise NotImplementedError

    def close(self) -> None:
        """Close every connection."""
        for connection in self._connections.values():
            connection.close()
        self._epoll.close()

    def _poll(self) -> list[tuple[int, int]]:
        events = self._epoll.poll(PATIENCE)
        if not events:
            raise StalledError(f"nothing came in {PATIENCE:g} s")
        return events

    def _connect(self) -> Any:
        connection = socket.create_connection((HOST, self.port), PATIENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._secure is not None:
            connection = self._secure.wrap(connection)
        self._connections[connection.fileno()] = connection
        return connection

    def _open(self) -> Any:
        connection = self._connect()
        if self._secure is not None:
            connection.do_handshake()
        connection.sendall(self._request())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            # A server may send its first frame at once: read nothing beyond the head.
            part = connection.recv(1)
            if not part:
                raise ConnectionError(f"no handshake: {head!r}")
            head += part
        if not head.startswith(b"HTTP/1.1 101 "):
            raise ConnectionError(f"no handshake: {head!r}")
        if self.workload.compressed and b"permessage-deflate" not in head.lower():
            raise ConnectionError(f"no compression: {head!r}")
        return connection

    def _request(self) -> bytes:
        fields = [
            "GET / HTTP/1.1",
            f"Host: {HOST}:{self.port}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version: 13",
        ]
        if self.workload.compressed:
            fields.append(f"Sec-WebSocket-Extensions: {frames.OFFER}")
        return "\r\n".join([*fields, "", ""]).encode()

    def _watch(self, connection: Any) -> None:
        connection.setblocking(False)
        self._epoll.register(connection, select.EPOLLIN)


class Echo(Load):
    """Send a window of messages on each connection; send the next one when the whole window has been echoed.

    masks: a client masks its frames.
    """

    masks = True

    def __init__(self, port: int, workload: Workload) -> None:
        super().__init__(port, workload)
        message = frames.frame(workload.opcode, workload.payload, workload.compressed, self.masks)
        self._window = message * workload.in_flight
        self._unsent: dict[int, memoryview] = {}
        opened = [self._open() for _ in range(workload.connections)]
        self._awaited = self._answer_size(opened[0], message) * workload.in_flight
        self._left = dict.fromkeys(self._connections, self._awaited)
        for connection in opened:
            self._watch(connection)
        self._sent_at = dict.fromkeys(self._connections, perf_counter())
        for fd in self._connections:
            self._send(fd, memoryview(self._window))

    def _answer_size(self, connection: Any, message: bytes) -> int:
        connection.sendall(message)
        payload, size = frames.read_message(connection)
        if payload != self.workload.payload:
            raise ConnectionError("the answer is not what was sent")
        return size

    def drive(self, seconds: float) -> int:
        poll, write = self._poll, self._write
        readv = self._secure.count if self._secure is not None else self._discard if self._awaited > LONG else os.readv
        window, awaited, left, sent_at = self._window, self._awaited, self._left, self._sent_at
        whole = len(window)
        room = [bytearray(min(awaited + 1000, 1 << 18))]
        round_trips: list[float] = []
        now = perf_counter()
        until = now + seconds
        while now < until:
            for fd, event in poll():
                if event & select.EPOLLOUT:
                    self._send(fd, self._unsent.pop(fd))
                    continue
                size = readv(fd, room)
                if not size:
                    if size is None:
                        continue
                    raise ConnectionError("the server ended the connection")
                rest = left[fd] - size
                if rest:
                    left[fd] = rest
                    continue
                left[fd] = awaited
                now = perf_counter()
                round_trips.append(now - sent_at[fd])
                sent_at[fd] = now
                sent = write(fd, window)
                if sent != whole:
                    self._send(fd, memoryview(window)[sent:])
            now = perf_counter()
        self.round_trips = round_trips
        return len(round_trips) * self.workload.in_flight

    def _discard(self, fd: int, room: list[bytearray]) -> int:
        # tcp(7): with MSG_TRUNC the kernel discards the bytes.
        received: int = self._connections[fd].recv_into(room[0], 0, socket.MSG_TRUNC)
        return received

    def _send(self, fd: int, data: memoryview) -> None:
        with suppress(BlockingIOError):
            data = data[self._write(fd, data) :]
        if data:
            self._unsent[fd] = data
        self._epoll.modify(fd, select.EPOLLIN | select.EPOLLOUT if data else select.EPOLLIN)


class FixedServer(Echo):
    """Send messages to clients as `Echo` sends them to a server. It listens before the clients start."""

    masks = False

    def __init__(self, listening: socket.socket, workload: Workload) -> None:
        self._listening = listening
        listening.settimeout(PATIENCE)
        super().__init__(listening.getsockname()[1], workload)

    def _open(self) -> Any:
        connection, _ = self._listening.accept()
        connection.settimeout(PATIENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections[connection.fileno()] = connection
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            part = connection.recv(1)
            if not part:
                raise ConnectionError(f"no handshake: {head!r}")
            head += part
        connection.sendall(frames.answer(head))
        return connection


class FanOut(Load):
    """One connection sends a message, and all of them receive it; ``in_flight`` rounds are always under way."""

    def __init__(self, port: int, workload: Workload) -> None:
        super().__init__(port, workload)
        opened = [self._open() for _ in range(workload.connections)]
        self._speaker = opened[0].fileno()
        self._message = frames.frame(workload.opcode, workload.payload)
        opened[0].sendall(self._message)
        sizes = set()
        for connection in opened:
            payload, size = frames.read_message(connection)
            if payload != workload.payload:
                raise ConnectionError("what came is not what was sent")
            sizes.add(size)
        (self._size,) = sizes
        self._received = 0
        for connection in opened:
            self._watch(connection)
        opened[0].sendall(self._message * workload.in_flight)

    def drive(self, seconds: float) -> int:
        poll, readv, message = self._poll, os.readv, self._message
        room = [bytearray(1 << 12)]
        of_a_round = self._size * self.workload.connections
        received, delivered = self._received, 0
        until = perf_counter() + seconds
        while perf_counter() < until:
            for fd, _ in poll():
                size = readv(fd, room)
                if not size:
                    raise ConnectionError("the server ended the connection")
                received += size
                if received >= of_a_round:
                    received -= of_a_round
                    delivered += self.workload.connections
                    self._write(self._speaker, message)
        self._received = received
        return delivered


class Handshakes(Load):
    """Connect, upgrade, do the closing handshake, and wait until the server closes TCP, on many connections at once."""

    secured = Shaking

    def __init__(self, port: int, workload: Workload) -> None:
        super().__init__(port, workload)
        # Like os.readv; over TLS it returns None if only TLS's own messages have arrived.
        self._readv: Any = os.readv if self._secure is None else self._secure.readv
        self._heads: dict[int, bytes] = {}
        self._opening = self._request()
        for _ in range(workload.connections):
            self._begin()

    def _begin(self) -> None:
        connection = self._connect()
        self._watch(connection)
        fd = connection.fileno()
        self._heads[fd] = b""
        self._ask(fd)

    def _ask(self, fd: int) -> None:
        if self._secure is None or self._secure.shake(fd):
            self._write(fd, self._opening)

    def drive(self, seconds: float) -> int:
        done = 0
        room = bytearray(1 << 12)
        shaking = () if self._secure is None else self._secure.unfinished
        until = perf_counter() + seconds
        while perf_counter() < until:
            for fd, _ in self._poll():
                if fd in shaking:
                    self._ask(fd)
                    continue
                size = self._readv(fd, [room])
                if size is None:
                    continue
                if not size:
                    if fd in self._heads:
                        raise ConnectionError("the server ended the connection in the handshake")
                    self._connections.pop(fd).close()
                    self._begin()
                    done += 1
                elif fd in self._heads:
                    self._read_head(fd, bytes(room[:size]))
        return done

    def _read_head(self, fd: int, data: bytes) -> None:
        head = self._heads[fd] + data
        self._heads[fd] = head
        if b"\r\n\r\n" in head:
            if not head.startswith(b"HTTP/1.1 101 "):
                raise ConnectionError(f"no handshake: {head!r}")
            del self._heads[fd]
            self._write(fd, frames.CLOSE)


class Idle(Load):
    """Connections that send nothing."""

    def open(self, number: int) -> None:
        """Open more connections, this many."""
        for _ in range(number):
            self._open()
