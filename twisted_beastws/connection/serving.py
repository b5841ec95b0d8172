"""Serve a connection by the application's ``serve``; its default accepts requests until one opens the WebSocket."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

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

log = Logger()


def begin_to_serve(connection: Connection, serve: Callable[[], object]) -> None:
    """Call ``serve``. If it fails, or its Deferred or coroutine does, log that and end the connection."""
    try:
        served = serve()
        running = None if served is None else deferred_of(served)
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

    __slots__ = ("_again", "_application", "_connection", "_looping")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        # An observer gets it, also when the connection has released it.
        self._application = connection.application
        self._looping = self._again = False

    def begin(self) -> None:
        """Accept a request when its first bytes arrive: until then a connection costs little."""
        self._connection.require_handshake(Role.SERVER).when_bytes_come(self._serve)

    def _serve(self) -> None:
        """Accept the requests that have arrived. A loop, because calls would nest deeply if many came together."""
        self._again = True
        if self._looping:
            return
        self._looping = True
        try:
            while self._again:
                self._again = False
                self._connection.require_handshake(Role.SERVER).accept_next(self._accepted)
        finally:
            self._looping = False

    def _accepted(self, result: object) -> None:
        connection = self._connection
        if isinstance(result, Failure) and not self._goes_on(result):
            return
        if connection.state is State.CONNECTING:
            # A client that was answered and sends nothing more is in no handshake that could time out.
            connection.require_handshake(Role.SERVER).when_bytes_come(self._serve)

    def _goes_on(self, failure: Failure) -> bool:
        """Return whether to accept again after a failure."""
        connection = self._connection
        if connection.observer is not None:
            connection.observer.not_opened(self._application, failure.value)
        _handshake_failed(connection, failure)
        return failure.check(HandshakeError) is not None
