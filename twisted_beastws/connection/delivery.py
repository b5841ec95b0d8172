"""Delivery of received messages to the application's hooks or to ``receive()``, one at a time and in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_beastws.connection.awaiting import AwaitableDeferred, succeeded
from twisted_beastws.connection.coroutines import forget_frames
from twisted_beastws.connection.facts import Described, Facts
from twisted_beastws.connection.hooks import MESSAGE_HOOKS, deferred_of, hook_of, name_of
from twisted_beastws.connection.inbox import Inbox
from twisted_beastws.connection.observer import Observer
from twisted_beastws.connection.peer_text import peer_text
from twisted_beastws.errors import ConnectionClosed
from twisted_beastws.options import Limits
from twisted_beastws.wire.closing import CloseCode
from twisted_beastws.wire.session import Session

log = Logger()

INBOX, HOOK, APPLICATION = 1, 2, 4
"""The reasons for a pause: messages wait in the inbox, a hook is not done, the application paused the connection."""


class DeliveryHost(Facts, Protocol):
    """The connection as its delivery sees it."""

    def require_session(self) -> Session:
        """Return the session.

        Raises:
            ConnectionClosed: The connection has ended.
            LocalError: The connection is not open yet.
        """

    def hold_reading(self, hold: bool) -> None:
        """Pause reading from the transport, or resume it."""

    def count_received(self) -> None:
        """Count the received bytes that the application has not taken."""

    def hook_failed_with(self, failure: Failure) -> None:
        """A hook's Deferred failed."""

    def messages_delivered(self) -> bool:
        """The last pending hook is done. Return whether the connection has ended, and is finished now."""


class Delivery:
    """Delivers the messages of one open connection to its application.

    Attributes:
        by_hooks: The application overrides a message hook, so that `receive` must not be used.
    """

    __slots__ = (
        "_application",
        "_delivering",
        "_handling",
        "_held",
        "_hooks",
        "_host",
        "_inbox",
        "_receivers",
        "by_hooks",
    )

    def __init__(self, host: DeliveryHost, application: Any) -> None:
        self._host = host
        self._application = application
        self._inbox: Inbox | None = None
        self._receivers: deque[Deferred[str | bytes]] | None = None
        self._handling: Deferred[None] | None = None
        self._delivering = False
        self._held = 0
        self._hooks: list[Any] | None = None
        self.by_hooks = False

    @property
    def size(self) -> int:
        """The memory of the pending messages, in bytes."""
        return 0 if self._inbox is None else self._inbox.size

    @property
    def handling(self) -> bool:
        """A hook returned a Deferred that has not fired, or the hooks are getting the messages that waited for it."""
        return self._handling is not None or self._delivering

    def direct(self, session: Session, observer: Observer | None = None) -> None:
        """Make ``session`` pass its messages to the hooks, or to `receive`."""
        if observer is not None:
            self._observe(observer)
        if self._hooks is None:
            application = self._application
            text, binary = hook_of(application, "text_received"), hook_of(application, "binary_received")
            fragments = hook_of(application, "fragment_received")
        else:
            text, binary, fragments = self._hooks
        if fragments is not None:
            session.stream_to(fragments)
        elif text is not None or binary is not None:
            session.deliver_to(text, binary)
        else:
            session.deliver_to(self._keep, self._keep)
            return
        self.by_hooks = True

    def _observe(self, observer: Observer) -> None:
        """Use the hooks that an observer returns."""
        application = self._application
        hooks = {name: hook_of(application, name) for name in MESSAGE_HOOKS}
        wrapped = {name: hook and observer.around(application, name, hook) for name, hook in hooks.items()}
        if wrapped != hooks:
            self._hooks = [*wrapped.values()]

    # To receive().

    def receive(self) -> Deferred[str | bytes] | None:
        """Return a pending message, or None. It works after the end of the connection, too."""
        if self._receivers is None:
            self._receivers = deque()
        return succeeded(self._inbox.take()) if self._inbox else None

    def wait(self) -> Deferred[str | bytes]:
        """Return a Deferred of the next message, which has not arrived yet."""
        assert self._receivers is not None
        receiver: AwaitableDeferred[str | bytes] = AwaitableDeferred(self._receivers.remove)
        receiver.unclaimed = self._put_back
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
            self._inbox = Inbox(self._host.settings.limits, self._inbox_full, self._inbox_low)
        return self._inbox

    def _inbox_full(self) -> None:
        if self._receivers is None and not self.by_hooks:
            self._receivers = deque()
            log.info(
                "{count} messages wait on connection {connection} of {peer}, which cannot send more: {protocol} "
                "overrides no message hook, and has not called receive()",
                count=len(self._require_inbox()),
                connection=self._host.connection_id,
                peer=peer_text(self._host.peer),
                protocol=name_of(self._application),
            )
        self.hold(INBOX)

    def _inbox_low(self) -> None:
        self.release(INBOX)

    def set_limits(self, limits: Limits) -> None:
        """Use other limits from the next message on."""
        if self._inbox is not None:
            self._inbox.set_limits(limits)

    def clear(self) -> None:
        """Forget the pending messages."""
        if self._inbox is not None:
            self._inbox.clear()

    # Pauses.

    def hold(self, reason: int) -> None:
        """Deliver nothing for ``reason``, and stop reading once enough bytes wait."""
        self._held |= reason
        session = self._host.require_session()
        session.pause()
        self._host.hold_reading(session.paused)

    def release(self, reason: int) -> None:
        """Deliver again, unless there is another reason for the pause."""
        self._held &= ~reason
        session = self._host.session
        if self._held or session is None:
            return
        session.resume()
        self._host.hold_reading(session.paused)

    # To hooks.

    def hook_returned(self, result: Any) -> None:
        """A message hook returned a value other than None. The next messages wait in the inbox until it is settled."""
        handling = deferred_of(result)
        if handling is None:
            return
        handling.addErrback(self._host.hook_failed_with)
        if handling.called and not handling.paused:
            return
        self._handling = handling
        session = self._host.require_session()
        if session.streams:
            self.hold(HOOK)
        else:
            keep, reader = self._require_inbox().put, session.reader
            session.deliver_to(reader.on_text and keep, reader.on_binary and keep)
        handling.addCallback(self._handled)

    def _handled(self, _: object) -> None:
        self._handling = None
        host = self._host
        session = host.require_session()
        self._delivering = True
        self._deliver_queued(session)
        self._delivering = False
        if self._handling is not None or host.messages_delivered():
            return
        if session.streams:
            self.release(HOOK)
        else:
            self.direct(session)

    def _deliver_queued(self, session: Session) -> None:
        """Pass the messages in the inbox to the hooks, until one of them takes time."""
        application = self._application
        text_hook, binary_hook, _ = self._hooks or (application.text_received, application.binary_received, None)
        while self._inbox and self._handling is None and session.closing.began != "local":
            message = self._inbox.take()
            self._host.count_received()
            text = isinstance(message, str)
            session.reader.call_hook(text_hook if text else binary_hook, message)

    # The end.

    def lost(self) -> None:
        """No more messages will come."""
        if self._inbox is not None:
            self._inbox.detach()

    def fail_receivers(self, closed: ConnectionClosed) -> None:
        """Fail the pending `receive` Deferreds: no message will come."""
        while self._receivers:
            # Drop the traceback; otherwise it grows with each Deferred that fails with it.
            self._receivers.popleft().errback(closed.with_traceback(None))

    def finish(self) -> None:
        """Log messages that will certainly not be consumed, and release the connection."""
        if self.by_hooks or self._receivers is None:
            self.log_unconsumed(self._host, self._application)
        self._hooks = None
        del self._host, self._application

    def log_unconsumed(self, host: Described, application: Any) -> None:
        """Log the number of messages that the application will not consume."""
        if self._inbox:
            log.info(
                "connection {connection} of {peer} ended with {count} messages that {protocol} did not take",
                connection=host.connection_id,
                peer=peer_text(host.peer),
                count=len(self._inbox),
                protocol=name_of(application),
            )


class Messages:
    """The iterator of ``async for``. No generator: asyncio would keep an unfinished one until its loop turns."""

    __slots__ = ("_receive",)

    def __init__(self, receive: Callable[[], Deferred[str | bytes]]) -> None:
        self._receive = receive

    def __aiter__(self) -> Messages:
        return self

    async def __anext__(self) -> str | bytes:
        try:
            return await self._receive()
        except ConnectionClosed as error:
            # Awaiting a Deferred that has already failed makes a cycle of the error, its Failure and the frames.
            forget_frames(error)
            if error.reason.code in (CloseCode.NORMAL, CloseCode.GOING_AWAY):
                raise StopAsyncIteration from None
            raise type(error)(error.reason) from None
