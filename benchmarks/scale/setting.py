"""The processes of a measurement: Redis, the service with its workers, and the clients; and their CPU and memory."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.request import urlopen

PATIENCE = 60.0
"""Seconds until a program must listen."""


class Process:
    """A running program."""

    def __init__(self, command: list[str], directory: Path, **settings: Any) -> None:
        self.log = directory / f"{Path(command[0]).name}-{time.monotonic_ns()}.log"
        with self.log.open("wb") as log:
            settings = {"stdout": log, "stderr": log, **settings}
            self.process = subprocess.Popen(command, cwd=directory, **settings)

    @property
    def children(self) -> list[int]:
        """The process's own processes."""
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def stop(self) -> None:
        """End the program."""
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()


class Crowd(Process):
    """A process of clients."""

    def __init__(self, port: int, directory: Path, root: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.scale.crowd", str(port)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        super().__init__(command, directory, env={"PYTHONPATH": str(root)}, **pipes)

    def order(self, do: str, **arguments: Any) -> None:
        """Send an order."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Return the answer to the last order."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the clients ended:\n{self.log.read_text()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Setting:
    """Redis, a service with workers, and crowds of clients; a context manager that ends all of them."""

    def __init__(self, directory: Path, workers: int, crowds: int, *options: str, uvloop: bool = False) -> None:
        self._ends = ExitStack()
        self._directory = directory
        root = Path(__file__).parents[2]
        self.socket = directory / "redis"
        redis = ["redis-server", "--unixsocket", str(self.socket), "--port", "0", "--save", "", "--appendonly", "no"]
        try:
            self.redis = self._start(Process(redis, directory))
            self._await("Redis", lambda: self.redis_cli("PING") == "PONG\n")
            reactor = ["--reactor=beastws-uvloop"] if uvloop else []
            service = [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", *reactor, "beastws"]
            listen = ["--listen=tcp:0:interface=127.0.0.1", "--admin=tcp:0:interface=127.0.0.1"]
            limits = ["--max-connections=0", "--max-handshakes-per-address=0", "--max-joins-per-address=0"]
            joined = [f"--workers={workers}", f"--backplane=unix://{self.socket}"]
            self.service = self._start(Process([*service, *listen, *limits, *joined, *options], directory))
            self.port = self._await("the service", lambda: self._port("ws"))
            self.admin = self._await("the metrics", lambda: self._port("metrics"))
            self._await("the workers", self._is_ready)
            self.crowds = [self._start(Crowd(self.port, directory, root)) for _ in range(crowds)]
        except BaseException:
            self._ends.close()
            raise

    def _start(self, process: Any) -> Any:
        self._ends.callback(process.stop)
        return process

    @staticmethod
    def _await(what: str, done: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE
        while not (found := done()):
            if time.monotonic() > deadline:
                raise RuntimeError(f"not within {PATIENCE:g} s: {what}")
            time.sleep(0.1)
        return found

    def _port(self, page: str) -> int | None:
        form = r"ws://127\.0\.0\.1:(\d+)/chat" if page == "ws" else r"http://127\.0\.0\.1:(\d+)/metrics"
        found = re.search(form, self.service.log.read_text())
        return int(found[1]) if found else None

    def _is_ready(self) -> bool:
        try:
            return bool(urlopen(f"http://127.0.0.1:{self.admin}/readyz", timeout=5).status == 200)
        except OSError:
            return False

    def redis_cli(self, *words: str) -> str:
        """Run a command of Redis."""
        done = subprocess.run(
            ["redis-cli", "-s", str(self.socket), *words], capture_output=True, text=True, check=False
        )
        return done.stdout

    def redis_info(self) -> dict[str, float]:
        """Return the numbers that Redis counts."""
        pairs = (line.partition(":")[::2] for line in self.redis_cli("INFO").splitlines())
        return {name: float(value) for name, value in pairs if re.fullmatch(r"\d+(\.\d+)?", value)}

    def metrics(self) -> dict[str, float]:
        """Return the service's metrics, each summed over its labels."""
        text = urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=PATIENCE).read().decode()
        found: dict[str, float] = {}
        for name, value in re.findall(r"^(\w+)(?:\{[^}]*\})? (\S+)$", text, re.MULTILINE):
            found[name] = found.get(name, 0.0) + float(value)
        return found

    def tell_all(self, do: str, **arguments: Any) -> list[dict[str, Any]]:
        """Give an order to all crowds at once, and return their answers."""
        for crowd in self.crowds:
            crowd.order(do, **arguments)
        return [crowd.answer() for crowd in self.crowds]

    def open(self, count: int, room: str, rooms: int) -> None:
        """Open connections, divided between the crowds."""
        share = count // len(self.crowds)
        for place, crowd in enumerate(self.crowds):
            crowd.order("open", first=place * share, count=share, room=room, rooms=rooms)
        for crowd in self.crowds:
            crowd.answer()

    @property
    def workers(self) -> list[int]:
        """The processes of the workers."""
        return self.service.children

    def __enter__(self) -> Setting:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ends.close()


def memory(*processes: int) -> int:
    """Return the bytes of memory that processes have for themselves."""
    kib = 0
    for pid in processes:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        kib += sum(int(number) for number in re.findall(r"^Private_(?:Clean|Dirty): +(\d+) kB", text, re.MULTILINE))
    return kib * 1024


def kernel_memory() -> int:
    """Return the bytes that the buffers of all TCP connections take in the kernel."""
    found = re.search(r"^TCP:.* mem (\d+)$", Path("/proc/net/sockstat").read_text(), re.MULTILINE)
    return int(found[1]) * resource.getpagesize() if found else 0
