"""From the handshake to the first frame: make the session of an accepted handshake, and pass on the bytes after it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from twisted_beastws.connection.accepted import Accepted
from twisted_beastws.connection.delivery import Delivery
from twisted_beastws.connection.hook_calls import run_hook
from twisted_beastws.connection.hooks import is_default
from twisted_beastws.connection.shared import Shared
from twisted_beastws.connection.state import State
from twisted_beastws.connection.tracing import NAMESPACES, is_traced, namespace_of
from twisted_beastws.connection.tracing import begin as begin_trace
from twisted_beastws.options import Role
from twisted_beastws.wire.deflate import PerMessageDeflate
from twisted_beastws.wire.fields import Headers
from twisted_beastws.wire.rate import limit_rate
from twisted_beastws.wire.session import Session


def open_connection(connection: Shared, accepted: Accepted) -> None:
    """Open a connection whose handshake succeeded, and call ``opened``."""
    if connection.successor is not None:
        connection.application = connection.successor
    application: Any = connection.application
    observer, opened = connection.observer, application.opened
    connection.accepted = accepted
    session = connection.session = _session_of(connection, accepted)
    if observer is not None:
        observer.opened(application)
        opened = observer.around(application, "opened", opened)
    if is_default(application.send):
        # This saves one call for each message.
        application.send = session.sender.send
    delivery = connection.delivery = Delivery(connection, application)
    delivery.direct(session, observer)
    connection.move(State.OPEN)
    if NAMESPACES and is_traced(namespace_of(application)):
        begin_trace(connection)
    connection.liveness.opened(session)
    if delivery.by_hooks:
        session.reader.call_hook(_call, opened)
    else:
        run_hook(connection, opened)
    if isinstance(accepted.request.headers, Headers):
        # Few connections use the fields of their request after that, which would be a fifth of an idle one's memory.
        accepted.request.headers.pack()


def _call(opened: Callable[[], object]) -> object:
    return opened()


def _session_of(connection: Shared, accepted: Accepted) -> Session:
    settings, outgoing, server = connection.settings, connection.outgoing, connection.server
    is_server, limits = connection.role is Role.SERVER, settings.limits
    deflate = None
    if accepted.deflate is not None and settings.deflate is not None:
        deflate = PerMessageDeflate(accepted.deflate, settings.deflate, is_server)
    session = connection.session_type(is_server, connection, outgoing, connection.liveness.now, limits, deflate)
    session.reader.budget.one_chunk_a_turn = outgoing.outlet.one_chunk_a_turn
    if limits.max_byte_rate is not None or limits.max_message_rate is not None:
        limit_rate(session, limits, Counter() if server is None else server.refusals)
    return session


def settle(connection: Shared) -> None:
    """Pass the bytes that followed the handshake to the session, and from now on all others.

    The handshake calls this after the code that awaits it, so that the first message comes after that code.
    """
    session, handshake, accepted = connection.session, connection.handshake, connection.accepted
    if session is None or handshake is None or accepted is None:
        return
    connection.handshake = None
    connection.hold_reading(session.paused)
    # More bytes may have come since the handshake succeeded.
    followed = handshake.rest()
    if accepted.followed:
        followed = accepted.followed + followed
        # Free those bytes: otherwise they would stay in memory as long as the connection.
        connection.accepted = accepted._replace(followed=b"")
    if not session.ended:
        connection.receive_by(session.feed)
        if followed:
            session.feed(followed)
    connection.end_with_peer()
