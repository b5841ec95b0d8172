"""Rooms: what is published in one goes to all its members, on one machine or on many."""

from twisted_beastws.hub.backplane import (
    Backplane,
    History,
    LocalBackplane,
    Message,
    PublishError,
    PublishUnknown,
    Roster,
)
from twisted_beastws.hub.hub import Hub
from twisted_beastws.hub.permissions import NotAllowed

__all__ = [
    "Backplane",
    "History",
    "Hub",
    "LocalBackplane",
    "Message",
    "NotAllowed",
    "PublishError",
    "PublishUnknown",
    "Roster",
]
