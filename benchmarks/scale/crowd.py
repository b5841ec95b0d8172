"""A process of clients: it opens WebSockets to the chat, answers pings, counts messages, and sends some.

Orders come as lines of JSON on the standard input; each gets a line as its answer. The source addresses are many: one
has ports for 28,000 connections only.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.attacks.clients import PING, PONG
from benchmarks.frames import TEXT, frame

PER_ADDRESS = 100
"""Connections from one source address."""

AT_ONCE = 50
"""Handshakes in progress."""

MARK = b"sent at "


class Crowd:
    """The clients of this process."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.members: list[Member] = []
        self.received = 0
        self.lost = 0
        self.delays: list[int] = []

    async def open(self, first: int, count: int, room: str, rooms: int) -> dict[str, Any]:
        """Open connections number ``first`` and so on; they go to the rooms in turn."""
        numbers = iter(range(first, first + count))
        await asyncio.gather(*(self._open_some(numbers, room, rooms) for _ in range(AT_ONCE)))
        return {"open": len(self.members)}

    async def _open_some(self, numbers: Iterator[int], room: str, rooms: int) -> None:
        loop = asyncio.get_running_loop()
        for number in numbers:
            block = number // PER_ADDRESS
            address = f"127.0.{1 + block // 250}.{1 + block % 250}"
            target = f"/chat/{room}{number % rooms}"
            _, member = await loop.create_connection(
                lambda target=target: Member(self, target), "127.0.0.1", self.port, local_addr=(address, 0)
            )
            await asyncio.wait_for(member.opened, 120)
            self.members.append(member)

    async def talk(self, rate: float, seconds: float) -> dict[str, Any]:
        """Send messages, so many a second together, from one member after the other."""
        start, sent, total = time.monotonic(), 0, int(rate * seconds)
        message = frame(TEXT, json.dumps({"type": "message", "text": "hello, this is a chat " * 4}).encode())
        while sent < total:
            due = min(total, int((time.monotonic() - start) * rate))
            while sent < due:
                self.members[sent % len(self.members)].send(message)
                sent += 1
            await asyncio.sleep(0.01)
        await asyncio.sleep(1)
        return {"sent": sent, "seconds": time.monotonic() - start}

    async def count(self) -> dict[str, Any]:
        """Return the messages received and the connections lost so far."""
        return {"received": self.received, "lost": self.lost}

    async def take_delays(self) -> dict[str, Any]:
        """Return the microseconds from the sending of each marked message to its arrival, and forget them."""
        delays, self.delays = self.delays, []
        return {"delays": delays}

    async def close(self) -> dict[str, Any]:
        """Drop all connections."""
        members, self.members = self.members, []
        for member in members:
            member.drop()
        await asyncio.sleep(0.5)
        return {}


class Member(asyncio.Protocol):
    """One client."""

    __slots__ = ("_buffer", "_crowd", "_is_open", "_target", "_transport", "opened")

    def __init__(self, crowd: Crowd, target: str) -> None:
        self._crowd = crowd
        self._target = target
        self._buffer = b""
        self._transport: Any = None
        self._is_open = False
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(
            f"GET {self._target} HTTP/1.1\r\nHost: 127.0.0.1:{self._crowd.port}\r\nConnection: Upgrade\r\n"
            "Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Protocol: chat.v1+json\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data
        if not self._is_open:
            head, end, buffer = buffer.partition(b"\r\n\r\n")
            if not end:
                self._buffer = head
                return
            if not head.startswith(b"HTTP/1.1 101 "):
                self.opened.set_exception(ConnectionError(head.decode("latin-1")))
                return
            self.opened.set_result(None)
            self._is_open = True
        while len(buffer) >= 2:
            # A server's frames are not masked, and the chat's are small.
            size, start = buffer[1], 2
            if size == 126:
                size, start = int.from_bytes(buffer[2:4], "big"), 4
            if len(buffer) < start + size:
                break
            self._frame(buffer[0] & 15, buffer[start : start + size])
            buffer = buffer[start + size :]
        self._buffer = buffer

    def _frame(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self.send(frame(PONG, payload))
        elif opcode == TEXT:
            self._crowd.received += b'"message"' in payload
            at = payload.find(MARK)
            if at >= 0:
                sent = int(payload[at + len(MARK) :].split(b'"', 1)[0])
                self._crowd.delays.append((time.monotonic_ns() - sent) // 1000)

    def send(self, data: bytes) -> None:
        """Write a frame."""
        self._transport.write(data)

    def drop(self) -> None:
        """Drop the connection."""
        self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(error or ConnectionError("closed"))
        self._crowd.lost += 1


async def main(port: int) -> None:
    """Obey the orders until the standard input ends."""
    crowd, loop = Crowd(port), asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        answer = await getattr(crowd, order.pop("do"))(**order)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(int(sys.argv[1])))
