"""An ASGI application on an asyncio loop: it runs in a Task, and may receive in Tasks of its own, as Channels does."""

from __future__ import annotations

import asyncio
import contextvars
import gc
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import pytest
import twisted.internet.asyncioreactor  # noqa: F401  The library looks for an asyncio loop once this is imported.
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock

from twisted_beastws import ASGIFactory, Limits, State
from twisted_beastws.asgi.waiting import ReceiveWait
from twisted_beastws.connection.running import run
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

    on_loop(main)


def serve(application: Callable[..., Coroutine[Any, Any, None]], clock: Clock | None = None) -> ScriptedPeer[Any]:
    """Return a client that has asked for a WebSocket; the application runs from the loop's next iteration on."""
    client = scripted_client(ASGIFactory(application, clock=clock or Clock(), close_timeout=5), opened=False)
    client.send(upgrade_request("/"))
    return client


def on_loop(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine on an asyncio loop, in a thread: the reactor of the tests may be running a loop in this one."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, asyncio.wait_for(main(), PATIENCE)).result()


async def outside_of_tasks(function: Callable[..., object], *arguments: object) -> None:
    """Call a function as the loop calls the callbacks of sockets: while no Task runs."""
    asyncio.get_running_loop().call_soon(function, *arguments)
    await asyncio.sleep(0)


TURNS = 10
"""Iterations of the loop in which an application does all that it can do."""


def ends_with(code: int, application: Callable[..., Coroutine[Any, Any, None]]) -> None:
    """Serve an application until its connection closes, and check the code."""

    async def main() -> None:
        client = serve(application)
        await until(lambda: client.protocol.state not in (State.CONNECTING, State.OPEN))
        client.read_head()
        client.expect(Frame.close(code))

    on_loop(main)


async def until(condition: Callable[[], Any]) -> None:
    """Let the loop run until the condition is true."""
    while not condition():
        await asyncio.sleep(0)


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


def test_a_cancelled_task_leaves_no_pending_wait() -> None:
    def waits() -> int:
        gc.collect()
        return sum(type(each) is ReceiveWait for each in gc.get_objects())

    async def conversation(receive: Receive, client: ScriptedPeer[Any]) -> None:
        before = waits()
        for _ in range(10):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(receive(), 1e-6)
        # The traceback of the last error may refer to its wait.
        assert waits() <= before + 1
        client.send(Frame.text("a"))
        assert (await receive())["text"] == "a"

    run_with(conversation)


def test_the_message_of_a_cancellation_reaches_the_task() -> None:
    async def conversation(receive: Receive, client: ScriptedPeer[Any]) -> None:
        async def receiving() -> None:
            # Python 3.10 passes the message to the coroutine, and not to the code that waits for the Task.
            with pytest.raises(asyncio.CancelledError, match="enough"):
                await receive()

        task = asyncio.ensure_future(receiving())
        await asyncio.sleep(0)
        task.cancel("enough")
        await task

    run_with(conversation)


def test_a_task_goes_on_in_the_call_that_brings_its_message() -> None:
    async def conversation(receive: Receive, client: ScriptedPeer[Any]) -> None:
        task = await waiting(receive)
        done: list[bool] = []

        def message_comes() -> None:
            client.send(Frame.text("a"))
            done.append(task.done())

        await outside_of_tasks(message_comes)
        assert done == [True]
        assert (await task)["text"] == "a"

    run_with(conversation)


def test_a_task_keeps_its_context_variables() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")

    async def conversation(receive: Receive, client: ScriptedPeer[Any]) -> None:
        async def receives() -> str:
            variable.set("the task's")
            await receive()
            return variable.get()

        async def result(send: Callable[..., Coroutine[Any, Any, None]]) -> str:
            task = asyncio.ensure_future(receives())
            await asyncio.sleep(0)
            await send(client.send, Frame.text("a"))
            return await task

        async def inside_of_a_task(function: Callable[..., object], *arguments: object) -> None:
            function(*arguments)

        assert await result(outside_of_tasks) == "the task's"
        assert await result(inside_of_a_task) == "the task's"
        assert variable.get() == "none"

    run_with(conversation)


def test_a_handler_of_ours_can_wait_for_an_applications_message() -> None:
    async def conversation(receive: Receive, client: ScriptedPeer[Any]) -> None:
        received = run(receive())
        await outside_of_tasks(client.send, Frame.text("a"))
        assert (await received)["text"] == "a"
        received = run(receive())
        received.cancel()
        with pytest.raises(CancelledError):
            await received

    run_with(conversation)


class TestTheTaskOfTheApplication:
    """The asyncio Task in which the application runs."""

    def test_the_application_runs_in_a_task_of_asyncio(self) -> None:
        tasks: list[Any] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "websocket":
                tasks.append(asyncio.current_task())
                async with asyncio.timeout(PATIENCE) if hasattr(asyncio, "timeout") else nullcontext():
                    await receive()
                    await send({"type": "websocket.accept"})

        ends_with(1000, application)
        assert [type(task) for task in tasks] == [asyncio.Task]

    def test_a_failure_is_logged_once_and_closes_with_1011(self, logged: Any) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "websocket":
                await send({"type": "websocket.accept"})
                raise KeyError("a")

        ends_with(1011, application)
        assert len(logged(KeyError)) == 1

    def test_a_task_that_cancels_itself_closes_with_1001(self) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "websocket":
                await send({"type": "websocket.accept"})
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                await receive()
                await receive()

        ends_with(1001, application)

    @pytest.mark.parametrize(
        ("events", "status"),
        [
            ([{"type": "websocket.close"}], b"403"),
            (
                [{"type": "websocket.http.response.start", "status": 418}, {"type": "websocket.http.response.body"}],
                b"418",
            ),
            ([], b"500"),
        ],
    )
    def test_the_application_can_refuse(self, events: list[dict[str, Any]], status: bytes) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "websocket":
                for event in events:
                    await send(event)

        async def main() -> None:
            client = serve(application)
            for _ in range(TURNS):
                await asyncio.sleep(0)
            assert client.read_head().startswith(b"HTTP/1.1 " + status)

        on_loop(main)

    def test_send_waits_for_a_client_that_does_not_read(self, connect: Any) -> None:
        sent: list[int] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "websocket":
                await send({"type": "websocket.accept"})
                for number in range(3):
                    await send({"type": "websocket.send", "bytes": bytes(1000)})
                    sent.append(number)
                assert (await receive())["type"] == "websocket.connect"
                assert (await receive())["type"] == "websocket.disconnect"
                with pytest.raises(OSError, match="gone"):
                    await send({"type": "websocket.send", "text": "too late"})
                sent.append(-1)

        async def main() -> None:
            factory = ASGIFactory(application, clock=Clock(), limits=Limits(high_water=1500, low_water=100))
            client = connect(factory=factory, opened=False)
            client.transport.stall()
            client.sends(client.HEAD)
            for _ in range(TURNS):
                await asyncio.sleep(0)
            assert sent == [0]
            client.transport.flow()
            await until(lambda: sent == [0, 1, 2])
            client.leaves()
            await until(lambda: sent == [0, 1, 2, -1])

        on_loop(main)

    def test_the_application_gets_all_messages_before_the_disconnect(self) -> None:
        received: list[str] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "websocket":
                await send({"type": "websocket.accept"})
                await asyncio.sleep(0)
                while not received or received[-1] != "websocket.disconnect":
                    received.append((await receive())["type"])

        async def main() -> None:
            client = serve(application)
            await until(lambda: client.protocol.state is State.OPEN)
            client.send(Frame.text("a"), Frame.text("b"), Frame.close())
            await until(lambda: "websocket.disconnect" in received)

        on_loop(main)
        assert received == ["websocket.connect", "websocket.receive", "websocket.receive", "websocket.disconnect"]

    def test_an_application_that_does_not_return_after_the_end_is_cancelled(self) -> None:
        ended: list[type[BaseException]] = []
        clock = Clock()

        async def application(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "websocket":
                await send({"type": "websocket.accept"})
                try:
                    await asyncio.get_running_loop().create_future()
                except BaseException as error:
                    ended.append(type(error))
                    raise

        async def main() -> None:
            client = serve(application, clock)
            await until(lambda: client.protocol.state is State.OPEN)
            client.cut()
            clock.advance(4.9)
            await asyncio.sleep(0)
            assert not ended
            clock.advance(0.2)
            await until(lambda: ended)

        on_loop(main)
        assert ended == [asyncio.CancelledError]
