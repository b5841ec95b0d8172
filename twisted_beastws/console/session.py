"""The connection of the console: it shows messages and runs typed commands."""

from __future__ import annotations

import math
import os
from collections.abc import Coroutine, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.task import deferLater

from twisted_beastws.clock import seconds_of
from twisted_beastws.console.commands import Command, CommandError
from twisted_beastws.console.front import Front
from twisted_beastws.console.text import escape, milliseconds
from twisted_beastws.errors import ConnectionClosed, LocalError
from twisted_beastws.options import Limits
from twisted_beastws.protocol import State, WebSocketProtocol
from twisted_beastws.wire.closing import CloseReason

MAX_MESSAGE = 1 << 24
"""The maximum message size in either direction: 16 MiB, since people read the messages."""

END_OF_INPUT = "Ctrl-Z and Enter" if os.name == "nt" else "Ctrl-D"
"""The keys that end the input."""

LIMITS = Limits(max_message_size=MAX_MESSAGE, slow_reader="pause")


class TerminalSession(WebSocketProtocol):
    """Shows events on ``front``, and runs the commands of the input.

    Args:
        front: Shows events and reads the input.
        reactor: The reactor.
        name: The server's name to show.
        script: Commands to run in order, in place of the input.
        wait: Seconds to keep listening after the input has ended. None for a person at a prompt, whose end of input
            closes the connection.

    Attributes:
        over: Fires with the `CloseReason` when the connection has ended.
        complete: The input ended, and all its commands succeeded.
    """

    def __init__(
        self, front: Front, reactor: Any, name: str, script: Sequence[Command] | None = None, wait: float | None = None
    ) -> None:
        self.over: Deferred[CloseReason] = Deferred()
        self.complete = False
        self._front = front
        self._reactor = reactor
        self._name = name
        self._began = seconds_of(reactor)()
        self._script = script
        self._wait = wait
        self._failed = False
        self._interrupted = False
        self._running: set[Deferred[Any]] = set()
        self._listening: Deferred[None] | None = None

    # Hooks.

    def opened(self) -> None:
        self._front.start(self)
        self.registerProducer(self._front, True)
        self._front.note(self._welcome())
        if self._script is not None:
            self._begin(self._run(self._script))

    def text_received(self, text: str) -> None:
        self._front.message(text)

    def binary_received(self, data: bytes) -> None:
        self._front.message(data)

    def closed(self, reason: CloseReason) -> None:
        if self._listening is not None:
            self._listening.cancel()
        self.over.callback(reason)

    # The front calls these.

    def command(self, command: Command) -> None:
        """Run a command, and show its errors."""
        self._begin(self._do(command))

    def input_ended(self, complete: bool = True) -> None:
        """Close when the running commands are done and, for a script, the server has had time to answer."""
        self.complete = complete and not self._failed and self.state is State.OPEN
        self._begin_to_close()

    def interrupt(self) -> None:
        """Close now. A second call drops the connection."""
        if self._interrupted:
            self.abort()
        self._interrupted = True
        self.close()

    def _welcome(self) -> str:
        text = f"connected to {self._name} in {milliseconds(seconds_of(self._reactor)() - self._began)}"
        if self.subprotocol is not None:
            text += f", subprotocol {self.subprotocol}"
        elif self.request is not None and self.request.headers.hasHeader("Sec-WebSocket-Protocol"):
            text += ", no subprotocol chosen"
        return text + (f"; /help lists the commands, {END_OF_INPUT} closes" if self._wait is None else "")

    def _begin(self, doing: Coroutine[Any, Any, None]) -> None:
        running = Deferred.fromCoroutine(doing)
        if not running.called:
            self._running.add(running)
            running.addBoth(lambda _: self._running.discard(running))

    async def _run(self, script: Sequence[Command]) -> None:
        for command in script:
            await self._do(command)
            if self._failed:
                break
        self.complete = not self._failed
        # Closing waits for the running commands, and this coroutine is one of them.
        self._reactor.callLater(0, self._begin_to_close)

    async def _do(self, command: Command) -> None:
        try:
            await command.run(self, self._front.note)
        except ConnectionClosed:
            self._failed = True
        except (CommandError, LocalError) as error:
            self._fail(str(error))
        except UnicodeEncodeError:
            self._fail("the text has half of a surrogate pair in it, which UTF-8 cannot say")
        except OSError as error:
            self._fail(escape(str(error)))

    def _fail(self, why: str) -> None:
        self._failed = True
        self._front.fault(why)

    def _begin_to_close(self) -> None:
        Deferred.fromCoroutine(self._close_behind())

    async def _close_behind(self) -> None:
        await DeferredList(list(self._running))
        try:
            if self._wait is not None:
                await self._listen(self._wait)
        except (ConnectionClosed, CancelledError):
            return
        self.close()

    async def _listen(self, seconds: float) -> None:
        # The pong proves that the server has read everything sent before the ping.
        await self.ping()
        self._listening = Deferred() if seconds == math.inf else deferLater(self._reactor, seconds)
        await self._listening
