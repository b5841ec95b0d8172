"""The length of the chunks that are read from Twisted's plain sockets."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock

from twisted_beastws import WebSocketProtocol, WebSocketServerFactory
from twisted_beastws.connection.reading import MAX_CHUNK, Reading

from ..support.handshakes import upgrade_request
from .test_write_buffer import Socket

USUAL = 1 << 16


class CompleteSocket(Socket):
    """A stand-in for a socket's transport with all methods that a connection needs."""

    def abortConnection(self) -> None: ...


class Received(WebSocketProtocol):
    def binary_received(self, data: bytes) -> None:
        self.user = len(data)


class Dropping(WebSocketProtocol):
    def binary_received(self, data: bytes) -> None:
        self.abort()


def opened(protocol_class: type[WebSocketProtocol] = Received) -> tuple[Any, Socket]:
    """Return an open connection on a socket."""
    protocol: Any = WebSocketServerFactory(protocol_class, clock=Clock()).buildProtocol(
        IPv4Address("TCP", "127.0.0.1", 1)
    )
    socket = CompleteSocket(room=1 << 20)
    protocol.makeConnection(socket)
    protocol.dataReceived(upgrade_request())
    assert socket.bufferSize == USUAL
    return protocol, socket


def begin(protocol: Any, size: int, received: int) -> None:
    """Receive the beginning of a masked frame of ``size`` bytes."""
    protocol.dataReceived(b"\x82\xff" + size.to_bytes(8, "big") + bytes(4 + received))


class TestChunks:
    """While a long payload arrives, the connection reads longer chunks, and none beyond its end."""

    @pytest.mark.parametrize(
        ("lacking", "chunk"),
        [
            (USUAL - 1, USUAL),
            (USUAL, USUAL),
            (USUAL + 1, USUAL + 1),
            (MAX_CHUNK - 1, MAX_CHUNK - 1),
            (MAX_CHUNK, MAX_CHUNK),
            (MAX_CHUNK + 1, MAX_CHUNK),
        ],
    )
    def test_a_chunk_has_no_more_than_the_rest_of_the_payload(self, lacking: int, chunk: int) -> None:
        protocol, socket = opened()
        begin(protocol, lacking + 100, 100)
        assert socket.bufferSize == chunk

    def test_chunks_have_their_usual_length_after_the_payload(self) -> None:
        protocol, socket = opened()
        begin(protocol, MAX_CHUNK + USUAL, 0)
        protocol.dataReceived(bytes(MAX_CHUNK - 5))
        assert socket.bufferSize == USUAL + 5
        protocol.dataReceived(bytes(USUAL + 5))
        assert (socket.bufferSize, protocol.user) == (USUAL, MAX_CHUNK + USUAL)

    def test_the_payload_of_a_fragment_is_read_in_long_chunks_too(self) -> None:
        protocol, socket = opened()
        protocol.dataReceived(b"\x02\xff" + (1 << 20).to_bytes(8, "big") + bytes(5))
        assert socket.bufferSize == MAX_CHUNK

    def test_a_connection_that_was_dropped_is_left_alone(self) -> None:
        protocol, socket = opened(Dropping)
        protocol.dataReceived(b"\x82\x81" + bytes(5) + b"\x82\xff" + (1 << 20).to_bytes(8, "big") + bytes(4))
        assert socket.bufferSize == USUAL


class TestInPlace:
    """After payloads that are received in place, the budget of a turn is as the transport needs it."""

    @pytest.mark.parametrize("one_chunk_a_turn", [True, False])
    def test_the_budget_expects_the_chunks_of_the_transport_again(self, one_chunk_a_turn: bool) -> None:
        budget = SimpleNamespace(one_chunk_a_turn=False)
        outlet = SimpleNamespace(one_chunk_a_turn=one_chunk_a_turn)
        connection: Any = SimpleNamespace(
            session=SimpleNamespace(reader=SimpleNamespace(budget=budget)), outgoing=SimpleNamespace(outlet=outlet)
        )
        Reading(connection).chunks_only()
        assert budget.one_chunk_a_turn is one_chunk_a_turn

    def test_a_connection_that_has_ended_has_no_budget(self) -> None:
        connection: Any = SimpleNamespace(session=None)
        Reading(connection).chunks_only()
