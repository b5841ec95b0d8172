"""`Pace` stops reading from Redis while members are slow; `TroubleLog` logs the same trouble once a minute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

MAX_UNDELIVERED = 256
"""Messages that the hub has not sent to all members; beyond them, the link stops reading. A room's history has 100."""

LOG_INTERVAL = 60.0
"""Seconds between two log lines about the same trouble."""


class PausedLink(Protocol):
    """A link that can stop reading."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class Pace:
    """Counts the messages that the hub has not sent to all members yet.

    Attributes:
        link: the link to pause; None without one.
    """

    def __init__(self) -> None:
        self.link: PausedLink | None = None
        self._undelivered = 0
        self._waiting: list[Deferred[None]] = []

    def count(self, sent: Deferred[None] | None) -> None:
        """Count a message until ``sent`` fires; None is a message that all members have been sent already."""
        if sent is None:
            return
        self._undelivered += 1
        if self._undelivered == MAX_UNDELIVERED and self.link is not None:
            self.link.pause()
        sent.addBoth(self._sent)

    def _sent(self, _: object) -> None:
        self._undelivered -= 1
        if self._undelivered == MAX_UNDELIVERED - 1:
            if self.link is not None:
                self.link.resume()
            waiting, self._waiting = self._waiting, []
            for waiter in waiting:
                waiter.callback(None)

    def paced(self) -> Deferred[None]:
        """Return a Deferred that fires when fewer than `MAX_UNDELIVERED` messages are counted."""
        if self._undelivered < MAX_UNDELIVERED:
            return succeed(None)
        self._waiting.append(Deferred())
        return self._waiting[-1]


class TroubleLog:
    """Logs why Redis accepts no messages, each reason once in `LOG_INTERVAL`.

    Args:
        logger: logs the lines.
        url: the address, for the lines.
        failures: publications that failed, which each line counts.
        seconds: the clock.
    """

    def __init__(self, logger: Logger, url: Any, failures: Counter[str], seconds: Callable[[], float]) -> None:
        self._logger = logger
        self._url = url
        self._failures = failures
        self._seconds = seconds
        self._logged: dict[str, float] = {}

    def clear(self) -> None:
        """Log the next trouble at once: Redis is well."""
        self._logged.clear()

    def log(self, line: str, why: str) -> None:
        """Log a line, with ``{url}`` and ``{why}`` in it."""
        now = self._seconds()
        if now - self._logged.get(why, now - LOG_INTERVAL) < LOG_INTERVAL:
            return
        self._logged[why] = now
        failed = sum(self._failures.values())
        self._logger.warn(
            f"{line} (publications that failed so far: {{failed}})", url=self._url, why=why, failed=failed
        )
