"""Long payloads over TCP: the transport receives them into the memory that they are delivered from."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Protocol
from twisted.internet.threads import deferToThread
from websockets.sync.client import ClientConnection

from twisted_beastws import Limits, State, WebSocketProtocol, connect, trace_frames
from twisted_beastws.budget import MemoryBudget
from twisted_beastws.connection.reading import Reading
from twisted_beastws.errors import RateExceeded
from twisted_beastws.wire.codec import ACCELERATED

from ..support.frames import masked
from ..support.loopback import serving, turn, uncollected, until
from ..support.patience import PATIENCE
from ..support.ways import BOTH_WAYS
from .test_server import Kept, Server, read, read_all, serve

pytestmark = [
    pytest.mark.usefixtures("logged"),
    pytest.mark.skipif(not ACCELERATED, reason="the pure codec receives no bytes in place"),
]

MIB = 1 << 20
BEGINNING = 256_000
"""The most bytes of a message that come in a chunk, before its header is known: uvloop's buffer."""
MESSAGES: list[str | bytes] = ["x" * MIB, bytes(MIB), "\u00e9" * (MIB // 2)]
LONG = masked(0x82, bytes(MIB))
CLOSE = masked(0x88, b"\x03\xe8")
HALF = len(LONG) // 2
SIZE_OF_ECHO = MIB + 4 * 10
"""The echo comes in four frames of 256 KiB."""


running: Any = reactor


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the parts that are received in place."""
    noted: list[int] = []
    placed = Reading.placed

    def note(reading: Reading, size: int) -> None:
        noted.append(size)
        placed(reading, size)

    monkeypatch.setattr(Reading, "placed", note)
    return noted


@asynccontextmanager
async def half_sent(server: Server, answered: bool = True) -> AsyncIterator[Callable[..., Deferred[None]]]:
    """Send half of a long message to the server, and yield a function that sends the rest and awaits the echo.

    Its argument, for an end without an echo, is ``close``, ``abort``, ``lost`` or ``reset``.
    """
    with ExitStack() as stack:

        def begin() -> Any:
            connection = stack.enter_context(server.opened())
            connection.sendall(LONG[:HALF])
            return connection

        connection = await deferToThread(begin)

        def end(how: str = "") -> None:
            if how == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if how in ("lost", "reset"):
                connection.close()
                return
            with suppress(OSError):
                connection.sendall(LONG[HALF:] + CLOSE * (how == "close"))
            if how:
                with suppress(OSError):
                    read_all(connection)
            elif answered:
                assert len(read(connection, SIZE_OF_ECHO)) == SIZE_OF_ECHO

        yield partial(deferToThread, end)


def flood(count: int, connection: Any) -> None:
    """Send long messages and a Close frame, and read until the end."""
    with suppress(OSError):
        for _ in range(count):
            connection.sendall(LONG)
        connection.sendall(CLOSE)
        read_all(connection)


def protocol_of(server: Server) -> Any:
    (protocol,) = server.factory.connections
    return protocol


class TestMessages:
    """RFC 6455 §6.2: long messages over TCP and the memory that they take (`docs/performance.md`)."""

    @pytest_twisted.ensureDeferred
    async def test_long_messages_are_received_in_place(self, sizes: list[int]) -> None:
        def conversation(client: ClientConnection) -> None:
            for message in MESSAGES:
                client.send(message)
                assert client.recv(timeout=PATIENCE) == message

        async with serve() as server:
            await server.talk(conversation)
        assert sum(sizes) > len(MESSAGES) * (MIB - BEGINNING)

    @pytest_twisted.ensureDeferred
    async def test_short_messages_come_in_chunks_again(self, sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
        """Else each chunk of the connection would cost another look at the clock."""
        ends: list[int] = []
        chunks_only = Reading.chunks_only

        def note(reading: Reading) -> None:
            ends.append(len(sizes))
            chunks_only(reading)

        def conversation(client: ClientConnection) -> None:
            for message in (bytes(MIB), b"short", b"short", bytes(MIB), b"short"):
                client.send(message)
                assert client.recv(timeout=PATIENCE) == message

        monkeypatch.setattr(Reading, "chunks_only", note)
        async with serve() as server:
            await server.talk(conversation)
        first, second = ends
        assert 0 < first < second == len(sizes)

    @pytest_twisted.ensureDeferred
    async def test_a_client_receives_long_messages_in_place(self, sizes: list[int]) -> None:
        async with serving(limits=Limits(fragment_size=None, max_buffered=4 * MIB)) as url:
            ws = await connect(url, limits=Limits(fragment_size=1 << 16))
            for message in MESSAGES:
                ws.send(message)
                assert await ws.receive() == message
            await ws.close()
        # The server received fragments.
        assert sum(sizes) > len(MESSAGES) * (MIB - BEGINNING)

    @BOTH_WAYS
    @pytest_twisted.ensureDeferred
    async def test_messages_of_all_lengths_follow_one_another(self, sizes: list[int], secure: bool) -> None:
        lengths = [MIB, 0, 1, 5000, 70_000, 300_000, 4096, 4097, *[10] * 2000, MIB, 65_536, MIB, 3]
        received: list[bytes] = []

        class Taking(WebSocketProtocol):
            def binary_received(self, data: bytes) -> None:
                received.append(data)
                if len(data) == 3:
                    self.close()

        def conversation(connection: Any) -> None:
            key = b"\1\2\3\4"
            connection.sendall(b"".join(masked(0x82, bytes((size & 0xFF,)) * size, key) for size in lengths) + CLOSE)
            assert read_all(connection) == b"\x88\x02\x03\xe8"

        # A small budget also interrupts the chunks between the payloads.
        limits = Limits(max_messages_per_turn=100, max_seconds_per_turn=None)
        async with serve(Taking, secure, limits=limits) as server:
            await server.by_socket(conversation)
        assert received == [bytes((size & 0xFF,)) * size for size in lengths]
        # TLS decrypts.
        assert (sum(sizes) > 0) is not secure

    @pytest_twisted.ensureDeferred
    async def test_the_memory_budget_counts_bytes_in_place(self, sizes: list[int]) -> None:
        budget = MemoryBudget(64 * MIB)
        async with serve(budget=budget) as server, half_sent(server) as rest_sent:
            # The header has 14 bytes.
            await until(lambda: budget.used == HALF - 14)
            await rest_sent()
        assert sizes

    @pytest_twisted.ensureDeferred
    async def test_a_limit_on_the_bytes_a_second_counts_long_messages(self, sizes: list[int]) -> None:
        async with serve(limits=Limits(max_byte_rate=1000)) as server:
            await server.by_socket(partial(flood, 20))
            await until(lambda: server.ends)
        assert isinstance(server.ends[0].error, RateExceeded) and not sizes

    @pytest_twisted.ensureDeferred
    async def test_one_turn_of_the_reactor_receives_for_the_time_of_a_turn(self, sizes: list[int]) -> None:
        """The budget is spent at once, so each turn receives one part."""
        turns: list[int] = []

        class Taking(WebSocketProtocol):
            def opened(self) -> None:
                self.parts = 0
                self.count()

            def count(self) -> None:
                turns.append(len(sizes) - self.parts)
                self.parts = len(sizes)
                if self.state is State.OPEN:
                    running.callLater(0, self.count)

            def binary_received(self, data: bytes) -> None:
                self.close()

        async with serve(Taking, limits=Limits(max_seconds_per_turn=1e-9)) as server:
            await server.by_socket(partial(flood, 1))
        assert len(sizes) > 1 and max(turns) == 1

    @pytest_twisted.ensureDeferred
    async def test_the_bytes_of_a_traced_connection_pass_through_the_trace(self, sizes: list[int]) -> None:
        class Traced(Kept):
            def opened(self) -> None:
                super().opened()
                trace_frames(self)

        def conversation(client: ClientConnection) -> None:
            client.send(bytes(MIB))
            assert client.recv(timeout=PATIENCE) == bytes(MIB)

        async with serve(Traced) as server:
            await server.talk(conversation)
        assert not sizes


class TestInterruptions:
    """A pause, another protocol or the end comes within a payload."""

    @pytest_twisted.ensureDeferred
    async def test_a_paused_connection_receives_the_rest_later(self, sizes: list[int]) -> None:
        async with serve() as server, half_sent(server) as rest_sent:
            await until(lambda: sizes)
            ws = protocol_of(server)
            ws.pauseProducing()
            sent = rest_sent()
            await turn(0.01)
            ws.resumeProducing()
            await sent

    @pytest_twisted.ensureDeferred
    async def test_another_protocol_gets_the_bytes_that_follow(self, sizes: list[int]) -> None:
        """As after startTLS, which gives the transport to TLS."""

        class Noting(Protocol):
            size = 0

            def dataReceived(self, data: bytes) -> None:
                self.size += len(data)

        class Caught(Kept):
            wire: Any

            def makeConnection(self, transport: Any) -> None:
                self.wire = transport
                super().makeConnection(transport)

        budget = MemoryBudget(64 * MIB)
        async with serve(Caught, budget=budget) as server, half_sent(server, answered=False) as rest_sent:
            await until(lambda: sizes and budget.used == HALF - 14)
            ws, other = protocol_of(server), Noting()
            ws.wire.protocol = other
            await rest_sent()
            await until(lambda: other.size == len(LONG) - HALF)
            ws.wire.protocol = ws
            await rest_sent("lost")

    @pytest.mark.parametrize("how", ["close", "abort", "lost", "reset"])
    @pytest_twisted.ensureDeferred
    async def test_a_connection_that_ends_in_a_payload_leaves_nothing(self, sizes: list[int], how: str) -> None:
        with uncollected():
            async with serve() as server, half_sent(server, answered=False) as rest_sent:
                await until(lambda: sizes)
                if how == "close":
                    protocol_of(server).close()
                elif how == "abort":
                    protocol_of(server).abort()
                await rest_sent(how)
                await until(lambda: server.ends)
            assert server.ends[0].clean is (how == "close")
            if how == "reset":
                assert isinstance(server.ends[0].error, ConnectionLost)
            await until(lambda: not Kept.alive)
