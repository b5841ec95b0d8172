"""The other end of the wire: writes, reads and judges frames byte by byte, by RFC 6455 alone and without our code."""

from __future__ import annotations

import itertools
import operator
import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from twisted_beastws import errors
from twisted_beastws.options import Limits
from twisted_beastws.wire import codec
from twisted_beastws.wire.frames import LongFrame
from twisted_beastws.wire.session import Session

if TYPE_CHECKING:
    from typing_extensions import Self

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
KEY = bytes.fromhex("37fa213d")


class Frame(NamedTuple):
    opcode: int
    payload: bytes = b""
    fin: bool = True
    rsv: int = 0


def xor(data: bytes, key: bytes) -> bytes:
    """RFC 6455 §5.3, as it stands there."""
    return bytes(map(operator.xor, data, itertools.cycle(key)))


def header(frame: Frame, masked: bool, form: int | None = None, length: int | None = None) -> bytes:
    """A frame's header without its key.

    form: 7, 16 or 64 bits for the length, by default the shortest; length: claimed instead of the payload's.
    """
    size = len(frame.payload) if length is None else length
    if form is None:
        form = 7 if size <= 125 else 16 if size <= 65535 else 64
    small, octets = {7: (size, 0), 16: (126, 2), 64: (127, 8)}[form]
    first = (0x80 if frame.fin else 0) + (frame.rsv << 4) + frame.opcode
    return bytes([first, (0x80 if masked else 0) + small]) + size.to_bytes(8, "big")[8 - octets :]


def encode(frame: Frame, key: bytes | None, form: int | None = None, length: int | None = None) -> bytes:
    start = header(frame, key is not None, form, length)
    return start + frame.payload if key is None else start + key + xor(frame.payload, key)


def to(server: bool, *frames: Frame | tuple[Any, ...]) -> bytes:
    """Return the bytes of frames that a peer sends to a server or a client."""
    return b"".join(encode(Frame(*frame), KEY if server else None) for frame in frames)


def decode(wire: bytes, masked: bool) -> list[Frame]:
    """The frames in ``wire``; every one must be whole, in its shortest form and masked as ``masked`` says."""
    frames = []
    while wire:
        size = wire[1] & 0x7F
        at = 2 if size <= 125 else 4 if size == 126 else 10
        if at > 2:
            size = int.from_bytes(wire[2:at], "big")
        key = wire[at : at + 4] if masked else None
        at += 4 if masked else 0
        payload = wire[at : at + size]
        frame = Frame(wire[0] & 15, payload if key is None else xor(payload, key), wire[0] >= 128, wire[0] >> 4 & 7)
        assert encode(frame, key) == wire[: at + size]
        frames.append(frame)
        wire = wire[at + size :]
    return frames


def cut(wire: bytes, places: Iterable[int]) -> list[bytes]:
    """``wire`` in chunks that end at ``places``."""
    ends = sorted({place for place in places if 0 < place < len(wire)})
    return [wire[start:end] for start, end in zip([0, *ends], [*ends, len(wire)], strict=True)]


def octets(wire: bytes) -> list[bytes]:
    return cut(wire, range(len(wire)))


# RFC 3629 §4: the first byte's range, then those of the others.
_TAIL = (0x80, 0xBF)
_UTF8 = [
    [(0x00, 0x7F)],
    [(0xC2, 0xDF), _TAIL],
    [(0xE0, 0xE0), (0xA0, 0xBF), _TAIL],
    [(0xE1, 0xEC), _TAIL, _TAIL],
    [(0xED, 0xED), (0x80, 0x9F), _TAIL],
    [(0xEE, 0xEF), _TAIL, _TAIL],
    [(0xF0, 0xF0), (0x90, 0xBF), _TAIL, _TAIL],
    [(0xF1, 0xF3), _TAIL, _TAIL, _TAIL],
    [(0xF4, 0xF4), (0x80, 0x8F), _TAIL, _TAIL],
]


def first_bad_octet(text: bytes) -> int | None:
    """Where ``text`` cannot be UTF-8 any more, its length if it ends inside a character, None if it is UTF-8."""
    at = 0
    while at < len(text):
        rows = _UTF8
        for place in range(4):
            if at == len(text):
                return at
            rows = [row for row in rows if len(row) > place and row[place][0] <= text[at] <= row[place][1]]
            if not rows:
                return at
            at += 1
            if len(rows[0]) == place + 1:
                break
    return None


Event = tuple[Any, ...]


def compiled_codec() -> codec.Codec:
    """The compiled codec, even where the pure one was chosen; where it was not built, the test is skipped."""
    if not codec.ACCELERATED and os.environ.get(codec.PURE_VARIABLE, "0") in ("", "0"):
        pytest.skip("THE COMPILED CODEC IS NOT TESTED: apt-get install gcc libc6-dev python3-dev, repeat pip install")
    return codec.compiled_codec()


class Recorder:
    """A session with a handler, a sink and a clock that record, in order, all that it does.

    events: ``("text", text)``, ``("binary", data)``, ``("piece", data, opcode, final)``, ``("ping", payload)``,
        ``("pong", payload)``, ``("returned", value)``, ``("raised", exception)``, ``("ended",)``.
    writes: the writes to the sink: data frames with 0, control frames with their opcode.
    react: called with this recorder and each event of a hook; the hook returns its result, or raises its exception.
    fails: as `WebSocketProtocol` does, a hook that raised fails the session with 1011.
    turns: how many turns of the reactor the session asked for; `feed` gives them.
    tick: seconds that pass whenever the session asks for the time.
    """

    def __init__(
        self,
        server: bool = True,
        limits: Limits | None = None,
        react: Callable[[Recorder, Event], Any] | None = None,
        *,
        text: bool = True,
        binary: bool = True,
        streaming: bool = False,
        fails: bool = True,
        on: codec.Codec = codec.IN_USE,
    ) -> None:
        self.server = server
        self.react = react
        self.fails = fails
        self.events: list[Event] = []
        self.writes: list[tuple[int, bytes]] = []
        self.free = True
        self.at_once: Callable[[bytes], int] | None = None
        self.time = 0.0
        self.times_asked = 0
        self.turns = 0
        self.awaited: list[int] = []
        self.tick = 0.0
        self._turn_awaited = False
        self.session = Session(server, self, self, self.now, limits or Limits(), codec=on)
        self.session.deliver_to(
            (lambda message: self.note("text", message)) if text else None,
            (lambda message: self.note("binary", message)) if binary else None,
        )
        if streaming:
            self.session.stream_to(lambda data, opcode, final: self.note("piece", data, opcode, final))

    def note(self, *event: Any) -> Any:
        self.events.append(event)
        return self.react(self, event) if self.react is not None else None

    def now(self) -> float:
        self.times_asked += 1
        self.time += self.tick
        return self.time

    # Sink.

    def write(self, data: bytes | LongFrame) -> None:
        self.writes.append((0, bytes(data)))

    def admits(self, size: int) -> bool:
        return True

    def hold(self, size: int) -> None:
        pass

    def admits_part(self, size: int) -> None:
        pass

    def write_admitted(self, data: bytes | LongFrame) -> None:
        self.write(data)

    def write_rest(self, frame: bytes, gone: int) -> None:
        self.writes.append((-1, frame[gone:]))

    def write_control(self, opcode: int, frame: bytes) -> None:
        self.writes.append((opcode, frame))

    # Handler.

    def clock_was_set(self) -> None:
        raise NotImplementedError

    def payload_awaited(self, size: int) -> None:
        self.awaited.append(size)

    def hook_returned(self, result: Any) -> None:
        self.events.append(("returned", result))

    def hook_failed(self) -> None:
        error = sys.exc_info()[1]
        assert error is not None
        self.events.append(("raised", error))
        if self.fails:
            self.session.fail(error, 1011)

    def control_received(self, opcode: int, payload: bytes) -> None:
        self.note({PING: "ping", PONG: "pong"}[opcode], payload)

    def turn_awaited(self) -> None:
        self.turns += 1
        self._turn_awaited = True

    def session_ended(self) -> None:
        assert self.session.ended
        self.events.append(("ended",))

    # For the tests.

    def feed(self, *chunks: bytes) -> Self:
        for chunk in chunks:
            self.session.feed(chunk)
            self.take_turns()
        return self

    def resume(self) -> None:
        self.session.resume()
        self.take_turns()

    def take_turns(self) -> None:
        """Give the session the turns of the reactor that it asks for."""
        while self._turn_awaited:
            self._turn_awaited = False
            self.session.next_turn()

    def receive(self, *frames: Frame | tuple[Any, ...]) -> Self:
        """Feed frames, in one chunk."""
        return self.feed(to(self.server, *frames))

    @property
    def wire(self) -> bytes:
        return b"".join(data for _, data in self.writes)

    @property
    def sent(self) -> list[Frame]:
        return decode(self.wire, masked=not self.server)

    @property
    def error(self) -> type[BaseException] | None:
        return None if self.session.closing.error is None else type(self.session.closing.error)

    @property
    def outcome(self) -> tuple[Any, ...]:
        """All results that must be the same for any cutting of the bytes."""
        reason = self.session.closing.reason()
        closes = (reason.code, reason.reason, reason.clean, reason.began, reason.sent, reason.received)
        return self.events, self.sent, self.error, closes, self.session.ended


class Verdict(NamedTuple):
    """The required results of received bytes: events, frames sent, and any one of ``errors`` if there are some."""

    events: list[Event]
    sent: list[Frame]
    errors: set[type[errors.ProtocolError]]


_CODES_NOT_SENT = (1004, 1005, 1006)


def judge(wire: bytes, server: bool, limits: Limits, text: bool = True, binary: bool = True) -> Verdict:
    """Return the required results of ``wire`` by the rules of RFC 6455, one by one, with all bytes at hand."""
    events: list[Event] = []
    sent: list[Frame] = []
    opcode, message, frames = 0, b"", 0

    def ends(*causes: type[errors.ProtocolError]) -> Verdict:
        assert len({cause.close_code for cause in causes}) == 1
        close = Frame(CLOSE, causes[0].close_code.to_bytes(2, "big"))
        return Verdict([*events, ("ended",)], [*sent, close], set(causes))

    while len(wire) >= 2:
        fin, rsv, kind = wire[0] >= 128, wire[0] >> 4 & 7, wire[0] & 15
        masked, size = wire[1] >= 128, wire[1] & 127
        faults: list[type[errors.ProtocolError]] = []
        if rsv:
            faults.append(errors.BadReservedBits)
        if kind not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            faults.append(errors.BadOpcode)
        if kind >= 8 and not fin:
            faults.append(errors.BadControlFragment)
        if kind >= 8 and size > 125:
            faults.append(errors.BadControlSize)
        if kind == CONTINUATION and not opcode:
            faults.append(errors.BadContinuation)
        if kind in (TEXT, BINARY) and opcode:
            faults.append(errors.BadDataFrame)
        if masked != server:
            faults.append(errors.BadUnmaskedFrame if server else errors.BadMaskedFrame)
        if faults:
            return ends(*faults)
        at = {126: 4, 127: 10}.get(size, 2)
        if len(wire) < at:
            break
        if at > 2:
            size = int.from_bytes(wire[2:at], "big")
            if size < 126 or (at == 10 and size < 65536) or size >= 1 << 63:
                return ends(errors.BadSize)
        key = wire[at : at + 4] if masked else bytes(4)
        at += 4 if masked else 0
        if len(wire) < at:
            break
        payload, whole = xor(wire[at : at + size], key), len(wire) >= at + size
        wire = wire[at + size :]
        if kind >= 8:
            if not whole:
                break
            if kind == CLOSE:
                if not payload:
                    sent.append(Frame(CLOSE, (1000).to_bytes(2, "big")))
                    return Verdict([*events, ("ended",)], sent, set())
                if len(payload) == 1:
                    return ends(errors.BadCloseSize)
                code = payload[0] * 256 + payload[1]
                if not (1000 <= code <= 1014 or 3000 <= code <= 4999) or code in _CODES_NOT_SENT:
                    return ends(errors.BadCloseCode)
                if first_bad_octet(payload[2:]) is not None:
                    return ends(errors.BadClosePayload)
                sent.append(Frame(CLOSE, payload[:2]))
                return Verdict([*events, ("ended",)], sent, set())
            if kind == PING:
                sent.append(Frame(PONG, payload))
            events.append(("ping" if kind == PING else "pong", payload))
            continue
        if kind:
            opcode, message, frames = kind, b"", 0
        frames += 1
        if limits.max_message_size is not None and len(message) + size > limits.max_message_size:
            return ends(errors.MessageTooBig)
        if limits.max_frame_size is not None and size > limits.max_frame_size:
            return ends(errors.MessageTooBig)
        if not (text if opcode == TEXT else binary):
            return ends(errors.UnacceptableData)
        if limits.max_fragments is not None and frames > limits.max_fragments:
            return ends(errors.TooManyFragments)
        message += payload
        final = fin and whole
        if opcode == TEXT:
            bad = first_bad_octet(message)
            if bad is not None and (bad < len(message) or final):
                return ends(errors.BadFramePayload)
        if final:
            events.append(("text", message.decode()) if opcode == TEXT else ("binary", message))
            opcode = 0
    return Verdict(events, sent, set())
