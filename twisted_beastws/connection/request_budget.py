"""The budget of a connection's requests in one turn of the reactor, before the connection is a WebSocket."""

from __future__ import annotations

from twisted_beastws.connection.interfaces import HandshakeHost


class RequestBudget:
    """Lets the other connections have their turn when one client sends many requests at once.

    ``Limits.max_messages_per_turn`` and ``max_seconds_per_turn`` count for requests as they do for messages. Turns of
    the reactor are not watched for the sake of a few requests: requests count until the budget is spent, and then wait
    for the next turn, even if they came in several turns.
    """

    __slots__ = ("_began", "_count", "_host")

    def __init__(self, host: HandshakeHost) -> None:
        self._host = host
        self._count = 0
        self._began = 0.0

    async def take(self) -> None:
        """Count a request, which may begin when this returns."""
        if self._spent():
            await self._host.next_turn()
            self._count = 0
        if not self._count:
            self._began = self._host.now()
        self._count += 1

    def _spent(self) -> bool:
        limits = self._host.settings.limits
        if not self._count:
            return False
        if limits.max_messages_per_turn is not None and self._count >= limits.max_messages_per_turn:
            return True
        seconds = limits.max_seconds_per_turn
        return seconds is not None and self._host.now() - self._began > seconds
