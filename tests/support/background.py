"""Programs that take long, such as builds, in the background of the tests.

The suite's tests run one after another in one process, so a machine with two cores has one left. A `Job` begins when
pytest has collected the tests, if one of them uses its fixture, and that fixture awaits its end. Jobs run one after
another.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import ClassVar, NamedTuple

import pytest

from .patience import PATIENCE


class Command(NamedTuple):
    """A program, its directory, its environment, and the seconds after which it counts as hanging."""

    arguments: list[str]
    cwd: Path
    env: dict[str, str]
    timeout: float = 5 * PATIENCE


class Job:
    """A program in the background.

    Args:
        prepare: Returns the command; its argument is an empty directory. It is called when all earlier jobs have ended,
            while a test may have changed ``os.environ`` and ``sys.path``, so it must not read these.
        fixtures: The fixtures that await the job; a test that uses one of them lets the job begin.
    """

    known: ClassVar[list[Job]] = []
    directory: Path

    def __init__(self, prepare: Callable[[Path], Command], *fixtures: str) -> None:
        self.fixtures = set(fixtures)
        self._prepare = prepare
        self._ended: Future[subprocess.CompletedProcess[str]] | None = None
        Job.known.append(self)

    def begin(self, background: Background) -> None:
        self.directory = background.new_directory()
        self._ended = background.run(lambda: self._prepare(self.directory))

    def done(self) -> subprocess.CompletedProcess[str]:
        """Wait for the end; fail if the program hangs."""
        assert self._ended is not None, f"no selected test uses {self.fixtures}"
        return self._ended.result()

    def output(self) -> str:
        """Wait for the end; return the output, and fail if the status is not 0."""
        done = self.done()
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


class Background:
    """Runs programs, one after another."""

    def __init__(self) -> None:
        self._directory = TemporaryDirectory()
        self._thread = ThreadPoolExecutor(1)
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False

    def new_directory(self) -> Path:
        return Path(mkdtemp(dir=self._directory.name))

    def begin(self, items: Iterable[pytest.Item]) -> None:
        """Begin the jobs of these tests."""
        used = {name for item in items for name in getattr(item, "fixturenames", ())}
        for job in Job.known:
            if job.fixtures & used:
                job.begin(self)

    def run(self, prepare: Callable[[], Command]) -> Future[subprocess.CompletedProcess[str]]:
        return self._thread.submit(self._run, prepare)

    def wait(self) -> None:
        """Wait until all programs have ended."""
        self._thread.submit(int).result()

    def stop(self) -> None:
        """Kill the running program, and start no others."""
        self._stopped = True
        self._kill()
        self._thread.shutdown(cancel_futures=True)
        self._directory.cleanup()

    def _run(self, prepare: Callable[[], Command]) -> subprocess.CompletedProcess[str]:
        command = prepare()
        if self._stopped:
            raise CancelledError
        # In a session of its own the program can be killed with all that it has started.
        process = self._process = subprocess.Popen(
            command.arguments,
            cwd=command.cwd,
            env=command.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        if self._stopped:
            self._kill()
        try:
            output, errors = process.communicate(timeout=command.timeout)
        finally:
            self._kill()
            process.wait()
            self._process = None
        return subprocess.CompletedProcess(command.arguments, process.returncode, output, errors)

    def _kill(self) -> None:
        # The program may have ended, and not what it started.
        process = self._process
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


BACKGROUND = pytest.StashKey[Background]()
