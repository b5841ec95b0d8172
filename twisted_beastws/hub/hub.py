"""`Hub`: rooms of connections, in which a message is framed once for all."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from inspect import isclass
from typing import Literal

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twisted_beastws.errors import ConnectionClosed, LocalError
from twisted_beastws.hub.backplane import Backplane, BackplaneState, LocalBackplane, Message, order_of
from twisted_beastws.hub.catching_up import CatchUp
from twisted_beastws.options import kind_of
from twisted_beastws.protocol import State, WebSocketProtocol
from twisted_beastws.wire.prepared import Prepared, prepare

Render = Callable[[Message], "str | bytes | None"]
"""Makes of a message what a member is sent, or None for nothing."""


def as_published(message: Message) -> str | bytes | None:
    """The message's data."""
    return message.data


class Member:
    """A connection in a room."""

    __slots__ = ("catch_up", "connection", "key", "left", "named", "render")

    def __init__(self, connection: WebSocketProtocol, key: str, render: Render, named: bool) -> None:
        self.connection = connection
        self.key = key
        self.render = render
        self.named = named
        self.catch_up: CatchUp | None = None
        self.left = False


class Hub:
    """Rooms, and the connections in them. A connection may be in several, and leaves all when it ends, however it does.

    backplane: what joins this hub with others, and keeps the rooms' history; None is a `LocalBackplane`.
    max_buffered: octets that may wait for a member that reads slowly. None leaves it to the connection's own
        ``Limits.max_buffered`` and ``slow_reader``, under whose ``pause`` the messages pass it by.
    slow_reader: what becomes of a member beyond max_buffered: ``close`` (with 1013) or ``drop`` (messages pass it by).

    dropped: messages that passed a slow member by, each counted. expelled: members closed beyond max_buffered.

    The backplane is started by the first `join` or `publish`, or by `start`. Raises TypeError for what is none.
    """

    log = Logger()

    def __init__(
        self,
        backplane: Backplane | None = None,
        *,
        max_buffered: int | None = None,
        slow_reader: Literal["close", "drop"] = "close",
    ) -> None:
        if slow_reader not in ("close", "drop"):
            raise ValueError(f"Hub(slow_reader={slow_reader!r}): must be 'close' or 'drop'")
        if max_buffered is not None and max_buffered < 1:
            raise ValueError(f"Hub(max_buffered={max_buffered!r}): must be greater than 0, or None")
        if backplane is not None and (isclass(backplane) or not hasattr(backplane, "subscribe")):
            raise TypeError(f"Hub() takes a backplane such as RedisBackplane(url), not {kind_of(backplane)}")
        self.backplane: Backplane = LocalBackplane() if backplane is None else backplane
        self.dropped = 0
        self.expelled = 0
        self._max_buffered = max_buffered
        self._slow_reader = slow_reader
        self._rooms: dict[str, dict[WebSocketProtocol, Member]] = {}
        self._rooms_of: dict[WebSocketProtocol, dict[str, Member]] = {}
        self._keys = 0
        self._queue: deque[tuple[Message, object]] = deque()
        self._delivering = False
        self._stopped = False

    def start(self) -> None:
        """Start the backplane, if it is not."""
        self._stopped = False
        self._begin()

    def stop(self) -> Deferred[None]:
        """Stop the backplane until the next `start`; the members stay."""
        self._stopped = True
        return self.backplane.stop()

    @property
    def rooms(self) -> dict[str, int]:
        """The rooms that have members here, each with how many."""
        return {room: len(members) for room, members in self._rooms.items()}

    @property
    def connections(self) -> int:
        """Connections that were in a room, and are not gone."""
        return len(self._rooms_of)

    def members(self, room: str) -> tuple[WebSocketProtocol, ...]:
        """The members of ``room`` that are here, in the order in which they joined."""
        return tuple(self._rooms.get(room, ()))

    def who(self, room: str) -> Deferred[list[str]]:
        """The names of the room's members on all hubs that the backplane joins; those here while it is away."""
        return self.backplane.who(room)

    def join(
        self,
        connection: WebSocketProtocol,
        room: str,
        *,
        name: str | None = None,
        render: Render = as_published,
        after: str | None = None,
    ) -> Deferred[bool]:
        """Let ``connection`` have what is published in ``room`` from now on.

        name: what `who` lists it by; None does not.
        render: makes of each `Message` what the member is sent: ``str`` as text, ``bytes`` as binary, None for nothing.
            One function, shared by many members, is called once for them all; it must not depend on who they are.
        after: the id of the last message that the connection saw, perhaps on another: what the history has behind it
            comes first, at the pace of `drain`.

        Fires with whether it missed nothing: False where an ``after`` was given and its message is no longer kept, or
        the backplane is away. Then it has what there is. Joining again changes nothing.

        Raises `LocalError` before the connection is open, `ConnectionClosed` when it is gone, ``ValueError`` for an
        ``after`` that is no id.
        """
        if connection.state is State.CLOSED:
            raise ConnectionClosed(connection.close_reason)
        if after is not None:
            order_of(after)
        self._begin()
        rooms = self._rooms_of_open(connection)
        if room in rooms:
            return self.backplane.subscribe(room).addCallback(lambda _: True)
        self._keys += 1
        member = Member(connection, str(self._keys), render, name is not None)
        catch_up = None
        if after is not None:
            catch_up = member.catch_up = CatchUp(
                after,
                lambda after: self.backplane.history(room, after),
                lambda message: self._give(member, message),
                connection.drain,
            )
        rooms[room] = self._rooms.setdefault(room, {})[connection] = member
        subscribed = self.backplane.subscribe(room)
        if name is not None:
            self.backplane.enter(room, member.key, name)
        if catch_up is None:
            return subscribed.addCallback(lambda _: True)
        return subscribed.addCallback(lambda _: Deferred.fromCoroutine(catch_up.run()))

    def leave(self, connection: WebSocketProtocol, room: str) -> None:
        """Let ``connection`` have nothing more of ``room``; nothing happens if it was not in it."""
        member = self._rooms_of.get(connection, {}).pop(room, None)
        if member is None:
            return
        member.left = True
        # It gives to the member, which would keep itself.
        catch_up, member.catch_up = member.catch_up, None
        if catch_up is not None:
            catch_up.stop()
        members = self._rooms[room]
        del members[connection]
        if member.named:
            self.backplane.exit(room, member.key)
        if not members:
            del self._rooms[room]
            self.backplane.unsubscribe(room)

    def publish(
        self, room: str, message: str | bytes, *, exclude: WebSocketProtocol | None = None, keep: bool = True
    ) -> Deferred[str | None]:
        """Send ``message`` to every member of ``room`` on all hubs, but for ``exclude``.

        keep: put it into the room's history.

        Fires, when the backplane took it, with its id in the history, or None where none is kept. Fails with
        `PublishError` if it did not: then only the members here have it, or nobody, and its ``delivered_here`` tells
        which. Text with lone surrogates raises UnicodeEncodeError.
        """
        self._begin()
        _check(message)
        return self.backplane.publish(room, message, keep, exclude)

    def publish_to_all(self, message: str | bytes, *, exclude: WebSocketProtocol | None = None) -> Deferred[None]:
        """Send ``message`` once to every connection that is in a room, on all hubs, but for ``exclude``.

        It is in no history. Fires and fails as `publish` does.
        """
        self._begin()
        _check(message)
        return self.backplane.publish(None, message, False, exclude).addCallback(lambda _: None)

    def _begin(self) -> None:
        # What comes when all is over, such as a last word about who left, must not begin it anew.
        if self.backplane.state is BackplaneState.STOPPED and not self._stopped:
            self.backplane.start(self._deliver)

    def _rooms_of_open(self, connection: WebSocketProtocol) -> dict[str, Member]:
        rooms = self._rooms_of.get(connection)
        if rooms is None:
            ended = connection.when_closed()
            rooms = self._rooms_of[connection] = {}
            ended.addCallback(lambda _: self._ended(connection))
        return rooms

    def _ended(self, connection: WebSocketProtocol) -> None:
        for room in list(self._rooms_of[connection]):
            self.leave(connection, room)
        del self._rooms_of[connection]

    def _deliver(self, message: Message, exclude: object) -> None:
        # A send may end a connection, and what is published because of that comes behind this for everybody.
        self._queue.append((message, exclude))
        if self._delivering:
            return
        self._delivering = True
        try:
            while self._queue:
                self._send_to_members(*self._queue.popleft())
        finally:
            self._delivering = False

    def _send_to_members(self, message: Message, exclude: object) -> None:
        framed: dict[Render, Prepared | None] = {}
        # A snapshot: members come and go meanwhile.
        for member in list(self._recipients(message.room)):
            if member.left or member.connection is exclude:
                continue
            if member.catch_up is not None:
                self._offer(member, member.catch_up, message)
                continue
            render = member.render
            if render not in framed:
                framed[render] = self._frame(render, message)
            prepared = framed[render]
            if prepared is not None:
                self._send(member.connection, prepared)

    def _recipients(self, room: str | None) -> Iterable[Member]:
        if room is not None:
            return self._rooms.get(room, {}).values()
        return (next(iter(rooms.values())) for rooms in self._rooms_of.values() if rooms)

    def _offer(self, member: Member, catch_up: CatchUp, message: Message) -> None:
        # What is for everybody is in no room's history, nor behind anything in it.
        if message.room is None:
            self._give(member, message)
            return
        catch_up.offer(message)
        if catch_up.done:
            member.catch_up = None

    def _give(self, member: Member, message: Message) -> None:
        prepared = None if member.left else self._frame(member.render, message)
        if prepared is not None:
            self._send(member.connection, prepared)

    def _frame(self, render: Render, message: Message) -> Prepared | None:
        try:
            rendered = render(message)
            return None if rendered is None else prepare(rendered)
        except Exception:
            self.log.failure("a message in {room} could not be rendered", room=message.room)
            return None

    def _send(self, connection: WebSocketProtocol, prepared: Prepared) -> None:
        if connection.state is not State.OPEN:
            return
        if self._max_buffered is not None and connection.buffered_amount > self._max_buffered:
            self._too_slow(connection)
            return
        try:
            connection.send(prepared)
        except ConnectionClosed:
            pass
        except LocalError:
            # `BufferFull`, or more than the connection may ever hold.
            self.dropped += 1
        except Exception:
            self.log.failure("could not send to {peer}, which is dropped", peer=connection.peer)
            connection.abort()

    def _too_slow(self, connection: WebSocketProtocol) -> None:
        if self._slow_reader == "drop":
            self.dropped += 1
        else:
            self.expelled += 1
            connection.overflowed()


def _check(message: str | bytes) -> None:
    # Here it is the caller's mistake; later it would be everybody's trouble.
    if not isinstance(message, (str, bytes, bytearray, memoryview)):
        raise TypeError(f"publish() takes str or bytes, not {type(message).__name__}")
    if isinstance(message, str) and not message.isascii():
        message.encode()
