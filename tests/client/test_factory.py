"""Tests of `WebSocketClientFactory`: clients that a program connects and opens by hand."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.testing import MemoryReactorClock, StringTransport

from twisted_beastws import (
    Deflate,
    Limits,
    State,
    Timeouts,
    UpgradeDeclined,
    WebSocketClientFactory,
    WebSocketProtocol,
    WebSocketServerFactory,
)
from twisted_beastws.testing import connected_pair

from ..support.protocols import Echo


class Chat(WebSocketProtocol): ...


class TestProtocols:
    """`WebSocketClientFactory` makes the client's end of a connection."""

    def test_the_factory_makes_a_clients_end_of_the_class(self) -> None:
        factory = WebSocketClientFactory(Chat, clock=MemoryReactorClock())
        protocol = factory.buildProtocol(None)
        assert isinstance(protocol, Chat)
        assert protocol.factory is factory
        transport = StringTransport()
        protocol.makeConnection(transport)
        protocol.handshake("example.com", "/chat")
        assert transport.value().startswith(b"GET /chat HTTP/1.1\r\nHost: example.com\r\n")

    def test_an_endpoint_connects_a_protocol_of_the_factory(self) -> None:
        clock: Any = MemoryReactorClock()
        factory = WebSocketClientFactory(clock=clock)
        made: list[Any] = []
        TCP4ClientEndpoint(clock, "localhost", 80).connect(factory).addCallback(made.append)
        clock.tcpClients[0][2].buildProtocol(None).makeConnection(StringTransport())
        assert made[0].state is State.CONNECTING

    def test_a_connection_uses_the_options_of_the_factory(self) -> None:
        factory = WebSocketClientFactory(
            Chat,
            subprotocols=["a"],
            timeouts=Timeouts(ping_interval=7),
            limits=Limits(max_message_size=3),
            deflate=Deflate(),
            decorator=lambda request: request.headers.setRawHeaders("X-Test", ["1"]),
        )
        seen: list[str | None] = []

        class Server(Echo):
            def upgrade_requested(self, request: Any) -> None:
                seen.append(request.field("X-Test"))

        pair = connected_pair(WebSocketServerFactory(Server, subprotocols=["a"], deflate=Deflate()), factory)
        assert (pair.client.subprotocol, pair.client.deflate is not None, seen) == ("a", True, ["1"])
        pair.server.send("1234")
        pair.flush()
        assert pair.client.close_reason is not None
        assert pair.client.close_reason.sent is not None
        assert pair.client.close_reason.sent.code == 1009

    @pytest.mark.parametrize("given", [5, str, "Chat"])
    def test_another_first_argument_is_refused(self, given: Any) -> None:
        with pytest.raises(TypeError, match=r"^protocol: give a subclass of WebSocketProtocol"):
            WebSocketClientFactory(given)

    def test_a_callable_that_makes_something_else_is_refused(self) -> None:
        wrong: Any = WebSocketClientFactory(lambda: 5)  # type: ignore[arg-type, return-value]
        with pytest.raises(TypeError, match=r"^protocol: it made a value of type int, not a WebSocketProtocol"):
            wrong.buildProtocol(None)

    @pytest.mark.parametrize("name", ["timeouts", "limits", "deflate", "clock", "budget", "decorator", "subprotocols"])
    def test_options_of_another_type_are_refused(self, name: str) -> None:
        options: Any = {name: 5}
        with pytest.raises(TypeError, match=f"^{name}"):
            WebSocketClientFactory(Chat, **options)


class TestConnectedPair:
    """`testing.connected_pair` takes the options of either side."""

    @pytest.mark.parametrize("side", ["server", "client"])
    def test_either_side_takes_the_same_options(self, side: str) -> None:
        options: Any = {"limits": Limits(max_message_size=3), "timeouts": Timeouts(), "deflate": None}
        mine: Any = options if side == "server" else {"client_options": options}
        pair = connected_pair(WebSocketProtocol, **mine)
        here, there = (pair.server, pair.client) if side == "server" else (pair.client, pair.server)
        there.send("1234")
        pair.flush()
        assert here.close_reason is not None
        assert here.close_reason.sent is not None
        assert here.close_reason.sent.code == 1009

    def test_a_failing_handshake_of_a_factory_raises(self) -> None:
        class Declining(WebSocketProtocol):
            def http_requested(self, request: Any) -> Any:
                from twisted_beastws import Response

                return Response(404)

        with pytest.raises(UpgradeDeclined):
            connected_pair(Declining, WebSocketClientFactory(Chat))
