"""Waiting for an event in another process or thread."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from .patience import PATIENCE


def await_that(
    what: str, happened: Callable[[], Any], otherwise: Callable[[], object] = str, patience: float = PATIENCE
) -> Any:
    """Poll until ``happened()`` returns a true value, and return that value.

    Args:
        what: The awaited event; the failure names it.
        happened: Returns a true value once the event has happened.
        otherwise: Returns what the failure shows in addition.
        patience: The seconds after which the test fails.
    """
    deadline = time.monotonic() + patience
    while not (value := happened()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {patience:g} s: {what} (last: {value!r})\n{otherwise()}")
        time.sleep(0.02)
    return value


def await_start(
    process: subprocess.Popen[bytes],
    what: str,
    started: Callable[[], Any],
    otherwise: Callable[[], object] = str,
    patience: float = PATIENCE,
) -> Any:
    """Wait as `await_that` does, but fail at once if the program has ended."""
    value = await_that(what, lambda: process.poll() is not None or started(), otherwise, patience)
    if process.poll() is not None:
        pytest.fail(f"the program ended with {process.returncode} before: {what}\n{otherwise()}")
    return value
