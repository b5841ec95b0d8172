from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .support.ids import LONGEST, readable_id

SKIPPED = """
import pytest

def test_skips():
    pytest.skip("no browser here")

@pytest.mark.skipif(True, reason="no database here")
def test_is_skipped(): ...

@pytest.mark.xfail
def test_is_known_to_fail():
    assert False

def test_passes(): ...
"""
SKIPPED_MODULE = "import pytest\npytest.importorskip('no_such_module')"
ON_UVLOOP = """
import os, subprocess, sys
import pytest
from twisted.internet import reactor

@pytest.mark.parametrize("path", [{}, {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}])
def test_reactor(path):
    command = [sys.executable, "-c", "from twisted.internet import reactor; print(type(reactor))"]
    done = subprocess.run(command, env={**os.environ, **path}, capture_output=True, text=True)
    assert done.stdout == f"{type(reactor)}\\n"
    assert "twisted_beastws.uvreactor" in done.stdout
"""

IN_THE_BACKGROUND = """
import signal, subprocess, sys

def test_signals():
    program = "import signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    assert subprocess.check_output([sys.executable, "-c", program]) == b"False\\n"
"""


@pytest.fixture
def run_pytest(tmp_path: Path) -> Callable[..., Any]:
    """Run pytest with this suite's conftest on a file of the given source; return the exit status and the output."""

    def run(source: str, ci: str | None, *options: str, by: tuple[str, ...] = ()) -> tuple[int, str]:
        tests = tmp_path / "tests"
        shutil.rmtree(tests, ignore_errors=True)
        for folder in "support", Path("uvreactor", "started"):
            shutil.copytree(Path(__file__).parent / folder, tests / folder)
        shutil.copy(Path(__file__).with_name("conftest.py"), tests)
        (tests / "test_it.py").write_text(source)
        environment = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTEST_ADDOPTS")}
        environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        if ci is not None:
            environment["CI"] = ci
        modes = ["-p", "no:cacheprovider", "--import-mode=importlib", "-rfE", "--rootdir", str(tmp_path)]
        command = [sys.executable, "-m", "pytest", *modes]
        done = subprocess.run(
            [*by, *command, *options], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
        )
        return done.returncode, done.stdout

    return run


def test_ci_fails_for_skipped_tests(run_pytest: Callable[..., Any]) -> None:
    status, output = run_pytest(SKIPPED, "true")
    assert status == pytest.ExitCode.TESTS_FAILED
    assert "1 failed, 1 passed, 1 xfailed, 1 error" in output
    assert "no browser here (CI is set: nothing may be skipped)" in output
    assert "no database here (CI is set: nothing may be skipped)" in output


def test_ci_fails_for_a_skipped_module(run_pytest: Callable[..., Any]) -> None:
    status, output = run_pytest(SKIPPED_MODULE, "1")
    assert status == pytest.ExitCode.INTERRUPTED
    assert "could not import 'no_such_module'" in output


def test_the_summary_counts_each_part_that_was_not_tested(run_pytest: Callable[..., Any]) -> None:
    summary = run_pytest(SKIPPED, None)[1].partition(" not tested ")[2]
    assert "\n1 skipped: no browser here\n1 skipped: no database here\n" in summary


def test_the_header_of_a_whole_run_says_how_long_it_takes(run_pytest: Callable[..., Any]) -> None:
    whole = run_pytest(SKIPPED, None, "--override-ini=testpaths=.")[1]
    assert re.search(r"^the whole suite takes about \d+ minutes", whole, re.MULTILINE)
    assert "the whole suite" not in run_pytest(SKIPPED, None, "tests/test_it.py")[1]


@pytest.mark.parametrize("ci", [None, "", "false"])
def test_a_skipped_test_is_no_failure_outside_ci(run_pytest: Callable[..., Any], ci: str | None) -> None:
    status, output = run_pytest(SKIPPED, ci)
    assert status == pytest.ExitCode.OK
    assert "1 passed, 2 skipped, 1 xfailed" in output


def test_the_suite_and_the_programs_that_it_starts_are_on_uvloop_if_asked(run_pytest: Callable[..., Any]) -> None:
    status, output = run_pytest(ON_UVLOOP, "true", "--uvloop")
    assert status == pytest.ExitCode.OK, output
    assert "2 passed" in output


def test_programs_can_be_interrupted_if_a_shell_started_the_suite_in_the_background(
    run_pytest: Callable[..., Any],
) -> None:
    background = ("sh", "-c", "trap '' INT HUP; exec \"$@\"", "sh")
    status, output = run_pytest(IN_THE_BACKGROUND, None, by=background)
    assert status == pytest.ExitCode.OK, output


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"a": (1, b"b")}, "{'a': (1, b'b')}"),
        ({"b", "a"}, "['a', 'b']"),
        (lambda ws: ws.send("a"), "ws.send('a')"),
        ("a" * LONGEST, None),
        ("a" * 50 + "b" * 50, "a" * 38 + "..." + "b" * 38),
        (1, None),
        (object(), None),
        (dict, None),
    ],
)
def test_the_id_of_a_test_shows_its_values(value: object, shown: str | None) -> None:
    assert readable_id(value) == shown
