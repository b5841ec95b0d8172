"""Run the listings of the pages as processes, on a free port of the loopback interface."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from ..support.patience import PATIENCE
from ..support.ports import free_port
from ..support.waiting import await_start

DOCS = Path(__file__).parents[2] / "docs"
BIN = Path(sys.executable).parent
# The listings import the same package as these tests, in every directory.
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def listings(page: str, language: str = "python") -> list[str]:
    """Return the listings of a page in one language."""
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def defined(listing: str, **names: Any) -> dict[str, Any]:
    """Return the names that a listing defines; it can use ``names``."""
    namespace: dict[str, Any] = {"__name__": "listing", **names}
    exec(listing, namespace)
    return namespace


def printed(command: str, port: int) -> list[str]:
    """Return a command line of a page, with another port, on the loopback interface."""
    command = re.sub(r"tcp:\d+(?!:interface)", f"tcp:{port}:interface=127.0.0.1", command)
    command = re.sub(r"localhost:\d+", f"127.0.0.1:{port}", command)
    program, *arguments = shlex.split(command)
    return [str(BIN / program) if program != "python" else sys.executable, *arguments]


def run(command: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=directory,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
        stdin=subprocess.DEVNULL,
    )


def listens(port: int) -> bool:
    """Return whether a program listens on a port. Linux lists the ports: websockets 16 logs a traceback for a trial."""
    table = Path("/proc/net/tcp")
    if table.exists():
        sockets = map(str.split, table.read_text().splitlines()[1:])
        return any(each[1].endswith(f":{port:04X}") and each[3] == "0A" for each in sockets)
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@contextmanager
def running(command: list[str], directory: Path, port: int) -> Iterator[None]:
    log = directory / "program.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=directory, env=ENVIRONMENT, stdout=output, stderr=subprocess.STDOUT)
    try:
        await_start(process, "the program listens", lambda: listens(port), log.read_text)
        yield
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()
            process.wait()
    assert "Traceback" not in log.read_text(), log.read_text()


def on_port(listing: str, port: int) -> str:
    """Return a program that uses another port, on the loopback interface alone."""
    listing = re.sub(
        r"listenTCP\(9000, (\w+(?:\(\w+\))?)\)$", r'listenTCP(9000, \1, interface="127.0.0.1")', listing, flags=re.M
    )
    listing = re.sub(r'"tcp:(\d+)"', r'"tcp:\1:interface=127.0.0.1"', listing)
    return re.sub(r"\b(8000|8080|9000)\b", str(port), listing)


@contextmanager
def running_listing(listing: str, directory: Path, name: str = "program.py") -> Iterator[int]:
    """Run a server, and yield its port."""
    port = free_port()
    with running(_server(listing, directory, port, name), directory, port):
        yield port


def expect_refusal(listing: str, directory: Path, name: str = "program.py") -> None:
    """Check that a server ends with an error if its port is taken."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(_server(listing, directory, port, name), directory)
    said = (done.stdout + done.stderr).strip()
    assert done.returncode == 1, said
    assert f"Couldn't listen on 127.0.0.1:{port}: " in said.splitlines()[-1]


def _server(listing: str, directory: Path, port: int, name: str) -> list[str]:
    (directory / name).write_text(on_port(listing, port), encoding="utf-8")
    return [sys.executable, name] if name.endswith(".py") else [str(BIN / "twistd"), "-n", "--pidfile=", "-y", name]


def run_listing(listing: str, directory: Path, port: int) -> subprocess.CompletedProcess[str]:
    """Run a program that talks to ``port`` and ends by itself."""
    (directory / "ending.py").write_text(on_port(listing, port), encoding="utf-8")
    return run([sys.executable, "ending.py"], directory)


@contextmanager
def talking(port: int, path: str = "/", **options: Any) -> Iterator[ClientConnection]:
    with connect(f"ws://127.0.0.1:{port}{path}", proxy=None, open_timeout=PATIENCE, **options) as client:
        yield client


def get(port: int, path: str) -> tuple[int, str]:
    http = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        http.request("GET", path)
        response = http.getresponse()
        return response.status, response.read().decode()
    finally:
        http.close()


def until(happened: Callable[[], Any]) -> Any:
    """Call until the result is true, and return it; exceptions count as false."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with suppress(Exception):
            value = happened()
            if value:
                return value
        assert time.monotonic() < deadline
        time.sleep(0.05)
