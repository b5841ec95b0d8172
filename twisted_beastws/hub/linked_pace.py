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
        links: the links to pause.
    """

    def __init__(self) -> None:
        self.links: list[PausedLink] = []
        self._undelivered = 0
        self._waiting: list[Deferred[None]] = []

    def count(self, sent: Deferred[None] | None) -> None:
        """Count a message until ``sent`` fires; None is a message that all members have been sent already."""
        if sent is None:
            return
        self._undelivered += 1
        if self._undelivered == MAX_UNDELIVERED:
            for link in self.links:
                link.pause()
        sent.addBoth(self._sent)

    def _sent(self, _: object) -> None:
        self._undelivered -= 1
        if self._undelivered == MAX_UNDELIVERED - 1:
            for link in self.links:
                link.resume()
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

    def over(self, line: str) -> None:
        """Log a line, with ``{url}`` in it: Redis is well, and the next trouble is logged at once."""
        self._logged.clear()
        self._logger.info(line, url=self._url)

    def event(self, line: str, **fields: object) -> None:
        """Log a line, with ``{url}`` in it, about something that happened once."""
        self._logger.warn(line, url=self._url, **fields)

    def log(self, line: str, why: str) -> None:
        """Log a line, with ``{url}`` and ``{why}`` in it."""
        if not self._is_due(why, self._logged):
            return
        failed = sum(self._failures.values())
        self._logger.warn(
            f"{line} (publications that failed so far: {{failed}})", url=self._url, why=why, failed=failed
        )

    def _is_due(self, key: str, logged: dict[str, float]) -> bool:
        """Return whether a line was not logged lately; note that it is logged now."""
        now = self._seconds()
        if now - logged.get(key, now - LOG_INTERVAL) < LOG_INTERVAL:
            return False
        logged[key] = now
        return True


class PartsLog(TroubleLog):
    """Logs what happens to the parts of a backplane: a line that concerns several parts once.

    All lines begin with ``the backplane``.

    Args:
        logger, url, failures, seconds: as of a `TroubleLog`.
        is_connected: whether all parts are.
    """

    def __init__(
        self,
        logger: Logger,
        url: Any,
        failures: Counter[str],
        seconds: Callable[[], float],
        is_connected: Callable[[], bool],
    ) -> None:
        super().__init__(logger, url, failures, seconds)
        self._is_connected = is_connected
        self._events: dict[str, float] = {}

    def over(self, line: str) -> None:
        if self._is_connected():
            super().over(line)

    def log(self, line: str, why: str) -> None:
        super().log(f"a part of {line}", why)

    def event(self, line: str, **fields: object) -> None:
        if self._is_due(line, self._events):
            super().event(f"a part of {line}", **fields)
