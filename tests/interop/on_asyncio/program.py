"""A program with asyncio Tasks, handlers and aiohttp's client: ``python program.py asyncio`` or ``uvloop``."""

from __future__ import annotations

import asyncio
import sys

if sys.argv[1] == "uvloop":
    from twisted_beastws.uvreactor import install
else:
    from twisted.internet.asyncioreactor import install
install()

from typing import Any  # noqa: E402

import aiohttp  # noqa: E402
from aiohttp import web  # noqa: E402
from steps import serving, talk  # noqa: E402
from twisted.internet import reactor  # noqa: E402
from twisted.internet.defer import Deferred  # noqa: E402
from twisted.internet.task import deferLater  # noqa: E402

from twisted_beastws import WebSocketProtocol, connect  # noqa: E402


async def page(request: web.Request) -> web.Response:
    return web.Response(text="page of " + request.query["name"])


async def fetches(ws: WebSocketProtocol) -> None:
    """Fetch a page with aiohttp for each name that the client sends."""
    async with aiohttp.ClientSession() as session:
        async for message in ws:
            assert isinstance(message, str)
            await deferLater(reactor, 0, str)
            async with asyncio.timeout(30), session.get(message) as response:
                ws.send(await response.text())


async def a_task_fetches_through_a_handler() -> None:
    application = web.Application()
    application.router.add_get("/", page)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    async with serving(fetches) as url:
        ws = await connect(url)
        for name in ("a", "b"):
            ws.send(f"http://{host}:{port}/?name={name}")
            assert await ws.receive() == f"page of {name}"
        await ws.close()
    await runner.cleanup()


async def tasks_in_a_group_talk() -> None:
    async with serving() as url, asyncio.timeout(60), asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(talk(url))


async def a_timeout_ends_a_receive_and_loses_nothing() -> None:
    async with serving() as url:
        ws = await connect(url)
        for text in ("a", "b"):
            try:
                async with asyncio.timeout(0.01):
                    await ws.receive()
            except TimeoutError:
                ws.send(text)
            assert await ws.receive() == text
        await ws.close()


async def a_deferred_and_a_task_talk_at_once() -> None:
    async with serving() as url:
        await asyncio.gather(talk(url), Deferred.fromCoroutine(talk(url)).asFuture(asyncio.get_running_loop()))


async def main() -> None:
    await a_task_fetches_through_a_handler()
    await a_deferred_and_a_task_talk_at_once()
    await tasks_in_a_group_talk()
    await a_timeout_ends_a_receive_and_loses_nothing()
    print("done", type(reactor).__name__)


def start() -> None:
    task: Any = asyncio.ensure_future(main())
    task.add_done_callback(lambda _: reactor.stop())


reactor.callWhenRunning(start)
reactor.run()
