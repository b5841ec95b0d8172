"""The requests of an application to its connection, such as to accept or to ping; see `WebSocketProtocol`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from twisted_beastws.connection.delivery import APPLICATION
from twisted_beastws.connection.hooks import takes_messages
from twisted_beastws.errors import ConnectionClosed, LocalError
from twisted_beastws.options import Decorator, Role

if TYPE_CHECKING:
    from twisted_beastws.connection.connection import Connection
    from twisted_beastws.connection.interfaces import Application
    from twisted_beastws.wire.closing import CloseReason
    from twisted_beastws.wire.http import Request


def accept(
    connection: Connection,
    request: Request | None,
    buffered: bytes,
    decorator: Decorator | None,
    subprotocols: Sequence[str],
) -> Deferred[Request]:
    """Perform the server's opening handshake."""
    if request is not None and connection.ended is not None:
        return fail(ConnectionLost("the client left before its request was accepted"))
    handshake = connection.require_handshake(Role.SERVER)
    # The connection may have ended, and released its application, when this returns.
    application = connection.application
    accepted = cast("Deferred[Request]", handshake.accept(request, buffered, decorator, subprotocols))
    if connection.observer is not None:
        accepted.addErrback(_not_opened, connection, application)
    return accepted


def _not_opened(failure: Failure, connection: Connection, application: Application | None) -> Failure:
    if connection.observer is not None:
        connection.observer.not_opened(application, failure.value)
    return failure


def receive(connection: Connection, application: Application) -> Deferred[str | bytes]:
    """Return a Deferred of the next message."""
    delivery = connection.delivery
    if takes_messages(application) if delivery is None else delivery.by_hooks:
        name = type(application).__name__
        raise LocalError(f"{name} overrides a message hook: its messages go there, not to receive()")
    message = None if delivery is None else delivery.receive()
    if message is not None:
        if connection.ended is None:
            connection.reading.count()
        return message
    if connection.ended is not None:
        return fail(ConnectionClosed(connection.ended))
    connection.require_session()
    assert delivery is not None
    return delivery.wait()


def pause(connection: Connection) -> None:
    """Deliver no message until `resume`, and stop reading. Raises `LocalError` before the connection is open."""
    if connection.ended is None:
        connection.require_session()
        assert connection.delivery is not None
        connection.delivery.hold(APPLICATION)


def resume(connection: Connection) -> None:
    """Deliver messages again."""
    if connection.delivery is not None and connection.session is not None:
        connection.delivery.release(APPLICATION)
        if connection.session is not None:
            connection.reading.count()


def ping(connection: Connection, payload: bytes) -> Deferred[float]:
    """Send a ping, and return a Deferred of the round-trip time."""
    session, liveness = connection.require_session(), connection.liveness
    # The system call that sends the ping takes time, which is part of the round trip.
    now = liveness.now()
    session.ping(payload)
    return liveness.ping_sent(payload, now)


def latency(connection: Connection) -> float | None:
    """Return the round-trip time of the latest answered ping in seconds, or None."""
    return None if connection.transport is None else connection.liveness.latency


def log_unconsumed(connection: Connection, application: Application) -> None:
    """Log the number of messages that the application will not consume."""
    if connection.delivery is not None:
        connection.delivery.log_unconsumed(connection, application)


def when_closed(connection: Connection) -> Deferred[CloseReason]:
    """Return a Deferred of the end of an open connection."""
    if connection.ended is not None:
        return succeed(connection.ended)
    connection.require_session()
    return connection.ending.when_closed()


def end_slow_reader(connection: Connection) -> None:
    """The peer reads too slowly: discard the write buffer, close with 1013."""
    if connection.ended is None and connection.transport is not None:
        connection.overflowed()
