"""The example tunnel.py."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread

import pytest
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from ..support.patience import PATIENCE
from ..support.ports import free_port
from .processes import Example


class EchoHandler(StreamRequestHandler):
    """Echo data until a line ``bye`` arrives, then disconnect."""

    timeout = PATIENCE

    def handle(self) -> None:
        while (octets := self.connection.recv(1 << 16)) and not octets.endswith(b"bye\n"):
            self.connection.sendall(octets)


@contextmanager
def echoing() -> Iterator[int]:
    with ThreadingTCPServer(("127.0.0.1", 0), EchoHandler) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def far_end(directory: Path, port: int) -> Example:
    return Example("tunnel", directory, "--to", f"tcp:127.0.0.1:{port}", listen="beastws:target=/ssh:tcp")


def near_end(directory: Path, port: int) -> Example:
    return Example("tunnel", directory, "--to", f"ws:127.0.0.1:{port}:target=/ssh")


def entering(example: Example) -> socket.socket:
    return socket.create_connection(("127.0.0.1", example.port), PATIENCE)


def test_bytes_are_passed_there_and_back(tmp_path: Path) -> None:
    octets = os.urandom(8 << 20)
    with echoing() as port, far_end(tmp_path, port) as far, near_end(tmp_path, far.port) as near:
        with entering(near) as connection:
            sender = Thread(target=connection.sendall, args=(octets,), daemon=True)
            sender.start()
            received = bytearray()
            while len(received) < len(octets) and (piece := connection.recv(1 << 16)):
                received += piece
            assert received == octets
            sender.join()
        # A second connection; the service disconnects, and the client sees the end.
        with entering(near) as connection:
            connection.sendall(b"hello\n")
            assert connection.recv(1 << 16) == b"hello\n"
            connection.sendall(b"bye\n")
            assert connection.recv(1 << 16) == b""


def test_the_tunnel_carries_binary_messages_of_a_websocket(tmp_path: Path) -> None:
    with echoing() as port, far_end(tmp_path, port) as far:
        with far.connect("/ssh", subprotocols=[Subprotocol("binary")]) as client:
            assert client.subprotocol == "binary"
            client.send(b"hello")
            assert client.recv(PATIENCE) == b"hello"
        with pytest.raises(InvalidStatus, match="404"):
            far.connect("/elsewhere")


def test_a_tunnel_without_far_end_is_reset(tmp_path: Path) -> None:
    with near_end(tmp_path, free_port()) as near, entering(near) as connection:
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
        near.await_log("no way out for .*127.0.0.1.*refused")
