"""`Member`: a connection in a room. `Memberships`: all members of a hub."""

from __future__ import annotations

from collections.abc import Callable

from twisted_beastws.hub.backplane import Message
from twisted_beastws.hub.catching_up import CatchUp
from twisted_beastws.protocol import WebSocketProtocol

Render = Callable[[Message], "str | bytes | None"]
"""Turns a message into the data that a member gets, or None for nothing."""


def untold(message: Message) -> None:
    """Return None: the member is not informed of gaps."""


def as_published(message: Message) -> str | bytes | None:
    """Return the message's data."""
    return message.data


class Member:
    """A connection in a room.

    Attributes:
        since: the number of the last message that the hub accepted before the connection joined.
    """

    __slots__ = ("catch_up", "connection", "key", "left", "named", "render", "render_gap", "since")

    def __init__(
        self, connection: WebSocketProtocol, key: str, render: Render, render_gap: Render, named: bool, since: int
    ) -> None:
        self.connection = connection
        self.key = key
        self.render = render
        self.render_gap = render_gap
        self.named = named
        self.since = since
        self.catch_up: CatchUp | None = None
        self.left = False


class Memberships:
    """The members of a hub.

    Attributes:
        by_room: the members of each room, by connection.
        by_connection: the memberships of each connection, by room.
    """

    def __init__(self) -> None:
        self.by_room: dict[str, dict[WebSocketProtocol, Member]] = {}
        self.by_connection: dict[WebSocketProtocol, dict[str, Member]] = {}

    def recipients(self, room: str | None, number: int) -> list[Member]:
        """Return the members that had joined when the hub accepted a message.

        Args:
            room: the message's room; None is a message for all, which each connection gets once.
            number: the message's number.
        """
        if room is not None:
            return [member for member in self.by_room.get(room, {}).values() if member.since < number]
        members = (_first(rooms, number) for rooms in self.by_connection.values())
        return [member for member in members if member is not None]

    def of_connection(self, connection: WebSocketProtocol, number: int) -> Member | None:
        """Return a membership of a connection that is older than a message, in any room."""
        return _first(self.by_connection.get(connection, {}), number)


def _first(rooms: dict[str, Member], number: int) -> Member | None:
    return next((member for member in rooms.values() if member.since < number), None)
