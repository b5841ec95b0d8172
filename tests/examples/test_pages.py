"""The examples' pages in headless Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..support.browser import chromium
from ..support.certificates import identity_pem
from ..support.waiting import await_that
from .processes import Example

ENTER = "\ue007"


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("chromium"), "THE EXAMPLES' PAGES ARE") as driver:
        yield driver


class Page:
    def __init__(self, driver: Any, address: str) -> None:
        self.driver = driver
        driver.get(address)

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def await_text(self, selector: str, text: str) -> None:
        await_that(
            f"{selector} says {text!r}", lambda: text in self.find(selector).text, lambda: self.find("body").text
        )


@pytest.fixture
def page(driver: Any) -> Iterator[Any]:
    yield lambda address: Page(driver, address)
    # Leave the page, so that it does not reconnect to a server that has exited.
    driver.get("about:blank")


def test_the_page_of_the_echo_server_is_usable(page: Any, tmp_path: Path) -> None:
    with Example("under_twisted_web", tmp_path) as example:
        shown = page(f"http://127.0.0.1:{example.port}/")
        await_that("it is connected", lambda: shown.driver.execute_script("return socket.readyState === 1"))
        shown.find("input").send_keys("na\u00efve", ENTER)
        shown.await_text("pre", "na\u00efve")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_page_of_one_port_is_usable(page: Any, tmp_path: Path, scheme: str) -> None:
    (tmp_path / "identity.pem").write_bytes(identity_pem())
    with Example("one_port", tmp_path, "--identity", "identity.pem") as example:
        shown = page(f"{scheme}://127.0.0.1:{example.port}/")
        shown.await_text("#socket", f"answers at {scheme.replace('http', 'ws')}://127.0.0.1:{example.port}/")
        assert shown.find("#page").text == f"{scheme}:"


def test_the_page_of_the_live_feed_is_usable(page: Any, tmp_path: Path) -> None:
    plotted = "const c = document.querySelector('canvas'); return c.toDataURL()"
    with Example("live_feed", tmp_path) as example:
        port = example.port
        shown = page(f"http://127.0.0.1:{port}/")
        shown.await_text("#state", "live")
        first = shown.driver.execute_script(plotted)
        await_that("the plot goes on", lambda: shown.driver.execute_script(plotted) != first)
        latest = await_that("the latest is told", lambda: shown.find("#latest").text)
        await_that("another is told", lambda: shown.find("#latest").text != latest)
    shown.await_text("#state", "lost")
    with Example("live_feed", tmp_path, port=port):
        shown.await_text("#state", "live")


def test_the_page_of_the_upload_is_usable(page: Any, tmp_path: Path) -> None:
    (tmp_path / "into").mkdir()
    file = tmp_path / "some na\u00efve name & more.bin"
    file.write_bytes(bytes(range(256)) * 20_000)
    with Example("upload", tmp_path, "--into", "into") as example:
        for outcome in ("stored", "failed: there is such a file"):
            shown = page(f"http://127.0.0.1:{example.port}/")
            shown.find("input").send_keys(str(file))
            shown.await_text("#state", outcome)
            if outcome == "stored":
                assert shown.find("progress").get_property("position") == 1
    assert (tmp_path / "into" / file.name).read_bytes() == file.read_bytes()


def test_the_page_of_the_authentication_is_usable(page: Any, tmp_path: Path) -> None:
    (tmp_path / "passwords").write_text("ada:lovelace\n")
    with Example("authentication", tmp_path) as example:
        shown = page(f"http://ada:lovelace@127.0.0.1:{example.port}/")
        # The browser also sends the credentials with the WebSocket's handshake.
        shown.await_text("#answer", "Hello, ada!")
