"""`Shared`: the attributes of a connection that its parts use. `Connection` provides them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime

from twisted_beastws.connection.accepted import Accepted
from twisted_beastws.connection.delivery import Delivery
from twisted_beastws.connection.interfaces import Application, Described, Gatekeeper, Observer
from twisted_beastws.connection.keepalive import Liveness
from twisted_beastws.connection.operation import Operation
from twisted_beastws.connection.state import Lifecycle
from twisted_beastws.connection.write_buffer import Outgoing
from twisted_beastws.options import Role, Settings
from twisted_beastws.wire.http import Request
from twisted_beastws.wire.session import Session


class Shared(Described, Protocol):
    """The references that the parts of one connection share.

    Attributes:
        application: The user's protocol, from the connection of the transport to its end.
        outermost: The protocol that the transport calls and that the server counts. It is ``application``, except for a
            connection that a `Router` opened.
        successor: The application that takes over when the connection opens, or None.
        role: Whether this is the client's or the server's end.
        settings: The options of the connection.
        server: The factory, on the server's side.
        life: The state of the connection.
        clock: The reactor.
        now: Returns the time of the clock, in seconds.
        transport: The transport below, or None.
        outgoing: The write buffer, once there is a transport.
        liveness: The deadlines and pings, once there is a transport.
        handshake: The opening handshake, until the connection is open and the bytes after it are delivered.
        request: The request of the opening handshake, or None before it.
        accepted: The result of the handshake, or None before it.
        subprotocol: The subprotocol that both ends agreed on, or that the server is about to choose.
        session_type: The class of the session.
        session: Reads and writes frames while the connection is open.
        delivery: Gives the messages to the application, from the moment that the connection is open.
        opened_at: The time when it opened.
    """

    application: Application | None
    outermost: Application | None
    successor: Application | None
    role: Role
    settings: Settings
    server: Gatekeeper | None
    life: Lifecycle
    clock: IReactorTime
    now: Callable[[], float]
    transport: Any
    outgoing: Outgoing
    liveness: Liveness
    handshake: Operation | None
    request: Request | None
    accepted: Accepted | None
    subprotocol: str | None
    session_type: type[Session]
    session: Session | None
    delivery: Delivery | None
    opened_at: float

    @property
    def observer(self) -> Observer | None:
        """The server's observer, or None."""

    def require_session(self) -> Session:
        """Return the session.

        Raises:
            ConnectionClosed: The connection has ended.
            LocalError: The connection is not open yet.
        """

    def release(self) -> None:
        """Release the parts: their references to the connection would keep it alive."""
