"""Tests of `broadcast`: one message for many connections."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from twisted_beastws import (
    Deflate,
    Limits,
    State,
    WebSocketProtocol,
    WebSocketServerFactory,
    broadcast,
    connect,
    prepare,
)
from twisted_beastws.testing import connected_pair

from ..support.certificates import trusting
from ..support.loopback import listening, until


class Quiet(WebSocketProtocol):
    """Takes messages by ``receive``."""


class TestReceivers:
    """RFC 6455 §6.1: each open connection gets the message, whatever becomes of the others."""

    @pytest.mark.parametrize("message", ["hello", b"hello", prepare("hello"), "", "x" * 70_000])
    @pytest.mark.parametrize("deflate", [None, Deflate(threshold=0)])
    def test_each_connection_gets_the_message(self, message: Any, deflate: Deflate | None) -> None:
        pairs = [connected_pair(Quiet, deflate=deflate) for _ in range(3)]
        assert broadcast((pair.server for pair in pairs), message) == []
        for pair in pairs:
            pair.flush()
        sent = "hello" if not isinstance(message, (str, bytes)) else message
        assert [pair.client.receive().result for pair in pairs] == [sent] * 3

    def test_a_client_can_be_a_receiver(self) -> None:
        pair = connected_pair(Quiet)
        assert broadcast([pair.client], "hello") == []
        pair.flush()
        assert pair.server.receive().result == "hello"

    def test_the_connections_that_are_not_open_are_returned(self) -> None:
        pairs = [connected_pair(Quiet) for _ in range(3)]
        pairs[0].server.close()
        pairs[1].server.abort()
        unconnected = Quiet()
        receivers = [*(pair.server for pair in pairs), unconnected]
        assert broadcast(receivers, "hello") == [pairs[0].server, pairs[1].server, unconnected]
        pairs[2].flush()
        assert pairs[2].client.receive().result == "hello"

    def test_a_full_write_buffer_refuses_the_message_and_the_others_get_it(self) -> None:
        limits = Limits(slow_reader="pause", max_buffered=1000, high_water=1000, low_water=1000, max_message_size=1000)
        pairs = [connected_pair(Quiet, limits=limits) for _ in range(2)]
        pairs[0].server_transport.stalled = True
        servers = [pair.server for pair in pairs]
        while not (refused := broadcast(servers, bytes(100))):
            pairs[1].flush()
        assert refused == servers[:1] and servers[1].buffered_amount == 0

    def test_a_failed_write_drops_its_connection_alone(self, logged: Any) -> None:
        class Failing(Quiet):
            def opened(self) -> None:
                # The usual way of an application to change it for one connection.
                self.send = lambda message: 1 // 0  # type: ignore

        pairs: list[Any] = [connected_pair(Failing), connected_pair(Quiet)]
        assert broadcast([pair.server for pair in pairs], "hello") == []
        pairs[1].flush()
        assert pairs[1].client.receive().result == "hello"
        assert pairs[0].server.state is not State.OPEN
        assert len(logged(ZeroDivisionError)) == 1

    @pytest.mark.parametrize("message", [3, None, ["x"]])
    def test_a_message_of_another_type_is_refused(self, message: Any) -> None:
        with pytest.raises(TypeError, match="takes str or bytes"):
            broadcast([], message)


class TestSockets:
    """The same on the loopback interface, where the compiled codec sends past the write buffers."""

    @pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
    @pytest_twisted.ensureDeferred
    async def test_each_client_gets_all_messages_in_order(self, secure: bool) -> None:
        factory = WebSocketServerFactory(Quiet)
        async with listening(factory, secure) as port:
            clients = await opened(factory, port, secure)
            messages: list[str | bytes] = ["first", b"second", "x" * 100_000, "last"]
            for message in messages:
                assert broadcast(factory.connections, message) == []
            for client in clients:
                assert [await client.receive() for _ in messages] == messages
            await factory.drain()

    @pytest_twisted.ensureDeferred
    async def test_a_client_that_reads_nothing_gets_all_messages_later_and_delays_no_other(self) -> None:
        factory = WebSocketServerFactory(Quiet, limits=Limits(max_buffered=1 << 26))
        async with listening(factory) as port:
            clients = await opened(factory, port)
            clients[0].pauseProducing()
            sent: list[str] = []
            # More than the system takes for the slow client.
            while not any(connection.buffered_amount for connection in factory.connections):
                sent.append(f"{len(sent)}: " + "x" * 60_000)
                assert broadcast(factory.connections, sent[-1]) == []
                for client in clients[1:]:
                    assert await client.receive() == sent[-1]
            sent += ["short", "last"]
            for message in sent[-2:]:
                assert broadcast(factory.connections, message) == []
            clients[0].resumeProducing()
            assert [await clients[0].receive() for _ in sent] == sent
            await factory.drain()


async def opened(factory: WebSocketServerFactory, port: int, secure: bool = False) -> list[Quiet]:
    """Return three clients, once the server has their connections."""
    url, tls = f"ws{'s' * secure}://localhost:{port}/", trusting() if secure else None
    clients = [await connect(url, protocol=Quiet, tls=tls) for _ in range(3)]
    await until(lambda: len(factory.connections) == len(clients))
    return clients
