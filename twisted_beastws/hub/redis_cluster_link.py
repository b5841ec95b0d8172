"""Connections to one part of a Redis Cluster, through txredisapi, which imports the reactor: import this late."""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Sequence
from functools import cache
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from twisted_beastws.hub import linked_reconnecting as timing
from twisted_beastws.hub.linked_answers import Taken
from twisted_beastws.hub.linked_errors import LinkLost, Refused
from twisted_beastws.hub.linked_interfaces import LinkUser
from twisted_beastws.hub.redis_cluster_nodes import ClusterNodes
from twisted_beastws.hub.redis_connecting import ask_once
from twisted_beastws.hub.redis_link import RedisLink
from twisted_beastws.hub.redis_protocol import ShardSubscriber, Subscriber
from twisted_beastws.hub.redis_url import RedisURL

SLOTS = 16384
"""Slots of a Redis Cluster."""


def slot_of(tag: str) -> int:
    """Return the slot of all keys with a hash tag."""
    return crc_hqx(tag.encode(), 0) % SLOTS


class ClusterLink(RedisLink):
    """A `RedisLink` to the primary that has one part's slot, whose channels are sharded.

    Args:
        nodes: finds the primary.
        url, user, reactor, prefix, max_room_history, max_history, hub_name, part: as of a `RedisLink`.
    """

    PUBLISH = "SPUBLISH"

    def __init__(
        self,
        nodes: ClusterNodes,
        url: RedisURL,
        user: LinkUser,
        reactor: IReactorTime,
        prefix: str,
        max_room_history: int,
        max_history: int,
        hub_name: str,
        part: str,
    ) -> None:
        super().__init__(url, user, reactor, prefix, max_room_history, max_history, hub_name, part)
        self._nodes = nodes
        self._slot = slot_of(part)

    def publish(
        self, known: str, room: str | None, payload: bytes, keep: int, ref: str, waiting: bool
    ) -> Deferred[Taken]:
        return super().publish(known, room, payload, keep, ref, waiting).addErrback(self._begun)

    @staticmethod
    def _begun(failure: Failure) -> Failure:
        # The script had begun when it found that a history had moved: it may have taken the message.
        if failure.check(Refused) and "non local key" in str(failure.value):
            return Failure(LinkLost("the data moved during a publication"))
        return failure

    def _evaluate(self, script: str, keys: Sequence[str], *arguments: str | bytes | int) -> Deferred[Any]:
        return super()._evaluate(_sharded(script), keys, *arguments)

    async def _find(self) -> RedisURL:
        return await self._nodes.primary_of(self._slot, self._ask)

    async def _ask(self, url: RedisURL) -> Any:
        return await ask_once(url, self._reactor, "CLUSTER", "SLOTS")

    def _new_subscriber(self, url: RedisURL) -> Subscriber:
        return ShardSubscriber(url, self._reactor, timing.REPLY_TIMEOUT, self._published)


@cache
def _sharded(script: str) -> str:
    return script.replace("redis.call('PUBLISH'", "redis.call('SPUBLISH'")
