"""WebSockets over other ``ITransport``s: SSH channels, processes, standard input and output, iosim."""

from __future__ import annotations

import os
import sys
from collections import deque
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.conch.ssh.channel import SSHChannel
from twisted.conch.ssh.connection import SSHConnection
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import ProcessEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, connect

from twisted_beastws import (
    CloseReason,
    ConnectionClosed,
    Limits,
    State,
    Timeouts,
    WebSocketClientEndpoint,
    WebSocketProtocol,
    WebSocketServerFactory,
)
from twisted_beastws.connection.bare_transport import BareTransport
from twisted_beastws.options import Settings

from ..support.inside import inside
from ..support.patience import PATIENCE

pytestmark = pytest.mark.usefixtures("logged")

MEBI = 1 << 20


class Noting(WebSocketProtocol):
    """Keep the received messages; if ``slow``, the hook of a text message returns a Deferred that never fires."""

    slow = False

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.reason: CloseReason | None = None

    def text_received(self, text: str) -> Deferred[None] | None:
        self.heard.append(text)
        return Deferred() if self.slow else None

    def binary_received(self, data: bytes) -> None:
        self.heard.append(data)

    def closed(self, reason: CloseReason) -> None:
        assert self.reason is None
        self.reason = reason


class SSH:
    """Conch's connection layer at both ends, in memory, with one channel for a WebSocket."""

    class Below:
        """A replacement for SSH's encrypted transport."""

        avatar = None

        def __init__(self, sent: deque[Any], end: int) -> None:
            self.sent, self.end = sent, end

        def sendPacket(self, kind: int, payload: bytes) -> None:
            self.sent.append((1 - self.end, kind, payload))

        def logPrefix(self) -> str:
            return "SSH"

    class Channel(SSHChannel):
        """An application's channel, which passes its events to the protocol."""

        name = b"websocket"
        protocol: Any
        tells_of_the_end = True

        def channelOpen(self, specificData: bytes) -> None:
            self.protocol.makeConnection(self)

        def dataReceived(self, data: bytes) -> None:
            self.protocol.dataReceived(data)

        def closed(self) -> None:
            if self.tells_of_the_end:
                self.protocol.connectionLost(Failure(ConnectionDone()))

    def __init__(self, server: Any, client: Any) -> None:
        self.sent: deque[Any] = deque()
        self.ends = (SSHConnection(), SSHConnection())
        self.held: set[int] = set()
        self.channels = (self.Channel(), self.Channel())
        for number, (end, channel, protocol) in enumerate(zip(self.ends, self.channels, (server, client), strict=True)):
            end.transport = self.Below(self.sent, number)  # type: ignore[assignment]
            channel.protocol = protocol
        self.channels[0].conn = self.ends[0]

        def get_channel(kind: bytes, window: int, most: int, data: bytes) -> Any:
            self.channels[0].remoteWindowLeft, self.channels[0].remoteMaxPacket = window, most
            return self.channels[0]

        self.ends[0].getChannel = get_channel  # type: ignore[method-assign]
        self.ends[1].openChannel(self.channels[1])
        self.pump()

    def pump(self) -> None:
        """Deliver packets until none is left."""
        while self.sent:
            end, kind, payload = self.sent.popleft()
            self.ends[end].packetReceived(kind, payload)


def sides(clock: Clock, **options: Any) -> tuple[Noting, Noting]:
    server = WebSocketServerFactory(Noting, clock=clock, **options).buildProtocol(None)
    client = Noting()
    client.as_client(Settings(clock=clock))
    assert isinstance(server, Noting)
    return server, client


class TestSSHChannel:
    """A channel of Conch as the transport."""

    def opened(self, clock: Clock, **options: Any) -> tuple[SSH, Noting, Noting]:
        server, client = sides(clock, **options)
        ssh = SSH(server, client)
        client.handshake("localhost")
        ssh.pump()
        assert (server.state, client.state) == (State.OPEN, State.OPEN)
        return ssh, server, client

    def test_a_channel_carries_messages_and_closes_in_order(self, clock: Clock) -> None:
        ssh, server, client = self.opened(clock)
        client.send("hello")
        server.send(bytes(100_000))
        ssh.pump()
        assert (server.heard, client.heard) == (["hello"], [bytes(100_000)])
        client.close(4000, "done")
        ssh.pump()
        for protocol in (server, client):
            assert protocol.reason is not None and (protocol.reason.code, protocol.reason.clean) == (4000, True)

    def test_a_window_that_is_full_paces_the_writer(self, clock: Clock) -> None:
        ssh, server, client = self.opened(clock)
        # The client's window is 128 KiB; pump() delivers its window adjustments.
        for _ in range(16):
            server.send(bytes(MEBI // 8))
        assert server.buffered_amount > MEBI and len(ssh.channels[0].buf) <= MEBI // 4
        ssh.pump()
        assert len(client.heard) == 16 and server.buffered_amount == 0

    def test_a_transport_that_never_reports_its_end_is_still_lost(self, clock: Clock) -> None:
        ssh, server, _ = self.opened(clock, timeouts=Timeouts(close=5.0))
        ssh.channels[0].tells_of_the_end = False
        server.close()
        clock.advance(4.9)
        assert server.reason is None
        clock.advance(0.2)
        clock.advance(0.1)
        assert server.reason is not None and server.state is State.CLOSED

    def test_an_aborted_channel_is_closed_once(self, clock: Clock) -> None:
        ssh, server, client = self.opened(clock)
        server.abort()
        ssh.pump()
        clock.advance(0.1)
        assert server.reason is not None and client.reason is not None
        assert client.reason.code == 1006

    def test_a_transport_that_cannot_be_paused_has_a_bounded_buffer(self, clock: Clock, logged: Any) -> None:
        limits = Limits(max_message_size=1 << 16, max_buffered=1 << 18)
        ssh, server, client = self.opened(clock, limits=limits)
        server.slow = True
        sent = 0
        while client.state is State.OPEN and sent < 64:
            client.send("x" * 60_000)
            sent += 1
            ssh.pump()
        # The hook has one message, the queue at most 16; max_buffered limits the rest.
        assert 4 < sent < 24
        assert (
            server.close_reason is not None
            and server.close_reason.sent is not None
            and server.close_reason.sent.code == 1013
        )
        session = inside(server).session
        assert session is None or session.reader.unparsed_size <= (1 << 18) + (1 << 16)


def test_messages_can_use_iosim(clock: Clock) -> None:
    server, client = sides(clock)
    pump = connect(server, FakeTransport(server, True), client, FakeTransport(client, False))
    client.handshake("localhost")
    pump.flush()
    client.send("hello")
    pump.flush()
    assert server.heard == ["hello"]
    server.close(4001)
    pump.flush()
    for protocol in (server, client):
        assert protocol.reason is not None and protocol.reason.code == 4001


class TestProcess:
    """A client on the pipes of a child process, whose server uses standard input and output."""

    async def connected(self) -> WebSocketProtocol:
        program = str(Path(__file__).with_name("over_stdio.py"))
        environment = {**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path))}
        endpoint = ProcessEndpoint(reactor, sys.executable, [sys.executable, program], env=environment)
        connecting = WebSocketClientEndpoint(
            reactor, "ws://child/", endpoint=endpoint, timeouts=Timeouts(close=0.5)
        ).connect(WebSocketServerFactory(WebSocketProtocol))
        websocket: Any = await connecting.addTimeout(2 * PATIENCE, reactor)
        return websocket  # type: ignore[no-any-return]

    @pytest_twisted.ensureDeferred
    async def test_a_process_carries_messages_and_closes_in_order(self) -> None:
        websocket = await self.connected()
        assert websocket.peer is None
        websocket.send("hello")
        assert await websocket.receive().addTimeout(PATIENCE, reactor) == "hello"
        websocket.send("close")
        reason = await websocket.when_closed().addTimeout(PATIENCE, reactor)
        assert reason.code == 4000 and "PipeAddress" in reason.reason

    @pytest_twisted.ensureDeferred
    async def test_an_aborted_process_is_lost(self) -> None:
        websocket = await self.connected()
        websocket.send("abort")
        with pytest.raises(ConnectionClosed):
            await websocket.receive().addTimeout(PATIENCE, reactor)
        assert websocket.close_reason is not None and websocket.close_reason.code == 1006


def test_a_complete_transport_is_used_without_a_wrapper(connect: Any) -> None:
    peer = connect()
    assert peer.protocol.transport.below is peer.transport
    assert not isinstance(peer.protocol.transport.below, BareTransport)
