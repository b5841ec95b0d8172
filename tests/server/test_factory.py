"""Tests of `twisted_beastws.server.factory`."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from functools import partial, wraps
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks
from twisted.internet.error import ConnectionAborted, ConnectionLost
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from twisted_beastws import (
    ConnectionClosed,
    Limits,
    Request,
    Response,
    State,
    Timeouts,
    WebSocketProtocol,
    WebSocketServerFactory,
)
from twisted_beastws.wire.closing import Close

from ..support.frames import close
from ..support.inside import inside
from ..support.outcomes import Outcome

pytestmark = pytest.mark.usefixtures("logged")


async def echo(ws: WebSocketProtocol) -> None:
    async for message in ws:
        ws.send(message)
        await ws.drain()


async def greet(ws: WebSocketProtocol, greeting: str = "hello") -> None:
    ws.send(greeting)
    await ws.receive()


class Greeter:
    """A handler that keeps state across its connections."""

    def __init__(self) -> None:
        self.count = 0

    async def serve(self, ws: WebSocketProtocol) -> None:
        self.count += 1
        ws.send(str(self.count))
        await ws.receive()

    async def __call__(self, ws: WebSocketProtocol) -> None:
        await self.serve(ws)


@inlineCallbacks
def greet_older(ws: WebSocketProtocol, greeting: str = "hello") -> Generator[Deferred[Any], Any, None]:
    ws.send(greeting)
    said = yield ws.receive()
    if said == "fail":
        raise ZeroDivisionError
    ws.send(said)


class Older:
    @inlineCallbacks
    def serve(self, ws: WebSocketProtocol) -> Generator[Deferred[Any], Any, None]:
        yield greet_older(ws)


class TestFactory:
    """The arguments of `WebSocketServerFactory`, and the protocols that it makes."""

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            ({"deflate": True}, r"deflate=True: give Deflate\(...\)"),
            ({"origins": "https://a"}, r"origins='https://a': give Origins\(...\)"),
            ({"limits": {"max_message_size": 1}}, r"give Limits\(...\)"),
            ({"timeouts": 5}, r"give Timeouts\(...\)"),
            ({"subprotocols": "chat"}, "subprotocols='chat': give a list of names"),
            ({"subprotocols": None}, "subprotocols=None: give a list of names"),
            ({"subprotocols": [b"chat"]}, "subprotocols: b'chat' is no name: give str"),
            ({"decorator": Response(200)}, "decorator: give a function, not a value of type Response"),
            ({"clock": 5}, "clock: give a reactor or another IReactorTime, not a value of type int"),
            ({"clock": Clock}, "clock: give a reactor or another IReactorTime, not the class Clock"),
        ],
    )
    def test_options_of_another_type_are_refused(self, options: Any, told: str) -> None:
        with pytest.raises(TypeError, match=told):
            WebSocketServerFactory(echo, **options)

    @pytest.mark.parametrize("name", ["", "a b", "a,b", "\u00e9", "a\r\nX: y"])
    def test_a_subprotocol_that_is_no_token_is_refused(self, name: str) -> None:
        with pytest.raises(ValueError) as refused:
            WebSocketServerFactory(echo, subprotocols=["chat", name])
        assert str(refused.value) == (
            f"subprotocols: {name!r} is no name: only the characters of a token may stand in it"
        )

    @pytest.mark.parametrize(
        ("made", "what"),
        [
            (None, "a value of type NoneType"),
            (Protocol(), "a value of type Protocol"),
            (WebSocketProtocol, "the class WebSocketProtocol"),
        ],
    )
    def test_a_function_that_makes_no_protocol_is_named_in_the_error(self, clock: Clock, made: Any, what: str) -> None:
        factory = WebSocketServerFactory(lambda: made, clock=clock)
        with pytest.raises(TypeError) as refused:
            factory.buildProtocol(None)
        assert str(refused.value) == f"make() gave {what}, not a WebSocketProtocol"
        assert factory.connections == set()

    def test_a_generator_function_needs_inline_callbacks(self) -> None:
        def handler(ws: WebSocketProtocol) -> Generator[Deferred[Any], Any, None]:
            yield ws.receive()

        def waiting() -> Generator[None, None, None]:
            yield

        mistakes: tuple[Any, ...] = (handler, waiting, partial(handler, None))  # type: ignore[arg-type]
        for what in mistakes:
            with pytest.raises(TypeError) as refused:
                WebSocketServerFactory(what)
            assert str(refused.value) == (
                f"{what!r} is a generator function: put @inlineCallbacks over it, or make it a coroutine function "
                "(async def)"
            )

    def test_the_factory_provides_its_interface(self, clock: Clock) -> None:
        assert verifyObject(IProtocolFactory, WebSocketServerFactory(echo, clock=clock))

    def test_protocols_are_made_of_a_class(self, clock: Clock) -> None:
        class Mine(WebSocketProtocol): ...

        factory = WebSocketServerFactory(Mine, clock=clock)
        protocol = factory.buildProtocol(None)
        assert type(protocol) is Mine
        assert protocol.factory is inside(protocol).server is factory
        assert inside(protocol).settings is factory.settings
        assert factory.buildProtocol(None) is not protocol

    def test_any_callable_can_make_protocols(self, clock: Clock) -> None:
        class Mine(WebSocketProtocol):
            def __init__(self, name: str) -> None:
                self.name = name

        for make in (lambda: Mine("a"), partial(Mine, "a"), partial(Mine, name="a")):
            protocol = WebSocketServerFactory(make, clock=clock).buildProtocol(None)
            assert protocol.name == "a"

    @pytest.mark.parametrize("what", [None, "text", 1, Protocol])
    def test_a_protocol_argument_that_makes_no_protocol_is_refused(self, what: Any) -> None:
        with pytest.raises(TypeError, match=repr(what)):
            WebSocketServerFactory(what)

    def test_a_callable_that_needs_arguments_is_refused(self) -> None:
        class Mine(WebSocketProtocol):
            def __init__(self, name: str) -> None:
                self.name = name

        def handler(ws: WebSocketProtocol) -> None: ...

        mistakes: tuple[Any, ...] = (handler, Mine("a").send, lambda *, name: Mine(name))
        for what in mistakes:
            with pytest.raises(TypeError, match=f"^{re.escape(repr(what))} cannot be called without arguments: give "):
                WebSocketServerFactory(what)

    def test_a_callable_without_required_arguments_is_accepted(self, clock: Clock) -> None:
        class Mine(WebSocketProtocol):
            def __init__(self, name: str = "a", *rest: str, **more: str) -> None:
                self.name = name

        @wraps(WebSocketProtocol.send)
        def wrapping() -> Mine:
            return Mine()

        class Needing(WebSocketProtocol):
            def __init__(self, name: str) -> None: ...

        # The factory accepts a class that needs arguments, because a subclass of the factory may replace `make`.
        WebSocketServerFactory(Needing)  # type: ignore[arg-type]
        for make in (Mine, wrapping, lambda *names, **more: Mine(*names, **more), partial(next, iter([Mine()]))):
            assert WebSocketServerFactory(make, clock=clock).buildProtocol(None).name == "a"

    def test_all_connections_share_the_settings(self, clock: Clock) -> None:
        factory = WebSocketServerFactory(echo, subprotocols=["a"], timeouts=Timeouts(close=1.0), clock=clock)
        assert factory.settings.subprotocols == ("a",)
        assert factory.settings.timeouts.close == 1.0
        assert factory.settings.clock is clock

    def test_the_factory_lists_its_connections(self, connect: Callable[..., Any], clock: Clock) -> None:
        factory = WebSocketServerFactory(echo, clock=clock)
        first = connect(factory=factory)
        second = connect(factory=factory, opened=False)
        assert factory.connections == {first.protocol, second.protocol}
        first.leaves()
        assert factory.connections == {second.protocol}
        second.leaves()
        assert factory.connections == set()


class TestCoroutine:
    """A coroutine function as the protocol of a factory."""

    def test_a_coroutine_can_echo(self, connect: Callable[..., Any]) -> None:
        peer = connect(echo)
        peer.sends(peer.text("a"), peer.frame(0x82, b"b"))
        assert peer.reads() == b"\x81\x01a\x82\x01b"
        peer.sends(peer.close(1001))
        assert peer.reads() == close(1001)
        peer.leaves()

    @pytest.mark.parametrize(
        ("handler", "sent"),
        [
            (partial(greet, greeting="hi"), b"\x81\x02hi"),
            (Greeter().serve, b"\x81\x011"),
            (Greeter(), b"\x81\x011"),
            (greet_older, b"\x81\x05hello"),
            (partial(greet_older, greeting="hi"), b"\x81\x02hi"),
            (Older().serve, b"\x81\x05hello"),
        ],
        ids=["partial", "method", "object", "older", "partial of older", "method of older"],
    )
    def test_any_kind_of_coroutine_function_is_accepted(
        self, connect: Callable[..., Any], handler: Callable[..., Any] | Greeter, sent: bytes
    ) -> None:
        peer = connect(handler, opened=False)
        peer.sends(peer.HEAD)
        assert peer.reads().endswith(b"\r\n\r\n" + sent)
        peer.leaves()

    def test_returning_closes_with_1000(self, connect: Callable[..., Any]) -> None:
        peer = connect(greet)
        peer.sends(peer.text("bye"))
        assert peer.reads() == close(1000)
        peer.sends(peer.close())
        assert peer.transport.disconnecting
        peer.leaves()
        assert peer.protocol.close_reason.clean

    def test_an_inline_callbacks_function_that_returns_or_raises_closes_the_connection(
        self, connect: Callable[..., Any], logged: Callable[..., list[Any]]
    ) -> None:
        peer = connect(greet_older)
        peer.reads()
        peer.sends(peer.text("bye"))
        assert peer.reads() == b"\x81\x03bye" + close(1000)
        peer = connect(greet_older)
        peer.reads()
        peer.sends(peer.text("fail"))
        assert peer.reads() == close(1011)
        assert len(logged(ZeroDivisionError)) == 1

    def test_a_coroutine_that_returns_closes_with_1000(self, connect: Callable[..., Any]) -> None:
        async def nothing(ws: WebSocketProtocol) -> None: ...

        peer = connect(nothing, opened=False)
        peer.sends(peer.HEAD)
        assert peer.reads().endswith(b"\r\n\r\n" + close(1000))
        peer.leaves()

    def test_returning_after_the_close_changes_nothing(self, connect: Callable[..., Any]) -> None:
        async def leave(ws: WebSocketProtocol) -> None:
            await ws.receive()
            ws.close(4000)

        peer = connect(leave)
        peer.sends(peer.text("a"))
        assert peer.reads() == close(4000)
        peer.leaves()

    def test_raising_is_logged_once_and_closes_with_1011(
        self, connect: Callable[..., Any], logged: Callable[..., list[Any]]
    ) -> None:
        async def fail(ws: WebSocketProtocol) -> None:
            await ws.receive()
            raise ZeroDivisionError

        peer = connect(fail)
        peer.sends(peer.text("a"))
        assert peer.reads() == close(1011)
        assert len(logged(ZeroDivisionError)) == 1
        peer.leaves()
        assert isinstance(peer.protocol.close_reason.error, ZeroDivisionError)

    def test_raising_after_the_end_is_logged_once(
        self, connect: Callable[..., Any], logged: Callable[..., list[Any]]
    ) -> None:
        async def fail(ws: WebSocketProtocol) -> None:
            try:
                await ws.receive()
            except ConnectionClosed:
                raise ZeroDivisionError from None

        peer = connect(fail)
        peer.leaves()
        assert len(logged(ZeroDivisionError)) == 1

    @pytest.mark.parametrize("how", ["lost", "closed"])
    def test_a_coroutine_may_ignore_the_end(self, connect: Callable[..., Any], how: str) -> None:
        peer = connect(greet)
        if how == "closed":
            peer.sends(peer.close(4000))
        peer.leaves(ConnectionLost())

    def test_the_end_of_another_connection_ends_the_handler_without_an_error(self, connect: Callable[..., Any]) -> None:
        """The other side of a proxy is gone. That is no error to log, but it ends the handler and this connection."""
        other = connect(WebSocketProtocol)

        async def forward(ws: WebSocketProtocol) -> None:
            async for message in ws:
                other.protocol.send(message)

        peer = connect(forward)
        other.leaves()
        peer.sends(peer.text("a"))
        assert peer.reads() == close(1000)
        assert peer.protocol.state is State.CLOSING
        peer.leaves()

    def test_a_slow_coroutine_stops_the_reading_from_its_peer(self, connect: Callable[..., Any]) -> None:
        """While the handler waits for its peer to read, the connection reads no more messages than its queue holds."""
        peer = connect(echo, limits=Limits(max_message_size=1000, max_buffered=1000, high_water=500, low_water=100))
        peer.transport.stall()
        sent = 0
        while peer.transport.producerState == "producing":
            peer.sends(peer.frame(0x82, bytes(200)))
            sent += 1
            assert sent < 50
        assert peer.protocol.state is State.OPEN
        assert peer.protocol.buffered_amount < 1000
        peer.transport.flow()
        assert peer.reads() == (b"\x82\x7e\x00\xc8" + bytes(200)) * sent
        assert peer.transport.producerState == "producing"


def says(peer: Any) -> int:
    """Return the status of the response to a handshake."""
    peer.sends(peer.HEAD)
    return int(peer.reads().split(b" ")[1])


class TestLimits:
    """`Limits.max_connections` and `Limits.max_connections_per_peer`."""

    @pytest.mark.parametrize("limit", [1, 3])
    def test_the_connections_are_limited(self, connect: Any, clock: Clock, limit: int) -> None:
        factory = WebSocketServerFactory(echo, limits=Limits(max_connections=limit), clock=clock)
        peers = [connect(factory=factory) for _ in range(limit)]
        late = connect(factory=factory, opened=False)
        assert says(late) == 503
        peers[0].leaves()
        assert says(connect(factory=factory, opened=False)) == 101
        assert says(connect(factory=factory, opened=False)) == 503

    def test_a_refused_client_may_try_again(self, connect: Callable[..., Any], clock: Clock) -> None:
        factory = WebSocketServerFactory(echo, limits=Limits(max_connections=1), clock=clock)
        first, second = connect(factory=factory), connect(factory=factory, opened=False)
        second.sends(second.HEAD)
        answer = second.reads()
        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert answer.endswith(b"\r\n\r\nThe server has too many connections; try again later")
        first.leaves()
        if not second.transport.disconnecting:
            assert says(second) == 101

    def test_the_connections_of_an_address_are_limited(self, connect: Any, clock: Clock) -> None:
        factory = WebSocketServerFactory(echo, limits=Limits(max_connections_per_peer=2), clock=clock)

        def arrive(host: str, port: int) -> Any:
            peer = connect(factory=factory, opened=False)
            peer.transport.peerAddr = IPv4Address("TCP", host, port)
            return peer

        first, second = arrive("127.0.0.1", 1), arrive("127.0.0.1", 2)
        assert [says(first), says(second), says(arrive("127.0.0.1", 3))] == [101, 101, 503]
        assert says(arrive("127.0.0.2", 4)) == 101
        first.leaves()
        assert [says(arrive("127.0.0.1", 5)), says(arrive("127.0.0.1", 6))] == [101, 503]

    def test_peers_without_an_address_are_not_one_peer(self, connect: Callable[..., Any], clock: Clock) -> None:
        factory = WebSocketServerFactory(echo, limits=Limits(max_connections_per_peer=1), clock=clock)
        for _ in range(3):
            peer = connect(factory=factory, opened=False)
            peer.transport.peerAddr = object()
            assert says(peer) == 101

    def test_declined_connections_are_dropped_in_time(self, connect: Callable[..., Any], clock: Clock) -> None:
        class Choosy(WebSocketProtocol):
            def upgrade_requested(self, request: Request) -> Response | None:
                return Response(403) if self.user is None else None

        factory = WebSocketServerFactory(
            Choosy, limits=Limits(max_connections=1, max_connections_per_peer=1), clock=clock
        )
        for _ in range(3):
            peer = connect(factory=factory, opened=False)
            assert [says(peer), says(peer)] == [403, 403]
            peer.protocol.user = "somebody"
            assert says(peer) == 101
            peer.leaves()

    def test_declined_connections_do_not_keep_others_out(self, connect: Callable[..., Any], clock: Clock) -> None:
        class Choosy(WebSocketProtocol):
            def upgrade_requested(self, request: Request) -> Response | None:
                return Response(403) if self.user is None else None

        factory = WebSocketServerFactory(Choosy, limits=Limits(max_connections=1), clock=clock)
        declined = connect(factory=factory, opened=False)
        assert says(declined) == 403
        welcome = connect(factory=factory, opened=False)
        welcome.protocol.user = "somebody"
        assert says(welcome) == 101

    def test_the_limits_include_opening_connections(self, connect: Callable[..., Any], clock: Clock) -> None:
        class Slow(WebSocketProtocol):
            def upgrade_requested(self, request: Request) -> Deferred[None]:
                return Deferred()

        factory = WebSocketServerFactory(Slow, limits=Limits(max_connections=1), clock=clock)
        first, second = connect(factory=factory, opened=False), connect(factory=factory, opened=False)
        first.sends(first.HEAD)
        assert says(second) == 503
        first.leaves()
        third = connect(factory=factory, opened=False)
        third.sends(third.HEAD)
        assert third.reads() == b""


class TestDrain:
    """`WebSocketServerFactory.drain`: close all connections, and wait until they are gone."""

    def test_a_drain_closes_all_and_fires_when_they_are_gone(self, connect: Any, clock: Clock) -> None:
        factory = WebSocketServerFactory(WebSocketProtocol, clock=clock)
        peers = [connect(factory=factory) for _ in range(3)]
        drained = Outcome(factory.drain())
        for peer in peers:
            assert peer.reads() == close(1001, "the server is shutting down")
            assert drained == []
            peer.sends(peer.close(1001))
            peer.leaves()
            assert peer.protocol.close_reason.clean
        assert drained == [None]
        assert clock.calls == []

    def test_a_drain_may_have_another_code(self, connect: Callable[..., Any], clock: Clock) -> None:
        factory = WebSocketServerFactory(WebSocketProtocol, clock=clock)
        peer = connect(factory=factory)
        factory.drain(1012, "back soon")
        assert peer.reads() == close(1012, "back soon")

    def test_a_drain_without_connections_is_done(self, clock: Clock) -> None:
        factory = WebSocketServerFactory(WebSocketProtocol, clock=clock)
        assert Outcome(factory.drain()) == [None]
        assert Outcome(factory.drain()) == [None]

    def test_a_second_drain_is_done_with_the_first(self, connect: Callable[..., Any], clock: Clock) -> None:
        factory = WebSocketServerFactory(WebSocketProtocol, clock=clock)
        peer = connect(factory=factory)
        drained = [Outcome(factory.drain()), Outcome(factory.drain())]
        peer.leaves()
        assert drained == [[None], [None]]
        assert Outcome(factory.drain()) == [None]

    def test_connections_that_are_not_open_are_dropped(self, connect: Callable[..., Any], clock: Clock) -> None:
        factory = WebSocketServerFactory(WebSocketProtocol, clock=clock)
        peer = connect(factory=factory, opened=False)
        peer.sends(peer.HEAD[:40])
        drained = Outcome(factory.drain())
        assert peer.transport.disconnected
        peer.leaves(ConnectionAborted())
        assert drained == [None]

    def test_a_drain_is_bounded_in_time(self, connect: Callable[..., Any], clock: Clock) -> None:
        factory = WebSocketServerFactory(WebSocketProtocol, timeouts=Timeouts(close=5.0), clock=clock)
        peer = connect(factory=factory)
        drained = Outcome(factory.drain())
        clock.advance(5.1)
        assert peer.transport.disconnected
        peer.leaves(ConnectionAborted())
        assert drained == [None]

    def test_a_drain_answers_new_requests_with_503_and_does_not_wait_for_them(
        self, connect: Callable[..., Any], clock: Clock
    ) -> None:
        factory = WebSocketServerFactory(WebSocketProtocol, clock=clock)
        peer = connect(factory=factory)
        drained = Outcome(factory.drain())
        late = connect(factory=factory, opened=False)
        assert says(late) == 503
        silent = connect(factory=factory, opened=False)
        peer.leaves()
        assert drained == [None]
        assert says(connect(factory=factory, opened=False)) == 503
        late.leaves()
        silent.leaves()
        assert clock.calls != []
        assert len(factory.connections) == 1

    def test_cancelling_the_deferred_of_a_drain_does_not_end_the_drain(
        self, connect: Callable[..., Any], clock: Clock
    ) -> None:
        factory = WebSocketServerFactory(WebSocketProtocol, clock=clock)
        peer = connect(factory=factory)
        first, second = factory.drain(), factory.drain()
        outcomes = [Outcome(first), Outcome(second)]
        first.cancel()
        assert isinstance(outcomes[0][0], CancelledError)
        peer.leaves()
        assert outcomes[1] == [None]

    def test_closing_connections_are_waited_for(self, connect: Callable[..., Any], clock: Clock) -> None:
        factory = WebSocketServerFactory(WebSocketProtocol, clock=clock)
        peer = connect(factory=factory)
        peer.protocol.close(4000)
        drained = Outcome(factory.drain())
        assert drained == []
        peer.sends(peer.close(4000))
        peer.leaves()
        assert drained == [None]
        assert peer.protocol.close_reason.sent == Close(4000)

    def test_handlers_are_ended_cleanly(self, connect: Callable[..., Any], clock: Clock) -> None:
        ends: list[str] = []

        async def handler(ws: WebSocketProtocol) -> None:
            async for _ in ws:
                pass
            ends.append("end")

        factory = WebSocketServerFactory(handler, clock=clock)
        peer = connect(factory=factory)
        factory.drain()
        peer.sends(peer.close(1001))
        peer.leaves()
        assert ends == ["end"]
