"""Frames on the wire (RFC 6455 §5): finding them in what is received, making them of what is sent.

`FrameCodec` is the part that every octet passes through. It knows frames; what they mean is the business of its
subclass `twisted_beastws.wire.session.Session`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from enum import IntEnum
from functools import lru_cache
from typing import Any, Protocol

from twisted_beastws.errors import (
    BadContinuation,
    BadControlFragment,
    BadControlSize,
    BadDataFrame,
    BadFramePayload,
    BadMaskedFrame,
    BadOpcode,
    BadReservedBits,
    BadSize,
    BadUnmaskedFrame,
    ProtocolError,
    UnacceptableData,
)

GATHER_LIMIT = 1 << 16
"""Octets gathered from the hooks of one chunk before they are written: 64 KiB, what a transport reads at once."""

UNLIMITED = 1 << 63
"""More octets than a frame can have (RFC 6455 §5.2)."""

LOOK_EVERY = 16
"""Frames between two looks at the time in a long chunk: a look costs as much as a tenth of a small message."""

LEAP = 1 / 32
"""Seconds by which a clock was set, at least: what deadlines are kept to."""

RUNNING, PAUSED, STOPPED = range(3)


class Opcode(IntEnum):
    """RFC 6455 §5.2."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


FIN, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10
FIN_TEXT, FIN_BINARY = FIN | Opcode.TEXT, FIN | Opcode.BINARY


class Sink(Protocol):
    """Where a codec's frames go.

    free: nothing waits in it, so that frames may be gathered to be written as one.
    at_once: takes a frame shorter than `GATHER_LIMIT`, or gathered ones, past it, and returns how many octets are gone;
        raises OSError where none are. None: there is no such way now.
    """

    free: bool
    at_once: Callable[[bytes], int] | None

    def write(self, data: bytes) -> None:
        """Take data frames; a full sink may refuse them by its policy."""

    def admits(self, size: int) -> bool:
        """Whether ``size`` bytes of data frames may be written; if not, the policy was carried out, or raises.

        Raises `LocalError` only if ``size`` can never fit.
        """

    def hold(self, size: int) -> None:
        """Count ``size`` bytes more, or fewer if it is negative, that were admitted and wait in the session."""

    def admits_part(self, size: int) -> None:
        """The same for a part of a message that is begun already; raises `BufferFull` where it may not be written."""

    def write_admitted(self, data: bytes) -> None:
        """Take data frames that were admitted."""

    def write_rest(self, frame: bytes, gone: int) -> None:
        """Take what is behind the ``gone`` octets that ``at_once`` took."""

    def write_control(self, opcode: int, frame: bytes) -> None:
        """Take a control frame, always: a close behind all that waits, a ping or pong before it."""


def clear_send(transport: Any, send: Callable[[Any], int]) -> Callable[[Any], int]:
    """Return ``send``, a socket's, made to take nothing once ``transport.TLS`` says that TLS was started there.

    TLS may start at any time, and not through us. What is not taken goes through the transport, which encrypts it.
    """

    def send_in_clear(data: Any) -> int:
        return 0 if transport.TLS else send(data)

    return send_in_clear


class MaskKeys:
    """Mask keys from the system's secure source, fetched 1024 at a time (RFC 6455 §5.3, §10.3)."""

    __slots__ = ("_at", "_pool")

    def __init__(self) -> None:
        self._pool = b""
        self._at = 0

    def next(self) -> bytes:
        """Four octets, never all zero: a zero key would send the payload as it is (Beast does the same)."""
        while True:
            if self._at == len(self._pool):
                self._pool = os.urandom(4096)
                self._at = 0
            key = self._pool[self._at : self._at + 4]
            self._at += 4
            if key != b"\0\0\0\0":
                return key

    def forget(self) -> None:
        """Drop the keys that are left: after a fork the other process has them, too."""
        self._pool = b""
        self._at = 0


mask_keys = MaskKeys()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=mask_keys.forget)


STRIDED = 1024
"""Octets from which on four translations of every fourth octet are faster than one of a big integer: measured."""


@lru_cache(maxsize=256)
def _xor_table(octet: int) -> bytes:
    return bytes(octet ^ other for other in range(256))


def apply_mask(data: bytes, key: bytes) -> bytes:
    """Mask or unmask ``data`` (RFC 6455 §5.3), at the speed of big integers or, where that is greater, of tables."""
    size = len(data)
    if size >= STRIDED:
        masked = bytearray(data)
        for lane in range(4):
            masked[lane::4] = masked[lane::4].translate(_xor_table(key[lane]))
        return bytes(masked)
    stream = (key * (size + 3 >> 2))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(stream, "little")).to_bytes(size, "little")


def encode_frame(first: int, payload: bytes, key: bytes | None = None) -> bytes:
    """A whole frame; ``first`` is its first octet (FIN, RSV and opcode), ``key`` masks it."""
    size = len(payload)
    mask_bit = 0 if key is None else 0x80
    # RFC 6455 §5.2: the length in its shortest form.
    if size < 126:
        header = bytes((first, mask_bit | size))
    elif size < 1 << 16:
        header = bytes((first, mask_bit | 126)) + size.to_bytes(2, "big")
    else:
        header = bytes((first, mask_bit | 127)) + size.to_bytes(8, "big")
    if key is None:
        return header + payload
    return header + key + apply_mask(payload, key)


def decode_text(payload: bytes) -> str:
    """A whole text message. Raises `BadFramePayload` for what is no UTF-8."""
    try:
        return payload.decode()
    except UnicodeDecodeError:
        # RFC 6455 §8.1.
        raise BadFramePayload from None


class FrameCodec:
    """Takes received octets apart into frames and delivers whole messages; puts sent messages into frames.

    A message that stands in one frame in one chunk goes straight to ``on_text`` or ``on_binary``; or, if it is
    compressed, to `compressed_received` of the subclass. Everything else goes to `begin_frame`, `payload_received` and
    `control_received`.

    on_text, on_binary: called with each message of their kind. None: the kind is refused with 1003. What they return,
        if it is not None, goes to `hook_returned`; what they raise to `hook_failed`.
    fragment_size: a frame's payload to send, at most; what is longer goes to `emit_fragments`.
    now: gives the time. It is asked before and after a chunk, and between the frames of a long one; ``received_at``
        keeps the first answer.
    wall, lead: another clock, which may be set, and the seconds that it is ahead of ``now``. A chunk that comes when it
        is not is told to `clock_was_set`. None: there is no such clock.
    one_chunk_a_turn: the transport gives at most one chunk of up to 64 KiB in a turn of the reactor, as TCP does; TLS
        gives several. Behind a longer chunk uvloop may give more.
    spent: the connection's budget for this turn of the reactor is spent, and the rest of its chunk waits. See
        `set_budget`.
    """

    __slots__ = (
        "_frames_left",
        "_gathered",
        "_gathering",
        "_key",
        "_look_at",
        "_partial",
        "_remaining",
        "_step",
        "_turn_awaited",
        "_turn_began",
        "_turn_frames",
        "_turn_time",
        "_used",
        "_waiting",
        "accepts_rsv1",
        "closed",
        "compressed",
        "fragment_size",
        "halted",
        "lead",
        "max_frame_size",
        "max_message_size",
        "message_began_at",
        "message_opcode",
        "message_size",
        "now",
        "on_binary",
        "on_text",
        "one_chunk_a_turn",
        "received_at",
        "sendable",
        "server",
        "sink",
        "spent",
        "wall",
        "whole",
    )

    def __init__(
        self,
        server: bool,
        sink: Sink,
        now: Callable[[], float],
        max_message_size: int | None,
        max_frame_size: int | None,
    ) -> None:
        self.server = server
        self.sink = sink
        self.now = now
        self.max_message_size = UNLIMITED if max_message_size is None else max_message_size
        self.max_frame_size = UNLIMITED if max_frame_size is None else max_frame_size
        self.fragment_size = UNLIMITED
        self.on_text: Callable[[str], Any] | None = None
        self.on_binary: Callable[[bytes], Any] | None = None
        self.received_at = now()
        self.wall: Callable[[], float] | None = None
        self.lead = 0.0
        self.one_chunk_a_turn = False
        self.accepts_rsv1 = False
        self.sendable = True
        # A close frame was sent, or nothing will be: no frame follows.
        self.closed = False
        self.halted = RUNNING
        # Messages may be delivered whole: none is in progress, nobody wants their pieces, none is to be thrown away.
        self.whole = True
        self.message_began_at: float | None = None
        self.message_opcode = 0
        self.message_size = 0
        self.compressed = False
        self._partial = b""
        self._remaining = 0
        self._key: bytes | None = None
        self._gathering = False
        # Joined at once: a small frame's object is many times its content.
        self._gathered = bytearray()
        self._waiting = 0
        self.set_budget(None, None)

    def set_budget(self, frames: int | None, seconds: float | None) -> None:
        """Set how many frames, and how many seconds, the connection may take in one turn of the reactor.

        None is unlimited. When either is spent, ``spent`` is set and the rest of the chunk waits for `next_turn`, which
        `turn_awaited` asks for.
        """
        self._turn_frames = UNLIMITED if frames is None else frames
        self._turn_time = math.inf if seconds is None else seconds
        self._renew_budget()

    def _renew_budget(self) -> None:
        self.spent = self._turn_awaited = False
        self._turn_began = self.now()
        self._used = 0.0
        self._frames_left = self._turn_frames
        self._look_soon()

    def begin_frame(self, first: int, length: int) -> None:
        raise NotImplementedError

    def payload_received(self, part: bytes, last: bool) -> None:
        raise NotImplementedError

    def compressed_received(self, first: int, payload: bytes) -> None:
        raise NotImplementedError

    def control_received(self, opcode: int, payload: bytes) -> None:
        raise NotImplementedError

    def fail(self, error: ProtocolError) -> None:
        raise NotImplementedError

    def hook_returned(self, result: Any) -> None:
        raise NotImplementedError

    def hook_failed(self) -> None:
        raise NotImplementedError

    def turn_awaited(self) -> None:
        raise NotImplementedError

    def clock_was_set(self) -> None:
        raise NotImplementedError

    def send_other(self, message: Any, compress: bool | None) -> None:
        raise NotImplementedError

    def send_held(self, first: int, payload: bytes) -> None:
        raise NotImplementedError

    def emit_fragments(self, first: int, payload: bytes) -> None:
        raise NotImplementedError

    def feed(self, data: bytes) -> None:
        """Take a chunk as it was received. Never raises for what the peer or a hook did.

        What hooks send meanwhile leaves as one write at the end (or each 64 KiB).
        """
        self.received_at = self.now()
        if self._turn_awaited:
            self._look_at = self._frames_left
        elif self.one_chunk_a_turn:
            self._turn_began = self.received_at
            self._frames_left = self._turn_frames
            self._look_soon()
        else:
            # Chunks of one turn share the budget; the time since the last chunk was not ours.
            self._turn_began = self.received_at - self._used
            self._look_soon()
        if self.wall is not None and abs(self.wall() - self.received_at - self.lead) > LEAP:
            self.clock_was_set()
        self._run(data)

    def next_turn(self) -> None:
        """Renew the budget, in a new turn of the reactor, and go on with what waited."""
        waits = self.spent
        self._renew_budget()
        if waits and self.halted == RUNNING and not self._gathering:
            self._run(b"")

    def resume(self) -> None:
        """Go on after ``halted`` was `PAUSED`, with what was kept meanwhile."""
        if self.halted == PAUSED:
            self.halted = RUNNING
            if not self._gathering:
                self._run(b"")

    def _run(self, data: bytes) -> None:
        if self._gathering or self.spent:
            # Fed by a hook, or by what the sink's writing calls: it is parsed behind the chunk that is under way.
            self._partial += data
            return
        self._gathering = True
        try:
            self._parse(data)
        except ProtocolError as error:
            self.fail(error)
        finally:
            self._gathering = False
            if self._gathered:
                self.flush()
        alone = self.one_chunk_a_turn and len(data) <= GATHER_LIMIT
        if self.spent or not (alone or self._turn_awaited or not self._asks_for_turn()):
            self._turn_awaited = True
            self.turn_awaited()

    def _asks_for_turn(self) -> bool:
        """Whether to ask for the next turn: nothing else shows that one has begun."""
        if self.halted == STOPPED:
            # A hook may have ended the session, and nobody is left to be asked.
            return False
        if self.one_chunk_a_turn:
            return True
        used = self._used = self.now() - self._turn_began
        return 2 * used > self._turn_time or self._frames_left < self._turn_frames // 2

    def _look_soon(self) -> None:
        """Look at the budget after the next frame, and then less and less often."""
        self._step = 1
        self._look_at = self._frames_left - 1 if self._frames_left else 0

    def _look(self) -> bool:
        """Whether the budget is spent."""
        if not self._frames_left or self.out_of_time():
            self.spent = True
            return True
        self._step = min(4 * self._step, LOOK_EVERY)
        self._look_at = max(0, self._frames_left - self._step)
        return False

    def out_of_time(self) -> bool:
        """Whether the time of this turn is over; sets ``spent`` then."""
        self.spent = self._turn_time != math.inf and self.now() - self._turn_began > self._turn_time
        return self.spent

    def _parse(self, data: bytes) -> None:
        while True:
            if self._partial:
                data = self._partial + data
                self._partial = b""
            position = self._parse_chunk(data)
            fed_meanwhile = self._partial
            self._partial = data[position:] + fed_meanwhile if self.halted != STOPPED else b""
            if not fed_meanwhile or self.halted != RUNNING or self.spent:
                return
            data = b""

    def _parse_chunk(self, data: bytes) -> int:
        """Take the frames that are whole, and what is there of a long one; returns how many octets that are."""
        position = 0
        end = len(data)
        frames_left, look_at = self._frames_left, self._look_at
        while self.halted == RUNNING and not self.spent:
            if self._remaining:
                if position == end:
                    break
                position = self._continue_payload(data, position)
                continue
            if end - position < 2:
                break
            if frames_left <= look_at:
                self._frames_left = frames_left
                if self._look():
                    break
                look_at = self._look_at
            first = data[position]
            length = data[position + 1] & 0x7F
            simple = self.whole and (first == FIN_TEXT or first == FIN_BINARY)
            if not simple:
                self._check_first(first, length)
            # RFC 6455 §5.1: a client masks every frame, a server none.
            if self.server:
                if data[position + 1] < 0x80:
                    raise BadUnmaskedFrame
            elif data[position + 1] >= 0x80:
                raise BadMaskedFrame
            start = position + 2
            if length > 125:
                start += 2 if length == 126 else 8
                if start > end:
                    break
                least = 126 if length == 126 else 1 << 16
                length = int.from_bytes(data[position + 2 : start], "big")
                # RFC 6455 §5.2: the shortest form, and the most significant bit is 0.
                if length < least or length >= 1 << 63:
                    raise BadSize
            key = None
            if self.server:
                key = data[start : start + 4]
                start += 4
                if start > end:
                    break
            stop = start + length
            if simple and stop <= end:
                if length > self.max_message_size or length > self.max_frame_size:
                    raise self.too_big()
                payload = data[start:stop]
                position = stop
                self._deliver(first, payload if key is None else apply_mask(payload, key))
            elif first & 0x08:
                if stop > end:
                    break
                payload = data[start:stop]
                position = stop
                self.control_received(first & 0x0F, payload if key is None else apply_mask(payload, key))
            elif self.whole and first & FIN and first & RSV1 and stop <= end:
                if length > self.max_frame_size:
                    raise self.too_big()
                payload = data[start:stop]
                position = stop
                self.compressed_received(first, payload if key is None else apply_mask(payload, key))
                # It may have inflated to much.
                look_at = frames_left
            else:
                self._begin(first, length, key)
                position = start
            frames_left -= 1
        self._frames_left = frames_left
        return position

    def _check_first(self, first: int, length: int) -> None:
        opcode = first & 0x0F
        if opcode & 0x08:
            # RFC 6455 §5.5: control frames are short and never fragmented.
            if opcode > Opcode.PONG:
                raise BadOpcode
            if not first & FIN:
                raise BadControlFragment
            if length > 125:
                raise BadControlSize
            if first & (RSV1 | RSV2 | RSV3):
                raise BadReservedBits
        elif opcode == Opcode.CONTINUATION:
            # RFC 6455 §5.4; RFC 7692 §6: RSV1 stands on a message's first frame alone.
            if not self.message_opcode:
                raise BadContinuation
            if first & (RSV1 | RSV2 | RSV3):
                raise BadReservedBits
        else:
            if opcode > Opcode.BINARY:
                raise BadOpcode
            if self.message_opcode:
                raise BadDataFrame
            if first & (RSV2 | RSV3) or (first & RSV1 and not self.accepts_rsv1):
                raise BadReservedBits

    def too_big(self) -> ProtocolError:
        raise NotImplementedError

    def _deliver(self, first: int, payload: bytes) -> None:
        if first == FIN_TEXT:
            # Refused by its header, as one that comes in parts is: before its text is judged.
            if self.on_text is None:
                raise UnacceptableData
            self.call_hook(self.on_text, decode_text(payload))
        else:
            self.call_hook(self.on_binary, payload)

    def call_hook(self, hook: Callable[[Any], Any] | None, message: Any) -> None:
        """Give a message to the application; what it does wrong is `hook_failed`'s."""
        if hook is None:
            raise UnacceptableData
        try:
            result = hook(message)
            if result is not None:
                self.hook_returned(result)
        except Exception:
            self.hook_failed()

    def _begin(self, first: int, length: int, key: bytes | None) -> None:
        # Judged by the header, before anything is kept (Beast does so too); a compressed length says nothing yet.
        if first & 0x0F:
            self.compressed = bool(first & RSV1)
        if length > self.max_frame_size or (not self.compressed and self.message_size + length > self.max_message_size):
            raise self.too_big()
        self.begin_frame(first, length)
        self._remaining = length
        self._key = key
        if not length:
            self.payload_received(b"", True)

    def _continue_payload(self, data: bytes, position: int) -> int:
        part = data[position : position + self._remaining]
        size = len(part)
        self._remaining -= size
        if self._key is not None:
            part = apply_mask(part, self._key)
            turn = size & 3
            self._key = self._key[turn:] + self._key[:turn]
        self.payload_received(part, not self._remaining)
        return position + size

    def send(self, message: Any, *, compress: bool | None = None) -> None:
        """Send a message: see ``WebSocketProtocol.send``."""
        if compress is None and isinstance(message, str):
            self.send_text(message)
        else:
            self.send_other(message, compress)

    def send_text(self, text: str) -> None:
        """Send a text message in one frame."""
        self.send_frame(FIN_TEXT, text.encode())

    def send_binary(self, data: bytes) -> None:
        """Send a binary message in one frame."""
        self.send_frame(FIN_BINARY, data)

    def send_frame(self, first: int, payload: bytes) -> None:
        """Send a data frame whose first octet is ``first``; `send_held` takes it where it may not leave now."""
        if self.sendable:
            self.emit(first, payload)
        else:
            self.send_held(first, payload)

    def emit(self, first: int, payload: bytes) -> None:
        """Write a frame, or gather it while a chunk is being fed and nothing waits in the sink."""
        # RFC 6455 §5.5: a control frame stays whole.
        if len(payload) > self.fragment_size and not first & 0x08:
            self.emit_fragments(first, payload)
            return
        self.emit_frame(first, encode_frame(first, payload, None if self.server else mask_keys.next()))

    def emit_frame(self, first: int, frame: bytes) -> None:
        """Write a whole frame, or gather it, as `emit` does; ``first`` is its first octet."""
        # The sink is asked once for what leaves together: nothing is written before it.
        if self._gathering and len(frame) < GATHER_LIMIT and (self._waiting or self.sink.free):
            self._gathered += frame
            self._waiting += len(frame)
            if self._waiting >= GATHER_LIMIT:
                self.flush()
            return
        if self._gathered:
            self.flush()
        if len(frame) < GATHER_LIMIT and self._left_at_once(frame):
            return
        if first & 0x08:
            self.sink.write_control(first & 0x0F, frame)
        else:
            self.sink.write(frame)

    def _left_at_once(self, frames: bytes) -> bool:
        at_once = self.sink.at_once
        if at_once is None:
            return False
        try:
            gone = at_once(frames)
        except OSError:
            gone = 0
        if gone != len(frames):
            self.sink.write_rest(frames, gone)
        return True

    def emit_pieces(self, first: int, payload: bytes) -> None:
        """Write a payload, admitted already, in frames of ``fragment_size``; FIN, if ``first`` has it, on the last.

        It stops where a close frame comes in between.
        """
        if self._gathered:
            self.flush()
        fin, opcode = first & FIN, first & ~FIN
        end = len(payload)
        for at in range(0, end or 1, self.fragment_size):
            # RFC 6455 §5.5.1: no data frame follows a close frame.
            if self.closed:
                return
            piece = payload[at : at + self.fragment_size]
            last = fin if at + len(piece) == end else 0
            self.sink.write_admitted(encode_frame(opcode | last, piece, None if self.server else mask_keys.next()))
            opcode = Opcode.CONTINUATION

    def drop_received(self) -> bool:
        """Free the part of a message that came; whether the rest of its frame then goes to `payload_received`."""
        return False

    @property
    def unparsed_size(self) -> int:
        """Bytes received and kept that `payload_received` or a hook has not had."""
        return len(self._partial)

    @property
    def gathered_size(self) -> int:
        """Octets gathered and not yet written."""
        return self._waiting

    def flush(self) -> None:
        """Write what was gathered."""
        gathered = bytes(self._gathered)
        self._gathered.clear()
        self._waiting = 0
        # Nothing waited in the sink, and each frame may be written alone.
        if not self._left_at_once(gathered):
            self.sink.write_admitted(gathered)
