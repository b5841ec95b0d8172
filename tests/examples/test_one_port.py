"""The example one_port.py."""

from __future__ import annotations

import re
import shlex
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from shutil import which

import pytest
from websockets.sync.client import connect

from ..support.certificates import identity_pem
from ..support.handshakes import upgrade_request
from ..support.patience import PATIENCE
from ..support.turns import in_turns
from .processes import EXAMPLES, Example

HANDSHAKE = upgrade_request("/").replace(b"websocket", b"WebSocket")
HELLO = bytes.fromhex("8185 00000000 68656c6c6f")
ANSWER = bytes.fromhex("8105 68656c6c6f")


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    """The example with an identity: no test changes it."""
    directory = tmp_path_factory.mktemp("one_port")
    (directory / "identity.pem").write_bytes(identity_pem())
    with Example("one_port", directory, "--identity", "identity.pem") as example:
        yield example


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=identity_pem().decode())
    # Browsers offer these protocols.
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def read_until(connection: socket.socket, end: bytes) -> bytes:
    read = b""
    while not read.endswith(end):
        octets = connection.recv(1 << 16)
        assert octets, read
        read += octets
    return read


def plain(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), PATIENCE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def secured(port: int) -> socket.socket:
    return trusting().wrap_socket(plain(port), server_hostname="localhost")


BOTH = pytest.mark.parametrize("reach", [plain, secured])


@BOTH
def test_a_page_is_served(example: Example, reach: Callable[[int], socket.socket]) -> None:
    http = HTTPConnection("localhost", timeout=PATIENCE)
    http.sock = reach(example.port)
    for path, status in (("/", 200), ("/elsewhere", 404), ("/", 200)):
        http.request("GET", path)
        response = http.getresponse()
        assert (response.status, response.headers["Server"][:10]) == (status, "TwistedWeb")
        assert (b"<title>One port</title>" in response.read()) is (status == 200)
    http.close()


@BOTH
def test_a_websocket_is_served(example: Example, reach: Callable[[int], socket.socket]) -> None:
    scheme = "ws" if reach is plain else "wss"
    context = None if reach is plain else in_turns(trusting())
    with connect(f"{scheme}://localhost/", sock=plain(example.port), ssl=context, proxy=None) as client:
        for message in ("text", "x" * 500_000):
            client.send(message)
            assert client.recv(PATIENCE) == message
    assert client.close_code == 1000


@BOTH
def test_the_protocol_is_recognized_in_any_chunks(example: Example, reach: Callable[[int], socket.socket]) -> None:
    for size in (1, 7, 100, 1000):
        with reach(example.port) as connection:
            octets = HANDSHAKE + HELLO
            for at in range(0, len(octets), size):
                connection.sendall(octets[at : at + size])
            assert read_until(connection, ANSWER).startswith(b"HTTP/1.1 101 ")


@BOTH
def test_a_handshake_that_fails_is_answered(example: Example, reach: Callable[[int], socket.socket]) -> None:
    with reach(example.port) as connection:
        connection.sendall(HANDSHAKE.replace(b"dGhl", b""))
        assert read_until(connection, b"is invalid").startswith(b"HTTP/1.1 400 ")
        assert connection.recv(1) == b""


def test_a_body_is_not_interpreted(example: Example) -> None:
    body = b"\r\nUpgrade: websocket\r\n"
    with plain(example.port) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 405 ")


def test_another_protocol_is_refused(example: Example) -> None:
    with plain(example.port) as connection:
        connection.sendall(b"x" * 20_000)
        with suppress(ConnectionResetError):
            assert connection.recv(1) == b""


def test_tls_is_refused_without_an_identity(tmp_path: Path) -> None:
    with Example("one_port", tmp_path) as example:
        assert example.fetch("/")[0].status == 200
        with plain(example.port) as connection:
            connection.sendall(b"\x16\x03\x01\r\n\r\n")
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 400 ")


@pytest.mark.skipif(which("openssl") is None, reason="THE COMMAND OF ONE_PORT IS NOT TESTED: apt-get install openssl")
def test_the_command_in_the_example_makes_an_identity(tmp_path: Path) -> None:
    (command,) = re.findall(r"^ +(openssl .*)$", (EXAMPLES / "one_port.py").read_text(), re.MULTILINE)
    subprocess.run(shlex.split(command), cwd=tmp_path, check=True, timeout=PATIENCE, capture_output=True)
    with Example("one_port", tmp_path, "--identity", "identity.pem") as example:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        http = HTTPSConnection("127.0.0.1", example.port, timeout=PATIENCE, context=context)
        http.request("GET", "/")
        assert http.getresponse().status == 200
        http.close()
