"""Options of one connection, in place of those of its factory."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from twisted_beastws.connection.shared import Shared
from twisted_beastws.errors import ConnectionClosed, LocalError
from twisted_beastws.options import Deflate, Limits, Settings, Timeouts

DEFAULTS = Settings()
"""The options of a connection that has no factory yet."""


def use(connection: Shared, settings: Settings) -> None:
    """Use these options in place of the factory's, before the connection is open."""
    connection.settings = settings
    connection.liveness.set_timeouts(settings.timeouts)
    connection.outgoing.set_limits(settings.limits)


def set_options(
    connection: Shared, timeouts: Timeouts | None, limits: Limits | None, deflate: Deflate | Literal[False] | None
) -> None:
    """See `WebSocketProtocol.set_options`."""
    if connection.ended is not None:
        raise ConnectionClosed(connection.ended)
    settings = connection.settings
    if connection.transport is None and settings is DEFAULTS:
        # The factory assigns its own options after ``__init__``.
        raise LocalError("set_options() needs a connection: call it in connectionMade(), or in a hook")
    if deflate is not None:
        if connection.session is not None:
            raise LocalError("set_options(deflate=...): both ends agreed on compression when the connection opened")
        settings = replace(settings, deflate=deflate or None)
    if timeouts is not None:
        settings = replace(settings, timeouts=timeouts)
    if limits is not None:
        _check_rates(connection, limits)
        settings = replace(settings, limits=limits)
    connection.settings = settings
    if connection.transport is not None and timeouts is not None:
        connection.liveness.set_timeouts(timeouts)
    if connection.transport is not None and limits is not None:
        connection.outgoing.set_limits(limits)
    if limits is not None and connection.session is not None and connection.delivery is not None:
        connection.session.set_limits(limits)
        connection.delivery.set_limits(limits)


def _check_rates(connection: Shared, limits: Limits) -> None:
    for name in ("max_message_rate", "max_byte_rate"):
        if connection.session is not None and getattr(limits, name) != getattr(connection.settings.limits, name):
            raise LocalError(f"set_options(limits=...): {name} cannot change once the connection is open")
