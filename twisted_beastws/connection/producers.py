"""A pull producer that pushes, at the pace of the reactor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IPullProducer, IPushProducer
from twisted.logger import Logger
from zope.interface import implementer

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime


log = Logger()

TURN = 1e-8
"""Seconds from one turn to the next, as in Twisted's ``Cooperator``: with 0 a ``Clock`` would never finish."""


def stop(producer: Any) -> None:
    """Stop ``producer``, or None. A failure is only logged, because the connection has more parts to end."""
    if producer is None:
        return
    try:
        producer.stopProducing()
    except Exception:
        log.failure("{producer} could not be stopped", producer=producer)


@implementer(IPushProducer)
class PulledProducer:
    """Asks ``producer`` for more once per turn of the reactor, unless it is paused."""

    def __init__(self, producer: IPullProducer, clock: IReactorTime) -> None:
        self._producer = producer
        self._clock = clock
        self._call: IDelayedCall | None = None

    def _pull(self) -> None:
        self._call = self._clock.callLater(TURN, self._pull)
        self._producer.resumeProducing()

    def resumeProducing(self) -> None:
        """Start asking, or resume it."""
        if self._call is None:
            self._call = self._clock.callLater(TURN, self._pull)

    def pauseProducing(self) -> None:
        """Stop asking."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def stopProducing(self) -> None:
        """The consumer is gone."""
        self.pauseProducing()
        self._producer.stopProducing()
