"""Calls of an application's hooks other than those for messages, and the end of a connection after a hook failed."""

from __future__ import annotations

from typing import Any, cast

from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_beastws.connection.hooks import deferred_of
from twisted_beastws.connection.peer_text import peer_text
from twisted_beastws.connection.shared import Shared
from twisted_beastws.errors import ConnectionClosed
from twisted_beastws.wire.closing import CloseCode

log = Logger()


def run_hook(connection: Shared, hook: Any, *arguments: Any) -> None:
    """Call a hook that is not for messages. If it fails, log that and close with 1011."""
    try:
        result = hook(*arguments)
        running = None if result is None else deferred_of(result)
        if running is not None:
            running.addErrback(lambda failure: hook_failed(connection, failure))
    except Exception:
        hook_failed(connection, Failure())


def hook_failed(connection: Shared, failure: Failure) -> None:
    """Log the exception of a hook, unless it is the end of a connection, and close with 1011."""
    if failure.check(ConnectionClosed):
        failure.cleanFailure()
        return
    session = connection.session
    failing = session is not None and not session.writer.closed
    log.failure(
        "the application failed on connection {connection} of {peer}{outcome}",
        failure,
        connection=connection.connection_id,
        peer=peer_text(connection.peer),
        outcome=", which is closed with 1011" if failing else "",
    )
    # The frames of its traceback would keep the connection alive.
    failure.cleanFailure()
    if session is not None:
        session.fail(cast(BaseException, failure.value), CloseCode.INTERNAL_ERROR)
