"""``beastws``, the installed command."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection

from ..support.patience import PATIENCE
from ..support.ports import free_port
from ..support.waiting import await_that
from .processes import ENVIRONMENT, echo, echo_only, serving

COMMAND = str(Path(sys.executable).parent / "beastws")

BUNDLE = """
import sys, twisted.plugin
twisted.plugin.getPlugins = lambda *_: iter(())
from twisted_beastws.console.command import run
sys.argv[0] = "beastws"
run()
"""
"""A program that runs the command where Twisted finds no plugins, as in a PyInstaller bundle."""


def run(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [COMMAND, *arguments], env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "usage", "error"),
    [
        ((), "beastws [options] URL", "give the URL of a WebSocket server"),
        (("--nonsense",), "beastws [options] URL", "option --nonsense not recognized"),
        (("bench",), "beastws bench [options] URL", "give the URL of a WebSocket server"),
        (("serve", "--nonsense"), "beastws serve [options]", "option --nonsense not recognized"),
        (("serve", "--listen=nonsense:1"), "beastws serve [options]", "Unknown endpoint type: 'nonsense'"),
    ],
)
def test_a_usage_error_prints_the_usage_line_and_the_error(arguments: tuple[str, ...], usage: str, error: str) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    first, second, third = err.splitlines()
    assert first == f"Usage: {usage}"
    assert error in second
    assert third == f"Try {usage.partition(' [')[0]} --help."


def test_the_command_talks_to_a_url() -> None:
    with serving(echo_only(1)) as url:
        assert run(url, "--wait=forever", "-x", "hello")[:2] == (0, "hello\n")


def test_bench_prints_figures() -> None:
    with serving(echo) as url:
        status, out, _ = run("bench", url, "--connections=2", "--messages=3")
    assert status == 0
    assert out.startswith("2 connections, 6 messages of ")


def test_bench_prints_partial_figures_when_it_is_interrupted() -> None:
    echoed: list[object] = []

    def counting(ws: ServerConnection) -> None:
        for message in ws:
            echoed.append(message)
            ws.send(message)

    with serving(counting) as url:
        bench = subprocess.Popen(
            [COMMAND, "bench", url, "--connections=1", "--messages=10000000"],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            text=True,
        )
        await_that("messages come back", lambda: len(echoed) > 10)
        bench.send_signal(signal.SIGINT)
        out, _ = bench.communicate(timeout=PATIENCE)
    assert bench.returncode == 130
    first, second, rate, trips = out.splitlines()
    assert first == "interrupted" and second.startswith("1 connection, ")
    assert rate.endswith(" messages/s") and trips.startswith("round trip: p50 ")


@pytest.mark.parametrize("program", [[COMMAND], [sys.executable, "-c", BUNDLE]], ids=["command", "without plugins"])
def test_the_command_serve_serves_the_chat(program: list[str], tmp_path: Path) -> None:
    port = free_port()
    log = tmp_path / "log"
    with log.open("wb") as output:
        command = [*program, "serve", f"--listen=tcp:{port}:interface=127.0.0.1"]
        service = subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stdout=output, stderr=output)
    try:
        await_that("it listens", lambda: "serving http://" in log.read_text() or service.poll() is not None)
        with connect(f"ws://127.0.0.1:{port}/chat") as client:
            assert client.recv(PATIENCE) == "Welcome to the chat!"
    finally:
        service.terminate()
        assert service.wait(PATIENCE) == 0, log.read_text()
    assert list(tmp_path.iterdir()) == [log]
