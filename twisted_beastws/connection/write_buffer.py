"""The write buffer between a session and its transport. It is the only producer of the transport."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IPullProducer, IPushProducer, IReactorTime, ISSLTransport, ISystemHandle
from twisted.protocols.policies import ProtocolWrapper
from zope.interface import implementer

from twisted_beastws.budget import SENT, Account
from twisted_beastws.connection.awaiting import AwaitableDeferred
from twisted_beastws.connection.joined_writes import JoinedWrites
from twisted_beastws.connection.producers import stop
from twisted_beastws.errors import BufferFull, LocalError
from twisted_beastws.options import Limits
from twisted_beastws.tls.sending import encrypting_send
from twisted_beastws.wire.codec import clear_send
from twisted_beastws.wire.frames import GATHER_LIMIT, LongFrame, Opcode

HAND_OVER = 1 << 16
"""Bytes given to the transport at once: 64 KiB, Twisted's own ``bufferSize``. The transport may hold a copy of them."""

AT_ONCE = 2 * HAND_OVER
"""The most bytes given to the transport undivided: a full gathered chunk, and one frame that did not fit into it."""

JOINED = 1 << 14
"""The largest frame that is joined with the frames before it: 16 KiB. A larger one has an overhead below 1 %."""

OVERHEAD = 128
"""The overhead of each further object in the queue, in bytes: its header, the allocator's, and a slot."""


def most_at_once(max_buffered: int) -> int:
    """Return the most bytes that may be written at once: a message of ``max_buffered`` in its frames.

    RFC 6455 §5.2 adds headers. A compressor may lengthen a message by this bound (zlib's ``deflateBound``).
    """
    return max_buffered + (max_buffered >> 3) + (max_buffered >> 6) + 64


class WriteBufferOwner(Protocol):
    """The connection of a write buffer."""

    @property
    def clock(self) -> IReactorTime:
        """The reactor."""

    def overflowed(self) -> None:
        """``Limits.max_buffered`` is reached under the policy ``close``."""

    def transport_leaving(self) -> None:
        """Other code asked the transport to close."""


@implementer(IPushProducer, IPullProducer)
class Outgoing:
    """Gives bytes to the transport as long as it takes them, and keeps the rest, bounded, in whole frames.

    It writes directly to a plain TCP or UNIX socket while the buffer of its transport is empty: Twisted's own ``write``
    would wait for another turn of the reactor and change the set of watched descriptors twice. As the *pull* producer
    of the transport it is notified when that buffer has run empty. This also works on `twisted_beastws.uvreactor`. Any
    other transport (TLS, tests) has it as a push producer. A socket on which TLS is started becomes such a transport.

    Attributes:
        free: The transport takes bytes now, and none wait.
        at_once: See `twisted_beastws.wire.writer.Sink`.
        size: The bytes that wait here. Small frames wait joined, so that ``size`` is close to the memory that they
            take.
        held: The cost of the messages that wait in the session for the end of a streamed message.
        account: Gets `cost` whenever it changes, for a process-wide budget; None without one.
        dropped: The messages dropped under the policies ``drop`` and ``close``.
        finished: The transport has all bytes, and will get no more.
        turns: How often the transport resumed this producer.
    """

    __slots__ = (
        "_drains",
        "_finish",
        "_flushes",
        "_gone",
        "_handed",
        "_kept",
        "_limits",
        "_most",
        "_owner",
        "_pings",
        "_pong",
        "_producer",
        "_producer_paused",
        "_queue",
        "_records_wait",
        "_rest",
        "_rest_kept",
        "_send",
        "_transport",
        "_writes",
        "account",
        "at_once",
        "dropped",
        "finished",
        "free",
        "held",
        "size",
        "turns",
    )

    def __init__(self, transport: Any, limits: Limits, owner: WriteBufferOwner, account: Account | None = None) -> None:
        self._transport = transport
        self._limits = limits
        # An attribute of our own, because each write reads it.
        self._most = limits.max_buffered
        self._owner: WriteBufferOwner | None = owner
        self.account = account
        self._send = _plain_send(transport)
        # The object that gets the writes to the transport.
        self._writes: Any = transport
        self._records_wait: Callable[[], int] | None = None
        if self._send is None:
            self._encrypt()
        self.at_once: Callable[[bytes], int] | None = None
        # The rest of data that the system has begun to take, without the part that the transport has.
        self._rest: memoryview | None = None
        # The memory that stays until the last of it has gone: the whole frame.
        self._rest_kept = 0
        # Whole frames: small ones joined in a bytearray, large ones as they came.
        self._queue: deque[bytes | bytearray | LongFrame] | None = None
        self._pong: bytes | None = None
        self._pings = b""
        self._drains: list[Deferred[None]] | None = None
        # The bytes ever put into the queue, and ever taken from it. Each flush waits for a number of the latter.
        self._kept = self._gone = 0
        self._flushes: list[tuple[int, Deferred[None]]] | None = None
        self._finish: Callable[[], None] | None = None
        self._producer: Any = None
        self._producer_paused = False
        self._handed = 0
        self.free = True
        self.size = 0
        self.held = 0
        self.dropped = 0
        self.turns = 0
        self.finished = False
        # TCP asks a pull producer for more at once. There is nothing yet, and without a transport this does nothing.
        streaming, self._transport = not self.direct, None
        transport.registerProducer(self, streaming)
        self._transport = transport
        self._open(True)
        # By Nagle's algorithm the end of a long message would wait for a delayed acknowledgement. UNIX has none.
        try:  # noqa: SIM105  # contextlib.suppress would make four calls
            transport.setTcpNoDelay(True)
        except (AttributeError, OSError):
            pass

    def moved_to(self, transport: Any) -> Outgoing:
        """Return the write buffer of the same connection on another transport. This one must be empty."""
        assert self._owner is not None
        return Outgoing(transport, self._limits, self._owner, self.account)

    def set_limits(self, limits: Limits) -> None:
        """Use other limits from the next write on."""
        self._limits = limits
        self._most = limits.max_buffered
        self._open(self.free)

    @property
    def direct(self) -> bool:
        """The transport is plain TCP or UNIX, and we write past it; it asks for more when its buffer is empty."""
        plain = self._send is not None and self._records_wait is None
        return plain and not getattr(self._transport, "TLS", False)

    @property
    def one_chunk_a_turn(self) -> bool:
        """Whether the transport gives one chunk of up to 64 KiB in a turn of the reactor."""
        below = self._transport.transport if isinstance(self._transport, ProtocolWrapper) else self._transport
        return self.direct or (self._records_wait is not None and isinstance(below, FileDescriptor))

    @property
    def buffered(self) -> int:
        """The bytes written here that the operating system may not have yet."""
        return self.size + self._handed

    @property
    def waiting(self) -> int:
        """The memory of the bytes that wait here and in the session, with the overhead of their objects."""
        waiting = self.size + self.held + self._rest_kept
        if self._queue:
            waiting += OVERHEAD * (len(self._queue) - 1)
            first = self._queue[0]
            if self._rest is None and isinstance(first, LongFrame):
                waiting += first.kept - len(first.payload)
        return waiting

    @property
    def cost(self) -> int:
        """The memory of `waiting`, and of the bytes that the transport may hold a copy of."""
        here = 0 if self._rest is None else len(self._rest)
        return self.waiting + self._handed - here

    def write(self, data: bytes | LongFrame) -> None:
        """Send whole frames, or keep them. At ``Limits.max_buffered`` the policy decides.

        Raises:
            BufferFull: The policy refused the frames.
            LocalError: The data can never fit.
        """
        if self.free and self._producer is None and len(data) <= self._most:
            self._hand_over(data)
        elif self.admits(len(data)):
            self.write_admitted(data)

    def admits(self, size: int) -> bool:
        """Return whether ``size`` more bytes may be written. If not, the policy was carried out, or this raises."""
        most, waiting = self._most, self.waiting
        if waiting + size <= most:
            return True
        if size > most_at_once(most):
            raise LocalError(
                f"{size} bytes at once, where Limits.max_buffered is {most}: raise it, or send less at a time"
            )
        return not waiting or self._overflow()

    def hold(self, size: int) -> None:
        """Count ``size`` bytes more, or fewer if it is negative, of messages that wait in the session."""
        self.held += size
        self._count()

    def admits_part(self, size: int) -> None:
        """Check a part of a message, which cannot be dropped. Raises `BufferFull` unless the policy closes."""
        waiting = self.waiting
        # Held messages alone must not stop the message that they wait for.
        if waiting > self.held and waiting + size > self._most:
            if self._limits.slow_reader == "close" and self._owner is not None:
                self._owner.overflowed()
            else:
                raise BufferFull(self._full())

    def write_admitted(self, data: bytes | LongFrame) -> None:
        """Send whole frames that `admits` let in."""
        if self.free:
            self._hand_over(data)
        else:
            self._keep(data)
        if not self.free and self._producer is not None:
            self._pace(self._producer)

    def write_rest(self, frame: bytes, gone: int) -> None:
        """Send the rest of a frame that ``at_once`` did not take."""
        self._wait(b"", memoryview(frame)[gone:], len(frame))

    def write_control(self, opcode: int, frame: bytes) -> None:
        """Send a control frame even if bytes wait: a close last, a pong in place of a waiting one, a ping at once."""
        if self.free:
            self._hand_over(frame)
        elif opcode == Opcode.PONG:
            # RFC 6455 §5.5.3: of several unanswered pings the latest needs an answer, so a flood of them keeps one.
            self._pong = frame
        elif opcode == Opcode.CLOSE:
            self._keep(frame)
        else:
            self._pings += frame
            self.size += len(frame)
            self._count()

    def discard(self) -> None:
        """Discard the bytes that wait here, so that a close frame is next."""
        self._queue = self._pong = None
        self._pings = b""
        self.size = 0
        self._count()

    def register(self, producer: Any) -> None:
        """Pause ``producer`` above ``Limits.high_water``, resume it at ``low_water``. RuntimeError for a second one."""
        if self._producer is not None:
            raise RuntimeError(f"{producer!r} cannot be registered: {self._producer!r} is not unregistered")
        if self.finished:
            producer.stopProducing()
            return
        self._producer = producer
        self._open(self.free)
        self._pace(producer)

    def unregister(self) -> Any:
        """Release the producer, and return it."""
        producer, self._producer = self._producer, None
        self._producer_paused = False
        self._open(self.free)
        return producer

    def hand_over_all(self) -> None:
        """Give all waiting bytes to the transport: TLS is about to start, and earlier bytes leave in clear."""
        if self.direct and not self.free:
            waiting = b"".join((self._rest or b"", self._pong or b"", self._pings, *map(bytes, self._queue or ())))
            self._rest, self._rest_kept = None, 0
            self.discard()
            self._gone = self._kept
            self._transport.write(waiting)

    def finish(self, finished: Callable[[], None]) -> None:
        """Call ``finished``, once, when the transport has all bytes and we no longer are its producer."""
        if not self.finished:
            self._finish = finished
            self._check_finished()

    def abandon(self) -> None:
        """Discard the waiting bytes and send no more: the transport is about to be aborted."""
        self._open(False)
        self.finished = True
        if isinstance(self._writes, JoinedWrites):
            self._writes.discard()
        self._finish = self._send = self._rest = self._transport = self._writes = None
        self._handed = self._rest_kept = 0
        self.discard()

    def lost(self, error: Exception) -> None:
        """The transport is gone: discard the waiting bytes, and fail the pending Deferreds."""
        self.abandon()
        self._owner = None
        # Drop the traceback; otherwise it grows with each Deferred that fails with it.
        while self._drains:
            self._drains.pop(0).errback(error.with_traceback(None))
        while self._flushes:
            self._flushes.pop(0)[1].errback(error.with_traceback(None))
        stop(self.unregister())

    def drain(self) -> Deferred[None]:
        """Return a Deferred that fires when at most ``Limits.low_water`` bytes wait. Cancelling it does no harm."""
        if self.buffered <= self._limits.low_water:
            return succeed(None)
        waiting: Deferred[None] = AwaitableDeferred(self._forget)
        if self._drains is None:
            self._drains = []
        self._drains.append(waiting)
        return waiting

    def flush(self) -> Deferred[None]:
        """Return a Deferred that fires when the system, or TLS, has taken all bytes that were written before.

        Cancelling it does no harm.
        """
        if isinstance(self._writes, JoinedWrites):
            self._writes.flush()
        if not self.buffered:
            return succeed(None)
        waiting: Deferred[None] = AwaitableDeferred(self._forget_flush)
        self._flushes = [*(self._flushes or ()), (self._kept, waiting)]
        return waiting

    def _forget_flush(self, cancelled: Deferred[None]) -> None:
        self._flushes = [(kept, flush) for kept, flush in self._flushes or () if flush is not cancelled]

    def _fire_flushes(self, left: int) -> None:
        """The transport has taken the first ``left`` bytes that ever were in the queue."""
        while self._flushes and self._flushes[0][0] <= left:
            self._flushes.pop(0)[1].callback(None)

    def _forget(self, waiting: Deferred[None]) -> None:
        if self._drains is not None:
            self._drains.remove(waiting)

    def _open(self, free: bool) -> None:
        self.free = free
        # With a producer or a small limit, each frame must be checked.
        unlooked = free and self._producer is None and self._most >= GATHER_LIMIT
        self.at_once = self._send if unlooked else None

    def _overflow(self) -> bool:
        if self._limits.slow_reader == "pause":
            raise BufferFull(self._full())
        self.dropped += 1
        if self._limits.slow_reader == "close" and self._owner is not None:
            self._owner.overflowed()
        return False

    def _full(self) -> str:
        return f"{self.waiting} bytes wait for a slow reader: Limits.max_buffered is {self._most}"

    def _keep(self, data: bytes | LongFrame) -> None:
        if self._queue is None:
            self._queue = deque()
        queue, size = self._queue, len(data)
        self.size += size
        self._kept += size
        tail = queue[-1] if queue else None
        if isinstance(data, LongFrame) or size > JOINED:
            queue.append(data)
        elif isinstance(tail, bytearray) and len(tail) + size <= HAND_OVER:
            tail += data
        else:
            queue.append(bytearray(data))
        self._count()

    def _count(self) -> None:
        if self.account is not None:
            self.account.count(SENT, self.cost)

    def _hand_over(self, data: bytes | LongFrame) -> None:
        if isinstance(data, LongFrame):
            self._hand_over_long(data)
            return
        if self._send is None:
            if len(data) > AT_ONCE:
                self._hand_over_parts(memoryview(data), len(data))
                return
            self._writes.write(data)
            if not self.free:
                self._handed = len(data)
                self._count()
            return
        try:
            sent = self._send(data)
        except OSError:
            sent = 0
        if sent != len(data):
            self._wait(b"", memoryview(data)[sent:], len(data))

    def _hand_over_long(self, frame: LongFrame) -> None:
        header, payload = frame.header, frame.payload
        send_parts = None if self._send is None or self._records_wait is not None else _parts_send(self._transport)
        if send_parts is None:
            self._hand_over_joined(header, payload, frame.kept)
            return
        try:
            sent = send_parts((header, payload))
        except OSError:
            sent = 0
        if sent != len(frame):
            self._wait(header[sent:], payload[max(sent - len(header), 0) :], frame.kept)

    def _hand_over_joined(self, start: bytes, rest: memoryview, kept: int) -> None:
        # A header has no record of its own, so it leaves with a copy of the next bytes.
        size = len(rest) if len(start) + len(rest) <= AT_ONCE else HAND_OVER - len(start)
        start, rest = start + rest[:size], rest[size:]
        sent = len(start)
        if self._send is None:
            self._writes.write(start)
        else:
            try:
                sent = self._send(start)
            except OSError:
                sent = 0
        if sent != len(start):
            self._wait(start[sent:], rest, kept)
        elif self.free:
            self._hand_over_rest(rest, kept)
        else:
            self._handed += len(rest) + (len(start) if self._send is None else 0)
            self._keep_rest(rest, kept)
            self._count()

    def _hand_over_rest(self, rest: memoryview, kept: int) -> None:
        if self._send is None:
            self._hand_over_parts(rest, kept)
            return
        try:
            sent = self._send(rest) if len(rest) else 0
        except OSError:
            sent = 0
        if sent != len(rest):
            self._wait(b"", rest[sent:], kept)

    def _hand_over_parts(self, rest: memoryview, kept: int) -> None:
        # TLS encrypts all bytes that it gets at once, and the transport below copies the result.
        part = rest[:0]
        while self.free and len(rest):
            part, rest = rest[:HAND_OVER], rest[HAND_OVER:]
            self._writes.write(bytes(part))
        if not self.free:
            self._handed = len(part) + len(rest)
            self._keep_rest(rest, kept)
            self._count()

    def _wait(self, start: bytes, rest: memoryview, kept: int) -> None:
        """Send the rest of a frame that the socket did not take: ``start``, and all of ``rest``."""
        if self._tls_started():
            self._hand_over_joined(start, rest, kept)
            return
        # The system's buffer is full, or the connection is broken; Twisted's `write` handles both. It copies its data,
        # so it gets only as much as makes it resume us.
        self._open(False)
        self._handed += len(start) + len(rest)
        size = max(HAND_OVER - len(start), 0)
        # The transport may ask for more while it writes. Counting comes last, because it may end this connection.
        self._keep_rest(rest[size:], kept)
        self._transport.write(start + rest[:size])
        self._count()

    def _keep_rest(self, rest: memoryview, kept: int) -> None:
        self._rest, self._rest_kept = (rest, kept) if len(rest) else (None, 0)

    def _tls_started(self) -> bool:
        """Notice that TLS was started on the socket: the transport now encrypts, and paces us as TLS does."""
        if self._send is None or self._records_wait is not None or self.direct:
            return False
        self._encrypt()
        self._open(self.free)
        if not self.finished:
            self._transport.unregisterProducer()
            self._transport.registerProducer(self, True)
        return True

    def _encrypt(self) -> None:
        """Send through the compiled record path if the transport is TLS and can use it."""
        self._send, self._records_wait = encrypting_send(self._transport)
        if self._send is None and self._owner is not None and ISSLTransport.providedBy(self._transport):
            self._writes = JoinedWrites(self._transport, self._owner.clock)

    def _flush(self) -> None:
        rest, kept, self._rest, self._rest_kept = self._rest, self._rest_kept, None, 0
        # If nothing is left of the last piece, the transport has taken all bytes that it got.
        left = self._gone if rest is None else -1
        if rest is not None:
            self._hand_over_rest(rest, kept)
        if self.free and self._pong is not None:
            pong, self._pong = self._pong, None
            self._hand_over(pong)
        if self.free and self._pings:
            pings, self._pings = self._pings, b""
            self.size -= len(pings)
            self._hand_over(pings)
        while self.free and self._queue:
            self._hand_over(self._next(self._queue))
        if self._queue is not None and not self._queue:
            self._queue = None
        self._count()
        if self._flushes:
            self._fire_flushes(self._gone if self.free else left)
        self._call_for_more()
        self._check_finished()

    def _pace(self, producer: Any) -> None:
        if not self._producer_paused and self.buffered > self._limits.high_water:
            self._producer_paused = True
            producer.pauseProducing()

    def _call_for_more(self) -> None:
        while self._drains and self.buffered <= self._limits.low_water:
            self._drains.pop(0).callback(None)
        if self._producer_paused and self.buffered <= self._limits.low_water:
            self._producer_paused = False
            self._producer.resumeProducing()

    def _next(self, queue: deque[bytes | bytearray | LongFrame]) -> bytes | LongFrame:
        first = queue.popleft()
        size = len(first)
        frames = [first]
        while queue and size + len(queue[0]) <= HAND_OVER:
            frames.append(queue.popleft())
            size += len(frames[-1])
        self.size -= size
        self._gone += size
        return first if isinstance(first, LongFrame) else b"".join(map(bytes, frames))

    def _check_finished(self) -> None:
        if self._finish is not None and not self._queue and not self._pings and self._rest is None:
            finish, self._finish = self._finish, None
            self.finished = True
            if isinstance(self._writes, JoinedWrites):
                self._writes.flush()
            self._open(False)
            self._transport.unregisterProducer()
            finish()

    # IPushProducer and IPullProducer: the transport calls these.

    def resumeProducing(self) -> None:
        """The transport takes bytes again."""
        if self._transport is not None:
            self._tls_started()
            self._open(True)
            self.turns += 1
            self._handed = 0
            self._flush()
            # Other code closed the transport, which waits for its producer.
            if self._owner is not None and not self.finished and _leaving(self._transport):
                self._owner.transport_leaving()

    def pauseProducing(self) -> None:
        """The transport has enough."""
        if self.free and self._records_wait is not None:
            # TLS took all of a message, and the socket did not.
            self._handed = self._records_wait()
            self._count()
        self._open(False)

    def stopProducing(self) -> None:
        """The transport is gone; its protocol gets connectionLost."""
        self._open(False)


def _leaving(transport: Any) -> bool:
    """Whether the transport is about to close, or TLS has ended and the transport below it is."""
    below = transport.transport if isinstance(transport, ProtocolWrapper) else None
    return bool(getattr(transport, "disconnecting", False) or getattr(below, "disconnecting", False))


def _plain_send(transport: Any) -> Callable[[bytes | memoryview], int] | None:
    """Return the ``send`` of a socket, if its transport leaves written bytes unchanged; else None."""
    if getattr(transport, "TLS", False):
        return None
    # Look at the class, because an instance of a TLS transport passes unknown names on to the transport below.
    ungathered = getattr(type(transport), "ungathered", None)
    socket: Any
    if ungathered is not None:
        socket = ungathered(transport)
    elif isinstance(transport, FileDescriptor) and ISystemHandle.providedBy(transport):
        socket = transport.getHandle()
    else:
        return None
    send: Callable[[bytes | memoryview], int]
    send = clear_send(transport, socket) if hasattr(transport, "TLS") else socket.send
    return send


def _parts_send(transport: Any) -> Callable[[tuple[bytes, memoryview]], int] | None:
    """Return the ``sendmsg`` of the plain socket of a transport; None without one, or once TLS was started."""
    if getattr(transport, "TLS", False):
        return None
    own = getattr(type(transport), "ungathered_parts", None)
    sendmsg: Callable[[Any], int] | None
    sendmsg = getattr(transport.getHandle(), "sendmsg", None) if own is None else partial(own, transport)
    return sendmsg
