"""The forms in which Redis carries messages, and lists the users of a room."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.logger import Logger

from twisted_beastws.hub.backplane import History, Message, Roster, UsersHere, order_of
from twisted_beastws.hub.linked_answers import Page, Part


def encode(message: Message) -> bytes:
    """Return the payload for a message: its sender, number and kind, and its data."""
    kind, data = ("t", message.data.encode()) if isinstance(message.data, str) else ("b", message.data)
    return f"{message.sender} {message.number} {kind}\n".encode() + data


def decode(room: str | None, message_id: str | None, payload: bytes) -> Message:
    """Return the message of a payload. Raises ``ValueError`` for one that is not of this kind."""
    head, newline, data = payload.partition(b"\n")
    sender, number, kind = head.decode().split(" ")
    if not newline or kind not in ("t", "b"):
        raise ValueError("not a message of ours")
    return Message(room, data.decode() if kind == "t" else data, message_id, sender, int(number))


def listing_of(name: str, data: str) -> str:
    """Return how Redis lists a member: its name and, after a newline, its data as JSON."""
    return f"{name}\n{data}" if data or "\n" in name else name


def people_of(listings: Iterable[str]) -> dict[str, str]:
    """Return the users of a room from its listings: each name once, with data as JSON."""
    people: dict[str, str] = {}
    for listing in listings:
        name, newline, data = listing.rpartition("\n")
        people[name if newline else data] = data if newline else ""
    return people


def users_of(page: Page) -> dict[str, str]:
    """Return the users on a page."""
    people = people_of(page.names)
    return UsersHere(people) if page.here else people


def roster_of(page: Page, after: str | None, most: int) -> Roster:
    """Return at most ``most`` names of a page after ``after``, sorted."""
    names = sorted(people_of(page.names))
    return Roster([name for name in names if after is None or name > after][:most], page.total)


class MessageReader:
    """Reads messages that Redis carries; other programs can publish there, too.

    Args:
        logger: logs payloads that are no messages.
    """

    def __init__(self, logger: Logger) -> None:
        self._logger = logger

    def read(self, room: str | None, message_id: str | None, payload: bytes) -> Message | None:
        """Return the message of a payload; log one that is no message, and return None."""
        try:
            if message_id is not None:
                order_of(message_id)
            return decode(room, message_id, payload)
        except ValueError:
            self._logger.warn(
                "another program publishes where the backplane does: {room!r}, {id!r}", room=room, id=message_id
            )
            return None

    def history(self, part: Part, room: str, keeps: bool) -> History:
        """Return a part of a room's history. keeps: this hub's own messages are kept."""
        read = [self.read(room, message_id, payload) for message_id, payload in part.entries]
        messages = [message for message in read if message is not None]
        # Without any message of ours there is no id from which to read on.
        return History(messages, part.exact and keeps, part.more and bool(messages), part.place.position)
