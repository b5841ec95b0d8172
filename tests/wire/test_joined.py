"""A client and a server that speak with each other: for any actions and any cutting of their bytes, both have the
same view."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import product
from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from twisted_beastws.errors import BufferFull, ConnectionClosed, LocalError
from twisted_beastws.options import Deflate, Limits
from twisted_beastws.wire.closing import Close
from twisted_beastws.wire.codec import PURE, Codec
from twisted_beastws.wire.deflate import PerMessageDeflate, accept_offer, check_answer, offer
from twisted_beastws.wire.frames import FIN_BINARY, FIN_TEXT, LongFrame
from twisted_beastws.wire.prepared import prepare
from twisted_beastws.wire.session import Session

from . import peer
from .peer import BINARY, PING, TEXT, Event

FREE, WAITING, FULL = "free", "waiting", "full"
CLOSING, ENDED = ("closing",), ("ended",)
NOISE = random.Random(0).randbytes(140_000)
SMILES = "a\u00e4\u20ac\U0001f600"


def made(kind: str, size: int) -> str | bytes:
    """A message of so many bytes, or nearly so. Two of a kind have a beginning in common."""
    return SMILES * (size // 10) if kind == "text" else NOISE[:size] if kind == "noise" else bytes(size)


class End(peer.Recorder):
    """One end, which writes into the queue of the other, and keeps the events that the other must have.

    room: of the sink: it is empty; something waits in it; it takes no more data frames, and a message is dropped.
    """

    other: End

    def __init__(
        self, on: Codec, server: bool, limits: Limits, deflate: PerMessageDeflate | None, streaming: bool
    ) -> None:
        super().__init__(
            server, limits, cast(Callable[[peer.Recorder, Event], None], type(self).answer), streaming=streaming
        )
        plain = self.session
        self.session = Session(server, self, self, self.now, limits, deflate, on)
        self.session.deliver_to(plain.reader.on_text, plain.reader.on_binary)
        if plain.assembler.on_fragment is not None:
            self.session.stream_to(plain.assembler.on_fragment)
        self.queue = bytearray()
        self.said: list[Event] = []
        self.held: list[Event] = []
        self.opcode = 0
        self.parts = b""
        self.room = FREE
        self.refused = 0
        self.gone = False

    # The sink.

    def write(self, data: bytes | LongFrame) -> None:
        if self.admits(len(data)):
            self.queue += bytes(data)

    def admits(self, size: int) -> bool:
        self.refused += self.room == FULL
        return self.room != FULL

    def hold(self, size: int) -> None:
        pass

    def admits_part(self, size: int) -> None:
        if self.room == FULL:
            raise BufferFull

    def write_admitted(self, data: bytes | LongFrame) -> None:
        self.queue += bytes(data)

    def write_control(self, opcode: int, frame: bytes) -> None:
        self.queue += frame

    def control_received(self, opcode: int, payload: bytes) -> None:
        if opcode == PING and self.session.closing.sent is None:
            self.said.append(("pong", payload))
        super().control_received(opcode, payload)

    def has(self, room: str) -> None:
        self.room, self.free = room, room == FREE

    # Its actions.

    @property
    def over(self) -> bool:
        """It may send nothing any more."""
        return CLOSING in self.events or ENDED in self.events

    def say(self, message: str | bytes, compress: bool | None = None, prepared: bool = False) -> None:
        if self.over:
            with pytest.raises(ConnectionClosed):
                self._send(message, compress, prepared)
            return
        refused = self.refused
        self._send(message, compress, prepared)
        if self.refused == refused:
            event = ("text" if isinstance(message, str) else "binary", message)
            (self.held if self.opcode else self.said).append(event)

    def say_made(self, kind: str, size: int, compress: bool | None) -> None:
        self.say(made(kind, size), compress)

    def say_prepared(self, kind: str, size: int, compress: bool | None) -> None:
        self.say(made(kind, size), compress, prepared=True)

    def _send(self, message: str | bytes, compress: bool | None, prepared: bool) -> None:
        if prepared:
            self.session.sender.send_prepared(prepare(message, compress=compress))
        elif compress is not None:
            first, payload = (FIN_TEXT, message.encode()) if isinstance(message, str) else (FIN_BINARY, message)
            self.session.sender.send_message(first, payload, compress)
        elif isinstance(message, str):
            self.session.sender.send_text(message)
        else:
            self.session.sender.send_binary(message)

    def begin(self, opcode: int, compress: bool | None) -> None:
        if self.over or self.opcode:
            with pytest.raises(ConnectionClosed if self.over else LocalError):
                self.session.sender.begin_message(opcode, compress)
        else:
            self.session.sender.begin_message(opcode, compress)
            self.opcode, self.parts = opcode, b""

    def part(self, size: int) -> None:
        self.write_part(self._made_part(size))

    def write_part(self, part: bytes) -> None:
        if self.over or not self.opcode or self.room == FULL:
            with pytest.raises(ConnectionClosed if self.over else BufferFull if self.opcode else LocalError):
                self.session.sender.write_part(part)
        else:
            self.session.sender.write_part(part)
            self.parts += part

    def end(self, size: int) -> None:
        rest = self._made_part(size)
        if self.over or not self.opcode:
            with pytest.raises(ConnectionClosed if self.over else LocalError):
                self.session.sender.end_message(rest)
            return
        self.session.sender.end_message(rest)
        message = self.parts + rest
        self.said += [("text", message.decode()) if self.opcode == TEXT else ("binary", message), *self.held]
        self.held.clear()
        self.opcode = 0

    def _made_part(self, size: int) -> bytes:
        # Never so much that the parts together are too big a message.
        size = min(size, 500_000 - len(self.parts)) if self.opcode else 0
        return SMILES.encode() * (size // 10) if self.opcode == TEXT else NOISE[:size]

    def stream(self, opcode: int, compress: bool | None, steps: list[str]) -> None:
        self.begin(opcode, compress)
        for number, step in enumerate(steps):
            if step == "part":
                self.part(30)
            elif step == "say":
                self.say(f"again and again {number}", compress)
            elif step == "prepared":
                self.say_prepared("text", 60, compress)
            else:
                self.control("ping", b"%d" % number)
        self.end(30)

    def lose(self, at: int) -> None:
        """Return the messages that the sink drops, and those that refer to them."""
        for room in (FULL, FREE):
            self.has(room)
            self.say(NOISE[at : at + 100])

    def pause(self) -> None:
        self.session.pause()

    def control(self, kind: str, payload: bytes) -> None:
        send = self.session.ping if kind == "ping" else self.session.pong
        if self.over:
            with pytest.raises(ConnectionClosed):
                send(payload)
        else:
            send(payload)
            self.said.append((kind, payload))

    def close(self, code: int, reason: str) -> None:
        self._closing()
        self.session.close(code, reason)

    def fail(self) -> None:
        self._closing()
        self.gone = True
        self.session.fail(RuntimeError("a fault of ours"))

    def lose_transport(self) -> None:
        self.gone = True
        self.queue.clear()
        self.session.lost(ConnectionError())

    def _closing(self) -> None:
        if not self.over:
            self.events.append(CLOSING)

    def answer(self, event: Event) -> None:
        """In a hook: do as the message says."""
        told = event[1] if event[0] == "text" else ""
        if told.startswith("?"):
            self.say("!" + told[1:])
            self.say(told[1:].encode(), True)
        elif told == "pause":
            self.session.pause()
        elif told == "ping":
            self.control("ping", b"from a hook")
            self.say(NOISE[:65_536])
        elif told == "stream" and not self.opcode:
            self.begin(BINARY, None)
            self.say("behind it")
            self.end(30)
        elif told == "close":
            self.close(4000, "as told")
        elif told == "fail":
            self._closing()
            self.gone = True
            raise RuntimeError("as told")

    def take(self, size: int) -> None:
        """Read at most ``size`` bytes that the other end wrote."""
        queue = self.other.queue
        chunk = bytes(queue[:size])
        del queue[:size]
        self.feed(chunk)

    # Its events.

    @property
    def told(self) -> list[Event]:
        whole: list[Event] = []
        gathered = b""
        for event in self.events:
            if event[0] == "piece":
                gathered += event[1]
                if not event[3]:
                    continue
                event = ("text", gathered.decode()) if event[2] == TEXT else ("binary", gathered)
                gathered = b""
            whole.append(event)
        return whole

    def check_told(self, said: list[Event]) -> bool:
        """Return whether it has all events of the other; fail if it has others."""
        told = [event for event in self.told if event[0] != "raised"]
        open_for = min(told.index(event) if event in told else len(told) for event in (CLOSING, ENDED))
        assert told[:open_for] == said[:open_for]
        # RFC 6455 §5.5.1: after its own close frame a side delivers no message; it still delivers pings and pongs.
        controls = [event for event in said[open_for:] if event[0] in ("ping", "pong")]
        rest = [event for event in told[open_for:] if event != CLOSING]
        if ENDED in rest:
            assert rest.index(ENDED) == len(rest) - 1
            rest.pop()
        assert rest == controls[: len(rest)]
        return open_for == len(said)


def options(data: st.DataObject) -> Deflate | None:
    if data.draw(st.booleans(), "without compression"):
        return None
    return data.draw(
        st.builds(
            Deflate,
            st.sampled_from([15, 9]),
            st.sampled_from([15, 9]),
            st.booleans(),
            st.booleans(),
            level=st.sampled_from([1, 8]),
            mem_level=st.sampled_from([1, 9]),
            threshold=st.sampled_from([0, 20]),
        )
    )


SIZES = [0, 1, 30, 125, 126, 5000, 65_535, 65_536, 140_000]
COMPRESS = [None, True, False]
# Few choices a step leave Hypothesis many steps.
ACTIONS = st.one_of(
    st.sampled_from([("say", command) for command in ("?", f"?{SMILES}", "ping", "stream", "pause")]),
    st.sampled_from(
        [*product(("say_made", "say_made", "say_prepared"), ("text", "noise", "zeros"), SIZES, COMPRESS)],
    ),
    st.sampled_from(
        [
            *(("control", *sent) for sent in product(("ping", "pong"), (b"", b"p" * 125))),
            *(("begin", *begun) for begun in product((TEXT, BINARY), COMPRESS)),
            *product(("part", "end"), SIZES),
            *(("has", room) for room in (FREE, WAITING, FULL)),
            ("pause",),
            ("resume",),
        ]
    ),
    st.tuples(
        st.just("stream"),
        st.sampled_from([TEXT, BINARY]),
        st.sampled_from(COMPRESS),
        st.lists(st.sampled_from(["part", "say", "prepared", "ping"]), max_size=6),
    ),
    st.tuples(st.just("lose"), st.integers(0, 100_000)),
    st.tuples(st.just("say"), st.text(max_size=20) | st.binary(max_size=20)),
)
# How many bytes each end in turn is then fed.
DELIVERIES = st.lists(st.sampled_from([0, 1, 2, 7, 20, 100, 5000, 65_536, 1 << 30]), max_size=6)


class Joined(RuleBasedStateMachine):
    """Two sessions and the bytes between them."""

    on: Codec
    server: End
    client: End

    @initialize(
        data=st.data(),
        streaming=st.tuples(st.booleans(), st.booleans()),
        fragment_size=st.sampled_from([None, 100, 1 << 16]),
        budget=st.sampled_from([None, 1, 2, 100]),
    )
    def join(
        self, data: st.DataObject, streaming: tuple[bool, bool], fragment_size: int | None, budget: int | None
    ) -> None:
        limits = Limits(fragment_size=fragment_size, slow_reader="drop", max_messages_per_turn=budget)
        chosen = options(data)
        codecs: tuple[PerMessageDeflate | None, PerMessageDeflate | None] = (None, None)
        if chosen is not None:
            accepted = accept_offer([offer(chosen).encode()], chosen)
            assert accepted is not None
            agreed = check_answer([accepted.answer.encode()], chosen)
            assert agreed is not None
            codecs = PerMessageDeflate(accepted, chosen, True), PerMessageDeflate(agreed, chosen, False)
        self.server = End(self.on, True, limits, codecs[0], streaming[0])
        self.client = End(self.on, False, limits, codecs[1], streaming[1])
        self.server.other, self.client.other = self.client, self.server
        self.both = (self.server, self.client)
        self.steps = 0

    @rule(
        served=st.lists(ACTIONS, max_size=3),
        asked=st.lists(ACTIONS, max_size=3),
        deliveries=DELIVERIES,
    )
    def act(self, served: list[Any], asked: list[Any], deliveries: list[int]) -> None:
        for end, actions in zip(self.both, (served, asked), strict=True):
            for kind, *details in actions:
                getattr(end, kind)(*details)
        for end, size in zip(self.both * 3, deliveries, strict=False):
            end.take(size)

    @precondition(lambda self: self.steps > 8)
    @rule(
        server=st.booleans(),
        how=st.sampled_from(["close", "close", "close", "as told", "fail", "fail as told", "cut"]),
        code=st.sampled_from([1000, 1001, 1005, 1013, 3000, 4999]),
        reason=st.sampled_from(["", "because", "\u20ac" * 60]),
    )
    def finish(self, server: bool, how: str, code: int, reason: str) -> None:
        end = self.server if server else self.client
        if how == "close":
            end.close(code, reason)
        elif how == "as told":
            end.say("close")
        elif how == "fail as told":
            end.say("fail")
        elif how == "fail":
            end.fail()
        else:
            for end in self.both:
                end.lose_transport()

    @invariant()
    def views_agree(self) -> None:
        self.steps += 1
        for end in self.both:
            end.check_told(end.other.said)
            self.check_reason(end)

    def check_reason(self, end: End) -> None:
        reason, theirs = end.session.closing.reason(), end.other.session.closing.reason()
        assert end.session.closing.error is None or end.gone, end.session.closing.error
        assert end.session.ended is (ENDED in end.events)
        assert (reason.began == "local") is (CLOSING in end.events)
        assert reason.clean is (reason.sent is not None and reason.received is not None)
        if reason.received is not None:
            assert end.session.ended
            assert (reason.code, reason.reason) == reason.received == theirs.sent
        if reason.began == "peer":
            # RFC 6455 §5.5.1: the answer has the same code.
            assert reason.received is not None and theirs.began == "local"
            assert reason.sent == Close(1000 if reason.received.code == 1005 else reason.received.code)
        assert end.gone or (reason.sent is not None) is end.over

    def teardown(self) -> None:
        if not hasattr(self, "both"):
            return
        self.deliver_all()
        for end in self.both:
            complete = end.check_told(end.other.said)
            assert complete or end.over
        self.server.close(1000, "the end")
        self.deliver_all()
        for end in self.both:
            end.check_told(end.other.said)
            self.check_reason(end)
            assert end.session.ended or end.other.gone
            if not end.gone and not end.other.gone:
                assert end.session.closing.clean

    def deliver_all(self) -> None:
        # A hook may pause, and its answer is answered once at most.
        for _ in range(1000):
            if not any(end.queue or end.session.paused for end in self.both):
                return
            for end in self.both:
                end.take(1 << 30)
                end.resume()
        raise AssertionError("they never come to an end")


@pytest.mark.parametrize("kind", ["pure", "compiled"])
def test_two_joined_sessions_and_their_model_have_the_same_view(kind: str) -> None:
    on = PURE if kind == "pure" else peer.compiled_codec()
    machine = type("Machine", (Joined,), {"on": on})
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=120, stateful_step_count=20),
    )
