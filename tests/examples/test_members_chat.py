"""The example members_chat.py: the login covers the page and the WebSocket, and SIGHUP opens the log again."""

from __future__ import annotations

import signal
from base64 import b64encode
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from ..support.patience import PATIENCE
from ..support.waiting import await_that
from .processes import Example


def login(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{name}:{password}".encode()).decode()}


def test_members_can_chat_and_others_are_refused(tmp_path: Path) -> None:
    (tmp_path / "passwords").write_text("ann:apple\nbob:berry\n")
    log = tmp_path / "access.log"
    options = ("--access-log", str(log), "--trust-proxy", "127.0.0.1")
    with Example("members_chat", tmp_path, *options) as example:
        for headers in ({}, login("ann", "wrong"), login("eve", "apple")):
            response, _ = example.fetch("/", headers)
            assert (response.status, "Basic" in response.headers["WWW-Authenticate"]) == (401, True)
            with pytest.raises(InvalidStatus) as refused, example.connect("/chat", additional_headers=headers):
                pass
            assert refused.value.response.status_code == 401
        response, page = example.fetch("/", login("ann", "apple"))
        assert response.status == 200 and "<title>Members</title>" in page
        forwarded = {**login("bob", "berry"), "X-Forwarded-For": "192.0.2.7"}
        with (
            example.connect("/chat", additional_headers=login("ann", "apple")) as ann,
            example.connect("/chat", additional_headers=forwarded) as bob,
        ):
            ann.send("hello")
            assert (ann.recv(PATIENCE), bob.recv(PATIENCE)) == ("ann: hello", "ann: hello")
            bob.close()
            await_that("the end is logged", lambda: "address=192.0.2.7" in log.read_text())
            log.rename(tmp_path / "old.log")
            example.process.send_signal(signal.SIGHUP)
            await_that("the log is opened again", log.exists)
            example.terminate()
            with pytest.raises(ConnectionClosed):
                ann.recv(PATIENCE)
            assert ann.close_code == 1001
            ann.close()
        example.process.wait(PATIENCE)
    assert "user=bob target=/chat" in (tmp_path / "old.log").read_text()
    assert "user=ann target=/chat" in log.read_text() and "code=1001 began=local" in log.read_text()
