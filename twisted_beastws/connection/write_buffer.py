"""The write buffer between a session and its transport: frames leave at once, or wait up to a limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from twisted_beastws.budget import SENT, Account
from twisted_beastws.connection.outlet import Outlet
from twisted_beastws.connection.write_queue import WriteQueue, check_fits, full
from twisted_beastws.connection.write_waiters import WriteWaiters
from twisted_beastws.options import Limits
from twisted_beastws.wire.frames import GATHER_LIMIT, LongFrame


class WriteBufferOwner(Protocol):
    """The connection of a write buffer."""

    @property
    def clock(self) -> IReactorTime:
        """The reactor."""

    def overflowed(self) -> None:
        """``Limits.max_buffered`` is reached under the policy ``close``."""

    def transport_leaving(self) -> None:
        """Other code asked the transport to close."""


class Outgoing:
    """Gives frames to an outlet as long as it takes them, and keeps the rest, bounded, in whole frames.

    Attributes:
        outlet: The way into the transport.
        free: The transport takes bytes now, and none wait.
        at_once: See `twisted_beastws.wire.writer.Sink`.
        held: The cost of the messages that wait in the session for the end of a streamed message.
        account: Gets `cost` whenever it changes, for a process-wide budget; None without one.
        dropped: The messages dropped under the policies ``drop`` and ``close``.
        finished: The transport has all bytes, and will get no more.
        turns: How often the transport resumed its producer.
    """

    __slots__ = (
        "_finish",
        "_limits",
        "_most",
        "_owner",
        "_queue",
        "_waiters",
        "account",
        "at_once",
        "dropped",
        "finished",
        "free",
        "held",
        "outlet",
        "turns",
    )

    def __init__(self, transport: Any, limits: Limits, owner: WriteBufferOwner, account: Account | None = None) -> None:
        self._limits = limits
        # An attribute of our own, because each write reads it.
        self._most = limits.max_buffered
        self._owner: WriteBufferOwner | None = owner
        self.account = account
        self.at_once: Callable[[bytes], int] | None = None
        # Most connections never need these two, so each is made when the first frame or the first of its users waits.
        self._queue: WriteQueue | None = None
        self._waiters: WriteWaiters | None = None
        self._finish: Callable[[], None] | None = None
        self.free = True
        self.held = 0
        self.dropped = 0
        self.turns = 0
        self.finished = False
        self.outlet = Outlet(transport, self, owner.clock)
        self.outlet.begin()

    def set_limits(self, limits: Limits) -> None:
        """Use other limits from the next write on."""
        self._limits = limits
        self._most = limits.max_buffered
        self.outlet_changed(self.free)

    @property
    def buffered(self) -> int:
        """The bytes written here that the operating system may not have yet."""
        return self.outlet.handed + (0 if self._queue is None else self._queue.size)

    @property
    def waiting(self) -> int:
        """The memory of the bytes that wait here and in the session, with the overhead of their objects."""
        queued = 0 if self._queue is None else self._queue.memory(self.outlet.rest is not None)
        return queued + self.held + self.outlet.rest_kept

    @property
    def cost(self) -> int:
        """The memory of `waiting`, and of the bytes that the transport may hold a copy of."""
        outlet = self.outlet
        return self.waiting + outlet.handed - (0 if outlet.rest is None else len(outlet.rest))

    def write(self, data: bytes | LongFrame) -> None:
        """Send whole frames, or keep them, or let `admits` drop or refuse them."""
        if self.free and (self._waiters is None or self._waiters.producer is None) and len(data) <= self._most:
            self.outlet.give(data)
        elif self.admits(len(data)):
            self.write_admitted(data)

    def admits(self, size: int) -> bool:
        """Return whether ``size`` more bytes may be written. If not, the policy was carried out, or this raises."""
        waiting = self.waiting
        if waiting + size <= self._most:
            return True
        check_fits(size, self._most)
        if not waiting:
            return True
        if self._limits.slow_reader == "pause":
            raise full(waiting, self._most)
        self.dropped += 1
        if self._limits.slow_reader == "close" and self._owner is not None:
            self._owner.overflowed()
        return False

    def hold(self, size: int) -> None:
        """Count ``size`` bytes more, or fewer if it is negative, of messages that wait in the session."""
        self.held += size
        self.count()

    def admits_part(self, size: int) -> None:
        """Check a part of a message, which cannot be dropped. Raises `BufferFull` unless the policy closes."""
        waiting = self.waiting
        # Held messages alone must not stop the message that they wait for.
        if waiting > self.held and waiting + size > self._most:
            if self._limits.slow_reader != "close" or self._owner is None:
                raise full(waiting, self._most)
            self._owner.overflowed()

    def write_admitted(self, data: bytes | LongFrame) -> None:
        """Send whole frames that `admits` let in."""
        if self.free:
            self.outlet.give(data)
        else:
            self._own_queue().put(data)
            if self.account is not None:
                self.count()
        if not self.free and self._waiters is not None:
            self._waiters.pace(self.buffered, self._limits.high_water)

    def write_rest(self, frame: bytes, gone: int) -> None:
        """Send the rest of a frame that ``at_once`` did not take."""
        self.outlet.give_rest(frame, gone)

    def write_control(self, opcode: int, frame: bytes) -> None:
        """Send a control frame even if bytes wait: a close last, a pong in place of a waiting one, a ping at once."""
        if self.free:
            self.outlet.give(frame)
            return
        self._own_queue().put_control(opcode, frame)
        self.count()

    def discard(self) -> None:
        """Discard the bytes that wait here, so that a close frame is next."""
        if self._queue is not None:
            self._queue.discard()
        self.count()

    def register(self, producer: Any) -> None:
        """Pause ``producer`` above ``Limits.high_water``, resume it at ``low_water``. RuntimeError for a second one."""
        waiters = self._own_waiters()
        waiters.register(producer)
        if self.finished:
            self.unregister().stopProducing()
            return
        self.outlet_changed(self.free)
        waiters.pace(self.buffered, self._limits.high_water)

    def unregister(self) -> Any:
        """Release the producer, and return it."""
        if self._waiters is None:
            return None
        producer = self._waiters.unregister()
        self._forget_unneeded()
        self.outlet_changed(self.free)
        return producer

    def hand_over_all(self) -> None:
        """Give all waiting bytes to the transport: TLS is about to start, and earlier bytes leave in clear."""
        if self.outlet.direct and not self.free:
            self.outlet.hand_over_all([] if self._queue is None else self._queue.take_all())
            self.count()

    def finish(self, finished: Callable[[], None]) -> None:
        """Call ``finished``, once, when the transport has all bytes and we no longer are its producer."""
        if not self.finished:
            self._finish = finished
            self._check_finished()

    def abandon(self) -> None:
        """Discard the waiting bytes and send no more: the transport is about to be aborted."""
        self.finished = True
        self._finish = None
        self.outlet.abandon()
        self.discard()

    def lost(self, error: Exception) -> None:
        """The transport is gone: discard the waiting bytes, and fail the pending Deferreds."""
        self.abandon()
        self._owner = None
        if self._waiters is not None:
            self._waiters.lost(error)

    def drain(self) -> Deferred[None]:
        """Return a Deferred that fires when at most ``Limits.low_water`` bytes wait. Cancelling it does no harm."""
        return succeed(None) if self.buffered <= self._limits.low_water else self._own_waiters().drain()

    def flush(self) -> Deferred[None]:
        """Return a Deferred that fires when the system, or TLS, has all earlier bytes. Cancelling it does no harm."""
        self.outlet.flush()
        if not self.buffered:
            return succeed(None)
        return self._own_waiters().flush(0 if self._queue is None else self._queue.kept)

    @property
    def _gone(self) -> int:
        return 0 if self._queue is None else self._queue.gone

    def _own_queue(self) -> WriteQueue:
        if self._queue is None:
            self._queue = WriteQueue()
        return self._queue

    def _own_waiters(self) -> WriteWaiters:
        if self._waiters is None:
            self._waiters = WriteWaiters()
        return self._waiters

    def _forget_unneeded(self) -> None:
        """Free the parts that nothing needs any more. A flush refers to the counters of its queue."""
        waiters, queue = self._waiters, self._queue
        if queue is not None and queue.empty and not (waiters is not None and waiters.flushing):
            self._queue = None
        if waiters is not None and waiters.none:
            self._waiters = None

    def _check_finished(self) -> None:
        waits = self.outlet.rest is not None or (self._queue is not None and self._queue.holds_frames)
        if self._finish is not None and not waits:
            finish, self._finish = self._finish, None
            self.finished = True
            self.outlet.end()
            finish()

    def count(self) -> None:
        """The memory has changed."""
        if self.account is not None:
            self.account.count(SENT, self.cost)

    def outlet_changed(self, free: bool) -> None:
        """The transport takes bytes now, or it does not, or it takes them in another way."""
        self.free = free
        # With a producer or a small limit, each frame must be checked.
        unpaced = self._waiters is None or self._waiters.producer is None
        self.at_once = self.outlet.send if free and unpaced and self._most >= GATHER_LIMIT else None

    def outlet_resumed(self) -> None:
        """The transport takes bytes again: send the waiting frames, and notify the waiters."""
        self.turns += 1
        gone = self._gone
        # If nothing is left of the last frame, the transport has taken all bytes that it got.
        left = -1 if self.outlet.go_on() else gone
        while self.free and self._queue is not None and (data := self._queue.take()) is not None:
            self.outlet.give(data)
        self.count()
        if self._waiters is not None:
            self._waiters.notify(self._gone if self.free else left, lambda: self.buffered, self._limits.low_water)
        self._forget_unneeded()
        self._check_finished()
        # Other code closed the transport, which waits for its producer.
        if self._owner is not None and not self.finished and self.outlet.leaving:
            self._owner.transport_leaving()
