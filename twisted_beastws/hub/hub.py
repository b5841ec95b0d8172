"""`Hub`: rooms of connections, in which a message is framed once for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, cast

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from twisted_beastws.connection.awaiting import awaitable
from twisted_beastws.errors import ConnectionClosed
from twisted_beastws.hub.arguments import check_hub, check_join, check_room, checked_message
from twisted_beastws.hub.backplane import Backplane, BackplaneState, Message, PublishError, Roster, order_of
from twisted_beastws.hub.catching_up import CatchUp
from twisted_beastws.hub.commands import COMMANDS, Commands
from twisted_beastws.hub.fan_out import FanOut, cost_of
from twisted_beastws.hub.local import LocalBackplane
from twisted_beastws.hub.members import Member, Memberships, Render, as_published, untold
from twisted_beastws.hub.permissions import Permission, refusal
from twisted_beastws.hub.presence import Presence, PresenceEvent, PresenceWatch, data_text, decoded
from twisted_beastws.hub.sending import MemberSender, pace_of
from twisted_beastws.protocol import State, WebSocketProtocol

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from twisted_beastws.wire.closing import CloseReason

MAX_LISTED = 1000
"""The most names in one answer of `Hub.roster`."""


class Hub:
    """Rooms, and the connections in them. A connection can be in several rooms, and leaves all when it ends.

    Sending a message to a large room is cooperative: it takes at most a few milliseconds at a time, and rooms take
    turns. Each member gets a room's messages in their order, from the first that is published after its `join`.

    Args:
        backplane: joins this hub with others, and keeps the rooms' history. None is a `LocalBackplane`.
        max_buffered: bytes that can wait for a member that reads slowly. None leaves it to the connection's own
            ``Limits.max_buffered`` and ``slow_reader``; with its ``pause`` a slow member misses messages.
        slow_reader: the policy beyond max_buffered: ``close`` the member with 1013, or ``drop`` the message for it.
        max_waiting: bytes of memory that messages can take while they wait for their turn to be sent. Beyond it the hub
            refuses further messages for a room that has waiting ones: `publish` fails. 16 MiB (`RedisBackplane`'s
            ``max_in_flight``).
        may_join: called with a connection and a room at each `join`; False refuses it. None allows every join.
        may_publish: called in the same way at each `publish` that names its ``sender``.
        reactor: None is the installed one. The hub needs it only when a message has to wait.

    The first `join` or `publish` starts the backplane, unless `start` did.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is out of its range.
    """

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
        check_hub(backplane, max_buffered, slow_reader, max_waiting, may_join, may_publish)
        self._may_join = may_join
        self._may_publish = may_publish
        self.backplane: Backplane = LocalBackplane() if backplane is None else backplane
        self._members = Memberships()
        self._sender = MemberSender(max_buffered, slow_reader, self._members.of_connection)
        self._keys = 0
        self._max_waiting = max_waiting
        self._reactor = reactor
        self._fan_out = FanOut(self._members.recipients, self._sender.give, self._installed_reactor)
        self._presence = Presence(self.backplane, self._installed_reactor, self._unwatched)
        self._stopped = False
        self._commands = Commands()

    def start(self) -> None:
        """Start the backplane if it is not started."""
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
        """The number of messages dropped for slow members, counted for each member."""
        return self._sender.dropped

    @property
    def expelled(self) -> int:
        """The number of members closed beyond max_buffered."""
        return self._sender.expelled

    @property
    def waiting(self) -> int:
        """The memory of the pending messages in bytes."""
        return self._fan_out.waiting

    @property
    def ready(self) -> bool:
        """Whether the backplane was ever connected since the start. True if the backplane does not say."""
        return bool(getattr(self.backplane, "ready", True))

    @property
    def rooms(self) -> dict[str, int]:
        """The rooms that have members here, with the number of members."""
        return {room: len(members) for room, members in self._members.by_room.items()}

    @property
    def room_count(self) -> int:
        """The number of rooms that have members here."""
        return len(self._members.by_room)

    @property
    def connections(self) -> int:
        """The live connections that have joined a room."""
        return len(self._members.by_connection)

    def members(self, room: str) -> tuple[WebSocketProtocol, ...]:
        """Return the members of ``room`` on this hub, in the order in which they joined."""
        return tuple(self._members.by_room.get(room, ()))

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
        if room not in self._members.by_room and not self._presence.watches(room):
            self.backplane.subscribe(room)
        return self._presence.watch(room, callback)

    def _unwatched(self, room: str) -> None:
        if room not in self._members.by_room:
            self.backplane.unsubscribe(room)

    def roster(self, room: str, *, after: str | None = None, most: int = MAX_LISTED) -> Deferred[Roster]:
        """Fire with the first names of the room's members, sorted, and how many members have a name.

        Args:
            room: the room.
            after: list the names after this one: give the last name of an answer to get the next ones.
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
        """Send ``connection`` the messages of ``room`` from now on.

        Args:
            connection: an open connection.
            room: the room.
            name: the user's name in `who`; None lists no name.
            data: the user's data for `who` and `watch`, of at most 1024 bytes as JSON; needs a name.
            render: turns each `Message` into the data that the member gets: ``str`` as text, ``bytes`` as binary, None
                for nothing. The hub calls a function once for all members that share it.
            gap: makes the notice for the member when messages may be missing before the next one.
            after: the id of the last message that the connection got, perhaps on another one. The hub first sends the
                later messages of the history, at the pace of `drain`.

        Joining again changes nothing.

        Returns:
            A Deferred that fires with whether the connection missed no message. It is False if the history no longer
            has the message ``after``, or the backplane is away; the connection then gets the messages that are there.
            It fails with `NotAllowed` if ``may_join`` refuses; the connection then gets nothing of the room.

        Raises:
            LocalError: the connection is not open yet.
            ConnectionClosed: the connection is gone.
            ValueError: ``after`` is no id.
        """
        check_join(connection, room, name, after, render, gap)
        described = data_text(data, name)
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
        rooms[room] = self._members.by_room.setdefault(room, {})[connection] = member
        subscribed = self.backplane.subscribe(room)
        if name is not None:
            # A custom backplane may not support data.
            self.backplane.enter(room, member.key, name, *([described] if described else []))
        if catch_up is None:
            return awaitable(subscribed.addCallback(lambda _: True))
        return awaitable(subscribed.addCallback(lambda _: Deferred.fromCoroutine(catch_up.run())))

    def leave(self, connection: WebSocketProtocol, room: str) -> None:
        """Remove ``connection`` from ``room``: it gets no more messages of the room, not even pending ones."""
        member = self._members.by_connection.get(connection, {}).pop(room, None)
        if member is None:
            return
        member.left = True
        # Break a reference cycle: the catch-up refers to the member.
        catch_up, member.catch_up = member.catch_up, None
        if catch_up is not None:
            catch_up.stop()
        members = self._members.by_room[room]
        del members[connection]
        if member.named:
            self.backplane.exit(room, member.key)
        if not members:
            del self._members.by_room[room]
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
        """Send ``message`` to every member of ``room`` on all hubs, except ``exclude``.

        Args:
            room: the room.
            message: ``str`` is sent as text, ``bytes`` as binary. Text with lone surrogates raises UnicodeEncodeError.
            exclude: a connection that does not get the message.
            keep: put the message into the room's history.
            ref: an idempotency key, which makes it safe to publish the message again after a failure. Of all messages
                with the same ref in this room within five minutes, the backplane accepts one. No member gets a message
                with a ref that the backplane has not accepted.
            sender: the connection that publishes, for ``may_publish``. None is the application itself, which may.

        Returns:
            A Deferred that fires with the message's id in the history, or None without a history, when the backplane
            has accepted the message and the members here have been sent the pending messages of the room. Return it
            from your message hook: a sender then goes no faster than the hub. It fails with `PublishError` if the
            backplane did not accept the message, or if too many messages are pending (``max_waiting``); the error's
            ``delivered_here`` is True if the members here get it. It fails with `PublishUnknown` if the outcome is
            unknown, and with `NotAllowed` if ``may_publish`` refuses.
        """
        check_room(room)
        refused = refusal(self._may_publish, "publish", sender, room)
        if refused is not None:
            return awaitable(refused)
        return self._publish(room, message, exclude, keep, ref)

    def publish_to_all(self, message: str | bytes, *, exclude: WebSocketProtocol | None = None) -> Deferred[None]:
        """Send ``message`` once to every connection in any room, on all hubs, except ``exclude``.

        The message is in no history. On this hub it is sent after all earlier messages of any room, and before all
        later ones. The Deferred fires and fails as that of `publish`.
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
        self._commands.received = received
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
        # A custom backplane may not support refs.
        known_as = () if ref is None else (ref,)
        published = self.backplane.publish(room, message, keep, exclude, *known_as)
        if published.called and not published.paused and not self._fan_out.waits(room):
            return published
        return awaitable(published.addBoth(self._published, room))

    def _published(self, result: str | Failure | None, room: str | None) -> Deferred[str | None]:
        given = self._fan_out.when_given(room)
        return cast("Deferred[str | None]", result if given is None else given.addCallback(lambda _: result))

    def _begin(self) -> None:
        # A message published after `stop`, such as the notice of a leave, must not start the backplane again.
        if self.backplane.state is BackplaneState.STOPPED and not self._stopped:
            self.backplane.start(self._deliver)

    def _rooms_of_open(self, connection: WebSocketProtocol) -> dict[str, Member]:
        rooms = self._members.by_connection.get(connection)
        if rooms is None:
            ended = connection.when_closed()
            rooms = self._members.by_connection[connection] = {}
            # A closure would cost each connection four objects.
            ended.addCallback(self._ended, connection)
        return rooms

    def _ended(self, _: CloseReason, connection: WebSocketProtocol) -> None:
        for room in list(self._members.by_connection[connection]):
            self.leave(connection, room)
        del self._members.by_connection[connection]

    def _installed_reactor(self) -> IReactorTime:
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = cast("IReactorTime", reactor)
        return self._reactor

    def _deliver(self, message: Message, exclude: object) -> Deferred[None] | None:
        if message.room != COMMANDS:
            return self._fan_out.add(message, exclude)
        self._commands.deliver(message)
        return None

    def _catch_up(self, member: Member, room: str, after: str) -> CatchUp:
        return CatchUp(
            after,
            lambda after: self.backplane.history(room, after),
            lambda message: self._sender.give_alone(member, message),
            pace_of(member.connection, self._fan_out.pace),
        )
