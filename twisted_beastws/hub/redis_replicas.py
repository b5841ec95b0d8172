"""`ReplicaWait`: waits until replicas have a message, with one WAIT for all messages that were sent meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twisted_beastws.hub.linked_answers import Taken
from twisted_beastws.hub.linked_errors import LinkLost, NotReplicated

REPLICA_TIMEOUT = 1.0
"""Seconds for the replicas to confirm a message, with ``min_replicas``."""


class ReplicaWait:
    """Confirms messages that Redis accepted.

    WAIT covers all earlier commands of its connection and blocks the later ones. So one WAIT is under way at a time,
    and the next one is for all messages since. Replicas that are away then delay all messages together by
    `REPLICA_TIMEOUT`, and not each message.

    Args:
        execute: sends a command.
        replicas: the number of replicas that must confirm a message; 0 waits for none.
    """

    def __init__(self, execute: Callable[..., Deferred[Any]], replicas: int) -> None:
        self._execute = execute
        self._replicas = replicas
        self._group: list[Deferred[int]] = []
        self._waiting = False

    def confirm(self, taken: Deferred[Taken]) -> Deferred[Taken]:
        """Return the answer to a publication whose command was just sent, when enough replicas have the message.

        It fails with `NotReplicated` if they do not confirm it in time.
        """
        if not self._replicas:
            return taken
        confirmed: Deferred[int] = Deferred()
        self._group.append(confirmed)
        if not self._waiting:
            self._wait()

        def answered(answer: Taken | Failure) -> Any:
            # Redis answers before the WAIT. A message that it refused needs no replica.
            if isinstance(answer, Failure):
                confirmed.addErrback(lambda _: None)
                return answer
            return confirmed.addCallback(self._check, answer)

        return taken.addBoth(answered)

    def _check(self, replicas: int, taken: Taken) -> Taken:
        if replicas < self._replicas:
            raise NotReplicated(f"{replicas} of {self._replicas} replicas have the message")
        return taken

    def _wait(self) -> None:
        group, self._group = self._group, []
        self._waiting = True
        try:
            waited = self._execute("WAIT", self._replicas, int(REPLICA_TIMEOUT * 1000))
        except LinkLost:
            self._waited(Failure(), group)
        else:
            waited.addBoth(self._waited, group)

    def _waited(self, replicas: int | Failure, group: list[Deferred[int]]) -> None:
        self._waiting = False
        if self._group:
            self._wait()
        for confirmed in group:
            confirmed.callback(replicas)
