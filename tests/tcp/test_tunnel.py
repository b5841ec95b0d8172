"""Tunnels between programs of other projects, each in its own process, and the memory that a tunnel takes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.endpoints import clientFromString
from twisted.internet.error import ConnectionDone
from twisted.web.client import Agent, readBody
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from ..support.patience import PATIENCE
from ..support.waiting import await_start

MEBI = 1 << 20
LISTEN = "beastws:tcp:0:interface=127.0.0.1"
TWISTD = Path(sys.executable).with_name("twistd")
# The programs import the same package as these tests, in every directory. The current directory is not in the path.
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

pytestmark = pytest.mark.usefixtures("logged")


@contextmanager
def twistd(directory: Path, *arguments: str) -> Iterator[int]:
    """Run ``twistd``, and yield its port; check at the end that its log has no error."""
    log = directory / "twistd.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(TWISTD), "-n", "--pidfile=", *arguments],
            cwd=directory,
            env=ENVIRONMENT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        found = await_start(
            process,
            "the tunnel listens",
            lambda: re.search(r" \(WebSocket\) starting on (\d+)", log.read_text()),
            log.read_text,
        )
        yield int(found[1])
        process.terminate()
        # Since version 25, twistd exits by the signal itself.
        assert process.wait(PATIENCE) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.wait()
    assert not re.search(r"Traceback|Unhandled|#(error|critical)\b", log.read_text()), log.read_text()


class Always:
    """An endpoint factory for ``Agent`` that returns the same endpoint for every URI."""

    def __init__(self, endpoint: Any) -> None:
        self.endpoint = endpoint

    def endpointForURI(self, uri: Any) -> Any:
        return self.endpoint


# Twisted issues this warning for every ``Agent``.
@pytest.mark.filterwarnings("ignore:Using readBody with a transport:DeprecationWarning")
@pytest_twisted.ensureDeferred
async def test_twistd_web_can_be_read_through_a_tunnel(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(range(256)) * (5 * MEBI // 256))
    (tmp_path / "small.txt").write_text("hello")
    with twistd(tmp_path, "web", "--listen", f"{LISTEN}:target=/tunnel", "--path", str(tmp_path)) as port:
        endpoint = clientFromString(reactor, f"ws:127.0.0.1:{port}:target=/tunnel")
        agent = Agent.usingEndpointFactory(reactor, Always(endpoint))
        for name, status in (("small.txt", 200), ("big", 200), ("none", 404)):
            response: Any = await agent.request(b"GET", f"http://anything.example/{name}".encode())
            body = await readBody(response)
            assert response.code == status
            if status == 200:
                assert body == (tmp_path / name).read_bytes()


class Plain(socketserver.ThreadingTCPServer):
    """A plain TCP server from the standard library, which calls ``talk`` with each connection."""

    daemon_threads = True

    def __init__(self, talk: Any) -> None:
        self.talk = talk
        super().__init__(("127.0.0.1", 0), self.Handler)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.settimeout(PATIENCE)
            self.server.talk(self.request)  # type: ignore[attr-defined]


@contextmanager
def bridged(directory: Path, talk: Any) -> Iterator[str]:
    """Run ``twistd portforward`` in front of a plain server, and yield its URL."""
    with Plain(talk) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            to = ["--host", "127.0.0.1", "--dest_port", str(server.server_address[1])]
            with twistd(directory, "portforward", "--port", f"{LISTEN}:target=/tcp", *to) as port:
                yield f"ws://127.0.0.1:{port}/tcp"
        finally:
            server.shutdown()
            thread.join()


def dial(url: str) -> Any:
    """Connect with websockify's subprotocol, as a page in a browser does."""
    client = connect(url, subprotocols=["binary"], open_timeout=PATIENCE, close_timeout=PATIENCE, proxy=None)  # type: ignore[list-item]
    assert client.subprotocol == "binary"
    return client


class TestPortforward:
    """`twisted.protocols.portforward` through a tunnel."""

    def test_a_conversation_is_forwarded(self, tmp_path: Path) -> None:
        heard: list[bytes] = []

        def talk(connection: socket.socket) -> None:
            connection.sendall(b"hello\n")
            while data := connection.recv(100):
                heard.append(data)
                connection.sendall(data.upper())

        with bridged(tmp_path, talk) as url:
            with dial(url) as client:
                assert client.recv(PATIENCE) == b"hello\n"
                client.send(b"one")
                assert client.recv(PATIENCE) == b"ONE"
                # Two clients at once.
                with dial(url) as other:
                    assert other.recv(PATIENCE) == b"hello\n"
            assert client.close_code == 1000

    def test_a_close_of_the_server_is_forwarded(self, tmp_path: Path) -> None:
        def talk(connection: socket.socket) -> None:
            connection.sendall(bytes(MEBI))

        with bridged(tmp_path, talk) as url, dial(url) as client:
            received = b""
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    received += client.recv(PATIENCE)
            assert len(received) == MEBI
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1000

    def test_a_close_of_the_page_is_forwarded(self, tmp_path: Path) -> None:
        ended = threading.Event()

        def talk(connection: socket.socket) -> None:
            received = 0
            while data := connection.recv(MEBI):
                received += len(data)
            if received == 3 * MEBI:
                ended.set()

        with bridged(tmp_path, talk) as url:
            with dial(url) as client:
                for _ in range(3):
                    client.send(bytes(MEBI))
            assert ended.wait(PATIENCE)

    def test_text_is_refused(self, tmp_path: Path) -> None:
        with bridged(tmp_path, lambda connection: connection.recv(1)) as url, dial(url) as client:
            client.send("text")
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(PATIENCE)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1003


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="MEMORY IS NOT MEASURED: that takes Linux's /proc"
)
def test_a_tunnel_of_much_data_takes_little_memory() -> None:
    program = Path(__file__).with_name("carried.py")
    done = subprocess.run(
        [sys.executable, str(program), "64"], env=ENVIRONMENT, capture_output=True, text=True, timeout=6 * PATIENCE
    )
    assert done.stderr == ""
    outcome = json.loads(done.stdout)
    assert (outcome["octets"], outcome["end"]) == (64 * MEBI, ConnectionDone.__name__)
    assert outcome["growth"] < 4 * MEBI
