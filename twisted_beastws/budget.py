"""A process-wide bound on the memory that connections buffer in both directions."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush

from twisted.logger import Logger

RELIEF = 16
"""The share freed when the limit is reached: a sixteenth, so that the search for large connections is rare."""

SENT, RECEIVED = range(2)
"""The two parts of an account: bytes that the peer has not taken, and bytes that the application has not taken."""


class Account:
    """The memory that one connection buffers.

    Attributes:
        size: The memory in bytes.
        closed: The connection was closed at the limit of the budget.
    """

    __slots__ = ("_budget", "_parts", "closed", "shed", "size")

    def __init__(self, budget: MemoryBudget, shed: Callable[[], None]) -> None:
        self._budget: MemoryBudget | None = budget
        self._parts = [0, 0]
        self.shed: Callable[[], None] = shed
        self.size = 0
        self.closed = False

    def count(self, part: int, size: int) -> None:
        """Set the size of ``part``. This may call the ``shed`` of any connection, of this one too."""
        change = size - self._parts[part]
        if change and self._budget is not None:
            self._parts[part] = size
            self.size += change
            self._budget.changed(change)

    def close(self) -> None:
        """The connection is gone."""
        budget, self._budget = self._budget, None
        # Break a reference cycle: ``shed`` refers to the connection, which refers to this account.
        del self.shed
        if budget is not None:
            budget.forget(self)


class MemoryBudget:
    """Bounds the memory that all connections of a process buffer together.

    Pass one object to all factories and clients of the process. It counts received heads and messages that the
    application has not consumed, unfinished messages, and sent messages that the peer has not taken. At the limit, the
    connections that buffer most are closed with 1013 until a sixteenth of the limit is free again. Redis does the same
    with its clients (``maxmemory-clients``).

    A message that waits for many connections counts for each of them.

    Args:
        limit: The most bytes.

    Attributes:
        limit: The most bytes.
        used: The bytes buffered now.
        closed: The number of connections closed at the limit.
    """

    log = Logger()

    def __init__(self, limit: int) -> None:
        if isinstance(limit, bool) or not isinstance(limit, int):
            raise TypeError(f"MemoryBudget({limit!r}): give a number of bytes")
        if limit < 1:
            raise ValueError(f"MemoryBudget({limit!r}): give a number of bytes greater than 0")
        self.limit = limit
        self.used = 0
        self.closed = 0
        self._accounts: set[Account] = set()
        self._relieving = False

    def open(self, shed: Callable[[], None]) -> Account:
        """Return an account for a new connection.

        Args:
            shed: Frees the connection's memory now: closes it with 1013 if it is open, else drops it.
        """
        account = Account(self, shed)
        self._accounts.add(account)
        return account

    def forget(self, account: Account) -> None:
        """Forget a connection that is gone."""
        self._accounts.discard(account)
        self.used -= account.size

    def changed(self, change: int) -> None:
        """Count a change of an account. At the limit, close the largest connections."""
        self.used += change
        if self.used > self.limit and change > 0 and not self._relieving:
            self._relieving = True
            try:
                self._relieve()
            finally:
                self._relieving = False

    def _relieve(self) -> None:
        used, before = self.used, self.closed
        target = self.limit - self.limit // RELIEF
        waiting = [(-account.size, number, account) for number, account in enumerate(self._accounts) if account.size]
        heapify(waiting)
        while self.used > target and waiting:
            _, number, account = heappop(waiting)
            # Closing one connection may close others.
            if account not in self._accounts:
                continue
            again = account.closed
            self.closed += not again
            account.closed = True
            account.shed()
            if account.size and not again:
                # If the closed connection still holds more than the others, drop it before closing others.
                heappush(waiting, (-account.size, ~number, account))
        self.log.warn(
            "connections buffered {used} bytes, and the process's limit is {limit}: {count} closed, {left} bytes left",
            used=used,
            limit=self.limit,
            count=self.closed - before,
            left=self.used,
        )
