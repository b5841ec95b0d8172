"""The interfaces between the connection and its front, which is a terminal or pipes."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred

from twisted_beastws.console.commands import Command


class User(Protocol):
    """Runs the commands of the input. The front calls these methods."""

    def command(self, command: Command) -> None:
        """Run a command, and show its result."""

    def input_ended(self, complete: bool = True) -> None:
        """The input has ended. It is not ``complete`` if a part of it could not be understood."""

    def pauseProducing(self) -> None:
        """The output is too slow: pause the source of messages."""

    def resumeProducing(self) -> None:
        """The output keeps up again."""

    def stopProducing(self) -> None:
        """The output was closed."""


class Front(Protocol):
    """Shows events and reads the input. As a producer it can pause reading."""

    def start(self, user: User) -> None:
        """Begin to read the input. From now on the other methods may be called."""

    def message(self, message: str | bytes) -> None:
        """Show a received message."""

    def note(self, text: str) -> None:
        """Show a notice of the program; the text must be safe for a terminal."""

    def fault(self, text: str) -> None:
        """Show an error; the text must be safe for a terminal."""

    def stop(self) -> Deferred[None]:
        """Stop reading. The Deferred fires when all output is written and the terminal is restored."""

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def stopProducing(self) -> None: ...
