"""The results of Deferreds, in a form that tests compare."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from twisted_beastws import ConnectionClosed


class Outcome(list[Any]):
    """The result of a Deferred in a list, which is empty until then; a failure becomes its exception."""

    def __init__(self, deferred: Deferred[Any]) -> None:
        deferred.addCallbacks(self.append, lambda failure: self.append(failure.value))

    @property
    def types(self) -> list[type]:
        # ConnectionClosed has two private subclasses; tests compare the public class.
        return [ConnectionClosed if isinstance(one, ConnectionClosed) else type(one) for one in self]
