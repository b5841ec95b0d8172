"""`Publications`: this hub's messages on their way to Redis, and their outcome."""

from __future__ import annotations

from collections import Counter
from typing import Any, Protocol, cast

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from twisted_beastws.hub.backplane import Message, PublishError, PublishUnknown, key_of
from twisted_beastws.hub.linked_answers import Place, Taken
from twisted_beastws.hub.linked_errors import NotReplicated, Refused, Trouble
from twisted_beastws.hub.linked_interfaces import LinkCommands
from twisted_beastws.hub.linked_messages import encode
from twisted_beastws.hub.linked_rooms import Own, RoomReader


class PublishingBackplane(Protocol):
    """The `RedisBackplane`, as its publications see it."""

    hub_name: str

    @property
    def is_linked(self) -> bool: ...

    @property
    def link(self) -> LinkCommands: ...

    @property
    def links(self) -> int: ...

    @property
    def known(self) -> str: ...

    @property
    def history_length(self) -> int: ...

    def reader_of(self, room: str | None) -> RoomReader | None: ...

    def deliver(self, message: Message, exclude: object) -> None: ...

    def learn(self, place: Place) -> None: ...

    def refuses(self, trouble: Trouble, why: Refused | None = None) -> None: ...


class Acknowledging(Protocol):
    """The `Registration`, as the publications see it."""

    @property
    def established(self) -> bool: ...

    def registered(self, awaits: str) -> None: ...

    def when_established(self) -> Deferred[None]: ...


class PublishingLoad:
    """The publications on their way, and how many failed.

    Args:
        most: bytes of publications without an answer; beyond them, a publication fails.

    Attributes:
        in_flight: bytes of the publications that have no answer yet.
        failures: publications that failed, by reason.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.in_flight = 0
        self.failures: Counter[str] = Counter()


class Publications:
    """Publishes messages, and reports the outcome of each.

    Args:
        backplane: the backplane.
        registration: knows whether this hub may acknowledge messages.
        load: counts them.
    """

    def __init__(self, backplane: PublishingBackplane, registration: Acknowledging, load: PublishingLoad) -> None:
        self._load = load
        self._backplane = backplane
        self._registration = registration
        self._published = 0

    def publish(
        self,
        reader: RoomReader | None,
        room: str | None,
        data: str | bytes,
        keep: bool,
        exclude: object,
        ref: str | None,
    ) -> Deferred[str | None]:
        """Publish a message; see `Backplane.publish`. reader: the room's, if this hub has members in it."""
        self._published += 1
        message = Message(room, data, None, self._backplane.hub_name, self._published)
        if not self._backplane.is_linked:
            return self._publish_here(message, exclude, ref)
        payload = encode(message)
        if self._load.in_flight + len(payload) > self._load.most:
            self._load.failures["overloaded"] += 1
            return fail(PublishError("the backplane is too slow: the message was not sent", False))
        kept = self._backplane.history_length if keep and room is not None else 0
        if reader is not None:
            reader.own[self._published] = Own(message, exclude, kept > 0, self._backplane.links)
        self._load.in_flight += len(payload)
        key = "" if ref is None else key_of(room, ref)
        waiting = not self._registration.established
        taken = self._backplane.link.publish(self._backplane.known, room, payload, kept, key, waiting)
        taken.addCallbacks(self._taken, self._not_taken, (message,), {}, (message, kept > 0, ref))
        return taken.addErrback(self._failed, ref is None).addBoth(self._ended, len(payload))

    def _publish_here(self, message: Message, exclude: object, ref: str | None) -> Deferred[str | None]:
        self._load.failures["away"] += 1
        if ref is not None:
            return fail(PublishError("the backplane is away: no member has the message", False))
        self._backplane.deliver(message, exclude)
        return fail(PublishError("the backplane is away: only the members here have the message", True))

    def _taken(self, answer: Taken, message: Message) -> Deferred[str | None] | str | None:
        self._backplane.learn(answer.place)
        self._registration.registered(answer.awaits)
        reader = self._backplane.reader_of(message.room)
        own = None if reader is None else reader.own.get(message.number)
        if own is not None and reader is not None:
            own.taken = True
            if answer.again:
                # The first message with this ref has its own place.
                del reader.own[message.number]
                reader.deliver_failed()
        message_id = answer.id or None
        if self._registration.established:
            return message_id
        return self._registration.when_established().addCallback(lambda _: message_id)

    def _not_taken(self, failure: Failure, message: Message, kept: bool, ref: str | None) -> Failure:
        reader = self._backplane.reader_of(message.room)
        if reader is not None:
            self._fail(reader, message.number, failure, kept, ref)
        return failure

    def _failed(self, failure: Failure, here: bool) -> None:
        why = cast(BaseException, failure.value)
        raise self._error(why, here) from why

    def _ended(self, outcome: Any, size: int) -> Any:
        self._load.in_flight -= size
        return outcome

    @staticmethod
    def _fail(reader: RoomReader, number: int, failure: Failure, kept: bool, ref: str | None) -> None:
        """Note that a publication failed: Redis refused it, or the outcome is unknown."""
        own = reader.own.get(number)
        if own is None:
            return
        if failure.check(Refused) and ref is None:
            own.failed = True
        elif failure.check(NotReplicated):
            own.taken = True
        elif failure.check(Refused) or not kept:
            del reader.own[number]
        reader.deliver_failed()

    def _error(self, why: BaseException, here: bool) -> PublishError:
        if isinstance(why, Refused):
            self._load.failures["refused"] += 1
            self._backplane.refuses(why.trouble, why)
            members = "only the members here have" if here else "no member has"
            return PublishError(f"{why.trouble.public}: {members} the message", here)
        self._load.failures["unknown"] += 1
        if isinstance(why, NotReplicated):
            return PublishUnknown(f"{why}: whether it outlives a failover is not known", False)
        reason = "the connection to the backplane was lost: whether it took the message is not known"
        return PublishUnknown(reason, False)
