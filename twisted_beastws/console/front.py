"""What stands between the user and the connection: a terminal, or pipes."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred

from twisted_beastws.console.commands import Command


class User(Protocol):
    """Does what the input asks for."""

    def command(self, command: Command) -> None:
        """Do it, and tell what came of it."""

    def input_ended(self, complete: bool = True) -> None:
        """There is no more; if it is not ``complete``, some of it could not be made out."""

    def pauseProducing(self) -> None:
        """The output is behind."""

    def resumeProducing(self) -> None:
        """The output keeps up."""

    def stopProducing(self) -> None:
        """The output is gone."""


class Front(Protocol):
    """Shows what happens, and reads what is typed. It is a producer: it can be told to read no more."""

    def start(self, user: User) -> None:
        """Begin to read; `message` and the others may be called from now on."""

    def message(self, message: str | bytes) -> None:
        """Show a message."""

    def note(self, text: str) -> None:
        """Show something of ours; it must be safe for a terminal."""

    def fault(self, text: str) -> None:
        """Show what went wrong; it must be safe for a terminal."""

    def stop(self) -> Deferred[None]:
        """Read no more; fires when everything is written, and the terminal is as it was."""

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def stopProducing(self) -> None: ...
