"""The sending side as the application paces it: `drain`, `flush`, and producers."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail

from twisted_beastws.connection.producers import PulledProducer
from twisted_beastws.connection.shared import Shared
from twisted_beastws.connection.state import State
from twisted_beastws.errors import ConnectionClosed


def buffered_amount(connection: Shared) -> int:
    """Return the number of bytes sent that the operating system may not have taken yet."""
    if connection.transport is None:
        return 0
    gathered = connection.session.writer.gathered_size if connection.session is not None else 0
    return gathered + connection.outgoing.buffered


def drain(connection: Shared) -> Deferred[None]:
    """See `WebSocketProtocol.drain`."""
    if connection.ended is not None:
        return fail(ConnectionClosed(connection.ended))
    if connection.transport is None:
        connection.require_session()
    return connection.outgoing.drain()


def flush(connection: Shared) -> Deferred[None]:
    """See `WebSocketProtocol.flush`."""
    if connection.ended is not None:
        return fail(ConnectionClosed(connection.ended))
    if connection.transport is None:
        connection.require_session()
    if connection.session is not None and connection.session.writer.gathered_size:
        connection.session.writer.flush()
    return connection.outgoing.flush()


def register(connection: Shared, producer: Any, streaming: bool) -> None:
    """See `WebSocketProtocol.registerProducer`."""
    if connection.state in (State.CLOSING, State.CLOSED):
        producer.stopProducing()
        return
    if not streaming:
        producer = PulledProducer(producer, connection.clock)
    connection.outgoing.register(producer)
    if not streaming and buffered_amount(connection) <= connection.settings.limits.high_water:
        producer.resumeProducing()


def unregister(connection: Shared) -> None:
    """See `WebSocketProtocol.unregisterProducer`."""
    producer = connection.outgoing.unregister()
    if isinstance(producer, PulledProducer):
        producer.pauseProducing()


def discard_clear(connection: Shared) -> None:
    """TLS is about to start: send the queued bytes, and discard unread bytes that came in clear."""
    if connection.session is not None and connection.session.writer.gathered_size:
        connection.session.writer.flush()
    connection.outgoing.hand_over_all()
    if connection.handshake is not None:
        connection.handshake.discard_waiting()
