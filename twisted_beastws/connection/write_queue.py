"""The frames that wait for a transport, and how many bytes of them may."""

from __future__ import annotations

from collections import deque

from twisted_beastws.connection.outlet import HAND_OVER
from twisted_beastws.errors import BufferFull, LocalError
from twisted_beastws.wire.frames import LongFrame, Opcode

JOINED = 1 << 14
"""The largest frame that is joined with the frames before it: 16 KiB. A larger one has an overhead below 1 %."""

OVERHEAD = 128
"""The overhead of each further object in the queue, in bytes: its header, the allocator's, and a slot."""


def most_at_once(max_buffered: int) -> int:
    """Return the most bytes that may be written at once: a message of ``max_buffered`` in its frames.

    RFC 6455 §5.2 adds headers. A compressor may lengthen a message by this bound (zlib's ``deflateBound``).
    """
    return max_buffered + (max_buffered >> 3) + (max_buffered >> 6) + 64


def check_fits(size: int, max_buffered: int) -> None:
    """Raise a `LocalError` for a message that is too long even if nothing else waits."""
    if size > most_at_once(max_buffered):
        raise LocalError(
            f"{size} bytes at once, where Limits.max_buffered is {max_buffered}: raise it, or send less at a time"
        )


def full(waiting: int, max_buffered: int) -> BufferFull:
    """Return the error of a message for which there is no room."""
    return BufferFull(f"{waiting} bytes wait for a slow reader: Limits.max_buffered is {max_buffered}")


class WriteQueue:
    """Keeps whole frames in order: small ones joined in a bytearray, large ones as they came. Pings overtake them.

    Attributes:
        size: The bytes that wait. Small frames wait joined, so that ``size`` is close to the memory that they take.
        kept: The bytes of data ever put into the queue.
        gone: The bytes of data ever taken from it. Each flush waits for a number of them.
    """

    __slots__ = ("_frames", "_pings", "_pong", "gone", "kept", "size")

    def __init__(self) -> None:
        self._frames: deque[bytes | bytearray | LongFrame] = deque()
        self._pong: bytes | None = None
        self._pings = b""
        self.size = 0
        self.kept = self.gone = 0

    @property
    def holds_frames(self) -> bool:
        """Whether frames wait, apart from a pong, which need not be sent before the end."""
        return bool(self._frames or self._pings)

    @property
    def empty(self) -> bool:
        return not (self._frames or self._pings or self._pong)

    def memory(self, first_begun: bool) -> int:
        """Return the memory of the bytes and of their objects.

        Args:
            first_begun: A part of a message has left whose next frame may be the first one here. The message's memory
                then counts elsewhere.
        """
        memory = self.size
        if self._frames:
            memory += OVERHEAD * (len(self._frames) - 1)
            first = self._frames[0]
            if not first_begun and isinstance(first, LongFrame):
                memory += first.kept - len(first.payload)
        return memory

    def put(self, data: bytes | LongFrame) -> None:
        """Put whole frames behind all others."""
        frames, size = self._frames, len(data)
        self.size += size
        self.kept += size
        tail = frames[-1] if frames else None
        if isinstance(data, LongFrame) or size > JOINED:
            frames.append(data)
        elif isinstance(tail, bytearray) and len(tail) + size <= HAND_OVER:
            tail += data
        else:
            frames.append(bytearray(data))

    def put_control(self, opcode: int, frame: bytes) -> None:
        """Put a close frame behind all others, a ping before the frames of data, and a pong before the pings."""
        if opcode == Opcode.PONG:
            # RFC 6455 §5.5.3: of several unanswered pings the latest needs an answer, so a flood of them keeps one.
            self._pong = frame
        elif opcode == Opcode.CLOSE:
            self.put(frame)
        else:
            self._pings += frame
            self.size += len(frame)

    def take(self) -> bytes | LongFrame | None:
        """Take what is sent next: a pong, the pings, or frames of up to 64 KiB joined; None if nothing waits."""
        if self._pong is not None:
            pong, self._pong = self._pong, None
            return pong
        if self._pings:
            pings, self._pings = self._pings, b""
            self.size -= len(pings)
            return pings
        return self._take_frames() if self._frames else None

    def take_all(self) -> list[bytes]:
        """Take all that waits, in order."""
        taken = [self._pong or b"", self._pings, *map(bytes, self._frames)]
        self.discard()
        self.gone = self.kept
        return taken

    def discard(self) -> None:
        """Discard all that waits. A flush that waits for it fails when the connection is lost."""
        self._frames.clear()
        self._pong = None
        self._pings = b""
        self.size = 0

    def _take_frames(self) -> bytes | LongFrame:
        queue = self._frames
        first = queue.popleft()
        size = len(first)
        frames = [first]
        while queue and size + len(queue[0]) <= HAND_OVER:
            frames.append(queue.popleft())
            size += len(frames[-1])
        self.size -= size
        self.gone += size
        return first if isinstance(first, LongFrame) else b"".join(map(bytes, frames))
