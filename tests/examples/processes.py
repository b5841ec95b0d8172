"""Run the examples as users do, each in its own process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from ..support.patience import PATIENCE
from ..support.waiting import await_that

EXAMPLES = Path(__file__).parents[2] / "examples"
# The examples import the same package as these tests, in every directory.
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def run(name: str, directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run an example that exits by itself."""
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *options]
    return subprocess.run(
        command, cwd=directory, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


class Program:
    """A running example; at the end SIGTERM must stop it, and its log must have no error."""

    def __init__(self, name: str, directory: Path, *options: str, prelude: str = "") -> None:
        script = str(EXAMPLES / f"{name}.py")
        # The prelude patches the process before the example runs.
        start = f"import runpy, sys; sys.argv[:1] = []\n{prelude}\nrunpy.run_path(sys.argv[0], run_name='__main__')"
        self.log_file = directory / f"{name}.{id(self)}.log"
        with self.log_file.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, *(["-c", start] if prelude else []), script, *options],
                cwd=directory,
                env=ENVIRONMENT,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def await_log(self, pattern: str) -> re.Match[str]:
        def found() -> re.Match[str] | None:
            match = re.search(pattern, self.log, re.MULTILINE)
            if match is None and self.process.poll() is not None:
                pytest.fail(f"it ended without {pattern!r} in its log:\n{self.log}")
            return match

        match: re.Match[str] = await_that(f"{pattern!r} is in its log", found, lambda: self.log)
        return match

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.terminate()
            self.process.wait(PATIENCE)
        finally:
            self.kill()
        assert not re.search(r"Traceback \(most|Unhandled|#(error|critical)\b", self.log), self.log


class Example(Program):
    """A running example that listens on ``port``."""

    def __init__(
        self, name: str, directory: Path, *options: str, port: int = 0, listen: str = "tcp", prelude: str = ""
    ) -> None:
        listen = f"{listen}:{port}:interface=127.0.0.1"
        super().__init__(name, directory, "--listen", listen, *options, prelude=prelude)

    def __enter__(self) -> Any:
        try:
            self.port = int(self.await_log(r"^listening on .*\bport=(\d+)")[1])
        except BaseException:
            self.kill()
            raise
        return self

    def connect(self, path: str = "/", **options: Any) -> ClientConnection:
        connection: ClientConnection = connect(
            f"ws://127.0.0.1:{self.port}{path}", proxy=None, max_size=None, **options
        )
        return connection

    def fetch(self, path: str, headers: dict[str, str] | None = None) -> tuple[HTTPResponse, str]:
        http = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            http.request("GET", path, headers=headers or {})
            response = http.getresponse()
            return response, response.read().decode()
        finally:
            http.close()
