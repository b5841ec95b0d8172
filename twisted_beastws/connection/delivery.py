"""Where received messages go: to the application's hooks or to ``receive()``, one at a time and in order."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twisted_beastws.connection.awaiting import AwaitableDeferred, awaited, run, succeeded
from twisted_beastws.connection.inbox import Inbox
from twisted_beastws.connection.interfaces import hook_of, takes_messages
from twisted_beastws.connection.operation import forget_frames
from twisted_beastws.errors import ConnectionClosed
from twisted_beastws.wire.closing import CloseCode

if TYPE_CHECKING:
    from twisted_beastws.connection.connection import Connection
    from twisted_beastws.wire.session import Session


log = Logger()

INBOX, HOOK, APPLICATION = 1, 2, 4
"""Why nothing is read for now: messages wait to be taken, a hook takes its time, the application said so."""


class Delivery:
    """Gives the messages of one open connection to its application.

    by_hooks: the application has a hook for messages, so that `receive` is not for it.
    """

    __slots__ = ("_connection", "_handling", "_held", "_inbox", "_receivers", "by_hooks")

    def __init__(self, connection: Connection, application: Any) -> None:
        self._connection = connection
        self._inbox: Inbox | None = None
        self._receivers: deque[Deferred[str | bytes]] | None = None
        self._handling: Deferred[None] | None = None
        self._held = 0
        self.by_hooks = takes_messages(application)

    @property
    def size(self) -> int:
        """Bytes of memory that the messages take which wait."""
        return 0 if self._inbox is None else self._inbox.size

    @property
    def handling(self) -> bool:
        """A hook takes its time."""
        return self._handling is not None

    def direct(self, session: Session) -> None:
        """Have ``session`` give its messages to the hooks, or to `receive`."""
        application = self._connection.application
        fragments = hook_of(application, "fragment_received")
        if fragments is not None:
            session.stream_to(fragments)
        elif self.by_hooks:
            session.on_text = hook_of(application, "text_received")
            session.on_binary = hook_of(application, "binary_received")
        else:
            session.on_text = session.on_binary = self._keep

    # To receive().

    def receive(self, connection: Connection) -> Deferred[str | bytes] | None:
        """Return the next message if one waits, else None. This goes on when the connection is gone."""
        if self._receivers is None:
            self._receivers = deque()
        if not self._inbox:
            return None
        message = self._inbox.take()
        connection.count_received()
        return succeeded(message)

    def wait(self) -> Deferred[str | bytes]:
        """Return a Deferred of the next message, which has not come."""
        assert self._receivers is not None
        receiver: Deferred[str | bytes] = AwaitableDeferred(self._receivers.remove, self._put_back)
        self._receivers.append(receiver)
        return receiver

    def _put_back(self, message: str | bytes) -> None:
        """Keep a message that its receiver will not take: its asyncio Task was cancelled before it woke up."""
        if self._receivers:
            self._receivers.popleft().callback(message)
        else:
            self._require_inbox().put_back(message)

    def _keep(self, message: str | bytes) -> None:
        if self._receivers:
            self._receivers.popleft().callback(message)
        else:
            self._require_inbox().put(message)

    def _require_inbox(self) -> Inbox:
        if self._inbox is None:
            self._inbox = Inbox(self._connection.settings.limits, self._inbox_full, self._inbox_low)
        return self._inbox

    def _inbox_full(self) -> None:
        if self._receivers is None and not self.by_hooks:
            self._receivers = deque()
            log.info(
                "{count} messages wait on connection {connection} of {peer}, which cannot send more: {protocol} "
                "overrides no message hook, and nobody has called receive()",
                count=len(self._require_inbox()),
                connection=self._connection.connection_id,
                peer=self._connection.peer,
                protocol=type(self._connection.application).__qualname__,
            )
        self.hold(INBOX)

    def _inbox_low(self) -> None:
        self.release(INBOX)

    def clear(self) -> None:
        """Forget the messages that wait."""
        if self._inbox is not None:
            self._inbox.clear()

    # Pauses.

    def hold(self, reason: int) -> None:
        """Deliver nothing for ``reason``, and read no more once enough waits."""
        self._held |= reason
        session = self._connection.require_session()
        session.pause()
        self._connection.hold_reading(session.paused)

    def release(self, reason: int) -> None:
        """Deliver again, unless there is another reason not to."""
        self._held &= ~reason
        session = self._connection.session
        if self._held or session is None:
            return
        session.resume()
        self._connection.hold_reading(session.paused)

    # To hooks.

    def hook_returned(self, result: Any) -> None:
        """A message hook returned something; if that takes time, what comes behind it waits in the inbox."""
        handling = deferred_of(result)
        if handling is None:
            return
        handling.addErrback(self._connection.application_failed)
        if handling.called and not handling.paused:
            return
        self._handling = handling
        session = self._connection.require_session()
        if session.on_fragment is not None:
            self.hold(HOOK)
        else:
            keep = self._require_inbox().put
            session.on_text = session.on_text and keep
            session.on_binary = session.on_binary and keep
        handling.addCallback(self._handled)

    def _handled(self, _: object) -> None:
        self._handling = None
        connection = self._connection
        session = connection.require_session()
        application: Any = connection.application
        while self._inbox and self._handling is None and session.began != "local":
            message = self._inbox.take()
            connection.count_received()
            text = isinstance(message, str)
            session.call_hook(application.text_received if text else application.binary_received, message)
        if self._handling is not None:
            return
        if connection.ended is not None:
            connection.finish()
        elif session.on_fragment is not None:
            self.release(HOOK)
        else:
            self.direct(session)

    # The end.

    def lost(self) -> None:
        """No message will come any more."""
        if self._inbox is not None:
            self._inbox.detach()

    def fail_receivers(self, closed: ConnectionClosed) -> None:
        """Tell those who wait for a message that none will come."""
        while self._receivers:
            # Not with the frames of those that were told before.
            self._receivers.popleft().errback(closed.with_traceback(None))

    def finish(self, connection: Connection, application: Any) -> None:
        """Log what nobody will take, if that is certain, and let go of the connection."""
        if self.by_hooks or self._receivers is None:
            self.log_unconsumed(connection, application)
        del self._connection

    def log_unconsumed(self, connection: Connection, application: Any) -> None:
        """Say in the log how many messages came that the application will not take."""
        if self._inbox:
            log.info(
                "connection {connection} of {peer} ended with {count} messages that {protocol} did not take",
                connection=connection.connection_id,
                peer=connection.peer,
                count=len(self._inbox),
                protocol=type(application).__qualname__,
            )


class Messages:
    """What ``async for`` goes through. No generator: one left early asyncio would keep until its loop turns."""

    __slots__ = ("_receive",)

    def __init__(self, receive: Callable[[], Deferred[str | bytes]]) -> None:
        self._receive = receive

    def __aiter__(self) -> Messages:
        return self

    async def __anext__(self) -> str | bytes:
        try:
            return await self._receive()
        except ConnectionClosed as error:
            # Awaiting a Deferred that has failed already makes a cycle of the error, its Failure and the frames.
            forget_frames(error)
            if error.reason.code in (CloseCode.NORMAL, CloseCode.GOING_AWAY):
                raise StopAsyncIteration from None
            raise type(error)(error.reason) from None


def deferred_of(result: Any) -> Deferred[Any] | None:
    """A Deferred of what a hook returned, or None for None. Raises TypeError for what a hook must not return."""
    if result is None or isinstance(result, Deferred):
        return result
    if isinstance(result, (Generator, AsyncGenerator)):
        raise TypeError(f"{result!r}: a hook with yield in it runs only in inlineCallbacks, or as async def with await")
    if hasattr(result, "__await__"):
        return run(awaited(result))
    raise TypeError(f"a hook returned {result!r}: it may return None, a Deferred or a coroutine")
