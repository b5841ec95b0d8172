"""A hook blocks the reactor for longer than the idle timeout, while the peer's data waits in the socket."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import pytest_twisted

from twisted_beastws import Limits, Timeouts, WebSocketProtocol

from ..support.frames import close, masked
from ..support.loopback import until
from ..support.patience import PATIENCE
from ..support.timing import ClockedReactor
from ..support.ways import BOTH_WAYS
from .test_server import HEAD, read, read_head, serve

IDLE, BUSY = 1.0, 1.3


class Block:
    """A hook that blocks the reactor until the test releases it; by the server's clock it takes `BUSY` seconds."""

    def __init__(self) -> None:
        self.clock = ClockedReactor()
        self.entered = threading.Event()
        self.released = threading.Event()

    def protocol(block: Block) -> WebSocketProtocol:
        class Blocking(WebSocketProtocol):
            """Block the reactor on the message "block"; echo other texts."""

            def text_received(self, text: str) -> None:
                if text == "block":
                    block.entered.set()
                    assert block.released.wait(PATIENCE)
                    block.clock.skip(BUSY)
                else:
                    self.send(text)

            def binary_received(self, data: bytes) -> None:
                pass

        return Blocking()

    @contextmanager
    def entered_by(self, connection: Any) -> Iterator[None]:
        """Block the server's reactor during the ``with`` block."""
        connection.sendall(masked(0x81, b"block"))
        assert self.entered.wait(PATIENCE)
        try:
            yield
        finally:
            self.released.set()


@pytest.fixture
def block() -> Block:
    return Block()


BYE = masked(0x88, b"\x03\xe8")


@BOTH_WAYS
@pytest.mark.parametrize("strict", [False, True], ids=["any byte", "strict_pong"])
@pytest_twisted.ensureDeferred
async def test_a_pong_that_waits_in_the_socket_is_in_time(block: Block, secure: bool, strict: bool) -> None:
    def conversation(connection: Any) -> bytes:
        with block.entered_by(connection):
            connection.sendall(masked(0x8A) + masked(0x81, b"still here") + BYE)
        return read(connection, 12 + 4)

    timeouts = Timeouts(idle=IDLE, ping_interval=None, strict_pong=strict)
    async with serve(block.protocol, secure, timeouts=timeouts, clock=block.clock) as server:
        assert await server.by_socket(conversation) == b"\x81\x0astill here" + close(1000)


@BOTH_WAYS
@pytest_twisted.ensureDeferred
async def test_a_pong_after_much_waiting_data_is_in_time(block: Block, secure: bool) -> None:
    """The pong is not in the first 64 KiB that the reactor reads."""

    def conversation(connection: Any) -> bytes:
        with block.entered_by(connection):
            connection.sendall(masked(0x82, bytes(300_000)) + masked(0x8A) + BYE)
        return read(connection, 4)

    timeouts = Timeouts(idle=IDLE, ping_interval=None, strict_pong=True)
    limits = Limits(max_seconds_per_turn=None)
    async with serve(block.protocol, secure, timeouts=timeouts, limits=limits, clock=block.clock) as server:
        assert await server.by_socket(conversation) == close(1000)


@BOTH_WAYS
@pytest_twisted.ensureDeferred
async def test_the_end_of_a_message_that_waits_is_in_time(block: Block, secure: bool) -> None:
    def conversation(connection: Any) -> bytes:
        connection.sendall(masked(0x81, b"first"))
        assert read(connection, 7) == b"\x81\x05first"
        # The first fragment of a message; another connection blocks the reactor before the last one is sent.
        connection.sendall(masked(0x01, b"sec"))
        with server.opened() as other:
            with block.entered_by(other):
                other.sendall(BYE)
                connection.sendall(masked(0x80, b"ond") + BYE)
            assert read(other, 4) == close(1000)
        return read(connection, 8 + 4)

    timeouts = Timeouts(idle=None, ping_interval=None, message=IDLE)
    async with serve(block.protocol, secure, timeouts=timeouts, clock=block.clock) as server:
        assert await server.by_socket(conversation) == b"\x81\x06second" + close(1000)


@pytest_twisted.ensureDeferred
async def test_a_request_that_waits_is_in_time(block: Block) -> None:
    def conversation(connection: Any) -> bytes:
        with server.connected() as other:
            other.sendall(HEAD[:50])
            assert connecting.wait(PATIENCE)
            with block.entered_by(connection):
                connection.sendall(BYE)
                other.sendall(HEAD[50:] + BYE)
            assert read(connection, 4) == close(1000)
            assert read_head(other).startswith(b"HTTP/1.1 101 ")
            return read(other, 4)

    connecting = threading.Event()
    async with serve(block.protocol, timeouts=Timeouts(handshake=IDLE), clock=block.clock) as server:
        talking = server.by_socket(conversation)
        await until(lambda: len(server.factory.connections) == 2)
        connecting.set()
        assert await talking == close(1000)


@pytest_twisted.ensureDeferred
async def test_a_silent_peer_is_still_closed(block: Block) -> None:
    def conversation(connection: Any) -> bytes:
        with block.entered_by(connection):
            pass
        return read(connection, 4)

    timeouts = Timeouts(idle=IDLE, ping_interval=None)
    async with serve(block.protocol, timeouts=timeouts, clock=block.clock) as server:
        assert (await server.by_socket(conversation))[2:] == (1011).to_bytes(2, "big")
