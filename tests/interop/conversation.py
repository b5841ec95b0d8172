"""The conversation between two implementations, our server and client for it, and helpers that run asyncio peers.

Both servers echo messages, and close with `THEIR_CLOSE` when they receive the text "close". Each implementation that
can do so sends long messages in fragments.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from threading import Thread
from typing import Any, TypeVar

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from twisted_beastws import CloseReason, ConnectionClosed, Deflate, Limits, WebSocketProtocol, connect

from ..support.certificates import trusting
from ..support.loopback import serving
from ..support.patience import PATIENCE
from ..support.protocols import Commanded

T = TypeVar("T")

PART = 1000
"""Characters or bytes in a fragment of a longer message."""
MESSAGES: tuple[str | bytes, ...] = (
    "",
    "text",
    "Köln, straße: €\n" * 8000,
    b"",
    bytes(range(256)),
    random.Random(1).randbytes(100_000),
    bytes(300_000),
)
PARTS = ("in ", "", "fragments: ", "€" * 1000)
OUR_CLOSE = (4000, "bye")
THEIR_CLOSE = (4001, "as asked")

UNFRAGMENTED = Limits(fragment_size=PART)
"""We send long messages in fragments; the peer may send them whole."""
FRAGMENTED = Limits(fragment_size=PART, max_frame_size=4 * PART)
"""We send long messages in fragments, and the peer must too."""


def pieces(message: str | bytes) -> Sequence[Any]:
    """Split a message into fragments."""
    return [message[at : at + PART] for at in range(0, len(message), PART)] or [message]


def within(waiting: Deferred[T]) -> Deferred[T]:
    return waiting.addTimeout(PATIENCE, reactor)


# Our server, for the peer's client.


@asynccontextmanager
async def our_server(deflate: Deflate | None, secure: bool, limits: Limits) -> AsyncIterator[str]:
    """Run our echo server, yield its URL, and check that it had two connections like those of `converse`."""
    ends: list[tuple[Any, CloseReason]] = []

    class Noting(Commanded):
        closing = THEIR_CLOSE

        def closed(self, reason: CloseReason) -> None:
            ends.append((self.deflate, reason))

    async with serving(Noting, secure, deflate=deflate, limits=limits) as url:
        yield url
    assert [agreed is not None for agreed, _ in ends] == [deflate is not None] * 2
    first, second = (reason for _, reason in ends)
    assert (first.clean, first.began, first.code, first.reason) == (True, "peer", *OUR_CLOSE)
    assert (second.clean, second.began, second.sent) == (True, "local", THEIR_CLOSE)


# Our client, for the peer's server.


async def converse(url: str, deflate: Deflate | None, limits: Limits) -> None:
    """Hold the whole conversation with the peer's server: we close the first connection, the peer the second."""
    tls = trusting() if url.startswith("wss:") else None

    def connected() -> Deferred[WebSocketProtocol]:
        return within(connect(url, tls=tls, deflate=deflate, limits=limits))

    ws = await connected()
    assert (ws.deflate is not None) == (deflate is not None)
    for message in MESSAGES:
        ws.send(message)
        assert await within(ws.receive()) == message
    with ws.message() as streamed:
        for part in PARTS:
            streamed.write(part)
    assert await within(ws.receive()) == "".join(PARTS)
    await within(ws.ping(b"ping"))
    reason = await within(ws.close(*OUR_CLOSE))
    assert (reason.clean, reason.began, reason.sent) == (True, "local", OUR_CLOSE)

    ws = await connected()
    ws.send("close")
    with pytest.raises(ConnectionClosed) as error:
        await within(ws.receive())
    reason = error.value.reason
    assert (reason.clean, reason.began, reason.code, reason.reason) == (True, "peer", *THEIR_CLOSE)


# Threads for asyncio peers.


def in_asyncio(talk: Callable[[], Coroutine[Any, Any, T]]) -> Deferred[T]:
    """Run a client's coroutine on a new event loop in a thread."""
    return deferToThread(lambda: asyncio.run(asyncio.wait_for(talk(), PATIENCE)))


@asynccontextmanager
async def asyncio_server(server: AbstractAsyncContextManager[int]) -> AsyncIterator[int]:
    """Run a server on a new event loop in a thread, and yield its port."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()

    def run(step: Coroutine[Any, Any, T]) -> Deferred[T]:
        return deferToThread(lambda: asyncio.run_coroutine_threadsafe(step, loop).result(PATIENCE))

    try:
        port = await run(server.__aenter__())
        try:
            yield port
        finally:
            await run(server.__aexit__(None, None, None))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        await deferToThread(thread.join, PATIENCE)
        loop.close()
