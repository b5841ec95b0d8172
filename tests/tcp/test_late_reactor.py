"""A hook blocks the reactor for longer than the idle timeout, while the peer's data waits in the socket."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import pytest_twisted

from twisted_beastws import Limits, Timeouts, WebSocketProtocol

from ..support.loopback import until
from ..support.patience import PATIENCE
from ..support.ways import BOTH_WAYS
from .test_server import HEAD, close, frame, read, read_head, serve, small

IDLE, BUSY = 1.0, 1.3


class Blocking(WebSocketProtocol):
    """Set ``busy`` and block the reactor on the message "block"; echo other texts."""

    busy = threading.Event()

    def text_received(self, text: str) -> None:
        if text == "block":
            self.busy.set()
            time.sleep(BUSY)
        else:
            self.send(text)

    def binary_received(self, data: bytes) -> None:
        pass


def while_busy(connection: Any, *parts: bytes) -> None:
    """Block the server's reactor, and send ``parts`` meanwhile."""
    Blocking.busy.clear()
    connection.sendall(small(0x81, b"block"))
    assert Blocking.busy.wait(PATIENCE)
    connection.sendall(b"".join(parts))


BYE = small(0x88, b"\x03\xe8")


@BOTH_WAYS
@pytest.mark.parametrize("strict", [False, True], ids=["any octet", "strict_pong"])
@pytest_twisted.ensureDeferred
async def test_a_pong_that_waits_in_the_socket_is_in_time(secure: bool, strict: bool) -> None:
    def conversation(connection: Any) -> bytes:
        while_busy(connection, small(0x8A), small(0x81, b"still here"), BYE)
        return read(connection, 12 + 4)

    timeouts = Timeouts(idle=IDLE, ping_interval=None, strict_pong=strict)
    async with serve(Blocking, secure, timeouts=timeouts) as server:
        assert await server.by_socket(conversation) == b"\x81\x0astill here" + close(1000)


@BOTH_WAYS
@pytest_twisted.ensureDeferred
async def test_a_pong_behind_much_that_waits_is_in_time(secure: bool) -> None:
    """The pong is not in the first 64 KiB that the reactor reads."""

    def conversation(connection: Any) -> bytes:
        while_busy(connection, frame(0x82, bytes(300_000)), small(0x8A), BYE)
        return read(connection, 4)

    timeouts = Timeouts(idle=IDLE, ping_interval=None, strict_pong=True)
    async with serve(Blocking, secure, timeouts=timeouts, limits=Limits(max_seconds_per_turn=None)) as server:
        assert await server.by_socket(conversation) == close(1000)


@BOTH_WAYS
@pytest_twisted.ensureDeferred
async def test_the_end_of_a_message_that_waits_is_in_time(secure: bool) -> None:
    def conversation(connection: Any) -> bytes:
        connection.sendall(small(0x81, b"first"))
        assert read(connection, 7) == b"\x81\x05first"
        # The first fragment of a message; another connection blocks the reactor before the last one is sent.
        connection.sendall(small(0x01, b"sec"))
        with server.opened() as other:
            while_busy(other, BYE)
            connection.sendall(small(0x80, b"ond") + BYE)
            assert read(other, 4) == close(1000)
        return read(connection, 8 + 4)

    timeouts = Timeouts(idle=None, ping_interval=None, message=IDLE)
    async with serve(Blocking, secure, timeouts=timeouts) as server:
        assert await server.by_socket(conversation) == b"\x81\x06second" + close(1000)


@pytest_twisted.ensureDeferred
async def test_a_request_that_waits_is_in_time() -> None:
    def conversation(connection: Any) -> bytes:
        with server.connected() as other:
            other.sendall(HEAD[:50])
            assert connecting.wait(PATIENCE)
            while_busy(connection, BYE)
            other.sendall(HEAD[50:] + BYE)
            assert read(connection, 4) == close(1000)
            assert read_head(other).startswith(b"HTTP/1.1 101 ")
            return read(other, 4)

    connecting = threading.Event()
    async with serve(Blocking, timeouts=Timeouts(handshake=IDLE)) as server:
        talking = server.by_socket(conversation)
        await until(lambda: len(server.factory.connections) == 2)
        connecting.set()
        assert await talking == close(1000)


@pytest_twisted.ensureDeferred
async def test_a_peer_that_is_silent_is_closed_all_the_same() -> None:
    def conversation(connection: Any) -> bytes:
        while_busy(connection)
        return read(connection, 4)

    async with serve(Blocking, timeouts=Timeouts(idle=IDLE, ping_interval=None)) as server:
        assert (await server.by_socket(conversation))[2:] == (1011).to_bytes(2, "big")
