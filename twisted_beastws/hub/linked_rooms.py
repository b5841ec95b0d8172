"""`RoomReader`: a hub's place in the messages of one room, and the way on from there.

The guarantees rest on three rules:

- A room's messages are delivered in the order of their ids, a hub's own ones too.
- Each message names the one before it in its room. If that is later than the reader's place, messages are missing: the
  reader holds further messages, and reads the history from its place on.
- Where the history does not have them either, or belongs to another epoch of the dataset, the reader reports a gap.

The states of a reader:

========== ==================================================================== ===============================
state      a message arrives                                                    leaves it
========== ==================================================================== ===============================
new        is delivered: it was published after the subscription                by its first place
live       is delivered if it follows; dropped if it is old; else begins        by a message that does not
           a catch-up                                                           follow, or by the link's loss
catching   is held until the history is read                                    by the end of the history
up
away       cannot arrive                                                        by the link's return
========== ==================================================================== ===============================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from twisted.internet.defer import Deferred

from twisted_beastws.hub.backplane import Message, order_of
from twisted_beastws.hub.linked_answers import Order, Part, Place

MAX_HELD = 256
"""Messages that are held during a catch-up; beyond them, they are read from the history."""

MAX_LEFT = 4
"""Earlier epochs that a reader knows by name."""

Deliver = Callable[[Message, object], None]
Decode = Callable[["str | None", "str | None", bytes], "Message | None"]


class Arrival(NamedTuple):
    """A message as Redis publishes it. previous: the id of the message before it in its room."""

    message: Message
    previous: Order
    epoch: str


class Own:
    """A message of this hub that is on its way through Redis.

    exclude: the connection that does not get it. kept: it gets an id. link: the number of the link that it went out on.
    taken: Redis answered that it took it. failed: that it did not, and the members here get it alone.
    """

    __slots__ = ("exclude", "failed", "kept", "link", "message", "taken")

    def __init__(self, message: Message, exclude: object, kept: bool, link: int) -> None:
        self.message = message
        self.exclude = exclude
        self.kept = kept
        self.link = link
        self.taken = self.failed = False


class RoomReader:
    """A room with members here.

    Args:
        room: its name; None is the channel to everybody, which has no history.
        hub_name: the sender of this hub's own messages.
        deliver: takes each message for the members here, and the connection to leave out.
        behind: called when the reader has begun to hold messages and needs a catch-up.

    Attributes:
        own: this hub's messages on their way, by number, in order. names: of the members that have one, by key.
        waiting: callers that wait for the subscription; None if it is there, or the link is not.
        last: all messages up to this id were delivered, or were published before the room had members here.
        epoch: of the dataset that ``last`` is from.
    """

    __slots__ = (
        "_behind",
        "_below",
        "_deliver",
        "_fresh",
        "_gap_behind",
        "_held",
        "_hub_name",
        "_left",
        "_overflowed",
        "_seen",
        "_told",
        "doubtful",
        "epoch",
        "last",
        "names",
        "own",
        "room",
        "waiting",
    )

    def __init__(self, room: str | None, hub_name: str, deliver: Deliver, behind: Callable[[RoomReader], None]) -> None:
        self.room = room
        self.own: dict[int, Own] = {}
        self.names: dict[str, str] = {}
        self.waiting: list[Deferred[None]] | tuple[()] | None = None
        self.last: Order | None = None
        self.epoch = ""
        # Members joined before the first connection, and may have missed messages.
        self.doubtful = False
        self._hub_name = hub_name
        self._deliver = deliver
        self._behind = behind
        # No message has come on this subscription: the first may be older than the place that was asked for meanwhile.
        self._fresh = False
        self._held: list[Arrival] | None = None
        self._overflowed = False
        # So many of the held messages came before the history was asked for.
        self._seen = 0
        # A gap was reported, and no message since.
        self._told = False
        # The reader will report a gap after the messages up to this id.
        self._gap_behind: Order | None = None
        # Epochs that were left: of those, messages can only be late.
        self._left: tuple[str, ...] = ()
        # The epoch is new, and its first messages may have lower ids than the last of the epoch before.
        self._below = False

    @property
    def catching_up(self) -> bool:
        """Whether messages are held until the history is read."""
        return self._held is not None

    @property
    def place(self) -> str:
        """`last`, as an id."""
        return "{}-{}".format(*(self.last or (0, 0)))

    def wait(self) -> Deferred[None]:
        """Return a Deferred that fires when callers need not wait for the subscription any more."""
        # Of very many rooms few are waited for: the others have no list.
        waiting = self.waiting or []
        self.waiting = waiting
        waiting.append(Deferred())
        return waiting[-1]

    def subscribed(self) -> None:
        """End the wait of all callers for the subscription."""
        waiting, self.waiting = self.waiting, None
        for waiter in waiting or ():
            if not waiter.called:
                waiter.callback(None)

    def begin_at(self, place: Place) -> None:
        """The room was subscribed to, and this was the dataset's place about then."""
        if self.last is None:
            self.last, self.epoch = order_of(place.position), place.epoch
            self._fresh = True
        if self.doubtful:
            self.doubtful = False
            self.report_gap()

    def arrived(self, arrival: Arrival) -> None:
        """A message was published."""
        if self._held is None:
            self._take(arrival)
            return
        if len(self._held) >= MAX_HELD:
            # Those with an id are in the history, which is read again; the others are gone.
            if any(held.message.id is None for held in self._held):
                self.report_gap()
            self._held.clear()
            self._seen = 0
            self._overflowed = True
        self._held.append(arrival)

    def _take(self, arrival: Arrival) -> None:
        message = arrival.message
        if message.id is None:
            self._give(message)
            return
        order = order_of(message.id)
        if self.last is None:
            self.last, self.epoch = order, arrival.epoch
            self._give(message)
            return
        if arrival.epoch in self._left:
            # Published before the dataset was lost, and late.
            self.report_gap()
            return
        if order <= self.last and not self._fresh and arrival.epoch == self.epoch:
            if self._below:
                self.report_gap()
            return
        if arrival.epoch != self.epoch or (order > self.last and arrival.previous > self.last):
            self.fall_behind(arrival)
            return
        self._fresh = self._below = False
        self.last = order
        self._give(message)

    def doubt(self) -> None:
        """Treat the dataset as another one: it may or may not be the same as before."""
        if self.last is not None:
            self._change_epoch("")

    def enter_epoch(self, epoch: str) -> None:
        """Enter another dataset, which has no messages after ``last``."""
        if epoch != self.epoch:
            self._change_epoch(epoch)
            self.report_gap()

    def _change_epoch(self, epoch: str) -> None:
        self._leave_epoch(self.epoch)
        self._left = tuple(left for left in self._left if left != epoch)
        self.epoch = epoch
        self._fresh, self._below = False, True

    def _leave_epoch(self, epoch: str) -> None:
        if epoch not in self._left:
            self._left = (*self._left[-MAX_LEFT + 1 :], epoch)

    def report_gap(self) -> None:
        """Inform the members that messages may be missing before the next one, once until the next message."""
        if not self._told:
            self._told = True
            self._deliver(Message(self.room, "", gap=True), None)

    def member_joined(self) -> None:
        """Note a new member, which was not informed of the last gap."""
        self._told = False

    def fall_behind(self, *held: Arrival) -> None:
        """Hold further messages, and ask for a catch-up."""
        if self._held is None:
            self._held = [*held]
            self._behind(self)

    def swept(self, place: Place, link: int) -> None:
        """Note that no message was published after ``last`` up to the dataset's ``place``."""
        if self.last is not None and self._held is None:
            self.last = max(self.last, order_of(place.position))
            self._fresh = False
            self._forget(link)

    def begin_read(self) -> str:
        """Return the id from which the history is to be read now."""
        # Redis publishes these messages before it answers.
        self._seen = len(self._held or ())
        return self.place

    def read(self, part: Part, decode: Decode) -> bool:
        """Deliver a part of the history; returns whether there is more to read."""
        last = self.last or (0, 0)
        changed = part.place.epoch != self.epoch
        if changed or not part.whole:
            self.report_gap()
        if changed:
            # The messages from before this epoch may be incomplete on either side.
            self._gap_behind = order_of(part.start)
            self._change_epoch(part.place.epoch)
        for message_id, payload in part.entries:
            message = decode(self.room, message_id, payload)
            order = order_of(message_id)
            if order > order_of(part.start):
                self._below = False
                self._report_pending_gap()
            if message is not None and order > last:
                self._give(message)
            self.last = last = max(last, order)
        if part.more:
            return True
        self._report_pending_gap()
        self.last = max(last, order_of(part.place.position))
        overflowed, self._overflowed = self._overflowed, False
        return overflowed

    def _report_pending_gap(self) -> None:
        if self._gap_behind is not None:
            self._gap_behind = None
            self.report_gap()

    def caught_up(self, link: int) -> None:
        """Deliver the held messages: the history is read."""
        held, self._held = self._held or [], None
        self._fresh = False
        self._forget(link)
        for number, arrival in enumerate(held):
            if number < self._seen and arrival.message.id is not None and arrival.epoch != self.epoch:
                self._leave_epoch(arrival.epoch)
            self.arrived(arrival)

    def lost(self) -> None:
        """Note the loss of the link: nothing arrives until it returns, and messages without an id never arrive."""
        self._fresh = self._overflowed = False
        if self._gap_behind is not None:
            self._report_pending_gap()
        # There can be very many rooms, and most have nothing on its way.
        if self._held is not None:
            held, self._held = self._held, None
            for arrival in held:
                if arrival.message.id is None:
                    self._give(arrival.message)
        if self.own:
            self._lose_own()

    def _lose_own(self) -> None:
        for number, own in list(self.own.items()):
            if own.kept and not own.failed:
                # If Redis has it, the history brings it.
                continue
            if self.own.pop(number, None) is not None and (own.failed or own.taken):
                self._deliver(own.message, own.exclude)

    def deliver_failed(self) -> None:
        """Deliver the messages that Redis refused, after the earlier ones that it accepted."""
        while self.own:
            number, own = next(iter(self.own.items()))
            if not own.failed:
                return
            del self.own[number]
            self._deliver(own.message, own.exclude)

    def _give(self, message: Message) -> None:
        self._told = False
        own = self.own.pop(message.number, None) if message.sender == self._hub_name else None
        self._deliver(message, None if own is None else own.exclude)
        self.deliver_failed()

    def _forget(self, link: int) -> None:
        # Messages of an earlier link have arrived by now, or never will.
        for number, own in list(self.own.items()):
            if own.link < link:
                del self.own[number]
        self.deliver_failed()
