"""The example channels_chat.py, as a program and under the service."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from ..support.patience import PATIENCE
from ..support.ports import free_port
from ..support.waiting import await_that
from .processes import ENVIRONMENT, EXAMPLES, Example


def said(client: ClientConnection) -> Any:
    return json.loads(client.recv(PATIENCE))["text"]


def talk(url: str) -> None:
    """Check that the members of a room receive its messages, and members of other rooms do not."""
    with connect(url + "a") as ann, connect(url + "a") as bob, connect(url + "b") as eve:
        ann.send('{"text": "hello"}')
        assert said(ann) == said(bob) == "hello"
        eve.send('{"text": "alone"}')
        assert said(eve) == "alone"


def test_rooms_are_groups_of_channels(tmp_path: Path) -> None:
    with Example("channels_chat", tmp_path) as example:
        talk(f"ws://127.0.0.1:{example.port}/chat/")


def test_the_service_serves_it(tmp_path: Path) -> None:
    port = free_port()
    command = [str(Path(sys.executable).parent / "twistd"), "-n", "--pidfile=", "beastws"]
    command += [f"--listen=tcp:{port}:interface=127.0.0.1", "--app=asgi:channels_chat:application"]
    log = tmp_path / "log"
    with log.open("wb") as output:
        service = subprocess.Popen(command, cwd=EXAMPLES, env=ENVIRONMENT, stdout=output, stderr=output)
    try:
        await_that("the service listens", lambda: "serving ws://" in log.read_text(), log.read_text)
        talk(f"ws://127.0.0.1:{port}/chat/")
    finally:
        service.terminate()
        assert service.wait(PATIENCE) == 0
    assert "Traceback" not in log.read_text()
