"""A headless Chromium that can reach only the loopback interface."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .patience import PATIENCE
from .ports import free_port

CHROMIUM = Path("/usr/bin/chromium")
CHROMEDRIVER = Path("/usr/bin/chromedriver")
FLAGS = (
    "headless=new",
    "no-sandbox",
    "disable-gpu",
    "disable-dev-shm-usage",
    "disable-quic",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
    "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE ::1",
)


def can_start() -> bool:
    """Return whether Chromium, its driver and Selenium are installed."""
    return CHROMIUM.exists() and CHROMEDRIVER.exists() and importlib.util.find_spec("selenium") is not None


@contextmanager
def chromium(profile: Path, untested: str) -> Iterator[Any]:
    """Start Chromium and yield its Selenium driver; skip the test if Chromium cannot start.

    The browser accepts any certificate. The driver's log ``browser`` has the messages of the pages' consoles.

    Args:
        profile: An empty directory for the browser's profile.
        untested: The feature that this test covers; the reason for skipping names it.
    """
    if not can_start():
        install = "apt-get install chromium chromium-driver, pip install selenium"
        pytest.skip(f"{untested} NOT TESTED: {install}")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    options.accept_insecure_certs = True
    for flag in (*FLAGS, f"user-data-dir={profile}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(CHROMEDRIVER), free_port()))
    try:
        driver.set_page_load_timeout(PATIENCE)
        driver.set_script_timeout(PATIENCE)
        yield driver
    finally:
        driver.quit()
