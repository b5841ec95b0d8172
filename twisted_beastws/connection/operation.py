"""What the opening handshakes of both roles share: octets that wait, and one operation at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from twisted_beastws.connection.awaiting import AwaitableDeferred, settled
from twisted_beastws.errors import LocalError
from twisted_beastws.wire.http import HeadBuffer

if TYPE_CHECKING:
    from twisted_beastws.connection.connection import Connection

T = TypeVar("T")


def forget_frames(error: BaseException | None) -> None:
    """Take the tracebacks off: their frames keep alive what they knew, for ever where Twisted shares the error."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def going_on(
    coroutine: Coroutine[Deferred[Any], Any, T], waits_for: Deferred[Any], context: Context
) -> Generator[Deferred[Any], Any, T]:
    """The rest of a coroutine that was begun in ``context``, and waits."""
    try:
        while True:
            step: Callable[[Any], Deferred[Any]] = coroutine.send
            try:
                result = yield waits_for
            except GeneratorExit:
                # Nobody goes on with it; the coroutine may have been closed before.
                context.run(coroutine.close)
                raise
            except BaseException as error:
                step, result = coroutine.throw, error
            # Where it was begun: a context variable is reset in the context that it was set in. Behind the clause:
            # what the coroutine raises later has nothing to do with the error.
            waits_for = context.run(step, result)
            del result, step
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]


class Operation:
    """Reads heads from the connection for one operation at a time, whose Deferred fires once, whatever happens.

    Octets that nothing reads wait here, in order, for the next operation or the session; above ``Limits.max_head_size``
    of them the transport is paused.
    """

    __slots__ = (
        "_connection",
        "_coroutine",
        "_finished",
        "_head",
        "_idle",
        "_operation",
        "_paused",
        "_reader",
        "_receiving",
    )

    def __init__(self, connection: Connection, subject: str, max_empty_lines: int = 0) -> None:
        limits = connection.settings.limits
        self._connection = connection
        self._head = HeadBuffer(limits.max_head_size, limits.max_head_lines, subject, max_empty_lines)
        self._reader: Deferred[None] | None = None
        self._idle: Callable[[], None] | None = None
        self._operation: Deferred[Any] | None = None
        self._coroutine: Deferred[Any] | None = None
        self._paused = False
        self._receiving = False
        self._finished = False

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

    def when_octets_come(self, begin: Callable[[], None]) -> None:
        """Call ``begin``, which begins an operation, at the first octets: until then a connection costs little.

        At once, if some wait. Raises `LocalError` while an operation runs.
        """
        self._require_idle()
        if self.octets_wait:
            begin()
        elif self._finished:
            self._connection.tear_down()
        else:
            self._idle = begin
            self._hold_back()

    @property
    def octets_wait(self) -> bool:
        """Some came that nothing has read."""
        return len(self._head) > 0

    def peer_finished(self) -> bool:
        """Go on without more bytes, which the peer will not send; return whether there is something to go on with."""
        self._finished = True
        return False

    @property
    def waiting(self) -> int:
        """Bytes that wait here."""
        return len(self._head)

    def discard_waiting(self) -> None:
        """Forget the bytes that wait."""
        self._head.rest()
        self._hold_back()

    def rest(self) -> bytes:
        """The octets behind the last head, which leave."""
        return self._head.rest()

    def lost(self, failure: Failure) -> None:
        """End what is under way with ``failure``."""
        operation, self._operation = self._operation, None
        coroutine, self._coroutine = self._coroutine, None
        self._idle = self._reader = None
        if operation is not None and not operation.called:
            operation.errback(failure)
        if coroutine is not None:
            coroutine.cancel()

    def operate(self, coroutine: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        """Run ``coroutine``; raises `LocalError` while another runs. Cancelling it aborts the connection."""
        try:
            self._require_idle()
        except LocalError:
            coroutine.close()
            raise
        operation: Deferred[T] = AwaitableDeferred(self._cancelled, self._cancelled)
        self._operation = operation
        # Most have nothing to wait for, and need no Deferred of their own.
        context = copy_context()
        waits_for: Deferred[Any] | None = None
        result: Any = None
        try:
            waits_for = context.run(coroutine.send, None)
        except StopIteration as done:
            result = done.value
        except BaseException:
            result = Failure()
        # Behind the clauses: hooks are called, whose errors have nothing to do with how the coroutine ended.
        if waits_for is None:
            self._operated(result, operation)
            # The caller cannot await the operation before it has it: messages come after that.
            if self._operation is None and not self._receiving:
                self._connection.settle_soon()
            return operation
        running = Deferred.fromCoroutine(going_on(coroutine, waits_for, context))
        running.addBoth(self._ran, operation)
        if self._operation is operation:
            self._coroutine = running
        else:
            # A hook lost the connection, and waits for what may never come.
            running.cancel()
        return operation

    def _require_idle(self) -> None:
        if self._operation is not None or self._idle is not None:
            raise LocalError("one operation of the opening handshake at a time: another is not done")

    def _cancelled(self, operation: Deferred[Any]) -> None:
        self.lost(Failure(CancelledError()))
        self._connection.abort()

    def _ran(self, result: Any, operation: Deferred[Any]) -> None:
        self._operated(result, operation)
        self.settle()

    def _operated(self, result: Any, operation: Deferred[Any]) -> None:
        if self._operation is operation:
            self._operation = self._coroutine = None
            if isinstance(result, Failure):
                operation.errback(result)
            else:
                operation.callback(result)
        elif isinstance(result, Failure):
            # Its traceback's frames would keep the connection alive.
            result.cleanFailure()

    def settle(self) -> None:
        """Give the connection to the session, if there is one and no operation runs."""
        if self._operation is None:
            self._connection.opening_settled()

    @property
    def abandoned(self) -> bool:
        """Nobody waits for the operation any more: the connection is gone or ending, by a hook perhaps."""
        return self._operation is None or not self._connection.connecting

    async def settled(self, result: T | Awaitable[T]) -> T:
        """What a hook returned, when it is there; raises ``CancelledError`` if nobody waits for it any more."""
        settled_result = await settled(result)
        if self.abandoned:
            raise CancelledError
        return settled_result

    async def next_head(self) -> bytes:
        """The next head; raises what `HeadBuffer.take` raises."""
        while (head := self._head.take()) is None:
            await self.more()
        return head

    async def more(self) -> None:
        """Wait for bytes; raises ``ConnectionDone``, and ends the connection, where none will come."""
        if self._finished:
            self._connection.tear_down()
            raise ConnectionDone
        self._reader = Deferred()
        self._hold_back()
        await self._reader

    def _hold_back(self) -> None:
        full = self._reader is None and len(self._head) > self._connection.settings.limits.max_head_size
        if full != self._paused:
            self._paused = full
            self._connection.hold_reading(full)
