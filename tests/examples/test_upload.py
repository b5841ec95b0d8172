"""The example upload.py."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from ..support.waiting import await_that
from .processes import Example

# Each write waits, in its thread, until the test creates the file "go".
STANDING_DISK = """
import time
from pathlib import Path
from twisted.internet import threads

in_thread = threads.deferToThread


def waiting(call, *arguments):
    while not Path("go").exists():
        time.sleep(0.02)
    return call(*arguments)


threads.deferToThread = lambda *call: in_thread(waiting, *call)
"""


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    """The example, which stores files in the folder ``into``."""
    directory = tmp_path_factory.mktemp("upload")
    (directory / "into").mkdir()
    with Example("upload", directory, "--into", "into") as example:
        yield example


@pytest.fixture
def into(example: Example) -> Path:
    """The folder of the example, empty."""
    into = example.log_file.with_name("into")
    for file in into.iterdir():
        file.unlink()
    return into


@pytest.fixture
def standing(tmp_path: Path) -> Iterator[Example]:
    """The example on a disk that stands still until the test creates the file ``go``."""
    (tmp_path / "into").mkdir()
    with Example("upload", tmp_path, "--into", "into", prelude=STANDING_DISK) as example:
        yield example


def named(name: str) -> str:
    return "/?name=" + quote(name, safe="")


def told(client: ClientConnection) -> list[int]:
    """Return the progress reports up to the close."""
    numbers = []
    with pytest.raises(ConnectionClosed):
        while True:
            numbers.append(int(client.recv(20)))
    return numbers


@pytest.mark.parametrize("size", [0, 1, 1 << 18, 3_000_000])
def test_a_file_is_unchanged_on_arrival(example: Example, into: Path, size: int) -> None:
    content = os.urandom(size)
    name = "some na\u00efve name.txt"
    with example.connect(named(name)) as client:
        client.send(content)
        progress = told(client)
        assert (client.close_code, client.close_reason) == (1000, "stored")
    assert (into / name).read_bytes() == content
    assert progress == sorted(progress) and progress[-1] == size
    assert len(progress) >= size >> 19


def test_a_file_in_fragments_is_written(example: Example, into: Path) -> None:
    parts = [os.urandom(100_000) for _ in range(20)]
    with example.connect(named("file")) as client:
        client.send(parts)
        assert told(client)[-1] == 2_000_000
    assert (into / "file").read_bytes() == b"".join(parts)


def test_a_client_that_sent_all_may_leave(tmp_path: Path, standing: Example) -> None:
    file = tmp_path / "into" / "file"
    with standing.connect(named("file")) as client:
        client.send(b"content")
        client.socket.shutdown(socket.SHUT_RDWR)
        time.sleep(0.1)
        (tmp_path / "go").touch()
        await_that(
            "it is written",
            lambda: file.exists() and file.read_text() == "content",
        )
    assert file.read_text() == "content"


def test_an_existing_file_is_kept(example: Example, into: Path) -> None:
    (into / "file").write_text("as it was")
    with example.connect(named("file")) as client:
        assert told(client) == []
        assert (client.close_code, client.close_reason) == (4000, "there is such a file")
    assert (into / "file").read_text() == "as it was"


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "../file", "a/b", "/tmp/file", "nul\0", "x" * 300])
def test_a_bad_name_is_refused(example: Example, into: Path, name: str) -> None:
    with example.connect(named(name)) as client:
        assert told(client) == []
        assert (client.close_code, client.close_reason) == (4000, "this is no name for a file")
    assert list(into.iterdir()) == []


@pytest.mark.parametrize("how", ["vanishes", "closes"])
def test_an_incomplete_file_is_removed(example: Example, into: Path, how: str) -> None:
    with example.connect(named(f"file that {how}")) as client:
        client.socket.sendall(bytes.fromhex("02fe 8000 00000000") + bytes(0x8000))
        await_that("it is being written", lambda: (into / f"file that {how}").exists())
        if how == "vanishes":
            client.socket.shutdown(socket.SHUT_RDWR)
        else:
            client.close()
        example.await_log(f"file that {how} of .* broke off")
        assert list(into.iterdir()) == []


def test_a_blocked_disk_makes_the_sender_wait(tmp_path: Path, standing: Example) -> None:
    with standing.connect(named("file")) as client:
        connection = client.socket
        connection.sendall(bytes.fromhex("82ff") + (1 << 30).to_bytes(8, "big") + bytes(4))
        connection.settimeout(0.5)
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < 1 << 28:
                sent += connection.send(bytes(1 << 20))
        written = (tmp_path / "into" / "file").stat().st_size
        # The rest of the sent bytes are in pending writes or in the sockets' buffers.
        assert sent - written < 1 << 24
        (tmp_path / "go").touch()
        connection.shutdown(socket.SHUT_RDWR)
        standing.await_log("file of .* broke off")
