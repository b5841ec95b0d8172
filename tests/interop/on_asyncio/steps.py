"""The steps that all programs of this folder share: a server with a handler that awaits asyncio, and a client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint

from twisted_beastws import CloseReason, WebSocketProtocol, WebSocketServerFactory, connect

CALLER: ContextVar[str] = ContextVar("caller")


async def handler(ws: WebSocketProtocol) -> None:
    """Echo messages until one is ``bye``."""
    async for message in ws:
        if message == "bye":
            return
        await asyncio.sleep(0)
        ws.send(message)
        await ws.drain()


@asynccontextmanager
async def serving(handle: Any = handler) -> AsyncIterator[str]:
    """Serve, and yield the URL. The caller must run as an asyncio Task."""
    factory = WebSocketServerFactory(handle)
    port = (
        await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory).asFuture(asyncio.get_event_loop())
    )
    try:
        yield f"ws://127.0.0.1:{port.getHost().port}/"
    finally:
        port.stopListening()
        await factory.drain()


async def talk(url: str) -> None:
    """Await the client's calls, iterate over its messages, and use it in ``async with``."""
    CALLER.set(url)
    ws = await connect(url)
    ws.send("first")
    assert await ws.receive() == "first"
    ws.send("x" * 200_000)
    await ws.drain()
    assert len(await ws.receive()) == 200_000
    assert await ws.ping() >= 0
    for text in ("second", "third", "bye"):
        ws.send(text)
    assert [message async for message in ws] == ["second", "third"]
    reason: CloseReason = await ws.close()
    assert (reason.code, reason.clean) == (1000, True)
    async with connect(url) as ws:
        ws.send("in a block")
        assert await ws.receive() == "in a block"
    assert ws.close_reason and ws.close_reason.code == 1000
    assert CALLER.get() == url
