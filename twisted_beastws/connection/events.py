"""`ConnectionEvents`: the reports of the parts of a connection, and the reaction to each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.python.failure import Failure

from twisted_beastws.connection import hook_calls
from twisted_beastws.connection.ending import Ending
from twisted_beastws.connection.reading import Reading
from twisted_beastws.connection.shared import Shared
from twisted_beastws.connection.state import State
from twisted_beastws.connection.unsent import unaccepted
from twisted_beastws.errors import HandshakeTimeout
from twisted_beastws.wire.closing import CloseCode
from twisted_beastws.wire.frames import Opcode

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IReactorTime

    from twisted_beastws.options import Settings
    from twisted_beastws.wire.session import Session


class ConnectionEvents:
    """Handles the events that the session, the delivery, the write buffer and the deadlines report."""

    __slots__ = ("_connection", "_ending", "_reading")

    def __init__(self, connection: Shared, reading: Reading, ending: Ending) -> None:
        self._connection = connection
        self._reading = reading
        self._ending = ending

    # The session reports these.

    def clock_was_set(self) -> None:
        """The clock of the reactor was set to another time."""
        self._connection.liveness.clock_was_set()

    def turn_awaited(self) -> None:
        """The session spent its budget for this turn of the reactor, or half of it."""
        self._reading.await_turn()

    def hook_returned(self, result: object) -> None:
        """A message hook returned a value other than None."""
        if self._connection.delivery is not None:
            self._connection.delivery.hook_returned(result)

    def hook_failed(self) -> None:
        """A message hook raised; this is called in the ``except`` clause."""
        hook_calls.hook_failed(self._connection, Failure())

    def control_received(self, opcode: int, payload: bytes) -> None:
        """A ping, which is answered already, or a pong."""
        connection = self._connection
        application, liveness = connection.application, connection.liveness
        if application is None:
            return
        if opcode == Opcode.PING:
            hook_calls.run_hook(connection, application.ping_received, payload)
            return
        before = liveness.latency
        liveness.pong_received(payload)
        after = liveness.latency
        # An equal latency of another pong is another object.
        if connection.observer is not None and after is not None and after is not before:
            connection.observer.round_trip(after)
        hook_calls.run_hook(connection, application.pong_received, payload)

    def session_ended(self) -> None:
        """The session no longer reads or writes: end TCP."""
        if self._connection.life.state is not State.CLOSED:
            self._ending.tear_down()

    # The delivery asks these (`DeliveryHost`).

    @property
    def settings(self) -> Settings:
        return self._connection.settings

    @property
    def session(self) -> Session | None:
        return self._connection.session

    @property
    def connection_id(self) -> int:
        return self._connection.connection_id

    @property
    def peer(self) -> IAddress | None:
        return self._connection.peer

    def require_session(self) -> Session:
        """Return the session."""
        return self._connection.require_session()

    def hold_reading(self, hold: bool) -> None:
        """Pause reading from the transport, or resume it."""
        self._reading.hold(hold)

    def count_received(self) -> None:
        """Count the received bytes that the application has not taken."""
        self._reading.count()

    def hook_failed_with(self, failure: Failure) -> None:
        """A hook's Deferred failed."""
        hook_calls.hook_failed(self._connection, failure)

    def messages_delivered(self) -> bool:
        """The last pending hook is done. If the connection has ended, finish it."""
        if self._connection.life.ended is None:
            return False
        self._ending.finish()
        return True

    # The write buffer asks and reports these.

    @property
    def clock(self) -> IReactorTime:
        return self._connection.clock

    def transport_leaving(self) -> None:
        """Other code told the transport below to close: send a close frame first."""
        connection = self._connection
        if connection.session is not None:
            connection.session.close()
        self._ending.closing()
        connection.outgoing.finish(lambda: None)

    def overflowed(self) -> None:
        """The peer reads too slowly (``Limits.slow_reader``): discard the write buffer, close with 1013."""
        connection = self._connection
        session = connection.session
        if connection.life.state is State.OPEN and connection.observer is not None:
            connection.observer.read_too_slowly()
        if session is not None and session.closing.sent is None:
            connection.outgoing.discard()
            session.close(CloseCode.TRY_AGAIN_LATER, "too slow a reader")
            self._ending.closing()

    # The deadlines report and ask these.

    @property
    def reading_paused(self) -> bool:
        """Whether the application has paused reading: then the peer's silence proves nothing."""
        return self._reading.held

    def may_ping(self) -> bool:
        """Return whether a ping would leave now."""
        return self._connection.outgoing.free

    def turns(self) -> int:
        """Return how often the peer made room for waiting bytes."""
        return self._connection.outgoing.turns

    def unaccepted(self) -> int:
        """Return the bytes in the system's buffer that the peer has not accepted, or 0 if that is unknown."""
        return unaccepted(self._connection.transport)

    def stopped_reading(self, what: str) -> None:
        """The peer accepts no data: discard the write buffer, and end."""
        self._connection.outgoing.discard()
        self.timed_out(what)

    def timed_out(self, what: str) -> None:
        """The peer of an open connection is silent or slow: close with 1011 and ``what`` as the reason."""
        self._connection.require_session().fail(TimeoutError(what), CloseCode.INTERNAL_ERROR, what)

    def deadline_passed(self) -> None:
        """The time of the handshake, of the connection's life or of its closing is over."""
        connection = self._connection
        if connection.life.state is State.OPEN:
            self._ending.close(CloseCode.GOING_AWAY, "the connection has reached its maximum lifetime")
        elif connection.life.state is State.CONNECTING and connection.handshake is not None:
            self._ending.closing()
            connection.handshake.lost(Failure(HandshakeTimeout()))
            # The client had enough time to read the earlier answers, so do not wait for it to end TCP.
            self._reading.receive_nothing()
            connection.outgoing.finish(connection.transport.loseConnection)
        else:
            self._ending.abort()
