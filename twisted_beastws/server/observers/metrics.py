"""The metrics in Prometheus' text format, from the counts of a `Meter`; they need the extra ``metrics``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from twisted_beastws._version import __version__
from twisted_beastws.protocol import State
from twisted_beastws.server.observers.exposition import encode
from twisted_beastws.server.observers.metering import ROUND_TRIPS, Meter, dropped_by, upper_bounds
from twisted_beastws.server.observers.reactor_lag import LAGS, ReactorLag
from twisted_beastws.wire.codec import ACCELERATED

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from twisted_beastws.server.descriptors import DescriptorWatch
    from twisted_beastws.server.factory import WebSocketServerFactory

NOT_INSTALLED = "The metrics need the extra metrics: pip install 'twisted_beastws[metrics]'\n"

STATES = (State.CONNECTING, State.OPEN, State.CLOSING)


class Metrics:
    """The metrics of a factory.

    It is a collector of ``prometheus_client``: ``REGISTRY.register(Metrics(factory))`` adds the metrics to a program's
    own. `AdminPages` shows them without a registry.

    Args:
        factory: The factory to observe, or one that ``meter`` observes.
        meter: Counts the events of the factory; None adds a `Meter` to the factory.
        hub: A `Hub`, whose rooms and backplane become metrics.
        descriptors: Counts the seconds without a file descriptor.
        reactor_lag: Measures the reactor.
    """

    def __init__(
        self,
        factory: WebSocketServerFactory,
        meter: Meter | None = None,
        hub: Any = None,
        descriptors: DescriptorWatch | None = None,
        reactor_lag: ReactorLag | None = None,
    ) -> None:
        if meter is None:
            meter = Meter()
            factory.add_observer(meter)
        self._factory = factory
        self._meter = meter
        self._hub = hub
        self._descriptors = descriptors
        self._reactor_lag = reactor_lag
        self._registry: Any = None

    def render(self, accept: str = "") -> tuple[str, bytes]:
        """Return the type and the bytes of the page, for an Accept field. Raises ImportError without the extra."""
        from prometheus_client import CollectorRegistry, ProcessCollector

        if self._registry is None:
            self._registry = CollectorRegistry()
            self._registry.register(self)
            ProcessCollector(registry=self._registry)
        return encode(self._registry, accept)

    def describe(self) -> list[Metric]:
        """Return nothing: collecting makes the families (``prometheus_client``'s ``Collector``)."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All of it but the process's own (``prometheus_client``'s ``Collector``)."""
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
            InfoMetricFamily,
        )

        def counter(name: str, help: str, labels: tuple[str, ...], counts: Mapping[Any, float]) -> Metric:
            family = CounterMetricFamily(f"beastws_{name}", help, labels=labels)
            for key, count in counts.items():
                family.add_metric(key if isinstance(key, tuple) else (key,), count)
            return family

        def gauge(name: str, help: str, labels: tuple[str, ...], values: dict[Any, float]) -> Metric:
            family = GaugeMetricFamily(f"beastws_{name}", help, labels=labels)
            for key, value in values.items():
                family.add_metric(key if isinstance(key, tuple) else (key,), value)
            return family

        meter, connections = self._meter, self._factory.connections
        codec = "compiled" if ACCELERATED else "pure"
        yield InfoMetricFamily("beastws", "What is running.", value={"version": __version__, "codec": codec})
        states = [protocol.state for protocol in connections]
        yield gauge(
            "connections", "Connections by state.", ("state",), {state.value: states.count(state) for state in STATES}
        )
        yield counter("handshakes", "WebSocket handshakes by outcome.", ("outcome",), meter.handshakes)
        yield counter("http_responses", "Answers to other requests, by status.", ("status",), meter.responses)
        yield from self._traffic(counter)
        yield counter("closes", "WebSockets that ended.", ("code", "began"), meter.closes)
        yield HistogramMetricFamily(
            "beastws_ping_round_trip_seconds",
            "Time from a ping to its pong.",
            buckets=[*zip(upper_bounds(ROUND_TRIPS), accumulate(meter.round_trips), strict=True)],
            sum_value=meter.round_trip_seconds,
        )
        buffered = sum(protocol.buffered_amount for protocol in connections if protocol.state in STATES[1:])
        yield gauge("buffered_bytes", "Bytes that wait for slow readers.", (), {(): buffered})
        budget = self._factory.settings.budget
        used, closed = (0, 0) if budget is None else (budget.used, budget.closed)
        yield gauge("memory_bytes", "Bytes that connections buffer, in and out.", (), {(): used})
        yield counter("memory_closes", "Connections closed because all buffered too much.", (), {(): closed})
        yield counter("refusals", "Limits that were met, by their names.", ("limit",), self._factory.refusals)
        yield counter("slow_readers", "What was done about slow readers.", ("action",), self._slow_readers())
        if self._reactor_lag is not None:
            lag = self._reactor_lag
            yield HistogramMetricFamily(
                "beastws_reactor_lag_seconds",
                "Time that a call waits for the reactor.",
                buckets=[*zip(upper_bounds(LAGS), accumulate(lag.lags), strict=True)],
                sum_value=lag.lag_seconds,
            )
            yield counter("reactor_busy_seconds", "Time in which the reactor did not wait.", (), {(): lag.busy_seconds})
        if self._descriptors is not None:
            yield counter(
                "out_of_descriptors_seconds",
                "Time without a file descriptor for a new connection.",
                (),
                {(): self._descriptors.seconds},
            )
        if self._hub is not None:
            yield from self._rooms(gauge, counter)

    def _traffic(self, counter: Any) -> Iterator[Metric]:
        traffic = self._meter.all_traffic
        labels = ("direction", "type")
        yield counter(
            "messages",
            "Messages.",
            labels,
            {
                ("received", "text"): traffic.received_texts,
                ("received", "binary"): traffic.received_binaries,
                ("sent", "text"): traffic.sent_texts,
                ("sent", "binary"): traffic.sent_binaries,
            },
        )
        yield counter(
            "message_bytes",
            "Bytes in messages, uncompressed.",
            labels,
            {
                ("received", "text"): traffic.received_text_octets,
                ("received", "binary"): traffic.received_binary_octets,
                ("sent", "text"): traffic.sent_text_octets,
                ("sent", "binary"): traffic.sent_binary_octets,
            },
        )

    def _slow_readers(self) -> dict[str, int]:
        dropped = self._meter.dropped + dropped_by(self._factory.connections, self._factory.settings.limits)
        return {"close": self._meter.slow_readers, "drop": dropped + getattr(self._hub, "dropped", 0)}

    def _rooms(self, gauge: Any, counter: Any) -> Iterator[Metric]:
        rooms = getattr(self._hub, "rooms", None)
        if rooms is not None:
            yield gauge("rooms", "Rooms that have members here.", (), {(): len(rooms)})
            yield gauge("room_members", "Members of all rooms here.", (), {(): sum(rooms.values())})
        state = getattr(getattr(self._hub, "backplane", None), "state", None)
        failures = getattr(getattr(self._hub, "backplane", None), "failures", None)
        if failures is not None:
            reasons = {reason: failures[reason] for reason in ("away", "refused", "unknown", "overloaded")}
            yield counter("backplane_failed_publishes", "Publications that failed.", ("reason",), reasons)
            backplane = self._hub.backplane
            yield counter("backplane_losses", "How often the connection was lost.", (), {(): backplane.losses})
            yield counter("backplane_gaps", "How often a room was told of missing messages.", (), {(): backplane.gaps})
        if state is not None:
            yield gauge(
                "backplane_state",
                "1 for the state that the backplane is in.",
                ("state",),
                {other.value: float(other is state) for other in type(state)},
            )
