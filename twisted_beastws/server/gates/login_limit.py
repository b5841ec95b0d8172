"""How often a peer may give a wrong password."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Awaitable, Callable
from math import ceil
from typing import TypeVar

from twisted.internet.defer import CancelledError, Deferred

from twisted_beastws.server.admission import Buckets
from twisted_beastws.server.peers import Peer

T = TypeVar("T")


class TooManyFailures(Exception):
    """The peer gave wrong passwords too often; ``retry_after`` is in seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after


class LoginLimit:
    """Bounds the wrong passwords of each peer, before a checker is asked.

    A check that runs counts as a failure until it succeeds: a peer cannot try more at once than it may one after the
    other. If that leaves nothing for a check, it waits for the others of its peer.

    Args:
        per_minute: wrong passwords a minute on average, and as many at once; None is no limit.
        now: returns the time in seconds.
    """

    def __init__(self, per_minute: float | None, now: Callable[[], float]) -> None:
        self._size = per_minute
        self._failures = Buckets(now)
        self._running: Counter[str] = Counter()
        self._waiting: dict[str, deque[Deferred[None]]] = {}
        self._to_wake: Counter[str] = Counter()

    async def check(self, peer: Peer, check: Callable[[], Awaitable[T]]) -> T | None:
        """Return the result of ``check``; None is a failure.

        Raises:
            TooManyFailures: the peer has failed too often; ``check`` was not called.
        """
        if self._size is None or not peer.name:
            return await check()
        network = peer.network
        try:
            while wait := self._failures.take(peer, self._size / 60, self._size):
                if not self._running[network]:
                    raise TooManyFailures(ceil(wait))
                await self._others(network)
            result = await self._run(network, peer, check)
            if result is not None:
                self._failures.put_back(peer)
            return result
        finally:
            self._wake(network)

    async def _run(self, network: str, peer: Peer, check: Callable[[], Awaitable[T]]) -> T:
        self._running[network] += 1
        try:
            return await check()
        except CancelledError:
            # A client that disconnects at once may have guessed, too.
            raise
        except Exception:
            self._failures.put_back(peer)
            raise
        finally:
            self._running[network] -= 1
            if not self._running[network]:
                del self._running[network]

    def retry_after(self, peer: Peer) -> int:
        """Return the seconds until the peer may try again, 0 if it may now."""
        return ceil(self._failures.wait(peer, self._size / 60, self._size)) if self._size and peer.name else 0

    async def _others(self, network: str) -> None:
        waiting = self._waiting.setdefault(network, deque())
        turn: Deferred[None] = Deferred(waiting.remove)
        waiting.append(turn)
        await turn

    def _wake(self, network: str) -> None:
        """Let one more check of the network try. The ones that are woken wake others: a loop, so as not to recurse."""
        self._to_wake[network] += 1
        if self._to_wake[network] > 1:
            return
        while self._to_wake[network]:
            waiting = self._waiting.get(network)
            if waiting:
                waiting.popleft().callback(None)
            if not waiting:
                self._waiting.pop(network, None)
            self._to_wake[network] -= 1
        del self._to_wake[network]
