"""websockets on uvloop."""

from __future__ import annotations

from typing import Any

import serving
from websockets.asyncio.client import connect as open_connection
from websockets.asyncio.server import broadcast, serve
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

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


fastest = [ServerPerMessageDeflateFactory(compress_settings={"level": 1, "memLevel": 5})]
handler, extensions = serving.choose(
    {
        "echo": (echo, None),
        "deflate": (echo, None),
        "deflate-1": (echo, fastest),
        "handshake": (echo, None),
        "client": (echo, None),
        "fanout": (fan_out, None),
        "prepared": (prepared, None),
    }
)


async def start() -> int:
    tls = serving.tls_context()
    server = await serve(handler, serving.HOST, 0, backlog=serving.BACKLOG, extensions=extensions, ssl=tls)
    return server.sockets[0].getsockname()[1]


async def connect() -> None:
    async with open_connection(f"ws://{serving.HOST}:{serving.PORT}/", compression=None) as connection:
        await echo(connection)


serving.run_uvloop(start, connect)
