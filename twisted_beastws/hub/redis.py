"""`RedisBackplane`: hubs on any number of machines, joined through a Redis.

How a hub and Redis work together, as a state machine. Its parts are in modules of their own: `redis_rooms` has the
states of one room, `redis_scripts` the steps inside Redis, `redis_recovery` the way back, `redis_link` the connections.

=========== ============================================== ==========================================================
state       what the hub does                              what comes next
=========== ============================================== ==========================================================
away        *Publish*: delivers to the members here,       *Return*: both connections are open and logged in. The hub
            without an id, and fails. A message with a     asks for the dataset's place, with the latest id that it
            ``ref`` is delivered to nobody. *Join*: waits, knows: linked.
            if Redis was never there; then goes on.
linked      *Subscribe*: to all rooms, some hundred at a   All rooms are swept, and those that are behind caught up,
            time. *Catch up*: asks for some hundred rooms  a few at a time. Publishing needs only the room's own
            at a time whether they are behind; reads the   subscription. *Lose*: away.
            history of those.
linked,     *Publish*: tries, delivers to the members      Each second the hub tries to write. It works: linked; the
refused     here without an id, and fails.                 hub lists its members again. Where another connection may
                                                           help (``READONLY``, ``LOADING``): away.
=========== ============================================== ==========================================================

*Lose*: whatever has an id stays in its place; the history brings it. A publication without an answer ends with
`PublishUnknown`. *Another epoch*, seen in any answer or message: the dataset was lost or an older one restored; all
rooms are swept, and each reports a gap.
"""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_beastws.hub.backplane import (
    CHUNK,
    CHUNK_SIZE,
    BackplaneState,
    Deliver,
    History,
    Message,
    PublishError,
    PublishUnknown,
    Roster,
    key_of,
    order_of,
)
from twisted_beastws.hub.redis_errors import LinkLost, NotReplicated, Refused, Remedy, Trouble, why_lost
from twisted_beastws.hub.redis_interfaces import RedisCommands
from twisted_beastws.hub.redis_messages import decode, encode, people_of
from twisted_beastws.hub.redis_names import Names
from twisted_beastws.hub.redis_recovery import STEP, Recovery
from twisted_beastws.hub.redis_rooms import Arrival, Own, RoomReader
from twisted_beastws.hub.redis_scripts import GRACE, Order, Page, Part, Place, Taken, Verified
from twisted_beastws.hub.redis_url import RedisURL

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

JOIN_PATIENCE = 10.0
"""Seconds that a join waits for the first connection to Redis; twice `redis_link.CONNECT_TIMEOUT`."""

LOG_INTERVAL = 60.0
"""Seconds between two log lines about the same trouble."""

MAX_UNDELIVERED = 256
"""Messages that the hub has not sent to all members; beyond them, the link reads no more until it has."""

_PREFIX = re.compile(r"[!-~]{1,64}")


class RedisBackplane:
    """Joins hubs through a Redis of version 6.2 or later; needs the extra ``redis``.

    A message goes to Redis, which gives it an id, puts it into the room's history and hands it to every hub that has
    members there, the publisher's own too: all see one order. docs/topics/guarantees.md says what holds when Redis
    fails.

    Args:
        url: ``redis://[[user]:password@]host[:port][/database]``, ``rediss://...`` for TLS, or
            ``unix:///path/to/socket[?db=database]``.
        history: messages of each room that are kept, for a day from the last; 0 keeps none. 100.
        max_room_history: bytes that a room's history may take, with 128 for each message. Beyond it the oldest
            messages go. 4 MiB.
        max_history: bytes that the history of all rooms in the database may take, with 1024 for each room. Beyond it
            the rooms go that were quiet for longest. 64 MiB, as `LocalBackplane`'s.
        max_in_flight: bytes that may wait for Redis to take them; beyond it `publish` fails, and nobody has the
            message. 16 MiB.
        prefix: what all keys and channels begin with, so that several applications can share a database. 1 to 64
            printable ASCII characters. "beastws".
        reactor: None is the installed one.

    Attributes:
        state: a `BackplaneState`. ready: whether Redis was there since the start.
        losses: how often the connection was lost.
        gaps: how often the members of a room were told that messages may be missing.
        refused: fires with one line when the backplane gives up at its start, because this server can never serve it.
        failures: publications that failed, counted by reason: ``away``, ``refused``, ``unknown`` and ``overloaded``.

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
        self.url = RedisURL.parse(url)
        self.url.check_files()
        if not _PREFIX.fullmatch(prefix):
            raise ValueError(f"RedisBackplane(prefix={prefix!r}): must be 1 to 64 printable ASCII characters")
        if not 0 < max_room_history <= max_history:
            raise ValueError(
                f"RedisBackplane(max_room_history={max_room_history}): must be from 1 to max_history ({max_history})"
            )
        self.state = BackplaneState.STOPPED
        self.ready = False
        self.losses = 0
        self.gaps = 0
        self.failures: Counter[str] = Counter()
        self.refused: Deferred[str] = Deferred()
        self.in_flight = 0
        self.prefix = prefix
        self.max_room_history = max_room_history
        self.max_history = max_history
        self._history = history
        self._max_in_flight = max_in_flight
        self._given_reactor = reactor
        self.hub_name = secrets.token_hex(8)
        self._published = 0
        self._undelivered = 0
        self._paced: list[Deferred[None]] = []
        self._link: RedisCommands | None = None
        self._links = 0
        self._linked_at = 0.0
        self.presence_changed: Callable[[str | None], None] = lambda room: None
        self._is_linked = False
        self._deliver_to_hub: Deliver = lambda message, exclude: None
        self._place = Place("", "0-0")
        self._known: Order = (0, 0)
        self._logged: dict[str, float] = {}
        self._recovery = Recovery(self)
        self._names = Names(self, self._recovery)
        self._rooms: dict[str | None, RoomReader] = {}
        self._everyone = self._new_reader(None)

    # What the hub calls.

    def start(self, deliver: Deliver) -> None:
        self._deliver_to_hub = deliver
        self.state = BackplaneState.CONNECTING
        self._link = self._make_link()
        self._link.start()

    def stop(self) -> Deferred[None]:
        link, self._link = self._link, None
        self._names.stop()
        self._is_linked = self.ready = False
        self.state = BackplaneState.STOPPED
        for reader in list(self._rooms.values()):
            reader.subscribed()
        return succeed(None) if link is None else link.stop()

    def _make_link(self) -> RedisCommands:
        # txredisapi imports the reactor.
        try:
            from twisted_beastws.hub.redis_link import RedisLink
        except ModuleNotFoundError as error:
            raise ImportError("RedisBackplane needs an extra: pip install 'twisted_beastws[redis]'") from error

        budgets = (self.max_room_history, self.max_history)
        return RedisLink(self.url, self, self.reactor, self.prefix, *budgets, self.hub_name)

    @property
    def reactor(self) -> IReactorTime:
        """The one that was given, or the installed one."""
        if self._given_reactor is None:
            from twisted.internet import reactor

            self._given_reactor = cast("IReactorTime", reactor)
        return self._given_reactor

    def subscribe(self, room: str) -> Deferred[None]:
        reader = self._rooms.get(room)
        if reader is None:
            reader = self._rooms[room] = self._new_reader(room)
            if self._is_linked:
                reader.waiting = ()
                self._recovery.subscribe(reader)
            elif self._known != (0, 0):
                # What others publish until Redis is back comes from the history.
                reader.last, reader.epoch = self._known, self._place.epoch
            else:
                reader.waiting = ()
        reader.member_joined()
        if reader.waiting is None:
            return succeed(None)
        waiter = reader.wait()
        if not self._is_linked:
            self._bound(waiter, reader)
        return waiter

    def _bound(self, waiter: Deferred[None], reader: RoomReader) -> None:
        def give_up() -> None:
            if not waiter.called:
                reader.doubtful = True
                waiter.callback(None)

        timer = self.reactor.callLater(JOIN_PATIENCE, give_up)
        waiter.addCallback(lambda _: timer.cancel() if timer.active() else None)

    def unsubscribe(self, room: str) -> None:
        reader = self._rooms.pop(room)
        reader.subscribed()
        if self._is_linked:
            self._up.unsubscribe([room])

    def publish(
        self, room: str | None, data: str | bytes, keep: bool, exclude: object, ref: str | None = None
    ) -> Deferred[str | None]:
        reader = self._everyone if room is None else self._rooms.get(room)
        if self._is_linked and reader is not None and reader.waiting is not None:
            # Published now, it could come before the subscription.
            subscribed = reader.wait()
            return subscribed.addCallback(lambda _: self.publish(room, data, keep, exclude, ref))
        self._published += 1
        message = Message(room, data, None, self.hub_name, self._published)
        if not self._is_linked:
            return self._publish_away(message, exclude, ref)
        payload = encode(message)
        if self.in_flight + len(payload) > self._max_in_flight:
            self.failures["overloaded"] += 1
            return fail(PublishError("the backplane is too slow: the message was not sent", False))
        kept = self._history if keep and room is not None else 0
        if reader is not None:
            reader.own[self._published] = Own(message, exclude, kept > 0, self._links)
        self.in_flight += len(payload)
        key = "" if ref is None else key_of(room, ref)
        taken = self._up.publish(self.known, room, payload, kept, key)
        return taken.addBoth(self._answered, message, len(payload), kept > 0, ref)

    def _publish_away(self, message: Message, exclude: object, ref: str | None) -> Deferred[str | None]:
        self.failures["away"] += 1
        if ref is not None:
            return fail(PublishError("the backplane is away: nobody has the message", False))
        self._deliver(message, exclude)
        return fail(PublishError("the backplane is away: only the members here have the message", True))

    def history(self, room: str, after: str) -> Deferred[History]:
        if not self._is_linked:
            return fail(PublishError("the backplane is away", False))
        found = self.read(room, after)
        return found.addCallback(self._history_of, room)

    def enter(self, room: str, member: str, name: str, data: str = "") -> None:
        self._names.enter(room, member, name, data)

    def exit(self, room: str, member: str) -> None:
        self._names.exit(room, member)

    def who(self, room: str) -> Deferred[dict[str, str]]:
        """Fire with the users of the room, of at most 10,000 members."""
        return self._names.people(room).addCallback(lambda page: people_of(page.names))

    def roster(self, room: str, after: str | None, most: int) -> Deferred[Roster]:
        return self._names.page(room).addCallback(_roster, after, most)

    @property
    def settled(self) -> bool:
        """Whether all hubs have had the time to return since the last loss, and to list their members."""
        return not self.losses or self.reactor.seconds() - self._linked_at >= GRACE

    @property
    def _up(self) -> RedisCommands:
        return cast(RedisCommands, self._link)

    @property
    def link(self) -> RedisCommands:
        """The link, while it is linked. Raises `LinkLost`."""
        if self._link is None or not self._is_linked:
            raise LinkLost("the backplane is away")
        return self._link

    @property
    def is_linked(self) -> bool:
        """Whether there is a link."""
        return self._is_linked

    @property
    def links(self) -> int:
        """The number of the present link."""
        return self._links

    @property
    def known(self) -> str:
        """The latest id that this hub knows, and the epoch."""
        return "{}-{} {}".format(*self._known, self._place.epoch)

    @property
    def readers(self) -> dict[str | None, RoomReader]:
        """The rooms with members here."""
        return self._rooms

    @property
    def keeps(self) -> bool:
        """Whether there is any history."""
        return self._history > 0

    def read(self, room: str, after: str) -> Deferred[Part]:
        """Read a part of the room's history."""
        return self._up.read(self.known, room, after, CHUNK, CHUNK_SIZE).addCallback(self.learned)

    def learned(self, answer: Any) -> Any:
        """Note the place that an answer tells of. All rooms are swept if it is in another epoch."""
        self._learn(answer if isinstance(answer, Place) else answer.place)
        return answer

    def _learn(self, place: Place) -> None:
        previous, self._place = self._place, place
        self._known = max(self._known, order_of(place.position))
        if previous.epoch not in ("", place.epoch):
            self.log.warn(
                "the backplane {url} has another dataset than before: messages may be missing, in all rooms",
                url=self.url,
            )
            self._recovery.sweep_again()

    def _new_reader(self, room: str | None) -> RoomReader:
        return RoomReader(room, self.hub_name, self._deliver, self._recovery.catch_up)

    def _deliver(self, message: Message, exclude: object) -> None:
        if message.gap:
            self.gaps += 1
        given = self._deliver_to_hub(message, exclude)
        if given is None:
            return
        self._undelivered += 1
        if self._undelivered == MAX_UNDELIVERED and self._link is not None:
            self._link.pause()
        given.addBoth(self._delivered)

    def _delivered(self, _: object) -> None:
        self._undelivered -= 1
        if self._undelivered == MAX_UNDELIVERED - 1:
            if self._link is not None:
                self._link.resume()
            paced, self._paced = self._paced, []
            for waiter in paced:
                waiter.callback(None)

    def paced(self) -> Deferred[None]:
        """Fires when the members have been sent most of what was delivered."""
        return succeed(None) if self._undelivered < MAX_UNDELIVERED else self._wait_for_pace()

    def _wait_for_pace(self) -> Deferred[None]:
        self._paced.append(Deferred())
        return self._paced[-1]

    # What the link calls.

    def linked(self) -> Deferred[None]:
        """Find out where the dataset is, and take messages again."""
        return Deferred.fromCoroutine(self._linked())

    async def _linked(self) -> None:
        link = self._up
        place, sure = await link.position(self.known)
        await link.subscribe([None])
        await self._check_writes(link)
        self._links += 1
        self._linked_at = self.reactor.seconds()
        self._is_linked = self.ready = True
        for reader in self._rooms.values():
            if reader.waiting is None:
                reader.waiting = ()
            if not sure:
                reader.doubt()
        listed = self._recovery.list_members(again=True)
        if len(self._rooms) <= STEP:
            # Then it is quick, and `who` is right from the beginning.
            await listed
            if not self._is_linked:
                raise LinkLost("the connection was lost")
        self.state = BackplaneState.CONNECTED
        self._logged.clear()
        self.log.info("the backplane {url} is connected", url=self.url)
        self._learn(place)
        self._recovery.begin(list(self._rooms.values()))

    @staticmethod
    async def _check_writes(link: RedisCommands) -> None:
        """Write something: a replica answers every question, and would count as connected until the first message."""
        try:
            await link.renew()
        except Refused as refused:
            if refused.trouble.remedy is not Remedy.WAIT:
                raise

    def lost(self, why: BaseException) -> None:
        """Nothing comes or goes; what has no id is delivered here."""
        was_linked, self._is_linked = self._is_linked, False
        self._recovery.stop()
        if self.state is BackplaneState.STOPPED:
            return
        self.state = why.trouble.state if isinstance(why, Refused) else BackplaneState.CONNECTING
        if self.ready or not isinstance(why, Refused) or why.trouble.remedy is not Remedy.GIVE_UP:
            self._log_trouble("the backplane {url} is away, which is tried again: {why}", why_lost(why))
        if was_linked:
            self.losses += 1
            for reader in [self._everyone, *self._rooms.values()]:
                reader.lost()
                if reader.last is None and reader.room is not None:
                    reader.last, reader.epoch = self._known, self._place.epoch
                if reader.waiting is not None:
                    reader.subscribed()

    def gave_up(self, why: Refused) -> None:
        """End the first connection attempts: a program that waits for ``refused`` can stop with its line."""
        line = f"the backplane {self.url} cannot be used: {why.trouble.logged}"
        self.state = BackplaneState.REFUSING
        self.log.error("{line}", line=line)
        self.refused.callback(line)

    def received(self, room: str | None, message_id: str, previous: str, epoch: str, payload: bytes) -> None:
        """Something was published in a room that is subscribed to."""
        reader = self._everyone if room is None else self._rooms.get(room)
        if reader is None:
            return
        if not payload:
            self._noticed(room, message_id)
            return
        message = self.decode(room, message_id or None, payload)
        if message is None:
            return
        try:
            before = order_of(previous)
        except ValueError:
            return
        reader.arrived(Arrival(message, before, epoch))
        if message.id is not None:
            self._known = max(self._known, order_of(message.id))

    def _noticed(self, room: str | None, message_id: str) -> None:
        """Read a notice of another hub, which is no message."""
        if room is not None:
            self.presence_changed(room)
        elif message_id:
            # Another hub was registered: from now on this hub knows whether a dataset is from before that.
            self._known = max(self._known, order_of(message_id))

    def occupied(self) -> list[str]:
        """The rooms that have named members here."""
        return [room for room, reader in self._rooms.items() if room is not None and reader.names]

    def beat(self, trouble: Trouble | None, verified: Verified | None, lease_expired: bool) -> None:
        """Redis takes writes, or refuses them."""
        if not self._is_linked:
            return
        if trouble is not None:
            self._refuses(trouble)
            return
        if verified is not None:
            self.learned(verified)
        if self.state is not BackplaneState.CONNECTED:
            self.state = BackplaneState.CONNECTED
            self._logged.clear()
            self.log.info("the backplane {url} takes messages again", url=self.url)
        listed = self._recovery.list_members(again=lease_expired)
        listed.addCallback(lambda _: self.presence_changed(None))

    # Publications.

    def _answered(
        self, answer: Taken | Failure, message: Message, size: int, kept: bool, ref: str | None
    ) -> str | None:
        self.in_flight -= size
        reader = self._everyone if message.room is None else self._rooms.get(message.room)
        own = None if reader is None else reader.own.get(message.number)
        if isinstance(answer, Failure):
            if reader is not None and own is not None:
                if answer.check(Refused) and ref is None:
                    own.failed = True
                elif answer.check(NotReplicated):
                    own.taken = True
                elif answer.check(Refused) or not kept:
                    del reader.own[message.number]
                reader.deliver_failed()
            why = cast(BaseException, answer.value)
            raise self._publish_error(why, ref is None) from why
        self._learn(answer.place)
        if own is not None and reader is not None:
            own.taken = True
            if answer.again:
                # The one that was taken before has come, or comes, in its own place.
                del reader.own[message.number]
                reader.deliver_failed()
        return answer.id or None

    def _publish_error(self, why: BaseException, here: bool) -> PublishError:
        if isinstance(why, Refused):
            self.failures["refused"] += 1
            self._refuses(why.trouble, why)
            told = "only the members here have" if here else "nobody has"
            return PublishError(f"{why.trouble.told}: {told} the message", here)
        self.failures["unknown"] += 1
        if isinstance(why, NotReplicated):
            return PublishUnknown(f"{why}: whether it outlives a failover is not known", False)
        reason = "the connection to the backplane was lost: whether it took the message is not known"
        return PublishUnknown(reason, False)

    def _refuses(self, trouble: Trouble, why: Refused | None = None) -> None:
        if not self._is_linked:
            return
        self.state = trouble.state
        self._log_trouble("the backplane {url} takes no messages: {why}", trouble.logged)
        if trouble.remedy is not Remedy.WAIT:
            self._up.restart(why or Refused(trouble.logged, trouble))

    def _log_trouble(self, line: str, why: str) -> None:
        now = self.reactor.seconds()
        if now - self._logged.get(why, now - LOG_INTERVAL) < LOG_INTERVAL:
            return
        self._logged[why] = now
        failed = self.failures.total() if hasattr(self.failures, "total") else sum(self.failures.values())
        self.log.warn(f"{line} (publications that failed so far: {{failed}})", url=self.url, why=why, failed=failed)

    # Messages.

    def _history_of(self, part: Part, room: str) -> History:
        decoded = [self.decode(room, message_id, payload) for message_id, payload in part.entries]
        messages = [message for message in decoded if message is not None]
        # Where all of it is somebody else's, there is no id to go on from.
        return History(messages, part.exact, part.more and bool(messages), part.place.position)

    def decode(self, room: str | None, message_id: str | None, payload: bytes) -> Message | None:
        """Read a message; None, with a line in the log, for what is none of ours."""
        try:
            if message_id is not None:
                order_of(message_id)
            return decode(room, message_id, payload)
        except ValueError:
            self.log.warn(
                "another program publishes where the backplane does: {room!r}, {id!r}", room=room, id=message_id
            )
            return None


def _roster(page: Page, after: str | None, most: int) -> Roster:
    names = sorted(people_of(page.names))
    return Roster([name for name in names if after is None or name > after][:most], page.total)
