"""Hearing of child processes that ended."""

from __future__ import annotations

import signal
from asyncio import AbstractEventLoop
from dataclasses import dataclass
from typing import Protocol

from twisted.internet.process import reapAllProcesses


class SignalHandling(Protocol):
    """What Twisted's reactors install as they start and uninstall as they stop."""

    def install(self) -> None: ...

    def uninstall(self) -> None: ...


@dataclass
class SignalHandlingWithChildren:
    """Twisted's handling of signals, and a handler for SIGCHLD that has the loop reap what `spawnProcess` started.

    uvloop takes no handler for SIGCHLD but runs those that Python has.
    """

    base: SignalHandling
    loop: AbstractEventLoop
    installed: bool = False

    def install(self) -> None:
        self.base.install()
        signal.signal(signal.SIGCHLD, self._child_ended)
        signal.siginterrupt(signal.SIGCHLD, False)
        self.installed = True
        # Some may have ended before.
        reapAllProcesses()

    def uninstall(self) -> None:
        if self.installed:
            self.installed = False
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self.base.uninstall()

    def _child_ended(self, number: int, frame: object) -> None:
        # The handler may run within anything: reaping waits for its turn.
        self.loop.call_soon_threadsafe(reapAllProcesses)
