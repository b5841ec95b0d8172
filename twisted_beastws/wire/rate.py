"""How often something may happen: token buckets, and sessions whose peer may send only so much a second."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from twisted_beastws.errors import RateExceeded

if TYPE_CHECKING:
    from twisted_beastws.options import Limits

# Less than any cost, more than the errors of adding up fractions.
_ROUNDING = 1e-6

HEADERS = 1 << 10
"""Octets of frame headers that a byte rate allows a message beyond its payload."""


class Bucket:
    """A token bucket: ``rate`` a second on average, ``size`` at once; by default a second's worth, and one at least."""

    __slots__ = ("_at", "_level", "_rate", "_size")

    def __init__(self, rate: float, size: float | None = None) -> None:
        self._rate = rate
        self._size = max(rate, 1.0) if size is None else size
        self._level = 0.0
        self._at = 0.0

    def take(self, cost: float, now: float) -> float:
        """0 if ``cost`` is there and taken, else the seconds until it would be; ``now`` is in seconds."""
        level = self._level_at(now) + cost
        if level > self._size + _ROUNDING:
            return (level - self._size) / self._rate
        self._level, self._at = level, now
        return 0.0

    def wait(self, cost: float, now: float) -> float:
        """Return the seconds until ``cost`` would be there, 0 if it is, and take nothing."""
        level = self._level_at(now) + cost
        return (level - self._size) / self._rate if level > self._size + _ROUNDING else 0.0

    def put_back(self, cost: float, now: float) -> None:
        """Undo a `take`."""
        self._level, self._at = max(0.0, self._level_at(now) - cost), now

    def full(self, now: float) -> bool:
        """Nothing is missing from it: it knows nothing that a new one would not."""
        return self._level_at(now) == 0.0

    def _level_at(self, now: float) -> float:
        # A system's clock may be set back.
        return max(0.0, self._level - max(0.0, now - self._at) * self._rate)


class _RateLimiting:
    """The limits of a session, for classes that have the slots for them."""

    # Of two bases one alone may have slots.
    if not TYPE_CHECKING:
        __slots__ = ()
    else:
        _messages: Bucket | None
        _octets: Bucket | None
        _refusals: Counter[str]
        on_text: Any
        on_binary: Any
        received_at: float
        sent: Any
        now: Any
        fail: Any

    def limit(self, limits: Limits, refusals: Counter[str]) -> None:
        """Hold the peer to ``limits``, counting in ``refusals`` when it goes beyond; to be called before any octet."""
        rate = limits.max_byte_rate
        self._refusals = refusals
        self._messages = None if limits.max_message_rate is None else Bucket(limits.max_message_rate)
        # A message that may be sent at all may be sent at once.
        self._octets = None if rate is None else Bucket(rate, max(rate, (limits.max_message_size or 0) + HEADERS))

    def feed(self, data: bytes) -> None:
        """Take a chunk as it was received, if the rate of octets allows it."""
        if self._octets is not None and self.sent is None and self._octets.take(len(data), self.now()):
            self.fail(self._exceeded("max_byte_rate", "too many octets a second"))
        else:
            super().feed(data)  # type: ignore[misc]

    def call_hook(self, hook: Any, message: Any) -> None:
        # What waited for a slow hook was counted when it came, and is called by another hook than these.
        if hook is not None and (hook is self.on_text or hook is self.on_binary):
            self._count()
        super().call_hook(hook, message)  # type: ignore[misc]

    def _deliver_fragment(self, part: bytes, final: bool) -> None:
        if final:
            self._count()
        super()._deliver_fragment(part, final)  # type: ignore[misc]

    def control_received(self, opcode: int, payload: bytes) -> None:
        self._count()
        super().control_received(opcode, payload)  # type: ignore[misc]

    def _count(self) -> None:
        if self._messages is not None and self.sent is None and self._messages.take(1, self.received_at):
            raise self._exceeded("max_message_rate", "too many messages a second")

    def _exceeded(self, limit: str, why: str) -> RateExceeded:
        self._refusals[limit] += 1
        return RateExceeded(f"{why}: Limits.{limit} is exceeded")


_limited: dict[Any, Any] = {}


def rate_limited(kind: Any) -> Any:
    """The subclass of ``kind``, a `Session`, whose `limit` is to be called; others pay nothing for it."""
    if kind not in _limited:
        slots = {"__slots__": ("_messages", "_octets", "_refusals"), "__module__": __name__, "__doc__": kind.__doc__}
        _limited[kind] = type(f"RateLimited{kind.__name__}", (_RateLimiting, kind), slots)
    return _limited[kind]
