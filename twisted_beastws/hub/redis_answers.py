"""The answers of the scripts that run inside Redis, as values."""

from __future__ import annotations

from typing import Any

from twisted_beastws.hub.linked_answers import Page, Part, Place, Swept, Taken, Verified


def place_of(answer: list[Any]) -> Place:
    """The first two values of most answers."""
    return Place(answer[0].decode("ascii", "replace"), answer[1].decode("ascii", "replace"))


def verified_of(answer: list[Any]) -> Verified:
    """The answer of `POSITION`."""
    _, _, sure, server, awaits, unconfirmed = answer
    return Verified(place_of(answer), bool(sure), server.decode(), awaits.decode("ascii", "replace"), bool(unconfirmed))


def taken_of(answer: list[Any]) -> Taken:
    """The answer of `PUBLISH`."""
    _, _, message_id, again, awaits = answer
    return Taken(
        place_of(answer), message_id.decode("ascii", "replace"), bool(again), awaits.decode("ascii", "replace")
    )


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
