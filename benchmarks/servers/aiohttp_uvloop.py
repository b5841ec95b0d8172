"""aiohttp on uvloop."""

from __future__ import annotations

import sys
from typing import Any

import serving
from aiohttp import ClientSession, WSMsgType, set_zlib_backend, web
from isal import isal_zlib

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


# aiohttp always compresses at the fastest level: 1, or 0 with ISA-L.
modes = dict.fromkeys(("echo", "deflate", "deflate-1", "deflate-isal", "handshake", "client"), echo) | {
    "fanout": fan_out
}
handler: Any = serving.choose(modes)
if sys.argv[1] == "deflate-isal":
    set_zlib_backend(isal_zlib)


async def start() -> int:
    application = web.Application()
    application.router.add_get("/", handler)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    tls = serving.tls_context()
    await web.TCPSite(runner, serving.HOST, 0, backlog=serving.BACKLOG, ssl_context=tls).start()
    return runner.addresses[0][1]


async def connect() -> None:
    async with ClientSession() as session, session.ws_connect(f"ws://{serving.HOST}:{serving.PORT}/") as connection:
        async for message in connection:
            if message.type is WSMsgType.TEXT:
                await connection.send_str(message.data)
            else:
                await connection.send_bytes(message.data)


serving.run_uvloop(start, connect)
