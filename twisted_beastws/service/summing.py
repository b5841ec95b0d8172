"""Merge the metrics of several processes into one page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import add
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import DeferredList

from twisted_beastws.server.observers.exposition import encode

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from twisted_beastws.service.process import Worker
    from twisted_beastws.service.workers import Workers

PATIENCE = 3.0
"""Seconds that a process has to answer. Without an answer its last metrics count."""

# All other metrics are summed.
_OF_SEVERAL: dict[str, Any] = {
    "beastws_info": max,
    "process_max_fds": max,
    "process_start_time_seconds": min,
}

_ONLY_GROW = ("counter", "histogram", "summary")
"""Kinds of metrics that outlive their process: Prometheus takes a smaller value for a restart of the whole service."""


class AggregatedMetrics:
    """The metrics of the processes of ``workers``, which are asked each time, and of their number."""

    def __init__(self, reactor: Any, workers: Workers) -> None:
        self._reactor = reactor
        self._workers = workers
        self._finished: list[Metric] = []
        workers.finished = self._keep

    async def render(self, accept: str = "") -> tuple[str, bytes]:
        """Return the type and the bytes of the page, for an Accept field. Raises ImportError without the extra."""
        from prometheus_client import CollectorRegistry

        await self._ask("metrics")
        pages = [families(worker.page) for worker in self._workers.living if worker.page is not None]
        registry = CollectorRegistry()
        registry.register(_Collected([*summed([self._finished, *pages]), *self._own()]))
        return encode(registry, accept)

    async def ready(self) -> bool:
        """Return whether there are as many processes as there should be, and all are ready."""
        return self._workers.complete and all(await self._ask("ready")) and self._workers.complete

    async def _ask(self, question: str) -> list[Any]:
        asked = [
            worker.ask(question).addTimeout(PATIENCE, self._reactor) for worker in self._workers.living if worker.booted
        ]
        answers = await DeferredList(asked, consumeErrors=True)
        return [answer if succeeded else None for succeeded, answer in answers]

    def _keep(self, worker: Worker) -> None:
        """Keep the counts of a process that ended."""
        if worker.page is not None:
            grown = [family for family in families(worker.page) if family.type in _ONLY_GROW]
            self._finished = summed([self._finished, grown])

    def _own(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        living, replaced = len(self._workers.living), self._workers.replaced
        yield GaugeMetricFamily("beastws_workers", "Processes that there are.", value=living)
        yield CounterMetricFamily("beastws_workers_replaced", "Processes that ended by themselves.", value=replaced)


def families(page: str) -> list[Metric]:
    """Return the families of metrics on a page in Prometheus' text format."""
    from prometheus_client.parser import text_string_to_metric_families

    return list(text_string_to_metric_families(page))


def summed(pages: Iterable[Iterable[Metric]]) -> list[Metric]:
    """Return one family for those of the same name on all ``pages``."""
    from prometheus_client.metrics_core import Metric

    found: dict[str, Metric] = {}
    samples: dict[str, dict[tuple[Any, ...], Any]] = {}
    for page in pages:
        for family in page:
            found.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            known = samples.setdefault(family.name, {})
            for sample in family.samples:
                key = (sample.name, *sorted(sample.labels.items()))
                before = known.get(key)
                if before is not None:
                    join = _OF_SEVERAL.get(sample.name, add)
                    sample = sample._replace(value=join(before.value, sample.value))
                known[key] = sample
    for name, family in found.items():
        family.samples = list(samples[name].values())
    return list(found.values())


class _Collected:
    """A ``prometheus_client`` collector of given families."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families
