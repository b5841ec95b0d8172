"""The front for scripts: one message per line on the standard output, everything else on the standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_beastws.console.commands import CommandError, MessageCommand, parse
from twisted_beastws.console.front import User
from twisted_beastws.console.style import Style


def _standard_io(protocol: Any, stdin: int) -> Any:
    # Import it late: on Windows it needs packages besides Twisted.
    from twisted.internet.stdio import StandardIO

    return StandardIO(protocol, stdin)


@implementer(IHalfCloseableProtocol, IPushProducer)
class Pipes(Protocol):
    """Reads each line as a text message; shows text messages unchanged and binary messages in hexadecimal.

    Args:
        reads: Read the standard input; otherwise leave it alone.
        style: The style of messages if the output is a terminal, or None.
        max_line: The maximum length of a line in bytes.
        make_stdio: Makes a transport from a protocol and a descriptor; by default Twisted's ``StandardIO``.
        commands: Treat lines that begin with a slash as commands, as a prompt does.
    """

    def __init__(
        self,
        reads: bool,
        style: Style | None,
        max_line: int,
        make_stdio: Callable[[Any, int], Any] | None = None,
        commands: bool = False,
    ) -> None:
        self._reads = reads
        self._style = style
        self._max_line = max_line
        self._make_stdio = make_stdio or _standard_io
        self._commands = commands
        self._rest = bytearray()
        self._lines = 0
        self._output: Deferred[None] = Deferred()
        self._stdio: Any = None
        self._user: User | None = None

    def start(self, user: User) -> None:
        self._user = user
        # Do not read the standard input: other processes that share it would lose data.
        stdin = 0 if self._reads else os.open(os.devnull, os.O_RDONLY)
        self._stdio = self._make_stdio(self, stdin)
        if not self._reads:
            self._stdio.pauseProducing()
        self._stdio.registerProducer(user, True)

    def message(self, message: str | bytes) -> None:
        if self._style is not None:
            line = self._style.received(message)
        else:
            line = message if isinstance(message, str) else message.hex()
        self._stdio.write(f"{line}\n".encode(errors="replace"))

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def fault(self, text: str) -> None:
        self.note(text)

    def stop(self) -> Deferred[None]:
        self._user = None
        self._stdio.unregisterProducer()
        self._stdio.loseConnection()
        return self._output

    def pauseProducing(self) -> None:
        if self._reads:
            self._stdio.pauseProducing()

    def resumeProducing(self) -> None:
        if self._reads:
            self._stdio.resumeProducing()

    def stopProducing(self) -> None:
        self.pauseProducing()

    # Twisted calls these.

    def dataReceived(self, data: bytes) -> None:
        self._rest += data
        # Search only the new data: a long line arrives in many pieces.
        if b"\n" in data:
            *lines, self._rest = self._rest.split(b"\n")
            for line in lines:
                self._line(line)
        if len(self._rest) > self._max_line:
            self._lines += 1
            self._refuse(f"longer than {self._max_line} bytes")

    def readConnectionLost(self) -> None:
        if not self._reads:
            # The end of the null device is not the end of the script.
            return
        if self._rest:
            self._line(self._rest)
        self._end(True)

    def writeConnectionLost(self) -> None:
        """The reader of our output has closed it; Twisted has stopped the producer."""
        self._done()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._done()

    def _line(self, line: bytearray) -> None:
        self._lines += 1
        if self._user is None:
            return
        try:
            text = line.removesuffix(b"\r").decode()
        except UnicodeDecodeError:
            self._refuse("not UTF-8, which a text message is")
            return
        try:
            command = parse(text) if self._commands else MessageCommand(text)
        except CommandError as error:
            self.fault(str(error))
        else:
            if text or not self._commands:
                self._user.command(command)

    def _refuse(self, why: str) -> None:
        self.fault(f"line {self._lines} of the input is {why}")
        self._stdio.pauseProducing()
        self._end(False)

    def _end(self, complete: bool) -> None:
        user, self._user = self._user, None
        if user is not None:
            user.input_ended(complete)

    def _done(self) -> None:
        if not self._output.called:
            self._output.callback(None)
