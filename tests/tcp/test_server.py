"""A server over TCP and TLS; its clients, the `websockets` package and raw sockets, run in threads."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast
from weakref import WeakSet

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.tcp import Connection
from twisted.internet.threads import blockingCallFromThread, deferToThread
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from twisted_beastws import Limits, Request, Response, State, Timeouts, WebSocketProtocol, WebSocketServerFactory

from ..support.certificates import identity_pem
from ..support.frames import close, masked
from ..support.handshakes import upgrade_request
from ..support.loopback import listening, turn, uncollected, until
from ..support.patience import PATIENCE
from ..support.protocols import Commanded
from ..support.timing import ClockedReactor
from ..support.turns import in_turns
from ..support.ways import BOTH_WAYS

pytestmark = pytest.mark.usefixtures("logged")

T = TypeVar("T")

HEAD = upgrade_request()
FILES = Path("/proc/self/fd")
SIZES = (0, 1, 125, 126, 127, 65535, 65536, 65537, 1 << 20, 3 << 20)
WIDE = Limits(max_message_size=8 << 20, max_buffered=16 << 20)


class Kept(Commanded):
    """Echo messages; ``alive`` has the protocols that are still referenced.

    The factory's ``ends`` gets the close reason of each connection.
    """

    alive: ClassVar[WeakSet[WebSocketProtocol]] = WeakSet()
    ends: list[Any]
    closing = 4000, ""

    def connectionMade(self) -> None:
        self.alive.add(self)
        super().connectionMade()  # type: ignore[no-untyped-call]

    def closed(self, reason: Any) -> None:
        self.factory.ends.append(reason)


class Server:
    """A listening server, and methods to open clients to it."""

    def __init__(self, factory: WebSocketServerFactory, port: int, secure: bool) -> None:
        self.factory = factory
        self.port = port
        self.secure = secure

    @property
    def url(self) -> str:
        return f"ws{'s' * self.secure}://localhost:{self.port}/chat"

    @property
    def tls(self) -> ssl.SSLContext | None:
        if not self.secure:
            return None
        return in_turns(ssl.create_default_context(cadata=identity_pem().decode()))

    @property
    def states(self) -> list[State]:
        """The states of the connections."""
        return [connection.state for connection in self.factory.connections]

    @property
    def ends(self) -> list[Any]:
        return self.factory.ends  # type: ignore[attr-defined, no-any-return]

    def talk(self, conversation: Callable[[ClientConnection], T], **options: Any) -> Deferred[T]:
        """Run a conversation with a client of the `websockets` package, in a thread."""

        def run() -> T:
            options.update(open_timeout=PATIENCE, close_timeout=PATIENCE, proxy=None, max_size=None)
            with connect(self.url, ssl=self.tls, compression=None, **options) as client:
                return conversation(client)

        return deferToThread(run)

    @contextmanager
    def connected(self, receive_buffer: int | None = None) -> Iterator[Any]:
        """Yield a connected socket, over TLS if the server uses it."""
        with socket.socket() as plain:
            plain.settimeout(PATIENCE)
            # Otherwise a small write waits until the system acknowledges the last one, up to 40 ms later.
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if receive_buffer is not None:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            plain.connect(("127.0.0.1", self.port))
            tls = self.tls
            if tls is None:
                yield plain
                return
            with tls.wrap_socket(plain, server_hostname="localhost") as secured:
                yield secured

    @contextmanager
    def opened(self, receive_buffer: int | None = None) -> Iterator[Any]:
        """Yield a socket that has completed the opening handshake."""
        with self.connected(receive_buffer) as connection:
            connection.sendall(HEAD)
            assert read_head(connection).startswith(b"HTTP/1.1 101 ")
            yield connection

    def by_socket(self, conversation: Callable[[Any], T], opened: bool = True, **options: Any) -> Deferred[T]:
        """Run a conversation over a socket, in a thread."""

        def run() -> T:
            with (self.opened if opened else self.connected)(**options) as connection:
                return conversation(connection)

        return deferToThread(run)


def read_head(connection: Any) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        octet = connection.recv(1)
        assert octet, head
        head += octet
    return head


def read(connection: Any, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = connection.recv(min(1 << 16, size - len(data)))
        assert part, f"ended after {len(data)} octets of {size}"
        data += part
    return bytes(data)


def read_all(connection: Any) -> bytes:
    """Return all data up to the end of the connection; a reset raises."""
    data = bytearray()
    while part := connection.recv(1 << 16):
        data += part
    return bytes(data)


@asynccontextmanager
async def serve(protocol: Any = Kept, secure: bool = False, **options: Any) -> AsyncIterator[Server]:
    """Yield a server; wait at the end until no connection and no timer is left."""
    before = set(reactor.getDelayedCalls())
    factory = WebSocketServerFactory(protocol, **options)
    factory.ends = []  # type: ignore[attr-defined]
    async with listening(factory, secure) as port:
        yield Server(factory, port, secure)
        await until(lambda: not factory.connections)
    # The timers of TLS and of the reactor end a moment later.
    await until(lambda: set(reactor.getDelayedCalls()) <= before)


class TestEcho:
    """Clients and servers that talk with each other."""

    @BOTH_WAYS
    @pytest_twisted.ensureDeferred
    async def test_messages_of_every_size_are_echoed(self, secure: bool) -> None:
        def conversation(client: ClientConnection) -> None:
            for size in SIZES:
                for message in (bytes(size), "\N{EURO SIGN}" * (size // 3) + "x" * (size % 3)):
                    client.send(message)
                    assert client.recv(timeout=PATIENCE) == message

        async with serve(secure=secure, limits=WIDE) as server:
            await server.talk(conversation)
        assert server.ends[0].clean

    @BOTH_WAYS
    @pytest_twisted.ensureDeferred
    async def test_fragments_are_echoed(self, secure: bool) -> None:
        def conversation(client: ClientConnection) -> None:
            client.send(iter([b"a" * 70_000, b"", b"b", b"c" * 200_000]))
            assert client.recv(timeout=PATIENCE) == b"a" * 70_000 + b"b" + b"c" * 200_000

        async with serve(secure=secure) as server:
            await server.talk(conversation)

    @BOTH_WAYS
    @pytest_twisted.ensureDeferred
    async def test_many_messages_at_once_are_echoed(self, secure: bool) -> None:
        """The client sends all messages before it reads any; the server buffers the echoes."""

        def conversation(client: ClientConnection) -> None:
            messages = [bytes((number & 0xFF,)) * (number * 37 % 5000) for number in range(500)]
            for message in messages:
                client.send(message)
            for message in messages:
                assert client.recv(timeout=PATIENCE) == message

        async with serve(secure=secure, limits=WIDE) as server:
            await server.talk(conversation)

    @pytest_twisted.ensureDeferred
    async def test_many_clients_are_served(self) -> None:
        async def client(url: str, name: int) -> None:
            async with connect_async(url, open_timeout=PATIENCE, compression=None, proxy=None) as ws:
                for number in range(20):
                    await ws.send(f"{name}: {number}")
                    assert await asyncio.wait_for(ws.recv(), PATIENCE) == f"{name}: {number}"

        async def clients(url: str) -> None:
            await asyncio.gather(*(client(url, name) for name in range(50)))

        async with serve() as server:
            await deferToThread(lambda: asyncio.run(clients(server.url)))
        assert len(server.ends) == 50
        assert all(end.clean for end in server.ends)

    @BOTH_WAYS
    @pytest_twisted.ensureDeferred
    async def test_a_coroutine_can_echo(self, secure: bool) -> None:
        async def echo(ws: WebSocketProtocol) -> None:
            async for message in ws:
                ws.send(message)
                await ws.drain()

        def conversation(client: ClientConnection) -> None:
            for size in SIZES:
                client.send(bytes(size))
                assert client.recv(timeout=PATIENCE) == bytes(size)

        async with serve(echo, secure, limits=WIDE) as server:
            await server.talk(conversation)


@pytest_twisted.ensureDeferred
async def test_messages_of_the_hooks_of_a_chunk_are_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def noting(call: str, function: Any) -> Any:
        def noted(*arguments: Any) -> Any:
            calls.append(call)
            return function(*arguments)

        return noted

    class Handle:
        def __init__(self, socket: Any) -> None:
            self.send = noting("write", socket.send)

    def conversation(connection: Any) -> None:
        calls.clear()
        connection.sendall(masked(0x81, b"x" * 20) * 1000)
        assert read(connection, 22_000) == (b"\x81\x14" + b"x" * 20) * 1000
        counts.append((calls.count("write"), calls.count("read")))

    counts: list[tuple[int, int]] = []
    if hasattr(reactor, "native"):
        from twisted_beastws.uvreactor import transport

        ungathered = transport.NativeConnection.ungathered
        monkeypatch.setattr(
            transport.NativeConnection, "data_received", noting("read", transport.NativeConnection.data_received)
        )
        monkeypatch.setattr(transport.NativeConnection, "ungathered", lambda self: Handle(ungathered(self)))
    else:
        handle = Connection.getHandle
        # Twisted's own method for each chunk shows how many there are.
        monkeypatch.setattr(Connection, "_dataReceived", noting("read", Connection._dataReceived))
        monkeypatch.setattr(Connection, "getHandle", lambda self: Handle(handle(self)))
    # On a busy machine a time budget could end a turn within the chunk.
    async with serve(limits=Limits(max_messages_per_turn=None, max_seconds_per_turn=None)) as server:
        await server.by_socket(conversation)
    ((writes, reads),) = counts
    assert 1 <= writes <= reads < 10


class TestHandshake:
    """RFC 6455 §4.2: handshakes over TCP and TLS."""

    @BOTH_WAYS
    @pytest_twisted.ensureDeferred
    async def test_a_client_may_try_again_after_a_refusal(self, secure: bool) -> None:
        def conversation(connection: Any) -> None:
            connection.sendall(HEAD.replace(b"GET", b"PUT") + HEAD + masked(0x81, b"hi"))
            refusal = read_head(connection)
            assert refusal.startswith(b"HTTP/1.1 400 Bad Request\r\n")
            assert b"\r\nContent-Length: 42\r\n" in refusal
            assert read(connection, 42) == b"The WebSocket handshake method was not GET"
            assert read_head(connection).startswith(b"HTTP/1.1 101 ")
            assert read(connection, 4) == b"\x81\x02hi"

        async with serve(secure=secure) as server:
            await server.by_socket(conversation, opened=False)

    @BOTH_WAYS
    @pytest.mark.parametrize("behind", [0, 100, 5 << 20], ids=["nothing", "little", "much"])
    @pytest.mark.parametrize(
        ("sent", "status"),
        [
            (b"\n", 400),
            (b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000, 431),
            (HEAD.replace(b"GET", b"POST")[:-2] + b"Content-Length: 10000000\r\n\r\n", 400),
            (b"GET / HTTP/1.0\r\n\r\n", 400),
        ],
        ids=["garbage", "large", "body", "1.0"],
    )
    @pytest_twisted.ensureDeferred
    async def test_the_answer_is_read_though_more_bytes_were_sent(
        self, secure: bool, sent: bytes, status: int, behind: int
    ) -> None:
        def conversation(connection: Any) -> bytes:
            connection.sendall(sent + bytes(behind))
            return read_all(connection)

        async with serve(secure=secure) as server:
            answer = await server.by_socket(conversation, opened=False)
        assert answer.startswith(b"HTTP/1.%d %d " % (b"HTTP/1.0" not in sent, status))
        assert b"\r\nConnection: close\r\n" in answer

    @pytest_twisted.ensureDeferred
    async def test_requests_of_a_client_that_ends_its_side_are_answered_although_a_hook_takes_time(self) -> None:
        class Slow(Kept):
            def connectionMade(self) -> None:
                self.finished: Deferred[None] = Deferred()

            def readConnectionLost(self) -> None:
                super().readConnectionLost()
                self.finished.callback(None)

            async def http_requested(self, request: Request) -> Response:
                await self.finished
                return Response(200, body=request.path)

        def conversation(connection: Any) -> bytes:
            for path in (b"/one", b"/two"):
                connection.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            return read_all(connection)

        async with serve(Slow) as server:
            answers = await server.by_socket(conversation, opened=False)
        assert answers.count(b"HTTP/1.1 200 OK\r\n") == 2
        assert answers.count(b"Connection: close\r\n") == 1
        assert answers.endswith(b"\r\n\r\n/two")

    @pytest_twisted.ensureDeferred
    async def test_a_client_that_ends_its_side_at_once_gets_a_page(self) -> None:
        class Page(Kept):
            def http_requested(self, request: Request) -> Response:
                return Response(200, body="x" * 100_000)

        def conversation(connection: Any) -> bytes:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            return read_all(connection)

        async with serve(Page) as server:
            page = await server.by_socket(conversation, opened=False)
        assert page.endswith(b"\r\n\r\n" + b"x" * 100_000)

    @pytest_twisted.ensureDeferred
    async def test_the_status_is_seen_by_a_client(self) -> None:
        class Closed(Kept):
            def upgrade_requested(self, request: Request) -> Response:
                return Response(403, body="members only")

        async with serve(Closed) as server:
            with pytest.raises(InvalidStatus) as error:
                await server.talk(lambda client: None)
        assert (error.value.response.status_code, error.value.response.body) == (403, b"members only")

    @pytest_twisted.ensureDeferred
    async def test_the_subprotocol_is_seen_by_a_client(self) -> None:
        async with serve(subprotocols=["b", "a"]) as server:
            chosen = await server.talk(lambda client: client.subprotocol, subprotocols=["a", "b"])
        assert chosen == "b"

    @pytest_twisted.ensureDeferred
    async def test_three_hundred_clients_that_send_half_a_head_are_dropped_at_the_timeout(self) -> None:
        clock = ClockedReactor()
        with ExitStack() as sockets:
            async with serve(timeouts=Timeouts(handshake=10.0), clock=clock) as server:
                files = len(list(FILES.iterdir())) if FILES.is_dir() else 0
                clients = []
                for number in range(300):
                    one = sockets.enter_context(socket.create_connection(("127.0.0.1", server.port), PATIENCE))
                    one.sendall(HEAD[: number % len(HEAD)])
                    clients.append(one)
                await until(lambda: len(server.factory.connections) == 300)
                clock.advance(9.0)
                await turn()
                assert len(server.factory.connections) == 300
                clock.advance(2.0)
                await until(lambda: not server.factory.connections)
                if FILES.is_dir():
                    await until(lambda: len(list(FILES.iterdir())) <= files + len(clients))
                assert [one.recv(100) for one in clients] == [b""] * 300
        assert server.ends == []

    @pytest_twisted.ensureDeferred
    async def test_a_client_that_offers_http_by_alpn_is_accepted(self) -> None:
        """Browsers offer it (RFC 7301 §3.1)."""

        def conversation() -> str | None:
            tls = server.tls
            assert tls is not None
            tls.set_alpn_protocols(["http/1.1"])
            plain = socket.create_connection(("127.0.0.1", server.port), PATIENCE)
            with tls.wrap_socket(plain, server_hostname="localhost") as connection:
                connection.sendall(HEAD)
                assert read_head(connection).startswith(b"HTTP/1.1 101 ")
                return connection.selected_alpn_protocol()

        async with serve(secure=True) as server:
            assert await deferToThread(conversation) == "http/1.1"

    @pytest_twisted.ensureDeferred
    async def test_plain_text_to_tls_is_refused(self) -> None:
        async with serve(secure=True) as server:
            with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as connection:
                connection.sendall(HEAD)
                with suppress(ConnectionResetError):
                    assert b"HTTP" not in await deferToThread(read_all, connection)


FAULTS = {
    "bad opcode": (masked(0x83), 1002),
    "not UTF-8": (masked(0x81, b"\xff"), 1007),
    "too big": (b"\x82\xff" + (1 << 40).to_bytes(8, "big") + bytes(4), 1009),
    "a fault of the application": (masked(0x81, b"fail"), 1011),
}


class TestTheCloseCode:
    """RFC 6455 §7.1.1: the peer can read the close code in every case."""

    @BOTH_WAYS
    @pytest.mark.parametrize("behind", [0, 5 << 20], ids=["silent", "sending"])
    @pytest.mark.parametrize("fault", FAULTS)
    @pytest_twisted.ensureDeferred
    async def test_the_code_of_a_failure_is_read(
        self, logged: Callable[..., list[Any]], secure: bool, fault: str, behind: int
    ) -> None:
        sent, code = FAULTS[fault]

        def conversation(connection: Any) -> bytes:
            connection.sendall(sent)
            connection.sendall(bytes(behind))
            return read_all(connection)

        async with serve(secure=secure) as server:
            assert await server.by_socket(conversation) == close(code)
        assert server.ends[0].sent.code == code
        assert len(logged(ZeroDivisionError)) == (code == 1011)

    @BOTH_WAYS
    @pytest_twisted.ensureDeferred
    async def test_the_code_is_read_after_pending_data(self, logged: Callable[..., list[Any]], secure: bool) -> None:
        def conversation(connection: Any) -> bytes:
            connection.sendall(masked(0x82, bytes(1 << 20)) * 3 + masked(0x81, b"fail"))
            time.sleep(0.1)
            return read_all(connection)

        async with serve(secure=secure, limits=Limits(fragment_size=None)) as server:
            data = await server.by_socket(conversation)
        assert data == (b"\x82\x7f\0\0\0\0\0\x10\0\0" + bytes(1 << 20)) * 3 + close(1011)
        assert len(logged(ZeroDivisionError)) == 1

    @BOTH_WAYS
    @pytest_twisted.ensureDeferred
    async def test_the_code_of_our_close_is_read(self, secure: bool) -> None:
        """The server closes TCP first (RFC 6455 §7.1.1)."""

        def conversation(connection: Any) -> None:
            connection.sendall(masked(0x81, b"close"))
            assert read(connection, 4) == close(4000)
            connection.sendall(masked(0x88, b"\x0f\xa0"))
            assert read_all(connection) == b""

        async with serve(secure=secure) as server:
            await server.by_socket(conversation)
        assert (server.ends[0].clean, server.ends[0].began, server.ends[0].code) == (True, "local", 4000)

    @BOTH_WAYS
    @pytest_twisted.ensureDeferred
    async def test_the_code_of_the_peers_close_is_read(self, secure: bool) -> None:
        def conversation(connection: Any) -> None:
            connection.sendall(masked(0x81, b"hi") + masked(0x88, b"\x0f\xa0bye") + bytes(1000))
            assert read_all(connection) == b"\x81\x02hi" + close(4000)

        async with serve(secure=secure) as server:
            await server.by_socket(conversation)
        assert (server.ends[0].clean, server.ends[0].began, server.ends[0].reason) == (True, "peer", "bye")

    @BOTH_WAYS
    @pytest_twisted.ensureDeferred
    async def test_the_code_is_seen_by_a_client(self, secure: bool) -> None:
        def conversation(client: ClientConnection) -> None:
            client.send("close")
            with pytest.raises(ConnectionClosed) as error:
                client.recv(timeout=PATIENCE)
            assert error.value.rcvd is not None
            assert error.value.rcvd.code == 4000

        async with serve(secure=secure) as server:
            await server.talk(conversation)
        assert server.ends[0].clean

    @BOTH_WAYS
    @pytest_twisted.ensureDeferred
    async def test_a_peer_that_never_stops_sending_is_dropped_at_the_close_timeout(self, secure: bool) -> None:
        sent = 0

        def conversation(connection: Any) -> None:
            nonlocal sent
            connection.sendall(masked(0x83))
            with suppress(OSError):
                while True:
                    connection.sendall(bytes(1 << 16))
                    sent += 1 << 16

        clock = ClockedReactor()
        async with serve(secure=secure, timeouts=Timeouts(close=10.0), clock=clock) as server:
            sending = server.by_socket(conversation)
            await until(lambda: server.states == [State.CLOSING])
            # More bytes than the sockets' buffers hold, so the server reads and discards them.
            before = sent
            await until(lambda: sent > before + (32 << 20))
            clock.advance(11.0)
            await sending

    @BOTH_WAYS
    @pytest_twisted.ensureDeferred
    async def test_a_peer_that_never_leaves_is_dropped_at_the_close_timeout(self, secure: bool) -> None:
        def conversation(connection: Any) -> None:
            connection.sendall(masked(0x83))
            assert read(connection, 4) == close(1002)
            assert ended.wait(PATIENCE)

        clock, ended = ClockedReactor(), threading.Event()
        async with serve(secure=secure, timeouts=Timeouts(close=10.0), clock=clock) as server:
            waiting = server.by_socket(conversation)
            await until(lambda: server.states == [State.CLOSING])
            clock.advance(11.0)
            await until(lambda: server.ends)
            ended.set()
            await waiting

    @BOTH_WAYS
    @pytest_twisted.ensureDeferred
    async def test_the_code_of_a_drain_is_read(self, secure: bool) -> None:
        def conversation(client: ClientConnection) -> int:
            with pytest.raises(ConnectionClosed) as error:
                client.recv(timeout=PATIENCE)
            assert error.value.rcvd is not None
            return error.value.rcvd.code

        async with serve(secure=secure) as server:
            talks = [server.talk(conversation) for _ in range(5)]
            await until(lambda: len([one for one in server.factory.connections if one.response is not None]) == 5)
            await server.factory.drain().addTimeout(PATIENCE, reactor)
            assert [await talk for talk in talks] == [1001] * 5


class TestHalfClose:
    """The peer or the server half-closes TCP."""

    @pytest_twisted.ensureDeferred
    async def test_all_answers_can_be_read_after_a_half_close(self) -> None:
        def conversation(connection: Any) -> bytes:
            connection.sendall(masked(0x82, bytes(1 << 20)) * 3)
            connection.shutdown(socket.SHUT_WR)
            time.sleep(0.2)
            return read_all(connection)

        async with serve(limits=Limits(fragment_size=None)) as server:
            assert await server.by_socket(conversation) == (b"\x82\x7f\0\0\0\0\0\x10\0\0" + bytes(1 << 20)) * 3
        assert (server.ends[0].code, server.ends[0].began) == (1006, "transport")

    @pytest_twisted.ensureDeferred
    async def test_a_half_close_after_a_close_frame_is_clean(self) -> None:
        def conversation(connection: Any) -> bytes:
            connection.sendall(masked(0x88, b"\x03\xe8"))
            connection.shutdown(socket.SHUT_WR)
            return read_all(connection)

        async with serve() as server:
            assert await server.by_socket(conversation) == close(1000)
        assert server.ends[0].clean


def reset(connection: Any) -> None:
    """Close the connection with a TCP reset."""
    linger = struct.pack("ii", 1, 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    socket.socket(fileno=connection.detach()).close()


class TestReset:
    """The peer resets the connection."""

    @BOTH_WAYS
    @pytest.mark.parametrize("sent", [b"", HEAD[:40], b"\r\n", HEAD.replace(b"GET", b"PUT")])
    @pytest_twisted.ensureDeferred
    async def test_a_reset_in_the_handshake_is_quiet(self, secure: bool, sent: bytes) -> None:
        def conversation(connection: Any) -> None:
            connection.sendall(sent)
            reset(connection)

        async with serve(secure=secure) as server:
            await server.by_socket(conversation, opened=False)
        assert server.ends == []

    @BOTH_WAYS
    @pytest.mark.parametrize(
        "sent", [b"", b"\x81", masked(0x81, b"hi"), masked(0x82, bytes(1 << 20)) * 3, masked(0x88)]
    )
    @pytest_twisted.ensureDeferred
    async def test_a_reset_of_an_open_connection_is_reported_once(self, secure: bool, sent: bytes) -> None:
        def conversation(connection: Any) -> None:
            connection.sendall(sent)
            reset(connection)

        async with serve(secure=secure) as server:
            await server.by_socket(conversation)
            await until(lambda: server.ends)
        assert len(server.ends) == 1


class TestSlowReader:
    """A peer that reads slowly, or never."""

    @BOTH_WAYS
    @pytest.mark.parametrize("policy", ["close", "drop", "pause"])
    @pytest_twisted.ensureDeferred
    async def test_a_slow_reader_does_not_cost_more_than_its_limit(self, secure: bool, policy: Any) -> None:
        """Whole messages arrive in order, then a close frame; the write buffer stays within its limit."""
        most = 0
        message = bytes(50_000)

        class Flood(Kept):
            def opened(self) -> None:
                nonlocal most
                for _ in range(400):
                    try:
                        self.send(message)
                    except Exception:
                        break
                    most = max(most, self.buffered_amount)
                if policy != "close":
                    self.close()

        whole = b"\x82\x7e\xc3\x50" + message
        last = close(1000) if policy != "close" else b"\x88\x13\x03\xf5too slow a reader"

        def conversation(connection: Any) -> bytes:
            time.sleep(0.2)
            data = bytearray()
            while not data.endswith(last):
                part = connection.recv(1 << 16)
                assert part, "no close frame"
                data += part
            connection.sendall(masked(0x88, last[2:4]))
            return bytes(data) + read_all(connection)

        limits = Limits(max_message_size=1_000_000, max_buffered=1_000_000, slow_reader=policy)
        async with serve(Flood, secure, limits=limits) as server:
            data = await server.by_socket(conversation, receive_buffer=4096)
        messages, rest = divmod(len(data) - len(last), len(whole))
        assert rest == 0
        assert data == whole * messages + last
        assert 1 <= messages < 400
        assert 500_000 < most <= 1_000_000 + 2 * len(whole) + (1 << 16)

    @BOTH_WAYS
    @pytest_twisted.ensureDeferred
    async def test_a_peer_that_pings_and_never_reads_costs_little_memory(self, secure: bool) -> None:
        most = 0

        class Watched(Kept):
            def ping_received(self, payload: bytes) -> None:
                nonlocal most
                most = max(most, self.buffered_amount)

        def conversation(connection: Any) -> None:
            for _ in range(100):
                connection.sendall(masked(0x89, bytes(125)) * 1000)

        async with serve(Watched, secure) as server:
            await server.by_socket(conversation, receive_buffer=4096)
        assert most < 1 << 18


class TestTimeouts:
    """Pings and the idle timeout, over TCP."""

    @BOTH_WAYS
    @pytest_twisted.ensureDeferred
    async def test_a_silent_peer_gets_pings_and_is_closed(self, secure: bool) -> None:
        def passing(seconds: float) -> None:
            blockingCallFromThread(cast(IReactorFromThreads, reactor), clock.advance, seconds)

        def conversation(connection: Any) -> bytes:
            for seconds in (5.0, 4.0):
                passing(seconds)
                assert read(connection, 2) == b"\x89\x00"
            passing(2.0)
            return read_all(connection)

        clock = ClockedReactor()
        timeouts = Timeouts(ping_interval=4.0, idle=10.0)
        async with serve(secure=secure, timeouts=timeouts, clock=clock) as server:
            assert await server.by_socket(conversation) == b"\x88\x1f\x03\xf3nothing was received for 10 s"

    @pytest_twisted.ensureDeferred
    async def test_a_client_that_answers_pings_stays(self) -> None:
        pongs: list[bytes] = []

        class Answered(Kept):
            def pong_received(self, payload: bytes) -> None:
                pongs.append(payload)

        def conversation(client: ClientConnection) -> None:
            assert passed.wait(PATIENCE)
            client.send("still here")
            assert client.recv(timeout=PATIENCE) == "still here"

        clock, passed = ClockedReactor(), threading.Event()
        async with serve(Answered, timeouts=Timeouts(ping_interval=4.0, idle=10.0), clock=clock) as server:
            talking = server.talk(conversation)
            await until(lambda: server.states == [State.OPEN])
            for count in range(1, 6):
                clock.advance(5.0)
                await until(lambda: len(pongs) == count)  # noqa: B023
            passed.set()
            await talking
        assert server.ends[0].clean


def leaves(connection: Any) -> None: ...


def waits(connection: Any) -> None:
    with suppress(OSError):
        read_all(connection)


ENDS: dict[str, tuple[bool, bytes, Callable[[Any], object]]] = {
    "no request": (False, b"", leaves),
    "half a request": (False, HEAD[:40], leaves),
    "a refused request": (False, HEAD.replace(b"GET", b"PUT"), leaves),
    "not HTTP": (False, b"\n", read_all),
    "half a request and time": (False, HEAD[:40], read_all),
    "lost": (True, b"", leaves),
    "reset": (True, masked(0x81, b"hi"), reset),
    "peer closes": (True, masked(0x88, b"\x03\xe8"), read_all),
    "we close": (True, masked(0x81, b"close") + masked(0x88, b"\x0f\xa0"), read_all),
    "we close and nobody answers": (True, masked(0x81, b"close"), waits),
    "we abort": (True, masked(0x81, b"abort"), waits),
    "bad opcode": (True, masked(0x83), read_all),
    "not UTF-8": (True, masked(0x81, b"\xff"), read_all),
    "silence": (True, b"", read_all),
}
"""Whether the client opens its connection, the bytes that it then sends, and its way to the end."""
TIMEOUT_STATES = {
    "half a request and time": State.CONNECTING,
    "we close and nobody answers": State.CLOSING,
    "silence": State.OPEN,
}
"""The state in which a connection waits for its timeout, for each end that a timeout brings."""


class TestEnds:
    """Nothing is left, however a connection ends."""

    @BOTH_WAYS
    @pytest.mark.parametrize("end", ENDS)
    @pytest_twisted.ensureDeferred
    async def test_nothing_is_left_however_a_connection_ends(self, secure: bool, end: str) -> None:
        opened, data, finish = ENDS[end]
        clock, sent = ClockedReactor(), threading.Event()
        timeouts = Timeouts(handshake=10.0, idle=10.0, ping_interval=None, close=10.0)

        def conversation(connection: Any) -> None:
            connection.sendall(data)
            sent.set()
            finish(connection)

        async def talked() -> None:
            async with serve(secure=secure, timeouts=timeouts, clock=clock) as server:
                talking = server.by_socket(conversation, opened=opened)
                if end in TIMEOUT_STATES:
                    await until(lambda: sent.is_set() and server.states == [TIMEOUT_STATES[end]])
                    # The server reads the data.
                    await turn()
                    await turn()
                    clock.advance(11.0)
                await talking
            assert len(server.ends) == opened

        # Without garbage collection, a protocol in a reference cycle would stay in `Kept.alive`.
        with uncollected():
            await talked()
            await until(lambda: not Kept.alive)
