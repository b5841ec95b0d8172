"""Messages, and users of a room, as Redis carries them."""

from __future__ import annotations

from collections.abc import Iterable

from twisted_beastws.hub.backplane import Message


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
