"""Tests of applications in Starlette, FastAPI, Quart and Socket.IO; tests/examples covers Django Channels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from ..support.patience import PATIENCE

PROGRAM = Path(__file__).parent / "applications.py"


class Applications:
    """The running program `applications.py`.

    Attributes:
        ports: the port of each application, by name.
        output: the program's whole output, after it ended.
    """

    def __init__(self, directory: Path) -> None:
        self.log = directory / "log"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(PROGRAM)],
                cwd=directory,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log.read_text()
        self.ports = json.loads(line)
        self.output = ""

    def url(self, name: str, path: str) -> str:
        return f"ws://127.0.0.1:{self.ports[name]}{path}"

    def stop(self) -> None:
        self.process.terminate()
        self.output, _ = self.process.communicate(timeout=PATIENCE)


@pytest.fixture(scope="module")
def applications(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Applications]:
    applications = Applications(tmp_path_factory.mktemp("applications"))
    yield applications
    if applications.process.poll() is None:
        applications.stop()


def test_starlette_has_subprotocols_and_the_state_of_its_lifespan(applications: Applications) -> None:
    with connect(applications.url("starlette", "/socket"), subprotocols=[Subprotocol("json")]) as client:
        assert client.subprotocol == "json"
        client.send('{"a": [1]}')
        assert json.loads(client.recv(PATIENCE)) == {"state": "yes", "data": {"a": [1]}}


def test_starlette_closes_with_1003_for_data_that_is_no_json(applications: Applications) -> None:
    with connect(applications.url("starlette", "/socket"), subprotocols=[Subprotocol("json")]) as client:
        client.send("{")
        with pytest.raises(ConnectionClosed):
            client.recv(PATIENCE)
        assert client.close_code == 1003


def test_fastapi_has_parameters_headers_and_dependencies_in_threads(applications: Applications) -> None:
    with connect(applications.url("fastapi", "/items/7?token=abc")) as client:
        assert client.response is not None and client.response.headers["X-Item"] == "7"
        client.send("hello")
        assert client.recv(PATIENCE) == "7 ABC hello"


@pytest.mark.parametrize("path", ["/items/7?token=bad", "/items/word?token=a", "/nothing"])
def test_fastapi_refuses_with_403(path: str, applications: Applications) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(applications.url("fastapi", path))
    assert refused.value.response.status_code == 403


def test_an_exception_in_fastapi_closes_with_1011(applications: Applications) -> None:
    with connect(applications.url("fastapi", "/items/7?token=abc")) as client:
        client.send("fail")
        with pytest.raises(ConnectionClosed):
            client.recv(PATIENCE)
        assert client.close_code == 1011


def test_quart_echoes(applications: Applications) -> None:
    with connect(applications.url("quart", "/echo")) as client:
        for text in ("a", "b"):
            client.send(text)
            assert client.recv(PATIENCE) == "quart " + text


def test_socket_io_can_emit_to_a_room(applications: Applications) -> None:
    url = applications.url("socketio", "/socket.io/?EIO=4&transport=websocket")
    with connect(url) as client:
        # Engine.IO 4: open (0), message (4); Socket.IO 5: connect (0), event (2).
        assert str(client.recv(PATIENCE)).startswith("0{")
        client.send("40")
        assert str(client.recv(PATIENCE)).startswith("40{")
        client.send('42["ask","me"]')
        assert client.recv(PATIENCE) == '42["answer",{"to":"me"}]'


def test_the_end_of_the_program_is_the_end_of_the_lifespan(applications: Applications) -> None:
    applications.stop()
    assert applications.process.returncode == 0
    assert "starlette has shut down\n" in applications.output
    assert "fastapi saw 1000\n" in applications.output
    # The log has FastAPI's KeyError, and Starlette's RuntimeError for the malformed JSON.
    assert applications.log.read_text().count("Traceback") == 2
