"""`Commands`: messages from a program to all its hubs. Members do not get them."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from twisted_beastws.hub.backplane import Message

COMMANDS = "\0commands"
"""The room of `Hub.send_command`. No member can join it: no name of a room begins with NUL."""


class Commands:
    """Calls the program with each command.

    Attributes:
        received: the program's function; None ignores commands.
    """

    log = Logger()

    def __init__(self) -> None:
        self.received: Callable[[str], object] | None = None

    def deliver(self, message: Message) -> None:
        """Take a message of the room `COMMANDS`."""
        if self.received is None or message.gap or isinstance(message.data, bytes):
            return
        try:
            self.received(message.data)
        except Exception:
            self.log.failure("a command failed")
