"""The examples echo.py and echo_client.py, which a conformance suite can test."""

from __future__ import annotations

from pathlib import Path
from threading import Thread

from websockets.sync.server import ServerConnection, serve

from ..support.patience import PATIENCE
from .processes import Example, run


def test_the_server_can_echo(tmp_path: Path) -> None:
    with Example("echo", tmp_path) as example, example.connect("/any?path") as client:
        assert client.response is not None
        assert client.response.headers["Sec-WebSocket-Extensions"] == "permessage-deflate"
        for message in ("", "text", b"", b"binary", "x" * (16 << 20)):
            client.send(message)
            assert client.recv(PATIENCE) == message


class Suite:
    """A fuzzing server with three cases; each is an exchange of messages with the client."""

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


def test_the_client_can_talk(tmp_path: Path) -> None:
    suite = Suite()
    with serve(suite.handle, "127.0.0.1", 0) as server:
        Thread(target=server.serve_forever).start()
        done = run("echo_client", tmp_path, "--url", f"ws://127.0.0.1:{server.socket.getsockname()[1]}")
    assert (done.returncode, done.stdout) == (0, "echoed in 3 cases\n"), done.stderr
    cases = [f"/runCase?case={case}&agent=twisted_beastws" for case in (1, 2, 3)]
    assert suite.targets == ["/getCaseCount", *cases, "/updateReports?agent=twisted_beastws"]
    assert suite.answers == ["text", b"binary"] * 2
