"""What stands between the user and the connection: a terminal, or pipes."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred

from twisted_beastws.console.commands import Command


class User(Protocol):
    """Runs the commands of the input."""

    def command(self, command: Command) -> None:
        """Run it, and show its result."""

    def input_ended(self, complete: bool = True) -> None:
        """There is no more; if it is not ``complete``, some of it could not be made out."""

    def pauseProducing(self) -> None:
        """The output is too slow."""

    def resumeProducing(self) -> None:
        """The output keeps up."""

    def stopProducing(self) -> None:
        """The output is gone."""


class Front(Protocol):
    """Shows events, and reads the input. It is a producer: its reading can be paused."""

    def start(self, user: User) -> None:
        """Begin to read; `message` and the others may be called from now on."""

    def message(self, message: str | bytes) -> None:
        """Show a message."""

    def note(self, text: str) -> None:
        """Show something of ours; it must be safe for a terminal."""

    def fault(self, text: str) -> None:
        """Show an error; the text must be safe for a terminal."""

    def stop(self) -> Deferred[None]:
        """Read no more; fires when everything is written, and the terminal is as it was."""

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def stopProducing(self) -> None: ...
