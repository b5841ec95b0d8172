"""`Connection`: one WebSocket on one transport, from the opening handshake to the end of TCP."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from twisted_beastws.clock import installed_reactor
from twisted_beastws.connection import hook_calls, opening
from twisted_beastws.connection.accepted import Accepted
from twisted_beastws.connection.bare_transport import complete
from twisted_beastws.connection.client_handshake import ClientHandshake
from twisted_beastws.connection.delivery import Delivery
from twisted_beastws.connection.ending import Ending
from twisted_beastws.connection.freed_memory import keep_freed_memory
from twisted_beastws.connection.interfaces import Application, Gatekeeper
from twisted_beastws.connection.keepalive import Liveness
from twisted_beastws.connection.observer import Observer
from twisted_beastws.connection.operation import Operation
from twisted_beastws.connection.option_changes import DEFAULTS
from twisted_beastws.connection.peer_text import address_of
from twisted_beastws.connection.reading import Reading
from twisted_beastws.connection.server_handshake import ServerHandshake
from twisted_beastws.connection.state import Lifecycle, State
from twisted_beastws.connection.takeover import RequestHandshake, WebConnection
from twisted_beastws.connection.unsent import unaccepted
from twisted_beastws.connection.write_buffer import Outgoing
from twisted_beastws.errors import ConnectionClosed, LocalError
from twisted_beastws.options import Role, Settings
from twisted_beastws.wire.closing import CloseCode, CloseReason
from twisted_beastws.wire.frames import Opcode
from twisted_beastws.wire.http import Request
from twisted_beastws.wire.session import Session

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

_connection_ids = count(1)


class Connection(Lifecycle):
    """Owns the parts of a connection, which `Shared` describes, and reacts to what they report.

    Attributes:
        reading: The reading side, while there is a transport.
        ending: Ends the connection, while there is a transport.
    """

    __slots__ = (
        "_client",
        "_connection_id",
        "_request",
        "accepted",
        "application",
        "clock",
        "delivery",
        "ending",
        "handshake",
        "liveness",
        "observer",
        "outermost",
        "outgoing",
        "reading",
        "role",
        "server",
        "session",
        "session_type",
        "settings",
        "successor",
        "transport",
    )

    clock: IReactorTime
    outgoing: Outgoing
    liveness: Liveness
    reading: Reading
    ending: Ending

    def __init__(self) -> None:
        super().__init__()
        self.application: Application | None = None
        self.outermost: Application | None = None
        self.successor: Application | None = None
        self.role = Role.SERVER
        self.settings = DEFAULTS
        self.server: Gatekeeper | None = None
        self.observer: Observer | None = None
        self.transport: Any = None
        self.handshake: Operation | None = None
        self.accepted: Accepted | None = None
        self.session_type: type[Session] = Session
        self.session: Session | None = None
        self.delivery: Delivery | None = None
        self._connection_id: int | None = None
        self._request: Request | None = None
        self._client: tuple[Request, Any] | None = None

    # The transport.

    def be_client(self, settings: Settings) -> None:
        """Be the client's end, with these settings. Call this before the connection is made."""
        self.role, self.settings = Role.CLIENT, settings

    def connect(self, application: Application, transport: Any) -> Any:
        """Begin on a transport. Returns the transport, or a replacement if it lacks methods."""
        settings = self.settings
        clock = settings.clock
        if clock is None:
            clock = installed_reactor()
        self.application = self.outermost = application
        self.clock = clock
        given, transport = transport, complete(transport, clock, self._lost_unnoticed)
        self.reading = Reading(self)
        self.ending = Ending(self, self.reading)
        self.liveness = Liveness(self, clock, settings.timeouts)
        if settings.budget is not None:
            self.reading.account = settings.budget.open(self.ending.shed)
        self.outgoing = Outgoing(transport, settings.limits, self, self.reading.account)
        self.handshake = self._handshake_on(given, application)
        # A subclass's connectionMade may fail: by then the time limit of the handshake must run.
        self.transport = transport
        self.reading.receive_by(self.handshake.data_received)
        self.liveness.expect(settings.timeouts.handshake)
        return transport

    def _handshake_on(self, transport: Any, application: Application) -> Operation:
        if self.role is Role.CLIENT:
            return ClientHandshake(self)
        if isinstance(transport, WebConnection):
            transport.belong_to(self, application)
            return RequestHandshake(self, transport)
        return ServerHandshake(self)

    def _lost_unnoticed(self) -> None:
        """End a connection that we dropped: its transport may never report that it is lost."""
        if self.application is not None:
            self.application.connectionLost(Failure(ConnectionAborted()))

    def release(self) -> None:
        """Release the application and the parts that refer to this object."""
        self.application = self.outermost = self.successor = None
        del self.reading, self.ending

    # Facts about the connection.

    @property
    def request(self) -> Request | None:
        """The request of the opening handshake, or None before it."""
        if self.accepted is not None:
            return self.accepted.request
        return self._request if self.handshake is None else self.handshake.request

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that both ends agreed on, or that the server is about to choose."""
        if self.accepted is not None:
            return self.accepted.subprotocol
        return None if self.handshake is None else self.handshake.subprotocol

    @subprotocol.setter
    def subprotocol(self, subprotocol: str | None) -> None:
        if self.accepted is not None:
            self.accepted = self.accepted._replace(subprotocol=subprotocol)
        elif self.handshake is not None:
            self.handshake.subprotocol = subprotocol

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
    def close_reason(self) -> CloseReason | None:
        """How the connection ended or is ending; 1006 if it never was open. None before it closes."""
        if self.ended is not None:
            return self.ended
        return self.ending.reason() if self.state is State.CLOSING else None

    def require_handshake(self, role: Role) -> Any:
        """Return the opening handshake.

        Raises:
            LocalError: It is over, or it is the handshake of the other role.
        """
        if self.role is not role:
            raise LocalError(
                f"this is the {self.role.value}'s end of the connection, and that is the {role.value}'s part"
            )
        if self.handshake is None or self.state is not State.CONNECTING:
            raise LocalError(f"the opening handshake is over or not begun: the connection is {self.state.value}")
        return self.handshake

    def require_session(self) -> Session:
        """Return the session.

        Raises:
            ConnectionClosed: The connection has ended.
            LocalError: The connection is not open yet.
        """
        if self.session is None:
            if self.ended is not None:
                raise ConnectionClosed(self.ended)
            raise LocalError(f"there is no WebSocket before opened() is called: the connection is {self.state.value}")
        return self.session

    # The handshake decides (`HandshakeHost`, `WebHost`).

    def open(self, accepted: Accepted) -> None:
        """The handshake succeeded: become a WebSocket."""
        opening.open_connection(self, accepted)

    def settle(self) -> None:
        """If the connection is open, pass it the bytes that followed the handshake."""
        opening.settle(self)

    def receive_by(self, receive: Callable[[bytes], None]) -> None:
        """Pass the bytes from the transport to ``receive``."""
        self.reading.receive_by(receive)

    def hold_reading(self, hold: bool) -> None:
        """Pause reading from the transport, or resume it."""
        self.reading.hold(hold)

    def move_to(self, transport: Any, answer: bytes) -> bool:
        """Leave the transport of the handshake for ``transport``, and send ``answer`` there first."""
        self.transport = complete(transport, self.clock, self._lost_unnoticed)
        outgoing = self.outgoing = Outgoing(self.transport, self.settings.limits, self, self.outgoing.account)
        if outgoing.outlet.direct:
            # Bytes of twisted.web may wait in the transport, and ours must not overtake them.
            outgoing.outlet.pauseProducing()
        self.transport.write(answer)
        return outgoing.outlet.direct

    def let_go(self) -> None:
        """twisted.web answered the request and keeps its connection."""
        # An observer gets the request next.
        self._request = self.request
        self.handshake = None
        if self.application is not None:
            self.application.connectionLost(Failure(ConnectionDone()))

    def tear_down(self) -> None:
        """End TCP after the bytes sent so far."""
        self.ending.tear_down()

    def end_with_peer(self) -> None:
        """If the peer ended its side of TCP, end ours after the queued bytes."""
        if self.ending.peer_finished:
            self.ending.end_with_peer()

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> Deferred[CloseReason]:
        """Close with the closing handshake, and return a Deferred of the end."""
        if self.ended is not None:
            return succeed(self.ended)
        if self.transport is None:
            return succeed(NEVER_CONNECTED)
        return self.ending.close(code, reason)

    def abort(self) -> None:
        """Drop the connection now, unless it has ended or has not begun."""
        if self.ended is None and self.transport is not None:
            self.ending.abort()

    # The session reports (`Handler`).

    def clock_was_set(self) -> None:
        """The clock of the reactor was set to another time."""
        self.liveness.clock_was_set()

    def turn_awaited(self) -> None:
        """The session spent its budget for this turn of the reactor, or half of it."""
        self.reading.await_turn()

    def payload_awaited(self, size: int) -> None:
        """A long frame is arriving, and lacks ``size`` bytes."""
        keep_freed_memory()
        self.reading.await_payload(size)

    def hook_returned(self, result: object) -> None:
        """A message hook returned a value other than None."""
        if self.delivery is not None:
            self.delivery.hook_returned(result)

    def hook_failed(self) -> None:
        """A message hook raised; this is called in the ``except`` clause."""
        hook_calls.hook_failed(self, Failure())

    def control_received(self, opcode: int, payload: bytes) -> None:
        """A ping, which is answered already, or a pong."""
        application, liveness = self.application, self.liveness
        if application is None:
            return
        if opcode == Opcode.PING:
            hook_calls.run_hook(self, application.ping_received, payload)
            return
        before = liveness.latency
        liveness.pong_received(payload)
        after = liveness.latency
        # An equal latency of another pong is another object.
        if self.observer is not None and after is not None and after is not before:
            self.observer.round_trip(application, after)
        hook_calls.run_hook(self, application.pong_received, payload)

    def session_ended(self) -> None:
        """The session no longer reads or writes: end TCP."""
        if self.state is not State.CLOSED:
            self.ending.tear_down()

    # The delivery reports (`DeliveryHost`).

    def count_received(self) -> None:
        """Count the received bytes that the application has not taken."""
        self.reading.count()

    def hook_failed_with(self, failure: Failure) -> None:
        """A hook's Deferred failed."""
        hook_calls.hook_failed(self, failure)

    def messages_delivered(self) -> bool:
        """The last pending hook is done. If the connection has ended, finish it."""
        if self.ended is None:
            return False
        self.ending.finish()
        return True

    # The write buffer reports (`WriteBufferOwner`).

    def transport_leaving(self) -> None:
        """Other code told the transport below to close: send a close frame first."""
        if self.session is not None:
            self.session.close()
        self.ending.closing()
        self.outgoing.finish(lambda: None)

    def overflowed(self) -> None:
        """The peer reads too slowly (``Limits.slow_reader``): discard the write buffer, close with 1013."""
        session = self.session
        if self.state is State.OPEN and self.observer is not None:
            self.observer.read_too_slowly(self.application)
        if session is not None and session.closing.sent is None:
            self.outgoing.discard()
            session.close(CloseCode.TRY_AGAIN_LATER, "too slow a reader")
            self.ending.closing()

    # The deadlines ask and report (`LivenessOwner`).

    @property
    def reading_paused(self) -> bool:
        """Whether the application has paused reading: then the peer's silence proves nothing."""
        return self.reading.held

    def unaccepted(self) -> int:
        """Return the bytes in the system's buffer that the peer has not accepted, or 0 if that is unknown."""
        return unaccepted(self.transport)

    def stopped_reading(self, what: str) -> None:
        """The peer accepts no data: discard the write buffer, and end."""
        self.outgoing.discard()
        self.timed_out(what)

    def timed_out(self, what: str) -> None:
        """The peer of an open connection is silent or slow: close with 1011 and ``what`` as the reason."""
        self.require_session().fail(TimeoutError(what), CloseCode.INTERNAL_ERROR, what)

    def deadline_passed(self) -> None:
        """The time of the handshake, of the connection's life or of its closing is over."""
        self.ending.out_of_time()

    # The transport reports.

    def reading_lost(self) -> None:
        """The peer ended its side of TCP."""
        if self.ended is None:
            self.ending.reading_lost()

    def lost(self, reason: Failure) -> None:
        """The transport is gone."""
        if self.ended is None and self.application is not None:
            self.ending.lost(reason)


NEVER_CONNECTED = CloseReason(CloseCode.ABNORMAL, "", False, "transport")
"""The end of a connection that has not begun."""
