"""Connections on the compiled record path: those of this package, and every TLS connection on the uvloop reactor."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions, TLSVersion
from twisted.internet.threads import deferToThread
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.web.resource import Resource
from twisted.web.server import Site

from twisted_beastws import Opcode, WebSocketProtocol, WebSocketResource, WebSocketServerFactory, connect
from twisted_beastws.connection.reading import MAX_CHUNK
from twisted_beastws.tls import records

from ..support.certificates import identity, trusting
from ..support.loopback import listening, until
from ..support.patience import PATIENCE
from ..support.protocols import Echo

pytestmark = pytest.mark.usefixtures("logged", "compiled_path")

ON_UVLOOP = hasattr(reactor, "is_monotonic")
MESSAGES = ["", "hello", "x" * 70_000, "y" * 500_000]


def uses_records(transport: Any) -> bool:
    """Return whether a transport uses the compiled path: the transport itself, one below it, or its protocol."""
    while not isinstance(transport, TLSMemoryBIOProtocol):
        # This is the application's transport, or the transport of a socket on which startTLS() was called.
        transport = getattr(transport, "below", None) or transport.protocol
    return records.attach(transport) is getattr(vars(transport).get("dataReceived"), "__self__", None) is not None


class Noting(Echo):
    """An echo server that records its transports."""

    transports: list[Any]

    def opened(self) -> None:
        type(self).transports.append(self.transport)


async def echoes(url: str, endpoint: Any, **options: Any) -> Any:
    ws = await connect(url, endpoint=endpoint, **options)
    for message in MESSAGES:
        ws.send(message)
    for message in MESSAGES:
        assert await ws.receive() == message
    return ws


def loopback(port: int) -> TCP4ClientEndpoint:
    return TCP4ClientEndpoint(reactor, "127.0.0.1", port)


@pytest.mark.parametrize("kind", ["our server", "twisted.web"])
@pytest_twisted.ensureDeferred
async def test_both_ends_of_a_websocket_use_the_compiled_path(kind: str) -> None:
    class Server(Noting):
        transports: list[Any] = []  # noqa: RUF012

    factory: Any = WebSocketServerFactory(Server, clock=reactor)
    if kind == "twisted.web":
        root = Resource()
        root.putChild(b"", WebSocketResource(factory))
        factory = Site(root)
    async with listening(factory, True) as port:
        ws = await echoes("wss://localhost/", loopback(port), tls=trusting())
        assert uses_records(ws.transport)
        assert [uses_records(transport) for transport in Server.transports] == [True]
        await ws.close()


@pytest_twisted.ensureDeferred
async def test_a_users_endpoint_that_wraps_tls_uses_the_compiled_path() -> None:
    async with listening(WebSocketServerFactory(Echo, clock=reactor), True) as port:
        ws = await echoes("ws://localhost/", wrapClientTLS(trusting(), loopback(port)))
        assert uses_records(ws.transport)
        await ws.close()


@pytest_twisted.ensureDeferred
async def test_a_long_payload_is_read_in_long_chunks() -> None:
    sizes: list[int] = []

    class Sizing(WebSocketProtocol):
        """Notes how much the socket below TLS reads next, at each part of a message and at its end."""

        def fragment_received(self, data: bytes, opcode: Opcode, final: bool) -> None:
            socket: Any = self.transport
            sizes.append(socket.below.transport.bufferSize)
            if final:
                self.send("done")

    async with listening(WebSocketServerFactory(Sizing, clock=reactor), True) as port:
        ws = await connect("wss://localhost/", endpoint=loopback(port), tls=trusting())
        for message in (bytes(1 << 20), b"short"):
            ws.send(message)
            assert await ws.receive() == "done"
        await ws.close()
    if ON_UVLOOP:
        # uvloop reads up to 256 KB in any case; here the attribute is that of the written bytes, and stays.
        assert len(set(sizes)) == 1
    else:
        assert FileDescriptor.bufferSize < max(sizes) <= MAX_CHUNK
        assert sizes[-1] == FileDescriptor.bufferSize


class Plain(Protocol):
    """A protocol that has nothing to do with this package."""

    def __init__(self) -> None:
        self.received = b""
        self.answer: Callable[[bytes], object] = bytes
        self.lost: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.answer(data)

    def connectionLost(self, reason: Any = None) -> None:
        self.lost.callback(None)


class Attached(Plain):
    """A plain protocol on the compiled path, which only the uvloop reactor gives to every connection."""

    attached: object = None

    def connectionMade(self) -> None:
        self.attached = records.attach(self.transport)


@pytest_twisted.ensureDeferred
async def test_other_protocols_are_on_the_compiled_path_only_with_uvloop() -> None:
    server, client = Plain(), Plain()
    async with listening(Factory.forProtocol(lambda: server), True) as port:
        await wrapClientTLS(trusting(), loopback(port)).connect(Factory.forProtocol(lambda: client))
        server.answer = lambda data: server.transport.write(data)  # type: ignore[union-attr]
        for size in (1, 100_000):
            client.transport.write(b"x" * size)  # type: ignore[union-attr]

            def arrived(least: int = size) -> bool:
                return len(client.received) >= least

            await until(arrived)
        for end in (server, client):
            attached = "dataReceived" in vars(end.transport)
            assert attached is ON_UVLOOP
        client.transport.loseConnection()  # type: ignore[union-attr]
        await server.lost.addTimeout(PATIENCE, reactor)
        await client.lost.addTimeout(PATIENCE, reactor)


@pytest_twisted.ensureDeferred
async def test_the_peer_may_change_its_keys() -> None:
    """RFC 8446 §4.6.3: we reply to a key update request with a key update."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("KEY UPDATES ARE NOT TESTED: apt-get install openssl")
    server = Attached()
    server.answer = lambda data: server.transport.write(data.upper())  # type: ignore[union-attr]

    def talk(port: int) -> bytes:
        command = [openssl, "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_3"]
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        with subprocess.Popen(command, **streams) as peer:  # type: ignore[call-overload]
            hanging = threading.Timer(PATIENCE / 2, peer.kill)
            hanging.start()
            seen = b""
            # s_client updates both ends' keys at a line of "K", and exits at "Q".
            for line, answer in ((b"before\n", b"BEFORE\n"), (b"K\n", b"KEYUPDATE\n"), (b"after\n", b"AFTER\n")):
                peer.stdin.write(line)
                peer.stdin.flush()
                while not seen.endswith(answer) and (part := peer.stdout.readline()):
                    seen += part
            peer.stdin.write(b"Q\n")
            peer.stdin.flush()
            peer.wait()
            hanging.cancel()
            return seen

    # Older versions of Twisted do not enable TLS 1.3 by default.
    mine = identity()
    options = CertificateOptions(mine.privateKey.original, mine.original, raiseMinimumTo=TLSVersion.TLSv1_3)
    async with listening(Factory.forProtocol(lambda: server), options) as port:
        seen = await deferToThread(talk, port)
        assert seen.endswith(b"AFTER\n") and server.attached is not None
        await server.lost.addTimeout(PATIENCE, reactor)


def how_it_ends(port: int) -> str:
    """Connect, send a byte, and return how the server's data ends."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), PATIENCE) as plain,
        context.wrap_socket(plain, suppress_ragged_eofs=False) as secure,
    ):
        secure.send(b"x")
        try:
            return f"complete after {secure.recv(1)!r}"
        except OSError:
            return "truncated"


@pytest.mark.parametrize("path", ["compiled", "twisted"])
@pytest.mark.parametrize("started", [False, True], ids=["listened", "started"])
@pytest_twisted.ensureDeferred
async def test_an_abort_does_not_look_like_the_end_of_the_data(
    path: str, started: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 8446 §6.1: only a close_notify says that the data is complete."""
    monkeypatch.setenv(records.TLS_VARIABLE, path)
    records.unavailable.cache_clear()

    class Server(Plain):
        def connectionMade(self) -> None:
            if started:
                self.transport.startTLS(identity().options())  # type: ignore[union-attr]

    server = Server()
    # Not while it handles a chunk: then nothing waits for the end of the chunk.
    server.answer = lambda data: reactor.callLater(0, server.transport.abortConnection)  # type: ignore[union-attr]
    async with listening(Factory.forProtocol(lambda: server), not started) as port:
        ending = deferToThread(how_it_ends, port)
        await server.lost.addTimeout(PATIENCE, reactor)
        assert await ending == "truncated"
