"""A PostgreSQL on a UNIX socket, for tests that may kill and restart it."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from glob import glob
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp

import pytest

from .waiting import await_start

INSTALL = "POSTGRESQL IS NOT TESTED: apt-get install postgresql"


def program(name: str) -> str | None:
    """Return the path of a program of PostgreSQL. Debian does not put it into PATH."""
    found = shutil.which(name)
    return found or next(iter(sorted(glob(f"/usr/lib/postgresql/*/bin/{name}"), reverse=True)), None)


class PostgresServer:
    """A running PostgreSQL with a database "postgres", whose superuser is "postgres".

    It listens only on a UNIX socket, so no port can be taken.

    Args:
        directory: a directory for its files and its socket, with a short path.
        primary: a server of which this one is a replica.
    """

    def __init__(self, directory: Path, primary: PostgresServer | None = None) -> None:
        self.directory = directory
        self.path = directory / ".s.PGSQL.5432"
        self.data = directory / "data"
        # PostgreSQL refuses to run as root.
        self._user = "postgres" if os.getuid() == 0 else None
        if self._user is not None:
            shutil.chown(directory, "postgres", "postgres")
            os.chmod(directory, 0o755)
        if primary is None:
            self._run("cp", "-a", str(_template(self._user)), str(self.data))
        else:
            options = ["-U", "postgres", "-h", str(primary.directory), "--no-sync", "-c", "fast", "-R", "-X", "stream"]
            self._run(str(program("pg_basebackup")), "-D", str(self.data), *options)
        self.start()

    def _run(self, *command: str) -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, user=self._user, extra_groups=self._groups())

    def _groups(self) -> list[int] | None:
        return None if self._user is None else []

    @property
    def url(self) -> str:
        return f"postgresql://postgres@/postgres?host={self.directory}"

    def start(self, *options: str) -> None:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.directory),
            "shared_buffers": "16MB",
            # A loss of the machine's power is not tested; a killed server loses nothing without it.
            "fsync": "off",
            "wal_level": "replica",
            "autovacuum": "off",
            "min_wal_size": "2MB",
            "max_wal_size": "64MB",
        }
        given = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = [str(program("postgres")), "-D", str(self.data), *given, *options]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user=self._user, extra_groups=self._groups()
        )
        await_start(self.process, "PostgreSQL answers", self._answers)

    def _answers(self) -> bool:
        import psycopg

        try:
            self.ask("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def ask(self, command: str) -> list[tuple[object, ...]]:
        """Execute a command as the superuser; return its rows."""
        import psycopg

        writable = "-c default_transaction_read_only=off"
        with psycopg.connect(self.url, autocommit=True, options=writable) as connection:
            cursor = connection.execute(command.encode())
            return cursor.fetchall() if cursor.description is not None else []

    def kill(self) -> None:
        """Kill all its processes at once. PostgreSQL recovers when it starts again."""
        for child in self._children():
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Let it answer nothing."""
        for child in [self.process.pid, *self._children()]:
            os.kill(child, signal.SIGSTOP)

    def go_on(self) -> None:
        for child in [self.process.pid, *self._children()]:
            os.kill(child, signal.SIGCONT)

    def _children(self) -> list[int]:
        try:
            found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        except FileNotFoundError:
            return []
        return [int(each) for each in found.split()]


@cache
def _template(user: str | None) -> Path:
    """Return a directory with the data of a new PostgreSQL: to make them takes seconds, to copy them does not."""
    directory = Path(mkdtemp(prefix="beastws-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    if user is not None:
        shutil.chown(directory, user, user)
    command = [str(program("initdb")), "-D", str(directory / "data"), "-U", "postgres", "-A", "trust", "--no-sync"]
    groups: list[int] | None = None if user is None else []
    command += ["-E", "UTF8", "--locale", "C", "--wal-segsize", "1"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, user=user, extra_groups=groups)
    return directory / "data"


@contextmanager
def postgres_running() -> Iterator[PostgresServer]:
    """Yield a running PostgreSQL; skip the test if the server or the Python client is not installed."""
    if program("postgres") is None or program("initdb") is None:
        pytest.skip(INSTALL)
    if find_spec("psycopg") is None:
        pytest.skip("POSTGRESQL IS NOT TESTED: pip install 'psycopg[binary]'")
    # The path of a UNIX socket has at most 107 bytes, and pytest's directories are not for other users.
    directory = Path(mkdtemp(prefix="beastws-"))
    try:
        server = PostgresServer(directory)
        try:
            yield server
        finally:
            server.kill()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
