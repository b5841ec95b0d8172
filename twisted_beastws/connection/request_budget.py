"""The budget of a connection's requests in one turn of the reactor, before the connection is a WebSocket."""

from __future__ import annotations

from twisted_beastws.connection.facts import Facts


class RequestBudget:
    """Lets the other connections have their turn when one client sends many requests at once.

    ``Limits.max_messages_per_turn`` and ``max_seconds_per_turn`` count for requests as they do for messages. Turns of
    the reactor are not watched for the sake of a few requests: requests count until the budget is spent, and then wait
    for the next turn, even if they came in several turns.
    """

    __slots__ = ("_began", "_count")

    def __init__(self, began: float) -> None:
        """Count the first request, which began at that time."""
        self._count = 1
        self._began = began

    def take(self, connection: Facts) -> None:
        """Count a request, which begins now."""
        if not self._count:
            self._began = connection.liveness.now()
        self._count += 1

    def spent(self, connection: Facts) -> bool:
        """Return whether the next request must wait for the next turn."""
        if not self._count:
            return False
        limits = connection.settings.limits
        if limits.max_messages_per_turn is not None and self._count >= limits.max_messages_per_turn:
            return True
        seconds = limits.max_seconds_per_turn
        return seconds is not None and connection.liveness.now() - self._began > seconds

    def renew(self) -> None:
        """Begin a new turn."""
        self._count = 0
