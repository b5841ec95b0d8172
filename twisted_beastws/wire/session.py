"""`Session`: a WebSocket connection after its upgrade (RFC 6455 §5-§8), in both roles.

A session wires the parts together and performs the closing handshake. It knows no reactor, transport or clock: bytes
go into `Session.feed`, frames leave through a sink, and a handler gets the events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted_beastws.errors import ConnectionClosed, LocalError, ProtocolError
from twisted_beastws.options import Limits
from twisted_beastws.wire.assembler import FragmentHook, MessageAssembler
from twisted_beastws.wire.closing import Close, CloseCode, ClosingHandshake, close_payload, parse_close
from twisted_beastws.wire.codec import IN_USE, Codec
from twisted_beastws.wire.deflate import PerMessageDeflate
from twisted_beastws.wire.deflating import DeflatingSender
from twisted_beastws.wire.frames import FIN, PAUSED, STOPPED, UNLIMITED, Opcode
from twisted_beastws.wire.inflation import Inflation
from twisted_beastws.wire.reader import ReaderEvents
from twisted_beastws.wire.sender import MessageSender, Sender, as_bytes
from twisted_beastws.wire.writer import Sink


class Handler(ReaderEvents, Protocol):
    """The connection that a session reports to."""

    def control_received(self, opcode: int, payload: bytes) -> None:
        """A pong arrived, or a ping, which is answered already."""

    def session_ended(self) -> None:
        """No frame will be sent or read any more: close the transport. Called once."""


class HookWrapper(Protocol):
    """Wraps the hooks that get messages, to count or to limit them."""

    def text_hook(self, hook: Callable[[str], Any]) -> Callable[[str], Any]:
        """Return the hook for text messages to use in place of ``hook``."""

    def binary_hook(self, hook: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        """Return the hook for binary messages to use in place of ``hook``."""

    def fragment_hook(self, hook: FragmentHook) -> FragmentHook:
        """Return the hook for pieces of messages to use in place of ``hook``."""


class Session:
    """One end of an open connection.

    Attributes:
        handler: Gets the events.
        reader: Reads frames.
        writer: Writes frames.
        assembler: Puts fragmented messages together.
        sender: Sends messages.
        closing: The closing handshake so far.
        feed: Takes a chunk as it was received; see `FrameReader.feed`.
        count_control: If set, this is called before each control frame is handled, and may fail the session.
    """

    __slots__ = (
        "__weakref__",
        "_messages",
        "_wrappers",
        "assembler",
        "closing",
        "count_control",
        "feed",
        "handler",
        "reader",
        "sender",
        "writer",
    )

    def __init__(
        self,
        server: bool,
        handler: Handler,
        sink: Sink,
        now: Callable[[], float],
        limits: Limits,
        deflate: PerMessageDeflate | None = None,
        codec: Codec = IN_USE,
    ) -> None:
        self.handler = handler
        self.closing = ClosingHandshake()
        self.count_control: Callable[[], object] | None = None
        self._wrappers: tuple[HookWrapper, ...] = ()
        writer = self.writer = codec.writer(server, sink)
        budget = codec.budget(now)
        reader = self.reader = codec.reader(writer, handler, now, budget)
        reader.handler = self
        self.assembler = MessageAssembler(reader)
        self.set_limits(limits)
        self._messages = writer.backlog = MessageSender(writer, self.closing, self)
        if deflate is None:
            reader.payloads = self.assembler
            self.sender: Sender = self._messages
        else:
            reader.accepts_rsv1 = True
            reader.payloads = Inflation(self.assembler, deflate)
            self.sender = DeflatingSender(writer, self._messages, deflate, limits.slow_reader == "drop")
        self.feed: Callable[[bytes], None] = reader.feed

    def set_limits(self, limits: Limits) -> None:
        """Use these limits from the next frame on. Rates cannot change."""
        numbers = _numbers_of(limits)
        reader = self.reader
        self.writer.fragment_size, reader.max_message_size, reader.max_frame_size = numbers[:3]
        self.assembler.max_fragments = numbers[3]
        reader.budget.set(numbers[4], limits.max_seconds_per_turn)

    # Receiving.

    @property
    def is_read_directly(self) -> bool:
        """Whether ``feed`` is the reader's own: no limit on the rate and no trace needs the bytes."""
        return self.feed == self.reader.feed

    def wrap_hooks(self, wrapper: HookWrapper) -> None:
        """Make ``wrapper`` wrap the hooks that are set from now on, around earlier wrappers."""
        self._wrappers += (wrapper,)

    def deliver_to(self, on_text: Callable[[str], Any] | None, on_binary: Callable[[bytes], Any] | None) -> None:
        """Deliver messages to these hooks. A kind of message without a hook is refused."""
        for wrapper in self._wrappers:
            on_text = on_text and wrapper.text_hook(on_text)
            on_binary = on_binary and wrapper.binary_hook(on_binary)
        self.reader.on_text, self.reader.on_binary = on_text, on_binary

    def stream_to(self, on_fragment: FragmentHook) -> None:
        """Deliver the pieces of messages as they arrive, ungathered; only the lengths of frames are limited then."""
        for wrapper in self._wrappers:
            on_fragment = wrapper.fragment_hook(on_fragment)
        self.assembler.stream_to(on_fragment)

    @property
    def streams(self) -> bool:
        """Whether messages are delivered in pieces."""
        return self.assembler.on_fragment is not None

    @property
    def received_size(self) -> int:
        """The most bytes of memory of received data that the application has not received."""
        return self.reader.unparsed_size + self.assembler.size

    @property
    def paused(self) -> bool:
        """Nothing is delivered for now."""
        return self.reader.halted == PAUSED or self.reader.budget.spent

    @property
    def held(self) -> bool:
        """The application has paused the session."""
        return self.reader.halted == PAUSED

    @property
    def spent(self) -> bool:
        """The budget of this turn of the reactor is spent, and a part of the chunk waits for the next."""
        return self.reader.budget.spent

    def pause(self) -> None:
        """Deliver nothing until `resume`, and keep the bytes that are fed meanwhile. Once closing it does nothing."""
        if not self.assembler.discarding:
            self.reader.pause()

    def resume(self) -> None:
        """Deliver messages again."""
        self.reader.resume()

    def next_turn(self) -> None:
        """Continue in a new turn of the reactor."""
        self.reader.next_turn()

    # The reader calls these.

    def control_received(self, opcode: int, payload: bytes) -> None:
        """Answer a ping, or the peer's close frame."""
        if self.count_control is not None:
            self.count_control()
        # RFC 6455 §1.4: bytes after the peer's close frame are discarded.
        if self.closing.received is not None or self.ended:
            return
        if opcode == Opcode.CLOSE:
            self.close_received(parse_close(payload))
            return
        # As in Beast, no pong follows our close frame, although RFC 6455 §5.5.2 asks for one until the peer's.
        if opcode == Opcode.PING and self.closing.sent is None:
            self.writer.emit(FIN | Opcode.PONG, payload)
        self.handler.control_received(opcode, payload)

    def close_received(self, close: Close) -> None:
        """Answer the peer's close frame (RFC 6455 §5.5.1), if it was not an answer to ours, and end."""
        self.closing.received = close
        if self.closing.sent is None:
            self.closing.began = "peer"
            self.send_close(self.closing.echo)
        self.end()

    # Control frames.

    def ping(self, payload: bytes = b"") -> None:
        """Send a ping.

        Raises:
            LocalError: The payload has more than 125 bytes.
            ConnectionClosed: A close frame was sent.
        """
        self._send_control(Opcode.PING, payload)

    def pong(self, payload: bytes = b"") -> None:
        """Send an unsolicited pong (RFC 6455 §5.5.3). Raises as `ping`."""
        self._send_control(Opcode.PONG, payload)

    def _send_control(self, opcode: Opcode, payload: bytes) -> None:
        payload = as_bytes(payload, f"{opcode.name.lower()}() takes bytes")
        if len(payload) > 125:
            raise LocalError(f"{opcode.name.lower()} of {len(payload)} bytes: at most 125 fit (RFC 6455 §5.5)")
        if self.writer.closed:
            raise ConnectionClosed(self.closing.reason())
        self.writer.emit(FIN | opcode, payload)

    # Closing.

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Begin the closing handshake (RFC 6455 §7.1.2). Calling it again does nothing.

        Raises:
            LocalError: A close frame may not carry ``code``.
        """
        payload = close_payload(code, reason)
        if self.closing.sent is None and not self.ended:
            self.closing.began = "local"
            self._emit_close(code, payload)

    def fail(self, error: BaseException, code: int | None = None, reason: str = "") -> None:
        """Fail the connection (RFC 6455 §7.1.7): send a close frame that says why, and end the session."""
        if self.ended:
            return
        # Sending a close frame resumes a paused session, which may then find more faults: the first counts.
        if self.closing.error is None:
            self.closing.error = error
        if self.closing.sent is None:
            self.closing.began = "local"
            if code is None:
                code = error.close_code if isinstance(error, ProtocolError) else CloseCode.INTERNAL_ERROR
            self.send_close(code, reason)
        self.end()

    def lost(self, error: BaseException | None = None) -> None:
        """The transport is gone: end the session without a close frame."""
        if self.closing.error is None and not self.closing.clean:
            self.closing.error = error
        self.end()

    def send_close(self, code: int, reason: str = "") -> None:
        """Send a close frame. No frame follows it, and received data is discarded from now on."""
        self._emit_close(code, close_payload(code, reason))

    def _emit_close(self, code: int, payload: bytes) -> None:
        self.writer.close()
        self.assembler.discard()
        self._messages.discard_held()
        self.closing.sent = Close(int(code), payload[2:].decode())
        self.writer.emit(FIN | Opcode.CLOSE, payload)
        # Data is discarded from now on. Continue to read, so that the peer's close frame is found.
        self.reader.resume()

    def end(self) -> None:
        """Send and read no more frames."""
        if not self.ended:
            self.reader.stop()
            self.writer.close()
            self.assembler.discard()
            self._messages.discard_held()
            if self.writer.gathered_size:
                self.writer.flush()
            self.handler.session_ended()

    @property
    def ended(self) -> bool:
        """No frame will be sent or read any more."""
        return self.reader.halted == STOPPED

    def forget(self) -> None:
        """Drop the references to the application, so that no cycle keeps the connection alive after its end."""
        self.reader.detach()
        self._messages.detach()
        self.assembler.on_fragment = self.count_control = None
        self._wrappers = ()
        del self.feed


def _numbers_of(limits: Limits) -> Sequence[int]:
    """Return the limits that the codec takes, as numbers. Nearly all sessions of a process share one `Limits`."""
    global _latest
    latest, numbers = _latest
    if latest is not limits:
        given = (
            *(limits.fragment_size, limits.max_message_size, limits.max_frame_size, limits.max_fragments),
            limits.max_messages_per_turn,
        )
        numbers = [UNLIMITED if limit is None else min(limit, UNLIMITED) for limit in given]
        _latest = limits, numbers
    return numbers


_latest: tuple[Limits | None, Sequence[int]] = None, ()
