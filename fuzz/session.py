"""Fuzz a session: any bytes in any chunks, between any calls. Both codecs must act alike and send valid frames."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from engine import instrumented, run

with instrumented():
    from twisted_beastws.errors import BadDeflate, BadFramePayload, BufferFull, ConnectionClosed, LocalError
    from twisted_beastws.options import Deflate, Limits
    from twisted_beastws.wire import frames
    from twisted_beastws.wire.codec import PURE, Codec, compiled_codec
    from twisted_beastws.wire.deflate import Negotiated, PerMessageDeflate
    from twisted_beastws.wire.prepared import prepare
    from twisted_beastws.wire.session import Session

KEY = b"\x01\x82\x43\xc4"
SIZES = (1, 16, 150, 70_000)
BAD_TEXT, BAD_DATA = repr(BadFramePayload()), repr(BadDeflate())
PAUSE, STALL, RAISE = 22, 29, 30
REFUSALS = (BufferFull, ConnectionClosed, LocalError)


class Source:
    """Make choices from bytes; when no byte is left, every choice is the first one."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def number(self, count: int) -> int:
        """Return a number below ``count``, which is at most 256."""
        return (self.octets(1) or b"\0")[0] % count

    def octets(self, size: int) -> bytes:
        self._at += size
        return self._data[self._at - size : self._at]


class Plan:
    """One run: the parameters of a connection, and the steps to take on it."""

    def __init__(self, data: bytes) -> None:
        source = Source(data)
        flags = source.number(256)
        self.server = bool(flags & 1)
        self.deflating = bool(flags & 2)
        self.streaming = flags & 12 == 4
        self.text, self.binary = flags & 48 != 16, flags & 48 != 32
        self.alone = bool(flags & 64)
        self.bits = 9 if flags & 128 else 15
        sizes = source.number(256)
        self.limits = Limits(
            max_message_size=SIZES[sizes & 3],
            max_fragments=1 + (sizes >> 2 & 3),
            fragment_size=None,
            slow_reader="drop" if sizes & 32 else "close",
            max_messages_per_turn=(None, 1, 2, 5)[sizes >> 6],
        )
        # `Limits` rejects some combinations of sizes, so the fragment size is set on the writer.
        self.fragment_size = SIZES[sizes >> 4 & 3]
        self.reactions = [source.number(32) for _ in range(source.number(8))]
        self.steps = list(self._steps(source))

    def _steps(self, source: Source) -> Iterator[tuple[int, bytes]]:
        compressor = zlib.compressobj(wbits=-9)
        while source:
            step = source.number(32)
            if step < 12:
                step, payload = 0, source.octets(source.number(256) + 1)
            elif step < 19:
                # A frame that may be valid; every other frame with RSV1 has a compressed payload.
                first, size = source.number(256), source.number(256)
                payload = source.octets(size & 127) * (600 if size == 255 else 1)
                if first & 0x40 and size & 1:
                    payload = (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
                step, payload = 0, frames.encode_frame(first, payload, KEY if self.server else None)
                cut = source.number(256)
                if cut < len(payload):
                    yield 0, payload[:cut]
                    payload = payload[cut:]
            else:
                payload = source.octets(source.number(8))
            yield step, payload

    @property
    def may_be_cut_elsewhere(self) -> bool:
        """Whether the outcome depends on the bytes alone, not on how they are cut into chunks."""
        return not self.streaming and not any(step for step, _ in self.steps) and not {PAUSE, STALL} & {*self.reactions}

    @property
    def wire(self) -> bytes:
        return b"".join(payload for step, payload in self.steps if not step)


class Connection:
    """A session, and its handler and sink, which record every event and every write."""

    free = True
    at_once = None
    depth = 0

    def __init__(self, on: Codec, plan: Plan, server: bool, limits: Limits, reactions: list[int]) -> None:
        self.events: list[Any] = []
        self.writes: list[tuple[int, bytes]] = []
        self.reactions = iter(reactions)
        self.turn_is_awaited = False
        deflate = None
        if plan.deflating:
            agreed = Negotiated("", plan.bits, plan.bits, plan.alone, plan.alone)
            deflate = PerMessageDeflate(agreed, Deflate(threshold=3, level=1, mem_level=1), server)
        self.session = Session(server, self, self, lambda: 0.0, limits, deflate, on)
        if plan.fragment_size is not None:
            self.session.writer.fragment_size = plan.fragment_size

    def hold(self, size: int) -> None:
        """Do nothing: this sink has no limit of memory."""

    def receive_as(self, plan: Plan) -> None:
        self.session.deliver_to(
            (lambda text: self.note("text", text)) if plan.text else None,
            (lambda data: self.note("binary", data)) if plan.binary else None,
        )
        if plan.streaming:
            self.session.stream_to(lambda data, opcode, final: self.note("piece", data, opcode, final))

    def note(self, *event: Any) -> Any:
        assert ("ended",) not in self.events, f"{event} behind the end"
        self.events.append(event)
        if self.depth < 3:
            self.depth += 1
            try:
                return self.do(next(self.reactions, 0), b"hook")
            finally:
                self.depth -= 1

    def do(self, step: int, payload: bytes) -> Any:
        """Take a step other than feeding bytes."""
        session = self.session
        text = payload.decode("latin-1")
        actions: dict[int, Callable[[], Any]] = {
            19: lambda: session.sender.send_prepared(prepare(text)),
            20: lambda: session.sender.send_text(text * 30),
            21: lambda: session.sender.send_binary(payload),
            PAUSE: session.pause,
            23: session.resume,
            24: lambda: session.sender.begin_message(len(payload) % 2 + 1),
            25: lambda: session.sender.write_part(text.encode()),
            26: session.sender.end_message,
            27: lambda: session.ping(payload * 18),
            28: lambda: session.close(1000 + len(payload), text),
            STALL: lambda: setattr(self, "free", not self.free),
            RAISE: lambda: session.fail(RuntimeError("a step")) if payload == b"fail" else 1 / 0,
            31: lambda: "a result",
        }
        try:
            return actions.get(step, lambda: None)()
        except REFUSALS as error:
            self.events.append((type(error), str(error)))

    def run(self, steps: list[tuple[int, bytes]]) -> Connection:
        for step, payload in steps:
            if not step:
                self.session.feed(payload)
            elif step != RAISE or payload == b"fail":
                self.do(step, payload)
            while self.turn_is_awaited:
                self.turn_is_awaited = False
                self.session.next_turn()
        return self

    # Sink.

    def write(self, data: bytes | frames.LongFrame) -> None:
        self.writes.append((0, bytes(data)))

    def admits(self, size: int, held: int = 0) -> bool:
        return size + held < 500

    def admits_part(self, size: int) -> None:
        if size > 6:
            raise BufferFull

    def write_admitted(self, data: bytes | frames.LongFrame) -> None:
        self.write(data)

    def write_control(self, opcode: int, frame: bytes) -> None:
        self.writes.append((opcode, frame))

    # Handler.

    def hook_returned(self, result: Any) -> None:
        self.events.append(("returned", result))

    def hook_failed(self) -> None:
        error = sys.exc_info()[1]
        assert isinstance(error, ZeroDivisionError), error
        self.events.append(("raised", str(error)))
        self.session.fail(error, 1011)

    def control_received(self, opcode: int, payload: bytes) -> None:
        try:
            self.note(opcode, payload)
        except ZeroDivisionError:
            self.hook_failed()

    def payload_awaited(self, size: int) -> None:
        """A long payload is arriving."""

    def turn_awaited(self) -> None:
        self.turn_is_awaited = True

    def session_ended(self) -> None:
        self.events.append(("ended",))

    # For the comparison.

    @property
    def wire(self) -> bytes:
        return b"".join(data for _, data in self.writes)

    @property
    def state(self) -> tuple[Any, ...]:
        session = self.session
        reason = session.closing.reason()
        closes = (reason.code, reason.reason, reason.clean, reason.began, reason.sent, reason.received)
        return self.events, repr(session.closing.error), closes, session.ended, session.paused, session.writer.sendable

    @property
    def outcome(self) -> tuple[Any, ...]:
        """The state that must not depend on how the bytes are cut into chunks.

        Within a chunk, zlib reports invalid data before the codec decodes the preceding text, so bad text counts as
        bad data.
        """
        events, error, *rest = self.state
        return events, error.replace(BAD_TEXT, BAD_DATA), *rest


def check(data: bytes) -> None:
    """Run the plan that ``data`` encodes on both codecs, and compare the results."""
    plan = Plan(data)
    ours, pure = (_run(on, plan, plan.steps) for on in (COMPILED, PURE))
    assert ours.state == pure.state, (ours.state, pure.state)
    assert ours.writes == pure.writes, (ours.writes, pure.writes)
    if plan.may_be_cut_elsewhere:
        for on in (COMPILED, PURE):
            whole = _run(on, plan, [(0, plan.wire)])
            assert (whole.outcome, whole.wire) == (ours.outcome, ours.wire), (whole.outcome, ours.outcome)
    peer = Connection(PURE, plan, not plan.server, Limits(max_message_size=None, max_fragments=None), [])
    peer.receive_as(Plan(b""))
    peer.run([(0, ours.wire)])
    assert peer.session.closing.error is None, peer.session.closing.error
    assert peer.session.closing.received == ours.session.closing.sent


def _run(on: Codec, plan: Plan, steps: list[tuple[int, bytes]]) -> Connection:
    connection = Connection(on, plan, plan.server, plan.limits, plan.reactions)
    connection.receive_as(plan)
    return connection.run(steps)


frames.MaskKeys.next = lambda self: KEY  # type: ignore[method-assign]
COMPILED = compiled_codec()

if __name__ == "__main__":
    run(check)
