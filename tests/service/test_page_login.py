"""The chat page behind a name and a password, in headless Chromium."""

from __future__ import annotations

from pathlib import Path

from ..support.browser import chromium
from .test_twistd import await_that, running


def test_who_has_logged_in_is_in_the_chat_by_that_name(tmp_path: Path) -> None:
    with (
        chromium(tmp_path / "chromium", "THE LOGIN IS") as driver,
        running(tmp_path, "--auth=memory:ann:secret", "--access-log=access.log") as service,
    ):
        driver.get(f"http://127.0.0.1:{service.port}/")
        assert "Chat" not in driver.page_source
        driver.get(f"http://ann:secret@127.0.0.1:{service.port}/")
        await_that("it is connected", lambda: "Welcome to the chat!" in driver.page_source)
        driver.get("about:blank")
        log = tmp_path / "access.log"
        await_that("the end is told", lambda: " user=ann target=/chat " in log.read_text())
