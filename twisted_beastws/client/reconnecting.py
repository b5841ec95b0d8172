"""A client that reconnects: ``ClientService`` with a policy that knows why the last attempt failed."""

from __future__ import annotations

import random
from datetime import timezone
from email.utils import parsedate_to_datetime
from inspect import isclass
from typing import Any, TypeVar, cast

from twisted.application.internet import ClientService
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_beastws.client.connect import WebSocketClientEndpoint
from twisted_beastws.clock import date_of, seconds_of
from twisted_beastws.connection.awaiting import awaitable
from twisted_beastws.errors import HandshakeTimeout, SocksDeclined, UpgradeDeclined
from twisted_beastws.options import kind_of
from twisted_beastws.protocol import State, WebSocketProtocol

T = TypeVar("T")

RETRYABLE_STATUSES = frozenset((408, 425, 429, 500, 502, 503, 504))
RETRYABLE_REPLIES = frozenset((1, 3, 4, 5, 6))
"""The replies of a SOCKS5 proxy (RFC 1928 §6) that report a problem of the network or the host."""
FIRST_DELAY = 1.0
"""Seconds before the first new attempt; half of them are random."""
GROWTH = 1.6
"""The factor from one delay to the next (websockets: 1.618)."""
STEADY = 10.0
"""Seconds. The end of a younger connection counts as a failed attempt: the server may reject it again at once."""
MAX_DELAY = 90.0
"""Seconds: our longest delay (websockets: 90)."""
MAX_RETRY_AFTER = 3600.0
"""Seconds: the longest delay that a server may ask for by Retry-After."""


def is_retryable(failure: Failure) -> bool:
    """Return whether another attempt may succeed.

    It may after a lost or refused connection, silence, and statuses such as 503. It will not after 401, 403, 404, a
    redirect loop, a response that is no WebSocket handshake, or a refused certificate.
    """
    if failure.check(UpgradeDeclined):
        return failure.value.status in RETRYABLE_STATUSES  # type: ignore[union-attr]
    if failure.check(SocksDeclined):
        return failure.value.code in RETRYABLE_REPLIES  # type: ignore[union-attr]
    return failure.check(HandshakeTimeout, ConnectError, ConnectionClosed, DNSLookupError, OSError) is not None


class ReconnectingService(ClientService):
    """The service that `reconnecting` returns.

    Attributes:
        given_up: The failure after which another attempt would not succeed, or None.
    """

    log = Logger()

    def __init__(self, endpoint: WebSocketClientEndpoint, factory: IProtocolFactory, clock: Any) -> None:
        super().__init__(endpoint, factory, self._delay, clock, self._connected)
        self._reconnecting = endpoint
        self._reactor = clock
        self.given_up: Failure | None = None
        self._connection: WebSocketProtocol | None = None
        self._connected_at = 0.0
        self._short_lived = 0

    def startService(self) -> None:
        self.given_up = None
        super().startService()

    def whenConnected(self, failAfterFailures: int | None = None) -> Deferred[IProtocol]:
        """Wait for an open connection. As ``ClientService.whenConnected``, but never a connection that is closing or
        gone.

        Returns:
            A Deferred of the protocol. It also fails with the reason why the service gave up, before the first
            connection or after one. A callback may start and stop the service.
        """
        if self.given_up is not None:
            return fail(self.given_up)
        connected = super().whenConnected(failAfterFailures)
        # A connection that ends within a turn may have brought messages, which the caller must get. So check it now.
        return self._outside(connected.addCallbacks(self._if_live, self._why, (failAfterFailures,)))

    def stopService(self) -> Deferred[None]:
        """Stop, as ``ClientService.stopService`` does. A callback may start the service again."""
        return self._outside(super().stopService())

    def _outside(self, waiting: Deferred[T]) -> Deferred[T]:
        """Fire in the next turn of the reactor: ClientService fires inside its own step, where it accepts no call."""
        if waiting.called:
            return waiting
        return awaitable(waiting.addBoth(lambda result: deferLater(self._reactor, 0, lambda: result)))

    def _if_live(self, protocol: IProtocol, fail_after_failures: int | None) -> IProtocol | Deferred[IProtocol]:
        connection = cast(WebSocketProtocol, protocol)
        if connection.state is State.OPEN:
            return protocol
        # A connection learns of its end before ClientService does, and began to close earlier still.
        gone: Deferred[Any] = connection.when_closed()
        gone.addCallback(lambda _: deferLater(self._reactor, 0))
        return gone.addCallback(lambda _: self.whenConnected(fail_after_failures))

    def _why(self, failure: Failure) -> Failure:
        return self.given_up if self.given_up is not None and failure.check(CancelledError) else failure

    def _connected(self, protocol: IProtocol) -> None:
        self._connection = cast(WebSocketProtocol, protocol)
        self._connected_at = seconds_of(self._reactor)()

    def _delay(self, attempts: int) -> float:
        connection, self._connection = self._connection, None
        if connection is not None:
            return self._delay_behind(connection)
        failure = self._reconnecting.last_failure
        assert failure is not None
        if not is_retryable(failure):
            self.given_up = failure
            # Not from within the service's own step: it stops in the reactor's next turn.
            self._reactor.callLater(0, self._give_up)
            return MAX_DELAY
        self.log.info(
            "{endpoint!r}: attempt {attempts} failed: {why}",
            endpoint=self._reconnecting,
            attempts=attempts,
            why=_in_one_line(failure),
        )
        # ``attempts`` includes the last of them.
        attempts += max(self._short_lived - 1, 0)
        return max(_backoff(attempts), _retry_after(failure, date_of(self._reactor)()))

    def _delay_behind(self, connection: WebSocketProtocol) -> float:
        lived = seconds_of(self._reactor)() - self._connected_at
        self._short_lived = self._short_lived + 1 if lived < STEADY else 0
        self.log.info(
            "{endpoint!r}: the connection ended after {lived:.0f} s: {reason}",
            endpoint=self._reconnecting,
            lived=lived,
            reason=connection.close_reason,
        )
        return _backoff(self._short_lived or 1)

    def _give_up(self) -> None:
        if self.given_up is not None and self.running:
            # ClientService has logged a retry, which will not happen: log this after it.
            self.log.warn(
                "{endpoint!r}: gave up, trying again would not help: {why}",
                endpoint=self._reconnecting,
                why=_in_one_line(self.given_up),
            )
            self.stopService()


def _in_one_line(failure: Failure) -> str:
    """Return the failure in one line."""
    return " ".join(f"{type(failure.value).__name__}: {failure.value}".split())


def _backoff(attempts: int) -> float:
    """Return the delay before the next attempt, after at least one failed attempt."""
    delay: float = min(MAX_DELAY, FIRST_DELAY * GROWTH ** min(attempts - 1, 64))
    return random.uniform(delay / 2, delay)


def _retry_after(failure: Failure, now: float) -> float:
    """Return the seconds that a Retry-After field asks for (RFC 9110 §10.2.3), or 0 without one."""
    if not failure.check(UpgradeDeclined):
        return 0.0
    value = failure.value.response.field("Retry-After") or ""  # type: ignore[union-attr]
    if value.isdecimal():
        return min(float(value), MAX_RETRY_AFTER)
    try:
        when = parsedate_to_datetime(value)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    # RFC 9110 §5.6.7: a date that names no zone is in UTC.
    when = when if when.tzinfo else when.replace(tzinfo=timezone.utc)
    return min(max(when.timestamp() - now, 0.0), MAX_RETRY_AFTER)


def reconnecting(endpoint: WebSocketClientEndpoint, factory: IProtocolFactory) -> ReconnectingService:
    """Return a ``ClientService`` that keeps ``endpoint`` connected as long as attempts can succeed.

    After each failure it waits longer, from a second to 90, half of it random; it obeys a server's Retry-After. A
    failure that is not `is_retryable` ends it: the service stops, and pending ``whenConnected`` Deferreds fail with
    that failure. The endpoint's decorator is called for each attempt, so it can compute fields each time. The log has
    the reason of each failure (info), and the reason why the service gave up (warn).

    Args:
        endpoint: The endpoint.
        factory: ``Factory.forProtocol(YourProtocol)``.

    Raises:
        TypeError: An argument is of another type.
    """
    if not hasattr(endpoint, "last_failure"):
        raise TypeError(f"endpoint: give WebSocketClientEndpoint(reactor, url), not {kind_of(endpoint)}")
    if isclass(factory) or not hasattr(factory, "buildProtocol"):
        raise TypeError(f"factory: give Factory.forProtocol(YourProtocol), not {kind_of(factory)}")
    return ReconnectingService(endpoint, factory, endpoint.reactor)
