"""The libraries of the examples in JavaScript."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ..support.background import Command, Job
from ..support.patience import PATIENCE
from .processes import ENVIRONMENT, EXAMPLES

NPM = shutil.which("npm")


def install(directory: Path) -> Command:
    """Install the packages that the examples in JavaScript need, about 14 MB."""
    for name in ("package.json", "mqtt_client.mjs", "vnc.html"):
        shutil.copy(EXAMPLES / name, directory)
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
    return Command([NPM or "npm", "install", *options], directory, ENVIRONMENT, 2 * PATIENCE)


INSTALLATION = Job(install, "javascript")


@pytest.fixture(scope="session")
def javascript() -> Path:
    """Return a folder with the examples in JavaScript and the packages that they need."""
    if NPM is None or shutil.which("node") is None:
        pytest.skip("THE TUNNEL FOR MQTT.JS AND NOVNC IS NOT TESTED: apt-get install nodejs npm")
    try:
        done = INSTALLATION.done()
        problem = done.stderr.strip() if done.returncode else ""
    except subprocess.TimeoutExpired:
        problem = f"no answer in {2 * PATIENCE:g} s"
    if problem:
        lines = problem.splitlines()
        pytest.skip(f"THE TUNNEL FOR MQTT.JS AND NOVNC IS NOT TESTED: npm install in examples failed: {lines[0]}")
    return INSTALLATION.directory
