"""The answers of a link to a backplane's server, as values."""

from __future__ import annotations

from typing import NamedTuple

Order = tuple[int, int]
"""An id as numbers, by which ids compare."""


class Place(NamedTuple):
    """The place of a dataset: the name of its epoch, and its latest id."""

    epoch: str
    position: str


class Verified(NamedTuple):
    """The answer to a hub that returns.

    Attributes:
        sure: the dataset has the id that the hub knows. Otherwise it has later ids only, and nothing is certain.
        server: the server process that holds the dataset.
        awaits: the id of this hub's registration while the hub may not acknowledge messages; else empty.
        unconfirmed: another hub waits until this one knows the id of its registration.
    """

    place: Place
    sure: bool
    server: str
    awaits: str
    unconfirmed: bool


class Standing(NamedTuple):
    """The part of a question for the dataset's place that says how far the dataset can rely on this hub.

    Attributes:
        vouched: "1" if the hub vouches for the dataset of a server, "0" if it cannot, a space and the server; or empty.
        waited: the id of a registration after which the hub has waited until all other leases ended; or empty.
        waiting: the hub may not acknowledge messages yet, also in another dataset.
    """

    vouched: str
    waited: str
    waiting: bool


class Taken(NamedTuple):
    """The server accepted a message.

    Attributes:
        id: its id, empty if the server does not keep it.
        again: the server knew the ref, and had accepted the message before.
        awaits: as of `Verified`.
    """

    place: Place
    id: str
    again: bool
    awaits: str


class Part(NamedTuple):
    """Part of a room's history.

    Attributes:
        start: the latest id when the epoch began.
        whole: no message is missing between the requested id and the first entry, or the place without an entry.
        exact: also, the requested id is one of this room's, in this epoch. For ``0-0``: no message is missing that any
            dataset known to the hubs had in this room.
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
    """The answer to the question which rooms have messages that a hub may miss.

    Attributes:
        behind: the indexes of the rooms for which the server may have more messages than the reader.
    """

    place: Place
    behind: list[int]


class Page(NamedTuple):
    """Listings of a room's members.

    Attributes:
        cursor: the place from which to read on, 0 at the end.
        total: the number of all listings, including those of dead hubs.
        here: these are only the members of this hub, because the server did not answer.
    """

    cursor: int
    total: int
    names: list[str]
    here: bool = False
