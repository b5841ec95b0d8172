"""The client's address when proxies forward it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.task import Clock

from twisted_beastws import Headers, Limits, Request, Response, WebSocketProtocol, WebSocketServerFactory
from twisted_beastws.server.gates.forwarded import TrustedProxies
from twisted_beastws.server.gates.login import PasswordLogin, make_checker
from twisted_beastws.server.observers.access_log import AccessLog

pytestmark = pytest.mark.usefixtures("logged")

PROXY = "10.0.0.1"


def address(host: str, port: int = 4711) -> Any:
    return (IPv6Address if ":" in host else IPv4Address)("TCP", host, port)


def request(field: str, *values: str) -> Request:
    return Request("GET", "/", "1.1", Headers({field: list(values)}) if values else Headers())


def found(peer: str, field: str, *values: str, networks: tuple[str, ...] = ("10.0.0.0/8", "fd00::/8")) -> str:
    client: Any = TrustedProxies(networks, field).client_of(address(peer), request(field, *values))
    return f"{client.host} {client.port}"


class TestHops:
    """The length of a chain of proxies."""

    @pytest.mark.parametrize("count", [99, 100, 101])
    def test_at_most_100_hops_are_read(self, count: int) -> None:
        hops = ["192.0.2.1", *["10.0.0.2"] * (count - 1)]
        client = "192.0.2.1 0" if count <= 100 else "10.0.0.2 0"
        assert found(PROXY, "x-forwarded-for", ", ".join(hops)) == client
        assert found(PROXY, "forwarded", *(f"for={hop}" for hop in hops)) == client


class TestForwardedFor:
    """The field X-Forwarded-For."""

    @pytest.mark.parametrize(
        ("values", "client"),
        [
            (("192.0.2.1",), "192.0.2.1 0"),
            (("192.0.2.1:80",), "192.0.2.1 80"),
            (("2001:db8::1",), "2001:db8::1 0"),
            (("[2001:db8::1]",), "2001:db8::1 0"),
            (("[2001:db8::1]:443",), "2001:db8::1 443"),
            (("::ffff:192.0.2.1",), "192.0.2.1 0"),
            # The rightmost address that is not trusted: a client can forge those to the left of it.
            (("198.51.100.9, 192.0.2.1",), "192.0.2.1 0"),
            (("198.51.100.9, 192.0.2.1, 10.9.9.9, fd00::1",), "192.0.2.1 0"),
            (("198.51.100.9", "192.0.2.1 ,\t10.9.9.9"), "192.0.2.1 0"),
            (("10.0.0.2, 10.0.0.3",), "10.0.0.2 0"),
            # Text that is no address ends the search: the hop that sent it counts.
            (("unknown",), "10.0.0.1 4711"),
            (("192.0.2.1, unknown, 10.0.0.2",), "10.0.0.2 0"),
            (("192.0.2.1,",), "10.0.0.1 4711"),
            (("",), "10.0.0.1 4711"),
            ((), "10.0.0.1 4711"),
            *(
                ((text,), "10.0.0.1 4711")
                for text in ("1.2.3", "[::1", "[::1]x", "1.2.3.4:x", "1.2.3.4:123456", "\xb2")
            ),
        ],
    )
    def test_the_field_of_a_trusted_proxy_is_read(self, values: tuple[str, ...], client: str) -> None:
        assert found(PROXY, "x-forwarded-for", *values) == client

    @pytest.mark.parametrize("peer", ["192.0.2.7", "2001:db8::7", "11.0.0.1"])
    def test_the_field_of_any_other_peer_is_ignored(self, peer: str) -> None:
        assert found(peer, "x-forwarded-for", "198.51.100.9") == f"{peer} 4711"

    def test_an_ipv4_address_in_ipv6_form_is_recognized(self) -> None:
        assert found(f"::ffff:{PROXY}", "x-forwarded-for", "192.0.2.1") == "192.0.2.1 0"

    def test_the_field_of_a_unix_socket_is_read_only_if_named(self) -> None:
        peer, asked = UNIXAddress(None), request("x-forwarded-for", "192.0.2.1")
        assert TrustedProxies(["10.0.0.0/8"], "x-forwarded-for").client_of(peer, asked) is peer
        client: Any = TrustedProxies(["unix"], "x-forwarded-for").client_of(peer, asked)
        assert client.host == "192.0.2.1"

    @given(st.lists(st.sampled_from(["10.0.0.2", "192.0.2.1", "x", "", "192.0.2.2:1", "[::1]", "\xff"])), st.text())
    def test_a_client_of_a_proxy_cannot_forge_its_address(self, said: list[str], more: str) -> None:
        forged = ", ".join([*said, more.encode("utf-8", "replace").decode("latin-1")])
        forged = forged.replace("\r", "").replace("\n", "").replace("\0", "")
        assert found(PROXY, "x-forwarded-for", f"{forged}, 203.0.113.5") == "203.0.113.5 0"


class TestForwarded:
    """RFC 7239 §4: the field Forwarded."""

    @pytest.mark.parametrize(
        ("values", "client"),
        [
            (("for=192.0.2.1",), "192.0.2.1 0"),
            (('for="192.0.2.1:80";proto=https;by=203.0.113.43',), "192.0.2.1 80"),
            (('For="[2001:db8::1]:443"',), "2001:db8::1 443"),
            (("proto=http; for=192.0.2.1, for=10.0.0.5",), "192.0.2.1 0"),
            (('for=198.51.100.9;by="', "for=192.0.2.1"), "192.0.2.1 0"),
            (('for=198.51.100.9;x=", for=192.0.2.1',), "192.0.2.1 0"),
            (("for=_hidden",), "10.0.0.1 4711"),
            (("for=192.0.2.1;for=198.51.100.9",), "10.0.0.1 4711"),
            (("by=192.0.2.1",), "10.0.0.1 4711"),
            (("192.0.2.1",), "10.0.0.1 4711"),
        ],
    )
    def test_the_field_of_a_trusted_proxy_is_read(self, values: tuple[str, ...], client: str) -> None:
        assert found(PROXY, "forwarded", *values) == client

    def test_only_the_configured_field_is_read(self) -> None:
        both = Request("GET", "/", "1.1", Headers({"Forwarded": ["for=1.1.1.1"], "X-Forwarded-For": ["2.2.2.2"]}))
        hosts = [
            TrustedProxies([PROXY], field).client_of(address(PROXY), both) for field in ("forwarded", "x-forwarded-for")
        ]
        assert [getattr(client, "host", None) for client in hosts] == ["1.1.1.1", "2.2.2.2"]


class Site(WebSocketProtocol):
    def http_requested(self, request: Request) -> Response | None:
        return Response(200, body=str(self.peer)) if request.path == "/page" else None


class TestConnections:
    """Limits per client for the clients of a trusted proxy (`docs/howto/proxies.md`)."""

    @pytest.fixture
    def arrive(self, connect: Callable[..., Any], clock: Clock) -> Callable[..., Any]:
        limits = Limits(max_connections_per_peer=1, max_handshakes_per_peer=3, max_opening_per_peer=2)
        factory = WebSocketServerFactory(Site, clock=clock, limits=limits)
        factory.add_gate(PasswordLogin([make_checker("memory:a:b")]))
        proxies = TrustedProxies(["10.0.0.0/8", "unix"], "x-forwarded-for")
        factory.trust_proxies(proxies)

        def arrive(peer: str | None = PROXY) -> Any:
            return connect(factory=factory, opened=False, address=UNIXAddress(None) if peer is None else address(peer))

        return arrive

    @staticmethod
    def ask(peer: Any, client: str, target: bytes = b"/chat") -> int:
        fields = b"X-Forwarded-For: " + client.encode() + b"\r\nAuthorization: Basic YTpi\r\n\r\n"
        peer.sends(peer.HEAD[:-2].replace(b"/chat", target) + fields)
        return int(peer.reads().split(b" ")[1])

    def test_connections_are_limited_by_client(self, arrive: Callable[..., Any]) -> None:
        assert [self.ask(arrive(), f"192.0.2.{at}") for at in (1, 2, 1)] == [101, 101, 503]
        assert [self.ask(arrive(), "192.0.2.1") for _ in range(2)] == [503, 429]
        assert self.ask(arrive(), "192.0.2.3") == 101

    def test_connections_of_a_unix_socket_are_limited_by_client(self, arrive: Callable[..., Any]) -> None:
        assert [self.ask(arrive(None), f"192.0.2.{at}") for at in (1, 2, 1)] == [101, 101, 503]
        assert [self.ask(arrive(None), "192.0.2.1") for _ in range(2)] == [503, 429]

    def test_connections_of_a_unix_socket_are_limited_by_site(self, arrive: Callable[..., Any]) -> None:
        clients = [f"2001:db8:0:{at}::1" for at in range(5)]
        assert [self.ask(arrive(None), client) for client in clients] == [101, 101, 101, 101, 503]

    @pytest.mark.parametrize("peer", [PROXY, None])
    def test_connections_of_a_proxy_are_not_limited_before_their_requests(
        self, arrive: Callable[..., Any], peer: Any
    ) -> None:
        peers = [arrive(peer) for _ in range(5)]
        assert not any(each.transport.disconnected for each in peers)

    def test_other_connections_are_limited_before_their_requests(self, arrive: Callable[..., Any]) -> None:
        peers = [arrive("198.51.100.1") for _ in range(3)]
        assert [each.transport.disconnected for each in peers] == [True, False, False]

    def test_connections_of_untrusted_peers_are_limited_by_their_address(self, arrive: Callable[..., Any]) -> None:
        assert [self.ask(arrive("198.51.100.1"), f"192.0.2.{at}") for at in (1, 2)] == [101, 503]

    def test_one_connection_of_a_proxy_may_carry_requests_of_many_clients(self, arrive: Callable[..., Any]) -> None:
        proxy = arrive()
        for at in range(8):
            assert self.ask(proxy, f"192.0.2.{at}", b"/page") == 200
        assert proxy.protocol.peer.host == "192.0.2.7"

    def test_the_clients_address_is_kept_to_the_end_and_logged(
        self, connect: Callable[..., Any], clock: Clock, tmp_path: Any
    ) -> None:
        factory = WebSocketServerFactory(Site, clock=clock)
        log = AccessLog(str(tmp_path / "log"), "text")
        log.startService()
        factory.trust_proxies(TrustedProxies([PROXY], "x-forwarded-for"))
        factory.add_observer(log)
        peer = connect(factory=factory, opened=False)
        peer.transport.peerAddr = address(PROXY)
        assert peer.protocol.peer.host == PROXY
        assert self.ask(peer, "192.0.2.1") == 101
        peer.leaves()
        log.stopService()
        assert " address=192.0.2.1 port=- " in (tmp_path / "log").read_text()
