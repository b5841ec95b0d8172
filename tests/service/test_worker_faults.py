"""Workers and their supervisor when something goes wrong, as their users start them."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from ..support.patience import PATIENCE
from ..support.waiting import await_that
from .test_deployment import unused_ports
from .test_twistd import ENVIRONMENT, TWISTD, UPGRADE, Service, identity, running
from .test_workers import alive, asked, asked_by_tls

if sys.platform != "linux":
    pytestmark = pytest.mark.skip(reason="FAULTS OF WORKERS ARE NOT TESTED: /proc shows them")

APP = """
import os, sys, time
from twisted.logger import Logger
from twisted_beastws import WebSocketProtocol

class Who(WebSocketProtocol):
    log = Logger()

    def text_received(self, text):
        what, _, number = text.partition(" ")
        if what == "raise":
            raise ValueError("the text of the error")
        if what == "hang":
            time.sleep(1000)
        if what == "fork" and not os.fork():
            # It keeps the pipes to the supervisor, but no connection.
            os.closerange(4, 1000)
            time.sleep(20)
            os._exit(0)
        for count in range(int(number or 0)):
            getattr(self, what)(f"{os.getpid()} {count} " + "x" * 6000 + " end")
        self.send(str(os.getpid()))

    def logs(self, line):
        self.log.info("{line}", line=line)

    def prints(self, line):
        print(line)
"""

SERVED = ("--app=fault_app:Who", "--admin=tcp:0:interface=127.0.0.1")


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "fault_app.py").write_text(APP)
    return tmp_path


def says(port: int, text: str) -> str:
    with connect(f"ws://127.0.0.1:{port}/", proxy=None, open_timeout=PATIENCE) as client:
        client.send(text)
        return str(client.recv(PATIENCE))


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def ready(service: Service) -> bool:
    return service.ask_admin("/readyz")[0] == 200


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_workers_are_started_with_the_files_that_the_supervisor_read(
    app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No directory for temporary files is needed.
    monkeypatch.setitem(ENVIRONMENT, "TMPDIR", str(app / ("long" * 50)))
    plain, secure = unused_ports(2)
    key = app / "key.pem"
    key.write_bytes(identity("localhost"))
    listen = [f"tcp:{plain}:interface=127.0.0.1", f"ssl:{secure}:interface=127.0.0.1:privateKey=key.pem"]
    config = app / "beastws.toml"
    config.write_text(f"listen = {listen}\nping-interval = 20\n")
    (app / "elsewhere").mkdir()
    options = ["-n", "--pidfile=", "--rundir=elsewhere", "beastws", "--workers=1", "--config=beastws.toml"]
    with (app / "log").open("wb") as log:
        service = subprocess.Popen(
            [str(TWISTD), *options, "--app=fault_app:Who"], cwd=app, env=ENVIRONMENT, stdout=log, stderr=log
        )
    try:
        await_that("it listens", lambda: f"serving ws://127.0.0.1:{plain}/" in (app / "log").read_text())
        first = asked(plain)
        # Now the file has the listeners in another order and an invalid one, and the key cannot be read.
        config.write_text(f'listen = {listen[::-1]}\nping-interval = "often"\n')
        key.unlink()
        os.kill(int(first), signal.SIGKILL)
        second = asked(plain)
        assert second != first
        assert asked_by_tls(secure) == second
        service.terminate()
        assert service.wait(PATIENCE) == 0
    finally:
        service.kill()
        service.wait()


def test_a_stopped_supervisor_stops_no_worker(app: Path) -> None:
    with running(app, "--workers=1", *SERVED) as service:
        await_that("it is ready", lambda: ready(service))
        with stopped(service.process.pid):
            worker = says(service.port, "logs 400")
            assert says(service.port, "prints 400") == worker
            assert says(service.port, "") == worker
        await_that("it is told what was lost", lambda: "log lines were lost, because they were not read" in service.log)
        with pytest.raises(ConnectionClosed):
            says(service.port, "raise")
        await_that("the error is told", lambda: "ValueError: the text of the error" in service.log)
        assert '\n\t    raise ValueError("the text of the error")\n' in service.log
        assert says(service.port, "") == worker
        # `running` takes this expected log line for a fault.
        service.log_file.write_text(re.sub("Traceback|#critical", "", service.log))


def test_a_full_log_stops_no_worker_and_lines_stay_whole(app: Path) -> None:
    reading, writing = os.pipe()
    (port,) = unused_ports(1)
    listen = f"--listen=tcp:{port}:interface=127.0.0.1"
    options = ["-n", "--pidfile=", "beastws", "--workers=2", listen, "--app=fault_app:Who", "--access-log=/dev/stdout"]
    # As containers have it: Python then drops the rest of a line if a signal comes while the line waits.
    environment = {**ENVIRONMENT, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen([str(TWISTD), *options], cwd=app, env=environment, stdout=writing) as service:
        os.close(writing)
        try:
            with open(reading, "rb") as log:
                begun = [log.readline()]
                while begun.count(b"") == 0 and sum(b"serving ws" in line for line in begun) < 3:
                    begun.append(log.readline())
                # From now on the supervisor does not read.
                workers = {says(port, f"{what} 10") for what in ("logs", "prints") for _ in range(4)}
                workers |= {says(port, "") for _ in range(10)}
                assert len(workers) == 2
                service.terminate()
                lines = log.read().decode().splitlines()
            assert service.wait(PATIENCE) == 0
        finally:
            service.kill()
    long = [line for line in lines if "xxx" in line]
    # So few are within the limit: none is lost.
    whole = re.compile(r"\S+ \[worker [12] [\w.]+#info\] \d+ \d+ x{6000} end")
    broken = [line.replace("x" * 100, "X") for line in long if not whole.fullmatch(line)]
    assert (len(long), broken) == (80, [])
    assert sum(" status=101 " in line for line in lines) == 18


def test_a_hung_worker_is_replaced_and_does_not_hold_up_the_end(app: Path) -> None:
    with running(app, "--workers=1", "--worker-timeout=4", "--drain-time=2", *SERVED) as service:
        await_that("it is ready", lambda: ready(service))
        first = int(says(service.port, ""))
        with socket.create_connection(("127.0.0.1", service.port), PATIENCE) as client:
            client.sendall(UPGRADE)
            assert client.recv(12) == b"HTTP/1.1 101"
            client.sendall(b"\x81\x84\0\0\0\0hang")
            await_that("it is not ready", lambda: not ready(service))
            second = int(says(service.port, ""))
        assert second != first and not alive(str(first))
        assert re.search(r"worker 1 gave no sign of life for 4(\.5)? s and is killed", service.log)
        await_that("it is ready again", lambda: ready(service))
        with stopped_until_killed(second):
            service.terminate()
            assert service.ended() == 0
        assert service.log.count("gave no sign of life") == 2


@contextmanager
def stopped_until_killed(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    yield
    assert not alive(str(pid))


def test_workers_that_cannot_start_end_the_service(app: Path) -> None:
    with (app / "fault_app.py").open("a") as file:
        file.write("from twisted_beastws.service import worker\n")
        file.write("if worker.membership: raise RuntimeError('no database')\n")
    (port,) = unused_ports(1)
    listen = f"--listen=tcp:{port}:interface=127.0.0.1"
    command = [str(TWISTD), "-n", "--pidfile=", "beastws", "--workers=1", listen, "--app=fault_app:Who"]
    ended = subprocess.run(command, cwd=app, env=ENVIRONMENT, capture_output=True, timeout=PATIENCE)
    log = ended.stdout.decode()
    assert ended.returncode == 1 and len(log) < 5000
    assert log.count("worker 1 cannot start: --app=fault_app:Who: importing fault_app failed: RuntimeError") == 5
    assert re.search(r"#critical\] worker 1 cannot start: .*; that was attempt 5, and no worker serves\n", log)
    assert "Server Shut Down" in log


def test_a_start_survives_failing_forks_planted_modules_and_sighup(app: Path) -> None:
    marker = app / "planted"
    for name in ("textwrap", "json", "signal", "socket", "typing", "logging", "attr", "zope", "tempfile"):
        (app / f"{name}.py").write_text(f"open({str(marker)!r}, 'a').write(__name__)\nraise ImportError('planted')\n")
    with (app / "fault_app.py").open("a") as file:
        file.write(
            "from twisted_beastws.service import worker\n"
            "if worker.membership is None:\n"
            "    import errno\n"
            "    refused = []\n"
            "    def refusing_twice(spawn):\n"
            "        def spawn_later(*arguments, **options):\n"
            "            if len(refused) < 2:\n"
            "                refused.append(1)\n"
            "                raise OSError(errno.EAGAIN, 'Resource temporarily unavailable')\n"
            "            return spawn(*arguments, **options)\n"
            "        return spawn_later\n"
            "    os.posix_spawnp, os.fork = refusing_twice(os.posix_spawnp), refusing_twice(os.fork)\n"
        )
    with running(app, "--workers=2", *SERVED) as service:
        deadline = time.monotonic() + PATIENCE
        while not ready(service):
            assert time.monotonic() < deadline
            for pid in (service.process.pid, *children(service.process.pid)):
                os.kill(pid, signal.SIGHUP)
        assert service.log.count("cannot be started: Resource temporarily unavailable; another starts") == 2
        assert "ended after" not in service.log
    assert not marker.exists()


def test_a_killed_supervisor_leaves_nothing_that_prevents_a_start(app: Path) -> None:
    (port,) = unused_ports(1)
    listen = f"tcp:{port}:interface=127.0.0.1"
    arguments = ("--workers=2", "--app=fault_app:Who", "--listen=unix:shared", "--drain-time=1")
    with ExitStack() as stack:
        killed = Service(app, *arguments, listen=listen, twistd=["--pidfile=pid"])
        stack.callback(killed.process.wait)
        stack.callback(killed.process.kill)
        workers: set[str] = set()

        def both_answered() -> bool:
            workers.add(says(port, ""))
            return len(workers) == 2

        await_that("both serve", both_answered)
        # One has a client to send home, and one of them hangs.
        stack.enter_context(connect(f"ws://127.0.0.1:{port}/", proxy=None))
        hanging = stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE))
        hanging.sendall(UPGRADE + b"\x81\x84\0\0\0\0hang")
        assert hanging.recv(12) == b"HTTP/1.1 101"
        killed.process.kill()
        killed.process.wait()
        await_that("the port is free", lambda: not in_use(port))
        with running(app, *arguments, listen=listen, twistd=["--pidfile=pid"]):
            assert says(port, "") not in workers
    await_that("they are gone", lambda: not any(map(alive, workers)))


def in_use(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return True
    return False


def test_the_service_is_not_ready_while_a_worker_waits_to_be_replaced(app: Path) -> None:
    with running(app, "--workers=2", *SERVED) as service:
        await_that("it is ready", lambda: ready(service))
        # A process that it forked goes on, and keeps its pipes.
        for _ in range(8):
            says(service.port, "fork")
        os.kill(children(service.process.pid)[0], signal.SIGKILL)
        await_that("it is not ready", lambda: not ready(service))
        await_that("it is ready again", lambda: ready(service))
        # The metrics of both were never less than they are.
        assert "beastws_workers_replaced_total 1.0" in service.ask_admin("/metrics")[1]


def test_a_process_without_descriptors_is_in_the_metrics(app: Path) -> None:
    with running(app, "--workers=1", *SERVED) as service:
        await_that("it is ready", lambda: ready(service))
        (worker,) = children(service.process.pid)
        # The modules of the page are imported at its first request.
        assert "beastws_out_of_descriptors_seconds_total 0.0" in service.ask_admin("/metrics")[1]
        _, hard = resource.prlimit(worker, resource.RLIMIT_NOFILE)
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (5, hard))
        shortage = r"^beastws_out_of_descriptors_seconds_total [1-9]"
        await_that("it counts", lambda: re.search(shortage, service.ask_admin("/metrics")[1], re.MULTILINE))
        assert "no file descriptor is left (Too many open files)" in service.log
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (hard, hard))
        assert says(service.port, "") == str(worker)
