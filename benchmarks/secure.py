"""The load generator's end of TLS: the ``ssl`` module on sockets that do not block."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence

RECORD = 1 << 14
"""The maximum of bytes in one record (RFC 8446 §5.1)."""


class Secure:
    """Read and write ``connections`` over TLS, by their descriptors. No session is resumed.

    shaking: the descriptors of connections in the handshake.
    """

    def __init__(self, connections: dict[int, ssl.SSLSocket]) -> None:
        self._connections = connections
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # Verification takes time of the client alone, and the benchmarks measure the servers.
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE
        self.shaking: set[int] = set()

    def wrap(self, connection: socket.socket) -> ssl.SSLSocket:
        """Return the connection over TLS, before its handshake."""
        return self._context.wrap_socket(connection, do_handshake_on_connect=False)

    def shake(self, connection: ssl.SSLSocket) -> bool:
        """Continue the handshake; return whether it is complete."""
        try:
            connection.do_handshake()
        except ssl.SSLWantReadError:
            self.shaking.add(connection.fileno())
            return False
        self.shaking.discard(connection.fileno())
        return True

    def readv(self, fd: int, room: Sequence[bytearray]) -> int | None:
        """Read the received data into ``room``; return 0 at the end, None if no data has arrived."""
        read = self._connections[fd].recv_into
        size = 0
        try:
            size = read(room[0])
            if size == RECORD:
                view = memoryview(room[0])
                while size < len(view) and (more := read(view[size:])):
                    size += more
        except ssl.SSLWantReadError:
            return size or None
        return size

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """Write all of ``data``, or return 0: then call again with the same data."""
        try:
            return self._connections[fd].send(data)
        except ssl.SSLWantWriteError:
            return 0
