"""The programs and commands of the README run, and the README agrees with the rest of the project."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from twisted_beastws.service import Options
from twisted_beastws.service.dangers import can_be_reached

from .conftest import WHOLE_SUITE
from .docs.programs import expect_refusal, get, printed, run_listing, running, running_listing, talking
from .support.patience import PATIENCE
from .support.ports import free_port

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.M | re.S)
ECHO, SERVER, CLIENT, SITE = BLOCKS
SERVERS = pytest.mark.parametrize("server", [SERVER, SITE], ids=["server", "site"])


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with the README's first program as the module ``hello``."""
    (tmp_path / "hello.py").write_text(ECHO)
    (tmp_path / "public").mkdir()
    (tmp_path / "public" / "page.txt").write_text("a page")
    return tmp_path


def test_the_server_of_the_readme_serves(directory: Path) -> None:
    with running_listing(SERVER, directory) as port, talking(port) as client:
        client.send("hello")
        assert client.recv(PATIENCE) == "hello"


def test_the_site_of_the_readme_serves(directory: Path) -> None:
    with running_listing(SITE, directory) as port, talking(port, "/ws") as client:
        client.send("hello")
        assert client.recv(PATIENCE) == "hello"
        assert get(port, "/page.txt") == (200, "a page")


@SERVERS
def test_a_server_that_cannot_listen_ends(server: str, directory: Path) -> None:
    expect_refusal(server, directory)


def test_the_client_talks_to_the_server(directory: Path) -> None:
    with running_listing(SERVER, directory) as port:
        done = run_listing(CLIENT, directory, port)
    assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr


def test_the_service_serves_the_class(directory: Path) -> None:
    (command,) = re.findall(r"`(twistd -n beastws --app .*?)`", README)
    port = free_port()
    command = command.replace("-n ", "-n --pidfile= ")
    with running(printed(f"{command} --listen tcp:{port}", port), directory, port), talking(port) as client:
        client.send("hello")
        assert client.recv(PATIENCE) == "hello"


def test_the_endpoint_string_serves_a_site(directory: Path) -> None:
    (command,) = re.findall(r"^twistd -n web .*$", README, re.MULTILINE)
    port = free_port()
    command = printed(command.replace("-n ", "-n --pidfile= "), port)
    with running(command, directory, port), talking(port, subprotocols=["binary"]) as client:
        client.send(b"GET /hello.py HTTP/1.0\r\n\r\n")
        answer = client.recv(PATIENCE)
        assert isinstance(answer, bytes) and answer.startswith(b"HTTP/1.0 200 OK\r\n")


def test_the_readme_has_two_commands_and_one_picture() -> None:
    assert re.findall(r"^pip install .*$", README, re.MULTILINE) == [
        "pip install -e . && twistd -n beastws",
        "pip install -e '.[test]' && pytest",
    ]
    assert len(re.findall(r"!\[", README)) == 1


def test_the_readme_states_the_time_that_the_header_of_a_run_states() -> None:
    assert f"about {WHOLE_SUITE.partition(' on ')[0]}" in README


def test_the_first_command_listens_on_the_loopback_interface_alone() -> None:
    first = re.findall(r"^pip install .*&& twistd -n beastws *(.*)$", README, re.MULTILINE)[0]
    options = Options()
    options.parseOptions(first.split())
    assert [can_be_reached(description) for description in options["listen"]] == [False]
