"""The protocol of `DaphneFactory`, which serves Daphne's applications."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted_beastws.asgi.daphne import DaphneFactory
from twisted_beastws.testing import Frame, ScriptedPeer, scripted_client, upgrade_request


class Server:
    """A stand-in for Daphne's server, with the attributes and methods that a connection uses."""

    root_path = ""
    proxy_forwarded_address_header = None
    websocket_timeout = 100
    websocket_connect_timeout = 5
    ping_interval = 20

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.scope: dict[str, Any] = {}
        self.connected: set[Any] = set()

    def protocol_connected(self, protocol: Any) -> None:
        self.connected.add(protocol)

    def protocol_disconnected(self, protocol: Any) -> None:
        self.connected.remove(protocol)

    def create_application(self, protocol: Any, scope: dict[str, Any]) -> Any:
        self.scope = scope
        return SimpleNamespace(put_nowait=self.events.append)

    def log_action(self, protocol: str, action: str, details: Any) -> None: ...


def begin(headers: dict[str, str] | None = None) -> tuple[Server, ScriptedPeer[Any]]:
    server = Server()
    factory = DaphneFactory(server, server="daphne")
    factory.setProtocolOptions(autoPingTimeout=30, openHandshakeTimeout=5, maxMessagePayloadSize=10)
    peer = scripted_client(factory, opened=False)
    peer.send(upgrade_request("/a%20b?c", headers=headers or {}))
    return server, peer


class TestProtocol:
    """Daphne's protocol on our factory (`docs/howto/daphne.md`)."""

    def test_the_scope_leaves_out_fields_with_an_underscore(self) -> None:
        server, _ = begin({"X_Evil": "1", "Daphne-Root-Path": "/app", "X-Good": "1"})
        names = [name for name, _ in server.scope["headers"]]
        assert b"x_evil" not in names and b"x-good" in names and b"daphne-root-path" not in names
        assert (server.scope["root_path"], server.scope["path"], server.scope["query_string"]) == ("/app", "/a b", b"c")

    def test_an_exception_before_the_accept_is_answered_500(self) -> None:
        _, peer = begin()
        peer.protocol.handle_exception(KeyError())
        assert peer.read_head().startswith(b"HTTP/1.1 500 ")

    def test_an_exception_after_the_accept_closes_with_1011(self) -> None:
        server, peer = begin()
        peer.protocol.handle_reply({"type": "websocket.accept"})
        assert peer.read_head().startswith(b"HTTP/1.1 101 ")
        peer.protocol.handle_exception(KeyError())
        peer.expect(Frame.close(1011))
        peer.send(Frame.close(1011))
        assert server.events[-1] == {"type": "websocket.disconnect", "code": 1011}
        assert server.connected == set()

    def test_the_time_limits_refuse_and_close(self) -> None:
        _, peer = begin()
        peer.protocol.socket_opened -= 6
        peer.protocol.check_timeouts()
        assert peer.read_head().startswith(b"HTTP/1.1 403 ")
        _, peer = begin()
        peer.protocol.handle_reply({"type": "websocket.accept"})
        peer.read_head()
        peer.protocol.check_timeouts()
        peer.expect()
        peer.protocol.socket_opened -= 101
        peer.protocol.check_timeouts()
        peer.expect(Frame.close(1000))

    def test_a_client_that_leaves_early_is_a_disconnect(self) -> None:
        server, peer = begin()
        peer.cut()
        assert server.events == [
            {"type": "websocket.connect"},
            {"type": "websocket.disconnect", "code": 1006},
        ]
        # Daphne may still call this method after the disconnect.
        peer.protocol.handle_reply({"type": "websocket.close"})

    def test_a_message_over_the_limit_closes_with_1009(self) -> None:
        _, peer = begin()
        peer.protocol.handle_reply({"type": "websocket.accept"})
        peer.read_head()
        peer.send(Frame.text("x" * 11))
        assert peer.frames()[0].payload[:2] == (1009).to_bytes(2, "big")
