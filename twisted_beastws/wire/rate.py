"""Rate limits: token buckets, and `RateLimit`, which holds a session's peer to one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted_beastws.errors import RateExceeded

if TYPE_CHECKING:
    from twisted_beastws.options import Limits
    from twisted_beastws.wire.assembler import FragmentHook
    from twisted_beastws.wire.session import Session

# Less than any cost, more than the errors of adding up fractions.
_ROUNDING = 1e-6

HEADERS = 1 << 10
"""Bytes of frame headers that a byte rate allows a message beyond its payload."""


class Bucket:
    """A token bucket: ``rate`` per second on average, ``size`` at once (by default ``rate``, at least 1)."""

    __slots__ = ("_at", "_level", "_rate", "_size")

    def __init__(self, rate: float, size: float | None = None) -> None:
        self._rate = rate
        self._size = max(rate, 1.0) if size is None else size
        self._level = 0.0
        self._at = 0.0

    def take(self, cost: float, now: float) -> float:
        """Take ``cost`` and return 0, or take nothing and return the seconds until enough is there."""
        level = self._level_at(now) + cost
        if level > self._size + _ROUNDING:
            return (level - self._size) / self._rate
        self._level, self._at = level, now
        return 0.0

    def wait(self, cost: float, now: float) -> float:
        """Return the seconds until ``cost`` is there, or 0 if it is. This takes nothing."""
        level = self._level_at(now) + cost
        return (level - self._size) / self._rate if level > self._size + _ROUNDING else 0.0

    def put_back(self, cost: float, now: float) -> None:
        """Undo a `take`."""
        self._level, self._at = max(0.0, self._level_at(now) - cost), now

    def full(self, now: float) -> bool:
        """Whether the bucket is full, and so the same as a new one."""
        return self._level_at(now) == 0.0

    def _level_at(self, now: float) -> float:
        # The system's clock may be set back.
        return max(0.0, self._level - max(0.0, now - self._at) * self._rate)


class RateLimit:
    """Holds a session's peer to ``Limits.max_message_rate`` and ``max_byte_rate``.

    A message in fragments and a control frame count as one message each. After our close frame nothing counts, because
    nothing is delivered.
    """

    __slots__ = ("_bytes", "_messages", "_refusals", "_session")

    def __init__(self, session: Session, limits: Limits, refusals: Counter[str]) -> None:
        """Limit ``session``, and count in ``refusals`` how often the peer exceeds a limit."""
        rate = limits.max_byte_rate
        self._session = session
        self._refusals = refusals
        self._messages = None if limits.max_message_rate is None else Bucket(limits.max_message_rate)
        # The greatest message that the limits allow may arrive at once.
        self._bytes = None if rate is None else Bucket(rate, max(rate, (limits.max_message_size or 0) + HEADERS))

    def feed(self, feed: Callable[[bytes], None]) -> Callable[[bytes], None]:
        """Return the callable that takes chunks in place of ``feed``."""
        session, bucket = self._session, self._bytes
        if bucket is None:
            return feed

        def limited(data: bytes) -> None:
            if session.closing.sent is None and bucket.take(len(data), session.reader.now()):
                self._exceeded("max_byte_rate", "too many bytes a second")
            else:
                feed(data)

        return limited

    def text_hook(self, hook: Callable[[str], Any]) -> Callable[[str], Any]:
        """Return the hook for text messages to use in place of ``hook``."""
        return lambda message: hook(message) if self.count() else None

    def binary_hook(self, hook: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        """Return the hook for binary messages to use in place of ``hook``."""
        return lambda message: hook(message) if self.count() else None

    def fragment_hook(self, hook: FragmentHook) -> FragmentHook:
        """Return the hook for pieces of messages to use in place of ``hook``."""
        return lambda data, opcode, final: hook(data, opcode, final) if not final or self.count() else None

    def count(self) -> bool:
        """Count a message; fail the session and return False if it is one too many."""
        session, bucket = self._session, self._messages
        if bucket is not None and session.closing.sent is None and bucket.take(1, session.reader.received_at):
            self._exceeded("max_message_rate", "too many messages a second")
            return False
        return True

    def _exceeded(self, limit: str, why: str) -> None:
        self._refusals[limit] += 1
        self._session.fail(RateExceeded(f"{why}: Limits.{limit} is exceeded"))


def limit_rate(session: Session, limits: Limits, refusals: Counter[str]) -> None:
    """Hold a session's peer to ``limits``, if they limit a rate; to be called before any hook is set.

    Sessions without such a limit pay nothing for it.
    """
    if limits.max_byte_rate is None and limits.max_message_rate is None:
        return
    limit = RateLimit(session, limits, refusals)
    session.feed = limit.feed(session.feed)
    if limits.max_message_rate is not None:
        session.wrap_hooks(limit)
        session.count_control = limit.count
