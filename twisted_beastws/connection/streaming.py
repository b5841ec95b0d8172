"""Messages that are sent part by part."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from contextlib import contextmanager

from twisted_beastws.wire.closing import CloseCode
from twisted_beastws.wire.frames import Opcode
from twisted_beastws.wire.sender import as_bytes
from twisted_beastws.wire.session import Session


class MessageWriter:
    """An open streamed message, from `WebSocketProtocol.message`."""

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    def write(self, part: str | bytes) -> None:
        """Send a part; ``bytes`` of a text may end inside a character. Raises `ConnectionClosed`, `BufferFull`."""
        octets = part.encode() if isinstance(part, str) else as_bytes(part, "write() takes str or bytes")
        self._session.sender.write_part(octets)


@contextmanager
def streamed_message(session: Session, opcode: int, compress: bool | None) -> Iterator[MessageWriter]:
    """Send a message part by part; see `WebSocketProtocol.message`."""
    session.sender.begin_message(opcode, compress)
    try:
        yield MessageWriter(session)
    except BaseException as error:
        session.fail(error, CloseCode.INTERNAL_ERROR)
        raise
    session.sender.end_message()


def check_opcode(opcode: int) -> None:
    """Raise ``ValueError`` for the opcode of anything but a message."""
    if opcode not in (Opcode.TEXT, Opcode.BINARY):
        raise ValueError(f"message({opcode!r}): must be Opcode.TEXT or Opcode.BINARY")


async def each(parts: Iterable[str | bytes] | AsyncIterable[str | bytes]) -> AsyncIterator[str | bytes]:
    """The parts of an iterable, plain or asynchronous."""
    if isinstance(parts, AsyncIterable):
        async for part in parts:
            yield part
    else:
        for part in parts:
            yield part
