"""Limits of connections and of requests, in all and from one address."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.task import Clock

from twisted_beastws import Limits, Request, Response, Timeouts, WebSocketProtocol, WebSocketServerFactory
from twisted_beastws.admission import LEAST_SWEPT, peer_of

pytestmark = pytest.mark.usefixtures("logged")


class Site(WebSocketProtocol):
    """A page, and a WebSocket."""

    asked = 0

    def http_requested(self, request: Request) -> Response | None:
        type(self).asked += 1
        return Response(200, body="page") if request.path == "/page" else None

    def upgrade_requested(self, request: Request) -> Response | None:
        return Response(403) if request.path == "/no" else None


PAGE = b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n"


class Server:
    def __init__(self, connect: Callable[..., Any], clock: Clock, **limits: Any) -> None:
        self.connect = connect
        self.factory = WebSocketServerFactory(Site, limits=Limits(**limits), clock=clock)

    def arrive(self, host: str | None = "127.0.0.1") -> Any:
        peer = self.connect(factory=self.factory, opened=False)
        kind: Any = IPv6Address if host and ":" in host else IPv4Address
        peer.transport.peerAddr = UNIXAddress(None) if host is None else kind("TCP", host, 1)
        return peer

    def ask(self, host: str | None = "127.0.0.1", request: bytes | None = None) -> tuple[int, str | None]:
        """The status and the Retry-After of the answer on a new connection."""
        return answer(self.arrive(host), request)


def answer(peer: Any, request: bytes | None = None) -> tuple[int, str | None]:
    peer.sends(peer.HEAD if request is None else request)
    head = peer.reads().decode().partition("\r\n\r\n")[0].split("\r\n")
    fields = dict(line.split(": ", 1) for line in head[1:])
    return int(head[0].split()[1]), fields.get("Retry-After")


@pytest.fixture
def serve(connect: Callable[..., Any], clock: Clock) -> Callable[..., Server]:
    return lambda **limits: Server(connect, clock, **limits)


class TestPeers:
    @pytest.mark.parametrize(
        ("host", "peer"),
        [
            ("192.0.2.1", "192.0.2.1"),
            ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
            ("2001:db8:0:1:ffff:ffff:ffff:ffff", "2001:db8:0:1::/64"),
            ("2001:db8:0:2::1", "2001:db8:0:2::/64"),
            ("::1", "::/64"),
            ("0:0:0:0:0:0:0:1", "::/64"),
            ("fe80::1%eth0", "fe80::/64"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("no:address", "no:address"),
            ("", ""),
        ],
    )
    def test_are_addresses_and_networks(self, host: str, peer: str) -> None:
        assert peer_of(host) == peer

    def test_of_ipv6_are_counted_by_network(self, serve: Any) -> None:
        server = serve(max_connections_per_peer=2)
        assert [server.ask(f"2001:db8::{host}") for host in (1, 2, 3)] == [(101, None), (101, None), (503, "10")]
        assert server.ask("2001:db8:0:1::1") == (101, None)
        assert server.factory.refusals == {"max_connections_per_peer": 1}

    def test_the_refused_are_told_when_to_come_again(self, serve: Any) -> None:
        server = serve(max_connections=1)
        assert [server.ask("192.0.2.1"), server.ask("192.0.2.2")] == [(101, None), (503, "10")]
        assert server.factory.refusals == {"max_connections": 1}


class TestRequests:
    @pytest.mark.parametrize(("asked", "last"), [(2, (101, None)), (3, (101, None)), (4, (429, "1"))])
    def test_so_many_from_an_address(self, serve: Any, asked: int, last: Any) -> None:
        server = serve(max_handshakes_per_peer=3)
        assert [server.ask() for _ in range(asked)][-1] == last
        assert server.ask("127.0.0.2") == (101, None)
        assert server.factory.refusals == ({} if asked < 4 else {"max_handshakes_per_peer": 1})

    @pytest.mark.parametrize(("asked", "last"), [(2, (101, None)), (3, (101, None)), (4, (503, "1"))])
    def test_so_many_in_all(self, serve: Any, asked: int, last: Any) -> None:
        server = serve(max_handshakes=3)
        assert [server.ask(f"192.0.2.{at}") for at in range(asked)][-1] == last
        assert server.factory.refusals == ({} if asked < 4 else {"max_handshakes": 1})

    def test_and_so_many_a_second(self, serve: Any, clock: Clock) -> None:
        server = serve(max_handshakes_per_peer=0.5)
        assert [server.ask(), server.ask()] == [(101, None), (429, "2")]
        clock.advance(1.5)
        assert server.ask() == (429, "1")
        clock.advance(0.5)
        assert server.ask() == (101, None)

    def test_of_every_kind(self, serve: Any) -> None:
        server = serve(max_handshakes_per_peer=3)
        peer = server.arrive()
        bad = peer.HEAD.replace(b"13", b"12")
        assert [answer(peer, request)[0] for request in (PAGE, bad, PAGE)] == [200, 426, 200]
        assert server.ask() == (429, "1")

    def test_the_application_is_not_asked_and_the_connection_ends(self, serve: Any) -> None:
        server = serve(max_handshakes_per_peer=1)
        Site.asked = 0
        peer = server.arrive()
        peer.sends(PAGE * 100)
        said = peer.reads()
        assert Site.asked == 1
        assert said.count(b"HTTP/1.1 200 ") == said.count(b"HTTP/1.1 429 ") == said.count(b"HTTP/1.1 ") - 1 == 1
        assert b"\r\nConnection: close\r\n" in said
        assert said.endswith(b"\r\n\r\nThere are too many requests from this address; try again later")

    def test_that_are_read_by_hand(self, connect: Callable[..., Any], clock: Clock) -> None:
        class Manual(WebSocketProtocol):
            def serve(self) -> None:
                self.read_request().addCallbacks(lambda _: self.respond(Response(204)), lambda _: None)

        factory = WebSocketServerFactory(Manual, limits=Limits(max_handshakes=1), clock=clock)
        said = []
        for _ in range(2):
            peer = connect(factory=factory, opened=False)
            peer.sends(PAGE)
            said.append(peer.reads()[:12])
        assert said == [b"HTTP/1.1 204", b"HTTP/1.1 503"]
        assert factory.refusals == {"max_handshakes": 1}

    def test_that_are_read_by_hand_and_accepted_count_once(self, connect: Callable[..., Any], clock: Clock) -> None:
        class Manual(WebSocketProtocol):
            def serve(self) -> None:
                self.read_request().addCallback(self.accept).addErrback(lambda _: None)

        factory = WebSocketServerFactory(Manual, limits=Limits(max_handshakes=2), clock=clock)
        peers = [connect(factory=factory, opened=False) for _ in range(3)]
        assert [answer(peer)[0] for peer in peers] == [101, 101, 503]

    def test_of_a_unix_socket_are_counted_in_all_alone(self, serve: Any) -> None:
        server = serve(max_handshakes_per_peer=1, max_handshakes=3)
        assert [server.ask(None)[0] for _ in range(4)] == [101, 101, 101, 503]

    def test_of_addresses_that_were_there_nothing_is_left(self, serve: Any, clock: Clock) -> None:
        server = serve(max_handshakes_per_peer=1)
        known = server.factory._admission._requests_of
        for at in range(LEAST_SWEPT):
            server.factory._admission._bucket_of(str(at), 1).take(1, clock.seconds())
        assert len(known) == LEAST_SWEPT
        clock.advance(1)
        assert server.ask() == (101, None)
        assert list(server.factory._admission._requests_of) == ["127.0.0.1"]

    def test_while_they_are_needed_they_stay(self, serve: Any, clock: Clock) -> None:
        admission = serve(max_handshakes_per_peer=1).factory._admission
        for at in range(LEAST_SWEPT + 500):
            admission._bucket_of(str(at), 1).take(1, clock.seconds())
        assert len(admission._requests_of) == LEAST_SWEPT + 500
        assert admission._sweep_at == 2 * LEAST_SWEPT


class TestOpening:
    @pytest.mark.parametrize(("arrived", "dropped"), [(2, 0), (3, 0), (4, 1), (6, 3)])
    def test_the_oldest_make_place(self, serve: Any, arrived: int, dropped: int) -> None:
        server = serve(max_opening=3)
        peers = [server.arrive() for _ in range(arrived)]
        assert [peer.transport.disconnected for peer in peers] == [True] * dropped + [False] * (arrived - dropped)
        assert server.factory.refusals["max_opening"] == dropped

    def test_those_that_opened_do_not_count(self, serve: Any) -> None:
        server = serve(max_opening=2)
        opened = server.arrive()
        assert answer(opened)[0] == 101
        rest = [server.arrive() for _ in range(3)]
        assert [peer.transport.disconnected for peer in (opened, *rest)] == [False, True, False, False]

    def test_those_that_were_refused_do(self, serve: Any) -> None:
        server = serve(max_opening=2, max_connections=0.5)
        first = server.arrive()
        assert answer(first, PAGE)[0] == 200
        rest = [server.arrive(), server.arrive()]
        assert [peer.transport.disconnected for peer in (first, *rest)] == [True, False, False]

    def test_those_that_were_declined_do_again(self, serve: Any) -> None:
        server = serve(max_opening=1, max_connections=9)
        first = server.arrive()
        assert answer(first, first.HEAD.replace(b"/chat", b"/no"))[0] == 403
        server.arrive()
        assert first.transport.disconnected

    def test_those_that_are_gone_do_not(self, serve: Any) -> None:
        server = serve(max_opening=2)
        first, second = server.arrive(), server.arrive()
        first.leaves()
        third = server.arrive()
        assert not second.transport.disconnected and not third.transport.disconnected
        assert server.factory.refusals == {}

    def test_one_that_waits_for_its_answer_is_dropped_without_a_word(
        self, connect: Callable[..., Any], clock: Clock, logged: Any
    ) -> None:
        from twisted.internet.defer import Deferred

        class Asking(WebSocketProtocol):
            def http_requested(self, request: Request) -> Deferred[None]:
                return Deferred()

        factory = WebSocketServerFactory(Asking, limits=Limits(max_opening=1), clock=clock, timeouts=Timeouts())
        first = connect(factory=factory, opened=False)
        first.sends(first.HEAD)
        connect(factory=factory, opened=False)
        assert first.transport.disconnected and first.reads() == b""
        first.leaves()
        assert len(factory.connections) == 1


@pytest.mark.parametrize("name", ["max_opening", "max_handshakes", "max_handshakes_per_peer"])
def test_none_is_the_default_and_zero_is_a_mistake(name: str) -> None:
    assert getattr(Limits(), name) is None
    with pytest.raises(ValueError, match=name):
        Limits(**{name: 0})
