"""Transports that lack methods of TCP: SSH channels, standard input and output, processes."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from twisted_beastws.clock import next_turn

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

_needed = attrgetter("registerProducer", "unregisterProducer", "pauseProducing", "resumeProducing", "abortConnection")


def complete(transport: Any, clock: IReactorTime, lost: Callable[[], None]) -> Any:
    """Return ``transport``, or a `BareTransport` around it if it lacks a method that a connection calls.

    Args:
        transport: The transport.
        clock: Calls ``lost`` later.
        lost: Ends the connection if the transport does not report that it is lost.
    """
    try:
        _needed(transport)
    except AttributeError:
        return BareTransport(transport, clock, lost)
    return transport


class BareTransport:
    """Replaces the methods that the transport below lacks; ITransport itself requires little more than ``write``.

    Attributes:
        pausable: Reading can be paused. Otherwise the connection bounds the bytes that it keeps during a pause.
    """

    def __init__(self, below: Any, clock: IReactorTime, lost: Callable[[], None]) -> None:
        self._below = below
        self._clock = clock
        self._lost = lost
        self.pausable = hasattr(below, "pauseProducing") and hasattr(below, "resumeProducing")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._below, name)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Pace ``producer`` if the transport can: an SSH channel calls two methods of its own for that."""
        if hasattr(self._below, "registerProducer"):
            self._below.registerProducer(producer, streaming)
        elif hasattr(self._below, "stopWriting"):
            self._below.stopWriting, self._below.startWriting = producer.pauseProducing, producer.resumeProducing

    def unregisterProducer(self) -> None:
        """Release the producer."""
        if hasattr(self._below, "unregisterProducer"):
            self._below.unregisterProducer()
        elif hasattr(self._below, "stopWriting"):
            self._below.stopWriting = self._below.startWriting = _nothing

    def pauseProducing(self) -> None:
        """Pause reading, if the transport can."""
        if self.pausable:
            self._below.pauseProducing()

    def resumeProducing(self) -> None:
        """Resume reading."""
        if self.pausable:
            self._below.resumeProducing()

    def abortConnection(self) -> None:
        """Drop the connection. It is lost in the next turn of the reactor at the latest."""
        getattr(self._below, "abortConnection", self._below.loseConnection)()
        next_turn(self._clock, self._lost)


def _nothing() -> None:
    pass
