"""Data that arrives although the protocol paused the connection, because it did so before uvloop began to read."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol, cast


class HeldOwner(Protocol):
    """The connection that uvloop reads for."""

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def connection_lost(self, exc: Exception | None) -> None: ...

    def takes(self, held: Any) -> bool: ...

    def data_received(self, data: bytes) -> None: ...

    def eof_received(self) -> bool: ...

    def go_on_reading(self) -> None: ...


class Held(asyncio.Protocol):
    """Replaces the connection until it is resumed: keeps the one chunk that uvloop reads, or the end of the data."""

    def __init__(self, connection: HeldOwner, transport: asyncio.Transport) -> None:
        self._connection = connection
        self._transport = transport
        self._data = b""
        self._ended = False

    def data_received(self, data: bytes) -> None:
        self._data = data
        self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._ended = True
        return True

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)

    def release(self) -> None:
        """Make the connection the protocol again, and give it the held data."""
        connection = self._connection
        if not connection.takes(self):
            return
        self._transport.set_protocol(cast(asyncio.BaseProtocol, connection))
        if self._data:
            connection.data_received(self._data)
        if self._ended:
            connection.eof_received()
        else:
            connection.go_on_reading()
