"""Receiving long payloads from Twisted's sockets into the memory that they are delivered from."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST

from twisted_beastws.wire.places import LOOK, Places

MOST_READS = 4
"""The most reads of payloads in one turn of the reactor, each of at most 512 KiB."""


def read_in_place(transport: Any, places: Places) -> bool:
    """Read the bytes for which ``places`` has a place into that, and only the others into chunks.

    This ends with a chunk after which ``places`` has none, or when the bytes go to another protocol.

    Returns:
        Whether this is possible: the transport is a socket that Twisted's own ``doRead`` reads.
    """
    if not _is_tcp(transport):
        return False
    if "doRead" not in vars(transport):
        vars(transport)["doRead"] = InPlaceReads(transport, places)
    return True


def read_chunks(transport: Any) -> None:
    """Read all bytes into chunks again."""
    if _is_tcp(transport):
        vars(transport).pop("doRead", None)


def _is_tcp(transport: Any) -> bool:
    # Its import loads pyOpenSSL, which is needed only for TLS.
    tcp = sys.modules.get("twisted.internet.tcp")
    return tcp is not None and getattr(type(transport), "doRead", None) is tcp.Connection.doRead


class InPlaceReads:
    """Replaces the ``doRead`` of a socket (`twisted.internet.interfaces.IReadDescriptor`)."""

    __slots__ = ("_places", "_protocol", "_read_chunk", "_transport")

    def __init__(self, transport: Any, places: Places) -> None:
        self._transport = transport
        self._places = places
        # TLS may be started at any time; then another protocol gets the bytes.
        self._protocol = transport.protocol
        self._read_chunk = partial(type(transport).doRead, transport)

    def __call__(self) -> Any:
        """Read, and return why the connection must end, or None."""
        place = self._place()
        if place is None:
            end = self._look()
            place = self._place()
            if place is None:
                read_chunks(self._transport)
                self._places.chunks_only()
            if place is None or end is not None:
                return end
        for _ in range(MOST_READS):
            try:
                size = self._transport.socket.recv_into(place)
            except BlockingIOError:
                return None
            except OSError:
                return CONNECTION_LOST
            if not size:
                return CONNECTION_DONE
            self._places.placed(size)
            place = self._place()
            if place is None:
                break
        return None

    def _place(self) -> Any:
        place = self._places.place()
        # A transport that is lost has no protocol.
        return place if getattr(self._transport, "protocol", None) is self._protocol else None

    def _look(self) -> Any:
        transport = self._transport
        usual, transport.bufferSize = transport.bufferSize, LOOK
        try:
            return self._read_chunk()
        finally:
            transport.bufferSize = usual
