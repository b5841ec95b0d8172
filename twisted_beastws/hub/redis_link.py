"""Connections to a Redis, and reconnecting, through txredisapi, which imports the reactor: import this late."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import islice
from secrets import randbelow, token_hex
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall, deferLater
from twisted.python.failure import Failure

from twisted_beastws.hub import linked_interfaces as links
from twisted_beastws.hub import redis_answers as answers
from twisted_beastws.hub import redis_scripts as scripts
from twisted_beastws.hub.linked_answers import Page, Part, Standing, Swept, Taken, Verified
from twisted_beastws.hub.linked_errors import LinkLost, Refused, Remedy
from twisted_beastws.hub.linked_interfaces import LinkUser
from twisted_beastws.hub.redis_endpoint import primary_of, redis_endpoint
from twisted_beastws.hub.redis_protocol import RedisConnection, Subscriber
from twisted_beastws.hub.redis_replicas import ReplicaWait
from twisted_beastws.hub.redis_url import RedisURL

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

AConnection = TypeVar("AConnection", bound="RedisConnection")

CONNECT_TIMEOUT = 5.0
"""Seconds for TCP and TLS to connect."""

REPLY_TIMEOUT = 5.0
"""Seconds without a byte from Redis while a reply is due, after which the connection is dropped."""

STOP_TIMEOUT = 1.0
"""Seconds for the last reply when the link stops."""

BEAT = 10.0
"""Seconds between two signs of life, which keep our members' names, too."""

PROBE = 1.0
"""Seconds between two of them while Redis refuses writes."""

LEASE = 30
"""Seconds after the last of them, after which our members are no longer listed."""

INBOX_STEP = 32
"""Entries of the inbox in one answer."""

STEP = 200
"""Rooms in one command that keeps names alive."""


class RedisLink:
    """Connects, and reconnects after a loss: at first after a quarter of a second, later every ten.

    Args:
        url: the address.
        user: the backplane.
        reactor: for connections and time.
        prefix: the beginning of all keys and channels.
        max_room_history, max_history: bytes.
        hub_name: the hub's name in the dataset.
    """

    def __init__(
        self,
        url: RedisURL,
        user: LinkUser,
        reactor: IReactorTime,
        prefix: str = "beastws",
        max_room_history: int = 1 << 22,
        max_history: int = 1 << 26,
        hub_name: str = "",
    ) -> None:
        self._url = url
        self._hub_name = hub_name
        self._user = user
        self._reactor = reactor
        self._budgets = (max_room_history, max_history)
        # Channels, unlike keys, are of no database.
        self._prefix = f"{prefix}:{url.database}:"
        self._commands: RedisConnection | None = None
        self._subscriber: Subscriber | None = None
        self._lease = self._new_lease()
        self._earlier_leases: list[str] = []
        self._replicas = ReplicaWait(self._execute, url.min_replicas)
        self._stopping = self._disconnecting = False
        self._paused = self._was_linked = False
        self._beating = LoopingCall(self._beat)
        self._beating.clock = reactor
        self._probing: IDelayedCall | None = None

    def start(self) -> None:
        """Connect, until `stop`."""
        self._serving = Deferred.fromCoroutine(self._serve())

    def stop(self) -> Deferred[None]:
        """End the connections and the listing of members; fires when they have ended."""
        serving = self._serving
        self._stopping = True
        serving.addErrback(lambda failure: failure.trap(CancelledError) and None)
        if self._disconnecting:
            # It ends by itself.
            return serving
        if self._commands is None:
            serving.cancel()
        else:
            # Replies to all earlier commands come first, so this hub has nothing left to confirm.
            self._commands.execute("DEL", self._lease, *self._earlier_leases).addErrback(_ignored)
            goodbye = self._commands.execute("HDEL", self._key("hubs"), self._hub_name)
            last = goodbye.addTimeout(STOP_TIMEOUT, self._reactor)
            last.addBoth(lambda _: serving.cancel())
        return serving

    def restart(self, why: Exception) -> None:
        """Drop the connections, and open others."""
        if self._commands is not None:
            self._commands.drop(why)

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
        self._execute("EXPIRE", key, 2 * LEASE).addErrback(_ignored)
        return entered

    def exit(self, room: str, member: str) -> Deferred[object]:
        """List a member no longer."""
        return self._execute("HDEL", self._key(f"here:{room}"), self._field(member))

    def announce(self, room: str) -> Deferred[object]:
        """Inform the other hubs that members of a room joined or left."""
        return self._execute("PUBLISH", self._channel(room), " 0-0 \n")

    def renew(self) -> Deferred[object]:
        """Take a new lease. Members that are not listed again go with `forget`."""
        self._earlier_leases.append(self._lease)
        self._lease = self._new_lease()
        return self._execute("SET", self._lease, "", "EX", LEASE)

    def forget(self) -> None:
        """End the earlier leases: all members are listed under the present one."""
        leases, self._earlier_leases = self._earlier_leases, []
        if leases:
            self._execute("DEL", *leases).addErrback(_ignored)

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
        return self._execute("EVAL", script, len(keys), *map(self._key, keys), *arguments)

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

    async def _serve(self) -> None:
        failures = 0
        while not self._stopping:
            why: BaseException = LinkLost("the connection was lost")
            try:
                await self._connect()
                since = self._reactor.seconds()
                why = await self._one_is_gone()
                # Redis may let us connect and then refuse each command: the waits grow all the same.
                if not isinstance(why, Refused) or self._reactor.seconds() - since >= BEAT:
                    failures = 0
            except CancelledError:
                return
            except Exception as error:
                why = self._reason(error)
            finally:
                await self._disconnect(why)
            if self._stopping:
                return
            if isinstance(why, Refused) and why.trouble.remedy is Remedy.GIVE_UP and not self._was_linked:
                self._user.gave_up(why)
                return
            failures += 1
            await deferLater(self._reactor, backoff(failures))

    def _reason(self, error: Exception) -> BaseException:
        """Return the reason of the connections' end, if ``error`` has none."""
        reasons = [each.ended for each in (self._commands, self._subscriber) if each is not None]
        return next(filter(None, reasons), error) if isinstance(error, LinkLost) else error

    async def _connect(self) -> None:
        # Both connections go to the same server, whatever the Sentinels say meanwhile.
        url = await primary_of(self._url, self._ask_sentinel)
        self._commands = await self._connected(RedisConnection(url, self._reactor, REPLY_TIMEOUT))
        subscriber = Subscriber(url, self._reactor, REPLY_TIMEOUT, self._published)
        self._subscriber = await self._connected(subscriber)
        if self._paused:
            self.pause()
        await self._user.linked()
        self._was_linked = True
        self._beating.start(BEAT, now=True).addErrback(_ignored)

    async def _ask_sentinel(self, url: RedisURL, service: str) -> Any:
        sentinel = await self._connected(RedisConnection(url, self._reactor, REPLY_TIMEOUT))
        try:
            return await sentinel.execute("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)
        finally:
            sentinel.drop()

    async def _connected(self, connection: AConnection) -> AConnection:
        endpoint = redis_endpoint(connection.url, self._reactor, CONNECT_TIMEOUT)
        connecting = endpoint.connect(Single(connection))
        # The endpoint's own timeout does not bound a TLS handshake.
        await connecting.addTimeout(CONNECT_TIMEOUT, self._reactor)
        try:
            await connection.ready
        except BaseException:
            connection.drop()
            raise
        return connection

    async def _disconnect(self, why: BaseException) -> None:
        if self._beating.running:
            self._beating.stop()
        if self._probing is not None and self._probing.active():
            self._probing.cancel()
        connections = [each for each in (self._commands, self._subscriber) if each is not None]
        self._commands = self._subscriber = None
        self._user.lost(why)
        for each in connections:
            each.drop()
        self._disconnecting = True
        for each in connections:
            await _when(each.gone)
        self._disconnecting = False

    def _one_is_gone(self) -> Deferred[BaseException]:
        return _when(*[each.gone for each in (self._commands, self._subscriber) if each is not None])

    def _new_lease(self) -> str:
        return self._key(f"hub:{token_hex(8)}")

    def _beat(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._give_sign()).addErrback(_ignored)

    async def _give_sign(self) -> None:
        if self._subscriber is not None:
            self._subscriber.ping()
        try:
            previous = await self._execute("SET", self._lease, "", "EX", LEASE, "GET")
            verified = await self._user.verify()
        except Refused as refused:
            self._user.beat(refused.trouble, None, False)
            # Beats and probes are both refused: one probe follows, or they would become ever more.
            if self._commands is not None and (self._probing is None or not self._probing.active()):
                self._probing = self._reactor.callLater(min(PROBE, BEAT), self._beat)
            return
        self._user.beat(None, verified, previous is None)
        occupied = iter(self._user.occupied())
        while step := list(islice(occupied, STEP)):
            await self._evaluate(scripts.KEEP, [f"here:{room}" for room in step], 2 * LEASE).addErrback(_ignored)


class Single(Factory):
    """A factory that returns one protocol, made before."""

    noisy = False

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    def buildProtocol(self, addr: object) -> RedisConnection:
        return self._connection


def backoff(failures: int) -> float:
    """Seconds to wait after so many failures in a row."""
    return min(10.0, 0.25 * 1.7 ** min(failures - 1, 10)) * random.uniform(0.8, 1.2)


def _when(*several: Deferred[BaseException]) -> Deferred[BaseException]:
    """Fires with the result of the first that fires. Cancelling it cancels none of them."""
    first: Deferred[BaseException] = Deferred()

    def fire(result: BaseException) -> BaseException:
        if not first.called:
            first.callback(result)
        return result

    for each in several:
        each.addCallback(fire)
    return first


def _ignored(failure: Failure) -> None:
    """Ignore a failure: the link reports a loss itself, and the hub lists a missing name again."""
