"""`MemberSender`: sends messages to the members of a hub's rooms, each framed once for all members that share it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Literal

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twisted_beastws.connection.broadcasting import drop_failed
from twisted_beastws.connection.requests import end_slow_reader
from twisted_beastws.errors import ConnectionClosed, LocalError
from twisted_beastws.hub.backplane import Message
from twisted_beastws.hub.catching_up import CatchUp
from twisted_beastws.hub.fan_out import FanOutDelivery
from twisted_beastws.hub.members import Member, Render
from twisted_beastws.protocol import State, WebSocketProtocol, connection_of
from twisted_beastws.wire.codec import send_at_once
from twisted_beastws.wire.prepared import Prepared, prepare

PARTS = 16
"""Parts of a history, each of 32 messages or 256 KiB, that a member gets in one turn of the reactor."""


class MemberSender:
    """Sends messages to members, and applies the hub's policy for slow readers.

    Args:
        max_buffered: bytes that can wait for a slow member; None leaves it to the connection.
        slow_reader: ``close`` the member beyond them, or ``drop`` the message.
        membership: finds a connection's membership in any room that is older than a message's number, or None.

    Attributes:
        dropped: messages that were dropped for slow members.
        expelled: members that were closed because they read too slowly.
    """

    log = Logger()

    def __init__(
        self,
        max_buffered: int | None,
        slow_reader: Literal["close", "drop"],
        membership: Callable[[WebSocketProtocol, int], Member | None],
    ) -> None:
        self.dropped = 0
        self.expelled = 0
        self._max_buffered = max_buffered
        self._slow_reader = slow_reader
        self._membership = membership

    def give(self, delivery: FanOutDelivery, members: list[Member]) -> None:
        """Send a message to some of its recipients."""
        gap = delivery.message.gap
        ready: dict[Render, list[Member]] = {}
        for member in members:
            if member.left or member.connection is delivery.exclude or member.catch_up is not None:
                self._give_one(delivery, member)
            else:
                ready.setdefault(member.render_gap if gap else member.render, []).append(member)
        for render, group in ready.items():
            prepared = self._framed(delivery, render)
            if prepared is not None:
                self._give_prepared(delivery, prepared, group)

    def _give_prepared(self, delivery: FanOutDelivery, prepared: Prepared, group: list[Member]) -> None:
        # ``render`` is the application's, and may have made members leave. So may a write to another member.
        present = [member for member in group if not member.left]
        gone = [member for member in group if member.left]
        connections = [member.connection for member in present]
        plain = prepared.plain
        rest = [present[place] for place in send_at_once(connections, plain.payload, plain.frame, drop_failed)]
        for member in gone + rest:
            self._give_one(delivery, member)

    def _give_one(self, delivery: FanOutDelivery, member: Member) -> None:
        message = delivery.message
        if member.connection is delivery.exclude:
            return
        if member.left:
            if message.room is None:
                self._give_elsewhere(delivery, member)
        elif member.catch_up is not None:
            self._offer(member, member.catch_up, message)
        else:
            prepared = self._framed(delivery, member.render_gap if message.gap else member.render)
            if prepared is not None:
                self._send(member.connection, prepared)

    def _framed(self, delivery: FanOutDelivery, render: Render) -> Prepared | None:
        framed: dict[Render, Prepared | None] = delivery.framed
        if render not in framed:
            framed[render] = self._frame(render, delivery.message)
        return framed[render]

    def _give_elsewhere(self, delivery: FanOutDelivery, member: Member) -> None:
        """Send a message for all rooms to a connection that left its room, as a member of another room."""
        other = self._membership(member.connection, delivery.number)
        if other is not None:
            self.give(delivery, [other])

    def _offer(self, member: Member, catch_up: CatchUp, message: Message) -> None:
        # A message for all rooms is in no history, so it has no place there.
        if message.room is None:
            self.give_alone(member, message)
            return
        catch_up.offer(message)
        if catch_up.done:
            member.catch_up = None

    def give_alone(self, member: Member, message: Message) -> None:
        render = member.render_gap if message.gap else member.render
        prepared = None if member.left else self._frame(render, message)
        if prepared is not None:
            self._send(member.connection, prepared)

    def _frame(self, render: Render, message: Message) -> Prepared | None:
        try:
            rendered = render(message)
            return None if rendered is None else prepare(rendered)
        except Exception:
            self.log.failure("a message in {room!r} could not be rendered", room=message.room)
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
            # `BufferFull`, or a message larger than the connection can ever hold.
            self.dropped += 1
        except Exception:
            drop_failed(connection)

    def _too_slow(self, connection: WebSocketProtocol) -> None:
        if self._slow_reader == "drop":
            self.dropped += 1
        else:
            self.expelled += 1
            end_slow_reader(connection_of(connection))


def pace_of(connection: WebSocketProtocol, turn: Callable[[], Deferred[None]]) -> Callable[[], Deferred[None]]:
    """Return the pace of a history that a member reads: its own, and a turn for others after `PARTS` parts.

    Args:
        connection: the member's.
        turn: returns a Deferred that fires in a later turn of the reactor.
    """
    parts = count(1)

    def pace() -> Deferred[None]:
        drained = connection.drain()
        return drained if next(parts) % PARTS else drained.addCallback(lambda _: turn())

    return pace
