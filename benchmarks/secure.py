"""The load generator's end of TLS: the ``ssl`` module, and pyOpenSSL where connections end after the handshake."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from OpenSSL import SSL

RECORD = 1 << 14
"""The maximum of bytes in one record (RFC 8446 §5.1)."""

HEADER = 5
EXPANSION = 17
"""Bytes of a record beyond its data: the content type, and the tag of an AEAD cipher (RFC 8446 §5.2)."""


class Counter:
    """Counts the bytes of data in the received records of one connection, without decrypting them."""

    def __init__(self) -> None:
        self._header = b""
        self._size = self._left = 0

    def count(self, received: memoryview) -> int:
        """Return the bytes of data in the records that end in ``received``."""
        data = at = 0
        end = len(received)
        while at < end:
            if self._left:
                step = min(self._left, end - at)
                self._left -= step
                at += step
                if not self._left:
                    data += self._size - EXPANSION
                continue
            step = HEADER - len(self._header)
            self._header += received[at : at + step]
            at += step
            if len(self._header) == HEADER:
                self._size = self._left = int.from_bytes(self._header[3:], "big")
                self._header = b""
        return data


class Secure:
    """Read and write ``connections`` over TLS, by their descriptors. No session is resumed."""

    def __init__(self, connections: dict[int, ssl.SSLSocket]) -> None:
        self._connections = connections
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # Verification takes time of the client alone, and the benchmarks measure the servers.
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE
        self._counters: dict[int, Counter] = {}

    def wrap(self, connection: socket.socket) -> ssl.SSLSocket:
        """Return the connection over TLS, before its handshake."""
        return self._context.wrap_socket(connection, do_handshake_on_connect=False)

    def count(self, fd: int, room: Sequence[bytearray]) -> int | None:
        """Read records into ``room``; return the bytes of data in them, 0 at the end, None without a whole record."""
        try:
            size = os.readv(fd, room)
        except BlockingIOError:
            return None
        if not size:
            return 0
        counter = self._counters.get(fd)
        if counter is None:
            counter = self._counters[fd] = Counter()
        return counter.count(memoryview(room[0])[:size]) or None

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """Write all of ``data``, or return 0: then call again with the same data."""
        try:
            return self._connections[fd].send(data)
        except ssl.SSLWantWriteError:
            return 0


class Shaking:
    """Do the handshake of ``connections`` over TLS, read and write them, by their descriptors. No session is resumed.

    pyOpenSSL brings an OpenSSL of its own, whose handshakes take a client a third less time than those of the one that
    Python 3.11 brings.

    unfinished: the descriptors of connections in the handshake of TLS.
    """

    def __init__(self, connections: dict[int, SSL.Connection]) -> None:
        self._connections = connections
        self._context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        # The key exchange must cost every server the same: by default, each OpenSSL chooses another group.
        self._context.set_tmp_ecdh(SECP256R1())
        self.unfinished: set[int] = set()

    def wrap(self, connection: socket.socket) -> SSL.Connection:
        """Return the connection over TLS, before its handshake."""
        secured = SSL.Connection(self._context, connection)
        secured.set_connect_state()
        return secured

    def shake(self, fd: int) -> bool:
        """Continue the handshake; return whether it is complete."""
        try:
            self._connections[fd].do_handshake()
        except SSL.WantReadError:
            self.unfinished.add(fd)
            return False
        self.unfinished.discard(fd)
        return True

    def readv(self, fd: int, room: Sequence[bytearray]) -> int | None:
        """Read received data into ``room``; return 0 at the end, None if no data has arrived."""
        try:
            return self._connections[fd].recv_into(room[0])
        except SSL.WantReadError:
            return None
        except (SSL.ZeroReturnError, SSL.SysCallError):
            return 0

    def write(self, fd: int, data: bytes) -> int:
        """Write all of ``data``, which must be short."""
        return self._connections[fd].send(data)
