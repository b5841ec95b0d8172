"""`Conversation`: one run of an ASGI application, for one upgrade request and its connection."""

from __future__ import annotations

from asyncio import CancelledError, Future, current_task
from collections import deque
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_beastws.asgi.events import Application, Disconnected, Event, ProtocolMistake, Scope, headers_of
from twisted_beastws.connection.asyncio_task import CoroutineTask
from twisted_beastws.connection.awaiting import AwaitableDeferred, TaskCancelled
from twisted_beastws.connection.inbox import Inbox
from twisted_beastws.connection.running import run, running_loop
from twisted_beastws.errors import ConnectionClosed
from twisted_beastws.options import Limits
from twisted_beastws.protocol import State, WebSocketProtocol
from twisted_beastws.wire.closing import CloseCode, CloseReason
from twisted_beastws.wire.fields import Headers
from twisted_beastws.wire.http import Response

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

log = Logger()

FORBIDDEN = 403
"""The status of the answer if the application closes before it accepts, as ASGI defines."""

GONE = CloseReason(CloseCode.ABNORMAL, "", False, "transport")
"""The close reason of a connection that never opened."""


class Conversation:
    """Runs the application, and translates between its events and the protocol.

    Messages that the application has not received wait in an inbox, which pauses the connection when it is full.

    Attributes:
        opening: Fires when the accepted connection is open; fails with `Disconnected` if it does not open.
        decision: Fires with None when the application accepts, or with the `Response` of its refusal.
        subprotocol: The subprotocol that the application chose, or None.
        headers: The fields that the application adds to the 101, or None.
    """

    def __init__(self, protocol: WebSocketProtocol, limits: Limits, clock: IReactorTime, patience: float) -> None:
        self.decision: AwaitableDeferred[Response | None] = AwaitableDeferred()
        self.opening: AwaitableDeferred[None] = AwaitableDeferred()
        self.subprotocol: str | None = None
        self.headers: Headers | None = None
        self._protocol = protocol
        self._clock = clock
        self._patience = patience
        self._inbox = Inbox(limits, protocol.pauseProducing, protocol.resumeProducing)
        self._high_water = limits.high_water
        self._waiters: deque[AwaitableDeferred[Any] | Future[Any]] = deque()
        self._connect_given = False
        self._refusal: Response | None = None
        self._body: list[bytes] = []
        self._ended: CloseReason | None = None
        self._running: Deferred[None] | None = None
        self._deadline: IDelayedCall | None = None
        self._watchers: list[Deferred[None]] = []

    def begin(self, application: Application, scope: Scope) -> AwaitableDeferred[Response | None]:
        """Run the application, and return `decision`."""
        running = run(_as_coroutine(application, scope, self._receive, self._send))
        self._running = running.addErrback(self._failed).addCallback(self._returned)
        return self.decision

    def when_returned(self) -> Deferred[None]:
        """Return a Deferred that fires when the application has returned or failed."""
        waiter: Deferred[None] = Deferred()
        self._watchers.append(waiter)
        return waiter

    # The connection.

    def received(self, message: str | bytes) -> None:
        """Take a message from the connection."""
        if not self._give(message):
            self._inbox.put(message)

    def _give(self, message: str | bytes | None) -> bool:
        """Give a message to the oldest call of ``receive()`` that waits for one; return whether there was one."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if isinstance(waiter, Deferred):
                waiter.callback(message)
                return True
            if not waiter.done():
                waiter.set_result(message)
                return True
        return False

    def lost(self, reason: CloseReason) -> None:
        """The connection has ended: cancel the application if it does not return in time."""
        if self._ended is not None:
            return
        self._ended = reason
        self._inbox.detach()
        if not self.opening.called:
            self.opening.errback(Disconnected("the connection did not open"))
            # The application need not await this Deferred, so do not log its failure as unhandled.
            self.opening.addErrback(_unless_disconnected)
        if self._running is not None and not self._running.called:
            self._deadline = self._clock.callLater(self._patience, self._cancel)
        while self._give(None):
            pass

    def _cancel(self) -> None:
        self._deadline = None
        log.warn(
            "connection {connection} ended {patience:g} s ago, and the application has not returned: it is cancelled",
            connection=self._protocol.connection_id,
            patience=self._patience,
        )
        if self._running is not None:
            self._running.cancel()

    # The application.

    async def _receive(self) -> Event:
        if not self._connect_given:
            self._connect_given = True
            return {"type": "websocket.connect"}
        message: Any = None
        if self._inbox:
            message = self._inbox.take()
        elif self._ended is None:
            message = await self._next_message()
        if message is None:
            ended = self._ended or GONE
            return {"type": "websocket.disconnect", "code": ended.code, "reason": ended.reason}
        return {"type": "websocket.receive", "text" if isinstance(message, str) else "bytes": message}

    async def _next_message(self) -> Any:
        """Wait for a message; None is the end of the connection."""
        loop = running_loop()
        if loop is None or isinstance(current_task(loop), CoroutineTask):
            # This goes on as soon as the message is there, without another iteration of the loop.
            deferred: AwaitableDeferred[Any] = AwaitableDeferred(self._stop_waiting)
            deferred.unclaimed = self._put_back
            self._waiters.append(deferred)
            return await deferred
        # A task of the application's own, as Channels has one for each message: asyncio's future costs it less.
        future = loop.create_future()
        self._waiters.append(future)
        try:
            return await future
        except CancelledError:
            if not future.cancelled():
                self._put_back(future.result())
            elif future in self._waiters:
                self._waiters.remove(future)
            raise

    def _stop_waiting(self, waiter: Any) -> None:
        self._waiters.remove(waiter)

    def _put_back(self, message: str | bytes | None) -> None:
        if message is not None and not self._give(message):
            self._inbox.put_back(message)

    async def _send(self, event: Event) -> None:
        if self._ended is not None:
            raise Disconnected("the client has gone")
        kind = event.get("type")
        if kind == "websocket.send" and self.decision.called:
            await self._send_message(event)
        elif kind == "websocket.close" and self.decision.called:
            self._protocol.close(*_close_of(event))
        elif self.decision.called:
            raise ProtocolMistake(f"{kind!r} was sent after the handshake, where ASGI has websocket.send and .close")
        else:
            opening = self._decide(kind, event)
            if opening is not None:
                await opening

    async def _send_message(self, event: Event) -> None:
        protocol, text = self._protocol, event.get("text")
        message = event.get("bytes") if text is None else text
        if message is None:
            raise ProtocolMistake("websocket.send needs text or bytes")
        try:
            protocol.send(message)
            if protocol.buffered_amount > self._high_water:
                await protocol.drain()
        except ConnectionClosed as error:
            raise Disconnected(str(error)) from None

    def _decide(self, kind: Any, event: Event) -> Deferred[None] | None:
        """Answer the handshake. Return a Deferred that fires when an accepted connection is open; None if refused."""
        if kind == "websocket.accept" and self._refusal is None:
            self.subprotocol = event.get("subprotocol")
            self.headers = headers_of(event.get("headers") or ())
            self.decision.callback(None)
            return self.opening
        elif kind == "websocket.close" and self._refusal is None:
            self.decision.callback(Response(FORBIDDEN))
        elif kind == "websocket.http.response.start" and self._refusal is None:
            headers = headers_of(event.get("headers") or ())
            self._refusal = Response(event["status"], headers=headers)
        elif kind == "websocket.http.response.body" and self._refusal is not None:
            self._body.append(event.get("body") or b"")
            if not event.get("more_body"):
                self._refusal.body = b"".join(self._body)
                self.decision.callback(self._refusal)
        else:
            raise ProtocolMistake(f"{kind!r} was sent before the handshake was decided, where ASGI does not allow it")
        return None

    # The end.

    def _failed(self, failure: Failure) -> None:
        if failure.check(Disconnected) and self._ended is not None:
            failure.cleanFailure()
            return
        cancelled = failure.check(TaskCancelled) is not None
        if not cancelled:
            log.failure(
                "the ASGI application failed on connection {connection}",
                failure,
                connection=self._protocol.connection_id,
            )
        failure.cleanFailure()
        if not self.decision.called:
            self.decision.callback(Response(500))
        elif self._protocol.state is State.OPEN:
            self._protocol.close(CloseCode.GOING_AWAY if cancelled else CloseCode.INTERNAL_ERROR)

    def _returned(self, result: object) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if not self.decision.called and self._ended is None:
            log.error(
                "the ASGI application returned without an answer to the handshake on connection {connection}",
                connection=self._protocol.connection_id,
            )
            self.decision.callback(Response(500))
        elif self._protocol.state is State.OPEN:
            self._protocol.close()
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            watcher.callback(None)


def _unless_disconnected(failure: Failure) -> None:
    failure.trap(Disconnected)


async def _as_coroutine(application: Application, scope: Scope, receive: Any, send: Any) -> None:
    await application(scope, receive, send)


def _close_of(event: Event) -> tuple[int, str]:
    return event.get("code") or CloseCode.NORMAL, event.get("reason") or ""
