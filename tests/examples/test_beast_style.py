"""The example beast_style.py."""

from __future__ import annotations

from http.client import HTTPConnection
from pathlib import Path

from ..support.handshakes import SAMPLE_KEY
from ..support.patience import PATIENCE
from .processes import Example

UPGRADE = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}


def test_http_requests_are_answered_on_one_connection(tmp_path: Path) -> None:
    with Example("beast_style", tmp_path) as example:
        http = HTTPConnection("127.0.0.1", example.port, timeout=PATIENCE)
        http.connect()
        port = http.sock.getsockname()[1]
        for path in ("/a", "/b?c"):
            http.request("GET", path)
            response = http.getresponse()
            text = f"There is a WebSocket echo at {path.partition('?')[0]}, too.\n"
            assert (response.status, response.read().decode()) == (200, text)
            assert http.sock.getsockname()[1] == port
        http.request("GET", "/", headers={"Connection": "close"})
        assert http.getresponse().read() == b"There is a WebSocket echo at /, too.\n"
        http.close()


def test_a_decorated_answer_is_sent_and_texts_are_echoed(tmp_path: Path) -> None:
    with Example("beast_style", tmp_path) as example, example.connect() as client:
        assert client.response is not None
        assert client.response.headers["Server"] == "beast_style"
        assert client.response.headers["Set-Cookie"] == "seen=1; HttpOnly; SameSite=Strict"
        for message in ("text", b"binary", "x" * 500_000):
            client.send(message)
            assert client.recv(PATIENCE) == message
        client.close(4000)
        assert client.close_code == 4000


def test_a_failed_handshake_is_decorated_and_may_be_tried_again(tmp_path: Path) -> None:
    with Example("beast_style", tmp_path) as example:
        http = HTTPConnection("127.0.0.1", example.port, timeout=PATIENCE)
        for key, status in (("short", 400), (SAMPLE_KEY, 101)):
            http.request("GET", "/", headers={**UPGRADE, "Sec-WebSocket-Key": key})
            response = http.getresponse()
            assert (response.status, response.headers["Server"]) == (status, "beast_style")
            assert ("Set-Cookie" in response.headers) is (status == 101)
            response.read()
        http.close()


def test_bytes_that_are_not_http_end_only_their_own_connection(tmp_path: Path) -> None:
    with Example("beast_style", tmp_path) as example, example.connect() as client:
        http = HTTPConnection("127.0.0.1", example.port, timeout=PATIENCE)
        http.connect()
        http.sock.sendall(b"hello\r\n\r\n")
        assert http.sock.recv(1 << 16).startswith(b"HTTP/1.1 400 ")
        http.close()
        client.send("still here")
        assert client.recv(PATIENCE) == "still here"
