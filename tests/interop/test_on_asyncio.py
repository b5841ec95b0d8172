"""Tests of asyncio programs and test frameworks; each runs in a new process, because each needs its own reactor."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ..docs.programs import listings
from ..support.patience import PATIENCE
from ..support.programs import output_of

FOLDER = Path(__file__).parent / "on_asyncio"


def run(directory: Path, *arguments: str) -> str:
    return output_of(directory, *arguments, timeout=2 * PATIENCE, path=(str(FOLDER),))


if sys.version_info >= (3, 11):

    @pytest.mark.parametrize(("loop", "reactor"), [("asyncio", "AsyncioSelectorReactor"), ("uvloop", "UvloopReactor")])
    def test_tasks_and_handlers_use_aiohttp_groups_and_timeouts(loop: str, reactor: str, tmp_path: Path) -> None:
        assert run(tmp_path, str(FOLDER / "program.py"), loop) == f"done {reactor}\n"


def test_trial_runs_coroutines_generators_and_callbacks(tmp_path: Path) -> None:
    output = run(tmp_path, "-m", "twisted.trial", "--reactor", "asyncio", "trial_case")
    assert "(successes=3)" in output


def run_pytest(directory: Path, case: str, *options: str) -> str:
    common = ("-q", "-p", "no:cacheprovider", "--rootdir", str(directory), "-c", str(directory / "pytest.ini"))
    (directory / f"test_{case}.py").write_text((FOLDER / f"{case}.py").read_text())
    return run(directory, "-m", "pytest", *common, f"test_{case}.py", *options)


def test_pytest_twisted_runs_coroutines_and_generators(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").touch()
    output = run_pytest(tmp_path, "pytest_twisted_case", "-p", "pytest_twisted", "--reactor", "asyncio")
    assert "2 passed" in output


def test_pytest_asyncio_runs_coroutines_with_the_fixture_of_the_docs(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_default_test_loop_scope = session\n")
    (tmp_path / "conftest.py").write_text(listings("howto/asyncio")[2])
    assert "2 passed" in run_pytest(tmp_path, "pytest_asyncio_case", "-p", "pytest_asyncio.plugin")
