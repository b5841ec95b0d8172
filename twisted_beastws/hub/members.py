"""`Member`: a connection in a room, and what it is sent of a message."""

from __future__ import annotations

from collections.abc import Callable

from twisted_beastws.hub.backplane import Message
from twisted_beastws.hub.catching_up import CatchUp
from twisted_beastws.protocol import WebSocketProtocol

Render = Callable[[Message], "str | bytes | None"]
"""Makes of a message what a member is sent, or None for nothing."""


def untold(message: Message) -> None:
    """Nothing, for members that are not told of gaps."""


def as_published(message: Message) -> str | bytes | None:
    """The message's data."""
    return message.data


class Member:
    """A connection in a room. since: the number of the last message that the hub accepted before it joined."""

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
