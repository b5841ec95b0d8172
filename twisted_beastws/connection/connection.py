"""`Connection`: one WebSocket on one transport, from the opening handshake to the end of TCP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionAborted, ConnectionLost
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from twisted_beastws.clock import seconds_of
from twisted_beastws.connection import hook_calls
from twisted_beastws.connection.accepted import Accepted
from twisted_beastws.connection.bare_transport import complete
from twisted_beastws.connection.client_handshake import ClientHandshake
from twisted_beastws.connection.delivery import APPLICATION, Delivery
from twisted_beastws.connection.ending import Ending
from twisted_beastws.connection.events import ConnectionEvents
from twisted_beastws.connection.hooks import takes_messages
from twisted_beastws.connection.interfaces import Application, Gatekeeper, Observer
from twisted_beastws.connection.keepalive import Liveness
from twisted_beastws.connection.opening import Opening
from twisted_beastws.connection.operation import Operation
from twisted_beastws.connection.option_changes import DEFAULTS
from twisted_beastws.connection.reading import Reading
from twisted_beastws.connection.server_handshake import ServerHandshake
from twisted_beastws.connection.state import Lifecycle, State
from twisted_beastws.connection.takeover import RequestHandshake, WebConnection
from twisted_beastws.connection.write_buffer import Outgoing
from twisted_beastws.errors import ConnectionClosed, LocalError
from twisted_beastws.options import Decorator, Role, Settings
from twisted_beastws.wire.closing import CloseCode, CloseReason
from twisted_beastws.wire.http import Request
from twisted_beastws.wire.session import Session

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

_connection_ids = count(1)


class Connection:
    """Owns the parts of a connection, which `Shared` describes, and carries out the requests of the user's protocol.

    Attributes:
        reading: The reading side, while there is a transport.
        ending: Ends the connection, while there is a transport.
    """

    __slots__ = (
        "_client",
        "_connection_id",
        "accepted",
        "application",
        "clock",
        "delivery",
        "ending",
        "handshake",
        "life",
        "liveness",
        "now",
        "opened_at",
        "outermost",
        "outgoing",
        "reading",
        "request",
        "role",
        "server",
        "session",
        "session_type",
        "settings",
        "subprotocol",
        "successor",
        "transport",
    )

    clock: IReactorTime
    now: Callable[[], float]
    outgoing: Outgoing
    liveness: Liveness
    reading: Reading
    ending: Ending

    def __init__(self) -> None:
        self.application: Application | None = None
        self.outermost: Application | None = None
        self.successor: Application | None = None
        self.role = Role.SERVER
        self.settings = DEFAULTS
        self.server: Gatekeeper | None = None
        self.life = Lifecycle()
        self.transport: Any = None
        self.handshake: Operation | None = None
        self.request: Request | None = None
        self.accepted: Accepted | None = None
        self.subprotocol: str | None = None
        self.session_type: type[Session] = Session
        self.session: Session | None = None
        self.delivery: Delivery | None = None
        self.opened_at = 0.0
        self._connection_id: int | None = None
        self._client: tuple[Request, Any] | None = None

    # The transport.

    def be_client(self, settings: Settings) -> None:
        """Be the client's end, with these settings. Call this before the connection is made."""
        self.role, self.settings = Role.CLIENT, settings

    def connect(self, application: Application, transport: Any) -> Any:
        """Begin on a transport. Returns the transport, or a replacement if it lacks methods."""
        clock = self.settings.clock
        if clock is None:
            from twisted.internet import reactor

            clock = cast("IReactorTime", reactor)
        self.application = self.outermost = application
        self.clock = clock
        self.now = seconds_of(clock)
        given, transport = transport, complete(transport, clock, self._lost_unnoticed)
        self.reading = Reading(self)
        self.ending = Ending(self, self.reading)
        events = ConnectionEvents(self, self.reading, self.ending)
        self.liveness = Liveness(events, clock, self.settings.timeouts)
        if self.settings.budget is not None:
            self.reading.account = self.settings.budget.open(self.ending.shed)
        self.outgoing = Outgoing(transport, self.settings.limits, events, self.reading.account)
        opening = Opening(self, self.reading, self.ending, events, self._move_to)
        handshake = self._handshake_on(given, opening, application)
        self.handshake = handshake
        # A subclass's connectionMade may fail: by then the time limit of the handshake must run.
        self.transport = transport
        self.reading.receive_by(handshake.data_received)
        opening.expect_handshake()
        return transport

    def _handshake_on(self, transport: Any, host: Opening, application: Application) -> Operation:
        if self.role is Role.CLIENT:
            return ClientHandshake(host)
        if isinstance(transport, WebConnection):
            transport.belong_to(self, application)
            return RequestHandshake(host, transport)
        return ServerHandshake(host)

    def _lost_unnoticed(self) -> None:
        """End a connection that we dropped: its transport may never report that it is lost."""
        if self.application is not None:
            self.application.connectionLost(Failure(ConnectionAborted()))

    def _move_to(self, transport: Any) -> None:
        """Leave the transport of the handshake for ``transport``."""
        self.transport = complete(transport, self.clock, self._lost_unnoticed)
        self.outgoing = self.outgoing.moved_to(self.transport)

    def release(self) -> None:
        """Release the application and the parts that refer to this object."""
        self.application = self.outermost = self.successor = None
        del self.reading, self.ending

    # Facts about the connection.

    @property
    def state(self) -> State:
        """The state of the connection."""
        return self.life.state

    @property
    def ended(self) -> CloseReason | None:
        """How the connection ended, once it has."""
        return self.life.ended

    @property
    def close_reason(self) -> CloseReason | None:
        """How the connection ended or is ending; 1006 if it never was open. None before it closes."""
        if self.life.ended is not None:
            return self.life.ended
        return self.ending.reason() if self.life.state is State.CLOSING else None

    @property
    def observer(self) -> Observer | None:
        """The server's observer, or None."""
        return None if self.server is None else self.server.observer

    @property
    def peer(self) -> IAddress | None:
        """The address of the client according to trusted proxies, or else of the peer; None if there is none."""
        address, request, server = address_of(self.transport), self.request, self.server
        if address is None or request is None or server is None or server.client_of is None:
            return address
        # A proxy may send requests of many clients over one connection.
        if self._client is None or self._client[0] is not request:
            self._client = request, server.client_of(address, request)
        return cast("IAddress", self._client[1])

    @property
    def connection_id(self) -> int:
        """A number that no other connection of this process has, for logs."""
        if self._connection_id is None:
            self._connection_id = next(_connection_ids)
        return self._connection_id

    @property
    def latency(self) -> float | None:
        """The round-trip time of the latest ping in seconds, or None."""
        return None if self.transport is None else self.liveness.latency

    # Opening.

    def require_handshake(self, role: Role) -> Any:
        """Return the opening handshake.

        Raises:
            LocalError: It is over, or it is the handshake of the other role.
        """
        if self.role is not role:
            raise LocalError(
                f"this is the {self.role.value}'s end of the connection, and that is the {role.value}'s part"
            )
        if self.handshake is None or self.life.state is not State.CONNECTING:
            raise LocalError(f"the opening handshake is over or not begun: the connection is {self.life.state.value}")
        return self.handshake

    def accept(
        self,
        request: Request | None = None,
        buffered: bytes = b"",
        decorator: Decorator | None = None,
        subprotocols: Sequence[str] = (),
    ) -> Deferred[Request]:
        """See `WebSocketProtocol.accept`."""
        if request is not None and self.life.ended is not None:
            return fail(ConnectionLost("the client left before its request was accepted"))
        handshake = self.require_handshake(Role.SERVER)
        accepted = cast("Deferred[Request]", handshake.accept(request, buffered, decorator, subprotocols))
        if self.server is not None and self.server.observer is not None:
            accepted.addErrback(self._not_opened, self.application)
        return accepted

    def settle(self) -> None:
        """If the connection is open and no operation runs, deliver the bytes that followed the handshake."""
        if self.handshake is not None:
            self.handshake.settle()

    def _not_opened(self, failure: Failure, application: Application | None) -> Failure:
        if self.observer is not None:
            self.observer.not_opened(application, failure.value)
        return failure

    # Messages.

    def require_session(self) -> Session:
        """Return the session.

        Raises:
            ConnectionClosed: The connection has ended.
            LocalError: The connection is not open yet.
        """
        if self.session is None:
            if self.life.ended is not None:
                raise ConnectionClosed(self.life.ended)
            raise LocalError(f"there is no WebSocket before opened() is called: the connection is {self.state.value}")
        return self.session

    def receive(self, application: Application) -> Deferred[str | bytes]:
        """See `WebSocketProtocol.receive`."""
        delivery = self.delivery
        if takes_messages(application) if delivery is None else delivery.by_hooks:
            name = type(application).__name__
            raise LocalError(f"{name} overrides a message hook: its messages go there, not to receive()")
        message = None if delivery is None else delivery.receive()
        if message is not None:
            if self.life.ended is None:
                self.reading.count()
            return message
        if self.life.ended is not None:
            return fail(ConnectionClosed(self.life.ended))
        self.require_session()
        assert delivery is not None
        return delivery.wait()

    def pause(self) -> None:
        """Deliver no message until `resume`, and stop reading. Raises `LocalError` before the connection is open."""
        if self.life.ended is None:
            self.require_session()
            assert self.delivery is not None
            self.delivery.hold(APPLICATION)

    def resume(self) -> None:
        """Deliver messages again."""
        if self.delivery is not None and self.session is not None:
            self.delivery.release(APPLICATION)
            if self.session is not None:
                self.reading.count()

    def ping(self, payload: bytes) -> Deferred[float]:
        """See `WebSocketProtocol.ping`."""
        session = self.require_session()
        # The system call that sends the ping takes time, which is part of the round trip.
        now = self.now()
        session.ping(payload)
        return self.liveness.ping_sent(payload, now)

    def run_hook(self, hook: Any, *arguments: Any) -> None:
        """Call a method of the application. If it fails, log that and close with 1011."""
        hook_calls.run_hook(self, hook, *arguments)

    def log_unconsumed(self, application: Application) -> None:
        """Log the number of messages that the application will not consume."""
        if self.delivery is not None:
            self.delivery.log_unconsumed(self, application)

    # The end.

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> Deferred[CloseReason]:
        """See `WebSocketProtocol.close`."""
        if self.life.ended is not None:
            return succeed(self.life.ended)
        if self.transport is None:
            return succeed(NEVER_CONNECTED)
        return self.ending.close(code, reason)

    def when_closed(self) -> Deferred[CloseReason]:
        """See `WebSocketProtocol.when_closed`."""
        if self.life.ended is not None:
            return succeed(self.life.ended)
        self.require_session()
        return self.ending.when_closed()

    def abort(self) -> None:
        """See `WebSocketProtocol.abort`."""
        if self.life.ended is None and self.transport is not None:
            self.ending.abort()

    def overflowed(self) -> None:
        """The peer reads too slowly: discard the write buffer, close with 1013."""
        if self.life.ended is None and self.transport is not None:
            ConnectionEvents(self, self.reading, self.ending).overflowed()

    def reading_lost(self) -> None:
        """The peer ended its side of TCP."""
        if self.life.ended is None:
            self.ending.reading_lost()

    def lost(self, reason: Failure) -> None:
        """The transport is gone."""
        if self.life.ended is None and self.application is not None:
            self.ending.lost(reason)


NEVER_CONNECTED = CloseReason(CloseCode.ABNORMAL, "", False, "transport")
"""The end of a connection that has not begun."""


def address_of(transport: Any) -> IAddress | None:
    """Return the address of the peer according to the transport; None without a transport, or if it has none."""
    try:
        return None if transport is None else cast("IAddress", transport.getPeer())
    except Exception:
        # A process transport has no such method, and that of an SSH channel in memory fails.
        return None
