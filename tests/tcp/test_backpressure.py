"""Memory used for a slow peer or a slow application: a measured process transfers 75 MiB over TCP."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThread

from twisted_beastws import CloseReason, Limits, Timeouts, WebSocketProtocol
from twisted_beastws.wire.closing import Close

from ..support.handshakes import upgrade_request
from ..support.loopback import serving
from ..support.patience import PATIENCE
from ..support.ways import BOTH_WAYS
from .measured import COUNT, SIZE, message

HEAD = upgrade_request()
HEADER = b"\x82\x7f" + SIZE.to_bytes(8, "big")
CLOSE = b"\x88\x82" + bytes(4) + b"\x03\xe8"
MEBI = 1 << 20
STALL = 0.5
"""Seconds in which no answer comes."""
SLACK = 5 * MEBI
"""Extra growth that the tests allow: memory allocators do not return all freed memory."""

pytestmark = pytest.mark.usefixtures("logged")
linux = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="MEMORY IS NOT MEASURED: that takes Linux's /proc"
)


@contextmanager
def opened(port: int, secure: bool = False) -> Iterator[socket.socket]:
    """Yield a connection that has completed the opening handshake."""
    with ExitStack() as stack:
        connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE))
        if secure:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection = stack.enter_context(context.wrap_socket(connection))
        connection.sendall(HEAD)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            octet = connection.recv(1)
            assert octet
            head += octet
        yield connection


class Measured:
    """`measured.py` in a process, and a connection to it; ``outcome`` has the figures that it printed."""

    def __init__(self, task: str, **limits: Any) -> None:
        program = Path(__file__).with_name("measured.py")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self.process = subprocess.Popen(
            [sys.executable, str(program), task, json.dumps(limits)],
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def read_line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def wait_until_full(self) -> None:
        assert self.read_line() == "full\n"

    @contextmanager
    def connected(self) -> Iterator[socket.socket]:
        try:
            with opened(int(self.read_line())) as connection:
                yield connection
            output, _ = self.process.communicate(timeout=PATIENCE)
            self.outcome = json.loads(output)
        finally:
            self.process.kill()
            self.process.wait()


def read_messages(connection: socket.socket) -> tuple[int, bytes]:
    """Read to the end, check the order of the messages, and answer the close frame.

    Returns:
        The number of whole messages, and the bytes after the last of them: the close frame.
    """
    pending, count = bytearray(), 0
    while part := connection.recv(1 << 20):
        pending += part
        while pending.startswith(HEADER) and len(pending) >= len(HEADER) + SIZE:
            assert pending[len(HEADER) : len(HEADER) + SIZE] == message(count)
            del pending[: len(HEADER) + SIZE]
            count += 1
        if pending[:1] == b"\x88" and len(pending) == 2 + pending[1]:
            connection.sendall(CLOSE)
    return count, bytes(pending)


@linux
class TestSlowReader:
    """The peer reads slowly."""

    @pytest.mark.parametrize("high_water", [1 << 16, 16 * MEBI])
    def test_a_slow_reader_costs_the_high_water_mark_if_a_producer_obeys(self, high_water: int) -> None:
        measured = Measured("produce", high_water=high_water, max_buffered=32 * MEBI)
        with measured.connected() as connection:
            measured.wait_until_full()
            assert read_messages(connection) == (COUNT, b"\x88\x02\x03\xe8")
        assert measured.outcome["done"] == COUNT
        assert high_water // 2 - MEBI < measured.outcome["growth"] < high_water + SLACK

    @pytest.mark.parametrize("max_buffered", [4 * MEBI, 24 * MEBI])
    @pytest.mark.parametrize(
        ("slow_reader", "stopped_by", "close"),
        [
            ("close", "ConnectionClosed", b"\x88\x13\x03\xf5too slow a reader"),
            ("pause", "BufferFull", b"\x88\x02\x03\xe8"),
        ],
        ids=["close", "pause"],
    )
    def test_a_slow_reader_costs_max_buffered_without_a_producer(
        self, slow_reader: str, stopped_by: str, close: bytes, max_buffered: int
    ) -> None:
        measured = Measured("send_all", max_buffered=max_buffered, slow_reader=slow_reader)
        with measured.connected() as connection:
            measured.wait_until_full()
            count, rest = read_messages(connection)
        assert rest == close
        assert measured.outcome["stopped_by"] == stopped_by
        assert 0 < count < COUNT
        assert max_buffered // 2 < measured.outcome["growth"] < max_buffered + SLACK


class TestSlowApplication:
    """The application consumes slowly."""

    @linux
    def test_a_slow_application_costs_the_limit_of_its_queue(self) -> None:
        """While the application sleeps after the first message, the rest wait in the peer and in the sockets."""
        measured = Measured("take")
        with measured.connected() as connection:
            for number in range(COUNT):
                connection.sendall(b"\x82\xff" + SIZE.to_bytes(8, "big") + bytes(4) + message(number))
            connection.sendall(CLOSE)
            assert connection.recv(100) == b"\x88\x02\x03\xe8"
        assert measured.outcome["done"] == COUNT
        assert measured.outcome["growth"] < Limits().max_queued_size + SLACK

    @pytest_twisted.ensureDeferred
    async def test_pings_to_a_slow_application_are_answered_up_to_the_limit(self) -> None:
        woken: Deferred[None] = Deferred()
        taken: list[str | bytes] = []
        one, ping, pong = b"\x82\x81" + bytes(4) + b"m", b"\x89\x81" + bytes(4) + b"?", b"\x8a\x01?"

        async def handler(ws: WebSocketProtocol) -> None:
            async for received in ws:
                taken.append(received)
                await woken

        def conversation() -> None:
            with opened(port) as connection:
                # The handler has the first message; the queue holds three, one fewer than the limit.
                connection.sendall(one * 4 + ping)
                assert connection.recv(100) == pong
                connection.sendall(one + ping)
                connection.settimeout(STALL)
                with pytest.raises(TimeoutError):
                    connection.recv(100)
                connection.settimeout(PATIENCE)
                assert taken == [b"m"]
                cast(IReactorFromThreads, reactor).callFromThread(woken.callback, None)
                assert connection.recv(100) == pong

        async with serving(handler, limits=Limits(max_queued=4)) as url:
            port = urlsplit(url).port or 0
            await deferToThread(conversation)
        assert taken == [b"m"] * 5


class TestStoppedReader:
    """The peer stops reading."""

    @BOTH_WAYS
    @pytest_twisted.ensureDeferred
    async def test_a_peer_that_stops_reading_is_closed_though_it_sends_pongs(self, secure: bool) -> None:
        lost: Deferred[CloseReason] = Deferred()
        pong = b"\x8a\x80" + bytes(4)

        class Flooding(WebSocketProtocol):
            def opened(self) -> None:
                # More bytes than the sockets' buffers hold.
                for _ in range(32):
                    self.send(bytes(MEBI))

            def text_received(self, text: str) -> None: ...

            def closed(self, reason: CloseReason) -> None:
                lost.callback(reason)

        def conversation() -> None:
            with opened(port, secure) as connection, suppress(OSError):
                while not lost.called:
                    connection.sendall(pong)
                    time.sleep(0.02)

        timeouts = Timeouts(send=0.3, close=0.3, idle=300.0)
        async with serving(Flooding, secure, limits=Limits(max_buffered=64 * MEBI), timeouts=timeouts) as url:
            port = urlsplit(url).port or 0
            talking = deferToThread(conversation)
            reason = await lost.addTimeout(PATIENCE, reactor)
            await talking
        assert reason.sent == Close(1011, "nothing was taken for 0.3 s")
        assert str(reason.error) == "nothing was taken for 0.3 s"
