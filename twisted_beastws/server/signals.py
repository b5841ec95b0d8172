"""The signals of the process, handled in the reactor."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorFromThreads


class Signals:
    """Calls a function for each signal, by the signal's name, in place of its normal handler.

    A signal that the system does not have is left out. It works in the main thread alone, and does nothing in another.
    """

    def __init__(self, reactor: IReactorFromThreads, actions: Mapping[str, Callable[[], None]]) -> None:
        self._reactor = reactor
        self._actions = {getattr(signal, name): action for name, action in actions.items() if hasattr(signal, name)}
        self._before: dict[int, Any] = {}

    def take(self) -> None:
        """Handle the signals from now on. A reactor installs some handlers when it starts, so call this after that."""
        try:
            for number in self._actions:
                self._before[number] = signal.signal(number, self._handle)
        except ValueError:
            return

    def ignore(self) -> None:
        """Ignore the signals from now on."""
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)

    def release(self) -> None:
        """Restore the handlers from before `take`."""
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._actions[number])
