"""The front for a person: the edited line is at the bottom of the terminal, messages appear above it."""

from __future__ import annotations

import codecs
import os
import signal
import termios
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.conch.insults.insults import ServerProtocol, TerminalProtocol
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.internet.stdio import StandardIO
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_beastws.console.commands import CommandError, parse
from twisted_beastws.console.front import User
from twisted_beastws.console.line import Line
from twisted_beastws.console.style import Style

PROMPT = 2
"""The width of the prompt in columns."""

ERASE = "\r\x1b[K"


class Keyboard(ServerProtocol):
    """Converts bytes to keystrokes, and reports the end of each chunk."""

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)  # type: ignore[no-untyped-call]
        if self.terminalProtocol is not None:
            self.terminalProtocol.keystrokes_ended()


@implementer(IPushProducer)
class Terminal(TerminalProtocol):
    """Edits one row, which scrolls sideways if the line is longer, and redraws it below each line shown.

    Args:
        style: The style of the lines.
        later: Calls a function in the reactor, also from a signal handler, as ``callFromThread`` does.
    """

    def __init__(self, style: Style, later: Callable[[Callable[[], None]], object]) -> None:
        self._style = style
        self._later = later
        self._line = Line()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._typed = b""
        self._user: User | None = None
        self._stdio: Any = None
        # The caller cancels this if the terminal accepts no more output.
        self._restored: Deferred[None] = Deferred(lambda _: self._restore())
        self._mode: list[Any] = []
        self._handlers: dict[int, Any] = {}
        line, keys = self._line, ServerProtocol
        self._keys: dict[bytes, Callable[[], None]] = {
            **dict.fromkeys((b"\r", b"\n"), self._enter),
            **dict.fromkeys((b"\x7f", b"\x08"), line.backspace),
            **dict.fromkeys((b"\x01", keys.HOME, b"\x1b[OH", b"\x1b[7~"), line.home),  # type: ignore[attr-defined]
            **dict.fromkeys((b"\x05", keys.END, b"\x1b[OF", b"\x1b[8~"), line.end),  # type: ignore[attr-defined]
            **dict.fromkeys((b"\x02", keys.LEFT_ARROW, b"\x1b[OD"), line.left),  # type: ignore[attr-defined]
            **dict.fromkeys((b"\x06", keys.RIGHT_ARROW, b"\x1b[OC"), line.right),  # type: ignore[attr-defined]
            **dict.fromkeys((b"\x10", keys.UP_ARROW, b"\x1b[OA"), line.earlier),  # type: ignore[attr-defined]
            **dict.fromkeys((b"\x0e", keys.DOWN_ARROW, b"\x1b[OB"), line.later),  # type: ignore[attr-defined]
            **dict.fromkeys((b"\x1b[1;5D", b"\x1b[1;3D"), line.word_left),
            **dict.fromkeys((b"\x1b[1;5C", b"\x1b[1;3C"), line.word_right),
            keys.DELETE: line.delete,  # type: ignore[attr-defined]
            b"\x04": self._end_or_delete,
            b"\x0b": line.delete_to_end,
            b"\x0c": self._clear,
            b"\x15": line.delete_to_start,
            b"\x17": line.delete_word,
        }
        self._alt_keys = {b"b": line.word_left, b"f": line.word_right, b"\x7f": line.delete_word}

    def start(self, user: User) -> None:
        self._user = user
        self._mode = termios.tcgetattr(0)
        self._take_over()
        for number in (signal.SIGWINCH, signal.SIGCONT):
            self._handlers[number] = signal.signal(number, self._signalled)
        self._stdio = StandardIO(Keyboard(lambda: self))  # type: ignore[no-untyped-call]
        self._stdio.registerProducer(user, True)
        self._draw()

    def message(self, message: str | bytes) -> None:
        self._show(self._style.received(message))

    def note(self, text: str) -> None:
        self._show(self._style.note(text))

    def fault(self, text: str) -> None:
        self._show(self._style.fault(text))

    def stop(self) -> Deferred[None]:
        self._user = None
        if not self._restored.called:
            self._write(ERASE)
            self._stdio.unregisterProducer()
            self._stdio.loseConnection()
        return self._restored

    def pauseProducing(self) -> None:
        self._stdio.pauseProducing()

    def resumeProducing(self) -> None:
        self._stdio.resumeProducing()

    def stopProducing(self) -> None:
        """The connection has ended: stop reading."""
        self._stdio.pauseProducing()

    # Twisted calls these.

    def keystrokeReceived(self, keyID: bytes, modifier: bytes | None) -> None:
        keys = self._alt_keys if modifier == ServerProtocol.ALT else self._keys  # type: ignore[attr-defined]
        if keyID in keys:
            self._act(keys[keyID])
        elif modifier is None and len(keyID) == 1:
            self._typed += keyID

    def unhandledControlSequence(self, seq: bytes) -> None:
        if seq in self._keys:
            self._act(self._keys[seq])

    def keystrokes_ended(self) -> None:
        """A chunk of keystrokes has ended: draw the line once, even for pasted text."""
        self._insert_typed()
        self._draw()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._restore()
        if not self._restored.called:
            self._restored.callback(None)
        self._end()

    # The keys.

    def _act(self, action: Callable[[], None]) -> None:
        self._insert_typed()
        action()

    def _insert_typed(self) -> None:
        characters, self._typed = self._decoder.decode(self._typed), b""
        self._line.insert("".join(c for c in characters if c == "\t" or c >= " "))

    def _enter(self) -> None:
        line = self._line.enter()
        if not line or self._user is None:
            return
        self._show(self._style.sent(line))
        try:
            self._user.command(parse(line))
        except CommandError as error:
            self.fault(str(error))

    def _end_or_delete(self) -> None:
        if self._line.text:
            self._line.delete()
        else:
            self._end()

    def _end(self) -> None:
        if self._user is not None:
            self._user.input_ended()

    def _clear(self) -> None:
        self._write("\x1b[2J\x1b[H")

    # The screen.

    def _show(self, text: str) -> None:
        self._write(f"{ERASE}{text}\n")
        self._draw()

    def _draw(self) -> None:
        if self._user is not None:
            visible, column = self._line.window(self._columns() - PROMPT - 1)
            self._write(f"{ERASE}{self._style.prompt}{visible}\r\x1b[{PROMPT + column}C")

    def _write(self, text: str) -> None:
        self._stdio.write(text.encode(errors="replace"))

    @staticmethod
    def _columns() -> int:
        try:
            columns = os.get_terminal_size(1).columns
        except OSError:
            columns = 0
        # A terminal that does not know its size reports 0.
        return max(columns or 80, 8)

    def _take_over(self) -> None:
        mode = termios.tcgetattr(0)
        # Keep ISIG: the system handles Ctrl-C and Ctrl-Z. With IEXTEN the system would also take Ctrl-V and Ctrl-O.
        mode[3] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        termios.tcsetattr(0, termios.TCSANOW, mode)

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        # The terminal may be closed.
        with suppress(termios.error):
            termios.tcsetattr(0, termios.TCSANOW, self._mode)

    def _signalled(self, number: int, frame: object) -> None:
        self._later(self._resume if number == signal.SIGCONT else self._draw)

    def _resume(self) -> None:
        # While we were stopped, the shell may have changed the mode of the terminal. SIGCONT also comes when the
        # terminal hangs up; then setting the mode fails.
        with suppress(termios.error):
            self._take_over()
        self._draw()
