"""Limits on connections and requests, in total and per address."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.task import Clock

from twisted_beastws import Limits, Request, Response, State, Timeouts, WebSocketProtocol, WebSocketServerFactory
from twisted_beastws.server.admission import BURST, MIN_SWEPT
from twisted_beastws.server.peers import Crowd, Peer, peer_of

pytestmark = pytest.mark.usefixtures("logged")


class Site(WebSocketProtocol):
    """A site with a page and a WebSocket."""

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
        kind: Any = IPv6Address if host and ":" in host else IPv4Address
        address = UNIXAddress(None) if host is None else kind("TCP", host, 1)
        return self.connect(factory=self.factory, opened=False, address=address)

    def ask(self, host: str | None = "127.0.0.1", request: bytes | None = None) -> tuple[int, str | None]:
        """Return the status and the Retry-After field of the response on a new connection."""
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
    """What counts as one peer: an address, or an IPv6 network."""

    @pytest.mark.parametrize(
        ("host", "name", "network"),
        [
            ("192.0.2.1", "192.0.2.1", "192.0.2.1"),
            ("2001:db8:0:1::1", "2001:db8:0:1::/64", "2001:db8::/48"),
            ("2001:db8:0:1:ffff:ffff:ffff:ffff", "2001:db8:0:1::/64", "2001:db8::/48"),
            ("2001:db8:0:2::1", "2001:db8:0:2::/64", "2001:db8::/48"),
            ("2001:db8:1:2::1", "2001:db8:1:2::/64", "2001:db8:1::/48"),
            ("::1", "::/64", "::/48"),
            ("0:0:0:0:0:0:0:1", "::/64", "::/48"),
            ("fe80::1%eth0", "fe80::/64", "fe80::/48"),
            ("::ffff:192.0.2.1", "192.0.2.1", "192.0.2.1"),
            ("no:address", "no:address", "no:address"),
            ("", "", ""),
        ],
    )
    def test_a_peer_has_an_address_and_a_network(self, host: str, name: str, network: str) -> None:
        assert peer_of(host) == (name, network)

    def test_ipv6_peers_are_counted_by_network(self, serve: Any) -> None:
        server = serve(max_connections_per_peer=2)
        assert [server.ask(f"2001:db8::{host}") for host in (1, 2, 3)] == [(101, None), (101, None), (503, "10")]
        assert server.ask("2001:db8:0:1::1") == (101, None)
        assert server.factory.refusals == {"max_connections_per_peer": 1}

    def test_refused_clients_get_a_retry_after(self, serve: Any) -> None:
        server = serve(max_connections=1)
        assert [server.ask("192.0.2.1"), server.ask("192.0.2.2")] == [(101, None), (503, "10")]
        assert server.factory.refusals == {"max_connections": 1}


class TestRequests:
    """`Limits.max_handshakes` and `Limits.max_handshakes_per_peer`."""

    @pytest.mark.parametrize(("asked", "last"), [(2, (101, None)), (3, (101, None)), (4, (429, "1"))])
    def test_the_requests_of_an_address_are_limited(self, serve: Any, asked: int, last: Any) -> None:
        server = serve(max_handshakes_per_peer=3)
        assert [server.ask() for _ in range(asked)][-1] == last
        assert server.ask("127.0.0.2") == (101, None)
        assert server.factory.refusals == ({} if asked < 4 else {"max_handshakes_per_peer": 1})

    @pytest.mark.parametrize(("asked", "last"), [(2, (101, None)), (3, (101, None)), (4, (503, "1"))])
    def test_all_requests_are_limited(self, serve: Any, asked: int, last: Any) -> None:
        server = serve(max_handshakes=3)
        assert [server.ask(f"192.0.2.{at}") for at in range(asked)][-1] == last
        assert server.factory.refusals == ({} if asked < 4 else {"max_handshakes": 1})

    def test_the_rate_is_per_second(self, serve: Any, clock: Clock) -> None:
        server = serve(max_handshakes_per_peer=0.5)
        assert [server.ask(), server.ask()] == [(101, None), (429, "2")]
        clock.advance(1.5)
        assert server.ask() == (429, "1")
        clock.advance(0.5)
        assert server.ask() == (101, None)

    def test_every_kind_of_request_is_counted(self, serve: Any) -> None:
        server = serve(max_handshakes_per_peer=3)
        peer = server.arrive()
        bad = peer.HEAD.replace(b"13", b"12")
        assert [answer(peer, request)[0] for request in (PAGE, bad, PAGE)] == [200, 426, 200]
        assert server.ask() == (429, "1")

    def test_a_refused_request_does_not_reach_the_application_and_ends_the_connection(self, serve: Any) -> None:
        server = serve(max_handshakes_per_peer=1)
        Site.asked = 0
        peer = server.arrive()
        peer.sends(PAGE * 100)
        said = peer.reads()
        assert Site.asked == 1
        assert said.count(b"HTTP/1.1 200 ") == said.count(b"HTTP/1.1 429 ") == said.count(b"HTTP/1.1 ") - 1 == 1
        assert b"\r\nConnection: close\r\n" in said
        assert said.endswith(b"\r\n\r\nThere are too many requests from this address; try again later")

    def test_requests_read_by_hand_are_limited(self, connect: Callable[..., Any], clock: Clock) -> None:
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

    def test_a_request_read_by_hand_and_accepted_is_counted_once(
        self, connect: Callable[..., Any], clock: Clock
    ) -> None:
        class Manual(WebSocketProtocol):
            def serve(self) -> None:
                self.read_request().addCallback(self.accept).addErrback(lambda _: None)

        factory = WebSocketServerFactory(Manual, limits=Limits(max_handshakes=2), clock=clock)
        peers = [connect(factory=factory, opened=False) for _ in range(3)]
        assert [answer(peer)[0] for peer in peers] == [101, 101, 503]

    def test_requests_of_unix_sockets_are_counted_as_one_peer(self, serve: Any) -> None:
        server = serve(max_handshakes_per_peer=2)
        assert [server.ask(None)[0] for _ in range(3)] == [101, 101, 429]
        assert server.ask("192.0.2.1") == (101, None)

    @pytest.mark.parametrize(("asked", "last"), [(7, (101, None)), (8, (101, None)), (9, (429, "1"))])
    def test_the_requests_of_an_ipv6_site_are_limited(self, serve: Any, asked: int, last: Any) -> None:
        server = serve(max_handshakes_per_peer=2)
        assert [server.ask(f"2001:db8:0:{at}::1") for at in range(asked)][-1] == last
        assert server.ask("2001:db8:1::1") == (101, None)

    def test_requests_above_the_limit_of_a_site_are_not_counted_for_the_peer(self, serve: Any, clock: Clock) -> None:
        server = serve(max_handshakes_per_peer=1)
        assert [server.ask(f"2001:db8:0:{at}::1")[0] for at in (1, 2, 3, 4, 5)] == [101, 101, 101, 101, 429]
        clock.advance(0.25)
        assert server.ask("2001:db8:0:5::1") == (101, None)

    def test_idle_addresses_are_forgotten(self, serve: Any, clock: Clock) -> None:
        server = serve(max_handshakes_per_peer=1)
        # No public name shows how many addresses are remembered.
        requests = server.factory.admission._requests_of
        for at in range(MIN_SWEPT):
            requests.take(peer_of(str(at)), 1)
        assert len(requests) == MIN_SWEPT
        clock.advance(1)
        assert server.ask() == (101, None)
        assert len(requests) == 1

    def test_addresses_with_a_used_rate_are_remembered(self, serve: Any, clock: Clock) -> None:
        # As above.
        requests = serve(max_handshakes_per_peer=1).factory.admission._requests_of
        for at in range(MIN_SWEPT + 500):
            requests.take(peer_of(str(at)), 1)
        assert len(requests) == MIN_SWEPT + 500


class TestConnections:
    """`Limits.max_connections_per_peer` for UNIX sockets and IPv6 sites."""

    def test_connections_of_unix_sockets_are_counted_as_one_peer(self, serve: Any) -> None:
        server = serve(max_connections_per_peer=2)
        assert [server.ask(None)[0] for _ in range(3)] == [101, 101, 503]
        assert server.ask("192.0.2.1") == (101, None)

    @pytest.mark.parametrize(("asked", "last"), [(7, (101, None)), (8, (101, None)), (9, (503, "10"))])
    def test_the_connections_of_an_ipv6_site_are_limited(self, serve: Any, asked: int, last: Any) -> None:
        server = serve(max_connections_per_peer=2)
        assert [server.ask(f"2001:db8:0:{at}::1") for at in range(asked)][-1] == last
        assert server.ask("2001:db8:1::1") == (101, None)

    def test_closed_connections_are_not_counted_for_their_site(self, serve: Any) -> None:
        server = serve(max_connections_per_peer=1)
        peers = [server.arrive(f"2001:db8:0:{at}::1") for at in range(4)]
        assert [answer(peer)[0] for peer in peers] == [101] * 4
        assert server.ask("2001:db8:0:5::1") == (503, "10")
        peers[0].leaves()
        assert server.ask("2001:db8:0:5::1") == (101, None)


class TestOpening:
    """`Limits.max_opening` and `Limits.max_opening_per_peer` (`docs/topics/memory.md`)."""

    @pytest.mark.parametrize(("arrived", "dropped"), [(2, 0), (3, 0), (4, 1), (6, 3)])
    def test_the_oldest_opening_connections_are_dropped(self, serve: Any, arrived: int, dropped: int) -> None:
        server = serve(max_opening=3)
        peers = [server.arrive() for _ in range(arrived)]
        assert [peer.transport.disconnected for peer in peers] == [True] * dropped + [False] * (arrived - dropped)
        assert server.factory.refusals["max_opening"] == dropped

    @pytest.mark.parametrize(("arrived", "dropped"), [(2, 0), (3, 0), (4, 1), (6, 3)])
    def test_the_oldest_opening_connections_of_a_peer_are_dropped(self, serve: Any, arrived: int, dropped: int) -> None:
        server = serve(max_opening_per_peer=3)
        other = server.arrive("127.0.0.2")
        peers = [server.arrive() for _ in range(arrived)]
        assert [peer.transport.disconnected for peer in peers] == [True] * dropped + [False] * (arrived - dropped)
        assert not other.transport.disconnected
        assert server.factory.refusals["max_opening_per_peer"] == dropped

    @pytest.mark.parametrize(("arrived", "dropped"), [(7, 0), (8, 0), (9, 1)])
    def test_the_oldest_opening_connections_of_an_ipv6_site_are_dropped(
        self, serve: Any, arrived: int, dropped: int
    ) -> None:
        server = serve(max_opening_per_peer=2)
        other = server.arrive("2001:db8:1::1")
        peers = [server.arrive(f"2001:db8:0:{at}::1") for at in range(arrived)]
        assert [peer.transport.disconnected for peer in peers] == [True] * dropped + [False] * (arrived - dropped)
        assert not other.transport.disconnected

    @pytest.mark.parametrize(
        "attackers", [lambda at: "192.0.2.1", lambda at: f"2001:db8::{at:x}"], ids=["one address", "one network"]
    )
    @pytest.mark.parametrize("limits", [{}, {"max_opening_per_peer": 2}, {"max_opening_per_peer": 50}])
    def test_thousands_of_silent_connects_drop_no_other_client(self, serve: Any, attackers: Any, limits: Any) -> None:
        server = serve(max_opening=10, **limits)
        honest = server.arrive("127.0.0.2")
        for at in range(3000):
            server.arrive(attackers(at))
        assert answer(honest) == (101, None)
        assert sum(server.factory.refusals.values()) >= 3000 - 10

    def test_silent_connects_from_all_subnets_of_a_site_drop_no_other_client(self, serve: Any) -> None:
        server = serve(max_opening=10)
        honest = server.arrive("2001:db8:1::1")
        for at in range(3000):
            server.arrive(f"2001:db8:0:{at:x}::1")
        assert answer(honest) == (101, None)

    def test_a_trusted_proxy_may_have_all_opening_connections(self, serve: Any) -> None:
        server = serve(max_opening=10, max_opening_per_peer=2)
        server.factory.admission.is_proxy = lambda address: address.host == "127.0.0.1"
        peers = [server.arrive() for _ in range(10)]
        assert [peer.transport.disconnected for peer in peers] == [False] * 10
        server.arrive()
        assert [peer.transport.disconnected for peer in peers] == [True] + [False] * 9

    @pytest.mark.parametrize(("seconds", "dropped"), [(BURST - 0.1, 0), (BURST, 3), (BURST + 0.1, 3)])
    def test_a_peer_whose_clients_come_at_once_keeps_their_connections(
        self, serve: Any, clock: Clock, seconds: float, dropped: int
    ) -> None:
        """All clients of a proxy count as one peer, and the reactor accepts hundreds before it reads their requests."""
        server = serve(max_opening=10, max_opening_per_peer=2)
        peers = [server.arrive() for _ in range(4)]
        clock.advance(0)
        assert not any(peer.transport.disconnected for peer in peers)
        clock.advance(seconds)
        peers.append(server.arrive())
        assert not any(peer.transport.disconnected for peer in peers)
        clock.advance(0)
        assert [peer.transport.disconnected for peer in peers] == [True] * dropped + [False] * (5 - dropped)
        assert server.factory.refusals["max_opening_per_peer"] == dropped

    def test_a_late_reactor_reads_the_requests_of_a_crowd_before_it_drops_any(self, serve: Any, clock: Clock) -> None:
        server = serve(max_opening=10, max_opening_per_peer=2)
        peers = [server.arrive() for _ in range(4)]
        # The reactor was busy with the first four connections.
        clock.rightNow += 2 * BURST
        peers += [server.arrive() for _ in range(4)]
        for peer in peers:
            peer.protocol.dataReceived(peer.HEAD)
        assert [peer.protocol.state for peer in peers] == [State.OPEN] * 8
        clock.advance(0)
        assert server.factory.refusals["max_opening_per_peer"] == 0

    def test_opening_connections_of_unix_sockets_are_counted_as_one_peer(self, serve: Any) -> None:
        server = serve(max_opening_per_peer=2)
        peers = [server.arrive(None) for _ in range(3)]
        assert [peer.transport.disconnected for peer in peers] == [True, False, False]

    def test_open_connections_are_not_counted(self, serve: Any) -> None:
        server = serve(max_opening=2)
        opened = server.arrive()
        assert answer(opened)[0] == 101
        rest = [server.arrive() for _ in range(3)]
        assert [peer.transport.disconnected for peer in (opened, *rest)] == [False, True, False, False]

    def test_refused_connections_are_counted(self, serve: Any) -> None:
        server = serve(max_opening=2, max_connections=1)
        first = server.arrive()
        assert answer(first, PAGE)[0] == 200
        rest = [server.arrive(), server.arrive()]
        assert [peer.transport.disconnected for peer in (first, *rest)] == [True, False, False]

    def test_declined_connections_are_counted_again(self, serve: Any) -> None:
        server = serve(max_opening=1, max_connections=9)
        first = server.arrive()
        assert answer(first, first.HEAD.replace(b"/chat", b"/no"))[0] == 403
        server.arrive()
        assert first.transport.disconnected

    def test_closed_connections_are_not_counted(self, serve: Any) -> None:
        server = serve(max_opening=2)
        first, second = server.arrive(), server.arrive()
        first.leaves()
        third = server.arrive()
        assert not second.transport.disconnected and not third.transport.disconnected
        assert server.factory.refusals == {}

    def test_a_dropped_connection_whose_hook_still_works_logs_nothing(
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


@pytest.mark.parametrize("name", ["max_opening", "max_opening_per_peer", "max_handshakes", "max_handshakes_per_peer"])
def test_there_is_no_limit_by_default_and_zero_is_refused(name: str) -> None:
    assert getattr(Limits(), name) is None
    with pytest.raises(ValueError, match=name):
        Limits(**{name: 0})  # type: ignore[arg-type]


class TestCrowd:
    """The queue of opening connections that the limits use."""

    @given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from(["a", "b", "2001:db8::1", "2001:db8:0:1::1"]))))
    def test_the_oldest_connection_of_the_largest_peer_is_found(self, steps: list[tuple[int, str]]) -> None:
        crowd: Crowd[int] = Crowd()
        expected: dict[int, Peer] = {}
        for connection, host in steps:
            if connection in expected:
                assert crowd.discard(connection) == expected.pop(connection)
            else:
                crowd.add(connection, peer_of(host))
                expected[connection] = peer_of(host)
            assert len(crowd) == len(expected)
            if not expected:
                continue
            networks = Counter(peer.network for peer in expected.values())
            oldest = crowd.oldest_of_largest()
            assert networks[expected[oldest].network] == max(networks.values())
            peers = Counter(peer.name for peer in expected.values() if peer.network == expected[oldest].network)
            assert peers[expected[oldest].name] == max(peers.values())
            assert oldest == next(each for each, peer in expected.items() if peer.name == expected[oldest].name)
