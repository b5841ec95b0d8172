"""Fairness over TCP and TLS: a busy connection leaves time in each reactor turn for the others."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.error import ConnectionDone, ConnectionLost

from twisted_beastws import Limits, Request, Response, WebSocketProtocol
from twisted_beastws.clock import next_turn

from ..support.frames import close, masked
from ..support.inside import inside
from ..support.loopback import until
from ..support.ways import BOTH_WAYS
from .test_server import read, read_head, serve

BUDGET = 50
MESSAGES = 5000


class Turns:
    """A context manager that counts events in each turn of the reactor."""

    def __init__(self) -> None:
        self.number = 0
        self.counts: Counter[tuple[int, Any]] = Counter()

    def __enter__(self) -> None:
        self._call = next_turn(reactor, self._next)

    def __exit__(self, *_: object) -> None:
        self._call.cancel()

    def _next(self) -> None:
        self.number += 1
        self._call = next_turn(reactor, self._next)

    def count(self, who: Any) -> None:
        self.counts[self.number, who] += 1


def counting(turns: Turns) -> type[WebSocketProtocol]:
    class Counting(WebSocketProtocol):
        def text_received(self, text: str) -> None:
            turns.count(self)
            self.send(text)

    return Counting


def flood(connection: Any) -> None:
    """Send many messages in one chunk, and read the echoes."""
    connection.sendall(masked(0x81) * MESSAGES)
    read(connection, 2 * MESSAGES)
    connection.sendall(masked(0x88, b"\x03\xe8"))
    assert read(connection, 4) == close(1000)


@BOTH_WAYS
@pytest_twisted.ensureDeferred
async def test_no_turn_of_the_reactor_takes_more_than_the_budget(secure: bool) -> None:
    turns = Turns()
    limits = Limits(max_messages_per_turn=BUDGET, max_seconds_per_turn=None)
    async with serve(counting(turns), secure, limits=limits) as server:
        with turns:
            await server.by_socket(flood)
    assert sum(turns.counts.values()) == MESSAGES
    # One turn may handle the rest of one chunk and the beginning of the next.
    assert max(turns.counts.values()) <= 2 * BUDGET


@BOTH_WAYS
@pytest_twisted.ensureDeferred
async def test_messages_in_single_tls_records_share_one_budget(secure: bool) -> None:
    """TLS delivers each record in a separate call, even within one turn."""
    turns = Turns()

    def by_record(connection: Any) -> None:
        for _ in range(1000):
            connection.sendall(masked(0x81))
        read(connection, 2 * 1000)

    limits = Limits(max_messages_per_turn=BUDGET, max_seconds_per_turn=None)
    async with serve(counting(turns), secure, limits=limits) as server:
        with turns:
            await server.by_socket(by_record)
    assert sum(turns.counts.values()) == 1000
    assert max(turns.counts.values()) <= BUDGET


class Pages(WebSocketProtocol):
    """Answer each request, and count the responses of each turn."""

    turns: Turns

    def http_requested(self, request: Request) -> Response:
        self.turns.count(self)
        return Response(204)


class Looping(WebSocketProtocol):
    """Answer requests in a loop of its own, which waits for nothing but the next request."""

    turns: Turns

    def serve(self) -> None:
        Deferred.fromCoroutine(self.answer()).addErrback(
            lambda failure: failure.trap(ConnectionDone, ConnectionLost, CancelledError)
        )

    async def answer(self) -> None:
        while True:
            await self.read_request()
            self.turns.count(self)
            await self.respond(Response(204))


@BOTH_WAYS
@pytest.mark.parametrize("answering", [Pages, Looping])
@pytest.mark.parametrize("together", [False, True], ids=["one by one", "together"])
@pytest_twisted.ensureDeferred
async def test_pipelined_requests_leave_the_others_their_turns(
    secure: bool, answering: type[Any], together: bool
) -> None:
    turns, count = Turns(), 600
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answered: list[float] = []

    class Answering(answering):  # type: ignore[misc]
        pass

    Answering.turns = turns

    def pipeline(connection: Any) -> None:
        # Over TLS each call sends a record, and the reactor delivers the records one by one.
        for part in [request * count] if together else [request] * count:
            connection.sendall(part)
        answers = b""
        while answers.count(b"HTTP/1.1 204") < count:
            answers += connection.recv(1 << 16)

    def witness(connection: Any) -> None:
        for _ in range(3):
            connection.sendall(request)
            assert read_head(connection).startswith(b"HTTP/1.1 204")
            answered.append(time.monotonic())

    limits = Limits(max_messages_per_turn=BUDGET, max_seconds_per_turn=None)
    async with serve(Answering, secure, limits=limits) as server:
        with turns:
            await gatherResults([server.by_socket(each, opened=False) for each in (pipeline, witness)])
    assert sum(turns.counts.values()) == count + 3
    assert max(turns.counts.values()) <= BUDGET
    assert len(answered) == 3


@BOTH_WAYS
@pytest_twisted.ensureDeferred
async def test_all_messages_are_delivered_though_the_peer_hangs_up(secure: bool) -> None:
    heard: list[str] = []

    class Hearing(WebSocketProtocol):
        def text_received(self, text: str) -> None:
            heard.append(text)

        def closed(self, reason: Any) -> None:
            heard.append("closed")

    limits = Limits(max_messages_per_turn=BUDGET)
    async with serve(Hearing, secure, limits=limits) as server:
        await server.by_socket(lambda connection: connection.sendall(masked(0x81) * 1000))
        await until(lambda: heard and heard[-1] == "closed")
    assert heard == [""] * 1000 + ["closed"]


@BOTH_WAYS
@pytest_twisted.ensureDeferred
async def test_a_witness_is_answered_during_a_flood(secure: bool) -> None:
    """The flood is one chunk; handling its messages takes half a second."""
    handled = 0

    class Working(WebSocketProtocol):
        def text_received(self, text: str) -> None:
            nonlocal handled
            if text == "witness":
                self.send(f"{handled:4}")
            else:
                handled += 1
                time.sleep(0.0005)

    def ask_until_the_end(connection: Any) -> list[int]:
        answers = [0]
        while answers[-1] < 1000:
            connection.sendall(masked(0x81, b"witness"))
            answers.append(int(read(connection, 6)[2:]))
        connection.sendall(masked(0x88, b"\x03\xe8"))
        read(connection, 4)
        return answers

    def send(connection: Any) -> None:
        connection.sendall(masked(0x81) * 1000 + masked(0x88, b"\x03\xe8"))
        read(connection, 4)

    async with serve(Working, secure) as server:
        witness = server.by_socket(ask_until_the_end)
        await server.by_socket(send)
        answers = await witness
    assert len({answer for answer in answers if 0 < answer < 1000}) >= 5


@BOTH_WAYS
@pytest_twisted.ensureDeferred
async def test_a_flood_is_read_no_faster_than_it_is_handled(secure: bool) -> None:
    """The server buffers at most one unparsed chunk, however long the flood lasts."""
    waiting: list[int] = []

    class Slow(WebSocketProtocol):
        def text_received(self, text: str) -> None:
            # No public attribute shows how much of a chunk is unparsed.
            waiting.append(inside(self).session.reader.unparsed_size)

    limits = Limits(max_messages_per_turn=BUDGET)

    def send(connection: Any) -> None:
        for _ in range(20):
            connection.sendall(masked(0x81, bytes(100)) * 500)
        connection.sendall(masked(0x88, b"\x03\xe8"))
        read(connection, 4)

    async with serve(Slow, secure, limits=limits) as server:
        await server.by_socket(send)
    assert len(waiting) == 10_000
    # 64 KiB on Twisted's reactors, 256 KiB on uvloop's.
    assert max(waiting) <= (1 << 18) + 200
