"""Reading from the transport: the function that takes the bytes, pauses, and turns of the reactor."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.abstract import FileDescriptor

from twisted_beastws.budget import RECEIVED, Account
from twisted_beastws.clock import PendingTurn, next_turn
from twisted_beastws.connection.bare_transport import BareTransport
from twisted_beastws.connection.in_place import read_chunks, read_in_place
from twisted_beastws.connection.interfaces import Application
from twisted_beastws.connection.shared import Shared
from twisted_beastws.connection.state import State
from twisted_beastws.errors import BufferFull
from twisted_beastws.wire.closing import CloseCode

MAX_CHUNK = 1 << 18
"""The most bytes read at once of a long payload: 256 KiB, as uvloop does."""


class Reading:
    """The reading side of one connection below its session.

    Attributes:
        paused: Reading from the transport is paused.
        held: It is paused for the application's sake, not because the peer has spent its budget for this turn. The
            peer's deadlines stop meanwhile.
        account: Counts the received bytes for the process's `MemoryBudget`, or None.
    """

    __slots__ = ("_connection", "_end", "_turn", "account", "held", "paused")

    def __init__(self, connection: Shared) -> None:
        self._connection = connection
        self._turn: PendingTurn | None = None
        self._end: Callable[[], None] | None = None
        self.account: Account | None = None
        self.paused = self.held = False

    # The function that takes the bytes.

    def receive_by(self, receive: Callable[[bytes], None]) -> None:
        """Pass the bytes from the transport to ``receive``, and count them if there is a budget."""
        transport, application = self._connection.transport, self._connection.outermost
        if isinstance(transport, BareTransport) and not transport.pausable:
            receive = partial(self._receive_bounded, receive)
        if self.account is not None:
            receive = partial(self._receive_counted, receive)
        if application is not None:
            # A chunk costs no further call, and no check of the state.
            application.dataReceived = receive  # type: ignore[assignment, method-assign]

    def await_payload(self, size: int) -> None:
        """Read the next ``size`` bytes, all of one payload, into their place, or in chunks of more than 64 KiB.

        A size of at most that ends the longer chunks.
        """
        connection = self._connection
        transport: Any = connection.transport
        if not connection.outgoing.outlet.direct:
            # TLS decrypts into chunks. Its records are no shorter than the payload in them.
            transport = connection.outgoing.outlet.below_records
        elif self.place() is not None and _calls(transport, connection.outermost):
            receive_in_place = getattr(type(transport), "receive_in_place", read_in_place)
            if receive_in_place(transport, self):
                # Several chunks may come in a turn of the reactor.
                connection.require_session().reader.budget.one_chunk_a_turn = False
                return
        if isinstance(transport, FileDescriptor):
            # A chunk of exactly the payload has no other frames, which would get more than their share of a turn.
            transport.bufferSize = min(max(size, FileDescriptor.bufferSize), MAX_CHUNK)

    def place(self) -> Any:
        """Return a buffer for the next bytes of a long payload, or None; see `FrameReader.place`."""
        session = self._connection.session
        return session.reader.place() if session is not None and session.is_read_directly else None

    def placed(self, size: int) -> None:
        """The first ``size`` bytes of `place` arrived."""
        self._connection.require_session().reader.placed(size)
        self.count()

    def chunks_only(self) -> None:
        """From the next turn of the reactor on, all bytes come in chunks again, as before the long payload."""
        connection = self._connection
        if connection.session is not None:
            connection.session.reader.budget.one_chunk_a_turn = connection.outgoing.outlet.one_chunk_a_turn

    def receive_nothing(self) -> None:
        """Discard the bytes that come from now on."""
        if self._connection.outermost is not None:
            self._connection.outermost.dataReceived = _discard  # type: ignore[method-assign]

    def _receive_bounded(self, receive: Callable[[bytes], None], data: bytes) -> None:
        """Receive from a transport that goes on reading during a pause."""
        receive(data)
        session, limit = self._connection.session, self._connection.settings.limits.max_buffered
        if session is not None and session.reader.unparsed_size > limit and session.paused:
            waiting = (
                f"{session.reader.unparsed_size} bytes wait for the application on a transport that cannot be paused"
            )
            session.fail(BufferFull(f"{waiting}: Limits.max_buffered is {limit}"), CloseCode.TRY_AGAIN_LATER)

    def _receive_counted(self, receive: Callable[[bytes], None], data: bytes) -> None:
        receive(data)
        self.count()

    def count(self) -> None:
        """Count the bytes that were received and not delivered, if there is a budget."""
        if self.account is None:
            return
        connection = self._connection
        size = 0 if connection.delivery is None else connection.delivery.size
        if connection.session is not None:
            size += connection.session.received_size
        if connection.handshake is not None:
            size += connection.handshake.waiting
        self.account.count(RECEIVED, size)

    # Pauses.

    def hold(self, hold: bool) -> None:
        """Pause reading, or resume it."""
        connection = self._connection
        if hold and connection.state is State.CLOSING:
            # A closing connection reads and discards the peer's bytes, so that it sees the peer's end.
            hold = connection.session is not None and connection.session.spent
        if connection.ended is not None:
            return
        held = hold and (connection.session is None or connection.session.held)
        if held != self.held:
            self.held = held
            if held:
                connection.liveness.paused()
            else:
                connection.liveness.resumed()
        if hold != self.paused:
            self.paused = hold
            if hold:
                connection.transport.pauseProducing()
            else:
                connection.transport.resumeProducing()

    # Turns.

    def await_turn(self) -> None:
        """The session has spent its budget for this turn of the reactor, or half of it."""
        if self._turn is None:
            self._turn = next_turn(self._connection.clock, self._next_turn)
        self.hold(self._connection.require_session().paused)

    def _next_turn(self) -> None:
        self._turn = None
        session = self._connection.require_session()
        session.next_turn()
        self.count()
        self.hold(session.paused)
        if self._end is not None and not session.spent:
            end, self._end = self._end, None
            end()

    def waits_for_turn(self, end: Callable[[], None]) -> bool:
        """Return whether part of a chunk waits for a turn. If so, call ``end`` when the hooks have had it."""
        session = self._connection.session
        if session is None or not session.spent:
            return False
        self._end = end
        return True

    def stop(self) -> None:
        """The transport is gone: wait for no more turns, and let it not refer to us."""
        read_chunks(self._connection.transport)
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None


def _calls(transport: Any, application: Application | None) -> bool:
    """Return whether the bytes of a transport go straight to ``application``."""
    # Twisted's client endpoints wrap the protocol of the factory.
    protocol = getattr(transport, "protocol", None)
    return application is not None and getattr(protocol, "_wrappedProtocol", protocol) is application


def _discard(data: bytes) -> None:
    """Discard the bytes after the end."""
