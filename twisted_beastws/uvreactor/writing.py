"""The writing side of a TCP connection: gathers small writes, paces the producer, and reports an empty buffer."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterable
from typing import Any, Protocol

FULL = 1 << 16
"""Bytes after which a push producer is paused: 64 KiB, as Twisted's ``bufferSize`` and asyncio's high-water mark."""

MOST_GATHERED = 512
"""The most gathered writes before they are joined: each is an object with an overhead of 40 bytes or more."""


class Nowhere:
    """Takes the place of uvloop's transport after the end, and discards what is written."""

    def write(self, data: bytes) -> None:
        """Discard data."""


NOWHERE = Nowhere()


class WriterOwner(Protocol):
    """The connection that a `ConnectionWriter` writes for."""

    disconnecting: bool

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Call a function of the application. An exception ends the connection."""

    def all_written(self) -> None:
        """The operating system has all written bytes, and no producer waits to write more."""


class ConnectionWriter:
    """Writes to uvloop's transport.

    The writes that a protocol makes while it handles a received chunk are sent together at the end of the chunk. Any
    other write is sent at once, as far as the operating system takes it. While bytes wait, further writes are gathered.

    Attributes:
        producer: The registered producer, or None.
        streaming: Whether the producer is a push producer.
        paused: Whether the producer is paused.
        gathers: Gather the writes of a chunk.
        full: The number of bytes, written since the buffer was last empty, above which a push producer is paused.
    """

    __slots__ = (
        "_ended",
        "_flush_due",
        "_gathered",
        "_in_chunk",
        "_loop",
        "_owner",
        "_stalled",
        "_unflushed",
        "_uv",
        "_written_to",
        "full",
        "gathers",
        "paused",
        "producer",
        "streaming",
    )

    def __init__(self, uv: Any, loop: AbstractEventLoop, owner: WriterOwner) -> None:
        self._uv = uv
        self._loop = loop
        self._owner: WriterOwner | None = owner
        # Not its bound ``write``, which would take 64 bytes.
        self._written_to: Any = uv
        self._gathered: list[bytes] | None = None
        self._in_chunk = self._ended = self._flush_due = False
        # Bytes wait in uvloop's transport, which calls `resume_writing` when it has sent them all.
        self._stalled = False
        uv.set_write_buffer_limits(0)
        self._unflushed = 0
        self.gathers = True
        self.full = FULL
        self.producer: Any = None
        self.streaming = self.paused = False

    # Writing.

    def write(self, data: bytes) -> None:
        """Write bytes now, or together with waiting ones."""
        if not isinstance(data, bytes):
            raise TypeError("Data must be bytes")
        gathered = self._gathered
        if gathered is not None:
            gathered.append(data)
            if len(gathered) == MOST_GATHERED:
                self._gathered = []
                self._written_to.write(b"".join(gathered))
        elif self._stalled:
            # Gather here, because for each waiting write uvloop keeps a larger object than Python does.
            self._gathered = [data]
        else:
            self._written_to.write(data)
        if self.producer is not None:
            self._produced(len(data))

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Write several parts with one write."""
        parts = list(iovec)
        for part in parts:
            if not isinstance(part, bytes):
                raise TypeError("Data must be bytes")
        self.write(b"".join(parts))

    def waits(self) -> int:
        """Return the number of waiting bytes."""
        return sum(map(len, self._gathered or ())) + int(self._uv.get_write_buffer_size())

    def begin_chunk(self) -> None:
        """The protocol begins to handle a chunk or a new connection: gather its writes."""
        if self.gathers:
            self._in_chunk = True
            if self._gathered is None:
                self._gathered = []

    def end_chunk(self) -> None:
        """Write the bytes gathered during a chunk."""
        if self._in_chunk:
            self._in_chunk = False
            if not self._gathered:
                self._gathered = None
            elif not self._stalled:
                self.write_gathered()
            if self._flush_due:
                self._flush_came()

    def write_gathered(self) -> None:
        """Write the gathered bytes now."""
        gathered, self._gathered = self._gathered, None
        if gathered:
            self._written_to.write(gathered[0] if len(gathered) == 1 else b"".join(gathered))

    # The end.

    @property
    def closes_later(self) -> bool:
        """Whether bytes may still have to be sent from here before the connection is closed."""
        return self.gathers or self.producer is not None or bool(self._gathered)

    def call_when_written(self) -> None:
        """Call the connection's ``all_written`` when all bytes are sent, but not before this method returns."""
        self._await_flush()

    def write_nothing(self) -> None:
        """Discard the gathered bytes and all later writes."""
        self._written_to = NOWHERE
        self._gathered = None

    def abort(self) -> None:
        """Discard all bytes, and make no more callbacks."""
        self._ended = True
        self.write_nothing()

    def close(self) -> Any:
        """Release the connection and the producer, and return the producer."""
        self.abort()
        self._owner = None
        producer, self.producer = self.producer, None
        return producer

    # Producers, handled as in Twisted's FileDescriptor.

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Pace ``producer``. Raises ``RuntimeError`` if another one is registered."""
        if self.producer is not None:
            raise RuntimeError(
                f"Cannot register producer {producer}, because producer {self.producer} was never unregistered."
            )
        if self._owner is None:
            producer.stopProducing()
            return
        self.producer = producer
        self.streaming = streaming
        self._unflushed = self._uv.get_write_buffer_size()
        if not streaming:
            producer.resumeProducing()
            if self._unflushed or self._gathered:
                # Resume it again when the bytes written before it was registered are sent.
                self._await_flush()

    def unregisterProducer(self) -> None:
        """Release the producer."""
        self.producer = None
        if self._owner is not None and self._owner.disconnecting:
            self._await_flush()

    def _produced(self, size: int) -> None:
        self._unflushed += size
        if not self.streaming:
            self._await_flush()
        elif self._unflushed > self.full:
            # Pause even if all bytes were sent: a producer that never pauses would starve the other connections.
            self._pause_producer()
            self._await_flush()

    def _pause_producer(self) -> None:
        if self.producer is not None and self.streaming and self._owner is not None:
            self.paused = True
            self._owner.call(self.producer.pauseProducing)

    # Flushing.

    def _await_flush(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            if not self._in_chunk:
                self._loop.call_soon(self._flush_came)

    def _flush_came(self) -> None:
        if self._flush_due:
            self._flush_due = False
            if not self._stalled:
                self._flushed()

    def pause_writing(self) -> None:
        """The operating system takes no more bytes for now."""
        self._stalled = True

    def resume_writing(self) -> None:
        """The operating system has taken all bytes: resume."""
        self._stalled = False
        self._flushed()

    def _flushed(self) -> None:
        if self._in_chunk and self._gathered:
            self._flush_due = True
            return
        if not self._in_chunk:
            self.write_gathered()
        owner, producer = self._owner, self.producer
        if self._ended or self._stalled or owner is None:
            return
        self._unflushed = 0
        if producer is not None and (self.paused or not self.streaming):
            self.paused = False
            owner.call(producer.resumeProducing)
        else:
            owner.all_written()
