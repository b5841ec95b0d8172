"""Helpers of the tests over real sockets: scripted servers, and checks that a test leaves nothing."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial, wraps
from importlib.util import find_spec, module_from_spec
from typing import Any, ClassVar
from weakref import WeakSet

import pytest_twisted
from twisted.application.internet import ClientService
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import SSL4ServerEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from twisted_beastws import WebSocketProtocol, WebSocketServerFactory

from .certificates import identity
from .patience import PATIENCE
from .protocols import Echo

# Servers


@asynccontextmanager
async def listening(factory: Factory, secure: Any = False) -> AsyncIterator[int]:
    """Serve ``factory`` on the loopback interface, and yield the port's number.

    Args:
        secure: False for TCP, True for TLS with the shared certificate, or TLS options.
    """
    if secure:
        options = identity().options() if secure is True else secure
        endpoint: Any = SSL4ServerEndpoint(reactor, 0, options, backlog=512, interface="127.0.0.1")
    else:
        endpoint = TCP4ServerEndpoint(reactor, 0, backlog=512, interface="127.0.0.1")
    port = await endpoint.listen(factory)
    try:
        yield port.getHost().port
    finally:
        await port.stopListening()


@asynccontextmanager
async def serving(
    protocol: Any = Echo, secure: bool = False, target: str = "/chat", **options: Any
) -> AsyncIterator[str]:
    """Run our own server, yield its URL, and drain the server at the end."""
    factory = WebSocketServerFactory(protocol, **options)
    async with listening(factory, secure) as port:
        try:
            yield f"ws{'s' * secure}://localhost:{port}{target}"
        finally:
            await factory.drain().addTimeout(PATIENCE, reactor)


class Scripted(Protocol):
    """One connection of a `Script`."""

    factory: Script

    def __init__(self) -> None:
        self.received = b""
        self.lost: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.factory.connections.append(self)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        while b"\r\n\r\n" in self.received:
            head, end, self.received = self.received.partition(b"\r\n\r\n")
            self.factory.requests.append(head + end)
            self.factory.answer(self, head + end)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.lost.callback(None)

    def write(self, data: bytes) -> None:
        self.transport.write(data)  # type: ignore[union-attr]

    def drop(self) -> None:
        self.transport.abortConnection()  # type: ignore[union-attr]

    def close(self) -> None:
        self.transport.loseConnection()  # type: ignore[union-attr]


class Script(Factory):
    """A server that calls ``answer(connection, head)`` for each request.

    If ``answer`` is bytes, the server sends them in response to each request; if it is None, the server sends nothing.
    """

    protocol: Any = Scripted
    noisy = False

    def __init__(self, answer: Callable[[Scripted, bytes], object] | bytes | None) -> None:
        self.requests: list[bytes] = []
        self.connections: list[Scripted] = []
        self.answer: Callable[[Scripted, bytes], object]
        if callable(answer):
            self.answer = answer
        else:
            self.answer = lambda connection, head: connection.write(answer or b"")

    @asynccontextmanager
    async def listening(self, secure: Any = False) -> AsyncIterator[int]:
        """Serve this script, and wait at the end until every client has disconnected."""
        async with listening(self, secure) as port:
            try:
                yield port
            finally:
                for connection in self.connections:
                    connection.close()
                    connection.lost.addTimeout(PATIENCE, reactor)
                    await connection.lost


# Results, and checks that nothing is left


async def failure_of(connecting: Deferred[Any]) -> BaseException:
    """Return the exception that ``connecting`` fails with; fail the test if the Deferred fires more than once."""
    calls: list[Any] = []
    connecting.addBoth(calls.append)
    await until(lambda: calls)
    await turn(0.01)
    (outcome,) = calls
    assert isinstance(outcome, Failure), "it connected"
    outcome.cleanFailure()
    assert outcome.value is not None
    return outcome.value


class Noting(WebSocketProtocol):
    """A client that records its events; ``alive`` has the instances that are still referenced."""

    alive: ClassVar[WeakSet[Noting]] = WeakSet()
    closings: ClassVar[list[Any]] = []

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.alive.add(self)

    def opened(self) -> None:
        self.heard.append("opened")

    def text_received(self, text: str) -> None:
        self.heard.append(text)

    def closed(self, reason: Any) -> None:
        self.closings.append(reason)


async def turn(seconds: float = 0.0) -> None:
    """Let the reactor turn."""
    await deferLater(reactor, seconds)


async def until(condition: Callable[[], object]) -> None:
    """Let the reactor turn until ``condition()`` is true."""
    deadline = reactor.seconds() + PATIENCE
    while not condition():
        assert reactor.seconds() < deadline, "it never came about"
        await turn(0.005)


async def connected(service: ClientService) -> Any:
    """Return the protocol of a ``ClientService`` one turn after `whenConnected` fires.

    That Deferred fires in the middle of a state transition, during which the service accepts no calls.
    """
    protocol = await service.whenConnected()
    await turn()
    return protocol


@contextmanager
def uncollected() -> Iterator[None]:
    """Disable the garbage collector, so that objects in reference cycles stay alive."""
    # pytest-twisted disables `cleanFailure`, which releases the variables of a traceback's frames. With Twisted before
    # 25, pytest replaces `Failure.__init__` and gives each failure the traceback of the exception being handled.
    spec = find_spec("twisted.python.failure")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    taken = {name: getattr(Failure, name) for name in ("__init__", "cleanFailure")}
    for name in taken:
        setattr(Failure, name, getattr(module.Failure, name))
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        for name, changed in taken.items():
            setattr(Failure, name, changed)


@asynccontextmanager
async def nothing_left(cycles: bool = False) -> AsyncIterator[None]:
    """Check that the block leaves no live `Noting`, no new delayed call and no new reader.

    Args:
        cycles: Whether objects may be in reference cycles, as a ``ClientService`` always is; then the garbage
            collector runs before the check.
    """
    Noting.closings.clear()
    Noting.alive.clear()
    calls, readers = set(reactor.getDelayedCalls()), set(reactor.getReaders())

    def gone() -> bool:
        if cycles:
            gc.collect()
        return not Noting.alive

    with uncollected():
        yield
        await until(gone)
    await until(lambda: set(reactor.getDelayedCalls()) <= calls and set(reactor.getReaders()) <= readers)


def leaving_nothing(test: Callable[..., Any], cycles: bool = False) -> Any:
    """Run a test, which is a coroutine function, inside `nothing_left`; its local variables are gone by the check."""

    @wraps(test)
    async def run(*arguments: Any, **fixtures: Any) -> None:
        async with nothing_left(cycles):
            await Deferred.fromCoroutine(test(*arguments, **fixtures)).addTimeout(2 * PATIENCE, reactor)

    return pytest_twisted.ensureDeferred(run)


leaving_cycles = partial(leaving_nothing, cycles=True)
