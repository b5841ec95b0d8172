"""The example django_shop.py: a Django program publishes to browsers through the API of the service."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from websockets.sync.client import connect
from websockets.typing import Subprotocol

from ..support.browser import chromium
from ..support.patience import PATIENCE
from ..support.ports import free_port
from ..support.waiting import await_that
from .processes import ENVIRONMENT, Program

TOKEN = "0123456789abcdef0123456789abcdef"


class Shop(Program):
    """The Django program, and the service whose API it calls."""

    def __init__(self, directory: Path, chat: int, api: int, port: int, *options: str) -> None:
        addresses = (f"--port={port}", f"--chat=ws://127.0.0.1:{chat}/chat", f"--api=http://127.0.0.1:{api}")
        super().__init__("django_shop", directory, *addresses, *options)
        self.port = int(self.await_log(r"^serving http://localhost:(\d+)/")[1])

    def order(self, text: str, method: str = "POST") -> tuple[int, str]:
        http = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        http.request(method, "/orders", text.encode())
        response = http.getresponse()
        body = response.read().decode()
        http.close()
        return response.status, body


@contextmanager
def service(directory: Path, *options: str) -> Iterator[tuple[int, int]]:
    """The service; the ports of its chat and of its API."""
    (directory / "tokens").write_text(f"{TOKEN}\n")
    listen = ["--listen=tcp:0:interface=127.0.0.1", "--api=tcp:0:interface=127.0.0.1", "--api-token-file=tokens"]
    command = [str(Path(sys.executable).parent / "twistd"), "-n", "--pidfile=", "beastws", *listen, *options]
    log = directory / "service.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=directory, env=ENVIRONMENT, stdout=output, stderr=output)
    try:
        form = r"http://127\.0\.0\.1:(\d+)/api/publish.*ws://127\.0\.0\.1:(\d+)/chat"
        found = await_that("it listens", lambda: re.search(form, log.read_text(), re.DOTALL), log.read_text)
        yield int(found[2]), int(found[1])
    finally:
        process.terminate()
        assert process.wait(PATIENCE) == 0
    assert "Traceback" not in log.read_text()


def next_text(client: Any) -> str:
    """The text of the next message that a member sent."""
    while (event := json.loads(client.recv(PATIENCE)))["type"] != "message":
        pass
    return str(event["text"])


def test_an_order_reaches_clients_and_each_fault_has_its_error(tmp_path: Path) -> None:
    with service(tmp_path, "--max-message=1000") as (chat, api), Shop(tmp_path, chat, api, 0) as shop:
        url, protocols = f"ws://127.0.0.1:{chat}/chat/orders?after=0-0", [Subprotocol("chat.v1+json")]
        with connect(url, subprotocols=protocols, proxy=None) as client:
            status, order = shop.order("two cups of tea")
            assert status == 200 and re.fullmatch(r"\d+-\d+\n", order)
            assert next_text(client) == "two cups of tea"
        # A page that comes later gets the order from the history.
        with connect(url, subprotocols=protocols, proxy=None) as client:
            assert next_text(client) == "two cups of tea"
        status, reason = shop.order("x" * 1001)
        assert status == 502 and reason.startswith("too_large: ")
        # The Django program's token is none of the service's now.
        (tmp_path / "own").write_text("another-token-of-the-shop\n")
        with Shop(tmp_path, chat, api, 0, "--token-file=own") as stranger:
            status, reason = stranger.order("tea")
            assert status == 502 and reason.startswith("not_authorized: a wrong token")
        assert shop.order("", method="GET")[0] == 405


def test_a_browser_shows_the_orders(tmp_path: Path) -> None:
    port = free_port()
    with (
        service(tmp_path, f"--origin=http://127.0.0.1:{port}") as (chat, api),
        Shop(tmp_path, chat, api, port) as shop,
        chromium(tmp_path, "THE SHOP'S PAGE IS") as driver,
    ):
        driver.get(f"http://127.0.0.1:{port}/")
        assert shop.order("<b>tea</b>")[0] == 200
        texts = "return [...document.querySelectorAll('li')].map(item => item.textContent)"
        await_that("the page shows the order", lambda: driver.execute_script(texts) == ["<b>tea</b>"])
        assert driver.execute_script("return state.textContent") == "live"
        driver.get("about:blank")
