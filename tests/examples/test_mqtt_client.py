"""The example mqtt_client.mjs: MQTT.js through tunnel.py to mosquitto."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from getpass import getuser
from pathlib import Path

import pytest

from ..support.patience import PATIENCE
from ..support.waiting import await_that
from .processes import Example

# Debian installs servers where only the administrator's PATH finds them.
MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")


@contextmanager
def broker(directory: Path) -> Iterator[Path]:
    """Start mosquitto, and yield its UNIX socket."""
    if MOSQUITTO is None:
        pytest.skip("THE TUNNEL TO A BROKER IS NOT TESTED: apt-get install mosquitto")
    path, log, configuration = (directory / name for name in ("socket", "log", "mosquitto.conf"))
    configuration.write_text(f"listener 0 {path}\nallow_anonymous true\nuser {getuser()}\n")
    with log.open("wb") as output:
        process = subprocess.Popen([MOSQUITTO, "-c", str(configuration)], stdout=output, stderr=output)
    try:
        await_that("mosquitto listens", path.exists, log.read_text)
        yield path
    finally:
        process.terminate()
        process.wait(PATIENCE)


def mqtt_client(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["node", "mqtt_client.mjs", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False)


@contextmanager
def tunnel(directory: Path, to: Path, keys: str) -> Iterator[str]:
    with Example("tunnel", directory, "--to", f"unix:{to}", listen=f"beastws:target=/mqtt{keys}:tcp") as example:
        yield f"ws://127.0.0.1:{example.port}/mqtt"


def test_a_message_goes_through_the_tunnel_to_the_broker_and_back(tmp_path: Path, javascript: Path) -> None:
    # Longer than a message of the tunnel, which carries 64 KiB.
    message = "hello " * 15_000
    with broker(tmp_path) as socket, tunnel(tmp_path, socket, ":subprotocols=mqtt") as url:
        done = mqtt_client(javascript, url, "greetings", message)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"greetings: {message}\n", "")


def test_mqtt_js_needs_the_subprotocol_mqtt(tmp_path: Path, javascript: Path) -> None:
    with broker(tmp_path) as socket, tunnel(tmp_path, socket, "") as url:
        done = mqtt_client(javascript, url)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"no answer from {url}" in done.stderr
