"""`Hub`: rooms of connections, in which a message is framed once for all."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any, Literal, cast

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_beastws.connection.awaiting import awaitable
from twisted_beastws.errors import ConnectionClosed
from twisted_beastws.hub.arguments import check_hub, check_join, check_permissions, check_room, checked_message
from twisted_beastws.hub.backplane import (
    Backplane,
    BackplaneState,
    Message,
    PublishError,
    Roster,
    order_of,
)
from twisted_beastws.hub.catching_up import CatchUp
from twisted_beastws.hub.fan_out import FanOut, cost_of
from twisted_beastws.hub.local import LocalBackplane
from twisted_beastws.hub.members import Member, Render, as_published, untold
from twisted_beastws.hub.permissions import Permission, refusal
from twisted_beastws.hub.presence import Presence, PresenceEvent, PresenceWatch, data_text, decoded
from twisted_beastws.hub.sending import MemberSender
from twisted_beastws.options import kind_of
from twisted_beastws.protocol import State, WebSocketProtocol

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from twisted_beastws.wire.closing import CloseReason

MAX_LISTED = 1000
"""Names in one answer of `Hub.roster`."""

COMMANDS = "\0commands"
"""The room of `Hub.send_command`. No member can join it: no name of a room begins with NUL."""

PARTS = 16
"""Parts of a history, of 32 messages or 256 KiB, that a member gets before other connections get their turn."""


class Hub:
    """Rooms, and the connections in them. A connection can be in several rooms, and leaves all when it ends.

    Sending a message to a large room is cooperative: it takes at most a few milliseconds at a time, and rooms take
    turns. Each member gets a room's messages in their order, from the first that is published after its `join`.

    Args:
        backplane: joins this hub with others, and keeps the rooms' history. None is a `LocalBackplane`.
        max_buffered: bytes that can wait for a member that reads slowly. None leaves it to the connection's own
            ``Limits.max_buffered`` and ``slow_reader``, under whose ``pause`` a slow member misses messages.
        slow_reader: the policy beyond max_buffered: ``close`` the member with 1013, or ``drop`` the message for it.
        max_waiting: bytes of memory that messages can take while they wait for their turn to be sent. Beyond it the hub
            refuses further messages for a room that has waiting ones: `publish` fails. 16 MiB (`RedisBackplane`'s
            ``max_in_flight``).
        may_join: called with a connection and a room at each `join`; False refuses it. None allows every join.
        may_publish: called in the same way at each `publish` that names its ``sender``.
        reactor: None is the installed one. The hub needs it only when a message has to wait.

    The first `join` or `publish` starts the backplane, or `start`.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of its range.
    """

    log = Logger()

    def __init__(
        self,
        backplane: Backplane | None = None,
        *,
        max_buffered: int | None = None,
        slow_reader: Literal["close", "drop"] = "close",
        max_waiting: int = 1 << 24,
        may_join: Permission | None = None,
        may_publish: Permission | None = None,
        reactor: IReactorTime | None = None,
    ) -> None:
        check_hub(backplane, max_buffered, slow_reader, max_waiting)
        check_permissions(may_join, may_publish)
        self._may_join = may_join
        self._may_publish = may_publish
        self.backplane: Backplane = LocalBackplane() if backplane is None else backplane
        self._sender = MemberSender(max_buffered, slow_reader, self._membership)
        self._rooms: dict[str, dict[WebSocketProtocol, Member]] = {}
        self._rooms_of: dict[WebSocketProtocol, dict[str, Member]] = {}
        self._keys = 0
        self._max_waiting = max_waiting
        self._reactor = reactor
        self._fan_out = FanOut(self._recipients, self._sender.give, self._installed_reactor)
        self._presence = Presence(self.backplane, self._installed_reactor, self._unwatched)
        self._stopped = False
        self._commanded: Callable[[str], object] | None = None

    def start(self) -> None:
        """Start the backplane, if it is not."""
        self._stopped = False
        self._begin()

    def stop(self) -> Deferred[None]:
        """Stop the backplane until the next `start`; the members stay.

        Returns:
            A Deferred that fires when the backplane has stopped and the members have been sent all messages that the
            hub accepted before.
        """
        self._stopped = True
        stopped = self.backplane.stop()
        return awaitable(self._fan_out.when_empty().addCallback(lambda _: stopped))

    @property
    def dropped(self) -> int:
        """Messages that were dropped for slow members, counted for each member."""
        return self._sender.dropped

    @property
    def expelled(self) -> int:
        """Members that were closed beyond max_buffered."""
        return self._sender.expelled

    @property
    def waiting(self) -> int:
        """Bytes of memory of the messages that wait for their turn to be sent."""
        return self._fan_out.waiting

    @property
    def ready(self) -> bool:
        """Whether the backplane was connected since the start; True for one that does not say."""
        return bool(getattr(self.backplane, "ready", True))

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

    def who(self, room: str) -> Deferred[dict[str, Any]]:
        """List the users in a room on all hubs; while the backplane is away, those of this hub.

        Use `roster` where clients can ask: its answer is bounded.

        Returns:
            A Deferred that fires with a dict: each user's name once, and the data that `join` was given for it, or
            None.
        """
        return awaitable(decoded(self.backplane.who(room)))

    def watch(self, room: str, callback: Callable[[PresenceEvent], object]) -> PresenceWatch:
        """Call a function when a user joins or leaves a room, on any hub. A user is a name.

        The users that are there already join first. A user with several connections joins with the first and leaves
        with the last. A change is reported within a second or two; the users of a process that was killed leave
        within 45 seconds. A user that joins and leaves within a second may cause no event.

        Args:
            room: the room.
            callback: gets each `PresenceEvent`.

        Returns:
            The watch, with a ``stop()``.
        """
        check_room(room)
        if not callable(callback):
            raise TypeError(f"watch(callback={callback!r}): give a function of a PresenceEvent")
        self._begin()
        if room not in self._rooms and not self._presence.watches(room):
            self.backplane.subscribe(room)
        return self._presence.watch(room, callback)

    def _unwatched(self, room: str) -> None:
        if room not in self._rooms:
            self.backplane.unsubscribe(room)

    def roster(self, room: str, *, after: str | None = None, most: int = MAX_LISTED) -> Deferred[Roster]:
        """Fire with the first names of the room's members, sorted, and how many members have a name.

        Args:
            room: the room.
            after: list names that sort behind this one: the last name of the answer before, to read on.
            most: names in one answer. 1000.
        """
        if most < 1:
            raise ValueError(f"roster(most={most!r}): must be greater than 0")
        return awaitable(self.backplane.roster(room, after, most))

    def join(
        self,
        connection: WebSocketProtocol,
        room: str,
        *,
        name: str | None = None,
        data: object = None,
        render: Render = as_published,
        gap: Render = untold,
        after: str | None = None,
    ) -> Deferred[bool]:
        """Let ``connection`` have what is published in ``room`` from now on.

        name: the user's name, by which `who` lists the member; None does not list it.
        data: the user's data for `who` and `watch`, which JSON can express in 1024 bytes; needs a name.
        render: makes of each `Message` what the member is sent: ``str`` as text, ``bytes`` as binary, None for nothing.
            One function, shared by many members, is called once for them all; it must not depend on who they are.
        gap: makes of a `Message` without data what the member is sent when messages may be missing before the next one,
            because the backplane lost them.
        after: the id of the last message that the connection saw, perhaps on another: what the history has behind it
            comes first, at the pace of `drain`.

        Fires with whether it missed nothing: False where an ``after`` was given and its message is no longer kept, or
        the backplane is away. Then it has what there is. Joining again changes nothing.

        Fails with `NotAllowed` if ``may_join`` refuses; the connection then gets nothing of the room.

        Raises `LocalError` before the connection is open, `ConnectionClosed` when it is gone, ``ValueError`` for an
        ``after`` that is no id.
        """
        if not hasattr(connection, "when_closed"):
            raise TypeError(f"join(connection, room): give an open WebSocketProtocol first, not {kind_of(connection)}")
        check_join(room, name, after, render, gap)
        described = data_text(data)
        if described and name is None:
            raise TypeError("join(data=...): give a name, too")
        if connection.state is State.CLOSED:
            raise ConnectionClosed(cast("CloseReason", connection.close_reason))
        if after is not None:
            order_of(after)
        refused = refusal(self._may_join, "join", connection, room)
        if refused is not None:
            return awaitable(refused)
        self._begin()
        rooms = self._rooms_of_open(connection)
        if room in rooms:
            return awaitable(self.backplane.subscribe(room).addCallback(lambda _: True))
        self._keys += 1
        member = Member(connection, str(self._keys), render, gap, name is not None, self._fan_out.number)
        catch_up = None if after is None else self._catch_up(member, room, after)
        member.catch_up = catch_up
        rooms[room] = self._rooms.setdefault(room, {})[connection] = member
        subscribed = self.backplane.subscribe(room)
        if name is not None:
            # A backplane of the application's own need not know of data.
            self.backplane.enter(room, member.key, name, *([described] if described else []))
        if catch_up is None:
            return awaitable(subscribed.addCallback(lambda _: True))
        return awaitable(subscribed.addCallback(lambda _: Deferred.fromCoroutine(catch_up.run())))

    def leave(self, connection: WebSocketProtocol, room: str) -> None:
        """Take ``connection`` out of ``room``; nothing happens if it is not in it.

        It gets nothing more of the room, not even messages that wait for their turn.
        """
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
            if not self._presence.watches(room):
                self.backplane.unsubscribe(room)

    def publish(
        self,
        room: str,
        message: str | bytes,
        *,
        exclude: WebSocketProtocol | None = None,
        keep: bool = True,
        ref: str | None = None,
        sender: WebSocketProtocol | None = None,
    ) -> Deferred[str | None]:
        """Send ``message`` to every member of ``room`` on all hubs, but for ``exclude``.

        Args:
            room: the room.
            message: ``str`` is sent as text, ``bytes`` as binary. Text with lone surrogates raises UnicodeEncodeError.
            exclude: a connection that does not get it.
            keep: put it into the room's history.
            ref: an idempotency key, which makes it safe to publish the message again after a failure: of all messages
                with the same ref in this room within five minutes, the backplane takes one. While the backplane does
                not take it, nobody gets a message with a ref.
            sender: the connection that publishes, for ``may_publish``. None is the application itself, which may.

        Returns:
            A Deferred that fires, when the backplane took the message and the members here have been sent what waited
            for them in the room, with the message's id in the history, or None if no history is kept. Return it from
            your message hook: a sender then goes no faster than the hub. It fails with `PublishError` if the backplane
            did not take the message, or if too much waits (``max_waiting``); the error's ``delivered_here`` says
            whether the members here get it. It fails with `PublishUnknown` if nobody knows whether the backplane took
            it. It fails with `NotAllowed` if ``may_publish`` refuses.
        """
        check_room(room)
        refused = refusal(self._may_publish, "publish", sender, room)
        if refused is not None:
            return awaitable(refused)
        return self._publish(room, message, exclude, keep, ref)

    def publish_to_all(self, message: str | bytes, *, exclude: WebSocketProtocol | None = None) -> Deferred[None]:
        """Send ``message`` once to every connection that is in a room, on all hubs, but for ``exclude``.

        It is in no history. Here it goes out after all messages that were published before it in any room, and before
        all that are published after it. Fires and fails as `publish` does.
        """
        return self._publish(None, message, exclude, False).addCallback(lambda _: None)

    def send_command(self, command: str) -> Deferred[None]:
        """Give ``command`` to every hub on the backplane that takes commands, this one included.

        A command is for the program, not for members. A hub that loses its connection to the backplane for a while
        gets the commands that it missed, as members get messages.

        Returns:
            A Deferred that fires when the backplane accepted the command, and fails as `publish` does.
        """
        return self._publish(COMMANDS, command, None, True).addCallback(lambda _: None)

    def take_commands(self, received: Callable[[str], object]) -> Deferred[None]:
        """Call ``received`` with each command from now on, in the order in which the backplane accepted them.

        Returns:
            A Deferred that fires when the hub is subscribed, or has to wait for the backplane.
        """
        self._commanded = received
        self._begin()
        return awaitable(self.backplane.subscribe(COMMANDS))

    def _publish(
        self,
        room: str | None,
        message: str | bytes,
        exclude: WebSocketProtocol | None,
        keep: bool,
        ref: str | None = None,
    ) -> Deferred[str | None]:
        self._begin()
        message = checked_message(message)
        if self._fan_out.waits(room) and self.waiting + cost_of(message) > self._max_waiting:
            return fail(PublishError("the hub is too slow: too many messages wait to be sent", False))
        # A backplane of somebody else's need not know of refs.
        known_as = () if ref is None else (ref,)
        published = self.backplane.publish(room, message, keep, exclude, *known_as)
        if published.called and not published.paused and not self._fan_out.waits(room):
            return published
        return awaitable(published.addBoth(self._published, room))

    def _published(self, result: str | Failure | None, room: str | None) -> Deferred[str | None]:
        given = self._fan_out.when_given(room)
        return cast("Deferred[str | None]", result if given is None else given.addCallback(lambda _: result))

    def _begin(self) -> None:
        # A message that is published after `stop`, such as the notice of a leave, must not start it again.
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

    def _installed_reactor(self) -> IReactorTime:
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = cast("IReactorTime", reactor)
        return self._reactor

    def _deliver(self, message: Message, exclude: object) -> Deferred[None] | None:
        if message.room == COMMANDS:
            self._command(message)
            return None
        return self._fan_out.add(message, exclude)

    def _command(self, message: Message) -> None:
        if self._commanded is None or message.gap or isinstance(message.data, bytes):
            return
        try:
            self._commanded(message.data)
        except Exception:
            self.log.failure("a command failed")

    def _catch_up(self, member: Member, room: str, after: str) -> CatchUp:
        return CatchUp(
            after,
            lambda after: self.backplane.history(room, after),
            lambda message: self._sender.give_alone(member, message),
            self._pace_of(member.connection),
        )

    def _pace_of(self, connection: WebSocketProtocol) -> Callable[[], Deferred[None]]:
        parts = count(1)

        def pace() -> Deferred[None]:
            drained = connection.drain()
            return drained if next(parts) % PARTS else drained.addCallback(lambda _: self._fan_out.pace())

        return pace

    def _recipients(self, room: str | None, number: int) -> list[Member]:
        """List the members that were there when the hub accepted a message."""
        if room is not None:
            return [member for member in self._rooms.get(room, {}).values() if member.since < number]
        members = (_first(rooms, number) for rooms in self._rooms_of.values())
        return [member for member in members if member is not None]

    def _membership(self, connection: WebSocketProtocol, number: int) -> Member | None:
        return _first(self._rooms_of.get(connection, {}), number)


def _first(rooms: dict[str, Member], number: int) -> Member | None:
    return next((member for member in rooms.values() if member.since < number), None)
