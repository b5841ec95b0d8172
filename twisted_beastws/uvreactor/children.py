"""Notice that child processes have ended."""

from __future__ import annotations

import signal
from asyncio import AbstractEventLoop
from dataclasses import dataclass
from typing import Protocol

from twisted.internet.process import reapAllProcesses


class SignalHandling(Protocol):
    """The signal handling that Twisted's reactors install when they start and uninstall when they stop."""

    def install(self) -> None: ...

    def uninstall(self) -> None: ...


@dataclass
class SignalHandlingWithChildren:
    """Twisted's signal handling, and a handler for SIGCHLD that makes the loop reap processes of ``spawnProcess``.

    uvloop accepts no handler for SIGCHLD, but it runs the handlers of Python's ``signal`` module.
    """

    base: SignalHandling
    loop: AbstractEventLoop
    installed: bool = False

    def install(self) -> None:
        self.base.install()
        signal.signal(signal.SIGCHLD, self._child_ended)
        signal.siginterrupt(signal.SIGCHLD, False)
        self.installed = True
        # Some children may have ended before the handler was installed.
        reapAllProcesses()

    def uninstall(self) -> None:
        if self.installed:
            self.installed = False
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self.base.uninstall()

    def _child_ended(self, number: int, frame: object) -> None:
        # The handler may interrupt any code, so reap in the next turn of the loop.
        self.loop.call_soon_threadsafe(reapAllProcesses)
