"""Two listings that stand beside each other do the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from twisted_beastws.testing import connected_pair

from ..support.patience import PATIENCE
from .programs import defined, expect_refusal, listings, run_listing, running_listing, talking

PAGES = ("autobahn", "twisted-web-websocket", "websockets")
EITHER = pytest.mark.parametrize("which", [0, 1], ids=["theirs", "ours"])


@pytest.mark.parametrize("page", PAGES)
@EITHER
def test_servers_echo(page: str, which: int, tmp_path: Path) -> None:
    with running_listing(listings(f"coming-from/{page}")[which], tmp_path) as port, talking(port) as client:
        for message in ("text", b"binary"):
            client.send(message)
            assert client.recv(PATIENCE) == message


@pytest.mark.parametrize("page", PAGES)
def test_servers_without_their_port_end(page: str, tmp_path: Path) -> None:
    expect_refusal(listings(f"coming-from/{page}")[1], tmp_path)


@pytest.mark.parametrize("page", PAGES)
@EITHER
def test_clients_talk(page: str, which: int, tmp_path: Path) -> None:
    server = listings("coming-from/autobahn")[1]
    with running_listing(server, tmp_path, "server.py") as port:
        done = run_listing(listings(f"coming-from/{page}")[2 + which], tmp_path, port)
    assert (done.returncode, done.stdout) == (0, "hello\nclosed 1000\n"), done.stderr


def test_a_handler_in_inline_callbacks() -> None:
    pair = connected_pair(defined(listings("coming-from/autobahn")[6])["factory"])
    pair.client.send("Ada")
    pair.flush()
    assert pair.client.receive().result == "Hello, Ada"


@pytest.mark.parametrize("page", ["autobahn", "websockets"])
@EITHER
def test_servers_refuse(page: str, which: int, tmp_path: Path) -> None:
    with running_listing(listings(f"coming-from/{page}")[4 + which], tmp_path) as port:
        with talking(port, subprotocols=["chat"], additional_headers={"X-Token": "s3cret"}) as client:
            client.send("text")
            assert client.recv(PATIENCE) == "text"
            assert client.subprotocol == "chat" and client.response is not None
            assert client.response.headers["X-Server"] == "one"
        with pytest.raises(InvalidStatus) as refused, talking(port, additional_headers={"X-Token": "wrong"}):
            pass
    assert refused.value.response.status_code == 401
