"""`KnownPlace`: the latest id that a hub knows, and the epoch of the dataset."""

from __future__ import annotations

from twisted_beastws.hub.backplane import is_id, order_of
from twisted_beastws.hub.linked_answers import Order, Place


class KnownPlace:
    """The place in the dataset up to which this hub knows its ids.

    Attributes:
        order: the latest id, as numbers; (0, 0) before the first connection.
        epoch: the dataset's epoch; empty before the first connection.
    """

    def __init__(self) -> None:
        self.order: Order = (0, 0)
        self.epoch = ""

    def __str__(self) -> str:
        return "{}-{} {}".format(*self.order, self.epoch)

    def learn(self, place: Place) -> bool:
        """Note the place in an answer; return whether the dataset is another one than before."""
        previous, self.epoch = self.epoch, place.epoch
        self.note(place.position)
        return previous not in ("", place.epoch)

    def note(self, message_id: str) -> None:
        """Note an id that the dataset gave out; text of another program is no id."""
        if is_id(message_id):
            self.order = max(self.order, order_of(message_id))
