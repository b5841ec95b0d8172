"""`Conversation`: one run of an ASGI application, for one upgrade request and its connection."""

from __future__ import annotations

from asyncio import CancelledError
from collections import deque
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_beastws.asgi.events import Application, Disconnected, Event, ProtocolMistake, Scope, headers_of
from twisted_beastws.asgi.waiting import ReceiveWait
from twisted_beastws.connection.awaiting import AwaitableDeferred
from twisted_beastws.connection.inbox import Inbox
from twisted_beastws.connection.running import run, running_loop
from twisted_beastws.errors import ConnectionClosed
from twisted_beastws.options import Limits
from twisted_beastws.protocol import State, WebSocketProtocol
from twisted_beastws.wire.closing import CloseCode, CloseReason
from twisted_beastws.wire.fields import Headers
from twisted_beastws.wire.http import Response

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task

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
        self._waiters: deque[AwaitableDeferred[Any] | ReceiveWait] = deque()
        self._loop: AbstractEventLoop | None = None
        self._connect_given = False
        self._refusal: Response | None = None
        self._body: list[bytes] = []
        self._ended: CloseReason | None = None
        self._running: Deferred[None] | Task[None] | None = None
        self._deadline: IDelayedCall | None = None
        self._watchers: list[Deferred[None]] = []

    def begin(self, application: Application, scope: Scope) -> AwaitableDeferred[Response | None]:
        """Run the application, and return `decision`."""
        coroutine = _as_coroutine(application, scope, self._receive, self._send)
        self._loop = running_loop()
        if self._loop is not None:
            task = self._running = self._loop.create_task(coroutine)
            task.add_done_callback(self._task_done)
        else:
            running = self._running = run(coroutine)
            running.addErrback(self._failed).addCallback(self._returned)
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
        if not self._waiters:
            return False
        waiter = self._waiters.popleft()
        if isinstance(waiter, ReceiveWait):
            waiter.give(message)
        else:
            waiter.callback(message)
        return True

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
        if self._running is not None:
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
        if self._inbox.size:
            message: Any = self._inbox.take()
        elif self._ended is not None:
            message = None
        elif self._loop is None:
            message = await self._deferred_message()
        else:
            waiter = ReceiveWait(self._loop, self._stop_waiting)
            self._waiters.append(waiter)
            try:
                await waiter
            except CancelledError:
                if waiter.given:
                    self._put_back(waiter.message)
                raise
            message = waiter.message
        if message is None:
            ended = self._ended or GONE
            return {"type": "websocket.disconnect", "code": ended.code, "reason": ended.reason}
        return {"type": "websocket.receive", "text" if isinstance(message, str) else "bytes": message}

    def _deferred_message(self) -> AwaitableDeferred[Any]:
        """Return a Deferred of the next message, for an application without an asyncio loop."""
        deferred: AwaitableDeferred[Any] = AwaitableDeferred(self._stop_waiting)
        self._waiters.append(deferred)
        return deferred

    def _stop_waiting(self, waiter: Any) -> None:
        self._waiters.remove(waiter)

    def _put_back(self, message: str | bytes | None) -> None:
        if message is not None and not self._give(message):
            self._inbox.put_back(message)

    async def _send(self, event: Event) -> None:
        if self._ended is not None:
            raise Disconnected("the client has gone")
        try:
            waiting = self._carry_out(event)
            if waiting is not None:
                await waiting
        except ConnectionClosed as error:
            raise Disconnected(str(error)) from None

    def _carry_out(self, event: Event) -> Deferred[None] | None:
        """Do what an event says. Return a Deferred if the application must wait, or None."""
        kind = event.get("type")
        if not self.decision.called:
            return self._decide(kind, event)
        protocol = self._protocol
        if kind == "websocket.send":
            text = event.get("text")
            message = event.get("bytes") if text is None else text
            if message is None:
                raise ProtocolMistake("websocket.send needs text or bytes")
            protocol.send(message)
            return protocol.drain() if protocol.buffered_amount > self._high_water else None
        if kind == "websocket.close":
            protocol.close(*_close_of(event))
            return None
        raise ProtocolMistake(f"{kind!r} was sent after the handshake, where ASGI has websocket.send and .close")

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

    def _task_done(self, task: Task[None]) -> None:
        error = CancelledError() if task.cancelled() else task.exception()
        if error is not None:
            self._failed(Failure(error))
        self._returned(None)

    def _failed(self, failure: Failure) -> None:
        if failure.check(Disconnected) and self._ended is not None:
            failure.cleanFailure()
            return
        cancelled = failure.check(CancelledError) is not None
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
        self._running = None
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
