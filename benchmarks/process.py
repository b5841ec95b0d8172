"""The process of a server: it runs on its own core, and ``/proc`` shows its CPU time and memory."""

from __future__ import annotations

import os
import resource
import select
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from benchmarks.peers import Server

PROGRAMS = Path(__file__).parent / "servers"
PATIENCE = 60.0
"""Seconds until a server must listen."""

_PAGE = os.sysconf("SC_PAGE_SIZE")


class UnavailableError(Exception):
    """The server does not support the workload."""


class ServerProcess:
    """A context manager for a running server, which listens on ``port``.

    under: the command of a tool that runs the server, such as Valgrind, or nothing.
    """

    def __init__(self, python: Path, server: Server, mode: str, core: int, under: Sequence[str] = ()) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TWISTED_"))}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [*under, python, PROGRAMS / server.program, mode],
            env=inherited | server.variables,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        try:
            os.sched_setaffinity(self._process.pid, {core})
            self.port = self._read_port()
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def _read_port(self) -> int:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE)
        line = self._process.stdout.readline() if ready else b""
        if line:
            return int(line)
        if ready and self._process.wait(PATIENCE) == os.EX_UNAVAILABLE:
            raise UnavailableError
        raise RuntimeError(f"the server did not start: {self.errors()}")

    def errors(self) -> str:
        """Return the end of the server's standard error."""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")[-2000:]

    def cpu(self) -> float:
        """Return the CPU time of all threads in seconds."""
        return cpu_seconds(self._process.pid)

    def memory(self) -> int:
        """Return the process's resident memory, in bytes."""
        return int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]) * _PAGE

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def cpu_seconds(*processes: int) -> float:
    """Return the CPU seconds of all threads of processes, to the nanosecond; the kernel's own ticks last 10 ms."""
    threads = (thread for pid in processes for thread in Path(f"/proc/{pid}/task").iterdir())
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def raise_descriptors() -> int:
    """Raise this process's limit of open files as far as allowed, and return it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
