"""Tests of `WebSocketProtocol.set_options`: options of one connection."""

from __future__ import annotations

from typing import Any

import pytest

from twisted_beastws import (
    BufferFull,
    ConnectionClosed,
    Deflate,
    Limits,
    LocalError,
    Request,
    Timeouts,
    WebSocketClientFactory,
    WebSocketProtocol,
)
from twisted_beastws.testing import Frame, connected_pair, scripted_client, upgrade_request

from ..support.protocols import Echo

DEFLATE = {"Sec-WebSocket-Extensions": "permessage-deflate"}


def choosing(hook: str, **options: Any) -> type[WebSocketProtocol]:
    """Return a server protocol with a ``hook`` that sets these options for requests for ``/large``."""

    def choose(self: Any, request: Request) -> None:
        if request.path == "/large":
            self.set_options(**options)

    return type("Choosing", (Echo,), {hook: choose})


@pytest.mark.parametrize("hook", ["http_requested", "upgrade_requested"])
class TestBeforeTheAnswer:
    """The hooks of the handshake set options: the request decides."""

    @pytest.mark.parametrize("target", ["/", "/large"])
    def test_the_request_decides_about_limits(self, hook: str, target: str) -> None:
        server = choosing(hook, limits=Limits(max_message_size=10))
        peer = scripted_client(server, target=target, limits=Limits(max_message_size=5))
        peer.send(Frame.text("1234567890"))
        peer.expect(Frame.text("1234567890") if target == "/large" else Frame.close(1009))

    def test_the_request_decides_about_timeouts(self, hook: str) -> None:
        peer = scripted_client(choosing(hook, timeouts=Timeouts(idle=3, ping_interval=None)), target="/large")
        peer.advance(2.5)
        assert not peer.ended
        peer.advance(1)
        peer.expect(Frame.close(1011, "nothing was received for 3 s"))

    def test_the_request_decides_about_pings(self, hook: str) -> None:
        peer = scripted_client(choosing(hook, timeouts=Timeouts(ping_interval=5)), target="/large")
        peer.advance(5.1)
        peer.expect(Frame.ping())

    def test_compression_can_be_accepted(self, hook: str) -> None:
        peer = scripted_client(choosing(hook, deflate=Deflate()), target="/large", headers=DEFLATE)
        assert peer.protocol.deflate is not None

    def test_compression_can_be_declined(self, hook: str) -> None:
        peer = scripted_client(choosing(hook, deflate=False), target="/large", headers=DEFLATE, deflate=Deflate())
        assert peer.protocol.deflate is None

    def test_other_connections_keep_their_options(self, hook: str) -> None:
        peer = scripted_client(choosing(hook, deflate=Deflate()), headers=DEFLATE)
        assert peer.protocol.deflate is None


def test_a_client_sets_options_before_its_handshake() -> None:
    pair = connected_pair(Echo, opened=False, deflate=Deflate())
    pair.client.set_options(deflate=Deflate(), limits=Limits(max_message_size=2))
    pair.client.handshake("localhost")
    pair.flush()
    assert pair.client.deflate is not None
    pair.client.send("abc")
    pair.flush()
    assert pair.server.close_reason is not None
    assert pair.server.close_reason.code == 1009


class TestWhileOpen:
    """Options that change on an open connection (Beast: ``set_option``)."""

    def test_new_timeouts_are_effective_at_once(self) -> None:
        peer = scripted_client(Echo)
        peer.advance(10)
        peer.protocol.set_options(timeouts=Timeouts(idle=20, ping_interval=4))
        peer.advance(4.1)
        peer.expect(Frame.ping())
        peer.protocol.set_options(timeouts=Timeouts(idle=5, ping_interval=None))
        peer.advance(0.1)
        peer.expect(Frame.close(1011, "nothing was received for 5 s"))

    def test_the_lifetime_counts_from_the_opening(self) -> None:
        peer = scripted_client(Echo)
        peer.advance(10)
        peer.protocol.set_options(timeouts=Timeouts(max_lifetime=12))
        peer.advance(1.9)
        peer.expect()
        peer.advance(0.2)
        peer.expect(Frame.close(1001, "the connection has reached its maximum lifetime"))

    @pytest.mark.parametrize("size", [9, 10, 11])
    def test_a_new_message_size_is_effective_for_the_next_message(self, size: int) -> None:
        peer = scripted_client(Echo)
        peer.protocol.set_options(limits=Limits(max_message_size=10))
        peer.send(Frame.text("a" * size))
        peer.expect(Frame.text("a" * size) if size <= 10 else Frame.close(1009))

    def test_fragments_can_be_limited(self) -> None:
        peer = scripted_client(Echo)
        peer.protocol.set_options(limits=Limits(max_fragments=4))
        peer.send(Frame.text("a", fin=False), *[Frame(0, b"b", fin=False)] * 4)
        peer.expect(Frame.close(1008))

    def test_the_write_buffer_has_the_new_limit(self) -> None:
        pair = connected_pair(Echo)
        pair.server_transport.stalled = True
        limits = Limits(max_message_size=1000, max_buffered=1000, high_water=500, low_water=100, slow_reader="pause")
        pair.server.set_options(limits=limits)
        with pytest.raises(BufferFull, match=r"Limits\.max_buffered is 1000$"):
            for _ in range(70):
                pair.server.send(b"a" * 1000)

    def test_the_inbox_has_the_new_limit(self) -> None:
        peer = scripted_client(WebSocketProtocol)
        peer.send(Frame.text("a"))
        peer.protocol.set_options(limits=Limits(max_queued=2))
        peer.send(Frame.text("b"))
        peer.send(Frame.ping(b"?"))
        assert not peer.frames()

    def test_compression_and_rates_cannot_be_changed(self) -> None:
        peer = scripted_client(Echo, limits=Limits(max_message_rate=100))
        with pytest.raises(LocalError, match=r"^set_options\(deflate=\.\.\.\): both ends agreed on compression"):
            peer.protocol.set_options(deflate=Deflate())
        with pytest.raises(LocalError, match=r"max_message_rate cannot change once the connection is open"):
            peer.protocol.set_options(limits=Limits())
        peer.protocol.set_options(limits=Limits(max_message_rate=100, max_message_size=5))


class TestMistakes:
    """Calls that `set_options` refuses, and that change nothing."""

    @pytest.mark.parametrize("name", ["timeouts", "limits", "deflate"])
    def test_a_value_of_another_type_is_refused(self, name: str) -> None:
        pair = connected_pair(Echo, opened=False)
        options: Any = {name: 5}
        with pytest.raises(TypeError, match=rf"^{name}=5: give {name.capitalize()}\(\.\.\.\)"):
            pair.server.set_options(**options)

    def test_set_options_needs_a_connection(self) -> None:
        with pytest.raises(LocalError, match=r"^set_options\(\) needs a connection: call it in connectionMade"):
            WebSocketProtocol().set_options(limits=Limits())
        WebSocketClientFactory().buildProtocol(None).set_options(limits=Limits())

    def test_set_options_raises_after_the_end(self) -> None:
        pair = connected_pair(Echo)
        pair.cut()
        with pytest.raises(ConnectionClosed):
            pair.server.set_options(limits=Limits())

    def test_a_failing_call_changes_nothing(self) -> None:
        peer = scripted_client(Echo)
        with pytest.raises(LocalError):
            peer.protocol.set_options(limits=Limits(max_message_size=1), deflate=Deflate())
        peer.send(Frame.text("abc"))
        peer.expect(Frame.text("abc"))


def test_the_head_in_the_example_is_an_upgrade() -> None:
    assert Request.parse(upgrade_request("/large")).path == "/large"
