"""pytest-twisted: ``pytest --reactor asyncio pytest_twisted_case.py``."""

from __future__ import annotations

import asyncio
from typing import Any

from pytest_twisted import ensureDeferred, inlineCallbacks
from steps import handler
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint

from twisted_beastws import WebSocketServerFactory, connect


@ensureDeferred
async def test_a_coroutine_talks_to_a_handler_that_awaits_asyncio() -> None:
    assert asyncio.get_running_loop()
    factory = WebSocketServerFactory(handler)
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
    url = f"ws://127.0.0.1:{port.getHost().port}/"
    ws = await connect(url)
    ws.send("a")
    ws.send("b")
    ws.send("bye")
    await ws.drain()
    assert await ws.receive() == "a"
    assert [message async for message in ws] == ["b"]
    assert (await ws.close()).code == 1000
    async with connect(url) as ws:
        ws.send("b")
        assert await ws.receive() == "b"
    await port.stopListening()


@inlineCallbacks
def test_a_generator_talks() -> Any:
    factory = WebSocketServerFactory(handler)
    port = yield TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
    ws = yield connect(f"ws://127.0.0.1:{port.getHost().port}/")
    ws.send("a")
    message = yield ws.receive()
    assert message == "a"
    yield ws.close()
    yield port.stopListening()
