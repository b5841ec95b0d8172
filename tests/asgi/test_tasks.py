"""An ASGI application that receives in asyncio Tasks of its own, as Channels does: a Task for each message."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import twisted.internet.asyncioreactor  # noqa: F401  The library looks for an asyncio loop once this is imported.
from twisted.internet.task import Clock

from twisted_beastws import ASGIFactory
from twisted_beastws.testing import Frame, ScriptedPeer, scripted_client, upgrade_request

from ..support.patience import PATIENCE

Receive = Callable[[], Coroutine[Any, Any, dict[str, Any]]]


def run_with(conversation: Callable[[Receive, ScriptedPeer[Any]], Coroutine[Any, Any, None]]) -> None:
    """Run an asyncio loop, accept a connection in it, and run the conversation with both of its ends."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        opened, over = loop.create_future(), loop.create_future()

        async def application(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                raise NotImplementedError
            await receive()
            await send({"type": "websocket.accept"})
            opened.set_result(receive)
            await over

        client = scripted_client(ASGIFactory(application, clock=Clock()), opened=False)
        client.send(upgrade_request("/"))
        await conversation(await opened, client)
        over.set_result(None)

    # In a thread: the reactor of the tests may be running a loop in this one.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, asyncio.wait_for(main(), PATIENCE)).result()


async def waiting(receive: Receive) -> asyncio.Task[dict[str, Any]]:
    """Start a task that receives, and return it once it waits."""
    task = asyncio.ensure_future(receive())
    await asyncio.sleep(0)
    assert not task.done()
    return task


async def cancelled(task: asyncio.Task[dict[str, Any]]) -> None:
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


def test_tasks_get_the_messages_in_order() -> None:
    async def conversation(receive: Receive, client: ScriptedPeer[Any]) -> None:
        tasks = [await waiting(receive), await waiting(receive)]
        client.send(Frame.text("a"), Frame.binary(b"b"), Frame.text("c"))
        assert [(await task).get("text") for task in tasks] == ["a", None]
        assert await receive() == {"type": "websocket.receive", "text": "c"}

    run_with(conversation)


def test_a_task_cancelled_before_the_message_leaves_it_to_the_next_one() -> None:
    async def conversation(receive: Receive, client: ScriptedPeer[Any]) -> None:
        await cancelled(await waiting(receive))
        client.send(Frame.text("a"))
        assert await receive() == {"type": "websocket.receive", "text": "a"}

    run_with(conversation)


def test_a_message_that_comes_between_the_cancellation_and_its_effect_is_kept() -> None:
    async def conversation(receive: Receive, client: ScriptedPeer[Any]) -> None:
        task = await waiting(receive)
        task.cancel()
        client.send(Frame.text("a"))
        await asyncio.wait([task])
        assert task.cancelled()
        assert await receive() == {"type": "websocket.receive", "text": "a"}

    run_with(conversation)


def test_a_task_cancelled_after_the_message_gives_it_back() -> None:
    async def conversation(receive: Receive, client: ScriptedPeer[Any]) -> None:
        first, second = await waiting(receive), await waiting(receive)
        client.send(Frame.text("a"))
        await cancelled(first)
        assert (await second)["text"] == "a"
        third = await waiting(receive)
        client.send(Frame.text("b"), Frame.text("c"))
        await cancelled(third)
        assert [(await receive())["text"], (await receive())["text"]] == ["b", "c"]

    run_with(conversation)


def test_waiting_tasks_get_the_disconnect() -> None:
    async def conversation(receive: Receive, client: ScriptedPeer[Any]) -> None:
        tasks = [await waiting(receive), await waiting(receive)]
        client.send(Frame.close(3001, "done"))
        for task in tasks:
            assert await task == {"type": "websocket.disconnect", "code": 3001, "reason": "done"}

    run_with(conversation)
