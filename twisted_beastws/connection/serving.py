"""Serve a connection by the application's ``serve``; its default accepts requests until one opens the WebSocket."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_beastws.connection.hook_calls import hook_failed
from twisted_beastws.connection.hooks import deferred_of
from twisted_beastws.connection.peer_text import peer_text
from twisted_beastws.connection.state import State
from twisted_beastws.errors import HandshakeError, UpgradeDeclined, WebSocketError
from twisted_beastws.options import Role

if TYPE_CHECKING:
    from twisted_beastws.connection.connection import Connection
    from twisted_beastws.wire.http import Request

log = Logger()


def begin_to_serve(connection: Connection, serve: Callable[[], object]) -> None:
    """Call ``serve``. If it fails, or its Deferred or coroutine does, log that and end the connection."""
    try:
        running = deferred_of(serve())
    except Exception:
        _serve_failed(connection, Failure())
    else:
        if running is not None:
            running.addErrback(lambda failure: _serve_failed(connection, failure))


def _serve_failed(connection: Connection, failure: Failure) -> None:
    if connection.state is State.CONNECTING:
        _handshake_failed(connection, failure)
    elif failure.check(HandshakeError):
        failure.cleanFailure()
    else:
        hook_failed(connection, failure)


def _handshake_failed(connection: Connection, failure: Failure) -> None:
    peer = peer_text(connection.peer)
    if connection.state is State.CONNECTING and not failure.check(WebSocketError):
        log.failure("the handshake of {peer} failed; the connection is dropped", failure, peer=peer)
        connection.abort()
    elif not failure.check(UpgradeDeclined):
        log.debug(
            "no WebSocket on connection {connection} of {peer}: {error}",
            connection=connection.connection_id,
            peer=peer,
            error=failure.value,
        )
    # A log observer may keep the failure, which must not keep the connection alive.
    failure.cleanFailure()


class AcceptLoop:
    """Accepts the requests of one connection as long as HTTP keeps it."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def begin(self) -> None:
        """Accept a request when its first bytes arrive: until then a connection costs little."""
        self._connection.require_handshake(Role.SERVER).when_bytes_come(self._serve)

    def _serve(self) -> None:
        connection = self._connection
        accepted = connection.accept()
        if connection.life.state is State.OPEN:
            # Most handshakes open at once, and no code of the application awaits this one.
            connection.settle()
        else:
            accepted.addBoth(self._accepted)

    def _accepted(self, result: Request | Failure) -> None:
        again = not isinstance(result, Failure) or self._not_accepted(result)
        # A coroutine, because callbacks would nest deeply if many requests came together.
        if again and self._connection.state is State.CONNECTING:
            Deferred.fromCoroutine(self._accept_on())

    async def _accept_on(self) -> None:
        connection = self._connection
        again: object = True
        while again and connection.state is State.CONNECTING:
            opening: Any = connection.require_handshake(Role.SERVER)
            if not opening.bytes_wait:
                # A client that was answered and sends nothing more is in no handshake that could time out.
                opening.when_bytes_come(self._serve)
                return
            again = await connection.accept().addErrback(self._not_accepted)
        connection.settle()

    def _not_accepted(self, failure: Failure) -> bool:
        """Return whether to accept again."""
        _handshake_failed(self._connection, failure)
        return failure.check(HandshakeError) is not None
