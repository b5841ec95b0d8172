"""One connection to a Redis, through txredisapi, which imports the reactor: import this late."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure
from txredisapi import RedisProtocol  # type: ignore[import-not-found,import-untyped,unused-ignore]

from twisted_beastws.hub.linked_errors import LinkLost
from twisted_beastws.hub.redis_cluster_errors import refused_by_cluster
from twisted_beastws.hub.redis_errors import refused
from twisted_beastws.hub.redis_url import RedisURL

LOOKS = 5
"""Looks within the patience. A process that was busy meanwhile reads what waits for it between two looks."""


class RedisConnection(RedisProtocol):  # type: ignore[misc,unused-ignore]
    """A connection to Redis. It is its own factory, as far as txredisapi wants one.

    Args:
        url: where to. clock: for timeouts.
        patience: seconds without a byte while a reply is due, after which the connection is dropped.

    ready: fires when it is authenticated and its database selected; fails when it is lost before.
    gone: fires when it is lost, with the reason, which ``ended`` is from then on.
    """

    isLazy = False

    def __init__(self, url: RedisURL, clock: IReactorTime, patience: float) -> None:
        # As bytes, and no number made of a message that looks like one.
        super().__init__(
            charset=None,
            convertNumbers=False,
            username=url.username,
            password=url.password,
            dbid=url.database or None,
        )
        self.factory = self
        self.url = url
        self._refused = refused_by_cluster if url.cluster else refused
        self.ready: Deferred[RedisConnection] = Deferred()
        self.gone: Deferred[BaseException] = Deferred()
        self.ended: BaseException | None = None
        self._patience = patience
        self._answers: deque[Deferred[Any]] = deque()
        self._heard = False
        self._silent_looks = 0
        self._why: BaseException | None = None
        self._watching = LoopingCall(self._look)
        self._watching.clock = clock
        self.whenConnected().addCallback(self.ready.callback)

    def connectionMade(self) -> None:
        self._watching.start(self._patience / LOOKS, now=False)
        super().connectionMade()

    def stopTrying(self) -> None:
        """txredisapi would not try again."""

    def connectionError(self, why: str) -> None:
        """Authentication or selection failed, and the connection is being dropped."""
        # txredisapi puts its own words before the reply.
        self._why = self._why or self._refused(why.partition(": ")[2].partition(": ")[2] or why)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._watching.running:
            self._watching.stop()
        super().connectionLost(reason)
        # From now on commands fail at once, also those that follow a failed answer below.
        why = self.ended = self._why or cast(BaseException, reason.value)
        answers, self._answers = self._answers, deque()
        for answer in answers:
            answer.errback(LinkLost("the connection was lost"))
        if not self.ready.called:
            self.ready.errback(why)
        self.gone.callback(why)

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        self._heard = True
        super().dataReceived(data, unpause)

    def replyReceived(self, reply: Any) -> None:
        if not self._answers:
            return
        answer = self._answers.popleft()
        if isinstance(reply, Exception):
            answer.errback(self._refused(str(reply)))
        else:
            answer.callback(reply)

    def execute_command(self, *arguments: Any, **options: Any) -> Deferred[Any]:
        """Send a command; the Deferred fails with `Refused`, or with `LinkLost` when the connection is lost."""
        return self.execute(*arguments)

    def execute(self, *arguments: str | bytes | int) -> Deferred[Any]:
        """Send a command; the Deferred fails with `Refused`, or with `LinkLost` when the connection is lost."""
        answer: Deferred[Any] = Deferred()
        if self.ended is not None:
            answer.errback(LinkLost("the connection is lost"))
            return answer
        self._answers.append(answer)
        self.transport.write(self._build_command(*arguments))
        return answer

    def drop(self, why: BaseException | None = None) -> None:
        """End it now."""
        self._why = self._why or why
        # One over TLS cannot be ended twice.
        if self.transport is not None and self.ended is None:
            self.transport.abortConnection()

    def _waits(self) -> bool:
        return bool(self._answers)

    def _look(self) -> None:
        # Looks that come late count once, and the reactor has read in between: a busy process is no silent Redis.
        if self._heard or not self._waits():
            self._silent_looks = 0
        else:
            self._silent_looks += 1
        self._heard = False
        if self._silent_looks >= LOOKS:
            self.drop(LinkLost(f"it did not answer for {self._patience:g} seconds"))


class Subscriber(RedisConnection):
    """A connection on which messages come.

    Args:
        url, clock, patience: as of a `RedisConnection`.
        received: takes the channel and payload of each message.
    """

    SUBSCRIBE, UNSUBSCRIBE, MESSAGE = "SUBSCRIBE", "UNSUBSCRIBE", "message"

    def __init__(
        self, url: RedisURL, clock: IReactorTime, patience: float, received: Callable[[bytes, bytes], None]
    ) -> None:
        super().__init__(url, clock, patience)
        self._received = received
        self._confirming: deque[tuple[int, Deferred[None]]] = deque()
        self._confirmed = 0

    def subscribe(self, channels: Sequence[str]) -> Deferred[None]:
        """Subscribe to channels; fires when Redis has confirmed each."""
        if not channels:
            return succeed(None)
        done: Deferred[None] = Deferred()
        if self.ended is not None:
            done.errback(LinkLost("the connection is lost"))
            return done
        self._confirming.append((len(channels), done))
        self.transport.write(self._build_command(self.SUBSCRIBE, *channels))
        return done

    def unsubscribe(self, channels: Sequence[str]) -> None:
        """End subscriptions."""
        if channels and self.ended is None:
            self.transport.write(self._build_command(self.UNSUBSCRIBE, *channels))

    def ping(self) -> None:
        """Ask for a sign of life."""
        self.execute("PING").addErrback(lambda _: None)

    def replyReceived(self, reply: Any) -> None:
        kind = reply[0].decode() if isinstance(reply, list) and len(reply) == 3 else None
        if kind == self.MESSAGE:
            self._received(reply[1], reply[2])
        elif kind == self.SUBSCRIBE.lower():
            self._confirm()
        elif kind == self.UNSUBSCRIBE.lower():
            self._unsubscribed(reply[1])
        elif isinstance(reply, Exception) and self._confirming and not self._answers:
            self._confirming.popleft()[1].errback(self._refused(str(reply)))
        else:
            super().replyReceived(reply)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        confirming, self._confirming = self._confirming, deque()
        super().connectionLost(reason)
        for _, done in confirming:
            done.errback(LinkLost("the connection was lost"))

    def _unsubscribed(self, channel: bytes) -> None:
        """Note the end of a subscription."""

    def _confirm(self) -> None:
        if not self._confirming:
            return
        self._confirmed += 1
        channels, done = self._confirming[0]
        if self._confirmed == channels:
            self._confirmed = 0
            self._confirming.popleft()
            done.callback(None)

    def _waits(self) -> bool:
        return bool(self._answers or self._confirming)


class ShardSubscriber(Subscriber):
    """A connection to a Redis Cluster's node, on which the messages of sharded channels come."""

    SUBSCRIBE, UNSUBSCRIBE, MESSAGE = "SSUBSCRIBE", "SUNSUBSCRIBE", "smessage"

    def __init__(
        self, url: RedisURL, clock: IReactorTime, patience: float, received: Callable[[bytes, bytes], None]
    ) -> None:
        super().__init__(url, clock, patience, received)
        self._leaving: Counter[bytes] = Counter()

    def unsubscribe(self, channels: Sequence[str]) -> None:
        self._leaving.update(channel.encode() for channel in channels)
        super().unsubscribe(channels)

    def _unsubscribed(self, channel: bytes) -> None:
        if not self._leaving[channel]:
            # A node ends the subscriptions of a slot that moves to another node.
            self.drop(LinkLost("its part of the Redis Cluster moved to another node"))
            return
        self._leaving[channel] -= 1
        if not self._leaving[channel]:
            del self._leaving[channel]
