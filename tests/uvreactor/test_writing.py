"""Tests of writes to a peer that does not read: few objects are buffered, and every byte arrives in order."""

from __future__ import annotations

import random
import socket
from typing import Any

import pytest
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.task import deferLater

from twisted_beastws.uvreactor.writing import MOST_GATHERED

from .test_transport import Noting, Served, writes

pytestmark = pytest.mark.usefixtures("logged")

COUNT = 100_000


FILL = 16 << 20
"""A number of bytes that exceeds the system's buffers."""


async def stall(served: Served) -> None:
    """Fill the system's buffers; the peer does not read."""
    # Wait one turn: while the connection is being made, the transport gathers writes.
    await deferLater(served.reactor, 0)
    served.protocol.transport.write(bytes(FILL))


async def received(served: Served, size: int) -> bytes:
    def read() -> bytes:
        data = bytearray()
        while len(data) < size and (part := served.socket.recv(1 << 20)):
            data += part
        return bytes(data)

    data: bytes = await served.call(read)
    return data


class TestStalledPeer:
    """The peer reads nothing."""

    def test_small_writes_are_joined(self, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        async def test(reactor: Any) -> None:
            async with Served(reactor, Noting()) as served:
                transport = served.protocol.transport
                await stall(served)
                given = writes(monkeypatch, served.protocol)
                for number in range(COUNT):
                    transport.write(bytes((number % 251,)))
                # uvloop keeps an object of at least 100 bytes for each pending write.
                assert len(given) <= COUNT // MOST_GATHERED
                transport.loseConnection()
                data = await received(served, FILL + COUNT)
                assert data[FILL:] == bytes(number % 251 for number in range(COUNT))
                assert isinstance(await served.protocol.lost, ConnectionDone)

        run(test)

    def test_small_answers_to_many_chunks_are_joined(self, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        class Answering(Noting):
            def dataReceived(self, data: bytes) -> None:
                super().dataReceived(data)
                self.transport.write(data)  # type: ignore[union-attr]

        async def test(reactor: Any) -> None:
            async with Served(reactor, Answering()) as served:
                await stall(served)
                given = writes(monkeypatch, served.protocol)
                for number in range(20):
                    served.socket.sendall(bytes((number,)))

                    def arrived(expected: int = number + 1) -> bool:
                        return sum(map(len, served.protocol.heard)) == expected

                    await served.until(arrived)
                assert given == []
                assert (await received(served, FILL + 20))[FILL:] == bytes(range(20))

        run(test)

    def test_the_connection_can_be_aborted(self, run: Any) -> None:
        async def test(reactor: Any) -> None:
            async with Served(reactor, Noting()) as served:
                await stall(served)
                served.protocol.transport.write(b"a")
                served.protocol.transport.abortConnection()
                served.protocol.transport.write(b"b")
                assert isinstance(await served.protocol.lost, ConnectionAborted)

        run(test)

    def test_the_writing_side_ends_after_the_gathered_bytes(self, run: Any) -> None:
        async def test(reactor: Any) -> None:
            async with Served(reactor, Noting()) as served:
                await stall(served)
                served.protocol.transport.write(b"last")
                served.protocol.transport.loseWriteConnection()
                assert (await received(served, FILL + 4))[FILL:] == b"last"
                assert await served.recv(1) == b""
                served.protocol.transport.loseConnection()
                assert isinstance(await served.protocol.lost, ConnectionDone)

        run(test)


@pytest.mark.parametrize("seed", range(4))
def test_every_byte_is_read_in_order(run: Any, seed: int) -> None:
    """Write random sizes, inside and outside dataReceived(), while the peer reads now and then."""
    dice = random.Random(seed)
    sizes = (0, 1, 1, 1, 3, 100, 5000, 70_000)

    class Writing(Noting):
        def __init__(self) -> None:
            super().__init__()
            self.written = bytearray()

        def write(self) -> None:
            for _ in range(dice.choice((1, 2, 30, MOST_GATHERED + 3))):
                data = dice.randbytes(dice.choice(sizes if len(self.written) < 1 << 23 else (1,)))
                self.written += data
                self.transport.write(data)  # type: ignore[union-attr]

        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            self.write()

    async def test(reactor: Any) -> None:
        async with Served(reactor, Writing()) as served:
            protocol = served.protocol
            served.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
            data = b""
            for _ in range(60):
                step = dice.randrange(4)
                if step == 0:
                    protocol.write()
                elif step == 1:
                    heard = len(protocol.heard)
                    served.socket.sendall(b"x")

                    def heard_more(before: int = heard) -> bool:
                        return len(protocol.heard) > before

                    await served.until(heard_more)
                elif step == 2 and len(data) < len(protocol.written):
                    data += await received(served, min(len(protocol.written) - len(data), 200_000))
                else:
                    await deferLater(reactor, 0)
            protocol.transport.loseConnection()
            data += await received(served, len(protocol.written) - len(data))
            assert data == bytes(protocol.written)
            assert isinstance(await protocol.lost, ConnectionDone)

    run(test)
