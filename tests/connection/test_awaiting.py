"""asyncio Tasks that await the library's Deferreds, and handlers and hooks that await asyncio objects."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks, succeed
from twisted.internet.task import Clock

import twisted_beastws
from twisted_beastws import ConnectionClosed, Hub, Response, State, WebSocketProtocol, WebSocketServerFactory, connect
from twisted_beastws.connection.awaiting import AwaitableDeferred, awaitable
from twisted_beastws.testing import connected_pair

# The library looks for asyncio's loop only in a program that has imported this reactor.
import_module("twisted.internet.asyncioreactor")

PACKAGE = Path(twisted_beastws.__file__).parent

NEW = sys.version_info >= (3, 11)
"""asyncio has ``timeout`` and ``TaskGroup``."""


def on_asyncio(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run the test on a new loop in another thread: with ``--uvloop``, the reactor runs a loop in the main thread."""

    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with ThreadPoolExecutor(1) as thread:
            thread.submit(lambda: asyncio.run(test(*args, **kwargs))).result()

    return run


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def waits_for(deferred: Any) -> Any:
    return await deferred


def task_for(deferred: Any) -> asyncio.Task[Any]:
    """Return a Task that awaits the Deferred once the Task has started."""
    return asyncio.create_task(waits_for(deferred))


class TestTasksAwaitDeferreds:
    """asyncio Tasks await the Deferreds that the library returns (`docs/howto/asyncio.md`)."""

    @on_asyncio
    async def test_receive_returns_the_message(self) -> None:
        pair = connected_pair(WebSocketProtocol)
        task = task_for(pair.server.receive())
        await turns()
        assert not task.done()
        pair.client.send("a")
        pair.flush()
        assert await task == "a"
        pair.client.send("b")
        pair.flush()
        assert await pair.server.receive() == "b"

    @on_asyncio
    async def test_async_for_ends_with_the_connection(self) -> None:
        pair = connected_pair(WebSocketProtocol)
        heard: list[Any] = []

        async def listen() -> None:
            async for message in pair.server:
                heard.append(message)

        task = asyncio.create_task(listen())
        for text in ("a", "b", "c"):
            pair.client.send(text)
            pair.flush()
            await turns()
        assert heard == ["a", "b", "c"]
        closing = task_for(pair.client.close())
        await turns()
        pair.flush()
        pair.advance(60)
        await asyncio.wait_for(task, 60)
        assert (await closing).code == 1000

    @on_asyncio
    async def test_a_task_can_await_close_when_closed_ping_and_the_factorys_drain(self) -> None:
        factory = WebSocketServerFactory(WebSocketProtocol, clock=Clock())
        pair = connected_pair(factory)
        ping = task_for(pair.server.ping())
        await turns()
        pair.flush()
        assert await ping >= 0
        tasks = [task_for(each) for each in (pair.server.when_closed(), factory.drain(), pair.server.close())]
        await turns()
        pair.flush()
        pair.advance(60)
        ended, drained, closed = await asyncio.gather(*tasks)
        assert (ended.code, drained, closed.code) == (1001, None, 1001)

    @on_asyncio
    async def test_drain_waits_for_a_slow_reader(self, connect: Any) -> None:
        peer = connect(WebSocketProtocol)
        peer.transport.stall()
        peer.protocol.send(b"x" * 100_000)
        peer.protocol.send(b"x" * 100_000)
        task = task_for(peer.protocol.drain())
        await turns()
        assert not task.done()
        peer.transport.flow()
        await task

    @on_asyncio
    async def test_both_sides_of_a_handshake_can_be_awaited(self) -> None:
        class ByHand(WebSocketProtocol):
            def serve(self) -> None:
                self.opening = task_for(self.read_request())

        pair = connected_pair(ByHand, opened=False)
        opening = task_for(pair.client.handshake("localhost"))
        await turns()
        pair.flush()
        request = await pair.server.opening
        accepting = task_for(pair.server.accept(request))
        await turns()
        pair.flush()
        assert (await opening).status == 101
        assert await accepting is request

    @on_asyncio
    async def test_a_failed_handshake_raises_its_error(self) -> None:
        class Declines(WebSocketProtocol):
            def http_requested(self, request: Any) -> Response:
                return Response(403)

        pair = connected_pair(Declines, opened=False)
        opening = task_for(pair.client.handshake("localhost"))
        await turns()
        pair.flush()
        with pytest.raises(twisted_beastws.UpgradeDeclined):
            await opening

    @on_asyncio
    async def test_the_end_of_the_connection_raises_in_every_waiting_task(self, logged: Any) -> None:
        pair = connected_pair(WebSocketProtocol)
        tasks = [task_for(pair.server.receive()) for _ in range(2)]
        await turns()
        pair.client.close(1008)
        pair.flush()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        ends = [result for result in results if isinstance(result, ConnectionClosed)]
        assert [end.reason.code for end in ends] == [1008, 1008]
        assert len(ends) == len(results)

    @on_asyncio
    async def test_a_hub_of_a_slow_backplane_is_awaited(self) -> None:
        pair = connected_pair(WebSocketProtocol)
        hub = Hub(reactor=Clock())
        waiting: list[Deferred[Any]] = []

        def slow(*_: object) -> Deferred[Any]:
            waiting.append(Deferred())
            return waiting[-1]

        for name in ("subscribe", "publish", "who", "roster"):
            setattr(hub.backplane, name, slow)
        asked = [hub.join(pair.server, "r"), hub.publish("r", "m"), hub.who("r"), hub.roster("r")]
        asked.append(hub.publish_to_all("m"))
        tasks = [task_for(each) for each in asked]
        await turns()
        for each, answer in zip(waiting, ["done", "done", {"ann": ""}, "done", "done"], strict=True):
            each.callback(answer)
        assert await asyncio.gather(*tasks) == [True, "done", {"ann": None}, "done", None]

    @on_asyncio
    async def test_a_deferred_that_fired_long_ago_gives_its_result(self) -> None:
        deferred: AwaitableDeferred[int] = AwaitableDeferred()
        deferred.callback(1)
        assert await deferred == 1
        assert awaitable(deferred) is deferred
        plain = succeed(2)
        assert awaitable(plain) is plain

    @on_asyncio
    async def test_a_result_that_waits_for_another_deferred_is_awaited(self) -> None:
        inner: Deferred[int] = Deferred()
        deferred: AwaitableDeferred[None] = AwaitableDeferred()
        task = task_for(deferred.addCallback(lambda _: inner))
        await turns()
        deferred.callback(None)
        await turns()
        assert not task.done()
        inner.callback(7)
        assert await task == 7

    @on_asyncio
    async def test_asyncios_functions_accept_the_librarys_deferreds(self) -> None:
        pair = connected_pair(WebSocketProtocol)
        assert not asyncio.isfuture(pair.server.receive())
        for wait in (
            lambda deferred: asyncio.wait_for(deferred, 60),
            lambda deferred: asyncio.gather(deferred),
            lambda deferred: asyncio.shield(deferred),
            lambda deferred: asyncio.wait([asyncio.ensure_future(deferred)]),
        ):
            waiting = asyncio.ensure_future(wait(pair.client.receive()))
            await turns()
            pair.server.send("a")
            pair.flush()
            assert await waiting

    @on_asyncio
    async def test_a_twisted_coroutine_that_a_task_starts_works_as_usual(self) -> None:
        pair = connected_pair(WebSocketProtocol)

        @inlineCallbacks
        def generator() -> Any:
            message = yield pair.server.receive()
            return message

        heard: list[Any] = []

        async def coroutine() -> None:
            heard.append(await pair.server.receive())
            heard.append(await pair.server.receive())

        Deferred.fromCoroutine(coroutine())
        generator().addCallback(heard.append)
        for text in ("a", "b", "c"):
            pair.client.send(text)
        pair.flush()
        assert heard == ["a", "b", "c"]

    @on_asyncio
    async def test_context_variables_are_kept(self) -> None:
        variable: ContextVar[str] = ContextVar("variable")
        pair = connected_pair(WebSocketProtocol)

        async def listen(name: str) -> tuple[str, Any]:
            variable.set(name)
            message = await pair.server.receive()
            return variable.get(), message

        tasks = [asyncio.create_task(listen(name)) for name in ("first", "second")]
        await turns()
        pair.client.send("a")
        pair.client.send("b")
        pair.flush()
        assert await asyncio.gather(*tasks) == [("first", "a"), ("second", "b")]


class TestCancellingATask:
    """An asyncio Task is cancelled while it awaits one of the library's Deferreds."""

    @on_asyncio
    async def test_a_cancelled_receive_loses_no_message(self) -> None:
        pair = connected_pair(WebSocketProtocol)
        task = task_for(pair.server.receive())
        await turns()
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError):
            await task
        pair.client.send("a")
        pair.flush()
        assert await pair.server.receive() == "a"

    @on_asyncio
    async def test_a_message_that_arrived_just_before_the_cancellation_is_kept(self) -> None:
        pair = connected_pair(WebSocketProtocol)
        task = task_for(pair.server.receive())
        await turns()
        pair.client.send("a")
        pair.client.send("b")
        pair.flush()
        # The Deferred has fired, but the Task has not run since.
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [await pair.server.receive(), await pair.server.receive()] == ["a", "b"]

    @on_asyncio
    async def test_the_message_of_a_cancelled_receive_goes_to_the_next_receiver(self) -> None:
        pair = connected_pair(WebSocketProtocol)
        first, second = task_for(pair.server.receive()), task_for(pair.server.receive())
        await turns()
        pair.client.send("a")
        pair.flush()
        first.cancel()
        assert await second == "a"
        assert first.cancelled()

    @on_asyncio
    async def test_a_failure_just_before_the_cancellation_is_not_logged(self, logged: Any) -> None:
        deferred: AwaitableDeferred[None] = AwaitableDeferred()
        task = task_for(deferred)
        await turns()
        deferred.errback(ValueError())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    @on_asyncio
    async def test_wait_for_can_time_out(self) -> None:
        pair = connected_pair(WebSocketProtocol)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(pair.server.receive(), 0.001)
        pair.client.send("a")
        pair.flush()
        assert await pair.server.receive() == "a"

    if NEW:

        @on_asyncio
        async def test_a_timeout_block_ends_the_wait(self) -> None:
            pair = connected_pair(WebSocketProtocol)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await pair.server.receive()
            pair.client.send("a")
            pair.flush()
            assert await pair.server.receive() == "a"

    @on_asyncio
    async def test_a_cancelled_connect_drops_the_connection(self) -> None:
        class Endpoint:
            cancelled = False

            def connect(self, factory: object) -> Deferred[Any]:
                return Deferred(lambda _: setattr(self, "cancelled", True))

        endpoint: Any = Endpoint()
        task = task_for(connect("ws://localhost/", reactor=Clock(), endpoint=endpoint))
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert endpoint.cancelled

    @on_asyncio
    async def test_a_connection_that_opened_just_before_is_aborted(self) -> None:
        aborted: list[Any] = []
        deferred: AwaitableDeferred[str] = AwaitableDeferred()
        deferred.unclaimed = aborted.append
        task = task_for(deferred)
        await turns()
        deferred.callback("connection")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert aborted == ["connection"]

    @on_asyncio
    async def test_a_cancelled_deferred_raises_twisteds_error_in_the_task(self) -> None:
        pair = connected_pair(WebSocketProtocol)
        receiving = pair.server.receive()
        task = task_for(receiving)
        await turns()
        receiving.cancel()
        with pytest.raises(CancelledError):
            await task

    @on_asyncio
    async def test_a_wait_ends_even_if_its_canceller_does_not_fire(self) -> None:
        inner: Deferred[None] = Deferred(lambda _: None)
        blocked: Deferred[None] = Deferred()
        inner.addBoth(lambda _: blocked)
        deferred: AwaitableDeferred[None] = AwaitableDeferred()
        deferred.addCallback(lambda _: inner)
        task = task_for(deferred)
        await turns()
        deferred.callback(None)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def asyncio_things(ws: Any) -> AsyncIterator[Any]:
    """Await one asyncio object of each kind."""
    loop = asyncio.get_running_loop()
    yield await asyncio.sleep(0, "bare yield")
    yield await asyncio.sleep(0.001, "timer")
    future: asyncio.Future[str] = loop.create_future()
    loop.call_soon(future.set_result, "future")
    yield await future
    yield await asyncio.create_task(asyncio.sleep(0, "task"))
    yield await asyncio.wait_for(asyncio.sleep(0, "wait_for"), 60)
    deferred: Deferred[str] = Deferred()
    loop.call_soon(deferred.callback, "deferred")
    yield await deferred


KINDS = ["bare yield", "timer", "future", "task", "wait_for", "deferred"]


async def until(pair: Any, condition: Callable[[], object]) -> None:
    """Run the loop and deliver bytes until the condition holds."""
    for _ in range(2000):
        if condition():
            return
        pair.flush()
        await asyncio.sleep(0.001)
    raise AssertionError("it did not happen")


class TestHandlersAwaitAsyncio:
    """A handler, a coroutine of the library, awaits asyncio objects and Deferreds."""

    @on_asyncio
    async def test_a_handler_awaits_objects_of_both_kinds(self) -> None:
        async def handler(ws: WebSocketProtocol) -> None:
            async for thing in asyncio_things(ws):
                ws.send(thing)
            ws.send(await ws.receive())

        pair = connected_pair(handler)
        heard: list[Any] = []

        async def listen() -> None:
            async for message in pair.client:
                heard.append(message)

        listening = asyncio.create_task(listen())
        pair.client.send("message")
        await until(pair, lambda: len(heard) == 7)
        assert heard == [*KINDS, "message"]
        pair.advance(60)
        await until(pair, listening.done)
        assert pair.client.close_reason and pair.client.close_reason.code == 1000

    @on_asyncio
    async def test_answers_are_sent_in_the_turn_of_their_messages(self) -> None:
        async def echo(ws: WebSocketProtocol) -> None:
            async for message in ws:
                ws.send(message)

        pair = connected_pair(echo)
        pair.client.send("a")
        pair.client.send("b")
        pair.flush()
        # The answers need no iteration of the loop.
        heard: list[Any] = []
        pair.client.receive().addCallback(heard.append)
        pair.client.receive().addCallback(heard.append)
        assert heard == ["a", "b"]

    @on_asyncio
    async def test_an_error_of_an_asyncio_object_closes_with_1011(self, logged: Any) -> None:
        async def handler(ws: WebSocketProtocol) -> None:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(future.set_exception, KeyError("a"))
            await future

        pair = connected_pair(handler)
        await until(pair, lambda: pair.client.close_reason)
        assert pair.client.close_reason and pair.client.close_reason.code == 1011
        assert len(logged(KeyError)) == 1

    @on_asyncio
    async def test_an_object_of_neither_kind_closes_with_1011(self, logged: Any) -> None:
        class Odd:
            def __await__(self) -> Any:
                yield 3

        async def handler(ws: WebSocketProtocol) -> None:
            await Odd()

        pair = connected_pair(handler)
        await until(pair, lambda: pair.client.close_reason)
        (error,) = logged(RuntimeError)
        assert "neither a Deferred nor an asyncio future" in str(error)

    @on_asyncio
    async def test_a_handler_has_a_task_of_its_own(self) -> None:
        tasks: list[Any] = []

        async def handler(ws: WebSocketProtocol) -> None:
            tasks.append(asyncio.current_task())
            await asyncio.sleep(0)
            tasks.append(asyncio.current_task())
            await ws.receive()
            tasks.append(asyncio.current_task())

        mine = asyncio.current_task()
        pair = connected_pair(handler)
        assert asyncio.current_task() is mine
        await turns()
        assert tasks[0] in asyncio.all_tasks()
        pair.client.send("a")
        pair.flush()
        assert asyncio.current_task() is mine
        assert len(set(tasks)) == 1 and tasks[0] is not mine and tasks[0].done()
        assert tasks[0].get_name().startswith("beastws-")
        assert tasks[0] not in asyncio.all_tasks()

    if NEW:

        @on_asyncio
        async def test_a_timeout_block_in_a_handler_loses_no_message(self) -> None:
            async def handler(ws: WebSocketProtocol) -> None:
                try:
                    async with asyncio.timeout(0.001):
                        await ws.receive()
                except TimeoutError:
                    ws.send("late")
                ws.send(await ws.receive())

            pair = connected_pair(handler)
            heard: list[Any] = []
            for _ in range(2):
                pair.client.receive().addCallback(heard.append)
            await until(pair, lambda: heard)
            pair.client.send("a")
            await until(pair, lambda: len(heard) == 2)
            assert heard == ["late", "a"]

    if NEW:

        @on_asyncio
        async def test_a_task_group_in_a_handler_runs_its_tasks(self, logged: Any) -> None:
            async def fail(ws: WebSocketProtocol) -> None:
                ws.send(await ws.receive())
                raise KeyError("a")

            ended: list[Any] = []

            async def handler(ws: WebSocketProtocol) -> None:
                try:
                    async with asyncio.TaskGroup() as group:
                        group.create_task(fail(ws))
                        await ws.when_closed()
                except Exception as group_of_errors:
                    ended.extend(group_of_errors.exceptions)  # type: ignore[attr-defined]
                ws.send("went on")

            pair = connected_pair(handler)
            heard: list[Any] = []
            for _ in range(2):
                pair.client.receive().addCallback(heard.append)
            pair.client.send("a")
            await until(pair, lambda: len(heard) == 2)
            assert heard == ["a", "went on"]
            assert len(ended) == 1

    @on_asyncio
    async def test_a_cancelled_task_of_a_handler_closes_with_1001(self, logged: Any) -> None:
        tasks: list[Any] = []

        async def handler(ws: WebSocketProtocol) -> None:
            tasks.append(asyncio.current_task())
            await ws.receive()

        pair = connected_pair(handler)
        assert tasks[0].cancel("enough") is True
        assert pair.server.state is State.OPEN
        await until(pair, lambda: pair.client.close_reason)
        assert pair.client.close_reason and pair.client.close_reason.code == 1001
        assert tasks[0].cancelled() and tasks[0].cancel() is False

    @pytest.mark.parametrize("wait", ["future", "deferred", "nothing yet"])
    @on_asyncio
    async def test_a_handler_can_refuse_to_be_cancelled(self, wait: str) -> None:
        tasks: list[Any] = []

        async def handler(ws: WebSocketProtocol) -> None:
            task: Any = asyncio.current_task()
            tasks.append(task)
            awaits: Awaitable[Any] = asyncio.get_running_loop().create_future() if wait == "future" else ws.receive()
            if wait == "nothing yet":
                task.cancel()
            try:
                await awaits
            except asyncio.CancelledError:
                ws.send("refused")
            assert (task.cancelling(), task.uncancel(), task.uncancel()) == (1, 0, 0)
            ws.send(await ws.receive())

        pair = connected_pair(handler)
        heard: list[Any] = []
        for _ in range(2):
            pair.client.receive().addCallback(heard.append)
        if wait != "nothing yet":
            tasks[0].cancel()
        await until(pair, lambda: heard)
        pair.client.send("a")
        await until(pair, lambda: len(heard) == 2)
        assert heard == ["refused", "a"]

    @on_asyncio
    async def test_another_task_can_await_a_handlers_task(self, logged: Any) -> None:
        tasks: list[Any] = []

        async def handler(ws: WebSocketProtocol) -> None:
            tasks.append(asyncio.current_task())
            if await ws.receive() == "fail":
                raise KeyError("a")

        for message, error in (("return", type(None)), ("fail", KeyError)):
            pair = connected_pair(handler)
            waiting = asyncio.ensure_future(asyncio.gather(tasks[-1], return_exceptions=True))
            await turns()
            pair.client.send(message)
            pair.flush()
            assert [type(result) for result in await waiting] == [error]
        assert len(logged(KeyError)) == 1

    @on_asyncio
    async def test_context_variables_are_kept_across_waits_of_both_kinds(self) -> None:
        variable: ContextVar[str] = ContextVar("variable", default="outside")
        seen: list[str] = []

        async def handler(ws: WebSocketProtocol) -> None:
            variable.set(await ws.receive())  # type: ignore[arg-type]
            await asyncio.sleep(0)
            await asyncio.create_task(asyncio.sleep(0))
            await ws.receive()
            seen.append(variable.get())

        pairs = [connected_pair(handler) for _ in range(2)]
        for number, pair in enumerate(pairs):
            pair.client.send(str(number))
            pair.flush()
        await turns(9)
        for pair in pairs:
            pair.client.send("go on")
            pair.flush()
        assert seen == ["0", "1"]
        assert variable.get() == "outside"

    @pytest.mark.parametrize("ending", ["returns", "raises", "is cut off"])
    @on_asyncio
    async def test_a_connection_is_freed_without_the_garbage_collector(self, ending: str, logged: Any) -> None:
        async def handler(ws: WebSocketProtocol) -> None:
            await asyncio.sleep(0)
            async for message in ws:
                if ending == "raises":
                    raise KeyError(message)
                return

        pair = connected_pair(handler)
        await turns()
        watched = [ref(pair.server), ref(pair.client)]
        gc.collect()
        gc.disable()
        try:
            if ending == "is cut off":
                pair.cut()
            else:
                pair.client.send("a")
                pair.flush()
                pair.advance(60)
            assert pair.server.state is State.CLOSED
            del pair
            await turns()
            assert [each() for each in watched] == [None, None]
        finally:
            gc.enable()
        assert len(logged(KeyError)) == (ending == "raises")


class TestHooksAwaitAsyncio:
    """Hooks and decorators await asyncio objects."""

    @on_asyncio
    async def test_message_hooks_run_in_order(self) -> None:
        heard: list[str] = []

        class Slow(WebSocketProtocol):
            async def text_received(self, text: str) -> None:
                await asyncio.sleep(0.001)
                heard.append(text)

        pair = connected_pair(Slow)
        for text in ("a", "b", "c"):
            pair.client.send(text)
        await until(pair, lambda: len(heard) == 3)
        assert heard == ["a", "b", "c"]

    @on_asyncio
    async def test_a_cancelled_task_of_a_hook_closes_with_1011(self, logged: Any) -> None:
        tasks: list[Any] = []

        class Waits(WebSocketProtocol):
            async def text_received(self, text: str) -> None:
                tasks.append(asyncio.current_task())
                await asyncio.sleep(3600)

        pair = connected_pair(Waits)
        pair.client.send("a")
        pair.flush()
        tasks[0].cancel()
        await until(pair, lambda: pair.client.close_reason)
        assert pair.client.close_reason and pair.client.close_reason.code == 1011
        assert len(logged(CancelledError)) == 1

    @on_asyncio
    async def test_a_hook_may_return_an_asyncio_future(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heard: list[str] = []

        class Slow(WebSocketProtocol):
            def text_received(self, text: str) -> Any:
                heard.append(text)
                return future

        pair = connected_pair(Slow)
        pair.client.send("a")
        pair.client.send("b")
        pair.flush()
        await turns()
        assert heard == ["a"]
        future.set_result(None)
        await until(pair, lambda: len(heard) == 2)

    @on_asyncio
    async def test_hooks_of_the_handshake_and_decorators_can_await_asyncio(self) -> None:
        variable: ContextVar[str] = ContextVar("variable", default="unset")
        seen: list[Any] = []

        class Asks(WebSocketProtocol):
            async def http_requested(self, request: Any) -> None:
                await asyncio.sleep(0)
                variable.set("set by http_requested")

            async def upgrade_requested(self, request: Any) -> None:
                await asyncio.sleep(0)
                seen.append(variable.get())

            async def opened(self) -> None:
                await asyncio.sleep(0)
                seen.append("opened")

        async def decorate(message: Any) -> None:
            await asyncio.sleep(0)
            message.headers.setRawHeaders("X-Decorated", ["yes"])

        pair = connected_pair(WebSocketServerFactory(Asks, decorator=decorate, clock=Clock()), opened=False)
        opening = task_for(pair.client.handshake("localhost", decorator=decorate))
        await until(pair, opening.done)
        assert opening.result().field("X-Decorated") == "yes"
        await turns()
        assert pair.server.request and pair.server.request.field("X-Decorated") == "yes"
        assert seen == ["set by http_requested", "opened"]

    @on_asyncio
    async def test_a_client_that_leaves_cancels_a_waiting_hook(self) -> None:
        ended: list[type[BaseException]] = []

        class Waits(WebSocketProtocol):
            async def upgrade_requested(self, request: Any) -> None:
                try:
                    await asyncio.sleep(3600)
                except BaseException as error:
                    ended.append(type(error))
                    raise

        pair = connected_pair(Waits, opened=False)
        opening = task_for(pair.client.handshake("localhost"))
        await turns()
        pair.flush()
        pair.cut()
        await turns()
        assert ended == [asyncio.CancelledError]
        with pytest.raises(Exception, match=r"lost|closed|cut"):
            await opening


class TestPrograms:
    """Programs that do not use asyncio load no module for it."""

    def test_only_three_modules_import_asyncio(self) -> None:
        importing = {
            path.relative_to(PACKAGE).as_posix()
            for path in PACKAGE.rglob("*.py")
            if any(line.startswith(("import asyncio", "from asyncio")) for line in path.read_text().splitlines())
        }
        on_asyncio_alone = {"asgi/conversation.py", "asgi/waiting.py", "connection/asyncio_task.py"}
        assert {name for name in importing if not name.startswith(("uvreactor/", "console/"))} == on_asyncio_alone

    def test_a_program_on_another_reactor_loads_no_module_for_asyncio(self) -> None:
        program = (
            "import sys\n"
            "from twisted_beastws import WebSocketProtocol\n"
            "from twisted_beastws.testing import connected_pair\n"
            "async def echo(ws):\n"
            "    async for message in ws: ws.send(message)\n"
            "pair = connected_pair(echo)\n"
            "pair.client.send('a')\n"
            "pair.flush()\n"
            "print([name for name in sys.modules if name.startswith('twisted_beastws') and 'asyncio' in name])\n"
        )
        assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"
