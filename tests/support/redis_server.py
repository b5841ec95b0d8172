"""A redis-server on a UNIX socket and a loopback port, for tests that may kill and restart it."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

from .patience import PATIENCE
from .ports import free_port
from .waiting import await_start

SERVER = shutil.which("redis-server") or shutil.which("valkey-server")


class RedisServer:
    """A running redis-server or valkey-server, which writes each command to its append-only file before it replies.

    Args:
        directory: The directory for its files and its socket.
        options: More options for its command line.
    """

    def __init__(self, directory: Path, *options: str) -> None:
        self.path = directory / "redis"
        self.port = free_port()
        self.cluster_port = int(options[options.index("--cluster-port") + 1]) if "--cluster-port" in options else 0
        self._command = [
            *(str(SERVER), "--unixsocket", str(self.path), "--bind", "127.0.0.1", "--port", str(self.port)),
            *("--dir", str(directory), "--save", "", "--daemonize", "no"),
            # By default Redis delays its writes while the disk is slow to sync, and a kill would lose what it delayed.
            *("--appendonly", "yes", "--appendfsync", "no"),
            # Without this option a replica gets the data only after five seconds.
            *("--repl-diskless-sync-delay", "0", *options),
        ]
        self.start()

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        # The server listens before it has loaded its file, and answers LOADING until then.
        await_start(self.process, "redis-server has loaded its data", lambda: self._try("PING").startswith(b"+PONG"))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def ask(self, command: str) -> str:
        """Return the raw reply to a command; its arguments must not contain spaces."""
        return self._try(command).decode()

    def _try(self, command: str) -> bytes:
        said = b""
        with socket.socket(socket.AF_UNIX) as asking, suppress(OSError):
            asking.settimeout(PATIENCE)
            asking.connect(str(self.path))
            asking.sendall(f"{command}\r\nQUIT\r\n".encode())
            while part := asking.recv(1 << 16):
                said += part
        return said.removesuffix(b"+OK\r\n")


def cluster_node() -> tuple[str, ...]:
    """Return the options of a Cluster's node.

    By default its second port is 10,000 above its first, where an outgoing connection may be.
    """
    return ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))


def meet(one: RedisServer, other: RedisServer) -> None:
    """Let two nodes of a Cluster meet."""
    assert one.ask(f"CLUSTER MEET 127.0.0.1 {other.port} {other.cluster_port}") == "+OK\r\n"


@contextmanager
def redis_running(directory: Path, *options: str) -> Iterator[RedisServer]:
    """Yield a running redis-server; skip the test if the server or the Python client is not installed."""
    if SERVER is None:
        pytest.skip("REDIS IS NOT TESTED: apt-get install redis-server")
    if find_spec("txredisapi") is None:
        pytest.skip("REDIS IS NOT TESTED: pip install txredisapi hiredis")
    server = RedisServer(directory, *options)
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def sentinel_running(directory: Path, primary: int, *lines: str) -> Iterator[int]:
    """Run a Sentinel, and yield its port.

    It monitors the primary on port ``primary`` under the name ``rooms``, and its vote alone starts a failover.
    """
    port = free_port()
    configuration = directory / "sentinel.conf"
    configured = [
        f"port {port}",
        "bind 127.0.0.1",
        f"dir {directory}",
        f"sentinel monitor rooms 127.0.0.1 {primary} 1",
        "sentinel down-after-milliseconds rooms 1000",
        "sentinel failover-timeout rooms 2000",
        *lines,
    ]
    configuration.write_text("\n".join(configured) + "\n")
    command = [str(SERVER), str(configuration), "--sentinel"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.kill()
        process.wait()
