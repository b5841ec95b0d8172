"""The chat page behind a name and a password, in headless Chromium."""

from __future__ import annotations

from pathlib import Path

import pytest

from .test_twistd import await_that, running

CHROMIUM = Path("/usr/bin/chromium")
CHROMEDRIVER = Path("/usr/bin/chromedriver")


def test_who_has_logged_in_is_in_the_chat_by_that_name(tmp_path: Path) -> None:
    webdriver = pytest.importorskip("selenium.webdriver", reason="THE LOGIN IS NOT TESTED: selenium is missing")
    if not (CHROMIUM.exists() and CHROMEDRIVER.exists()):
        pytest.skip("THE LOGIN IS NOT TESTED: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", f"user-data-dir={tmp_path}/c"):
        options.add_argument(f"--{flag}")
    with running(tmp_path, "--auth=memory:ann:secret", "--access-log=access.log") as service:
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(CHROMEDRIVER)))
        try:
            driver.get(f"http://127.0.0.1:{service.port}/")
            assert "Chat" not in driver.page_source
            driver.get(f"http://ann:secret@127.0.0.1:{service.port}/")
            await_that("it is connected", lambda: "Welcome to the chat!" in driver.page_source)
        finally:
            driver.quit()
        log = tmp_path / "access.log"
        await_that("the end is told", lambda: " user=ann target=/chat " in log.read_text())
