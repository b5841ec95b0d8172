"""Every example, run as its docstring says."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from threading import Thread

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import ServerConnection, serve

EXAMPLES = Path(__file__).parents[1] / "examples"
PATIENCE = 20.0  # seconds, for anything awaited here
# What these tests import is what the examples do, from whatever directory.
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


class Example:
    def __init__(self, name: str, directory: Path) -> None:
        self.log_file = directory / f"{name}.log"
        command = [sys.executable, str(EXAMPLES / f"{name}.py"), "--listen", "tcp:0:interface=127.0.0.1"]
        with self.log_file.open("wb") as output:
            self.process = subprocess.Popen(
                command, cwd=directory, env=ENVIRONMENT, stdout=output, stderr=subprocess.STDOUT
            )

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def await_port(self) -> int:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self.process.poll() is None:
            if found := re.search(r"^listening on .*\bport=(\d+)", self.log, re.MULTILINE):
                return int(found[1])
            time.sleep(0.02)
        pytest.fail(f"it does not listen:\n{self.log}")

    def connect(self, path: str = "/") -> ClientConnection:
        return connect(f"ws://127.0.0.1:{self.port}{path}", proxy=None, max_size=None)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def __enter__(self) -> Example:
        try:
            self.port = self.await_port()
        except BaseException:
            self.kill()
            raise
        return self

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def __exit__(self, *_: object) -> None:
        try:
            self.terminate()
            self.process.wait(PATIENCE)
        finally:
            self.kill()
        assert not re.search(r"Traceback|Unhandled|#(error|critical)\b", self.log), self.log


@contextmanager
def joined(example: Example) -> Iterator[ClientConnection]:
    with example.connect() as client:
        assert client.recv(PATIENCE) == "Welcome to the chat!"
        yield client


def test_every_example_is_tested_here() -> None:
    tested = re.findall(r'(?:Example\(|EXAMPLES / )"(\w+)', Path(__file__).read_text())
    assert set(tested) == {path.stem for path in EXAMPLES.glob("*.py")}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_each_says_how_to_run_it_and_stands_alone(path: Path) -> None:
    tree = ast.parse(path.read_text())
    option = "--url ws:" if path.stem == "echo_client" else "--listen tcp:"
    assert f"``python {path.name} [{option}" in (ast.get_docstring(tree) or "")
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name for name in imported if name.startswith("twisted_beastws")} == {"twisted_beastws"}


def test_echo(tmp_path: Path) -> None:
    with Example("echo", tmp_path) as example, example.connect("/any?path") as client:
        assert client.response is not None
        assert client.response.headers["Sec-WebSocket-Extensions"] == "permessage-deflate"
        for message in ("", "text", b"", b"binary", "x" * (16 << 20)):
            client.send(message)
            assert client.recv(PATIENCE) == message


class Suite:
    """A fuzzing server of three cases, each an exchange with the client."""

    def __init__(self) -> None:
        self.targets: list[str] = []
        self.answers: list[str | bytes] = []

    def handle(self, ws: ServerConnection) -> None:
        assert ws.request is not None
        self.targets.append(ws.request.path)
        if ws.request.path == "/getCaseCount":
            ws.send("3")
        elif ws.request.path.startswith("/runCase?case=2&"):
            ws.close(4000)
        elif ws.request.path.startswith("/runCase?"):
            for message in ("text", b"binary"):
                ws.send(message)
                self.answers.append(ws.recv(PATIENCE))


def test_echo_client(tmp_path: Path) -> None:
    suite = Suite()
    with serve(suite.handle, "127.0.0.1", 0) as server:
        Thread(target=server.serve_forever).start()
        url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        command = [sys.executable, str(EXAMPLES / "echo_client.py"), "--url", url]
        done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout) == (0, "echoed in 3 cases\n"), done.stderr
    cases = [f"/runCase?case={case}&agent=twisted_beastws" for case in (1, 2, 3)]
    assert suite.targets == ["/getCaseCount", *cases, "/updateReports?agent=twisted_beastws"]
    assert suite.answers == ["text", b"binary"] * 2


class TestChat:
    def test_texts_go_to_everyone(self, tmp_path: Path) -> None:
        with Example("chat", tmp_path) as example, joined(example) as one, joined(example) as other:
            one.send("from one")
            other.send("from the other")
            assert {one.recv(PATIENCE), one.recv(PATIENCE)} == {"from one", "from the other"}
            assert {other.recv(PATIENCE), other.recv(PATIENCE)} == {"from one", "from the other"}

    def test_a_binary_message_closes_its_sender(self, tmp_path: Path) -> None:
        with Example("chat", tmp_path) as example, joined(example) as one, joined(example) as other:
            one.send(b"binary")
            with pytest.raises(ConnectionClosed):
                one.recv(PATIENCE)
            assert (one.close_code, one.close_reason) == (1003, "text only")
            other.send("still here")
            assert other.recv(PATIENCE) == "still here"

    def test_its_end_is_told(self, tmp_path: Path) -> None:
        with Example("chat", tmp_path) as example, joined(example) as one:
            example.terminate()
            with pytest.raises(ConnectionClosed):
                one.recv(PATIENCE)
            assert one.close_code == 1001


class TestBeastStyle:
    def test_answers_http_on_one_connection(self, tmp_path: Path) -> None:
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

    def test_accepts_with_a_decorated_answer_and_echoes(self, tmp_path: Path) -> None:
        with Example("beast_style", tmp_path) as example, example.connect() as client:
            assert client.response is not None
            assert client.response.headers["Server"] == "beast_style"
            assert client.response.headers["Set-Cookie"] == "seen=1; HttpOnly; SameSite=Strict"
            for message in ("text", b"binary", "x" * 500_000):
                client.send(message)
                assert client.recv(PATIENCE) == message
            client.close(4000)
            assert client.close_code == 4000

    def test_a_failed_handshake_is_decorated_and_may_be_tried_again(self, tmp_path: Path) -> None:
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        with Example("beast_style", tmp_path) as example:
            http = HTTPConnection("127.0.0.1", example.port, timeout=PATIENCE)
            for key, status in (("short", 400), ("dGhlIHNhbXBsZSBub25jZQ==", 101)):
                http.request("GET", "/", headers={**upgrade, "Sec-WebSocket-Key": key})
                response = http.getresponse()
                assert (response.status, response.headers["Server"]) == (status, "beast_style")
                assert ("Set-Cookie" in response.headers) is (status == 101)
                response.read()
            http.close()

    def test_what_is_not_http_ends_its_connection_alone(self, tmp_path: Path) -> None:
        with Example("beast_style", tmp_path) as example, example.connect() as client:
            http = HTTPConnection("127.0.0.1", example.port, timeout=PATIENCE)
            http.connect()
            http.sock.sendall(b"hello\r\n\r\n")
            assert http.sock.recv(1 << 16).startswith(b"HTTP/1.1 400 ")
            http.close()
            client.send("still here")
            assert client.recv(PATIENCE) == "still here"


class TestUnderTwistedWeb:
    def test_the_page_and_what_it_talks_to(self, tmp_path: Path) -> None:
        with Example("under_twisted_web", tmp_path) as example, example.connect("/echo") as client:
            response, page = fetch(example, "/")
            assert (response.status, response.headers["Content-Type"]) == (200, "text/html")
            assert '.replace("http", "ws") + "/echo"' in page
            client.send("text")
            assert client.recv(PATIENCE) == "text"

    def test_a_resource_that_is_both(self, tmp_path: Path) -> None:
        with Example("under_twisted_web", tmp_path) as example, example.connect("/greet") as client:
            client.send("Ada")
            assert client.recv(PATIENCE) == "Hello, Ada! You are 127.0.0.1."
            response, page = fetch(example, "/greet")
            assert (response.status, page) == (200, "Send your name to this WebSocket.\n")

    def test_one_it_refuses(self, tmp_path: Path) -> None:
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "short"}
        with Example("under_twisted_web", tmp_path) as example:
            for path in ("/echo", "/greet"):
                assert fetch(example, path, upgrade)[0].status == 400
            with example.connect("/greet") as client:
                client.send("Ada")
                assert client.recv(PATIENCE) == "Hello, Ada! You are 127.0.0.1."


def fetch(example: Example, path: str, headers: dict[str, str] | None = None) -> tuple[HTTPResponse, str]:
    http = HTTPConnection("127.0.0.1", example.port, timeout=PATIENCE)
    try:
        http.request("GET", path, headers=headers or {})
        response = http.getresponse()
        return response, response.read().decode()
    finally:
        http.close()
