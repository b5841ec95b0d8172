"""The metrics of several processes as those of one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from operator import add
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from twisted_beastws.service.workers import Worker

PATIENCE = 3.0
"""Seconds that a process has to answer: one that does not is left out."""

# All else is the sum.
_OF_SEVERAL: dict[str, Any] = {
    "beastws_info": max,
    "process_max_fds": max,
    "process_start_time_seconds": min,
}


class _Asking(Protocol):
    """Reads all that comes after a request."""

    def __init__(self, request: bytes) -> None:
        self.answer: Deferred[tuple[int, str]] = Deferred(lambda _: self.transport.abortConnection())  # type: ignore[union-attr]
        self._request = request
        self._read = b""

    def connectionMade(self) -> None:
        self.transport.write(self._request)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self._read += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        head, _, body = self._read.partition(b"\r\n\r\n")
        status = head[9:12]
        if not self.answer.called:
            self.answer.callback((int(status) if status.isdigit() else 0, body.decode("utf-8")))


async def ask(reactor: Any, path: str, target: str) -> tuple[int, str]:
    """The status and the body that the process whose admin's listener is the UNIX socket ``path`` answers."""
    asking = _Asking(f"GET {target} HTTP/1.0\r\nHost: worker\r\n\r\n".encode("ascii"))
    factory = Factory.forProtocol(lambda: asking)
    factory.noisy = False
    await UNIXClientEndpoint(reactor, path, timeout=PATIENCE).connect(factory)
    return await asking.answer.addTimeout(PATIENCE, reactor)


class Summed:
    """The metrics of ``workers``, which are asked each time, and of their number.

    replaced: gives how many ended and had to be replaced.
    """

    def __init__(self, reactor: Any, workers: Collection[Worker], replaced: Callable[[], int]) -> None:
        self._reactor = reactor
        self._workers = workers
        self._replaced = replaced

    async def render(self) -> tuple[str, bytes]:
        """The type and the octets of the page. Raises ImportError without the extra."""
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

        pages = [body for status, body in await self._ask("/metrics") if status == 200]
        registry = CollectorRegistry()
        registry.register(_Collected([*summed(pages), *self._own()]))
        return CONTENT_TYPE_LATEST, generate_latest(registry)

    async def ready(self) -> bool:
        """Whether all of them are."""
        answers = await self._ask("/readyz")
        return bool(answers) and all(status == 200 for status, _ in answers)

    async def _ask(self, target: str) -> list[tuple[int, str]]:
        asked = [Deferred.fromCoroutine(ask(self._reactor, worker.admin, target)) for worker in self._workers]
        answers = await DeferredList(asked, consumeErrors=True)
        return [answer if succeeded else (0, "") for succeeded, answer in answers]

    def _own(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        yield GaugeMetricFamily("beastws_workers", "Processes that there are.", value=len(self._workers))
        replaced = self._replaced()
        yield CounterMetricFamily("beastws_workers_replaced", "Processes that ended by themselves.", value=replaced)


def summed(pages: Iterable[str]) -> list[Metric]:
    """One family for each of the same name on all ``pages``, in Prometheus' text format."""
    from prometheus_client.metrics_core import Metric
    from prometheus_client.parser import text_string_to_metric_families

    families: dict[str, Metric] = {}
    samples: dict[str, dict[tuple[Any, ...], Any]] = {}
    for page in pages:
        for family in text_string_to_metric_families(page):
            families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            known = samples.setdefault(family.name, {})
            for sample in family.samples:
                key = (sample.name, *sorted(sample.labels.items()))
                before = known.get(key)
                if before is not None:
                    join = _OF_SEVERAL.get(sample.name, add)
                    sample = sample._replace(value=join(before.value, sample.value))
                known[key] = sample
    for name, family in families.items():
        family.samples = list(samples[name].values())
    return list(families.values())


class _Collected:
    """A ``prometheus_client`` collector of what is there."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families
