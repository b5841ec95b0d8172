"""Rooms: a message to a room goes to all its members, on one machine or on many."""

from twisted_beastws.hub.backplane import (
    Backplane,
    History,
    Message,
    PublishError,
    PublishUnknown,
    Roster,
)
from twisted_beastws.hub.hub import Hub
from twisted_beastws.hub.local import LocalBackplane
from twisted_beastws.hub.permissions import NotAllowed
from twisted_beastws.hub.presence import PresenceEvent, PresenceWatch

__all__ = [
    "Backplane",
    "History",
    "Hub",
    "LocalBackplane",
    "Message",
    "NotAllowed",
    "PresenceEvent",
    "PresenceWatch",
    "PublishError",
    "PublishUnknown",
    "Roster",
]
