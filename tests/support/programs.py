"""Programs that a test runs to their end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def output_of(directory: Path, *arguments: str, timeout: float, path: tuple[str, ...] = ()) -> str:
    """Run Python in the directory with this process's import path; return its output, and fail if its status is not 0.

    Args:
        directory: The working directory.
        arguments: The arguments of Python.
        timeout: The seconds after which the program is killed, and the test fails.
        path: Folders that go first on the import path.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((*path, *filter(None, sys.path))),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
