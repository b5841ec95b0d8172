"""The metrics of several processes as those of one."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock

from twisted_beastws.service.summing import PATIENCE, AggregatedMetrics, families, summed

pytest.importorskip("prometheus_client", reason="METRICS ARE NOT TESTED: pip install prometheus_client")


def page(*lines: str) -> str:
    return "\n".join(lines) + "\n"


class Worker:
    """A worker with a counter and a gauge of the same value."""

    def __init__(self, value: int) -> None:
        self.page: str | None = None
        self.booted = True
        self.late: Deferred[Any] | None = None
        self.counts(value)

    def counts(self, value: int) -> None:
        self._next = page("# TYPE a_total counter", f"a_total {value}", "# TYPE b gauge", f"b {value}")

    def ask(self, question: str) -> Deferred[Any]:
        if question == "ready":
            return self.late or succeed(True)
        if self.late is None:
            self.page = self._next
        return self.late or succeed(self.page)


class Workers:
    def __init__(self, *workers: Worker) -> None:
        self.living: set[Any] = set(workers)
        self.replaced = 0
        self.finished: Any = None
        self.complete = True

    def end(self, worker: Worker) -> None:
        self.living.discard(worker)
        self.finished(worker)


def values(clock: Clock, metrics: AggregatedMetrics) -> dict[str, float]:
    """The sums of both metrics."""
    pages: list[bytes] = []
    rendering = Deferred.fromCoroutine(metrics.render())
    rendering.addCallback(lambda rendered: pages.append(rendered[1]))
    clock.advance(PATIENCE)
    found = {sample.name: sample.value for family in families(pages[0].decode()) for sample in family.samples}
    return {name: found[name] for name in ("a_total", "b") if name in found}


class TestNeverBackwards:
    """Counters never decrease, even when workers end."""

    def test_a_dead_workers_counters_stay_and_its_gauges_go(self) -> None:
        clock, one, other = Clock(), Worker(3), Worker(4)
        workers: Any = Workers(one, other)
        metrics = AggregatedMetrics(clock, workers)
        assert values(clock, metrics) == {"a_total": 7, "b": 7}
        workers.end(one)
        assert values(clock, metrics) == {"a_total": 7, "b": 4}
        workers.living.add(Worker(1))
        assert values(clock, metrics) == {"a_total": 8, "b": 5}

    def test_a_late_worker_counts_with_its_last_values(self) -> None:
        clock, one, other = Clock(), Worker(3), Worker(4)
        metrics = AggregatedMetrics(clock, Workers(one, other))  # type: ignore[arg-type]
        values(clock, metrics)
        one.late = Deferred()
        other.counts(6)
        assert values(clock, metrics) == {"a_total": 9, "b": 9}

    def test_a_worker_that_ends_while_it_is_asked_counts_once(self) -> None:
        clock, one, other = Clock(), Worker(3), Worker(4)
        workers: Any = Workers(one, other)
        metrics = AggregatedMetrics(clock, workers)
        values(clock, metrics)
        one.late = fail(ConnectionLost())
        workers.end(one)
        assert values(clock, metrics)["a_total"] == 7

    def test_histograms_stay_and_unknown_workers_add_nothing(self) -> None:
        clock, one = Clock(), Worker(0)
        workers: Any = Workers(one)
        metrics = AggregatedMetrics(clock, workers)
        one.page = page("# TYPE h histogram", 'h_bucket{le="+Inf"} 2', "h_count 2", "h_sum 3")
        workers.end(one)
        workers.end(Worker(0))
        (family,) = metrics._finished  # nothing public shows it without a process
        assert {sample.name: sample.value for sample in family.samples} == {"h_bucket": 2, "h_count": 2, "h_sum": 3}


class TestReady:
    """The readiness of all workers together."""

    def ready(self, workers: Any) -> bool:
        clock, answers = Clock(), list[bool]()
        Deferred.fromCoroutine(AggregatedMetrics(clock, workers).ready()).addCallback(answers.append)
        clock.advance(PATIENCE)
        assert isinstance(answers[0], bool)
        return answers[0]

    def test_the_service_is_ready_if_all_workers_are(self) -> None:
        assert self.ready(Workers(Worker(0), Worker(0)))

    def test_the_service_is_not_ready_while_a_worker_is_missing(self) -> None:
        workers = Workers(Worker(0))
        workers.complete = False
        assert not self.ready(workers)

    def test_the_service_is_not_ready_while_a_worker_does_not_answer(self) -> None:
        late = Worker(0)
        late.late = Deferred()
        assert not self.ready(Workers(Worker(0), late))


def test_the_values_of_workers_are_added() -> None:
    one = page(
        *("# TYPE a_total counter", 'a_total{code="1"} 1', 'a_total{code="2"} 2'),
        *("# TYPE process_start_time_seconds gauge", "process_start_time_seconds 5"),
        *("# TYPE beastws_info gauge", 'beastws_info{version="1"} 1'),
        *("# TYPE h histogram", 'h_bucket{le="1"} 1', 'h_bucket{le="+Inf"} 2', "h_count 2", "h_sum 3"),
    )
    other = page(
        *("# TYPE a_total counter", 'a_total{code="2"} 10', 'a_total{code="3"} 20'),
        *("# TYPE process_start_time_seconds gauge", "process_start_time_seconds 4"),
        *("# TYPE beastws_info gauge", 'beastws_info{version="1"} 1'),
        *("# TYPE h histogram", 'h_bucket{le="1"} 4', 'h_bucket{le="+Inf"} 4', "h_count 4", "h_sum 2"),
    )
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in summed([families(one), families(other)])
        for sample in family.samples
    }
    assert found == {
        ("a_total", "1"): 1,
        ("a_total", "2"): 12,
        ("a_total", "3"): 20,
        ("process_start_time_seconds",): 4,
        ("beastws_info", "1"): 1,
        ("h_bucket", "1"): 5,
        ("h_bucket", "+Inf"): 6,
        ("h_count",): 6,
        ("h_sum",): 5,
    }
