"""`Shared`: the connection as its reading, its opening and its ending see it. `Connection` provides it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted_beastws.connection.delivery import Delivery, DeliveryHost
from twisted_beastws.connection.interfaces import Application
from twisted_beastws.connection.observer import Observer
from twisted_beastws.connection.operation import HandshakeHost, Operation
from twisted_beastws.connection.state import State
from twisted_beastws.options import Role
from twisted_beastws.wire.closing import CloseReason
from twisted_beastws.wire.session import Handler, Session


class Shared(HandshakeHost, DeliveryHost, Handler, Protocol):
    """The references that the parts of one connection share, beside its `Facts`.

    Attributes:
        outermost: The protocol that the transport calls and that the server counts. It is ``application``, except for a
            connection that a `Router` opened.
        successor: The application that takes over when the connection opens, or None.
        observer: Watches the connection, or None.
        role: Whether this is the client's or the server's end.
        ended: How the connection ended, once it has.
        handshake: The opening handshake, until the connection is open and the bytes after it are delivered.
        session_type: The class of the session.
        delivery: Gives the messages to the application, from the moment that the connection is open.
    """

    outermost: Application | None
    successor: Application | None
    observer: Observer | None
    role: Role
    ended: CloseReason | None
    handshake: Operation | None
    session_type: type[Session]
    delivery: Delivery | None

    def move(self, to: State) -> None:
        """Change the state."""

    def receive_by(self, receive: Callable[[bytes], None]) -> None:
        """Pass the bytes from the transport to ``receive``."""

    def end_with_peer(self) -> None:
        """If the peer ended its side of TCP, end ours after the queued bytes."""

    def release(self) -> None:
        """Release the parts: their references to the connection would keep it alive."""
