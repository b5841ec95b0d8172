"""Tests of `WebSocketServerFactory.add_observer` and of `Observer`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from twisted_beastws import (
    Limits,
    Observer,
    Response,
    Router,
    State,
    Timeouts,
    UpgradeDeclined,
    WebSocketProtocol,
    WebSocketServerFactory,
)
from twisted_beastws.errors import HandshakeTimeout
from twisted_beastws.testing import Frame, scripted_client, upgrade_request


class Notes(Observer):
    """Notes the calls of its methods, under a name."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name = name
        self.notes = notes

    def note(self, *what: object) -> None:
        self.notes.append(" ".join(map(str, (self.name, *what))))

    def opened(self, ws: WebSocketProtocol) -> None:
        self.note("opened", ws.request and ws.request.path)

    def not_opened(self, ws: WebSocketProtocol, error: BaseException | None) -> None:
        assert isinstance(error, UpgradeDeclined)
        self.note("not opened", error.response.status)

    def round_trip(self, ws: WebSocketProtocol, seconds: float) -> None:
        self.note("round trip", ws.state.value, seconds)

    def read_too_slowly(self, ws: WebSocketProtocol) -> None:
        self.note("too slow", ws.state.value)

    def closed(self, ws: WebSocketProtocol, seconds: float) -> None:
        assert ws.close_reason is not None
        self.note("closed", int(ws.close_reason.code), seconds)

    def around(self, ws: WebSocketProtocol, name: str, hook: Callable[..., Any]) -> Callable[..., Any]:
        def observed(*arguments: Any) -> Any:
            self.note(name, *arguments)
            return hook(*arguments)

        return observed


class Talk(WebSocketProtocol):
    def text_received(self, text: str) -> Any:
        if text == "wait":
            self.waited: Deferred[None] = Deferred()
            return self.waited
        self.send(text)
        return None


async def handler(ws: WebSocketProtocol) -> None:
    async for message in ws:
        ws.send(message)


def observed(protocol: Any, notes: list[str], *names: str, **options: Any) -> WebSocketServerFactory:
    factory = WebSocketServerFactory(protocol, clock=Clock(), **options)
    for name in names:
        factory.add_observer(Notes(name, notes))
    return factory


class TestEvents:
    """The events that an `Observer` gets."""

    def test_every_observer_gets_each_event(self) -> None:
        notes: list[str] = []
        factory = observed(Talk, notes, "a", "b")
        peer = scripted_client(factory)
        peer.send(Frame.text("x"), Frame.close(1001))
        peer.flush()
        peer.transport.loseConnection()
        peer.flush()
        each = ["opened /", "opened", "text_received x"]
        each.append("closed 1001 0.0")
        assert notes == [f"{name} {what}" for what in each for name in "ab"]

    @pytest.mark.parametrize("others", [0, 1])
    def test_an_observer_that_fails_is_logged_and_changes_nothing(
        self, others: int, logged: Callable[..., list[Any]]
    ) -> None:
        class Failing(Observer):
            def __getattribute__(self, name: str) -> Any:
                if name in ("opened", "not_opened", "around", "closed", "round_trip"):
                    raise ZeroDivisionError(name)
                return super().__getattribute__(name)

        notes: list[str] = []
        factory = observed(Talk, notes, *"ab"[:others])
        factory.add_observer(Failing())
        factory.add_gate(lambda request, ws: Response(403) if request.path == "/no" else None)
        peer = scripted_client(factory)
        peer.send(Frame.text("x"), Frame.close(1001))
        peer.expect(Frame.text("x"), Frame.close(1001))
        peer.transport.loseConnection()
        peer.flush()
        assert (peer.protocol.state, factory.connections) == (State.CLOSED, set())
        refused = scripted_client(factory, opened=False)
        refused.send(upgrade_request("/no"))
        assert {str(error) for error in logged(ZeroDivisionError)} == {"opened", "around", "closed", "not_opened"}
        assert (
            notes == ["a opened /", "a opened", "a text_received x", "a closed 1001 0.0", "a not opened 403"] * others
        )

    def test_a_refused_request_is_reported(self) -> None:
        notes: list[str] = []
        factory = observed(Talk, notes, "a")
        factory.add_gate(lambda request, ws: Response(403))
        peer = scripted_client(factory, opened=False)
        peer.send(upgrade_request())
        assert notes == ["a not opened 403"]

    def test_a_handshake_that_takes_too_long_is_reported_with_its_connection(self) -> None:
        ended: list[Any] = []

        class Ends(Observer):
            def not_opened(self, ws: WebSocketProtocol, error: BaseException | None) -> None:
                ended.append((type(ws), type(error)))

        clock = Clock()
        factory = WebSocketServerFactory(Talk, clock=clock, timeouts=Timeouts(handshake=5))
        factory.add_observer(Ends())
        peer = scripted_client(factory, clock=clock, opened=False)
        peer.send(b"GET / HTTP/1.1\r\n")
        clock.advance(6)
        assert ended == [(Talk, HandshakeTimeout)]

    def test_round_trips_and_slow_readers_are_reported(self) -> None:
        notes: list[str] = []
        factory = observed(Talk, notes, "a", limits=Limits(max_buffered=1 << 16, max_message_size=1 << 16))
        peer = scripted_client(factory)
        (ws,) = factory.connections
        ws.ping(b"p")
        peer.expect(Frame.ping(b"p"))
        peer.send(Frame.pong(b"p"))
        peer.flush()
        assert notes[-1] == "a round trip open 0.0"
        peer.protocol_transport.stalled = True
        while ws.state is State.OPEN:
            ws.send(bytes(1 << 16))
        assert notes[-1] == "a too slow open"

    def test_a_connection_has_the_observers_from_the_time_it_was_made(self) -> None:
        notes: list[str] = []
        factory = observed(Talk, notes)
        peer = scripted_client(factory)
        factory.add_observer(Notes("late", notes))
        peer.send(Frame.close(1000))
        peer.transport.loseConnection()
        peer.flush()
        assert notes == []


class TestAround:
    """An observer around the application's own code."""

    def test_messages_that_waited_for_a_hook_are_observed_once_each(self) -> None:
        notes: list[str] = []
        factory = observed(Talk, notes, "a")
        peer = scripted_client(factory)
        peer.send(Frame.text("wait"), Frame.text("1"), Frame.text("2"))
        (ws,) = factory.connections
        assert isinstance(ws, Talk)
        ws.waited.callback(None)
        peer.expect(Frame.text("1"), Frame.text("2"))
        peer.send(Frame.text("3"))
        peer.expect(Frame.text("3"))
        assert notes[2:] == [f"a text_received {text}" for text in ("wait", "1", "2", "3")]

    def test_a_coroutine_function_runs_inside_opened(self) -> None:
        notes: list[str] = []
        ended: list[object] = []

        class Whole(Observer):
            def around(self, ws: WebSocketProtocol, name: str, hook: Callable[..., Any]) -> Callable[..., Any]:
                def observed() -> Any:
                    notes.append(name)
                    return hook().addBoth(ended.append)

                return observed

        factory = WebSocketServerFactory(handler, clock=Clock())
        factory.add_observer(Whole())
        peer = scripted_client(factory)
        peer.send(Frame.text("x"))
        peer.expect(Frame.text("x"))
        assert notes == ["opened"] and ended == []
        peer.send(Frame.close(1000))
        peer.transport.loseConnection()
        peer.flush()
        assert ended == [None]


class TestTargets:
    """Observers of a `Router` and of its targets."""

    def test_a_router_and_its_target_are_both_observed(self) -> None:
        notes: list[str] = []
        inner = observed(Talk, notes, "inner")
        router = observed(Router({"/inner": inner, "/talk": Talk}), notes, "outer")
        scripted_client(router, target="/inner")
        scripted_client(router, target="/talk")
        opened = [note for note in notes if "opened /" in note]
        assert opened == ["outer opened /inner", "inner opened /inner", "outer opened /talk"]

    def test_a_target_can_be_observed_alone_with_its_refusals(self) -> None:
        notes: list[str] = []
        inner = observed(Talk, notes, "inner")
        inner.add_gate(lambda request, ws: Response(401))
        router = observed(Router({"/inner": inner, "/talk": Talk}), notes)
        for target in ("/inner", "/none", "/talk"):
            peer = scripted_client(router, opened=False)
            peer.send(upgrade_request(target))
        assert notes == ["inner not opened 401"]
