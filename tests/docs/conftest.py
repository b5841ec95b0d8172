"""The built site, once for all tests of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..support.background import Command, Job
from ..support.browser import chromium
from .programs import DOCS, ENVIRONMENT


def build_site(directory: Path) -> Command:
    """Build the site without a warning and without a network."""
    sphinx = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    # A proxy that does not exist: a build that asks another machine fails.
    environment = {**ENVIRONMENT, "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    return Command([*sphinx, "-d", "doctrees", str(DOCS), "html"], directory, environment)


SITE = Job(build_site, "site")


@pytest.fixture(scope="session")
def site() -> Path:
    """Return the folder with the built site."""
    SITE.output()
    return SITE.directory / "html"


@pytest.fixture(scope="session")
def site_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("chromium"), "THE SITE IN A BROWSER IS") as browser:
        yield browser
