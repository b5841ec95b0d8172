"""Tests of the jobs in the background of the tests (`tests/support/background.py`)."""

from __future__ import annotations

import os
import threading
from concurrent.futures import CancelledError
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from .support.background import Background, Command, Job
from .support.patience import PATIENCE
from .support.waiting import await_that


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the jobs of these tests apart from those of the suite."""
    monkeypatch.setattr(Job, "known", [])


def begun(background: Background, *jobs: Job) -> None:
    test: Any = type("Test", (), {"fixturenames": ["used"]})
    assert Job.known == list(jobs)
    background.begin([test])


def shell(script: str) -> Command:
    return Command(["sh", "-c", script], Path.cwd(), dict(os.environ), PATIENCE)


def content(reading: int) -> bytes | None:
    """Return what a pipe has, empty at its end, or None if nothing has come."""
    with suppress(BlockingIOError):
        return os.read(reading, 100)
    return None


@pytest.mark.usefixtures("known")
def test_the_stop_kills_what_an_ended_program_has_started(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    background = Background()
    begun(background, Job(lambda directory: shell(f"exec 3>{fifo}; echo begun >&3; sleep 1000 & exit 0"), "used"))
    try:
        await_that("the program begins", lambda: content(reading) == b"begun\n")
    finally:
        background.stop()
    # The last process with the pipe has ended.
    await_that("the end of all that it has started", lambda: content(reading) == b"")
    os.close(reading)


@pytest.mark.usefixtures("known")
def test_no_job_begins_after_the_stop() -> None:
    prepared: list[int] = []
    stopping = threading.Event()

    def first(directory: Path) -> Command:
        prepared.append(1)
        assert stopping.wait(PATIENCE)
        return shell("exit 0")

    def second(directory: Path) -> Command:
        prepared.append(2)
        return shell("exit 0")

    background = Background()
    jobs = Job(first, "used"), Job(second, "used")
    begun(background, *jobs)
    threading.Timer(0.1, stopping.set).start()
    background.stop()
    for job in jobs:
        with pytest.raises(CancelledError):
            job.done()
    assert prepared == [1]
