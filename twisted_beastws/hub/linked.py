"""`LinkedBackplane` joins hubs on any number of machines through a server: the part that is the same for each server.

A hub and the server work together as a state machine: `linked_rooms` has the states of one room, `linked_recovery` the
steps after a return. A link (`linked_interfaces.LinkCommands`) has the connections and the steps inside the server:
`redis_link` and `redis_scripts` for Redis, for example.

=========== ============================================== ==========================================================
state       actions of the hub                             next state
=========== ============================================== ==========================================================
away        *Publish*: delivers to the members here,       *Return*: both connections are open and logged in. The hub
            without an id, and fails; delivers no message  asks for the dataset's place, with the latest id that it
            with a ``ref``. *Join*: waits for the first    knows: linked.
            connection, for a bounded time.
linked      *Subscribe*: to all rooms, some hundred at a   The hub sweeps all rooms, and lets those with missing
            time. *Catch up*: asks for some hundred rooms  messages catch up, a few at a time. Publishing needs only
            at a time whether they miss messages; reads    the room's own subscription. *Lose*: away.
            the history of those that do.
linked,     *Publish*: tries, delivers to the members      The hub tries to write each second. Success: linked; the
refused     here without an id, and fails.                 hub lists its members again. Where another connection may
                                                           help (``READONLY``, ``LOADING``): away.
=========== ============================================== ==========================================================

*Lose*: a message with an id keeps its place; the history brings it. A publication without an answer fails with
`PublishUnknown`. *Another epoch*, seen in any answer or message: the server lost the dataset or restored an older one.
The hub sweeps all rooms, and each reports a gap.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger

from twisted_beastws.hub.backplane import (
    CHUNK,
    CHUNK_SIZE,
    BackplaneState,
    Deliver,
    History,
    Message,
    PublishError,
    Roster,
    is_id,
    order_of,
)
from twisted_beastws.hub.linked_answers import Part, Place, Verified
from twisted_beastws.hub.linked_errors import LinkLost, Refused, Remedy, Trouble, why_lost
from twisted_beastws.hub.linked_inbox import InboxReader
from twisted_beastws.hub.linked_interfaces import GRACE, LinkCommands
from twisted_beastws.hub.linked_messages import MessageReader, roster_of, users_of
from twisted_beastws.hub.linked_names import Names
from twisted_beastws.hub.linked_pace import Pace, TroubleLog
from twisted_beastws.hub.linked_place import KnownPlace
from twisted_beastws.hub.linked_publishing import Publications, PublishingLoad
from twisted_beastws.hub.linked_recovery import STEP, Recovery
from twisted_beastws.hub.linked_registration import Registration
from twisted_beastws.hub.linked_rooms import Arrival, RoomReader
from twisted_beastws.hub.linked_shared import SharedState
from twisted_beastws.hub.linked_subscriptions import Subscriptions

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime


class LinkedBackplane:
    """Joins hubs through a server. A subclass makes the link.

    Args:
        url: the server's address, for the log. Its text has no password.
        history: messages of each room that the server keeps.
        max_room_history: bytes of a room's history.
        max_history: bytes of the histories of all rooms.
        max_in_flight: bytes of publications without an answer. Beyond it `publish` fails.
        prefix: the name under which the server keeps the data.
        reactor: None is the installed one.
        shared: limits and a log that several backplanes have in common; None is its own.

    Attributes:
        state: a `BackplaneState`.
        losses: how often the connection was lost.
        gaps: how often the members of a room were informed that messages may be missing.
        refused: fires with one line when the backplane gives up at its start: the server can never serve it.
        presence_changed: called with a room when members joined or left it, or with None for any room.
    """

    log = Logger()

    def __init__(
        self,
        url: object,
        *,
        history: int,
        max_room_history: int,
        max_history: int,
        max_in_flight: int,
        prefix: str,
        reactor: IReactorTime | None,
        shared: SharedState | None = None,
    ) -> None:
        self.url = url
        self.state = BackplaneState.STOPPED
        self.losses = 0
        self.gaps = 0
        self.refused: Deferred[str] = Deferred()
        self.prefix = prefix
        self.max_room_history = max_room_history
        self.max_history = max_history
        self.history_length = history
        self._place = KnownPlace()
        self._load, self._pace, self._troubles = shared or self._alone(max_in_flight)
        self._registration = Registration(self, self._place, self._troubles.event)
        self._publications = Publications(self, self._registration, self._load)
        self._given_reactor = reactor
        self.hub_name = secrets.token_hex(8)
        self._link: LinkCommands | None = None
        self._links = 0
        self._linked_at = 0.0
        self.presence_changed: Callable[[str | None], None] = lambda room: None
        self._is_linked = self._was_linked = False
        self._deliver_to_hub: Deliver = lambda message, exclude: None
        self._messages = MessageReader(self.log)
        self._recovery = Recovery(self)
        self._names = Names(self, self._recovery)
        self._inbox: InboxReader | None = InboxReader(self, self.publish)
        # All readers share the two bound methods: there can be very many rooms.
        new_reader = partial(RoomReader, hub_name=self.hub_name, deliver=self.deliver, behind=self._recovery.catch_up)
        self._subscriptions = Subscriptions(self, self._recovery, self._place, new_reader)

    def _alone(self, max_in_flight: int) -> SharedState:
        load = PublishingLoad(max_in_flight)
        return SharedState(load, Pace(), TroubleLog(self.log, self.url, load.failures, lambda: self.reactor.seconds()))

    # Calls of the hub.

    def start(self, deliver: Deliver) -> None:
        self._deliver_to_hub = deliver
        self.state = BackplaneState.CONNECTING
        self._link = self._make_link()
        self._pace.links.append(self._link)
        self._link.start()

    def stop(self) -> Deferred[None]:
        link, self._link = self._link, None
        if link is not None:
            self._pace.links.remove(link)
        self._names.stop()
        self._is_linked = self._was_linked = False
        self.state = BackplaneState.STOPPED
        self._subscriptions.stop()
        self._registration.stop()
        return succeed(None) if link is None else link.stop()

    def _make_link(self) -> LinkCommands:
        raise NotImplementedError(f"{type(self).__name__} makes no link")

    @property
    def reactor(self) -> IReactorTime:
        """The given reactor, or the installed one."""
        if self._given_reactor is None:
            from twisted.internet import reactor

            self._given_reactor = cast("IReactorTime", reactor)
        return self._given_reactor

    def subscribe(self, room: str) -> Deferred[None]:
        return self._subscriptions.subscribe(room)

    def unsubscribe(self, room: str) -> None:
        self._subscriptions.unsubscribe(room)

    def publish(
        self, room: str | None, data: str | bytes, keep: bool, exclude: object, ref: str | None = None
    ) -> Deferred[str | None]:
        reader = self.reader_of(room)
        if self._is_linked and reader is not None and reader.waiting is not None:
            # The message could otherwise arrive before the subscription, and be missed.
            subscribed = reader.wait()
            return subscribed.addCallback(lambda _: self.publish(room, data, keep, exclude, ref))
        return self._publications.publish(reader, room, data, keep, exclude, ref)

    def history(self, room: str, after: str) -> Deferred[History]:
        if not self._is_linked:
            return fail(PublishError("the backplane is away", False))
        return self.read(room, after).addCallback(self._messages.history, room, self.history_length > 0)

    def enter(self, room: str, member: str, name: str, data: str = "") -> None:
        self._names.enter(room, member, name, data)

    def exit(self, room: str, member: str) -> None:
        self._names.exit(room, member)

    def who(self, room: str) -> Deferred[dict[str, str]]:
        """Fire with the users of the room, of at most 10,000 members."""
        return self._names.people(room).addCallback(users_of)

    def roster(self, room: str, after: str | None, most: int) -> Deferred[Roster]:
        return self._names.page(room).addCallback(roster_of, after, most)

    @property
    def settled(self) -> bool:
        """Whether all hubs have had time to return after the last loss, and to list their members."""
        return not self.losses or self.reactor.seconds() - self._linked_at >= GRACE

    @property
    def ready(self) -> bool:
        """Whether the server was there since the start, and this hub acknowledges messages."""
        return self._was_linked and self._registration.established

    @property
    def failures(self) -> Counter[str]:
        """Publications that failed, counted by reason: ``away``, ``refused``, ``unknown`` and ``overloaded``."""
        return self._load.failures

    @property
    def in_flight(self) -> int:
        """Bytes of the publications that have no answer yet."""
        return self._load.in_flight

    @property
    def link(self) -> LinkCommands:
        """The link, while it is linked. Raises `LinkLost`."""
        if self._link is None or not self._is_linked:
            raise LinkLost("the backplane is away")
        return self._link

    @property
    def is_linked(self) -> bool:
        """Whether both connections work."""
        return self._is_linked

    @property
    def links(self) -> int:
        """The number of the present link."""
        return self._links

    @property
    def known(self) -> str:
        """The latest id that this hub knows, and the epoch."""
        return str(self._place)

    @property
    def readers(self) -> dict[str | None, RoomReader]:
        """The rooms with members here."""
        return self._subscriptions.readers

    def reader_of(self, room: str | None) -> RoomReader | None:
        """Return the reader of a room, or of the channel to everybody; None without members of this hub."""
        return self._subscriptions.of(room)

    def read(self, room: str, after: str) -> Deferred[Part]:
        """Read a part of the room's history."""
        return self.link.read(self.known, room, after, CHUNK, CHUNK_SIZE).addCallback(self.learned)

    def learned(self, answer: Any) -> Any:
        """Note the place in an answer."""
        self.learn(answer.place)
        return answer

    def learn(self, place: Place) -> None:
        """Note the dataset's place. In another epoch, sweep all rooms."""
        if self._place.learn(place):
            self._troubles.event("the backplane {url} has another dataset than before: messages may be missing")
            self._recovery.sweep_again()

    def deliver(self, message: Message, exclude: object) -> None:
        """Deliver a message to the members of this hub."""
        if message.gap:
            self.gaps += 1
        self._pace.count(self._deliver_to_hub(message, exclude))

    def paced(self) -> Deferred[None]:
        """Return a Deferred that fires when the members have been sent most of the delivered messages."""
        return self._pace.paced()

    # Calls of the link.

    def linked(self) -> Deferred[None]:
        """Ask for the dataset's place, and accept messages again."""
        return Deferred.fromCoroutine(self._linked())

    async def _linked(self) -> None:
        link = cast(LinkCommands, self._link)
        verified = await self._registration.verify(link)
        await link.subscribe([None])
        await self._check_writes(link)
        self._links += 1
        self._linked_at = self.reactor.seconds()
        self._is_linked = self._was_linked = True
        self._subscriptions.linked(verified.sure)
        listed = self._recovery.list_members(again=True)
        if len(self.readers) <= STEP:
            # This is quick, and `who` is right from the beginning.
            await listed
            if not self._is_linked:
                raise LinkLost("the connection was lost")
        self.state = BackplaneState.CONNECTED
        self._troubles.over("the backplane {url} is connected")
        self.learn(verified.place)
        self._recovery.begin(list(self.readers.values()))

    @staticmethod
    async def _check_writes(link: LinkCommands) -> None:
        """Write something: a replica answers every question, so it would seem connected until the first message."""
        try:
            await link.renew()
        except Refused as refused:
            if refused.trouble.remedy is not Remedy.WAIT:
                raise

    def lost(self, why: BaseException) -> None:
        """Note the loss of the connections; deliver messages without an id to the members here."""
        was_linked, self._is_linked = self._is_linked, False
        self._recovery.stop()
        self._registration.lost()
        if self.state is BackplaneState.STOPPED:
            return
        self.state = why.trouble.state if isinstance(why, Refused) else BackplaneState.CONNECTING
        if self._was_linked or not isinstance(why, Refused) or why.trouble.remedy is not Remedy.GIVE_UP:
            self._troubles.log("the backplane {url} is away; the hub tries again: {why}", why_lost(why))
        if was_linked:
            self.losses += 1
            self._subscriptions.lost()

    def gave_up(self, why: Refused) -> None:
        """End the first connection attempts: a program that waits for ``refused`` can stop with its line."""
        line = f"the backplane {self.url} cannot be used: {why.trouble.logged}"
        self.state = BackplaneState.REFUSING
        self.log.error("{line}", line=line)
        self.refused.callback(line)

    def decode(self, room: str | None, message_id: str | None, payload: bytes) -> Message | None:
        """Read a payload; return None if it is not a message."""
        return self._messages.read(room, message_id, payload)

    def received(self, room: str | None, message_id: str, previous: str, epoch: str, payload: bytes) -> None:
        """Pass on a message, or a notice, of a subscribed room."""
        reader = self.reader_of(room)
        if reader is None:
            return
        if payload:
            self._arrived(reader, self.decode(room, message_id or None, payload), previous, epoch)
        elif room is None and message_id:
            # This hub can now tell a dataset from before the other hub was registered.
            self._place.note(message_id)
            self._registration.noticed(message_id)
        elif room is None:
            self._read_inbox()
        else:
            self.presence_changed(room)

    def _arrived(self, reader: RoomReader, message: Message | None, previous: str, epoch: str) -> None:
        if message is None or not is_id(previous):
            return
        reader.arrived(Arrival(message, order_of(previous), epoch))
        if message.id is not None:
            self._place.note(message.id)

    def verify(self) -> Deferred[Verified]:
        """Ask for the dataset's place."""
        return Deferred.fromCoroutine(self._registration.verify(self.link))

    def occupied(self) -> list[str]:
        """Return the rooms that have members with a name here."""
        return self._subscriptions.occupied()

    def beat(self, trouble: Trouble | None, verified: Verified | None, lease_expired: bool) -> None:
        """Note that Redis accepts writes, or refuses them."""
        if not self._is_linked:
            return
        if trouble is not None:
            self.refuses(trouble)
            return
        if verified is not None:
            self.learned(verified)
        if self.state is not BackplaneState.CONNECTED:
            self.state = BackplaneState.CONNECTED
            self._troubles.over("the backplane {url} takes messages again")
        listed = self._recovery.list_members(again=lease_expired)
        listed.addCallback(lambda _: self.presence_changed(None))
        self._read_inbox()

    def _read_inbox(self) -> None:
        if self._inbox is not None:
            self._inbox.read()

    def refuses(self, trouble: Trouble, why: Refused | None = None) -> None:
        """Note that Redis refused a write."""
        if not self._is_linked:
            return
        self.state = trouble.state
        self._troubles.log("the backplane {url} takes no messages: {why}", trouble.logged)
        if trouble.remedy is not Remedy.WAIT:
            self.link.restart(why or Refused(trouble.logged, trouble))
