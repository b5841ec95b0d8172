"""`ClusterPart`: the backplane for the rooms of one part of a Redis Cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from zlib import crc32

from twisted.internet.defer import Deferred

from twisted_beastws.hub.backplane import BackplaneState
from twisted_beastws.hub.linked import LinkedBackplane
from twisted_beastws.hub.linked_errors import Refused
from twisted_beastws.hub.linked_inbox import InboxReader
from twisted_beastws.hub.linked_interfaces import LinkCommands
from twisted_beastws.hub.linked_shared import SharedState
from twisted_beastws.hub.redis_cluster_nodes import ClusterNodes
from twisted_beastws.hub.redis_url import RedisURL

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

TAGS = ("0", "1", "2", "3", "18", "19", "48", "49", "58", "59", "60", "61", "62", "63", "102", "103")
"""The hash tag of each part. One of these tags is in each sixteenth of the slots, near its middle. All hubs of all
versions must agree on them."""


def part_of(room: str | None) -> int:
    """Return the number of a room's part; messages to everybody go through the first."""
    return 0 if room is None else crc32(room.encode("utf-8", "surrogatepass")) % len(TAGS)


class ClusterPart(LinkedBackplane):
    """A dataset whose keys are all in one slot.

    Args:
        address: the Cluster's.
        nodes: finds the primary of the slot.
        tag: the hash tag of the keys.
        shared: the limits and the log of all parts.
        publish: publishes the messages of the inbox; None for a part without one.
        gave_up: called with the reason if this Cluster can never serve the hub.
        history, max_room_history, max_history, prefix, reactor: as of a `LinkedBackplane`.
    """

    def __init__(
        self,
        address: RedisURL,
        nodes: ClusterNodes,
        tag: str,
        shared: SharedState,
        publish: Callable[..., Deferred[str | None]] | None,
        gave_up: Callable[[Refused], None],
        *,
        history: int,
        max_room_history: int,
        max_history: int,
        prefix: str,
        reactor: IReactorTime | None,
    ) -> None:
        super().__init__(
            address,
            history=history,
            max_room_history=max_room_history,
            max_history=max_history,
            max_in_flight=shared.load.most,
            prefix=prefix,
            reactor=reactor,
            shared=shared,
        )
        self._address = address
        self._nodes = nodes
        self._tag = tag
        self._inbox = None if publish is None else InboxReader(self, publish)
        self._give_up = gave_up

    def gave_up(self, why: Refused) -> None:
        self.state = BackplaneState.REFUSING
        self._give_up(why)

    def _make_link(self) -> LinkCommands:
        # txredisapi imports the reactor.
        try:
            from twisted_beastws.hub.redis_cluster_link import ClusterLink
        except ModuleNotFoundError as error:
            raise ImportError("RedisClusterBackplane needs an extra: pip install 'twisted_beastws[redis]'") from error

        budgets = (self.max_room_history, self.max_history)
        return ClusterLink(
            self._nodes, self._address, self, self.reactor, self.prefix, *budgets, self.hub_name, self._tag
        )
