"""Tests of a protocol's names: the library has a fixed set, and all other names belong to the user."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol

from twisted_beastws import State, WebSocketProtocol, WebSocketServerFactory
from twisted_beastws.connection.connection import Connection
from twisted_beastws.connection.delivery import Delivery
from twisted_beastws.connection.keepalive import Liveness
from twisted_beastws.connection.outlet import Outlet
from twisted_beastws.connection.server_handshake import ServerHandshake
from twisted_beastws.connection.write_buffer import Outgoing
from twisted_beastws.hook_names import HOOKS
from twisted_beastws.testing import Frame, connected_pair, scripted_client
from twisted_beastws.wire.session import Session

BASE = set(vars(WebSocketProtocol)) | set(dir(Protocol))

INTERNAL = {
    name for kind in (Connection, Delivery, Liveness, ServerHandshake, Outgoing, Outlet, Session) for name in dir(kind)
} | {f"_{name}" for name in dir(Connection)}
"""Attribute names of a connection's internal parts; some of them were once attributes of the protocol."""

ONCE_BROKEN = (
    *("turns", "timed_out", "_session", "_state", "_closing", "_clock", "_ended", "upgraded", "may_ping", "admit"),
    *("hold_reading", "settings", "server", "role", "outgoing", "reading_paused", "log_unconsumed", "connecting"),
    *("_transport", "_liveness", "_opening", "_inbox", "_now", "_connection", "_in_hook_mode", "_receivers"),
)

WORDS = """
    account actions active address age agent alive amount answers app args attempts auth backlog balance batch
    bits body bot buffer busy cache callbacks channel chat child client clients clock code codec command conn
    config context cookie count counter current cursor database data db deadline delay depth device done
    duration echo encoder engine entries errors event events failed feed field file filter finished flags frames
    game generation group guest handler handlers handling headers heartbeat history host hub id idle index info
    inbox items job key kind last_seen latest left level limit limits lines link listener loop mailbox manager
    members messages meta meter method mode model name next_id nick node notes number options order origin out
    output owner packets page parent parser path pause payload pending pings player players policy pool port
    position prefix process producer profile queue rank rate ready reader reading reason received registry
    remote replies reset result resume retries role_name room rooms route run running score secret self_id
    sender sent serial service session sessions shared signal size socket source stack stage started stats
    status step stop stopped store stream subscribers sum tags target task tasks team thread ticket time timeout
    timer timers token topic total trace transfer tries turn type uid update uptime url username users value
    values version visits wait waiters waiting watcher window worker world writer zone
"""
ORDINARY = WORDS.split()

COLLIDING = sorted(
    name
    for name in (*ORDINARY, *ONCE_BROKEN, *INTERNAL)
    if name not in BASE and not name.startswith("__") and name != "_websocket_connection"
)

REPLACEABLE = ("serve", "log", "send_json", "receive_json")

OURS = sorted(
    name
    for name in vars(WebSocketProtocol)
    if name.islower() and not name.startswith("__") and name not in (*HOOKS, *REPLACEABLE, "write", "transport")
)


class Hostile:
    """An object that raises on any use: a call, a comparison, an iteration, a truth test, an attribute."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the library used an attribute of the application: {name}")

    __call__ = __bool__ = __iter__ = __eq__ = __lt__ = __add__ = __len__ = lambda *_: 1 / 0  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]


def echo(self: Any, text: str) -> None:
    self.send(text)


def set_all(self: Any) -> None:
    for name in COLLIDING:
        setattr(self, name, Hostile())


def called(*_: object) -> None:
    raise AssertionError("the library called a method of the application")


SET: dict[str, dict[str, Any]] = {
    "in the class": {name: Hostile() for name in COLLIDING},
    "as methods": dict.fromkeys(COLLIDING, called),
    "in __init__": {"__init__": set_all},
    "in opened": {"opened": set_all},
}


def test_the_tests_try_more_than_200_names() -> None:
    assert len(ORDINARY) > 200
    assert len(COLLIDING) > 350


class TestNamesOfTheApplication:
    """All names that the library does not use belong to the application."""

    @pytest.mark.filterwarnings("ignore:.*is no hook")
    @pytest.mark.parametrize("where", SET)
    @pytest.mark.parametrize("side", ["server", "client"])
    def test_any_name_belongs_to_a_subclass(self, where: str, side: str, logged: Any) -> None:
        closed: list[Any] = []
        noted = {"text_received": echo, "closed": lambda self, reason: closed.append(reason)}
        colliding: Any = type("Colliding", (WebSocketProtocol,), {**noted, **SET[where]})
        other = WebSocketProtocol
        pair = connected_pair(colliding, other) if side == "server" else connected_pair(other, colliding)
        mine, others = (pair.server, pair.client) if side == "server" else (pair.client, pair.server)
        heard: list[Any] = []
        for text in ("one", "two"):
            others.receive().addCallback(heard.append)
            others.send(text)
            pair.flush()
        others.ping()
        pair.advance(400)
        assert heard == ["one", "two"]
        others.close()
        pair.flush()
        assert [(reason.code, reason.clean) for reason in closed] == [(1000, True)]
        assert mine.state is State.CLOSED

    @pytest.mark.parametrize("name", ONCE_BROKEN)
    def test_a_name_that_once_broke_a_subclass_is_free(self, name: str) -> None:
        peer = scripted_client(type("One", (WebSocketProtocol,), {"text_received": echo, name: Hostile()}))
        setattr(peer.protocol, name, 0)
        peer.send(Frame.text("a"))
        peer.expect(Frame.text("a"))
        peer.advance(120)
        peer.send(Frame.close())
        assert peer.protocol.close_reason.clean

    def test_an_instance_has_one_private_attribute(self) -> None:
        own = {name for name in vars(WebSocketProtocol) if name.startswith("_") and not name.startswith("__")}
        # abc stores this attribute in the class.
        assert own <= {"_abc_impl"}
        instance = WebSocketProtocol()
        assert list(vars(instance)) == ["_websocket_connection"]

    def test_the_class_has_few_names(self) -> None:
        assert len([name for name in vars(WebSocketProtocol) if not name.startswith("__")]) <= 60


class TestNamesOfTheLibrary:
    """The library's public names cannot be hidden."""

    @pytest.mark.parametrize("name", [*OURS, "_websocket_connection"])
    @pytest.mark.parametrize("value", [None, called], ids=["attribute", "method"])
    def test_a_class_that_hides_a_public_name_cannot_be_made(self, name: str, value: object) -> None:
        with pytest.raises(TypeError, match=rf"^Room\.{name} would hide WebSocketProtocol\.{name}, which is no hook"):
            type("Room", (WebSocketProtocol,), {name: value})

    def test_the_list_of_names_has_the_public_ones(self) -> None:
        assert {"send", "close", "state", "request", "subprotocol", "user", "peer", "latency"} < set(OURS)

    def test_a_subclass_of_a_subclass_cannot_hide_one_either(self) -> None:
        class Room(WebSocketProtocol): ...

        with pytest.raises(TypeError, match=r"^Hall\.send"):
            type("Hall", (Room,), {"send": called})

    @pytest.mark.parametrize("name", [*HOOKS, "serve", "log", "write", "connectionMade", "dataReceived", "transport"])
    def test_hooks_and_methods_that_twisted_calls_may_be_overridden(self, name: str) -> None:
        assert type("Room", (WebSocketProtocol,), {name: called})

    def test_arguments_that_no_constructor_takes_are_refused(self) -> None:
        made: Any = type("Room", (WebSocketProtocol,), {})
        with pytest.raises(TypeError, match="takes no arguments"):
            made("lobby")


class TestHooksOfAnInstance:
    """Hooks that are assigned to an instance before its connection opens."""

    def test_a_message_hook_of_an_instance_is_used_like_that_of_a_class(self) -> None:
        heard: list[str] = []

        def build() -> WebSocketProtocol:
            protocol = WebSocketProtocol()
            protocol.text_received = heard.append  # type: ignore[assignment, method-assign]
            return protocol

        peer = scripted_client(WebSocketServerFactory(build))
        peer.send(Frame.text("a"), Frame.binary(b"b"))
        assert heard == ["a"]
        # The protocol has no hook for binary messages.
        peer.expect(Frame.close(1003))
        with pytest.raises(Exception, match="overrides a message hook"):
            peer.protocol.receive()

    def test_every_hook_is_called_on_an_instance(self) -> None:
        called: list[str] = []

        class Bare(WebSocketProtocol):
            def __init__(self) -> None:
                for name in HOOKS:
                    if name != "fragment_received":
                        setattr(self, name, lambda *_, name=name: called.append(name))

        peer = scripted_client(Bare)
        peer.send(Frame.text("a"), Frame.binary(b"b"), Frame.ping(), Frame.pong(), Frame.close())
        assert called == [name for name in HOOKS if name != "fragment_received"]

    def test_fragments_are_streamed_to_a_hook_of_an_instance(self) -> None:
        pieces: list[Any] = []

        class Bare(WebSocketProtocol):
            def upgrade_requested(self, request: Any) -> None:
                self.fragment_received = lambda *piece: pieces.append(piece)  # type: ignore[method-assign]

        scripted_client(Bare).send(Frame.binary(b"a", fin=False), Frame(0, b"b"))
        assert [(data, final) for data, _, final in pieces] == [(b"a", False), (b"b", True)]

    def test_the_next_message_waits_for_a_slow_hook_of_an_instance(self) -> None:
        heard: list[str] = []
        slow: Deferred[None] = Deferred()

        class Bare(WebSocketProtocol):
            def __init__(self) -> None:
                self.text_received = self.take  # type: ignore[method-assign]

            def take(self, text: str) -> Any:
                heard.append(text)
                return slow

        peer = scripted_client(Bare)
        peer.send(Frame.text("a"), Frame.text("b"))
        assert heard == ["a"]
        slow.callback(None)
        assert heard == ["a", "b"]
