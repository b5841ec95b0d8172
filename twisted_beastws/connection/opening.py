"""`Opening`: the time of a connection from its first byte to the first frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ISSLTransport
from twisted.python.failure import Failure

from twisted_beastws.clock import PendingTurn, next_turn
from twisted_beastws.connection.accepted import Accepted
from twisted_beastws.connection.delivery import Delivery
from twisted_beastws.connection.ending import Ending
from twisted_beastws.connection.events import ConnectionEvents
from twisted_beastws.connection.hook_calls import run_hook
from twisted_beastws.connection.hooks import is_default
from twisted_beastws.connection.reading import Reading
from twisted_beastws.connection.shared import Shared
from twisted_beastws.connection.state import State
from twisted_beastws.connection.tracing import NAMESPACES, is_traced, namespace_of
from twisted_beastws.connection.tracing import begin as begin_trace
from twisted_beastws.options import Role
from twisted_beastws.wire.deflate import PerMessageDeflate
from twisted_beastws.wire.http import Request
from twisted_beastws.wire.rate import limit_rate
from twisted_beastws.wire.session import Session

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress


class Opening:
    """The host of the handshake (`HandshakeHost`): it opens the connection, and delivers the bytes that followed."""

    __slots__ = (
        "_connection",
        "_ending",
        "_events",
        "_followed",
        "_move",
        "_reading",
        "_settling",
        "application",
        "server",
        "settings",
    )

    def __init__(
        self,
        connection: Shared,
        reading: Reading,
        ending: Ending,
        events: ConnectionEvents,
        move: Callable[[Any], None],
    ) -> None:
        self._connection = connection
        self._reading = reading
        self._ending = ending
        self._events = events
        self._move = move
        self._followed = b""
        self._settling: PendingTurn | None = None
        self.settings = connection.settings
        self.application: Any = connection.application
        self.server = connection.server

    # The handshake asks these.

    @property
    def connecting(self) -> bool:
        return self._connection.life.state is State.CONNECTING

    @property
    def over_tls(self) -> bool:
        return ISSLTransport.providedBy(self._connection.transport)

    @property
    def connection_id(self) -> int:
        return self._connection.connection_id

    @property
    def peer(self) -> IAddress | None:
        return self._connection.peer

    def request_read(self, request: Request | None) -> None:
        """Note the request that the handshake judges from now on, or None."""
        self._connection.request = request

    def propose(self, subprotocol: str | None) -> None:
        """Show the application this subprotocol, which its ``upgrade_requested`` may replace."""
        self._connection.subprotocol = subprotocol

    @property
    def chosen_subprotocol(self) -> str | None:
        return self._connection.subprotocol

    def send(self, data: bytes) -> None:
        """Send a request, or an answer."""
        self._connection.outgoing.write_admitted(data)

    def drain(self) -> Deferred[None]:
        """Return a Deferred that fires when the peer has taken most of the bytes sent."""
        return self._connection.outgoing.drain()

    def expect_handshake(self) -> None:
        """Restart the time limit of the handshake."""
        self._connection.liveness.expect(self.settings.timeouts.handshake)

    def expect_request(self) -> None:
        """Start the time limit of an idle connection that HTTP keeps."""
        self._connection.liveness.expect(self.settings.timeouts.keep_alive)

    def hold_reading(self, hold: bool) -> None:
        """Pause reading from the transport, or resume it."""
        self._reading.hold(hold)

    def now(self) -> float:
        """Return the time of the clock, in seconds."""
        return self._connection.now()

    def next_turn(self) -> Deferred[None]:
        """Return a Deferred that fires in the reactor's next turn."""
        return self._reading.next_turn()

    def move_to(self, transport: Any, answer: bytes) -> bool:
        """Leave the transport of the handshake for ``transport``, and send ``answer`` there first."""
        self._move(transport)
        outgoing = self._connection.outgoing
        if outgoing.direct:
            # Bytes of twisted.web may wait in the transport, and ours must not overtake them.
            outgoing.pauseProducing()
        self._connection.transport.write(answer)
        return outgoing.direct

    def let_go(self) -> None:
        """twisted.web answered the request and keeps its connection."""
        connection = self._connection
        connection.handshake = None
        if connection.application is not None:
            connection.application.connectionLost(Failure(ConnectionDone()))

    def tear_down(self) -> None:
        """End TCP after the bytes sent so far."""
        self._ending.tear_down()

    def abort(self) -> None:
        """Drop the connection now."""
        if self._connection.life.ended is None:
            self._ending.abort()

    # The WebSocket.

    def accepted(self, accepted: Accepted) -> None:
        """Open the connection."""
        connection = self._connection
        if connection.successor is not None:
            self.application = connection.application = connection.successor
        application, observer = self.application, None if self.server is None else self.server.observer
        connection.request, connection.subprotocol = accepted.request, accepted.subprotocol
        self._followed = accepted.followed
        # Free those bytes: otherwise they would stay in memory as long as the connection.
        connection.accepted = accepted._replace(followed=b"") if accepted.followed else accepted
        session = connection.session = self._make_session(accepted)
        if observer is not None:
            connection.opened_at = connection.now()
            observer.opened(session)
        if is_default(application.send):
            # This saves one call for each message.
            application.send = session.sender.send
        delivery = connection.delivery = Delivery(self._events, application)
        delivery.direct(session)
        connection.life.move(State.OPEN)
        if NAMESPACES and is_traced(namespace_of(application)):
            begin_trace(connection, self._reading.receive_by)
        connection.liveness.opened(session)
        if delivery.by_hooks:
            session.reader.call_hook(lambda _: application.opened(), None)
        else:
            run_hook(connection, application.opened)

    def _make_session(self, accepted: Accepted) -> Session:
        connection, settings = self._connection, self.settings
        server, limits = connection.role is Role.SERVER, settings.limits
        deflate = None
        if accepted.deflate is not None and settings.deflate is not None:
            deflate = PerMessageDeflate(accepted.deflate, settings.deflate, server)
        session = connection.session_type(server, self._events, connection.outgoing, connection.now, limits, deflate)
        session.reader.budget.one_chunk_a_turn = connection.outgoing.one_chunk_a_turn
        limit_rate(session, limits, Counter() if self.server is None else self.server.refusals)
        return session

    def settle_soon(self) -> None:
        """Call `settle` in the reactor's next turn, or at once if no bytes wait."""
        connection = self._connection
        waits = self._followed or (connection.handshake is not None and connection.handshake.bytes_wait)
        if connection.session is not None and waits:
            self._settling = next_turn(connection.clock, self.settle)
        else:
            self.settle()

    def settle(self) -> None:
        """Pass the bytes that followed the handshake to the session, and from now on all others.

        `Operation` calls this after the code that awaits the handshake, so that the first message comes after it.
        """
        if self._settling is not None:
            if self._settling.active():
                self._settling.cancel()
            self._settling = None
        connection = self._connection
        session, handshake = connection.session, connection.handshake
        if session is None or handshake is None:
            return
        connection.handshake = None
        self._reading.hold(session.paused)
        if not session.ended:
            self._reading.receive_by(session.feed)
            # More bytes may have come since the handshake succeeded.
            followed, self._followed = self._followed + handshake.rest(), b""
            if followed:
                session.feed(followed)
        if self._ending.peer_finished:
            self._ending.end_with_peer()
