"""What the tests over real sockets share: servers that do as they are told, and that nothing is left."""

from __future__ import annotations

import gc
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial, wraps
from hashlib import sha1
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

# Servers


@asynccontextmanager
async def listening(factory: Factory, secure: Any = False) -> AsyncIterator[int]:
    """Serve ``factory`` on a port of the loopback interface, which it yields.

    secure: False for TCP, True for TLS with the shared certificate, or the options of TLS.
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


class Echo(WebSocketProtocol):
    def text_received(self, text: str) -> None:
        self.send(text)

    def binary_received(self, data: bytes) -> None:
        self.send(data)


@asynccontextmanager
async def serving(
    protocol: Any = Echo, secure: bool = False, target: str = "/chat", **options: Any
) -> AsyncIterator[str]:
    """Our own server, at the URL that it yields; drained at the end."""
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
    """Calls ``answer(connection, head)`` for each request; bytes stand for what is sent to each, None for silence."""

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
        """Serve it, and see that every client is gone at the end."""
        async with listening(self, secure) as port:
            try:
                yield port
            finally:
                for connection in self.connections:
                    connection.close()
                    connection.lost.addTimeout(PATIENCE, reactor)
                    await connection.lost


def field(head: bytes, name: bytes) -> bytes | None:
    """The value of a field of a head as it was sent."""
    values = [line.partition(b": ")[2] for line in head.split(b"\r\n") if line.startswith(name + b": ")]
    assert len(values) <= 1
    return values[0] if values else None


def switching(head: bytes, *fields: bytes) -> bytes:
    """The answer that opens a WebSocket (RFC 6455 §4.2.2)."""
    key = field(head, b"Sec-WebSocket-Key")
    assert key is not None
    accept = b64encode(sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    lines = (b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade", *fields)
    return b"\r\n".join((*lines, b"Sec-WebSocket-Accept: " + accept, b"", b""))


# What comes of it, and that nothing is left


async def failure_of(connecting: Deferred[Any]) -> BaseException:
    """What ``connecting`` fails with; that it fires more than once fails the test."""
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
    """A client that notes what happens to it; ``alive`` are those that are still kept by something."""

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
    """Let the reactor turn until something is so."""
    deadline = reactor.seconds() + PATIENCE
    while not condition():
        assert reactor.seconds() < deadline, "it never came about"
        await turn(0.005)


async def connected(service: ClientService) -> Any:
    """The protocol of a ``ClientService``, as soon as that takes orders again: it fires in the midst of a step."""
    protocol = await service.whenConnected()
    await turn()
    return protocol


@contextmanager
def uncollected() -> Iterator[None]:
    """Without the collection of garbage: what is in a cycle stays."""
    # pytest-twisted takes `cleanFailure` away, which lets go of what a traceback's frames know; and with Twisted before
    # 25 pytest's own `__init__` gives each failure the traceback of whatever is being handled.
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
    """At the end no `Noting` is alive, no call is delayed and nothing is read that was not before.

    cycles: what is in one may wait for the collector, as a ``ClientService`` does by its own make.
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
    """Run a test that is a coroutine function, whose own variables are gone when `nothing_left` looks."""

    @wraps(test)
    async def run(*arguments: Any, **fixtures: Any) -> None:
        async with nothing_left(cycles):
            await Deferred.fromCoroutine(test(*arguments, **fixtures)).addTimeout(2 * PATIENCE, reactor)

    return pytest_twisted.ensureDeferred(run)


leaving_cycles = partial(leaving_nothing, cycles=True)
