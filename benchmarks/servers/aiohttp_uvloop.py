"""aiohttp on uvloop."""

from __future__ import annotations

from typing import Any

import serving
from aiohttp import WSMsgType, web

connections: list[web.WebSocketResponse] = []


async def echo(request: web.Request) -> web.WebSocketResponse:
    connection = web.WebSocketResponse()
    await connection.prepare(request)
    async for message in connection:
        if message.type is WSMsgType.TEXT:
            await connection.send_str(message.data)
        else:
            await connection.send_bytes(message.data)
    return connection


async def fan_out(request: web.Request) -> web.WebSocketResponse:
    connection = web.WebSocketResponse()
    await connection.prepare(request)
    connections.append(connection)
    async for message in connection:
        for receiver in connections:
            await receiver.send_str(message.data)
    return connection


handler: Any = serving.choose({"echo": echo, "deflate": echo, "handshake": echo, "fanout": fan_out})


async def start() -> int:
    application = web.Application()
    application.router.add_get("/", handler)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, serving.HOST, 0, backlog=serving.BACKLOG).start()
    return runner.addresses[0][1]


serving.run_uvloop(start)
