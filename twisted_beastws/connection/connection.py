"""`Connection`: one WebSocket on one transport, from the opening handshake to the end of TCP."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_beastws.budget import RECEIVED, Account
from twisted_beastws.clock import seconds_of
from twisted_beastws.connection.awaiting import AwaitableDeferred
from twisted_beastws.connection.bare_transport import BareTransport, complete
from twisted_beastws.connection.client_handshake import ClientOpening
from twisted_beastws.connection.delivery import APPLICATION, Delivery, deferred_of
from twisted_beastws.connection.interfaces import Application, Gatekeeper, is_default, takes_messages
from twisted_beastws.connection.keepalive import Liveness
from twisted_beastws.connection.operation import forget_frames
from twisted_beastws.connection.producers import PulledProducer, stop
from twisted_beastws.connection.server_handshake import ServerOpening
from twisted_beastws.connection.state import State, move
from twisted_beastws.connection.unsent import unaccepted
from twisted_beastws.connection.write_buffer import Outgoing
from twisted_beastws.errors import BufferFull, ConnectionClosed, HandshakeTimeout, LocalError, ProtocolError
from twisted_beastws.options import Decorator, Role, Settings
from twisted_beastws.web.takeover import RequestOpening, WebConnection
from twisted_beastws.wire.closing import CloseCode, CloseReason
from twisted_beastws.wire.deflate import Negotiated, PerMessageDeflate
from twisted_beastws.wire.frames import Opcode
from twisted_beastws.wire.handshake import success
from twisted_beastws.wire.http import Request, Response
from twisted_beastws.wire.rate import rate_limited
from twisted_beastws.wire.session import DeflateSession, Session

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IDelayedCall
    from twisted.web.http import Request as TwistedRequest

log = Logger()

_connection_ids = count(1)

PLAIN: tuple[type[Session], type[DeflateSession]] = (Session, DeflateSession)
"""The classes of sessions, without and with compression."""


class Connection:
    """Owns the parts of a connection, and wires them: handshake, session, delivery, write buffer, deadlines.

    Attributes:
        application: the user's protocol, from the moment that there is a transport to the end.
        role: which end this is.
        settings: what the factory's connections share.
        server: the factory, if it is ours.
        request: the opening handshake's, None before.
        subprotocol: what was agreed on, or None.
        deflate: the compression that was agreed on, or None.
        session_types: the classes of the session, without and with compression.
        state: changes as `state.TRANSITIONS` says.
        ended: how it ended, once it has.
        transport: the transport below, or None.
        outgoing: the write buffer, once there is a transport. liveness: its deadlines and pings, likewise.
        session: reads and writes frames while the connection is open.
        delivery: gives the messages to the application, from the moment that the connection is open.
        reading_paused: nothing is read from the peer for now.
    """

    __slots__ = (
        "_account",
        "_answered_at",
        "_client",
        "_closers",
        "_connection_id",
        "_end_of_reading",
        "_opened_at",
        "_opening",
        "_peer_finished",
        "_response",
        "_settling",
        "_turn",
        "application",
        "clock",
        "deflate",
        "delivery",
        "ended",
        "liveness",
        "now",
        "outgoing",
        "reading_paused",
        "request",
        "role",
        "server",
        "session",
        "session_types",
        "settings",
        "state",
        "subprotocol",
        "transport",
    )

    clock: IReactorTime
    now: Callable[[], float]
    outgoing: Outgoing
    liveness: Liveness

    def __init__(self) -> None:
        self.application: Application | None = None
        self.role = Role.SERVER
        self.settings = DEFAULTS
        self.server: Gatekeeper | None = None
        self.request: Request | None = None
        self.subprotocol: str | None = None
        self.deflate: Negotiated | None = None
        self.session_types = PLAIN
        self.state = State.CONNECTING
        self.ended: CloseReason | None = None
        self.transport: Any = None
        self.session: Session | None = None
        self.delivery: Delivery | None = None
        self.reading_paused = False
        self._response: Response | None = None
        self._answered_at: str | None = None
        self._connection_id: int | None = None
        self._client: tuple[Request, Any] | None = None
        self._opened_at = 0.0
        self._opening: ServerOpening | ClientOpening | None = None
        self._account: Account | None = None
        self._closers: list[Deferred[CloseReason]] | None = None
        self._peer_finished = False
        self._settling: IDelayedCall | None = None
        self._turn: IDelayedCall | None = None
        self._end_of_reading: Callable[[], None] | None = None

    # The transport.

    def connect(self, application: Application, transport: Any) -> Any:
        """Begin on a transport; returns what stands for it if it lacks methods."""
        if self.role is Role.CLIENT:
            return self._connect(application, transport, ClientOpening(self))
        if isinstance(transport, WebConnection):
            return self._connect(application, transport, RequestOpening(self, transport, application))
        return self._connect(application, transport, ServerOpening(self))

    def _connect(self, application: Application, transport: Any, opening: ServerOpening | ClientOpening) -> Any:
        clock = self.settings.clock
        if clock is None:
            from twisted.internet import reactor

            clock = cast("IReactorTime", reactor)
        self.application = application
        self.clock = clock
        self.now = seconds_of(clock)
        transport = complete(transport, clock, self._lost_unnoticed)
        self.liveness = Liveness(self, clock, self.settings.timeouts)
        if self.settings.budget is not None:
            self._account = self.settings.budget.open(self._shed)
        self.outgoing = Outgoing(transport, self.settings.limits, self, self._account)
        self._opening = opening
        # Before connectionMade, in which a subclass may fail: the connection must not stay for ever.
        self.transport = transport
        self._receive_by(opening.data_received)
        self.expect_handshake()
        return transport

    def _lost_unnoticed(self) -> None:
        """We dropped the connection, and the transport may never say that it is lost."""
        if self.application is not None:
            self.application.connectionLost(Failure(ConnectionAborted()))

    def move_to(self, transport: Any) -> Outgoing:
        """Leave the transport of the handshake for ``transport``; returns the write buffer before it."""
        transport = complete(transport, self.clock, self._lost_unnoticed)
        self.transport = transport
        self.outgoing = Outgoing(transport, self.settings.limits, self, self._account)
        return self.outgoing

    def discard_clear(self) -> None:
        """TLS is about to start: send what waits, and forget what came in clear and is not read yet."""
        if self.session is not None and self.session.gathered_size:
            self.session.flush()
        self.outgoing.hand_over_all()
        if self._opening is not None:
            self._opening.discard_waiting()

    @property
    def address(self) -> IAddress | None:
        """The address of the other end, as the transport gives it; None before it is connected, or if it has none."""
        try:
            return None if self.transport is None else cast("IAddress", self.transport.getPeer())
        except Exception:
            # A process has no such method, and that of an SSH channel in memory fails.
            return None

    @property
    def peer(self) -> IAddress | None:
        """The address of the client, as trusted proxies tell it, or else `address`."""
        address, request, server = self.address, self.request, self.server
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

    # Opening.

    def be_client(self, settings: Settings) -> None:
        """Be the client's end, with these settings. To be called before the connection is made."""
        self.role, self.settings = Role.CLIENT, settings

    def require_opening(self, role: Role) -> Any:
        """Return the opening handshake; raise `LocalError` if it is over, or that of the other role."""
        if self.role is not role:
            raise LocalError(
                f"this is the {self.role.value}'s end of the connection, and that is the {role.value}'s part"
            )
        if self._opening is None or self.state is not State.CONNECTING:
            raise LocalError(f"the opening handshake is over or not begun: the connection is {self.state.value}")
        return self._opening

    def accept(
        self,
        request: Request | None = None,
        buffered: bytes = b"",
        decorator: Decorator | None = None,
        subprotocols: Sequence[str] = (),
    ) -> Deferred[Request]:
        """See `WebSocketProtocol.accept`."""
        if self.ended is not None and request is not None:
            return fail(ConnectionLost("the client left before its request was accepted"))
        opening = self.require_opening(Role.SERVER)
        accepted = cast("Deferred[Request]", opening.accept(request, buffered, decorator, subprotocols))
        if self.server is not None and self.server.observer is not None:
            accepted.addErrback(self._not_opened, self.application)
        return accepted

    def _not_opened(self, failure: Failure, application: Application | None) -> Failure:
        if self.server is not None and self.server.observer is not None:
            self.server.observer.not_opened(application, failure.value)
        return failure

    def web_of(self, http_request: TwistedRequest) -> WebConnection:
        """Return the transport that a request of twisted.web brings. Raises `LocalError` if there is one already."""
        if self.transport is not None:
            raise LocalError("a twisted.web request brings its connection, and this protocol has one")
        return WebConnection(http_request)

    @property
    def connecting(self) -> bool:
        """The opening handshake may go on."""
        return self.state is State.CONNECTING

    def expect_handshake(self) -> None:
        """Give the handshake its time, from now."""
        self.liveness.expect(self.settings.timeouts.handshake)

    def expect_request(self) -> None:
        """Give the client its time to make another request, from now."""
        self.liveness.expect(self.settings.timeouts.keep_alive)

    def count_request(self) -> None:
        """Raise a `HandshakeError` if the server has too many requests."""
        if self.server is not None:
            self.server.count_request(self.application)

    def admit(self) -> None:
        """Raise a `HandshakeError` if the server has no place for this connection."""
        if self.server is not None:
            self.server.admit(self.application)

    def dismiss(self) -> None:
        """Give the place back: the connection did not open."""
        if self.server is not None:
            self.server.dismiss(self.application)

    def let_go(self) -> None:
        """The request is answered, and the connection was never ours."""
        self._opening = None
        if self.application is not None:
            self.application.connectionLost(Failure(ConnectionDone()))

    def next_turn_of_opening(self) -> Deferred[None]:
        """Fires in the reactor's next turn: requests that came together wait for the other connections' turns."""
        begun: Deferred[None] = Deferred()

        def begin() -> None:
            self._turn = None
            begun.callback(None)

        self._turn = self.clock.callLater(0, begin)
        return begun

    def upgraded(self, request: Request, response: Response | None, date: str | None = None) -> None:
        """Become a session. No ``response`` stands for the plain 101 that answered ``request`` at ``date``."""
        application: Any = self.application
        self.request = request
        if response is None:
            self._answered_at = date
        else:
            self._response = response
        if self.server is not None and self.server.observer is not None:
            self._opened_at = self.now()
            self.server.observer.opened()
        session = self._make_session()
        self.session = session
        if is_default(application.send):
            # A call less for each message.
            application.send = session.send
        self.delivery = Delivery(self, application)
        self.delivery.direct(session)
        self.state = move(self.state, State.OPEN)
        self.liveness.opened(session)
        if self.delivery.by_hooks:
            session.call_hook(lambda _: application.opened(), None)
        else:
            self.run_hook(application.opened)

    def _make_session(self) -> Session:
        server, now, settings = self.role is Role.SERVER, self.now, self.settings
        (plain, deflating), limits = self.session_types, settings.limits
        limited = limits.max_message_rate is not None or limits.max_byte_rate is not None
        if limited:
            plain, deflating = rate_limited(plain), rate_limited(deflating)
        if self.server is not None and self.server.observer is not None:
            plain, deflating = self.server.observer.session_types(plain, deflating)
        if self.deflate is None or settings.deflate is None:
            session = plain(server, self, self.outgoing, now, limits)
        else:
            deflate = PerMessageDeflate(self.deflate, settings.deflate, server)
            session = deflating(server, self, self.outgoing, now, limits, deflate)
        session.one_chunk_a_turn = self.outgoing.direct
        if limited:
            cast(Any, session).limit(limits, Counter() if self.server is None else self.server.refusals)
        return session

    def settle_soon(self) -> None:
        """Do the same as `opening_settled` in the reactor's next turn; at once if no bytes wait."""
        if self.session is not None and self._opening is not None and self._opening.octets_wait:
            self._settling = self.clock.callLater(0, self.opening_settled)
        else:
            self.opening_settled()

    def settle_opening(self) -> None:
        """Give the bytes that wait to the session, if there is one and no operation runs."""
        if self._opening is not None:
            self._opening.settle()

    def opening_settled(self) -> None:
        """Feed the session the bytes behind the handshake that opened it, and all that come from now on.

        The first message follows the code that awaits the handshake: `Operation` calls this behind that code.
        """
        if self._settling is not None:
            if self._settling.active():
                self._settling.cancel()
            self._settling = None
        session, opening = self.session, self._opening
        if session is None or opening is None:
            return
        self._opening = None
        self.hold_reading(session.paused)
        if not session.ended:
            self._receive_by(session.feed)
            rest = opening.rest()
            if rest:
                session.feed(rest)
        if self._peer_finished:
            self._end_with_peer()

    @property
    def response(self) -> Response | None:
        """The opening handshake's 101, None before."""
        if self._answered_at is not None and self.request is not None:
            # Made when it is asked for: its fields are a good part of what an idle connection would cost.
            return success(self.request, self.subprotocol, self.extensions, self._answered_at)
        return self._response

    @property
    def extensions(self) -> str | None:
        """The extensions in use, in the words of Sec-WebSocket-Extensions, or None."""
        return None if self.deflate is None else self.deflate.answer

    # Receiving.

    def _receive_by(self, receive: Callable[[bytes], None]) -> None:
        """Give data from the transport to ``receive``, and count it if there is a budget."""
        if isinstance(self.transport, BareTransport) and not self.transport.pausable:
            receive = partial(self._receive_bounded, receive)
        if self._account is not None:
            # Without one, nothing is in the way of a chunk.
            receive = partial(self._receive_counted, receive)
        if self.application is not None:
            # No call, and no look at the state, for a chunk.
            vars(self.application)["dataReceived"] = receive

    def _receive_nothing(self) -> None:
        if self.application is not None:
            vars(self.application)["dataReceived"] = _discard

    def _receive_bounded(self, receive: Callable[[bytes], None], data: bytes) -> None:
        """Receive from a transport that goes on reading while we are paused."""
        receive(data)
        session, limit = self.session, self.settings.limits.max_buffered
        if session is not None and session.unparsed_size > limit and session.paused:
            waiting = f"{session.unparsed_size} bytes wait for the application on a transport that cannot be paused"
            session.fail(BufferFull(f"{waiting}: Limits.max_buffered is {limit}"), CloseCode.TRY_AGAIN_LATER)

    def _receive_counted(self, receive: Callable[[bytes], None], data: bytes) -> None:
        receive(data)
        self.count_received()

    def count_received(self) -> None:
        """Count what was received and not delivered, if there is a budget."""
        if self._account is None:
            return
        size = 0 if self.delivery is None else self.delivery.size
        if self.session is not None:
            size += self.session.received_size
        if self._opening is not None:
            size += self._opening.waiting
        self._account.count(RECEIVED, size)

    def _shed(self) -> None:
        """The process's `MemoryBudget` is spent, and this connection holds most: free its memory, close with 1013."""
        session = self.session
        if self.state is not State.OPEN or session is None or session.sent is not None:
            self.abort()
            self.outgoing.abandon()
            if self._account is not None:
                # The rest goes with the transport, at once or in this turn.
                self._account.count(RECEIVED, 0)
        else:
            self.outgoing.discard()
            if self.delivery is not None:
                self.delivery.clear()
            session.close(CloseCode.TRY_AGAIN_LATER, "the server is short of memory")
            self.closing()
            self.count_received()

    def receive(self, application: Application) -> Deferred[str | bytes]:
        """See `WebSocketProtocol.receive`."""
        delivery = self.delivery
        if takes_messages(application) if delivery is None else delivery.by_hooks:
            name = type(application).__name__
            raise LocalError(f"{name} overrides a message hook: its messages go there, not to receive()")
        message = None if delivery is None else delivery.receive(self)
        if message is not None:
            return message
        if self.ended is not None:
            return fail(ConnectionClosed(self.ended))
        self.require_session()
        assert delivery is not None
        return delivery.wait()

    def require_session(self) -> Session:
        """Return the session; raise `ConnectionClosed` behind the end, `LocalError` before there is one."""
        if self.session is None:
            if self.ended is not None:
                raise ConnectionClosed(self.ended)
            raise LocalError(f"there is no WebSocket before opened() is called: the connection is {self.state.value}")
        return self.session

    def hold_reading(self, hold: bool) -> None:
        """Pause the transport's reading, or let it go on."""
        if hold and self.state is State.CLOSING:
            # What comes while we close is read and thrown away, so that the peer's end is seen.
            hold = self.session is not None and self.session.spent
        if hold != self.reading_paused and self.ended is None:
            self.reading_paused = hold
            if hold:
                self.liveness.paused()
                self.transport.pauseProducing()
            else:
                self.liveness.resumed()
                self.transport.resumeProducing()

    def pause(self) -> None:
        """Deliver no message until `resume`, and read no more. Raises `LocalError` before the connection is open."""
        if self.ended is None:
            self.require_session()
            assert self.delivery is not None
            self.delivery.hold(APPLICATION)

    def resume(self) -> None:
        """Deliver messages again."""
        if self.delivery is not None and self.session is not None:
            self.delivery.release(APPLICATION)
            self.count_received()

    # What the session calls.

    def clock_was_set(self) -> None:
        """Somebody set the clock that the reactor goes by."""
        self.liveness.clock_was_set()

    def turn_awaited(self) -> None:
        """The session spent its budget for this turn of the reactor, or half of it."""
        if self._turn is None:
            self._turn = self.clock.callLater(0, self._next_turn)
        self.hold_reading(self.require_session().paused)

    def _next_turn(self) -> None:
        self._turn = None
        session = self.require_session()
        session.next_turn()
        self.count_received()
        self.hold_reading(session.paused)
        if self._end_of_reading is not None and not session.spent:
            end, self._end_of_reading = self._end_of_reading, None
            end()

    def _waits_for_turn(self, end: Callable[[], None]) -> bool:
        """Whether part of a chunk waits for a turn; ``end`` is called when the hooks have had it."""
        if self.session is None or not self.session.spent:
            return False
        self._end_of_reading = end
        return True

    def hook_returned(self, result: Any) -> None:
        """A message hook returned something."""
        if self.delivery is not None:
            self.delivery.hook_returned(result)

    def hook_failed(self) -> None:
        """A hook raised: log it once and close with 1011."""
        self.application_failed(Failure())

    def application_failed(self, failure: Failure) -> None:
        """Log what a hook failed with, unless that is the end of a connection, and close with 1011."""
        if failure.check(ConnectionClosed):
            failure.cleanFailure()
            return
        session = self.session
        failing = session is not None and not session.closed
        log.failure(
            "the application failed on connection {connection} of {peer}{outcome}",
            failure,
            connection=self.connection_id,
            peer=self.peer,
            outcome=", which is closed with 1011" if failing else "",
        )
        # Its traceback's frames would keep us alive.
        failure.cleanFailure()
        if session is not None:
            session.fail(cast(BaseException, failure.value), CloseCode.INTERNAL_ERROR)

    def run_hook(self, hook: Any, *arguments: Any) -> None:
        """Call a hook that is not for messages."""
        try:
            running = deferred_of(hook(*arguments))
            if running is not None:
                running.addErrback(self.application_failed)
        except Exception:
            self.hook_failed()

    def control_received(self, opcode: int, payload: bytes) -> None:
        """A ping, which is answered already, or a pong."""
        if self.application is None:
            return
        if opcode == Opcode.PING:
            self.run_hook(self.application.ping_received, payload)
            return
        before = self.liveness.latency
        self.liveness.pong_received(payload)
        after = self.liveness.latency
        # Another number, though it may be as great.
        if self.server is not None and self.server.observer is not None and after is not None and after is not before:
            self.server.observer.round_trip(after)
        self.run_hook(self.application.pong_received, payload)

    def session_ended(self) -> None:
        """The session neither reads nor writes any more: end TCP."""
        if self.state is not State.CLOSED:
            self.tear_down()

    # What the write buffer and the liveness call.

    def transport_leaving(self) -> None:
        """Somebody told the transport below to close: tell the peer, and let it go."""
        if self.session is not None:
            self.session.close()
        self.closing()
        self.outgoing.finish(lambda: None)

    def overflowed(self) -> None:
        """The peer reads too slowly (``Limits.slow_reader``): forget what waits, close with 1013."""
        session = self.session
        if self.state is State.OPEN and self.server is not None and self.server.observer is not None:
            self.server.observer.read_too_slowly()
        if session is not None and session.sent is None:
            self.outgoing.discard()
            session.close(CloseCode.TRY_AGAIN_LATER, "too slow a reader")
            self.closing()

    def may_ping(self) -> bool:
        """A ping would leave now."""
        return self.outgoing.free

    def turns(self) -> int:
        """How often the peer made room for what waits."""
        return self.outgoing.turns

    def unaccepted(self) -> int:
        """Bytes in the system's buffer that the peer has not accepted, or 0 if that is unknown."""
        return unaccepted(self.transport)

    def stopped_reading(self, what: str) -> None:
        """The peer accepts no data: forget what waits for it, and end."""
        self.outgoing.discard()
        self.timed_out(what)

    def timed_out(self, what: str) -> None:
        """The peer of an open connection is silent or slow: tell it, and end."""
        self.require_session().fail(TimeoutError(what), CloseCode.INTERNAL_ERROR, what)

    def deadline_passed(self) -> None:
        """The handshake, the connection's life or its closing had its time."""
        if self.state is State.OPEN:
            self.close(CloseCode.GOING_AWAY, "the connection has reached its maximum lifetime")
        elif self.state is State.CONNECTING and self._opening is not None:
            self.closing()
            self._opening.lost(Failure(HandshakeTimeout()))
            # What was answered before had its time to be read: there is no end of the peer's to wait for.
            self._receive_nothing()
            self.outgoing.finish(self.transport.loseConnection)
        else:
            self.abort()

    # Sending.

    @property
    def latency(self) -> float | None:
        """Seconds that the latest ping took to be answered, or None."""
        return None if self.transport is None else self.liveness.latency

    @property
    def buffered_amount(self) -> int:
        """Bytes sent that the operating system may not have taken yet."""
        if self.transport is None:
            return 0
        gathered = self.session.gathered_size if self.session is not None else 0
        return gathered + self.outgoing.buffered

    def drain(self) -> Deferred[None]:
        """See `WebSocketProtocol.drain`."""
        if self.ended is not None:
            return fail(ConnectionClosed(self.ended))
        if self.transport is None:
            self.require_session()
        return self.outgoing.drain()

    def register(self, producer: Any, streaming: bool) -> None:
        """See `WebSocketProtocol.registerProducer`."""
        if self.state in (State.CLOSING, State.CLOSED):
            producer.stopProducing()
            return
        if not streaming:
            producer = PulledProducer(producer, self.clock)
        self.outgoing.register(producer)
        if not streaming and self.buffered_amount <= self.settings.limits.high_water:
            producer.resumeProducing()

    def unregister(self) -> None:
        """Let go of the producer."""
        producer = self.outgoing.unregister()
        if isinstance(producer, PulledProducer):
            producer.pauseProducing()

    def ping(self, payload: bytes) -> Deferred[float]:
        """See `WebSocketProtocol.ping`."""
        session = self.require_session()
        # Before the system is called to send it, which takes its time.
        now = self.now()
        session.ping(payload)
        return self.liveness.ping_sent(payload, now)

    # Closing.

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> Deferred[CloseReason]:
        """See `WebSocketProtocol.close`."""
        if self.ended is not None:
            return succeed(self.ended)
        if self.session is None:
            self.abort()
            return succeed(self._reason())
        self.session.close(code, reason)
        self.closing()
        return self.when_closed()

    def when_closed(self) -> Deferred[CloseReason]:
        """See `WebSocketProtocol.when_closed`."""
        if self.ended is not None:
            return succeed(self.ended)
        self.require_session()
        closer: Deferred[CloseReason] = AwaitableDeferred()
        self._closers = [*(self._closers or ()), closer]
        return closer

    def abort(self) -> None:
        """Drop the connection now, with nothing sent."""
        if self.ended is None and self.transport is not None:
            if self.state is State.CONNECTING:
                # The handshake does not go on, whichever hook this is called in.
                self.closing()
            elif self.session is not None:
                # What is left of the chunk is not delivered, and nothing that a hook sent in it leaves.
                self.outgoing.abandon()
                self.session.lost()
            self.transport.abortConnection()

    @property
    def close_reason(self) -> CloseReason | None:
        """How the connection ended or is ending; 1006 if it never was open. None before it closes."""
        return None if self.state in (State.CONNECTING, State.OPEN) else self._reason()

    def _reason(self) -> CloseReason:
        if self.ended is not None:
            return self.ended
        if self.session is not None:
            return self.session.reason()
        return CloseReason(CloseCode.ABNORMAL, "", False, "transport")

    def closing(self) -> None:
        """The connection begins to close, unless it has."""
        if self.state in (State.CONNECTING, State.OPEN):
            self.state = move(self.state, State.CLOSING)
            self.liveness.closing()
            self.hold_reading(self.session is not None and self.session.paused)
            # What it would send now is too late.
            stop(self.outgoing.unregister())

    def tear_down(self) -> None:
        """End TCP behind what is queued, so that the peer can read it all (RFC 6455 §7.1.1, RFC 9112 §9.6).

        After the closing handshake a server closes. Otherwise we end our side and throw away what comes until the peer
        ends its own, or ``Timeouts.close`` has passed: closing at once could reset the connection, and take our last
        bytes from the peer.
        """
        if self.ended is not None:
            return
        self.closing()
        self.hold_reading(False)
        self._receive_nothing()
        server_closes = self.role is Role.CLIENT and self._closed_cleanly and not self._peer_finished
        # RFC 6455 §7.1.1: after the closing handshake a client waits for the server to end TCP.
        if not server_closes:
            self.outgoing.finish(self._end_writing)

    @property
    def _closed_cleanly(self) -> bool:
        return self.session is not None and self.session.clean

    def _end_writing(self) -> None:
        # TLS has no half-close; its shutdown waits for the peer's just so. Behind both close frames nothing comes that
        # could reset the connection.
        if self.outgoing.direct and not self._peer_finished and not self._closed_cleanly:
            self.transport.loseWriteConnection()
        else:
            self.transport.loseConnection()

    def reading_lost(self) -> None:
        """The peer ended its side of TCP: answer its requests, then end ours."""
        self.settle_opening()
        if self._waits_for_turn(self.reading_lost):
            return
        self._peer_finished = True
        if self._opening is None or self.session is not None:
            self._end_with_peer()
        elif not self._opening.peer_finished():
            self.closing()
            self._opening.lost(Failure(ConnectionDone()))
            self._end_with_peer()

    def _end_with_peer(self) -> None:
        """End our side of TCP behind the bytes that are queued."""
        if self.session is not None and not self.session.ended:
            self.session.lost(ConnectionDone())
        if self.outgoing.finished:
            self.transport.loseConnection()
        else:
            self.tear_down()

    def lost(self, reason: Failure) -> None:
        """The transport is gone. All that ends a connection comes here."""
        if self.ended is not None or self.application is None:
            return
        self.settle_opening()
        if self._waits_for_turn(lambda: self.lost(reason)):
            # Nothing leaves any more.
            self.outgoing.abandon()
            return
        self.state = move(self.state, State.CLOSED)
        session, opening, application = self.session, self._opening, self.application
        self._opening = None
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        if session is not None:
            session.lost(reason.value)
        self.ended = self._reason()
        if isinstance(self.ended.error, ProtocolError):
            # Its close frame has the code alone.
            log.info(
                "connection {connection} of {peer} was closed: {error}",
                connection=self.connection_id,
                peer=self.peer,
                error=self.ended.error,
            )
        closed = ConnectionClosed(self.ended)
        self._release_parts(opening, reason, closed)
        vars(application).pop("dataReceived", None)
        if session is None:
            self.application = None
        else:
            self._settle(closed)
            if self.server is not None and self.server.observer is not None:
                seconds = self.now() - self._opened_at
                self.server.observer.closed(application, session, seconds, self.outgoing.dropped)
        # Its traceback leads to the frame of a coroutine that caught it, and from there, in Python 3.12, to this one:
        # a cycle that would keep the connection until the collector runs.
        forget_frames(closed)

    def _release_parts(
        self, opening: ServerOpening | ClientOpening | None, reason: Failure, closed: ConnectionClosed
    ) -> None:
        """Have every part let go of the connection, and fail what waits for it."""
        self.liveness.lost(closed)
        if opening is not None:
            opening.lost(reason)
        self.outgoing.lost(closed)
        forget_frames(reason.value)
        forget_frames(closed.reason.error)
        if self.delivery is not None:
            self.delivery.lost()
        if self._account is not None:
            self._account.close()
        if self.server is not None:
            self.server.forget(self.application)

    def _settle(self, closed: ConnectionClosed) -> None:
        assert self.delivery is not None
        self.delivery.fail_receivers(closed)
        closers, self._closers = self._closers, None
        for closer in closers or ():
            closer.callback(self._reason())
        # The hooks of messages that came before go first, however long they take.
        if not self.delivery.handling:
            self.finish()

    def finish(self) -> None:
        """Call ``closed``, the last hook, and let go of the application."""
        session, self.session = self.session, None
        application, self.application = self.application, None
        if session is not None:
            session.forget()
        if application is not None:
            if self.delivery is not None:
                self.delivery.finish(self, application)
            self.run_hook(application.closed, self._reason())


DEFAULTS = Settings()


def _discard(data: bytes) -> None:
    """Bytes behind the end."""
