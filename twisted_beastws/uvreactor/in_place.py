"""Receiving a long payload into the memory that it is delivered from, without a copy in between."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from twisted_beastws.wire.places import LOOK, Places

if TYPE_CHECKING:
    from twisted_beastws.uvreactor.interfaces import NativeReactor


class InPlaceOwner(Protocol):
    """The connection that uvloop reads for."""

    protocol: Any
    reactor: NativeReactor

    def call(self, function: Any, *arguments: object) -> None: ...

    def data_received(self, data: bytes) -> None: ...

    def receive_chunks(self) -> None: ...

    def eof_received(self) -> bool: ...

    def connection_lost(self, exc: Exception | None) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...


class InPlace(asyncio.BufferedProtocol):
    """Replaces the connection while long payloads arrive: uvloop reads them into their places.

    After a payload it reads a short chunk, with the next header. The connection is the protocol again once such a chunk
    has no long payload after it.
    """

    def __init__(self, connection: InPlaceOwner, places: Places) -> None:
        self._connection = connection
        self._places = places
        # TLS may be started at any time; then another protocol gets the bytes.
        self._protocol = connection.protocol
        self._looks = False

    def _place(self) -> Any:
        return self._places.place() if self._connection.protocol is self._protocol else None

    def get_buffer(self, sizehint: int) -> Any:
        place = self._place()
        self._looks = place is None
        return self._connection.reactor.short_chunk if place is None else place

    def buffer_updated(self, nbytes: int) -> None:
        if not self._looks:
            self._connection.call(self._places.placed, nbytes)
            return
        self._connection.data_received(bytes(memoryview(self._connection.reactor.short_chunk)[:nbytes]))
        if self._place() is None:
            self._connection.receive_chunks()
            # After a full buffer uvloop reads on in this turn.
            if nbytes < LOOK:
                self._places.chunks_only()

    def eof_received(self) -> bool:
        return self._connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()
