"""The common part of both opening handshakes: waiting bytes, and one operation at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from twisted_beastws.connection.accepted import Accepted
from twisted_beastws.connection.awaiting import AwaitableDeferred
from twisted_beastws.connection.coroutines import going_on
from twisted_beastws.connection.interfaces import HandshakeHost
from twisted_beastws.connection.running import settled
from twisted_beastws.errors import LocalError
from twisted_beastws.options import Settings
from twisted_beastws.wire.http import HeadBuffer

T = TypeVar("T")


class Operation:
    """Reads heads from the connection for one operation at a time. Each operation's Deferred fires exactly once.

    Bytes that no operation reads wait here, in order, for the next operation or for the session. If more than
    ``Limits.max_head_size`` of them wait, the transport is paused.
    """

    __slots__ = (
        "_coroutine",
        "_finished",
        "_head",
        "_host",
        "_idle",
        "_operation",
        "_paused",
        "_reader",
        "_receiving",
    )

    def __init__(self, host: HandshakeHost, subject: str, max_empty_lines: int = 0) -> None:
        limits = host.settings.limits
        self._host = host
        self._head = HeadBuffer(limits.max_head_size, limits.max_head_lines, subject, max_empty_lines)
        self._reader: Deferred[None] | None = None
        self._idle: Callable[[], None] | None = None
        self._operation: Deferred[Any] | None = None
        self._coroutine: Deferred[Any] | None = None
        self._paused = False
        self._receiving = False
        self._finished = False

    def set_settings(self, settings: Settings) -> None:
        """Use other options from now on, except for the limits of a head."""
        self._host.settings = settings

    # Bytes.

    def data_received(self, data: bytes) -> None:
        """Take bytes from the transport."""
        self._head.feed(data)
        outermost, self._receiving = not self._receiving, True
        idle, self._idle = self._idle, None
        if idle is not None:
            idle()
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.callback(None)
        if outermost:
            # By now the code that awaits the operation has run, even if the operation took no time.
            self._receiving = False
            self.settle()
        self._hold_back()

    def when_bytes_come(self, begin: Callable[[], None]) -> None:
        """Call ``begin``, which begins an operation, when the first bytes arrive, or at once if some wait.

        Until then a connection costs little.

        Raises:
            LocalError: An operation runs.
        """
        self._require_idle()
        if self.bytes_wait:
            begin()
        elif self._finished:
            self._host.tear_down()
        else:
            self._idle = begin
            self._hold_back()

    @property
    def bytes_wait(self) -> bool:
        """Whether bytes wait that no operation has read."""
        return len(self._head) > 0

    @property
    def waiting(self) -> int:
        """The number of bytes that wait here."""
        return len(self._head)

    def peer_finished(self) -> bool:
        """The peer will send no more bytes. Return whether the bytes that arrived are enough to continue."""
        self._finished = True
        return False

    def discard_waiting(self) -> None:
        """Discard the waiting bytes."""
        self._head.rest()
        self._hold_back()

    def rest(self) -> bytes:
        """Remove and return the bytes after the last head."""
        return self._head.rest()

    # Operations.

    def operate(self, coroutine: Coroutine[Deferred[Any], Any, T | Accepted]) -> Deferred[T]:
        """Run ``coroutine``. If it returns `Accepted`, the connection opens before the Deferred fires.

        Returns:
            A Deferred of the coroutine's result. Cancelling it aborts the connection.

        Raises:
            LocalError: Another operation runs.
        """
        try:
            self._require_idle()
        except LocalError:
            coroutine.close()
            raise
        operation: AwaitableDeferred[T] = AwaitableDeferred(self._cancelled)
        operation.unclaimed = self._cancelled
        self._operation = operation
        # Most handshakes wait for nothing, and need no Deferred of their own. Running the coroutine here rather
        # than by Deferred.fromCoroutine makes a handshake 5 % cheaper: 88.5 against 93.0 µs of CPU, in memory.
        context = copy_context()
        waits_for: Deferred[Any] | None = None
        result: Any = None
        try:
            waits_for = context.run(coroutine.send, None)
        except StopIteration as done:
            result = done.value
        except BaseException:
            result = Failure()
        # The next calls run hooks. Their exceptions have nothing to do with how the coroutine ended. So they stand
        # outside the ``except`` clauses.
        if waits_for is None:
            self._operated(result, operation, context)
            # The caller cannot await the operation before this returns it. The first message must come after that.
            if self._operation is None and not self._receiving:
                self._host.settle_soon()
            return operation
        running = Deferred.fromCoroutine(going_on(coroutine, waits_for, context))
        running.addBoth(self._ran, operation, context)
        if self._operation is operation:
            self._coroutine = running
        else:
            # A hook lost the connection, and waits for something that may never happen.
            running.cancel()
        return operation

    def _require_idle(self) -> None:
        if self._operation is not None or self._idle is not None:
            raise LocalError("one operation of the opening handshake at a time: another is not done")

    def _cancelled(self, operation: Deferred[Any]) -> None:
        self.lost(Failure(CancelledError()))
        self._host.abort()

    def _ran(self, result: Any, operation: Deferred[Any], context: Context) -> None:
        self._operated(result, operation, context)
        self.settle()

    def _operated(self, result: Any, operation: Deferred[Any], context: Context) -> None:
        if self._operation is operation and isinstance(result, Accepted):
            # A context variable that a hook set during the handshake is visible in `opened`.
            context.run(self._host.accepted, result)
            result = self._outcome(result)
        if self._operation is operation:
            self._operation = self._coroutine = None
            if isinstance(result, Failure):
                operation.errback(result)
            else:
                operation.callback(result)
        elif isinstance(result, Failure):
            # The frames of its traceback would keep the connection alive.
            result.cleanFailure()

    def _outcome(self, accepted: Accepted) -> Any:
        """Return the value that the caller's Deferred fires with."""
        return accepted.request

    def lost(self, failure: Failure) -> None:
        """End the running operation with ``failure``."""
        operation, self._operation = self._operation, None
        coroutine, self._coroutine = self._coroutine, None
        self._idle = self._reader = None
        if operation is not None and not operation.called:
            operation.errback(failure)
        if coroutine is not None:
            coroutine.cancel()

    def settle(self) -> None:
        """If no operation runs and the connection is open, let it continue as a WebSocket."""
        if self._operation is None:
            self._host.settle()

    # For the coroutines.

    @property
    def abandoned(self) -> bool:
        """The operation is over: the connection is gone or about to end, perhaps because of a hook."""
        return self._operation is None or not self._host.connecting

    async def settled(self, result: T | Awaitable[T]) -> T:
        """Return a hook's result once it is known. Raises ``CancelledError`` if the operation is over by then."""
        settled_result = await settled(result)
        if self.abandoned:
            raise CancelledError
        return settled_result

    async def next_head(self) -> bytes:
        """Return the next head. Raises the errors of `HeadBuffer.take`."""
        while (head := self._head.take()) is None:
            await self.more()
        return head

    async def more(self) -> None:
        """Wait for bytes. If the peer will send none, end the connection and raise ``ConnectionDone``."""
        if self._finished:
            self._host.tear_down()
            raise ConnectionDone
        self._reader = Deferred()
        self._hold_back()
        await self._reader

    def _hold_back(self) -> None:
        full = self._reader is None and len(self._head) > self._host.settings.limits.max_head_size
        if full != self._paused:
            self._paused = full
            self._host.hold_reading(full)
