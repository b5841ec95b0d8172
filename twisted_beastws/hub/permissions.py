"""Room permissions: functions of the application decide which connections may join and publish."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from twisted_beastws.errors import WebSocketError
from twisted_beastws.protocol import WebSocketProtocol

Permission = Callable[[WebSocketProtocol, str], bool]
"""Decides for a connection and a room. It must return True or False at once."""


class NotAllowed(WebSocketError):
    """The application's ``may_join`` or ``may_publish`` refused.

    Attributes:
        action: ``join`` or ``publish``.
        room: the room.
    """

    def __init__(self, action: str, room: str) -> None:
        super().__init__(f"not allowed to {action} {'the' if action == 'join' else 'in the'} room {room!r}")
        self.action = action
        self.room = room


def refusal(
    permission: Permission | None, action: str, connection: WebSocketProtocol | None, room: str
) -> Deferred[Any] | None:
    """Ask the application.

    Returns:
        None if the connection is allowed, else a Deferred that failed with `NotAllowed`, or with the error that the
        application's function raised.
    """
    if permission is None or connection is None:
        return None
    try:
        allowed = permission(connection, room)
        if not isinstance(allowed, bool):
            raise TypeError(f"may_{action} must return True or False, not {allowed!r}")
    except Exception:
        return fail(Failure())
    return None if allowed else fail(NotAllowed(action, room))
