"""websockets on uvloop."""

from __future__ import annotations

from typing import Any

import serving
from websockets.asyncio.server import broadcast, serve

connections: set[Any] = set()


async def echo(connection: Any) -> None:
    async for message in connection:
        await connection.send(message)


async def fan_out(connection: Any) -> None:
    connections.add(connection)
    async for message in connection:
        for receiver in connections:
            await receiver.send(message)


async def prepared(connection: Any) -> None:
    connections.add(connection)
    async for message in connection:
        broadcast(connections, message)


handler = serving.choose({"echo": echo, "deflate": echo, "handshake": echo, "fanout": fan_out, "prepared": prepared})


async def start() -> int:
    server = await serve(handler, serving.HOST, 0, backlog=serving.BACKLOG)
    return server.sockets[0].getsockname()[1]


serving.run_uvloop(start)
