"""ASGI applications in several frameworks, a port each: ``python applications.py`` prints the ports by name."""

from __future__ import annotations

from twisted.internet import asyncioreactor

asyncioreactor.install()

import asyncio  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
from collections.abc import AsyncIterator  # noqa: E402
from contextlib import asynccontextmanager  # noqa: E402
from typing import Any  # noqa: E402

import socketio  # noqa: E402
from fastapi import Depends, FastAPI, WebSocket, WebSocketDisconnect, WebSocketException  # noqa: E402
from quart import Quart, websocket  # noqa: E402
from starlette.applications import Starlette  # noqa: E402
from starlette.endpoints import WebSocketEndpoint  # noqa: E402
from starlette.routing import WebSocketRoute  # noqa: E402
from twisted.internet.defer import Deferred  # noqa: E402
from twisted.internet.endpoints import TCP4ServerEndpoint  # noqa: E402
from twisted.internet.task import react  # noqa: E402
from twisted.logger import globalLogBeginner, textFileLogObserver  # noqa: E402

from twisted_beastws import ASGIFactory  # noqa: E402


class Endpoint(WebSocketEndpoint):
    encoding = "json"

    async def on_connect(self, websocket: Any) -> None:
        await websocket.accept(subprotocol=websocket.scope["subprotocols"][0])

    async def on_receive(self, websocket: Any, data: Any) -> None:
        await websocket.send_json({"state": websocket.state.started, "data": data})


@asynccontextmanager
async def lifespan(application: Any) -> AsyncIterator[dict[str, Any]]:
    await asyncio.sleep(0)
    yield {"started": "yes"}
    print("starlette has shut down", flush=True)


starlette = Starlette(routes=[WebSocketRoute("/socket", Endpoint)], lifespan=lifespan)

fastapi = FastAPI()


def in_a_thread(token: str) -> str:
    """Check the token; FastAPI runs this synchronous dependency in a thread."""
    if token == "bad":
        raise WebSocketException(code=1008)
    return token.upper()


@fastapi.websocket("/items/{item}")
async def items(websocket: WebSocket, item: int, token: str = Depends(in_a_thread)) -> None:
    await websocket.accept(headers=[(b"x-item", str(item).encode())])
    try:
        while True:
            data = await websocket.receive_text()
            if data == "fail":
                raise KeyError(data)
            await websocket.send_text(f"{item} {token} {data}")
    except WebSocketDisconnect as gone:
        print("fastapi saw", gone.code, flush=True)


quart = Quart("applications")


@quart.websocket("/echo")
async def echo() -> None:
    while True:
        received: Any = await websocket.receive()
        await websocket.send("quart " + received)


server = socketio.AsyncServer(async_mode="asgi", cors_allowed_origins=[])
sockets = socketio.ASGIApp(server)


@server.event
async def ask(sid: str, data: Any) -> None:
    await server.enter_room(sid, "room")
    await server.emit("answer", {"to": data}, room="room")


async def main(reactor: Any) -> None:
    ports = {}
    applications: tuple[Any, ...] = (starlette, fastapi, quart, sockets)
    factories = [ASGIFactory(application) for application in applications]
    for name, factory in zip(("starlette", "fastapi", "quart", "socketio"), factories, strict=True):
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        ports[name] = port.getHost().port
        reactor.addSystemEventTrigger("before", "shutdown", factory.drain)
    print(json.dumps(ports), flush=True)
    await Deferred()


if __name__ == "__main__":
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    react(main)
