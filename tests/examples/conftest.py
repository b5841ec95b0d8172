"""The libraries of the examples in JavaScript."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ..support.patience import PATIENCE
from .processes import EXAMPLES


@pytest.fixture(scope="session")
def javascript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the examples in JavaScript and the packages that they need, about 14 MB."""
    folder = tmp_path_factory.mktemp("javascript")
    for name in ("package.json", "mqtt_client.mjs", "vnc.html"):
        shutil.copy(EXAMPLES / name, folder)
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("THE TUNNEL FOR MQTT.JS AND NOVNC IS NOT TESTED: apt-get install nodejs npm")
    command = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=2 * PATIENCE, check=False)
        problem = done.stderr.strip() if done.returncode else ""
    except subprocess.TimeoutExpired:
        problem = f"no answer in {2 * PATIENCE:g} s"
    if problem:
        lines = problem.splitlines()
        pytest.skip(f"THE TUNNEL FOR MQTT.JS AND NOVNC IS NOT TESTED: npm install in examples failed: {lines[0]}")
    return folder
