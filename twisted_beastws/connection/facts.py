"""`Facts`: the data of a connection that its parts read. `Connection` provides them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.interfaces import IReactorTime

from twisted_beastws.connection.accepted import Accepted
from twisted_beastws.connection.interfaces import Application, Gatekeeper
from twisted_beastws.connection.keepalive import Liveness
from twisted_beastws.connection.state import State
from twisted_beastws.connection.write_buffer import Outgoing
from twisted_beastws.options import Settings
from twisted_beastws.wire.session import Session

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress


class Described(Protocol):
    """A connection, as log lines name it."""

    @property
    def connection_id(self) -> int: ...

    @property
    def peer(self) -> IAddress | None: ...


class Facts(Described, Protocol):
    """The data of one connection.

    Attributes:
        application: The user's protocol, from the connection of the transport to its end.
        server: The factory, on the server's side; it decides which clients may connect.
        settings: The options of the connection.
        state: The state of the connection.
        clock: The reactor.
        transport: The transport below, or None.
        outgoing: The write buffer, once there is a transport.
        liveness: The deadlines and pings, once there is a transport.
        accepted: The result of the handshake, or None before it.
        session: Reads and writes frames while the connection is open.
    """

    application: Application | None
    server: Gatekeeper | None
    settings: Settings
    state: State
    clock: IReactorTime
    transport: Any
    outgoing: Outgoing
    liveness: Liveness
    accepted: Accepted | None
    session: Session | None
