"""A WebSocket connection after its upgrade (RFC 6455 §5-§8), both roles: messages, fragments, control frames, closing.

Octets go into `Session.feed`, frames come out at its sink, and what happens is told to its handler: no reactor, no
transport, no clock.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from sys import getsizeof
from typing import Any, Literal, Protocol

from twisted_beastws.errors import (
    BadFramePayload,
    ConnectionClosed,
    LocalError,
    MessageTooBig,
    ProtocolError,
    TooManyFragments,
    UnacceptableData,
)
from twisted_beastws.options import Limits
from twisted_beastws.wire.closing import Close, CloseCode, CloseReason, close_payload, parse_close
from twisted_beastws.wire.codec import FrameCodec
from twisted_beastws.wire.deflate import PerMessageDeflate
from twisted_beastws.wire.frames import (
    FIN,
    FIN_BINARY,
    FIN_TEXT,
    PAUSED,
    RSV1,
    RUNNING,
    STOPPED,
    UNLIMITED,
    Opcode,
    Sink,
    decode_text,
)
from twisted_beastws.wire.prepared import Prepared, forgotten

HELD_OVERHEAD = 160
"""Bytes of memory that a held message takes beyond its payload: its object, its tuple, and the list's slot."""

_utf8_decoder = codecs.getincrementaldecoder("utf-8")


class Handler(Protocol):
    """Who is told what happens on a session."""

    def hook_returned(self, result: Any) -> None:
        """A message hook returned something that is not None."""

    def hook_failed(self) -> None:
        """A hook raised; called in its ``except`` clause."""

    def control_received(self, opcode: int, payload: bytes) -> None:
        """A ping came, which is answered already, or a pong."""

    def turn_awaited(self) -> None:
        """Call `Session.next_turn` in the reactor's next turn; if ``Session.spent`` is set, read nothing until then."""

    def clock_was_set(self) -> None:
        """Somebody set the clock ``Session.wall``; called before the frames of a chunk are read."""

    def session_ended(self) -> None:
        """No frame will be sent or read any more; the transport is to be closed. Called once."""


def octets_of(data: Any, taken: str) -> Any:
    """What is sent as binary; raises TypeError, with what is ``taken``, for what is not like ``bytes``."""
    if isinstance(data, memoryview):
        # Of whatever items: their count is not that of the octets.
        return data.cast("B")
    if not isinstance(data, (bytes, bytearray)):
        raise TypeError(f"{taken}, not {type(data).__name__}{forgotten(data)}")
    return data


class Session(FrameCodec):
    """One end of an open connection.

    on_fragment: if set, it gets each piece of a message as it arrives, as ``(data, opcode, final)``, and nothing is
        gathered; only the frames' lengths are limited then.
    """

    __slots__ = (
        "__weakref__",
        "_decoder",
        "_final",
        "_fragments",
        "_held",
        "_held_size",
        "_message",
        "_next_first",
        "_wide",
        "began",
        "error",
        "handler",
        "max_fragments",
        "on_fragment",
        "received",
        "sent",
    )

    def __init__(self, server: bool, handler: Handler, sink: Sink, now: Callable[[], float], limits: Limits) -> None:
        super().__init__(server, sink, now, limits.max_message_size, limits.max_frame_size)
        if limits.fragment_size is not None:
            self.fragment_size = min(limits.fragment_size, UNLIMITED)
        self.set_budget(limits.max_messages_per_turn, limits.max_seconds_per_turn)
        self.handler = handler
        self.max_fragments = limits.max_fragments
        self.on_fragment: Callable[[bytes, Opcode, bool], Any] | None = None
        self.sent: Close | None = None
        self.received: Close | None = None
        self.began: Literal["local", "peer", "transport"] = "transport"
        self.error: BaseException | None = None
        self._message: io.StringIO | bytearray | None = None
        self._decoder: codecs.IncrementalDecoder | None = None
        self._fragments = 0
        self._final = False
        # The first octet of an open streamed message's next frame; None where none is open.
        self._next_first: int | None = None
        self._held: list[tuple[int, bytes, bool | None]] = []
        self._held_size = 0
        # A text in progress has characters that take up to four bytes of memory each.
        self._wide = False

    def set_limits(self, limits: Limits) -> None:
        """Use other limits from the next frame on. Rates cannot change."""
        self.max_message_size, self.max_frame_size, self.fragment_size = (
            UNLIMITED if limit is None else min(limit, UNLIMITED)
            for limit in (limits.max_message_size, limits.max_frame_size, limits.fragment_size)
        )
        self.max_fragments = limits.max_fragments
        self.set_budget(limits.max_messages_per_turn, limits.max_seconds_per_turn)

    # Receiving.

    def too_big(self) -> MessageTooBig:
        """The error that names the limits, but for those that nobody has set."""
        limits = {"Limits.max_message_size": self.max_message_size, "Limits.max_frame_size": self.max_frame_size}
        told = [f"{name} is {limit}" for name, limit in limits.items() if limit != UNLIMITED]
        return MessageTooBig(f"message too big: {', '.join(told)}")

    @property
    def received_size(self) -> int:
        """Bytes of memory that received data takes which the handler has not had, at most."""
        size = self.unparsed_size
        if isinstance(self._message, bytearray):
            size += getsizeof(self._message)
        elif self._message is not None:
            size += 4 * self.message_size if self._wide else self.message_size
        return size

    def stream_to(self, on_fragment: Callable[[bytes, Opcode, bool], Any]) -> None:
        """Deliver pieces instead of messages."""
        self.on_fragment = on_fragment
        self.whole = False

    def begin_frame(self, first: int, length: int) -> None:
        opcode = first & 0x0F
        self._final = bool(first & FIN)
        if opcode:
            self._begin_message(opcode)
        self._fragments += 1
        if self.max_fragments is not None and self._fragments > self.max_fragments:
            raise TooManyFragments(f"too many fragments: Limits.max_fragments is {self.max_fragments}")

    def _begin_message(self, opcode: int) -> None:
        self.whole = False
        self.message_opcode = opcode
        self.message_size = 0
        self.message_began_at = self.received_at
        self._fragments = 0
        hook = self.on_text if opcode == Opcode.TEXT else self.on_binary
        if hook is None and self.on_fragment is None and self.sent is None:
            raise UnacceptableData

    def payload_received(self, part: bytes, last: bool) -> None:
        self._take(part, last and self._final)

    def _take(self, part: bytes, final: bool) -> None:
        # RFC 6455 §1.4: after our close frame, what comes before the peer's is thrown away (Beast does so too).
        if self.sent is not None:
            if final:
                self._end_message()
        elif final and not self.message_size and self.on_fragment is None:
            self._end_message(self._whole(part))
        else:
            self._gather(part, final)

    def _whole(self, message: bytes) -> str | bytes:
        return message if self.message_opcode == Opcode.BINARY else decode_text(message)

    def _gather(self, part: bytes, final: bool) -> None:
        if not self.message_size:
            binary = self.message_opcode == Opcode.BINARY
            self._decoder = None if binary else _utf8_decoder()
            self._wide = False
            if self.on_fragment is None:
                self._message = bytearray() if binary else io.StringIO()
        self.message_size += len(part)
        text = self._check_text(part, final)
        if self.on_fragment is not None:
            self._deliver_fragment(part, final)
        elif isinstance(self._message, bytearray):
            self._message += part
        elif self._message is not None:
            self._message.write(text)
            self._wide = self._wide or not text.isascii()
        if final:
            self._end_message(self._gathered_message())

    def _gathered_message(self) -> str | bytes | None:
        if isinstance(self._message, bytearray):
            return bytes(self._message)
        return None if self._message is None else self._message.getvalue()

    def _check_text(self, part: bytes, final: bool) -> str:
        if self._decoder is None:
            return ""
        try:
            text = self._decoder.decode(part, final)
        except UnicodeDecodeError:
            # RFC 6455 §8.1: at the first bad octet, not at the message's end.
            raise BadFramePayload from None
        # Python waits for a surrogate's third octet, though its second is bad.
        if b"\xed\xa0" <= self._decoder.getstate()[0] < b"\xee":
            raise BadFramePayload
        return text

    def _deliver_fragment(self, part: bytes, final: bool) -> None:
        if part or final:
            opcode, hook = Opcode(self.message_opcode), self.on_fragment
            assert hook is not None
            self.call_hook(lambda data: hook(data, opcode, final), part)

    def _end_message(self, message: str | bytes | None = None) -> None:
        self._message = self._decoder = None
        self.message_opcode = self.message_size = 0
        self.message_began_at = None
        self.whole = self.on_fragment is None and self.sent is None
        if message is not None:
            self.call_hook(self.on_text if isinstance(message, str) else self.on_binary, message)

    def control_received(self, opcode: int, payload: bytes) -> None:
        if opcode == Opcode.CLOSE:
            self._close_received(parse_close(payload))
            return
        # RFC 6455 §5.5.2: a ping is answered, unless a close frame was sent.
        if opcode == Opcode.PING and self.sent is None:
            self.emit(FIN | Opcode.PONG, payload)
        self.handler.control_received(opcode, payload)

    def _close_received(self, close: Close) -> None:
        self.received = close
        if self.sent is None:
            self.began = "peer"
            # RFC 6455 §5.5.1: echo the code. An empty close is answered with 1000, as by Beast.
            self._send_close(CloseCode.NORMAL if close.code == CloseCode.NO_STATUS else close.code, "")
        self._end()

    # Sending.

    def send_other(self, message: Any, compress: bool | None) -> None:
        """Send what is no plain text: see ``WebSocketProtocol.send``."""
        if isinstance(message, Prepared):
            self.send_prepared(message)
        elif isinstance(message, str):
            self.send_message(FIN_TEXT, message.encode(), compress)
        else:
            octets = octets_of(message, "send() takes str, bytes or what prepare() made")
            if compress is None:
                self.send_binary(octets)
            else:
                self.send_message(FIN_BINARY, octets, compress)

    def send_message(self, first: int, payload: bytes, compress: bool | None = None) -> None:
        """Send a message whose frame begins with the octet ``first``. Without compression agreed on there is none."""
        self.send_frame(first, payload)

    def send_prepared(self, message: Prepared) -> None:
        """Send a message that was put into a frame beforehand."""
        first, payload, frame = message.plain
        # RFC 6455 §5.3: a client masks each frame by a key of its own.
        if self.sendable and self.server and len(payload) <= self.fragment_size:
            self.emit_frame(first, frame)
        else:
            self.send_message(first, payload, False)

    def begin_message(self, opcode: int, compress: bool | None = None) -> None:
        """Begin to stream a message out; what is sent meanwhile leaves behind it, but for control frames.

        Raises `ConnectionClosed` once closing, `LocalError` while another is open.
        """
        if not self.sendable:
            self._require_open()
            raise LocalError("a streamed message is open: it has to end before another begins")
        self.sendable = False
        self._next_first = int(opcode)

    def write_part(self, part: bytes) -> None:
        """Send a part of the message, in a frame of its own. Raises `BufferFull` with nothing of it sent.

        Raises `ConnectionClosed` once closing, `LocalError` where no message is open; so does `end_message`.
        """
        self._admit_part(len(part))
        self._write_frames(part, 0)

    def end_message(self, rest: bytes = b"") -> None:
        """End the streamed message with ``rest``, and send what was held behind it."""
        self._write_frames(rest, FIN)
        self._release_held()

    def _release_held(self) -> None:
        # It grows if the sink's writing makes somebody send, and a close empties it.
        if self._held:
            with self._whole_or_failed():
                for first, payload, compress in self._held:
                    self._hold(-len(payload) - HELD_OVERHEAD)
                    self._send_admitted(first, payload, compress)
            self._held.clear()
        self.sendable = not self.closed

    def _hold(self, size: int) -> None:
        self._held_size += size
        self.sink.hold(size)

    def _forget_held(self) -> None:
        if self._held:
            self._held.clear()
            self._hold(-self._held_size)

    def _send_admitted(self, first: int, payload: bytes, compress: bool | None) -> None:
        self.emit_pieces(first, payload)

    @contextmanager
    def _whole_or_failed(self) -> Iterator[None]:
        """Behind a part of a message, that what the sink calls has cut short, nothing else can be sent."""
        try:
            yield
        except BaseException as error:
            self.fail(error)
            raise

    def _admit_part(self, size: int) -> None:
        self._require_message()
        self.sink.admits_part(size)
        self._require_message()

    def _require_open(self) -> None:
        if self.closed:
            raise ConnectionClosed(self.reason())

    def _require_message(self) -> int:
        self._require_open()
        if self._next_first is None:
            raise LocalError("no streamed message is open")
        return self._next_first

    def _write_frames(self, part: bytes, fin: int) -> None:
        first = self._require_message()
        self._next_first = None if fin else Opcode.CONTINUATION
        self.emit_pieces(first | fin, part)

    def emit_fragments(self, first: int, payload: bytes) -> None:
        """Send a long message in frames of ``fragment_size``: control frames can go in between (RFC 6455 §5.4)."""
        if self.sink.admits(len(payload)):
            # What the sink's writing makes somebody send goes behind it.
            self.sendable = False
            with self._whole_or_failed():
                self.emit_pieces(first, payload)
            self._release_held()

    def ping(self, payload: bytes = b"") -> None:
        """Send a ping of at most 125 octets; raises `LocalError` beyond, `ConnectionClosed` after a close."""
        self._send_control(Opcode.PING, payload)

    def pong(self, payload: bytes = b"") -> None:
        """Send an unsolicited pong (RFC 6455 §5.5.3)."""
        self._send_control(Opcode.PONG, payload)

    def _send_control(self, opcode: Opcode, payload: bytes) -> None:
        payload = octets_of(payload, f"{opcode.name.lower()}() takes bytes")
        if len(payload) > 125:
            raise LocalError(f"{opcode.name.lower()} of {len(payload)} octets: at most 125 fit (RFC 6455 §5.5)")
        self._require_open()
        self.emit(FIN | opcode, payload)

    def send_held(self, first: int, payload: bytes, compress: bool | None = None) -> None:
        """Keep a message behind the one on its way, under the sink's policy; raises `ConnectionClosed` once closing."""
        self._require_open()
        if self.sink.admits(len(payload)):
            # A copy of what may change.
            self._held.append((first, bytes(payload), compress))
            self._hold(len(payload) + HELD_OVERHEAD)

    # Closing.

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Begin the closing handshake (RFC 6455 §7.1.2); again it does nothing. Raises `LocalError` for a bad code."""
        payload = close_payload(code, reason)
        if self.sent is None and self.halted != STOPPED:
            self.began = "local"
            self._emit_close(code, payload)

    def fail(self, error: BaseException, code: int | None = None, reason: str = "") -> None:
        """Fail the connection (RFC 6455 §7.1.7): tell the peer why by a close frame and end the session."""
        if self.halted == STOPPED:
            return
        # A close frame of a paused session lets it read on, and find more that is wrong.
        if self.error is None:
            self.error = error
        if self.sent is None:
            self.began = "local"
            if code is None:
                code = error.close_code if isinstance(error, ProtocolError) else CloseCode.INTERNAL_ERROR
            self._send_close(code, reason)
        self._end()

    def forget(self) -> None:
        """Let go of whom it told, which nobody needs any more behind the end: no cycle keeps them alive."""
        self.on_text = self.on_binary = self.on_fragment = None

    def lost(self, error: BaseException | None = None) -> None:
        """The transport is gone: end the session without a word."""
        if self.error is None and not self.clean:
            self.error = error
        self._end()

    @property
    def clean(self) -> bool:
        """Close frames went both ways."""
        return self.sent is not None and self.received is not None

    def reason(self) -> CloseReason:
        """The account of how the connection ended, or is ending."""
        code, text = self.received or (CloseCode.ABNORMAL, "")
        return CloseReason(int(code), text, self.clean, self.began, self.sent, self.received, self.error)

    def _send_close(self, code: int, reason: str) -> None:
        self._emit_close(code, close_payload(code, reason))

    def _emit_close(self, code: int, payload: bytes) -> None:
        self.sendable = False
        self.closed = True
        self.whole = False
        self._message = self._decoder = None
        self._forget_held()
        if self.drop_received():
            self._final = True
        self.sent = Close(int(code), payload[2:].decode())
        self.emit(FIN | Opcode.CLOSE, payload)
        # What the peer sends now is thrown away, so that its close frame is found however little the application takes.
        self.resume()

    def _end(self) -> None:
        if self.halted != STOPPED:
            self.halted = STOPPED
            self.sendable = False
            self.closed = True
            self._message = self._decoder = None
            self._forget_held()
            self._partial = b""
            self.spent = False
            if self.gathered_size:
                self.flush()
            self.handler.session_ended()

    @property
    def paused(self) -> bool:
        """Nothing is delivered for now."""
        return self.halted == PAUSED or self.spent

    @property
    def ended(self) -> bool:
        """No frame will be sent or read any more."""
        return self.halted == STOPPED

    def pause(self) -> None:
        """Deliver nothing until `resume`; what is fed meanwhile is kept."""
        if self.halted == RUNNING and self.sent is None:
            self.halted = PAUSED

    def turn_awaited(self) -> None:
        self.handler.turn_awaited()

    def clock_was_set(self) -> None:
        self.handler.clock_was_set()

    def hook_returned(self, result: Any) -> None:
        self.handler.hook_returned(result)

    def hook_failed(self) -> None:
        self.handler.hook_failed()


class DeflateSession(Session):
    """One end of an open connection whose messages may be compressed (RFC 7692 §6)."""

    __slots__ = ("_compressing", "_may_drop", "_pieces", "deflate")

    def __init__(
        self,
        server: bool,
        handler: Handler,
        sink: Sink,
        now: Callable[[], float],
        limits: Limits,
        deflate: PerMessageDeflate,
    ) -> None:
        super().__init__(server, handler, sink, now, limits)
        self.deflate = deflate
        self.accepts_rsv1 = True
        self._compressing = False
        self._may_drop = limits.slow_reader == "drop"
        self._pieces: Iterator[tuple[bytes, bool]] | None = None

    def _parse(self, data: bytes) -> None:
        # What a hook that paused left of its part comes before what is behind it.
        if self._pieces is not None and self.halted == RUNNING:
            self._partial += data
            data = b""
            self._take_pieces()
        super()._parse(data)

    def payload_received(self, part: bytes, last: bool) -> None:
        if self.compressed and self.sent is None:
            room = self.max_message_size - self.message_size
            self._pieces = self.deflate.inflate(part, last and self._final, room)
            self._take_pieces()
        else:
            super().payload_received(part, last)

    def compressed_received(self, first: int, payload: bytes) -> None:
        text = first & 0x0F == Opcode.TEXT
        hook = self.on_text if text else self.on_binary
        if hook is None:
            raise UnacceptableData
        message = self.deflate.inflate_whole(payload, self.max_message_size)
        if isinstance(message, bytes):
            self.call_hook(hook, decode_text(message) if text else message)
            return
        self.compressed = True
        self.begin_frame(first, len(payload))
        self._pieces = message
        self._take_pieces()

    def _take_pieces(self) -> None:
        try:
            for piece, ended in self._pieces or ():
                self._take(piece, ended)
                if self.halted != RUNNING or self.out_of_time():
                    return
                if self.sent is not None:
                    # The rest is thrown away, but for the message's end.
                    self._take(b"", self._final and not self._remaining)
                    break
        except MessageTooBig:
            raise self.too_big() from None
        self._pieces = None

    def send_text(self, text: str) -> None:
        """Send a text message in one frame, compressed from ``Deflate.threshold`` octets on."""
        self.send_message(FIN_TEXT, text.encode())

    def send_binary(self, data: bytes) -> None:
        """Send a binary message in one frame, compressed from ``Deflate.threshold`` octets on."""
        self.send_message(FIN_BINARY, data)

    def send_message(self, first: int, payload: bytes, compress: bool | None = None) -> None:
        """Send a message in one frame whose first octet is ``first``; ``compress`` overrules the threshold."""
        if compress is None:
            compress = len(payload) >= self.deflate.threshold
        if not self.sendable:
            self.send_held(first, payload, compress)
        elif compress:
            self._send_compressed(first, payload)
        else:
            self.send_frame(first, payload)

    def send_prepared(self, message: Prepared) -> None:
        compress = message.compress
        if compress is None:
            compress = len(message.plain.payload) >= self.deflate.threshold
        if not compress:
            super().send_prepared(message)
            return
        framed = message.compressed(self.deflate.parameters) if self.sendable and self.server else None
        if framed is None or len(framed.payload) > self.fragment_size:
            self.send_message(message.plain.first, message.plain.payload, True)
            return
        # What the sink's writing makes somebody send goes behind it.
        self.sendable = False
        try:
            self.emit_frame(framed.first, framed.frame)
        finally:
            # The peer inflates it, we did not compress it: what comes behind must not refer to what came before.
            self.deflate.forget_sent()
            self._release_held()

    def begin_message(self, opcode: int, compress: bool | None = None) -> None:
        super().begin_message(opcode, compress)
        self._compressing = compress is not False
        if self._compressing:
            self._next_first = opcode | RSV1

    def write_part(self, part: bytes) -> None:
        if not self._compressing:
            super().write_part(part)
            return
        # Before zlib has taken the part: what is refused can be tried again.
        self._admit_part(len(part))
        if compressed := self.deflate.compress_part(part):
            self._write_frames(compressed, 0)

    def end_message(self, rest: bytes = b"") -> None:
        if self._compressing:
            self._compressing = False
            rest = (self.deflate.compress_part(rest) if rest else b"") + self.deflate.finish_parts()
        super().end_message(rest)

    def _send_admitted(self, first: int, payload: bytes, compress: bool | None) -> None:
        if not compress:
            self.emit_pieces(first, payload)
            return
        leaves = self._leaves
        self.emit_pieces(first | RSV1, self.deflate.compress(payload))
        if not leaves:
            self.deflate.forget_sent()

    @property
    def _leaves(self) -> bool:
        # What waits may be dropped yet: what comes behind it must not refer to it.
        return self.sink.free or not self._may_drop

    def _send_compressed(self, first: int, payload: bytes) -> None:
        leaves = self._leaves
        # What the sink's writing makes somebody send refers to it, and goes behind it.
        self.sendable = False
        sent = False
        try:
            self.emit(first | RSV1, self.deflate.compress(payload))
            sent = leaves
        finally:
            if not sent:
                self.deflate.forget_sent()
            self._release_held()
