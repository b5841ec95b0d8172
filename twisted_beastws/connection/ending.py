"""The end of a connection: closing, dropping and losing it. Every path ends in `Ending.lost`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_beastws.budget import RECEIVED
from twisted_beastws.connection.awaiting import AwaitableDeferred
from twisted_beastws.connection.coroutines import forget_frames
from twisted_beastws.connection.hook_calls import run_hook
from twisted_beastws.connection.peer_text import peer_text
from twisted_beastws.connection.producers import stop
from twisted_beastws.connection.reading import Reading
from twisted_beastws.connection.shared import Shared
from twisted_beastws.connection.state import State
from twisted_beastws.errors import ConnectionClosed, HandshakeTimeout, ProtocolError
from twisted_beastws.options import Role
from twisted_beastws.wire.closing import CloseCode, CloseReason

if TYPE_CHECKING:
    from twisted_beastws.connection.operation import Operation

log = Logger()


class Ending:
    """Ends one connection.

    Attributes:
        peer_finished: The peer ended its side of TCP.
    """

    __slots__ = ("_closers", "_connection", "_reading", "peer_finished")

    def __init__(self, connection: Shared, reading: Reading) -> None:
        self._connection = connection
        self._reading = reading
        self._closers: list[Deferred[CloseReason]] | None = None
        self.peer_finished = False

    # Closing in order.

    def close(self, code: int, reason: str) -> Deferred[CloseReason]:
        """Begin the closing handshake. Before the connection is open this is `abort`."""
        session = self._connection.session
        if session is None:
            self.abort()
            return succeed(self.reason())
        session.close(code, reason)
        self.closing()
        return self.when_closed()

    def when_closed(self) -> Deferred[CloseReason]:
        """Return a Deferred that fires at the end of the connection, which may be now."""
        if self._connection.ended is not None:
            return succeed(self._connection.ended)
        closer: Deferred[CloseReason] = AwaitableDeferred()
        self._closers = [*(self._closers or ()), closer]
        return closer

    def reason(self) -> CloseReason:
        """Return the account of how the connection ended, or is ending."""
        connection = self._connection
        if connection.ended is not None:
            return connection.ended
        if connection.session is not None:
            return connection.session.closing.reason()
        return CloseReason(CloseCode.ABNORMAL, "", False, "transport")

    def closing(self) -> None:
        """The connection begins to close, unless it already does."""
        connection = self._connection
        if connection.state in (State.CONNECTING, State.OPEN):
            connection.move(State.CLOSING)
            connection.liveness.closing()
            self._reading.hold(connection.session is not None and connection.session.paused)
            # Data that the producer sends from now on is discarded.
            stop(connection.outgoing.unregister())

    def tear_down(self) -> None:
        """End TCP after the queued bytes, so that the peer can read them all (RFC 6455 §7.1.1, RFC 9112 §9.6).

        A server closes TCP after the closing handshake. In all other cases we end our side, and discard the peer's
        bytes until the peer ends its own side or ``Timeouts.close`` has passed: closing at once could reset the
        connection, and the peer would lose our last bytes.
        """
        connection = self._connection
        if connection.ended is not None:
            return
        self.closing()
        self._reading.hold(False)
        self._reading.receive_nothing()
        server_closes = connection.role is Role.CLIENT and self._closed_cleanly and not self.peer_finished
        # RFC 6455 §7.1.1: after the closing handshake a client waits for the server to end TCP.
        if not server_closes:
            connection.outgoing.finish(self._end_writing)

    @property
    def _closed_cleanly(self) -> bool:
        session = self._connection.session
        return session is not None and session.closing.clean

    def _end_writing(self) -> None:
        # TLS has no half-close, but its shutdown waits for the peer's shutdown. After both close frames the peer sends
        # nothing that could reset the connection.
        connection = self._connection
        if self._closed_cleanly:
            connection.outgoing.outlet.close()
        elif connection.outgoing.outlet.direct and not self.peer_finished:
            connection.transport.loseWriteConnection()
        else:
            connection.transport.loseConnection()

    # Dropping.

    def abort(self) -> None:
        """Drop the connection now; nothing more is sent."""
        connection = self._connection
        if connection.ended is None and connection.transport is not None:
            if connection.state is State.CONNECTING:
                # The handshake must not continue if one of its hooks called this.
                self.closing()
            elif connection.session is not None:
                # The rest of the chunk is not delivered, and messages that a hook sent during it are discarded.
                connection.outgoing.abandon()
                connection.session.lost()
            connection.transport.abortConnection()

    def shed(self) -> None:
        """The process's `MemoryBudget` is spent, and this connection holds most: free its memory, close with 1013."""
        connection, account = self._connection, self._reading.account
        session = connection.session
        if connection.state is not State.OPEN or session is None or session.closing.sent is not None:
            self.abort()
            connection.outgoing.abandon()
            if account is not None:
                # The remaining memory is freed with the transport, in this turn of the reactor.
                account.count(RECEIVED, 0)
        else:
            connection.outgoing.discard()
            if connection.delivery is not None:
                connection.delivery.clear()
            session.close(CloseCode.TRY_AGAIN_LATER, "the server is short of memory")
            self.closing()
            self._reading.count()

    # The transport's end.

    def reading_lost(self) -> None:
        """The peer ended its side of TCP: answer its requests, then end ours."""
        connection = self._connection
        if connection.handshake is not None:
            connection.handshake.settle()
        if self._reading.waits_for_turn(self.reading_lost):
            return
        self.peer_finished = True
        handshake = connection.handshake
        if handshake is None or connection.session is not None:
            self.end_with_peer()
        elif not handshake.peer_finished():
            self.closing()
            handshake.lost(Failure(ConnectionDone()))
            self.end_with_peer()

    def end_with_peer(self) -> None:
        """End our side of TCP after the queued bytes."""
        connection = self._connection
        if connection.session is not None and not connection.session.ended:
            connection.session.lost(ConnectionDone())
        if connection.outgoing.finished:
            connection.transport.loseConnection()
        else:
            self.tear_down()

    def out_of_time(self) -> None:
        """The time of the handshake, of the connection's life or of its closing is over."""
        connection = self._connection
        if connection.state is State.OPEN:
            self.close(CloseCode.GOING_AWAY, "the connection has reached its maximum lifetime")
        elif connection.state is State.CONNECTING and connection.handshake is not None:
            self.closing()
            connection.handshake.lost(Failure(HandshakeTimeout()))
            # The client had enough time to read the earlier answers, so do not wait for it to end TCP.
            self._reading.receive_nothing()
            connection.outgoing.finish(connection.transport.loseConnection)
        else:
            self.abort()

    def lost(self, reason: Failure) -> None:
        """The transport is gone. Every exit path of a connection ends here."""
        connection = self._connection
        if connection.handshake is not None:
            connection.handshake.settle()
        if self._reading.waits_for_turn(lambda: self.lost(reason)):
            # No more bytes can be sent.
            connection.outgoing.abandon()
            return
        connection.move(State.CLOSED)
        session, handshake, application = connection.session, connection.handshake, connection.application
        self._reading.stop()
        if session is not None:
            session.lost(reason.value)
        ended = connection.ended = self.reason()
        if isinstance(ended.error, ProtocolError):
            # The close frame carries only the code.
            log.info(
                "connection {connection} of {peer} was closed: {error}",
                connection=connection.connection_id,
                peer=peer_text(connection.peer),
                error=ended.error,
            )
        closed = ConnectionClosed(ended)
        self._release_parts(handshake, reason, closed)
        connection.handshake = None
        self._reading.receive_nothing()
        if session is None:
            connection.release()
        else:
            observer = connection.observer
            self._settle(closed)
            if observer is not None:
                seconds = connection.liveness.now() - connection.liveness.opened_at
                observer.closed(application, seconds)
        # Its traceback leads to the frame of a coroutine that caught it, and from there, in Python 3.12, to this frame:
        # a cycle that would keep the connection alive until the garbage collector runs.
        forget_frames(closed)

    def _release_parts(self, handshake: Operation | None, reason: Failure, closed: ConnectionClosed) -> None:
        """Remove the references of all parts to the connection, and fail the pending Deferreds."""
        connection = self._connection
        connection.liveness.lost(closed)
        if handshake is not None:
            handshake.lost(reason)
        connection.outgoing.lost(closed)
        forget_frames(reason.value)
        forget_frames(closed.reason.error)
        if connection.delivery is not None:
            connection.delivery.lost()
        if self._reading.account is not None:
            self._reading.account.close()
        if connection.server is not None:
            connection.server.forget(connection.outermost)

    def _settle(self, closed: ConnectionClosed) -> None:
        delivery = self._connection.delivery
        assert delivery is not None
        delivery.fail_receivers(closed)
        closers, self._closers = self._closers, None
        for closer in closers or ():
            closer.callback(closed.reason)
        # The hooks of earlier messages go first, however long they take.
        if not delivery.handling:
            self.finish()

    def finish(self) -> None:
        """Call ``closed``, the last hook, and release the application."""
        connection = self._connection
        application = connection.application
        if application is None:
            # This ran already if a hook lost the connection.
            return
        session, connection.session = connection.session, None
        if session is not None:
            session.forget()
        if connection.delivery is not None:
            connection.delivery.finish()
        connection.release()
        run_hook(connection, application.closed, self.reason())
