"""`RedisClusterBackplane` joins hubs on any number of machines through a Redis Cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from twisted_beastws.hub.arguments import check_budgets, check_cluster, check_redis
from twisted_beastws.hub.backplane import BackplaneState, Deliver, History, Roster
from twisted_beastws.hub.linked_errors import Refused
from twisted_beastws.hub.linked_pace import Pace, PartsLog
from twisted_beastws.hub.linked_publishing import PublishingLoad
from twisted_beastws.hub.linked_shared import SharedState
from twisted_beastws.hub.redis_cluster_nodes import ClusterNodes
from twisted_beastws.hub.redis_cluster_part import TAGS, ClusterPart, part_of
from twisted_beastws.hub.redis_url import RedisURL

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime


class RedisClusterBackplane:
    """Joins hubs through a Redis Cluster of version 7.0 or later; needs the extra ``redis``.

    Each room belongs to one of 16 parts, by its name. A part has its own keys, which all lie in one slot, and its own
    two connections to the primary that has the slot. So up to 16 primaries share the rooms, and each room has the
    guarantees of a `RedisBackplane`. Messages to everybody go through the first part.

    Args:
        url: ``redis+cluster://[[user]:password@]host[:port],host[:port]`` with some of the nodes, or
            ``rediss+cluster://...`` for TLS.
        history: messages of each room that Redis keeps, for a day from the last; 0 keeps none. 100.
        max_room_history: bytes of a room's history, with 128 for each message; at most a sixteenth of max_history. 4
            MiB.
        max_history: bytes of the histories of all rooms, with 1024 for each room. Each part has a sixteenth of it, and
            beyond that drops the histories of its rooms that were quiet for longest. 64 MiB.
        max_in_flight: bytes of publications without an answer. Beyond it `publish` fails, and no member gets the
            message. 16 MiB.
        prefix: the beginning of all keys and channels, by which several applications share a Cluster. 1 to 64 printable
            ASCII characters except braces. "beastws".
        reactor: None is the installed one.

    Attributes:
        gaps, losses: as of a `RedisBackplane`, of all parts together.
        refused: fires with one line when the backplane gives up at its start: the servers can never serve it.
        presence_changed: called with a room when members joined or left it, or with None for any room.

    Raises:
        ValueError: an argument cannot be used. Its text has no password in it.
    """

    log = Logger()

    def __init__(
        self,
        url: str,
        *,
        history: int = 100,
        max_room_history: int = 1 << 22,
        max_history: int = 1 << 26,
        max_in_flight: int = 1 << 24,
        prefix: str = "beastws",
        reactor: IReactorTime | None = None,
    ) -> None:
        self.url = address = RedisURL.parse(url)
        if not address.cluster:
            raise ValueError("RedisClusterBackplane takes redis+cluster://host: give other URLs to RedisBackplane")
        address.check_files()
        check_redis("RedisClusterBackplane", prefix)
        check_cluster(prefix)
        check_budgets("RedisClusterBackplane", max_room_history, max_history)
        self.refused: Deferred[str] = Deferred()
        self.presence_changed: Callable[[str | None], None] = lambda room: None
        self._given_reactor = reactor
        self._load = PublishingLoad(max_in_flight)
        nodes = ClusterNodes(address)
        troubles = PartsLog(self.log, address, self._load.failures, self._seconds, self._is_connected)
        shared = SharedState(self._load, Pace(), troubles)
        share = max_history // len(TAGS)
        self.parts = [
            ClusterPart(
                address,
                nodes,
                tag,
                shared,
                None if number else self.publish,
                self._gave_up,
                history=history,
                max_room_history=min(max_room_history, share),
                max_history=share,
                prefix=prefix,
                reactor=reactor,
            )
            for number, tag in enumerate(TAGS)
        ]
        for number, part in enumerate(self.parts):
            part.presence_changed = self._presence_of(number)

    def _seconds(self) -> float:
        return self.parts[0].reactor.seconds()

    def part(self, room: str | None) -> ClusterPart:
        """Return the part that has a room, or the messages to everybody."""
        return self.parts[part_of(room)]

    def _presence_of(self, number: int) -> Callable[[str | None], None]:
        def changed(room: str | None) -> None:
            # Every part says now and then that any room may have changed; to look once is enough.
            if room is not None or number == 0:
                self.presence_changed(room)

        return changed

    def _gave_up(self, why: Refused) -> None:
        if not self.refused.called:
            line = f"the backplane {self.url} cannot be used: {why.trouble.logged}"
            self.log.error("{line}", line=line)
            self.refused.callback(line)

    # Calls of the hub.

    @property
    def state(self) -> BackplaneState:
        """CONNECTED if all parts are; otherwise the state of the first that is not."""
        for part in self.parts:
            if part.state is not BackplaneState.CONNECTED:
                return part.state
        return BackplaneState.CONNECTED

    def _is_connected(self) -> bool:
        return self.state is BackplaneState.CONNECTED

    def start(self, deliver: Deliver) -> None:
        for part in self.parts:
            part.start(deliver)

    def stop(self) -> Deferred[None]:
        return gatherResults([part.stop() for part in self.parts]).addCallback(lambda _: None)

    def subscribe(self, room: str) -> Deferred[None]:
        return self.part(room).subscribe(room)

    def unsubscribe(self, room: str) -> None:
        self.part(room).unsubscribe(room)

    def publish(
        self, room: str | None, data: str | bytes, keep: bool, exclude: object, ref: str | None = None
    ) -> Deferred[str | None]:
        return self.part(room).publish(room, data, keep, exclude, ref)

    def history(self, room: str, after: str) -> Deferred[History]:
        return self.part(room).history(room, after)

    def enter(self, room: str, member: str, name: str, data: str = "") -> None:
        self.part(room).enter(room, member, name, data)

    def exit(self, room: str, member: str) -> None:
        self.part(room).exit(room, member)

    def who(self, room: str) -> Deferred[dict[str, str]]:
        """Fire with the users of the room, of at most 10,000 members."""
        return self.part(room).who(room)

    def roster(self, room: str, after: str | None, most: int) -> Deferred[Roster]:
        return self.part(room).roster(room, after, most)

    # Sums over the parts.

    @property
    def settled(self) -> bool:
        """Whether all hubs have had time to return after the last loss, and to list their members."""
        return all(part.settled for part in self.parts)

    @property
    def ready(self) -> bool:
        """Whether all parts were there since the start, and this hub acknowledges messages."""
        return all(part.ready for part in self.parts)

    @property
    def losses(self) -> int:
        """How often the connection of a part was lost."""
        return sum(part.losses for part in self.parts)

    @property
    def gaps(self) -> int:
        """How often the members of a room were informed that messages may be missing."""
        return sum(part.gaps for part in self.parts)

    @property
    def failures(self) -> Counter[str]:
        """Publications that failed, counted by reason: ``away``, ``refused``, ``unknown`` and ``overloaded``."""
        return self._load.failures

    @property
    def in_flight(self) -> int:
        """Bytes of the publications that have no answer yet."""
        return self._load.in_flight
