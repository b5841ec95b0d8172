"""The programs in the README are programs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .docs.programs import PATIENCE, expect_refusal, get, run_listing, running_listing, talking

BLOCKS = re.findall(r"^```python\n(.*?)^```$", (Path(__file__).parents[1] / "README.md").read_text(), re.M | re.S)
ECHO_CLASS, ECHO_COROUTINE, SERVER, SITE, CLIENT = BLOCKS
SERVERS = pytest.mark.parametrize("server", [SERVER, SITE], ids=["server", "site"])


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The README's first programs are the module ``hello`` there."""
    (tmp_path / "hello.py").write_text(ECHO_CLASS + ECHO_COROUTINE)
    (tmp_path / "public").mkdir()
    (tmp_path / "public" / "page.txt").write_text("a page")
    return tmp_path


def test_the_server_serves(directory: Path) -> None:
    with running_listing(SERVER, directory) as port, talking(port) as client:
        client.send("hello")
        assert client.recv(PATIENCE) == "hello"


def test_the_site_serves(directory: Path) -> None:
    with running_listing(SITE, directory) as port, talking(port, "/ws") as client:
        client.send("hello")
        assert client.recv(PATIENCE) == "hello"
        assert get(port, "/page.txt") == (200, "a page")


@SERVERS
def test_a_server_that_cannot_listen_ends(server: str, directory: Path) -> None:
    expect_refusal(server, directory)


def test_the_client_talks_to_the_coroutine(directory: Path) -> None:
    with running_listing(SERVER.replace("Echo", "echo"), directory) as port:
        done = run_listing(CLIENT, directory, port)
    assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr
