"""The cost of a message to an ASGI application, in counts, which do not depend on the machine and its load."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import twisted.internet.asyncioreactor  # noqa: F401  The library looks for an asyncio loop once this is imported.
from twisted.internet.task import Clock

import twisted_beastws
from twisted_beastws import ASGIFactory, State
from twisted_beastws.testing import Frame, scripted_client, upgrade_request

from ..support.calls import PACKAGE, files_of_calls
from ..support.patience import PATIENCE

TESTING = str(Path(PACKAGE, "testing"))

MAX_CALLS = 18 if twisted_beastws.ACCELERATED else 45
"""Calls of the package's Python functions for a message that is echoed; compiled ones do not count."""

MESSAGES = 50
MESSAGE = b"\x81\x82\x00\x00\x00\x00hi"
"""A text, masked with four zeros."""

Application = Callable[[Any, Any, Any], Coroutine[Any, Any, None]]


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Receive in the Task of the application."""
    while (event := await receive())["type"] != "websocket.disconnect":
        await send(answer(event))


async def dispatch(scope: Any, receive: Any, send: Any) -> None:
    """Receive in a Task for each message, as Channels does."""
    while True:
        task = asyncio.ensure_future(receive())
        await asyncio.wait([task])
        event = task.result()
        if event["type"] == "websocket.disconnect":
            return
        await send(answer(event))


def answer(event: Any) -> dict[str, Any]:
    if event["type"] == "websocket.connect":
        return {"type": "websocket.accept"}
    return {"type": "websocket.send", "text": event["text"]}


class CountingLoop(asyncio.SelectorEventLoop):
    """A loop that counts its calls, futures and Tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = self.futures = self.tasks = 0

    def call_soon(self, callback: Any, *args: Any, **options: Any) -> Any:  # type: ignore[override]
        self.calls += 1
        return super().call_soon(callback, *args, **options)

    def create_future(self) -> Any:
        self.futures += 1
        return super().create_future()

    def create_task(self, *args: Any, **options: Any) -> Any:
        self.tasks += 1
        return super().create_task(*args, **options)


TURNS = 5
"""Iterations of the loop in which an application answers a message."""


def costs(application: Application, received: Callable[[Any, bytes], None]) -> tuple[float, float, float]:
    """Send messages, each while no Task runs. Return the calls of the loop, futures and Tasks for each of them.

    ``received`` is called with the protocol and the bytes, as the loop calls the callbacks of sockets.
    """
    loop = CountingLoop()

    async def main() -> tuple[float, float, float]:
        client = scripted_client(ASGIFactory(application, clock=Clock()), opened=False)
        client.send(upgrade_request("/"))
        while client.protocol.state is not State.OPEN:
            await asyncio.sleep(0)
        for _ in range(TURNS):
            await asyncio.sleep(0)
        client.read_head()
        loop.calls = loop.futures = loop.tasks = 0
        for _ in range(MESSAGES):
            super(CountingLoop, loop).call_soon(received, client.protocol, MESSAGE)
            for _ in range(TURNS):
                await asyncio.sleep(0)
        # Each sleep is a call of the loop.
        calls = loop.calls - MESSAGES * TURNS
        client.expect(*[Frame.text("hi")] * MESSAGES)
        client.cut()
        for _ in range(TURNS):
            await asyncio.sleep(0)
        return calls / MESSAGES, loop.futures / MESSAGES, loop.tasks / MESSAGES

    # In a thread: the reactor of the tests may be running a loop in this one.
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(loop.run_until_complete, main()).result(PATIENCE)
    loop.close()
    return found


def plainly(protocol: Any, data: bytes) -> None:
    protocol.dataReceived(data)


def test_a_message_costs_the_task_of_the_application_nothing_in_the_loop() -> None:
    assert costs(echo, plainly) == (0, 0, 0)


def test_a_message_costs_a_task_of_its_own_no_more_than_asyncio_needs() -> None:
    # The Task and its first step, its end, and the Task that waited for it; asyncio.wait makes a future.
    assert costs(dispatch, plainly) == (3, 1, 1)


def test_a_message_makes_few_calls() -> None:
    counts: list[int] = []

    def counted(protocol: Any, data: bytes) -> None:
        files = files_of_calls(lambda: protocol.dataReceived(data))
        counts.append(sum(not file.startswith(TESTING) for file in files))

    costs(echo, counted)
    assert 5 < max(counts) <= MAX_CALLS
