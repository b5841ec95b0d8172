# cython: wraparound=False, initializedcheck=False
"""`FrameReader`: received bytes to messages and control frames (RFC 6455 §5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

from twisted_beastws.errors import (
    BadContinuation,
    BadControlFragment,
    BadControlSize,
    BadDataFrame,
    BadMaskedFrame,
    BadOpcode,
    BadReservedBits,
    BadSize,
    BadUnmaskedFrame,
    MessageTooBig,
    ProtocolError,
    UnacceptableData,
)
from twisted_beastws.wire.frames import (
    FIN,
    FIN_BINARY,
    FIN_TEXT,
    GATHER_LIMIT,
    PAUSED,
    RESERVED,
    RSV1,
    RUNNING,
    STOPPED,
    UNLIMITED,
)
from twisted_beastws.wire.raw import SoloMessage, new_solo, read_length, take_bytes, take_part, take_text
from twisted_beastws.wire.turns import TurnBudget
from twisted_beastws.wire.writer import FrameWriter

SOLO_LIMIT = 1 << 26
"""The most bytes allocated for the length in a frame header: 64 MiB. Unused memory costs nothing."""

LEAP = 1 / 32
"""Seconds by which the reactor's clock must jump before the reader reports it: the resolution of the deadlines."""


def too_big(max_message_size: int, max_frame_size: int) -> MessageTooBig:
    """Return the error for a message above the limits; it names those that are set."""
    limits = {"Limits.max_message_size": max_message_size, "Limits.max_frame_size": max_frame_size}
    set_limits = [f"{name} is {limit}" for name, limit in limits.items() if limit != UNLIMITED]
    return MessageTooBig(f"message too big: {', '.join(set_limits)}")


class ReaderEvents(Protocol):
    """Receives the events of a reader that do not concern the frames themselves."""

    def hook_returned(self, result: Any) -> None:
        """A message hook returned ``result``, which is not None."""

    def hook_failed(self) -> None:
        """A hook raised an exception, which is being handled."""

    def turn_awaited(self) -> None:
        """Call `FrameReader.next_turn` in the reactor's next turn. If the budget is spent, read nothing until then."""

    def clock_was_set(self) -> None:
        """The clock ``wall`` was set. The reader has not yet read the frames of the chunk that just arrived."""

    def payload_awaited(self, size: int) -> None:
        """The frame that is arriving lacks ``size`` bytes: more than 64 KiB, or fewer after a call with more."""


class FrameHandler(Protocol):
    """Handles control frames, and the faults of the peer."""

    def control_received(self, opcode: int, payload: bytes) -> None:
        """A whole control frame arrived. Raises `ProtocolError` if it is wrong."""

    def fail(self, error: BaseException) -> None:
        """The peer broke the protocol: fail the connection."""


class Payloads(Protocol):
    """Takes the payloads of messages that the reader cannot deliver whole, in the order of the frames."""

    def begin_frame(self, first: int, length: int) -> None:
        """A data frame begins with the byte ``first``."""

    def payload_received(self, part: bytes, last: bool) -> None:
        """A part of the frame's payload arrived; ``last`` if the frame ends with it."""

    def compressed_received(self, first: int, payload: bytes) -> None:
        """A whole compressed message arrived in one frame."""

    def resume(self) -> None:
        """Deliver the rest of a payload that a paused hook, or the end of the turn, interrupted."""


class FrameReader:
    """Finds frames in received bytes, checks them and delivers messages.

    A message that arrives in one frame in one chunk goes straight to ``on_text`` or ``on_binary``. All other data
    frames go to ``payloads``, control frames to ``handler``.

    Attributes:
        server: A server reads masked frames, a client frames without a mask (RFC 6455 §5.1).
        on_text: The hook for text messages. None: text is refused with 1003.
        on_binary: The hook for binary messages, likewise.
        handler: See `FrameHandler`.
        payloads: See `Payloads`.
        budget: The connection's share of a turn.
        now: Returns the time. The reader asks before and after a chunk, and between the frames of a long one.
        received_at: The time of the latest chunk.
        wall: A clock that may be set, or None.
        lead: The seconds by which ``wall`` is ahead of ``now``. A chunk that finds another lead is reported.
        accepts_rsv1: Compressed messages may arrive (RFC 7692 §6).
        halted: ``RUNNING``, ``PAUSED`` or ``STOPPED``.
        whole: Messages may be delivered whole: none is unfinished, streamed in or discarded.
        unfinished: ``payloads`` has more to deliver before the next frame is read.
        message_opcode: The opcode of the message that is arriving, or 0.
        message_size: The bytes of it that arrived, inflated.
        message_began_at: The time of its first frame, or None.
        compressed: It is compressed.
        remaining: The bytes that the frame's payload still lacks.
    """

    __slots__ = (
        "__weakref__",
        "_awaits_much",
        "_events",
        "_feeding",
        "_key",
        "_partial",
        "_solo",
        "_writer",
        "accepts_rsv1",
        "budget",
        "compressed",
        "halted",
        "handler",
        "lead",
        "max_frame_size",
        "max_message_size",
        "message_began_at",
        "message_opcode",
        "message_size",
        "now",
        "on_binary",
        "on_text",
        "payloads",
        "received_at",
        "remaining",
        "server",
        "unfinished",
        "wall",
        "whole",
    )

    def __init__(
        self,
        writer: FrameWriter,
        events: ReaderEvents,
        now: Callable[[], float],
        budget: TurnBudget,
    ) -> None:
        self._writer = writer
        self._events = events
        self.handler: FrameHandler = cast(Any, None)
        self.payloads: Payloads = cast(Any, None)
        self.server = writer.server
        self.now = now
        self.budget = budget
        self.max_message_size = self.max_frame_size = UNLIMITED
        self.on_text: Callable[[str], Any] | None = None
        self.on_binary: Callable[[bytes], Any] | None = None
        self.received_at = now()
        self.wall: Callable[[], float] | None = None
        self.lead = 0.0
        self.accepts_rsv1 = False
        self.halted = RUNNING
        self.whole = True
        self.unfinished = False
        self.message_began_at: float | None = None
        self.message_opcode = 0
        self.message_size = 0
        self.compressed = False
        self.remaining = 0
        self._awaits_much = False
        self._key: bytes | None = None
        self._partial = b""
        self._solo: SoloMessage | None = None
        self._feeding = False

    # Chunks.

    def feed(self, data: bytes) -> None:
        """Read a chunk. Nothing is raised, whatever the peer or a hook does.

        The messages that hooks send meanwhile are written together at the end, or in writes of 64 KiB.
        """
        self._begin_chunk()
        self._run(data)

    def place(self) -> Any:
        """Return a buffer to receive the next bytes of a long payload into, or None. None: they must go to `feed`.

        The caller calls `placed` next, or gives the buffer up.
        """
        if self._solo is None or self.halted != RUNNING or not self.whole or self.budget.spent or self._partial:
            return None
        return None if self._feeding else self._solo.place()

    def placed(self, size: int) -> None:
        """Read a chunk of which all ``size`` bytes are at the beginning of `place`. Nothing is raised, as by `feed`."""
        self._begin_chunk()
        self._run(b"", size)

    def _begin_chunk(self) -> None:
        self.received_at = self.now()
        self.budget.begin_chunk(self.received_at)
        if self.wall is not None:
            wall = self.wall()
            if abs(wall - self.received_at - self.lead) > LEAP:
                self._events.clock_was_set()

    def next_turn(self) -> None:
        """Renew the budget in a new turn of the reactor, and read the rest of the chunk."""
        if not self.budget.spent:
            self.budget.renew()
            return
        self.budget.begin_rest()
        if self.halted == RUNNING and not self._feeding:
            self._run(b"")

    def pause(self) -> None:
        """Deliver nothing until `resume`; bytes that are fed meanwhile are kept."""
        if self.halted == RUNNING:
            self.halted = PAUSED

    def resume(self) -> None:
        """Continue after `pause`, with the bytes that arrived meanwhile."""
        if self.halted == PAUSED:
            self.halted = RUNNING
            if not self._feeding:
                self._run(b"")

    def stop(self) -> None:
        """Read nothing any more."""
        self.halted = STOPPED
        self._partial = b""
        self.budget.stop()

    def detach(self) -> None:
        """The connection has ended: drop the references to it, so that no cycle keeps it alive."""
        self.on_text = self.on_binary = None
        self.handler = self.payloads = cast(Any, None)

    def _run(self, data: bytes, placed: int = 0) -> None:
        if self._feeding or self.budget.spent:
            # A hook or a write of the sink fed us: these bytes come after the chunk that is being read.
            self._partial += data
            return
        self._feeding = True
        self._writer.cork()
        try:
            if placed:
                self._continue_in_place(placed)
            self._parse(data)
        except ProtocolError as error:
            self.handler.fail(error)
        finally:
            self._feeding = False
            self._writer.uncork()
        if (self.remaining > GATHER_LIMIT or self._awaits_much) and self.halted != STOPPED:
            self._awaits_much = self.remaining > GATHER_LIMIT
            self._events.payload_awaited(self.remaining)
        if self.budget.end_chunk(len(data) + placed, self.halted == STOPPED):
            self._events.turn_awaited()

    def _parse(self, data: bytes) -> None:
        if self.unfinished and self.halted == RUNNING:
            # The rest of the interrupted payload comes before the frames after it.
            self._partial += data
            data = b""
            self.payloads.resume()
        while True:
            if self._partial:
                data = self._partial + data
                self._partial = b""
            position = self._parse_chunk(data)
            fed_meanwhile = self._partial
            if self.halted == STOPPED:
                self._partial = b""
            elif position < len(data):
                self._partial = data[position:] + fed_meanwhile
            if not fed_meanwhile or self.halted != RUNNING or self.budget.spent:
                return
            data = b""

    # Frames.

    def _parse_chunk(self, data: bytes) -> int:
        """Read the whole frames, and the part that arrived of a long one; return the number of bytes read."""
        position = 0
        end = len(data)
        budget = self.budget
        while self.halted == RUNNING and not budget.spent:
            if self.remaining:
                if position == end:
                    break
                position = self._continue_payload(data, position, end)
                continue
            if end - position < 2:
                break
            if budget.frames_left <= budget.look_at and budget.look():
                break
            first = data[position]
            second = data[position + 1]
            length = second & 0x7F
            simple = self.whole and (first == FIN_TEXT or first == FIN_BINARY)
            if not simple:
                self._check_first(first, length)
            # RFC 6455 §5.1: a client masks every frame, a server none.
            if self.server:
                if second < 0x80:
                    raise BadUnmaskedFrame
            elif second >= 0x80:
                raise BadMaskedFrame
            start = position + 2
            if length > 125:
                least = 126 if length == 126 else 1 << 16
                start += 2 if length == 126 else 8
                if start > end:
                    break
                length = read_length(data, position + 2, start)
                # RFC 6455 §5.2: the shortest form, and the most significant bit is 0.
                if length < least or length >= UNLIMITED:
                    raise BadSize
            key_at = -1
            if self.server:
                key_at = start
                start += 4
                if start > end:
                    break
            room = end - start
            if simple and length <= room:
                if length > self.max_message_size or length > self.max_frame_size:
                    raise self.too_big()
                position = start + length
                self._deliver(first, data, start, length, key_at)
            elif first & 0x08:
                if length > room:
                    break
                position = start + length
                self.handler.control_received(first & 0x0F, take_bytes(data, start, length, key_at))
            elif self.whole and first & FIN and first & RSV1 and length <= room:
                if length > self.max_frame_size:
                    raise self.too_big()
                position = start + length
                self.payloads.compressed_received(first, take_bytes(data, start, length, key_at))
                # A short frame may inflate to a long message, so check the clock.
                budget.look_at = budget.frames_left
            else:
                position = start
                key = None if key_at < 0 else data[key_at:start]
                if simple and length <= SOLO_LIMIT:
                    self._begin_solo(first, length, key)
                else:
                    self._begin(first, length, key)
            budget.frames_left -= 1
        return position

    def _check_first(self, first: int, length: int) -> None:
        opcode = first & 0x0F
        if opcode & 0x08:
            # RFC 6455 §5.5: control frames are short and never fragmented.
            if opcode > 0xA:
                raise BadOpcode
            if not first & FIN:
                raise BadControlFragment
            if length > 125:
                raise BadControlSize
            if first & RESERVED:
                raise BadReservedBits
        elif not opcode:
            # RFC 6455 §5.4; RFC 7692 §6: only the first frame of a message may have RSV1.
            if not self.message_opcode:
                raise BadContinuation
            if first & RESERVED:
                raise BadReservedBits
        else:
            if opcode > 2:
                raise BadOpcode
            if self.message_opcode:
                raise BadDataFrame
            if first & (RESERVED ^ RSV1) or (first & RSV1 and not self.accepts_rsv1):
                raise BadReservedBits

    def too_big(self) -> MessageTooBig:
        """Return the error that names the limits in force."""
        return too_big(self.max_message_size, self.max_frame_size)

    def _deliver(self, first: int, data: bytes, start: int, size: int, key_at: int) -> None:
        if first == FIN_BINARY:
            self.call_hook(self.on_binary, take_bytes(data, start, size, key_at))
            return
        # A kind without a hook is refused by its header, before its text is judged, however it arrives.
        if self.on_text is None:
            raise UnacceptableData
        self.call_hook(self.on_text, take_text(data, start, size, key_at))

    def call_hook(self, hook: Callable[[Any], Any] | None, message: Any) -> None:
        """Give a message to the application, and report its result or exception to the events.

        Raises:
            UnacceptableData: There is no hook.
        """
        if hook is None:
            raise UnacceptableData
        try:
            result = hook(message)
            if result is not None:
                self._events.hook_returned(result)
        except Exception:
            self._events.hook_failed()

    def _begin(self, first: int, length: int, key: bytes | None) -> None:
        # As in Beast, the header decides before any payload is kept. A compressed frame's length says nothing yet.
        if first & 0x0F:
            self.compressed = bool(first & RSV1)
        if length > self.max_frame_size or (not self.compressed and self.message_size + length > self.max_message_size):
            raise self.too_big()
        self.payloads.begin_frame(first, length)
        self.remaining = length
        self._key = key
        if not length:
            self.payloads.payload_received(b"", True)

    def _begin_solo(self, first: int, length: int, key: bytes | None) -> None:
        # A message in one frame that arrives in several chunks.
        if length > self.max_message_size or length > self.max_frame_size:
            raise self.too_big()
        if (self.on_text if first == FIN_TEXT else self.on_binary) is None:
            raise UnacceptableData
        self._solo = new_solo(first == FIN_TEXT, length)
        self._key = key
        self.remaining = length
        self.message_began_at = self.received_at

    def _continue_payload(self, data: bytes, position: int, end: int) -> int:
        size = end - position
        if size > self.remaining:
            size = self.remaining
        key = self._use_key(size)
        self.remaining -= size
        if self._solo is None:
            self.payloads.payload_received(take_part(data, position, size, key), not self.remaining)
        else:
            self._solo.add(data, position, size, key, self.whole)
            if not self.remaining:
                self._end_solo(self._solo)
        return position + size

    def _continue_in_place(self, size: int) -> None:
        solo = self._solo
        if solo is not None:
            self.remaining -= size
            solo.add_placed(size, self._use_key(size), self.whole)
            if not self.remaining:
                self._end_solo(solo)
            else:
                # A transport may fill many places in a turn of the reactor.
                self.budget.out_of_time()

    def _use_key(self, size: int) -> bytes | None:
        """Return the key for the next ``size`` bytes, and turn it for those after them."""
        key = self._key
        if key is not None:
            turn = size & 3
            if turn:
                self._key = key[turn:] + key[:turn]
        return key

    def _end_solo(self, solo: SoloMessage) -> None:
        self._solo = None
        self.message_began_at = None
        # We sent a close frame meanwhile: discard data before the peer's close frame.
        if self.whole:
            message = solo.message()
            self.call_hook(self.on_text if isinstance(message, str) else self.on_binary, message)

    # The message that is arriving.

    def begin_message(self, opcode: int) -> None:
        """The first frame of a message arrived that cannot be delivered whole."""
        self.whole = False
        self.message_opcode = opcode
        self.message_size = 0
        self.message_began_at = self.received_at

    def end_message(self, whole: bool) -> None:
        """The message has ended; the next one may be delivered ``whole``."""
        self.message_opcode = self.message_size = 0
        self.message_began_at = None
        self.whole = whole

    def drop_message(self) -> bool:
        """Free the received part of a message; return whether the rest of its frame then goes to ``payloads``."""
        dropped = self._solo is not None
        self._solo = None
        return dropped

    @property
    def unparsed_size(self) -> int:
        """The received bytes that neither ``payloads`` nor a hook has received."""
        return len(self._partial) + (0 if self._solo is None else self._solo.size)
