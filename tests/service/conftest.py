"""The service and the browser that the tests of the page share: one Chromium, because its start takes seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from twisted_beastws.service import codec

from ..support.browser import chromium
from .page_tabs import MAX_MESSAGE, Puppet, Server, Tab


@pytest.fixture(autouse=True)
def own_import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take back the current directory, which ``--app`` puts on ``sys.path``: later tests must not import from there."""
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture(autouse=True)
def unreported_codec(monkeypatch: pytest.MonkeyPatch) -> None:
    """Log no line about the codec, because tests count warnings: they are the same where no compiler is installed."""
    monkeypatch.setattr(codec, "ACCELERATED", True)


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    service = Server(tmp_path_factory.mktemp("service"), f"--max-message={MAX_MESSAGE}")
    yield service
    service.stop()


@pytest.fixture
def server(service: Server) -> Iterator[Server]:
    """The service, running when the test begins; nothing that a browser does causes a traceback in it."""
    if service.process is None:
        service.start()
    service.was_away = False
    yield service
    log = service.log.read_text()
    assert "Traceback" not in log and "Unhandled" not in log, log


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("chromium"), "THE PAGE IS") as driver:
        driver.set_window_size(1280, 800)
        yield driver


@pytest.fixture
def browser(driver: Any, server: Server) -> Iterator[Any]:
    """The driver. Each test's tabs are closed after it; the console may only show that the server was away."""
    first = driver.current_window_handle
    driver.get_log("browser")
    yield driver
    console = [entry["message"] for entry in driver.get_log("browser")]
    for handle in driver.window_handles:
        if handle != first:
            driver.switch_to.window(handle)
            driver.execute_script("localStorage.clear()")
            driver.close()
    driver.switch_to.window(first)
    assert [line for line in console if not (server.was_away and "/chat" in line)] == []


@pytest.fixture
def tab(browser: Any, server: Server) -> Tab:
    return Tab(browser, server.port)


@pytest.fixture
def puppet(browser: Any, server: Server) -> Puppet:
    return Puppet(browser, server.port)


@pytest.fixture
def nameless(browser: Any, server: Server) -> Puppet:
    return Puppet(browser, server.port, name=None)
