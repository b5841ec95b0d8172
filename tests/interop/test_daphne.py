"""Daphne's own WebSocket tests, from its sdist, run with `DaphneFactory`."""

from __future__ import annotations

import os
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

import pytest

from ..support.background import Command, Job
from ..support.patience import PATIENCE

CONFTEST = f"""
import multiprocessing
import time
from types import SimpleNamespace

import daphne.server
import daphne.testing
import http_base
import hypothesis
from twisted_beastws.asgi.daphne import DaphneFactory, install

install()
# The server's process inherits install(). From Python 3.14 on, it would start as a new program otherwise.
multiprocessing.set_start_method("fork")

# These tests allow a second or two for each answer, which is too little on a busy machine.
daphne.testing.BaseDaphneTestingInstance.startup_timeout = {PATIENCE}
http_base.time = slow = SimpleNamespace(time=lambda: time.time() / {PATIENCE}, sleep=time.sleep)
settings = hypothesis.settings
hypothesis.settings = lambda **options: settings(**dict(options, deadline=None))


def pytest_collection_modifyitems(items):
    for item in items:
        item.module.time = slow


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line("served by " + daphne.server.WebSocketFactory.__name__)
"""


DAPHNE = f"daphne=={version('daphne')}"


# This process's import path.
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
}


def python(directory: Path, *arguments: str) -> Command:
    return Command([sys.executable, *arguments], directory, ENVIRONMENT)


def download(directory: Path) -> Command:
    options = ["-q", "--no-deps", "--no-build-isolation", "--no-binary=daphne"]
    return python(directory, "-m", "pip", "download", *options, DAPHNE)


SDIST = Job(download, "daphnes_tests")


def run_tests(directory: Path) -> Command:
    SDIST.output()
    (archive,) = SDIST.directory.glob("*.tar.gz")
    tests = directory / "tests"
    tests.mkdir()
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            if "/tests/" in member.name and member.isfile():
                # Do not use extract(): a member's name could point outside the directory.
                file = tar.extractfile(member)
                assert file is not None
                (tests / Path(member.name).name).write_bytes(file.read())
    (tests / "conftest.py").write_text(CONFTEST)
    options = ["-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir=."]
    return python(directory, "-m", "pytest", *options, "tests/test_websocket.py")


TESTS = Job(run_tests, "daphnes_tests")


@pytest.fixture
def daphnes_tests() -> str:
    """Return the output of the tests; all have passed."""
    downloaded = SDIST.done()
    if downloaded.returncode:
        pytest.skip(f"no package index has the sdist of {DAPHNE}: {downloaded.stderr}")
    return TESTS.output()


def test_daphnes_own_websocket_tests_pass(daphnes_tests: str) -> None:
    assert "served by DaphneFactory" in daphnes_tests
    assert " passed" in daphnes_tests and "skipped" not in daphnes_tests
