"""The answers of the scripts that run inside Redis, as values."""

from __future__ import annotations

from typing import Any, NamedTuple

Order = tuple[int, int]
"""An id as numbers, by which ids compare."""


class Place(NamedTuple):
    """The place of a dataset: the name of its epoch, and its latest id."""

    epoch: str
    position: str


class Verified(NamedTuple):
    """The answer of POSITION.

    Attributes:
        sure: the dataset has the id that the hub knows. Otherwise it has later ids only, and nothing is certain.
    """

    place: Place
    sure: bool


class Taken(NamedTuple):
    """Redis accepted a message.

    Attributes:
        id: its id, empty if Redis does not keep it.
        again: Redis knew the ref, and had accepted the message before.
    """

    place: Place
    id: str
    again: bool


class Part(NamedTuple):
    """Part of a room's history.

    Attributes:
        start: the latest id when the epoch began.
        whole: no message is missing between the requested id and the first entry, or the place without an entry.
        exact: also, the requested id is one of this room's, in this epoch.
        more: the history has later messages.
        entries: ids and payloads.
    """

    place: Place
    start: str
    whole: bool
    exact: bool
    more: bool
    entries: list[tuple[str, bytes]]


class Swept(NamedTuple):
    """The answer of SWEEP.

    Attributes:
        behind: the indexes of the rooms for which Redis may have more messages than the reader.
    """

    place: Place
    behind: list[int]


class Page(NamedTuple):
    """Listings of a room's members.

    Attributes:
        cursor: the place from which to read on, 0 at the end.
        total: the number of all listings, including those of dead hubs.
    """

    cursor: int
    total: int
    names: list[str]


def place_of(answer: list[Any]) -> Place:
    """The first two values of most answers."""
    return Place(answer[0].decode("ascii", "replace"), answer[1].decode("ascii", "replace"))


def verified_of(answer: list[Any]) -> Verified:
    """The answer of `POSITION`."""
    return Verified(place_of(answer), bool(answer[2]))


def taken_of(answer: list[Any]) -> Taken:
    """The answer of `PUBLISH`."""
    return Taken(place_of(answer), answer[2].decode("ascii", "replace"), bool(answer[3]))


def part_of(answer: list[Any]) -> Part:
    """The answer of `READ`."""
    _, _, start, whole, exact, more, part = answer
    ids = [message_id.decode("ascii", "replace") for message_id in part[::2]]
    entries = list(zip(ids, part[1::2], strict=True))
    return Part(place_of(answer), start.decode("ascii", "replace"), bool(whole), bool(exact), bool(more), entries)


def swept_of(answer: list[Any]) -> Swept:
    """The answer of `SWEEP`."""
    return Swept(place_of(answer), [int(index) for index in answer[2]])


def page_of(answer: list[Any]) -> Page:
    """The answer of `ROSTER`."""
    return Page(int(answer[0]), int(answer[1]), [name.decode("utf-8", "replace") for name in answer[2]])


def inbox_of(answer: list[Any]) -> list[tuple[str, dict[str, bytes]]]:
    """The entries of the inbox: ids and fields."""
    return [
        (
            entry_id.decode("ascii", "replace"),
            {name.decode("utf-8", "replace"): value for name, value in zip(fields[::2], fields[1::2], strict=True)},
        )
        for entry_id, fields in answer
    ]
