"""A session whose two directions may end one after the other, as far as close frames can say so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted_beastws.options import Limits
from twisted_beastws.wire import session
from twisted_beastws.wire.closing import Close, CloseCode, close_payload
from twisted_beastws.wire.frames import FIN, PAUSED, RUNNING, Opcode, Sink

ORDERLY = frozenset((CloseCode.NORMAL, CloseCode.GOING_AWAY, CloseCode.NO_STATUS))
"""The close codes that say that nothing is wrong (RFC 6455 §7.4.1)."""


class Stream(Protocol):
    """Whose bytes travel in the messages. half_closeable: it may have something to send when the peer has not."""

    @property
    def half_closeable(self) -> bool: ...

    def read_ended(self) -> None:
        """The peer will send nothing more."""


class HalfClosingSession(session.Session):
    """Ends its sending by `half_close`, and still delivers what comes before the peer's close frame.

    The other way round it answers the peer's close frame at once, unless its stream is half-closeable: then only when
    `close` is called. RFC 6455 §5.5.1 lets an endpoint delay its answer until it has sent what it was sending; nothing
    makes the peer listen to it.

    Messages must be streamed in, uncompressed, and be sent whole.

    half_closed: we sent a close frame, and still deliver. stream: see `Stream`; None is not half-closeable.
    """

    __slots__ = ("half_closed", "stream")

    def __init__(
        self, server: bool, handler: session.Handler, sink: Sink, now: Callable[[], float], limits: Limits
    ) -> None:
        super().__init__(server, handler, sink, now, limits)
        self.stream: Stream | None = None
        self.half_closed = False

    def forget(self) -> None:
        super().forget()
        self.stream = None

    def half_close(self) -> None:
        """Send a close frame with 1000, and nothing behind it."""
        if self.received is not None:
            self.close()
        elif self.sent is None and not self.ended:
            self.began = "local"
            self.half_closed = True
            self.sendable = False
            self.closed = True
            self.sent = Close(CloseCode.NORMAL)
            self.emit(FIN | Opcode.CLOSE, close_payload(CloseCode.NORMAL))

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        if self.received is not None and self.sent is None:
            # RFC 6455 §5.5.1: echo the code.
            echo = self.received.code
            self._send_close(CloseCode.NORMAL if echo == CloseCode.NO_STATUS else echo, "")
            self._end()
        elif self.half_closed:
            self.half_closed = False
            self.resume()
        else:
            super().close(code, reason)

    def pause(self) -> None:
        if self.half_closed and self.halted == RUNNING:
            self.halted = PAUSED
        else:
            super().pause()

    def control_received(self, opcode: int, payload: bytes) -> None:
        # RFC 6455 §1.4: what comes behind the peer's close frame is thrown away.
        if self.received is None:
            super().control_received(opcode, payload)

    def _close_received(self, close: Close) -> None:
        stream = self.stream
        orderly = close.code in ORDERLY and (self.sent is None or self.half_closed)
        if orderly and stream is not None and stream.half_closeable:
            self.received = close
            if self.sent is None:
                self.began = "peer"
                stream.read_ended()
                return
            stream.read_ended()
        super()._close_received(close)

    def _take(self, part: bytes, final: bool) -> None:
        if self.received is None and not self.half_closed:
            super()._take(part, final)
            return
        if self.received is None:
            self._deliver_fragment(part, final)
        if final:
            self._end_message()
