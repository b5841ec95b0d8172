"""The answers of the scripts that run inside Redis, as values."""

from __future__ import annotations

from typing import Any, NamedTuple

Order = tuple[int, int]
"""An id as numbers, by which ids compare."""


class Place(NamedTuple):
    """Where the dataset is: the name of its epoch, and its latest id."""

    epoch: str
    position: str


class Verified(NamedTuple):
    """sure: the dataset has the id that the hub knows; otherwise it has only later ones, and the hub cannot tell."""

    place: Place
    sure: bool


class Taken(NamedTuple):
    """A message was taken. id: empty if it is not kept. again: its ref was known; it was taken before."""

    place: Place
    id: str
    again: bool


class Part(NamedTuple):
    """Part of a room's history.

    start: where the epoch began. whole: nothing is missing between the id asked from and the first entry, or the place
    if there is none. exact: also, the id asked from is one of this room's, in this epoch. more: there are later ones.
    entries: ids and payloads.
    """

    place: Place
    start: str
    whole: bool
    exact: bool
    more: bool
    entries: list[tuple[str, bytes]]


class Swept(NamedTuple):
    """behind: the indexes of those rooms for which Redis may have more than their reader."""

    place: Place
    behind: list[int]


class Page(NamedTuple):
    """Names of a room's members. cursor: where to go on, 0 at the end. total: of all, with those of dead hubs."""

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
