"""Tests of the installed package's annotations, with mypy as a user runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import twisted_beastws

from ..support.background import Command, Job

# With PYTHONPATH mypy could check the checkout instead of the installed package.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MYPY"))}
SAMPLE = (Path(__file__).parent / "sample.py").read_text()


def check(directory: Path, program: str = SAMPLE, name: str = "sample.py") -> Command:
    """Run mypy in a directory of its own, so that it finds neither a configuration nor the checkout."""
    (directory / name).write_text(program)
    options = ["--strict", "--config-file=", "--cache-dir=cache"]
    return Command([sys.executable, "-m", "mypy", *options, name], directory, ENVIRONMENT)


SAMPLE_CHECK = Job(check, "sample_check")


class Checker:
    """Checks programs like the sample: mypy has a cache from the sample's check."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.checked = 0

    def check(self, program: str) -> subprocess.CompletedProcess[str]:
        # Each program gets a new name: mypy's cache takes a file of the same size and time for an unchanged one.
        self.checked += 1
        command, directory, environment, timeout = check(self.directory, program, f"sample{self.checked}.py")
        return subprocess.run(
            command, cwd=directory, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )


@pytest.fixture(scope="module")
def sample_check() -> subprocess.CompletedProcess[str]:
    return SAMPLE_CHECK.done()


@pytest.fixture(scope="module")
def checker(sample_check: subprocess.CompletedProcess[str]) -> Checker:
    return Checker(SAMPLE_CHECK.directory)


def test_the_sample_passes_mypy_strict(sample_check: subprocess.CompletedProcess[str]) -> None:
    assert sample_check.returncode == 0, sample_check.stdout
    assert sample_check.stdout == "Success: no issues found in 1 source file\n"


@pytest.mark.parametrize(
    ("right", "wrong", "error"),
    [
        ("text_received(self, text: str) -> None:", "text_received(self, text: bytes) -> None:", "override"),
        ('slow_reader="pause"', 'slow_reader="wait"', "arg-type"),
        ("code: int = reason.code", "code: str = reason.code", "assignment"),
        ("own.seen", "own.unseen", "attr-defined"),
        ("ws.send(hello)", "ws.send(1)", "arg-type"),
        ("await ws.drain()", "await ws.drained()", "attr-defined"),
        ("render=rendered", "render=decorate", "arg-type"),
        ("pair.client.seen", "pair.server.seen", "attr-defined"),
    ],
)
def test_mypy_finds_each_mistake(checker: Checker, right: str, wrong: str, error: str) -> None:
    program = SAMPLE.replace(right, wrong)
    assert program != SAMPLE
    done = checker.check(program)
    errors = re.findall(r"^sample\d+\.py:\d+: error: .*\[([a-z-]+)\]$", done.stdout, re.MULTILINE)
    assert done.returncode == 1 and error in errors, done.stdout


@pytest.mark.parametrize("name", twisted_beastws.__all__)
def test_the_sample_uses_every_public_name(name: str) -> None:
    assert len(re.findall(rf"\b{name}\b", SAMPLE)) > 1
