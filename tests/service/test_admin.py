"""The admin listener: the metrics and the state of health."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from importlib import import_module
from pathlib import Path
from socket import gethostname
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.address import UNIXAddress
from twisted.internet.task import Clock

from twisted_beastws import ACCELERATED, Limits, MemoryBudget, WebSocketServerFactory
from twisted_beastws._version import __version__
from twisted_beastws.server.descriptors import DescriptorWatch
from twisted_beastws.server.observers.metering import Meter
from twisted_beastws.server.observers.metrics import Metrics
from twisted_beastws.server.observers.reactor_lag import ReactorLag
from twisted_beastws.service.admin import MAX_CONNECTIONS, admin_factory

from ..support.protocols import Echo

prometheus = pytest.importorskip(
    "prometheus_client.parser", reason="METRICS ARE NOT TESTED: pip install prometheus_client"
)
pytestmark = pytest.mark.usefixtures("logged")


class Served:
    """A metered server and its admin's listener."""

    def __init__(self, connect: Callable[..., Any], clock: Clock, hub: Any = None, **options: Any) -> None:
        self._connect = connect
        self.ready = True
        self.meter = Meter()
        self.factory = WebSocketServerFactory(Echo, clock=clock, **options)
        self.factory.add_observer(self.meter)
        watch = DescriptorWatch(clock.callLater)
        self.lag = ReactorLag(None, lambda: 0.0)
        self.admin_for = (Metrics(self.factory, self.meter, hub, watch, self.lag), lambda: self.ready)
        self.admin = admin_factory(*self.admin_for)
        self.admin.settings = self.factory.settings

    def client(self, **options: Any) -> Any:
        return self._connect(factory=self.factory, **options)

    def ask(self, target: str, method: str = "GET", fields: str = "") -> tuple[str, str]:
        """The head and the body of an answer."""
        peer = self._connect(factory=self.admin, opened=False)
        peer.sends(f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n".encode())
        head, _, body = peer.reads().decode().partition("\r\n\r\n")
        peer.leaves()
        return head, body

    def connect_and_send(self, octets: str, address: Any = None) -> str:
        peer = self._connect(factory=self.admin, opened=False, address=address)
        peer.sends(octets.encode())
        answer: str = peer.reads().decode()
        peer.leaves()
        return answer

    def metrics(self) -> dict[str, float]:
        """Samples by their names and the values of their labels, joined by commas."""
        head, body = self.ask("/metrics")
        assert head.startswith("HTTP/1.1 200 OK\r\n")
        samples = (sample for family in prometheus.text_string_to_metric_families(body) for sample in family.samples)
        return {
            ",".join((sample.name, *(value for _, value in sorted(sample.labels.items())))): sample.value
            for sample in samples
        }


@pytest.fixture
def served(connect: Callable[..., Any], clock: Clock) -> Served:
    return Served(connect, clock)


class TestHosts:
    """RFC 9110 §7.4: only known names are served, against DNS rebinding.

    With DNS rebinding, a page points its own name at this machine.
    """

    @pytest.mark.parametrize(
        ("host", "status"),
        [
            ("localhost", 200),
            ("LocalHost.:9090", 200),
            ("beastws.localhost:9090", 200),
            ("127.0.0.1:9090", 200),
            ("192.0.2.1", 200),
            ("[::1]:9090", 200),
            ("[2001:db8::1]", 200),
            (gethostname(), 200),
            ("beastws.internal:9090", 200),
            ("BEASTWS.internal.", 200),
            ("evil.example", 421),
            ("evil.example:9090", 421),
            ("localhost.evil.example", 421),
            ("127.0.0.1.evil.example", 421),
            ("notlocalhost", 421),
            ("127.1", 421),
        ],
    )
    def test_only_known_host_names_are_served(self, served: Served, host: str, status: int) -> None:
        served.admin = admin_factory(*served.admin_for, ["beastws.internal"])
        answered = served.connect_and_send(f"GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n")
        assert answered.startswith(f"HTTP/1.1 {status} ")
        assert (status == 421) == ("--admin-host" in answered)

    @pytest.mark.parametrize("path", ["/healthz", "/readyz"])
    def test_the_health_is_served_under_any_host_name(self, served: Served, path: str) -> None:
        for host in ("chat:9090", "evil.example", ""):
            answered = served.connect_and_send(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
            assert answered.startswith("HTTP/1.1 200 ") and answered.endswith("\r\n\r\nok\n")

    def test_a_request_without_host_is_served(self, served: Served) -> None:
        assert served.connect_and_send("GET /healthz HTTP/1.0\r\n\r\n").startswith("HTTP/1.1 200 ")

    def test_a_request_over_a_unix_socket_is_served(self, served: Served) -> None:
        asked = "GET /healthz HTTP/1.1\r\nHost: worker\r\n\r\n"
        assert served.connect_and_send(asked, UNIXAddress(None)).startswith("HTTP/1.1 200 ")


class TestHealth:
    """The pages of health and readiness."""

    def test_the_health_is_good_while_the_service_answers(self, served: Served) -> None:
        served.ready = False
        head, body = served.ask("/healthz")
        assert head.startswith("HTTP/1.1 200 OK\r\n")
        assert "Cache-Control: no-store" in head
        assert body == "ok\n"

    def test_the_readiness_page_shows_the_readiness_of_the_service(self, served: Served) -> None:
        assert served.ask("/readyz")[0].startswith("HTTP/1.1 200 ")
        served.ready = False
        head, body = served.ask("/readyz?verbose")
        assert head.startswith("HTTP/1.1 503 ")
        assert body == "not ready\n"

    def test_other_paths_are_answered_404(self, served: Served) -> None:
        for target in ("/", "/metrics/", "/chat"):
            head, body = served.ask(target)
            assert (head[:13], body) == ("HTTP/1.1 404 ", "There are /metrics, /healthz and /readyz\n")
        head, _ = served.ask("/metrics", "POST")
        assert head.startswith("HTTP/1.1 405 ") and "Allow: GET, HEAD" in head
        head, body = served.ask("/healthz", "HEAD")
        assert (head[:13], body) == ("HTTP/1.1 200 ", "")

    def test_a_websocket_is_refused(self, served: Served) -> None:
        peer = served._connect(factory=served.admin, opened=False)
        peer.sends(peer.HEAD, peer.HEAD.replace(b"/chat", b"/healthz"))
        assert re.findall(r"HTTP/1.1 (\d+)", peer.reads().decode()) == ["404", "200"]
        peer.leaves()

    def test_the_admin_listener_has_its_own_limits(self) -> None:
        settings = admin_factory(Metrics(WebSocketServerFactory(Echo), Meter()), lambda: True).settings
        assert (settings.timeouts.handshake, settings.timeouts.keep_alive) == (60.0, 75.0)

    def test_the_connections_of_the_admin_are_limited(self, served: Served) -> None:
        served.admin.settings = replace(served.admin.settings, limits=admin_factory(*served.admin_for).settings.limits)
        peers = [served._connect(factory=served.admin, opened=False) for _ in range(MAX_CONNECTIONS)]
        peers[1].sends(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
        more = [served._connect(factory=served.admin, opened=False) for _ in range(2)]
        assert [peer.transport.disconnected for peer in (*peers, *more)].count(True) == 2
        assert peers[0].transport.disconnected and not more[1].transport.disconnected
        for peer in (*peers, *more):
            peer.leaves()


class TestMetrics:
    """The page of metrics."""

    def test_metrics_are_in_the_text_format(self, served: Served) -> None:
        head, body = served.ask("/metrics")
        assert "Content-Type: text/plain; version=" in head
        assert '# TYPE beastws_connections gauge\nbeastws_connections{state="connecting"} 0.0\n' in body

    def test_connections_are_counted(self, served: Served) -> None:
        peers = [served.client() for _ in range(3)]
        waiting = served.client(opened=False)
        peers[0].sends(peers[0].text("hello"))
        peers[1].protocol.close(1000)
        peers[2].sends(peers[2].close(1001))
        peers[2].leaves()
        waiting.sends(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        told = served.metrics()
        expected = {
            "beastws_connections,connecting": 1,
            "beastws_connections,open": 1,
            "beastws_connections,closing": 1,
            "beastws_handshakes_total,101": 3,
            "beastws_handshakes_total,426": 1,
            "beastws_messages_total,received,text": 1,
            "beastws_messages_total,received,binary": 0,
            "beastws_messages_total,sent,text": 1,
            "beastws_message_bytes_total,received,text": 5,
            "beastws_message_bytes_total,sent,text": 5,
            "beastws_message_bytes_total,sent,binary": 0,
            "beastws_closes_total,peer,1001": 1,
            "beastws_buffered_bytes": 0,
            "beastws_slow_readers_total,close": 0,
            "beastws_slow_readers_total,drop": 0,
        }
        assert {name: told[name] for name in expected} == expected
        assert told[f"beastws_info,{'compiled' if ACCELERATED else 'pure'},{__version__}"] == 1
        assert told["process_resident_memory_bytes"] > 0 or sys.platform != "linux"

    def test_round_trips_are_counted(self, served: Served, clock: Clock) -> None:
        peer = served.client()
        for seconds in (0.002, 0.3):
            peer.protocol.ping(b"x")
            clock.advance(seconds)
            peer.sends(peer.frame(0x8A, b"x"))
        told = served.metrics()
        name = "beastws_ping_round_trip_seconds"
        assert [told[f"{name}_bucket,{bound}"] for bound in ("0.001", "0.0025", "0.25", "0.5", "10.0", "+Inf")] == [
            *(0, 1, 1),
            *(2, 2, 2),
        ]
        assert told[f"{name}_count"] == 2
        assert told[f"{name}_sum"] == pytest.approx(0.302)

    def test_slow_readers_are_counted(self, connect: Callable[..., Any], clock: Clock) -> None:
        limits = Limits(slow_reader="drop", max_message_size=1000, max_buffered=1000, high_water=500, low_water=100)
        served = Served(connect, clock, limits=limits)
        peer = served.client()
        peer.transport.stall()
        for _ in range(20):
            peer.protocol.send(bytes(200))
        told = served.metrics()
        assert told["beastws_buffered_bytes"] == peer.protocol.buffered_amount > 500
        dropped = peer.protocol.dropped_messages
        assert told["beastws_slow_readers_total,drop"] == dropped > 10
        peer.leaves()
        told = served.metrics()
        assert told["beastws_buffered_bytes"] == 0
        assert told["beastws_slow_readers_total,drop"] == dropped

    def test_buffered_memory_is_counted(
        self, connect: Callable[..., Any], clock: Clock, logged: Callable[..., list[Any]]
    ) -> None:
        served = Served(connect, clock, limits=Limits(max_buffered=1 << 20), budget=MemoryBudget(1 << 16))
        peer = served.client()
        peer.transport.stall()
        peer.protocol.send(bytes(1000))
        peer.protocol.send(bytes(60_000))
        told = served.metrics()
        assert 61_000 < told["beastws_memory_bytes"] < 61_100
        assert told["beastws_memory_closes_total"] == 0
        peer.protocol.send(bytes(60_000))
        told = served.metrics()
        assert told["beastws_memory_bytes"] < 1100
        assert told["beastws_memory_closes_total"] == 1
        assert len(logged(type(None))) == 1

    def test_all_metrics_are_documented(self, connect: Callable[..., Any], clock: Clock) -> None:
        from twisted_beastws.hub import Hub
        from twisted_beastws.hub.redis import RedisBackplane

        _, body = Served(connect, clock, Hub(RedisBackplane("redis://localhost"))).ask("/metrics")
        documented = (Path(__file__).parents[2] / "docs" / "service.md").read_text()
        names = set(re.findall(r"^# TYPE (beastws_\w+) ", body, re.MULTILINE))
        assert len(names) > 10
        assert names == set(re.findall(r"`(beastws_\w+)`", documented))

    def test_metrics_are_in_openmetrics_for_clients_that_prefer_it(self, served: Served) -> None:
        openmetrics = import_module("prometheus_client.openmetrics.parser").text_string_to_metric_families
        served.client()
        head, body = served.ask("/metrics", fields="Accept: application/openmetrics-text;version=1.0.0\r\n")
        assert "Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n" in head
        assert head.count("Vary: Accept") == 1
        assert body.endswith("# EOF\n")
        names = {sample.name for family in openmetrics(body) for sample in family.samples}
        assert names == {name.partition(",")[0] for name in served.metrics()}

    def test_the_lag_of_the_reactor_is_counted(self, served: Served) -> None:
        served.lag.sample(0.06)
        served.lag.sample(0.3)
        told = served.metrics()
        name = "beastws_reactor_lag_seconds"
        assert [told[f"{name}_bucket,{bound}"] for bound in ("0.05", "0.1", "0.25", "0.5", "+Inf")] == [0, 2, 3, 4, 4]
        assert told["beastws_reactor_busy_seconds_total"] == 0.36

    def test_a_second_scrape_counts_nothing_twice(self, served: Served) -> None:
        served.client()
        assert served.metrics()["beastws_connections,open"] == served.metrics()["beastws_connections,open"] == 1

    def test_a_missing_extra_is_explained(self, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "prometheus_client", None)
        head, body = served.ask("/metrics")
        assert head.startswith("HTTP/1.1 501 ")
        assert body == "The metrics need the extra metrics: pip install 'twisted_beastws[metrics]'\n"
        assert served.ask("/healthz")[0].startswith("HTTP/1.1 200 ")


class State(Enum):
    UP = "up"
    DOWN = "down"


class TestHub:
    """The metrics of a hub."""

    def test_the_rooms_the_drops_and_the_backplane_are_counted(self, connect: Callable[..., Any], clock: Clock) -> None:
        backplane = SimpleNamespace(state=State.DOWN)
        hub = SimpleNamespace(rooms={"": 3, "a": 2}, dropped=7, backplane=backplane)
        told = Served(connect, clock, hub).metrics()
        assert (told["beastws_rooms"], told["beastws_room_members"]) == (2, 5)
        assert (told["beastws_backplane_state,up"], told["beastws_backplane_state,down"]) == (0, 1)
        assert told["beastws_slow_readers_total,drop"] == 7

    def test_the_librarys_own_hub_is_counted(self, connect: Callable[..., Any], clock: Clock) -> None:
        from twisted_beastws.hub import Hub

        hub = Hub()
        served = Served(connect, clock, hub)
        assert served.metrics()["beastws_backplane_state,stopped"] == 1
        hub.join(served.client().protocol, "a")
        told = served.metrics()
        assert (told["beastws_rooms"], told["beastws_room_members"]) == (1, 1)
        assert told["beastws_backplane_state,connected"] == 1

    def test_an_object_that_is_no_hub_is_not_counted(self, connect: Callable[..., Any], clock: Clock) -> None:
        told = Served(connect, clock, object()).metrics()
        assert not [name for name in told if "room" in name or "backplane" in name]
