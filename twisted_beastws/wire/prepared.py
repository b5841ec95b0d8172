"""Messages put into frames once, for any number of receivers."""

from __future__ import annotations

from inspect import isawaitable
from typing import Any, NamedTuple

from twisted_beastws.wire.compressor import compress_alone
from twisted_beastws.wire.frames import FIN_BINARY, FIN_TEXT, RSV1, encode_frame


class Framed(NamedTuple):
    """A message as a server sends it: in one frame, not masked."""

    first: int
    payload: bytes
    frame: bytes


class Prepared:
    """A message from `prepare`."""

    __slots__ = ("_compressed", "compress", "plain")

    def __init__(self, first: int, payload: bytes, compress: bool | None) -> None:
        self.plain = Framed(first, payload, encode_frame(first, payload))
        self.compress = compress
        self._compressed: dict[tuple[int, int, int], Framed] = {}

    def compressed(self, parameters: tuple[int, int, int]) -> Framed:
        """It compressed with these window bits, level and memory level, referring to no message before."""
        found = self._compressed.get(parameters)
        if found is None:
            found = self._compressed[parameters] = self._compress(*parameters)
        return found

    def _compress(self, bits: int, level: int, mem_level: int) -> Framed:
        first, payload = self.plain.first | RSV1, b"\0"
        # RFC 7692 §7.2.3.6: the compressed form of an empty message.
        if self.plain.payload:
            payload = compress_alone(self.plain.payload, level, bits, mem_level)
        return Framed(first, payload, encode_frame(first, payload))


def prepare(message: str | bytes, *, compress: bool | None = None) -> Prepared:
    """Frame a message once, and compress it once for each set of parameters, to `send` it to many connections.

    A connection whose compressor keeps its context must begin a new one after a compressed prepared message. So `send`
    itself compresses better for one receiver, or if a connection sends many other messages in between. A client, which
    masks each frame by its own key, and a message beyond ``Limits.fragment_size`` gain nothing from a prepared message.

    Args:
        message: ``str`` as text, ``bytes`` as binary.
        compress: As for `send`.

    Raises:
        UnicodeEncodeError: The text has lone surrogates.
        TypeError: ``message`` is of another type.
    """
    if isinstance(message, str):
        return Prepared(FIN_TEXT, message.encode(), compress)
    if not isinstance(message, (bytes, bytearray, memoryview)):
        raise TypeError(f"prepare() takes str or bytes, not {type(message).__name__}{forgotten(message)}")
    # The caller may change a bytearray.
    return Prepared(FIN_BINARY, bytes(message), compress)


def forgotten(value: Any) -> str:
    """Return the end of the error's text for a ``value`` that must be awaited first, or nothing."""
    if not isawaitable(value):
        return ""
    # A Deferred; inlineCallbacks takes it, too.
    return ": await or yield it?" if hasattr(value, "addCallbacks") else ": await it?"
