"""Small servers for a proxy, which stop and start like a service during a rolling restart."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress

from ..support.handshakes import switching, upgrade_request
from ..support.patience import PATIENCE

UPGRADE = upgrade_request()
SWITCHING = switching(UPGRADE)
READY = b"HTTP/1.0 200 OK\r\n\r\n"


class Backend:
    """Answers every request with ``answer``, on a port of 127.0.0.1, or on the UNIX socket of a path."""

    def __init__(self, address: int | str, answer: bytes) -> None:
        self._address = address
        self._answer = answer
        self._listening: socket.socket | None = None

    def start(self) -> None:
        if isinstance(self._address, int):
            self._listening = socket.create_server(("127.0.0.1", self._address))
        else:
            self._listening = socket.socket(socket.AF_UNIX)
            self._listening.bind(self._address)
            self._listening.listen()
        threading.Thread(target=self._serve, args=(self._listening,), daemon=True).start()

    def stop(self) -> None:
        """Listen no more: connections are refused."""
        listening, self._listening = self._listening, None
        if listening is None:
            return
        # It wakes the thread that accepts.
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        if isinstance(self._address, str):
            os.unlink(self._address)

    def _serve(self, listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listening.accept()
                with suppress(OSError), client:
                    client.settimeout(PATIENCE)
                    head = b""
                    while b"\r\n\r\n" not in head and (data := client.recv(4096)):
                        head += data
                    client.sendall(self._answer)


def status(port: int) -> int:
    """The status of the answer to a WebSocket handshake."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        client.sendall(UPGRADE)
        head = b""
        while len(head) < 12 and (data := client.recv(12 - len(head))):
            head += data
    return int(head[9:12] or 0)
