"""Connections to a Redis, through txredisapi, which imports the reactor: import this late."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import islice
from secrets import randbelow, token_hex
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from twisted_beastws.hub import linked_interfaces as links
from twisted_beastws.hub import linked_reconnecting as timing
from twisted_beastws.hub import redis_answers as answers
from twisted_beastws.hub import redis_scripts as scripts
from twisted_beastws.hub.linked_answers import Page, Part, Standing, Swept, Taken, Verified
from twisted_beastws.hub.linked_errors import LinkLost
from twisted_beastws.hub.linked_interfaces import LinkUser
from twisted_beastws.hub.linked_reconnecting import Reconnecting, ignored
from twisted_beastws.hub.redis_connecting import ask_once, connected
from twisted_beastws.hub.redis_endpoint import primary_of
from twisted_beastws.hub.redis_protocol import RedisConnection, Subscriber
from twisted_beastws.hub.redis_replicas import ReplicaWait
from twisted_beastws.hub.redis_url import RedisURL

INBOX_STEP = 32
"""Entries of the inbox in one answer."""

STEP = 200
"""Rooms in one command that keeps names alive."""


class RedisLink(Reconnecting):
    """Two connections: one for commands, and one for messages.

    Args:
        url: the address.
        user: the backplane.
        reactor: for connections and time.
        prefix: the beginning of all keys and channels.
        max_room_history, max_history: bytes.
        hub_name: the hub's name in the dataset.
        part: the hash tag of all keys and channels, in a Redis Cluster.
    """

    PUBLISH = "PUBLISH"

    def __init__(
        self,
        url: RedisURL,
        user: LinkUser,
        reactor: IReactorTime,
        prefix: str = "beastws",
        max_room_history: int = 1 << 22,
        max_history: int = 1 << 26,
        hub_name: str = "",
        part: str | None = None,
    ) -> None:
        super().__init__(user, reactor)
        self._url = url
        self._hub_name = hub_name
        self._budgets = (max_room_history, max_history)
        # Channels, unlike keys, are of no database.
        self._prefix = f"{prefix}:{url.database if part is None else f'{{{part}}}'}:"
        self._commands: RedisConnection | None = None
        self._subscriber: Subscriber | None = None
        self._lease = self._new_lease()
        self._earlier_leases: list[str] = []
        self._replicas = ReplicaWait(self._execute, url.min_replicas)
        self._paused = False

    def pause(self) -> None:
        """Stop reading messages."""
        self._paused = True
        if self._subscriber is not None and self._subscriber.transport is not None:
            self._subscriber.pauseProducing()

    def resume(self) -> None:
        """Read messages again."""
        self._paused = False
        if self._subscriber is not None and self._subscriber.transport is not None:
            self._subscriber.resumeProducing()

    # Commands.

    def position(self, known: str, standing: Standing) -> Deferred[Verified]:
        """Ask for the dataset's place, and whether it is the dataset that the hub knows."""
        keys = ["clock", "ids", "hubs", "witnesses"]
        hub = (self._hub_name, self._channel(None), randbelow(scripts.SALT), links.GRACE)
        stands = (standing.vouched, standing.waited, int(standing.waiting))
        answer = self._evaluate(scripts.POSITION, keys, known, token_hex(4), *hub, *stands)
        return answer.addCallback(answers.verified_of)

    def subscribe(self, rooms: Sequence[str | None]) -> Deferred[None]:
        """Receive the messages of ``rooms``."""
        if self._subscriber is None:
            raise LinkLost("the connection to Redis is not there")
        return self._subscriber.subscribe([self._channel(room) for room in rooms])

    def unsubscribe(self, rooms: Sequence[str]) -> None:
        """End the subscriptions to ``rooms``."""
        if self._subscriber is not None:
            self._subscriber.unsubscribe([self._channel(room) for room in rooms])

    def publish(
        self, known: str, room: str | None, payload: bytes, keep: int, ref: str, waiting: bool
    ) -> Deferred[Taken]:
        """Publish a message, and put it into the room's history, which keeps the last ``keep`` messages."""
        name = room or ""
        keys = ["clock", "ids", "hubs", f"history:{name}", "records", "ages", "refs:0", "refs:1"]
        limits = (self._channel(room), keep, name, *self._budgets, randbelow(scripts.SALT), ref, self._key("history:"))
        hub = (self._hub_name, self._channel(None), int(waiting))
        answer = self._evaluate(scripts.PUBLISH, keys, known, token_hex(4), payload, *limits, *hub)
        return self._replicas.confirm(answer.addCallback(answers.taken_of))

    def read(self, known: str, room: str, after: str, count: int, size: int) -> Deferred[Part]:
        """Read at most ``count`` entries after ``after``, of not much more than ``size`` bytes."""
        keys = ["clock", "ids", f"history:{room}", "records"]
        answer = self._evaluate(scripts.READ, keys, known, token_hex(4), after, count, size, room)
        return answer.addCallback(answers.part_of)

    def sweep(self, known: str, rooms: Sequence[tuple[str, str]]) -> Deferred[Swept]:
        """Ask for which of ``rooms`` Redis may have more messages than the readers, which are at the given ids."""
        flat = [part for room in rooms for part in room]
        answer = self._evaluate(scripts.SWEEP, ["clock", "ids", "records"], known, token_hex(4), *flat)
        return answer.addCallback(answers.swept_of)

    def enter(self, room: str, names: dict[str, str]) -> Deferred[object]:
        """List members."""
        key = self._key(f"here:{room}")
        fields = [part for member, name in names.items() for part in (self._field(member), name)]
        entered = self._execute("HSET", key, *fields)
        self._execute("EXPIRE", key, 2 * timing.LEASE).addErrback(ignored)
        return entered

    def exit(self, room: str, member: str) -> Deferred[object]:
        """List a member no longer."""
        return self._execute("HDEL", self._key(f"here:{room}"), self._field(member))

    def announce(self, room: str) -> Deferred[object]:
        """Inform the other hubs that members of a room joined or left."""
        return self._execute(self.PUBLISH, self._channel(room), " 0-0 \n")

    def renew(self) -> Deferred[object]:
        """Take a new lease. Members that are not listed again go with `forget`."""
        self._earlier_leases.append(self._lease)
        self._lease = self._new_lease()
        return self._execute("SET", self._lease, "", "EX", timing.LEASE)

    def forget(self) -> None:
        """End the earlier leases: all members are listed under the present one."""
        leases, self._earlier_leases = self._earlier_leases, []
        if leases:
            self._execute("DEL", *leases).addErrback(ignored)

    def inbox(self) -> Deferred[list[tuple[str, dict[str, bytes]]]]:
        """Read the first entries of the inbox: ids and fields."""
        found = self._execute("XRANGE", self._key("inbox"), "-", "+", "COUNT", INBOX_STEP)
        return found.addCallback(answers.inbox_of)

    def remove(self, entry: str) -> Deferred[object]:
        """Remove an entry of the inbox."""
        return self._execute("XDEL", self._key("inbox"), entry)

    def roster(self, room: str, cursor: int, count: int) -> Deferred[Page]:
        """About ``count`` names of the members of all hubs that have given a sign of life, from ``cursor`` on."""
        answer = self._evaluate(scripts.ROSTER, [f"here:{room}"], self._key("hub:"), cursor, count)
        return answer.addCallback(answers.page_of)

    def _evaluate(self, script: str, keys: Sequence[str], *arguments: str | bytes | int) -> Deferred[Any]:
        # By its digest a script can fail because Redis has forgotten it, and later commands would overtake it.
        return self._execute("EVAL", sent_text(script), len(keys), *map(self._key, keys), *arguments)

    def _execute(self, *arguments: str | bytes | int) -> Deferred[Any]:
        if self._commands is None:
            raise LinkLost("the connection to Redis is not there")
        return self._commands.execute(*arguments)

    def _key(self, name: str) -> str:
        return self._prefix + name

    def _field(self, member: str) -> str:
        return f"{self._lease.rpartition(':')[2]}:{member}"

    def _channel(self, room: str | None) -> str:
        return self._key("all:" if room is None else f"room:{room}")

    def _published(self, channel: bytes, payload: bytes) -> None:
        place, _, payload = payload.partition(b"\n")
        message_id, _, rest = place.decode("ascii", "replace").partition(" ")
        previous, _, epoch = rest.partition(" ")
        name = channel.decode("utf-8", "replace")[len(self._prefix) :]
        room = name.removeprefix("room:") if name.startswith("room:") else None
        self._user.received(room, message_id, previous or "0-0", epoch, payload)

    # Connecting.

    async def _open(self) -> None:
        # Both connections go to the same server, whatever the Sentinels say meanwhile.
        url = await self._find()
        self._commands = await connected(RedisConnection(url, self._reactor, timing.REPLY_TIMEOUT), self._reactor)
        self._connections.append(self._commands)
        self._subscriber = await connected(self._new_subscriber(url), self._reactor)
        self._connections.append(self._subscriber)
        if self._paused:
            self.pause()

    async def _find(self) -> RedisURL:
        """Return the address of the server that takes writes."""
        return await primary_of(self._url, self._ask_sentinel)

    async def _ask_sentinel(self, url: RedisURL, service: str) -> Any:
        return await ask_once(url, self._reactor, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)

    def _new_subscriber(self, url: RedisURL) -> Subscriber:
        return Subscriber(url, self._reactor, timing.REPLY_TIMEOUT, self._published)

    async def _disconnect(self, why: BaseException) -> None:
        self._commands = self._subscriber = None
        await super()._disconnect(why)

    def _take_leave(self) -> Deferred[Any]:
        self._execute("DEL", self._lease, *self._earlier_leases).addErrback(ignored)
        return self._execute("HDEL", self._key("hubs"), self._hub_name)

    def _new_lease(self) -> str:
        return self._key(f"hub:{token_hex(8)}")

    async def _give_sign(self) -> None:
        if self._subscriber is not None:
            self._subscriber.ping()
        previous = await self._execute("SET", self._lease, "", "EX", timing.LEASE, "GET")
        verified = await self._user.verify()
        self._user.beat(None, verified, previous is None)
        occupied = iter(self._user.occupied())
        while step := list(islice(occupied, STEP)):
            await self._evaluate(scripts.KEEP, [f"here:{room}" for room in step], 2 * timing.LEASE).addErrback(ignored)


@cache
def sent_text(script: str) -> str:
    """Return a script without indentation and comments, because each call sends its whole text."""
    lines = [line.strip() for line in script.splitlines()]
    return "\n".join(line for line in lines if line and not line.startswith("--"))
