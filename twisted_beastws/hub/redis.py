"""`RedisBackplane`: hubs on any number of machines, joined through a Redis."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from twisted.internet.defer import Deferred, fail, gatherResults, succeed
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
    Roster,
    order_of,
)
from twisted_beastws.hub.catching_up import CatchUp
from twisted_beastws.hub.redis_url import RedisURL

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime


class Found(NamedTuple):
    """A part of a room's stream: whether the message asked from is there, whether there is more, ids and payloads."""

    complete: bool
    more: bool
    entries: list[tuple[str, bytes]]


class Link(Protocol):
    """Both connections to a Redis, one for commands and one for what is published, and their reconnection.

    Its commands are for while it is up or being prepared; each one fails when the connections are lost.
    """

    def start(self) -> None: ...
    def stop(self) -> Deferred[None]: ...
    def subscribe(self, room: str | None) -> Deferred[object]: ...
    def unsubscribe(self, room: str) -> None: ...
    def publish(self, room: str | None, payload: bytes, keep: int) -> Deferred[bytes]: ...
    def history(self, room: str, after: str, count: int, size: int) -> Deferred[Found]: ...
    def latest(self, room: str) -> Deferred[str]: ...
    def enter(self, room: str, member: str, name: str) -> None: ...
    def exit(self, room: str, member: str) -> None: ...
    def who(self, room: str) -> Deferred[list[str]]: ...


class LinkUser(Protocol):
    """What a `Link` tells."""

    def prepare(self) -> Deferred[list[object]]:
        """It is connected: subscribe to everything. It is up when this fires, and begins anew if it fails."""

    def up(self) -> None:
        """Commands are taken."""

    def lost(self) -> None:
        """No more; it tries again."""

    def received(self, room: str | None, message_id: str | None, payload: bytes) -> None:
        """Something was published."""

    def occupied(self) -> list[str]:
        """The rooms that have named members here."""

    def list_members(self) -> None:
        """Nobody is listed any more: `Link.enter` all."""


class _Own:
    """A message of ours that is on its way through Redis back to the members here."""

    __slots__ = ("exclude", "failed", "message")

    def __init__(self, message: Message, exclude: object) -> None:
        self.message = message
        self.exclude = exclude
        self.failed = False


class _Room:
    """A room with members here.

    since: the number of our last message before it had any. own: ours on their way to them, by number, in order.
    names: of the members that have one, by key. last: the id of the last message delivered here, or of the last before.
    waiting: who waits for the subscription; None where nobody has to.
    """

    __slots__ = ("catch_up", "last", "names", "own", "since", "waiting")

    def __init__(self, since: int) -> None:
        self.since = since
        self.own: dict[int, _Own] = {}
        self.names: dict[str, str] = {}
        self.last: str | None = None
        self.waiting: list[Deferred[None]] | None = None
        self.catch_up: CatchUp | None = None


class RedisBackplane:
    """Joins hubs through a Redis of version 6.2 or later; needs the extra ``redis``.

    A message goes to Redis, which puts it into the room's stream and hands it to every hub that has members there, the
    publisher's own too: all see one order. While Redis is away a message is delivered here at once, and `publish`
    fails; when it is back, what the streams have from others meanwhile is delivered.

    url: ``redis://[[user]:password@]host[:port][/database]``, ``rediss://...`` for TLS, or
        ``unix:///path/to/socket[?db=database]``. Raises ``ValueError`` for another.
    history: messages of each room that its stream keeps, a day from the last; 0 keeps none. 100.
    max_in_flight: octets that may wait for Redis to take them; beyond it `publish` fails, and nobody has the message.
        16 MiB.
    reactor: None is the installed one.

    state: a `BackplaneState`. losses: how often the connection was lost.
    """

    log = Logger()

    def __init__(
        self, url: str, *, history: int = 100, max_in_flight: int = 1 << 24, reactor: IReactorTime | None = None
    ) -> None:
        self.url = RedisURL.parse(url)
        self.state = BackplaneState.STOPPED
        self.losses = 0
        self.in_flight = 0
        self._history = history
        self._max_in_flight = max_in_flight
        self._reactor = reactor
        self._hub_name = secrets.token_hex(8)
        self._published = 0
        self._link: Link | None = None
        self._linked = False
        self._deliver: Deliver = lambda message, exclude: None
        # What is for everybody comes as in a room that is always there.
        self._rooms: dict[str | None, _Room] = {None: _Room(0)}

    # What the hub calls.

    def start(self, deliver: Deliver) -> None:
        self._deliver = deliver
        self.state = BackplaneState.CONNECTING
        self._link = self._make_link()
        self._link.start()

    def stop(self) -> Deferred[None]:
        link, self._link = self._link, None
        self._linked = False
        self.state = BackplaneState.STOPPED
        return succeed(None) if link is None else link.stop()

    def _make_link(self) -> Link:
        # txredisapi imports the reactor.
        try:
            from twisted_beastws.hub.redis_link import RedisLink
        except ModuleNotFoundError as error:
            raise ImportError("RedisBackplane needs an extra: pip install 'twisted_beastws[redis]'") from error

        return RedisLink(self.url, self, self._reactor)

    def subscribe(self, room: str) -> Deferred[None]:
        here = self._rooms.get(room)
        if here is None:
            here = self._rooms[room] = _Room(self._published)
            if self._linked:
                here.waiting = []
                self._subscribe(room, here).addErrback(self._not_subscribed, here)
        if here.waiting is None:
            return succeed(None)
        return _waiting(here.waiting)

    def unsubscribe(self, room: str) -> None:
        here = self._rooms.pop(room)
        if here.catch_up is not None:
            here.catch_up.stop()
        self._subscribed(here)
        if self._linked:
            self._up.unsubscribe(room)

    def publish(self, room: str | None, data: str | bytes, keep: bool, exclude: object) -> Deferred[str | None]:
        here = self._rooms.get(room)
        if self.state is BackplaneState.CONNECTED and here is not None and here.waiting is not None:
            # Published now, it could come before the subscription.
            subscribed = _waiting(here.waiting)
            return subscribed.addCallback(lambda _: self.publish(room, data, keep, exclude))
        self._published += 1
        message = Message(room, data, None, self._hub_name, self._published)
        payload = _encode(message)
        if self.state is not BackplaneState.CONNECTED:
            self._deliver(message, exclude)
            return fail(PublishError("the backplane is away: only the members here have the message", True))
        if self.in_flight + len(payload) > self._max_in_flight:
            return fail(PublishError("the backplane is too slow: the message was not sent", False))
        if here is not None:
            here.own[self._published] = _Own(message, exclude)
        self.in_flight += len(payload)
        published = self._up.publish(room, payload, self._history if keep and room is not None else 0)
        return published.addBoth(self._answered, message, len(payload))

    def history(self, room: str, after: str) -> Deferred[History]:
        if self.state is not BackplaneState.CONNECTED:
            return fail(PublishError("the backplane is away", False))
        return self._up.history(room, after, CHUNK, CHUNK_SIZE).addCallback(self._read, room)

    def enter(self, room: str, member: str, name: str) -> None:
        self._rooms[room].names[member] = name
        if self._linked:
            self._up.enter(room, member, name)

    def exit(self, room: str, member: str) -> None:
        del self._rooms[room].names[member]
        if self._linked:
            self._up.exit(room, member)

    def who(self, room: str) -> Deferred[list[str]]:
        here = self._rooms.get(room)
        names = [] if here is None else list(here.names.values())
        if self.state is not BackplaneState.CONNECTED:
            return succeed(names)
        return self._up.who(room).addErrback(lambda _: names)

    def roster(self, room: str, after: str | None, most: int) -> Deferred[Roster]:
        return self.who(room).addCallback(_roster, after, most)

    @property
    def _up(self) -> Link:
        return cast(Link, self._link)

    # What the link calls.

    def prepare(self) -> Deferred[list[object]]:
        """Subscribe to all rooms, and tell who is in them."""
        self._linked = True
        self.list_members()
        for here in self._rooms.values():
            here.waiting = []
        subscribed = [self._subscribe(room, here) for room, here in self._rooms.items()]
        return gatherResults(subscribed, consumeErrors=True)

    def up(self) -> None:
        """Publish again; deliver what the members here missed."""
        self.state = BackplaneState.CONNECTED
        self.log.info("the backplane {url} is connected", url=self.url)
        for room, here in list(self._rooms.items()):
            if room is not None and here.last is not None and here is self._rooms.get(room):
                self._catch_up(room, here, here.last)

    def lost(self) -> None:
        """Deliver what was on its way."""
        self._linked = False
        if self.state is BackplaneState.CONNECTED:
            self.losses += 1
            self.state = BackplaneState.CONNECTING
        for here in list(self._rooms.values()):
            if here.catch_up is not None:
                here.catch_up.stop()
                here.catch_up = None
            for number, own in list(here.own.items()):
                if here.own.pop(number, None) is not None:
                    self._deliver(own.message, own.exclude)
            self._subscribed(here)

    def received(self, room: str | None, message_id: str | None, payload: bytes) -> None:
        """Something was published in a room that is subscribed to."""
        here = self._rooms.get(room)
        if here is None:
            return
        message = self._decode(room, message_id, payload)
        if message is None:
            return
        if here.catch_up is None:
            self._arrived(here, message)
            return
        here.catch_up.offer(message)
        if here.catch_up is not None and here.catch_up.done:
            here.catch_up = None

    def list_members(self) -> None:
        """Tell who is in which room."""
        for room, here in self._rooms.items():
            for member, name in here.names.items():
                self._up.enter(cast(str, room), member, name)

    def occupied(self) -> list[str]:
        """The rooms that have named members here."""
        return [room for room, here in self._rooms.items() if room is not None and here.names]

    # Subscriptions.

    def _subscribe(self, room: str | None, here: _Room) -> Deferred[object]:
        return self._up.subscribe(room).addCallback(lambda _: self._is_subscribed(room, here))

    def _is_subscribed(self, room: str | None, here: _Room) -> None:
        if self._linked and room is not None and here.last is None and self._history:
            self._up.latest(room).addCallback(self._began_at, here).addErrback(_is_lost)
        self._subscribed(here)

    def _not_subscribed(self, failure: Failure, here: _Room) -> None:
        self.log.warn("the backplane did not subscribe to a room: {why}", why=failure.getErrorMessage())
        self._subscribed(here)

    def _subscribed(self, here: _Room) -> None:
        waiting, here.waiting = here.waiting, None
        for waiter in waiting or ():
            waiter.callback(None)

    def _began_at(self, latest: str, here: _Room) -> None:
        if here.last is None:
            here.last = latest

    def _catch_up(self, room: str, here: _Room, last: str) -> None:
        if not self._history:
            return
        here.catch_up = CatchUp(
            last,
            lambda after: self.history(room, after),
            lambda message: self._arrived(here, message),
            lambda: succeed(None),
        )
        Deferred.fromCoroutine(here.catch_up.run())

    # Messages.

    def _answered(self, answer: bytes | Failure, message: Message, size: int) -> str | None:
        self.in_flight -= size
        here = self._rooms.get(message.room)
        own = None if here is None else here.own.get(message.number)
        if isinstance(answer, Failure):
            if here is not None and own is not None:
                own.failed = True
                self._deliver_failed(here)
            reason = answer.getErrorMessage()
            raise PublishError(f"the backplane did not take the message: {reason}", True) from answer.value
        message_id = answer.decode() or None
        if own is not None:
            own.message = message._replace(id=message_id)
        return message_id

    def _deliver_failed(self, here: _Room) -> None:
        """Deliver what Redis did not take, behind what it took before and has not brought yet."""
        while here.own:
            number, own = next(iter(here.own.items()))
            if not own.failed:
                return
            del here.own[number]
            self._deliver(own.message, own.exclude)

    def _arrived(self, here: _Room, message: Message) -> None:
        if message.id is not None:
            here.last = message.id
        exclude = None
        if message.sender == self._hub_name:
            own = here.own.pop(message.number, None)
            if own is not None:
                exclude = own.exclude
            elif message.number > here.since:
                # It was delivered when the connection was lost.
                return
        self._deliver(message, exclude)
        self._deliver_failed(here)

    def _read(self, found: Found, room: str) -> History:
        decoded = [self._decode(room, message_id, payload) for message_id, payload in found.entries]
        messages = [message for message in decoded if message is not None]
        # Where all of it is somebody else's, there is no id to go on from.
        return History(messages, found.complete, found.more and bool(messages))

    def _decode(self, room: str | None, message_id: str | None, payload: bytes) -> Message | None:
        try:
            if message_id is not None:
                order_of(message_id)
            return _decode(room, message_id, payload)
        except ValueError:
            self.log.warn(
                "another program publishes where the backplane does: {room!r}, {id!r}", room=room, id=message_id
            )
            return None


def _encode(message: Message) -> bytes:
    kind, data = ("t", message.data.encode()) if isinstance(message.data, str) else ("b", message.data)
    return f"{message.sender} {message.number} {kind}\n".encode() + data


def _decode(room: str | None, message_id: str | None, payload: bytes) -> Message:
    head, newline, data = payload.partition(b"\n")
    sender, number, kind = head.decode().split(" ")
    if not newline or kind not in ("t", "b"):
        raise ValueError("not a message of ours")
    return Message(room, data.decode() if kind == "t" else data, message_id, sender, int(number))


def _waiting(waiters: list[Deferred[None]]) -> Deferred[None]:
    waiter: Deferred[None] = Deferred()
    waiters.append(waiter)
    return waiter


def _roster(names: list[str], after: str | None, most: int) -> Roster:
    return Roster(sorted(name for name in names if after is None or name > after)[:most], len(names))


def _is_lost(failure: Failure) -> None:
    """The link tells so itself."""
