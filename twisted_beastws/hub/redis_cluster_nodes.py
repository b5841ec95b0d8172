"""`ClusterNodes`: asks the nodes of a Redis Cluster which of them has a slot."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from twisted_beastws.hub.linked_errors import LinkLost, Refused, why_lost
from twisted_beastws.hub.redis_cluster_errors import UNCOVERED
from twisted_beastws.hub.redis_url import RedisURL

Address = tuple[str, int]
Ask = Callable[[RedisURL], Awaitable[Any]]


class Shard(NamedTuple):
    """Slots in a row, and the nodes that have them, the primary first."""

    first: int
    last: int
    nodes: list[Address]


class ClusterNodes:
    """The nodes of a Redis Cluster. Those that ask at the same time share one answer.

    Args:
        url: the address with some of the nodes. The others are learned from the answers.
    """

    def __init__(self, url: RedisURL) -> None:
        self._url = url
        self._learned: list[Address] = []
        self._questions = 0
        self._asking: Deferred[list[Shard]] | None = None
        self._waiting: dict[Deferred[RedisURL], int] = {}

    def primary_of(self, slot: int, ask: Ask) -> Deferred[RedisURL]:
        """Fire with the address of the primary that has a slot now.

        Args:
            slot: its number.
            ask: sends CLUSTER SLOTS to a node.

        Returns:
            A Deferred that fails with the last node's failure if no node answers, or with `Refused` if no node has the
            slot.
        """
        waiter: Deferred[RedisURL] = Deferred(self._cancelled)
        self._waiting[waiter] = slot
        if self._asking is None:
            self._asking = Deferred.fromCoroutine(self._ask(ask))
            self._asking.addBoth(self._answered)
        return waiter

    def _cancelled(self, waiter: Deferred[RedisURL]) -> None:
        self._waiting.pop(waiter, None)
        if self._asking is not None and not self._waiting:
            self._asking.cancel()

    def _answered(self, shards: list[Shard] | Failure) -> None:
        self._asking = None
        waiting, self._waiting = self._waiting, {}
        for waiter, slot in waiting.items():
            if isinstance(shards, Failure):
                waiter.errback(shards)
                continue
            address = next((each.nodes[0] for each in shards if each.first <= slot <= each.last), None)
            if address is None:
                waiter.errback(Refused("", UNCOVERED))
            else:
                waiter.callback(self._url.at(*address))

    async def _ask(self, ask: Ask) -> list[Shard]:
        why: Exception = LinkLost("no node was asked")
        for host, port in self._in_turn():
            try:
                shards = shards_of(await ask(self._url.at(host, port)), host)
            except CancelledError:
                raise
            except Refused as refused:
                why = refused
            except Exception as error:
                why = LinkLost(f"no node of the Redis Cluster answers; the last is {host}:{port}: {why_lost(error)}")
            else:
                self._learned = [node for shard in shards for node in shard.nodes]
                return shards
        raise why

    def _in_turn(self) -> list[Address]:
        """Return all known nodes, each time from another one on: the last answer may have been an old one."""
        every = list(dict.fromkeys([*self._url.nodes, *self._learned]))
        start = self._questions % len(every)
        self._questions += 1
        return every[start:] + every[:start]


def shards_of(answer: Any, host: str) -> list[Shard]:
    """Read the answer to CLUSTER SLOTS.

    Args:
        answer: the answer.
        host: the host of the node that answered, for nodes without an address.
    """
    shards = []
    for first, last, *nodes in answer:
        # The first is the primary. A host of "?" is not known yet.
        if nodes[0][0] != b"?":
            named = [((name or b"").decode() or host, int(port)) for name, port, *_ in nodes if name != b"?"]
            shards.append(Shard(first, last, named))
    return shards
