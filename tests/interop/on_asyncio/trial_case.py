"""trial, on an asyncio reactor and on Twisted's default: ``trial --reactor asyncio trial_case``."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.trial.unittest import TestCase

from twisted_beastws import WebSocketProtocol, WebSocketServerFactory, connect


async def echo(ws: WebSocketProtocol) -> None:
    async for message in ws:
        ws.send(message)


class Talks(TestCase):
    async def setUp(self) -> None:  # type: ignore[override]
        self.factory = WebSocketServerFactory(echo)
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(self.factory)
        self.addCleanup(self.factory.drain)
        self.addCleanup(port.stopListening)
        self.url = f"ws://127.0.0.1:{port.getHost().port}/"

    async def test_a_coroutine_talks(self) -> None:
        ws = await connect(self.url)
        ws.send("a")
        self.assertEqual(await ws.receive(), "a")
        await ws.drain()
        self.assertEqual((await ws.close()).code, 1000)
        async with connect(self.url) as ws:
            ws.send("b")
            self.assertEqual(await ws.receive(), "b")

    @inlineCallbacks
    def test_a_generator_talks(self) -> Any:
        ws = yield connect(self.url)
        ws.send("a")
        message = yield ws.receive()
        self.assertEqual(message, "a")
        yield ws.drain()
        reason = yield ws.close()
        self.assertEqual(reason.code, 1000)

    def test_callbacks_can_talk(self) -> Deferred[Any]:
        def opened(ws: WebSocketProtocol) -> Deferred[Any]:
            ws.send("a")
            return ws.receive().addCallback(self.assertEqual, "a").addCallback(lambda _: ws.close())

        return connect(self.url).addCallback(opened)
