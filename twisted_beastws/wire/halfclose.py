"""`HalfClosingSession`: its two directions may end one after the other, within the limits of close frames."""

from __future__ import annotations

from typing import Any, Protocol

from twisted_beastws.wire.closing import Close, CloseCode, close_payload
from twisted_beastws.wire.frames import FIN, Opcode
from twisted_beastws.wire.session import Session

ORDERLY = frozenset((CloseCode.NORMAL, CloseCode.GOING_AWAY, CloseCode.NO_STATUS))
"""The close codes of an orderly end (RFC 6455 §7.4.1)."""


class Stream(Protocol):
    """The byte stream in the messages.

    Attributes:
        half_closeable: It may continue to send after the peer has ended its direction.
    """

    @property
    def half_closeable(self) -> bool: ...

    def read_ended(self) -> None:
        """The peer will send nothing more."""


class HalfClosingSession(Session):
    """A session that can end its sending with `half_close`, and still deliver until the peer's close frame.

    It answers the peer's close frame at once, unless its stream is half-closeable: then only when `close` is called.
    RFC 6455 §5.5.1 lets an endpoint delay its answer until it has sent the rest of its message; the peer need not
    listen to it.

    Messages must be streamed in, uncompressed, and be sent whole.

    Attributes:
        half_closed: We sent a close frame, and still deliver.
        stream: See `Stream`; None is not half-closeable.
    """

    __slots__ = ("half_closed", "stream")

    half_closed: bool
    stream: Stream | None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.stream = None
        self.half_closed = False

    def forget(self) -> None:
        """Drop the references to the application and the stream."""
        super().forget()
        self.stream = None

    def half_close(self) -> None:
        """Send a close frame with 1000, and no frame after it."""
        if self.closing.received is not None:
            self.close()
        elif self.closing.sent is None and not self.ended:
            self.closing.began = "local"
            self.half_closed = True
            self.writer.close()
            self.closing.sent = Close(CloseCode.NORMAL)
            self.writer.emit(FIN | Opcode.CLOSE, close_payload(CloseCode.NORMAL))

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Answer the peer's close frame, or end a half-closed session, or close as any session does."""
        if self.closing.received is not None and self.closing.sent is None:
            # RFC 6455 §5.5.1: echo the code.
            self.send_close(self.closing.echo)
            self.end()
        elif self.half_closed:
            self.half_closed = False
            self.assembler.discard()
            self.resume()
        else:
            super().close(code, reason)

    def close_received(self, close: Close) -> None:
        """Notify a half-closeable stream, and delay the answer until it ends; otherwise answer."""
        stream = self.stream
        orderly = close.code in ORDERLY and (self.closing.sent is None or self.half_closed)
        if orderly and stream is not None and stream.half_closeable:
            self.closing.received = close
            if self.closing.sent is None:
                self.closing.began = "peer"
                self.assembler.discard()
                stream.read_ended()
                return
            stream.read_ended()
        super().close_received(close)
