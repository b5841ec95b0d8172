"""`Control`: the API's commands for every process of the service, on this machine and others."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from secrets import token_hex
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from twisted_beastws.hub import Hub, LocalBackplane, PublishError
from twisted_beastws.protocol import State, WebSocketProtocol
from twisted_beastws.service.api.parsing import Disconnection

PATIENCE = 1.0
"""Seconds in which all processes have to list their rooms: the backplane takes a few milliseconds."""

MAX_ROOMS = 10_000
"""Rooms that a process lists."""


class Control(Service):
    """Takes commands from the API of any process that shares the backplane, and gives them.

    Args:
        reactor: provides timers.
        hub: carries the commands.
        connections: returns the connections of this process.
    """

    log = Logger()

    def __init__(self, reactor: Any, hub: Hub, connections: Callable[[], Iterable[WebSocketProtocol]]) -> None:
        self._reactor = reactor
        self._hub = hub
        self._connections = connections
        self._answers: dict[str, Counter[str]] = {}

    def startService(self) -> None:
        """Take commands from now on."""
        super().startService()  # type: ignore[no-untyped-call]
        self._hub.take_commands(self._received)

    def disconnect(self, wanted: Disconnection) -> Deferred[Any]:
        """Have every process close its connections that are wanted. Fails with `PublishError`."""
        return self._hub.send_command(json.dumps({"disconnect": wanted}))

    async def rooms(self) -> Counter[str]:
        """Return the rooms with connections, and how many connections each has, of all processes.

        Raises:
            PublishError: the backplane does not take the question.
        """
        question = token_hex(16)
        counts = self._answers[question] = Counter()
        try:
            await self._hub.send_command(json.dumps({"rooms": question}))
            if not isinstance(self._hub.backplane, LocalBackplane):
                await deferLater(self._reactor, PATIENCE, lambda: None)
        finally:
            del self._answers[question]
        return counts

    def _received(self, command: str) -> None:
        try:
            ((kind, value),) = json.loads(command).items()
        except (ValueError, AttributeError):
            self.log.warn("a command is not understood: {command!r}", command=command[:200])
            return
        if kind == "disconnect":
            self._disconnect(Disconnection(*value))
        elif kind == "rooms":
            rooms = dict(sorted(self._hub.rooms.items())[:MAX_ROOMS])
            # The process that asked counts an answer that is lost as no rooms.
            self._hub.send_command(json.dumps({"answer": [value, rooms]})).addErrback(
                lambda why: why.trap(PublishError)
            )
        elif kind == "answer" and value[0] in self._answers:
            self._answers[value[0]].update(value[1])

    def _disconnect(self, wanted: Disconnection) -> None:
        user, name, room, code, reason = wanted
        found: Iterable[WebSocketProtocol] = self._connections() if room is None else self._hub.members(room)
        for connection in list(found):
            if connection.state is not State.OPEN:
                continue
            if user is not None and (connection.user is None or str(connection.user) != user):
                continue
            if name is not None and getattr(connection, "name", None) != name:
                continue
            connection.close(code, reason)
