"""The way into a transport: directly to the socket, through the compiled TLS records, or by the transport's `write`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IPullProducer, IPushProducer, IReactorTime, ISSLTransport, ISystemHandle
from twisted.internet.main import CONNECTION_DONE
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_beastws.connection.joined_writes import JoinedWrites
from twisted_beastws.tls.sending import encrypting_send, unsent
from twisted_beastws.wire.codec import clear_send
from twisted_beastws.wire.frames import LongFrame

HAND_OVER = 1 << 16
"""Bytes given to the transport at once: 64 KiB, Twisted's own ``bufferSize``. The transport may hold a copy of them."""

DONE: Any = Failure(CONNECTION_DONE)
"""The usual end. As in Twisted, all connections share it."""

AT_ONCE = 2 * HAND_OVER
"""The most bytes given to the transport undivided: a full gathered chunk, and one frame that did not fit into it."""


class OutletOwner(Protocol):
    """The write buffer of an outlet."""

    finished: bool

    def outlet_changed(self, free: bool) -> None:
        """The transport takes bytes now, or it does not, or it takes them in another way."""

    def outlet_resumed(self) -> None:
        """The transport takes bytes again."""

    def count(self) -> None:
        """The memory has changed."""


@implementer(IPushProducer, IPullProducer)
class Outlet:
    """Gives frames to a transport as long as it takes them, and keeps the rest of the one that it has begun to take.

    It writes directly to a plain TCP or UNIX socket while the buffer of its transport is empty: Twisted's own ``write``
    would wait for another turn of the reactor and change the set of watched descriptors twice. As the *pull* producer
    of the transport it is notified when that buffer has run empty. This also works on `twisted_beastws.uvreactor`. Any
    other transport (TLS, tests) has it as a push producer. A socket on which TLS is started becomes such a transport.

    Attributes:
        free: The transport takes bytes now.
        handed: The bytes given here that the operating system may not have yet.
        rest: The rest of data that the system has begun to take, without the part that the transport has.
        rest_kept: The memory that stays until the last of it has gone: the whole frame.
        send: The ``send`` of the socket or of the TLS records; None if there is only the transport's `write`.
    """

    __slots__ = (
        "_clock",
        "_owner",
        "_records_wait",
        "_transport",
        "_writes",
        "free",
        "handed",
        "rest",
        "rest_kept",
        "send",
    )

    def __init__(self, transport: Any, owner: OutletOwner, clock: IReactorTime) -> None:
        self._transport = transport
        self._clock = clock
        self._owner: OutletOwner | None = owner
        self.send = _plain_send(transport)
        self._writes: Any = transport  # The object that gets the writes to the transport.
        self._records_wait: Callable[[], int] | None = None
        if self.send is None:
            self._encrypt()
        self.rest: memoryview | None = None
        self.rest_kept = self.handed = 0
        self.free = True

    def begin(self) -> None:
        """Become the producer of the transport."""
        transport = self._transport
        # TCP asks a pull producer for more at once. There is nothing yet, and without a transport this does nothing.
        streaming, self._transport = not self.direct, None
        transport.registerProducer(self, streaming)
        self._transport = transport
        self._change(True)
        # By Nagle's algorithm the end of a long message would wait for a delayed acknowledgement. UNIX has none.
        try:  # noqa: SIM105  # contextlib.suppress would make four calls
            transport.setTcpNoDelay(True)
        except (AttributeError, OSError):
            pass

    @property
    def direct(self) -> bool:
        """The transport is plain TCP or UNIX, and we write past it; it asks for more when its buffer is empty."""
        return self.send is not None and self._records_wait is None and not getattr(self._transport, "TLS", False)

    @property
    def one_chunk_a_turn(self) -> bool:
        """Whether the transport gives one chunk of up to 64 KiB in a turn of the reactor."""
        return self.direct or isinstance(self.below_records, FileDescriptor)

    @property
    def below_records(self) -> Any:
        """The transport below TLS if we send by the compiled record path; else None."""
        if self._records_wait is None:
            return None
        return self._transport.transport if isinstance(self._transport, ProtocolWrapper) else self._transport

    @property
    def leaving(self) -> bool:
        """Whether the transport is about to close, or TLS has ended and the transport below it is."""
        below = self._transport.transport if isinstance(self._transport, ProtocolWrapper) else None
        return bool(getattr(self._transport, "disconnecting", False) or getattr(below, "disconnecting", False))

    def give(self, data: bytes | LongFrame) -> None:
        """Send whole frames while the transport is free; what it does not take becomes the rest."""
        if isinstance(data, LongFrame):
            self._give_long(data)
            return
        if self.send is None:
            if len(data) > AT_ONCE:
                self._give_parts(memoryview(data), len(data))
                return
            self._writes.write(data)
            if not self.free:
                self.handed = len(data)
                self._count()
            return
        try:
            sent = self.send(data)
        except OSError:
            sent = 0
        if sent != len(data):
            self._wait(b"", memoryview(data)[sent:], len(data))

    def give_rest(self, frame: bytes, gone: int) -> None:
        """Send the rest of a frame of which the caller has sent the first ``gone`` bytes by `send`."""
        self._wait(b"", memoryview(frame)[gone:], len(frame))

    def go_on(self) -> bool:
        """Send the rest of the last frame. Returns whether there was one."""
        rest, kept, self.rest, self.rest_kept = self.rest, self.rest_kept, None, 0
        if rest is not None:
            self._send_rest(rest, kept)
        return rest is not None

    def flush(self) -> None:
        """Write what small writes still wait to be joined with others."""
        if isinstance(self._writes, JoinedWrites):
            self._writes.flush()

    def hand_over_all(self, waiting: list[bytes]) -> None:
        """Give the rest, and what waits after it, to the transport, which keeps all that it cannot send."""
        rest, self.rest, self.rest_kept = self.rest or b"", None, 0
        self._transport.write(b"".join((rest, *waiting)))

    def end(self) -> None:
        """Write no more: the transport has all bytes, and no longer this producer."""
        self.flush()
        self._change(False)
        self._transport.unregisterProducer()

    def close(self) -> None:
        """Close the transport when the system has all of its bytes."""
        transport = self._transport
        if self._is_done(transport):
            # As Twisted's abortConnection does. Its loseConnection would watch the descriptor until it can be written,
            # and then send nothing: three more system calls.
            transport.reactor.callLater(0, self._close_now)
        else:
            transport.loseConnection()

    def _is_done(self, transport: Any) -> bool:
        """Return whether a transport is a plain socket of Twisted's, nothing waits there, and nobody has closed it."""
        plain = isinstance(transport, FileDescriptor) and self.direct
        return plain and transport.connected and not (transport.disconnecting or unsent(transport))

    def _close_now(self) -> None:
        # The connection may have been lost meanwhile.
        if self._transport is not None:
            self._transport.connectionLost(DONE)

    def abandon(self) -> None:
        """Discard the waiting bytes and send no more: the transport is about to be aborted."""
        self._change(False)
        if isinstance(self._writes, JoinedWrites):
            self._writes.discard()
        self._owner = self.send = self.rest = self._transport = self._writes = None
        self.handed = self.rest_kept = 0

    def _change(self, free: bool) -> None:
        self.free = free
        if self._owner is not None:
            self._owner.outlet_changed(free)

    def _count(self) -> None:
        if self._owner is not None:
            self._owner.count()

    def _give_long(self, frame: LongFrame) -> None:
        header, payload = frame.header, frame.payload
        send_parts = None if self.send is None or self._records_wait is not None else _parts_send(self._transport)
        if send_parts is None:
            self._give_joined(header, payload, frame.kept)
            return
        try:
            sent = send_parts((header, payload))
        except OSError:
            sent = 0
        if sent != len(frame):
            self._wait(header[sent:], payload[max(sent - len(header), 0) :], frame.kept)

    def _give_joined(self, start: bytes, rest: memoryview, kept: int) -> None:
        # A header has no record of its own, so it leaves with a copy of the next bytes.
        size = len(rest) if len(start) + len(rest) <= AT_ONCE else HAND_OVER - len(start)
        start, rest = start + rest[:size], rest[size:]
        sent = len(start)
        if self.send is None:
            self._writes.write(start)
        else:
            try:
                sent = self.send(start)
            except OSError:
                sent = 0
        if sent != len(start):
            self._wait(start[sent:], rest, kept)
        elif self.free:
            self._send_rest(rest, kept)
        else:
            self.handed += len(rest) + (len(start) if self.send is None else 0)
            self._keep_rest(rest, kept)
            self._count()

    def _send_rest(self, rest: memoryview, kept: int) -> None:
        if self.send is None:
            self._give_parts(rest, kept)
            return
        try:
            sent = self.send(rest) if len(rest) else 0
        except OSError:
            sent = 0
        if sent != len(rest):
            self._wait(b"", rest[sent:], kept)

    def _give_parts(self, rest: memoryview, kept: int) -> None:
        # TLS encrypts all bytes that it gets at once, and the transport below copies the result.
        part = rest[:0]
        while self.free and len(rest):
            part, rest = rest[:HAND_OVER], rest[HAND_OVER:]
            self._writes.write(bytes(part))
        if not self.free:
            self.handed = len(part) + len(rest)
            self._keep_rest(rest, kept)
            self._count()

    def _wait(self, start: bytes, rest: memoryview, kept: int) -> None:
        """Send the rest of a frame that the socket did not take: ``start``, and all of ``rest``."""
        if self._tls_started():
            self._give_joined(start, rest, kept)
            return
        # The system's buffer is full, or the connection is broken; Twisted's `write` handles both. It copies its data,
        # so it gets only as much as makes it resume us.
        self._change(False)
        self.handed += len(start) + len(rest)
        size = max(HAND_OVER - len(start), 0)
        # The transport may ask for more while it writes. Counting comes last, because it may end this connection.
        self._keep_rest(rest[size:], kept)
        self._transport.write(start + rest[:size])
        self._count()

    def _keep_rest(self, rest: memoryview, kept: int) -> None:
        self.rest, self.rest_kept = (rest, kept) if len(rest) else (None, 0)

    def _tls_started(self) -> bool:
        """Notice that TLS was started on the socket: the transport now encrypts, and paces us as TLS does."""
        if self.send is None or self._records_wait is not None or self.direct:
            return False
        self._encrypt()
        self._change(self.free)
        if self._owner is not None and not self._owner.finished:
            self._transport.unregisterProducer()
            self._transport.registerProducer(self, True)
        return True

    def _encrypt(self) -> None:
        """Send through the compiled record path if the transport is TLS and can use it."""
        self.send, self._records_wait = encrypting_send(self._transport)
        if self.send is None and ISSLTransport.providedBy(self._transport):
            self._writes = JoinedWrites(self._transport, self._clock)

    def resumeProducing(self) -> None:
        """The transport takes bytes again."""
        if self._transport is not None:
            self._tls_started()
            self._change(True)
            self.handed = 0
            if self._owner is not None:
                self._owner.outlet_resumed()

    def pauseProducing(self) -> None:
        """The transport has enough."""
        if self.free and self._records_wait is not None:
            # TLS took all of a message, and the socket did not.
            self.handed = self._records_wait()
            self._count()
        self._change(False)

    def stopProducing(self) -> None:
        """The transport is gone; its protocol gets connectionLost."""
        self._change(False)


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
