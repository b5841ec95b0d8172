"""Notices for systemd: a socket of the test stands for systemd's."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from websockets.sync.client import connect

from twisted_beastws.service.monitoring.systemd import BEATS, POLL, NoticeSocket, Systemd

from ...support.patience import PATIENCE
from ...support.waiting import await_that
from ..test_twistd import ENVIRONMENT, TWISTD

if sys.platform != "linux":
    pytestmark = pytest.mark.skip(reason="NOTICES ARE NOT TESTED: systemd is Linux's")

DEPLOY = Path(__file__).parents[3] / "deploy"


class Reactor(Clock):
    """It runs from the start."""

    def __init__(self) -> None:
        super().__init__()
        self.shutdown: list[Callable[[], None]] = []

    def callWhenRunning(self, call: Callable[[], None]) -> None:
        call()

    def addSystemEventTrigger(self, phase: str, event: str, call: Callable[[], None]) -> None:
        assert (phase, event) == ("before", "shutdown")
        self.shutdown.append(call)


class Manager:
    """The end of systemd."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self._socket.settimeout(PATIENCE)

    def notice(self) -> list[str]:
        """The lines of the next notice."""
        return self._socket.recv(4096).decode().split("\n")

    def pending(self) -> list[list[str]]:
        """All notices that came already."""
        notices = []
        self._socket.setblocking(False)
        try:
            while True:
                notices.append(self.notice())
        except BlockingIOError:
            return notices
        finally:
            self._socket.settimeout(PATIENCE)

    def is_silent_for(self, seconds: float) -> bool:
        """Whether no notice comes for so long."""
        self._socket.settimeout(seconds)
        try:
            self.notice()
        except TimeoutError:
            return True
        finally:
            self._socket.settimeout(PATIENCE)
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["notify", "@"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(f"@beastws-{os.getpid()}" if request.param == "@" else str(tmp_path / request.param))
    yield manager
    manager.close()


class TestNotices:
    """The notices that the service sends, as sd_notify(3) defines them."""

    @pytest.fixture
    def reactor(self) -> Reactor:
        return Reactor()

    def service(self, manager: Manager, reactor: Reactor, ready: Callable[[], Any]) -> Systemd:
        systemd = Systemd(reactor, NoticeSocket(manager.address), None, ready)
        systemd.startService()
        assert manager.notice() == ["STATUS=Waiting for the listeners and the backplane"]
        return systemd

    def test_ready_goes_out_once_when_the_service_is_ready(self, manager: Manager, reactor: Reactor) -> None:
        answers: list[Any] = [False, Deferred(), True]
        asked = answers[1]
        systemd = self.service(manager, reactor, lambda: answers.pop(0))
        reactor.advance(POLL)
        asked.callback(False)
        assert manager.pending() == []
        reactor.advance(POLL)
        assert manager.pending() == [["READY=1", "STATUS=Serving"]]
        assert reactor.getDelayedCalls() == []
        systemd.stopService()

    def test_a_reload_is_announced_with_its_time_and_its_end(self, manager: Manager, reactor: Reactor) -> None:
        systemd = self.service(manager, reactor, lambda: True)
        manager.pending()
        systemd.reloading()
        systemd.reloaded()
        (reloading, time), ready = manager.pending()
        assert reloading == "RELOADING=1" and re.fullmatch(r"MONOTONIC_USEC=\d+", time)
        assert ready == ["READY=1"]
        systemd.stopService()

    def test_a_reload_before_the_service_is_ready_is_not_announced(self, manager: Manager, reactor: Reactor) -> None:
        systemd = self.service(manager, reactor, lambda: False)
        systemd.reloading()
        systemd.reloaded()
        assert manager.pending() == []
        systemd.stopService()
        assert reactor.getDelayedCalls() == []

    def test_stopping_goes_out_when_the_reactor_begins_to_stop(self, manager: Manager, reactor: Reactor) -> None:
        systemd = self.service(manager, reactor, lambda: True)
        manager.pending()
        for call in reactor.shutdown:
            call()
        assert manager.pending() == [["STOPPING=1", "STATUS=Closing the connections"]]
        systemd.stopService()
        # A reactor that stops for another reason later finds the socket closed.
        for call in reactor.shutdown:
            call()

    def test_a_service_that_stopped_meanwhile_does_not_report_ready(self, manager: Manager, reactor: Reactor) -> None:
        asked: Deferred[bool] = Deferred()
        systemd = self.service(manager, reactor, lambda: asked)
        systemd.stopService()
        asked.callback(True)
        assert manager.pending() == [] == reactor.getDelayedCalls()

    def test_a_missing_socket_is_logged(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        warned: list[str] = []
        monkeypatch.setattr(NoticeSocket, "log", SimpleNamespace(warn=lambda text, what, **_: warned.append(what)))
        notices = NoticeSocket(str(tmp_path / "gone"))
        notices.send("READY=1", "STATUS=Serving")
        assert warned == ["READY=1"]
        notices.close()


class TestEnvironment:
    """The environment variables that systemd sets."""

    def environment(self, **variables: str) -> dict[str, str]:
        return {"NOTIFY_SOCKET": "/run/systemd/notify", "HOME": "/", **variables}

    @pytest.mark.parametrize("address", ["", "vsock:2:1", "notify"])
    def test_no_notice_is_sent_without_the_address_of_a_unix_socket(self, address: str) -> None:
        environment = self.environment(NOTIFY_SOCKET=address, WATCHDOG_USEC="1000", WATCHDOG_PID="1")
        assert Systemd.of(environment, Reactor(), lambda: True) is None
        assert environment == {"HOME": "/"}

    @pytest.mark.parametrize(
        ("microseconds", "process", "interval"),
        [
            ("30000000", "", 10),
            ("30000000", str(os.getpid()), 10),
            ("30000000", "1", None),
            ("0", "", None),
            ("often", "", None),
            ("", "", None),
        ],
    )
    def test_the_watchdog_is_for_this_process_alone(
        self, monkeypatch: pytest.MonkeyPatch, microseconds: str, process: str, interval: float | None
    ) -> None:
        intervals: list[float] = []
        monkeypatch.setattr(
            "twisted_beastws.service.monitoring.systemd.Heartbeat",
            lambda reactor, interval, beat: intervals.append(interval),
        )
        environment = self.environment(WATCHDOG_USEC=microseconds, WATCHDOG_PID=process)
        assert Systemd.of(environment, Reactor(), lambda: True) is not None
        assert environment == {"HOME": "/"}
        assert intervals == ([] if interval is None else [interval])


APP = """
import os, time
from twisted_beastws import WebSocketProtocol

class Blocking(WebSocketProtocol):
    def text_received(self, text):
        if text == "environment":
            names = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}
            self.send(" ".join(names.intersection(os.environ)))
        else:
            a_hook_that_blocks()

def a_hook_that_blocks():
    time.sleep(1000)
"""

BLOCKING = "--app=blocking_app:Blocking"

# The process id is the one that the watchdog expects, as systemd sets it.
AS_SYSTEMD = """
import os, sys
os.environ["WATCHDOG_PID"] = str(os.getpid())
os.execv(sys.argv[1], sys.argv[1:])
"""


class Unit:
    """The service as systemd runs it."""

    def __init__(self, directory: Path, seconds: float, *arguments: str) -> None:
        (directory / "blocking_app.py").write_text(APP)
        self.manager = Manager(str(directory / "notify"))
        self.log_file = directory / "log"
        listen = "--listen=tcp:0:interface=127.0.0.1"
        options = ["-n", "--pidfile=", "beastws", listen, *arguments]
        environment = {
            **ENVIRONMENT,
            "NOTIFY_SOCKET": self.manager.address,
            "WATCHDOG_USEC": str(int(seconds * 1e6)),
        }
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", AS_SYSTEMD, str(TWISTD), *options],
                cwd=directory,
                env=environment,
                stdout=log,
                stderr=log,
            )

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def next_notice(self, *left_out: str) -> str:
        """The first line of the next notice that is none of these."""
        while (notice := self.manager.notice()[0]) in left_out:
            pass
        return notice

    def url(self) -> str:
        found = re.search(r"serving (ws://127\.0\.0\.1:\d+/)", self.log)
        assert found is not None
        return found[1]


@contextmanager
def unit(directory: Path, seconds: float, *arguments: str) -> Iterator[Unit]:
    unit = Unit(directory, seconds, *arguments)
    try:
        yield unit
    finally:
        unit.process.kill()
        unit.process.wait()
        unit.manager.close()


WAITING = "STATUS=Waiting for the listeners and the backplane"


class TestUnit:
    """The service under a stand-in for systemd, as a process."""

    @pytest.mark.parametrize("workers", [(), ("--workers=1",)], ids=["one process", "a supervisor"])
    def test_the_service_reports_its_whole_life(self, tmp_path: Path, workers: tuple[str, ...]) -> None:
        with unit(tmp_path, 3 * PATIENCE, BLOCKING, *workers) as one:
            assert one.next_notice() == WAITING
            assert one.next_notice() == "READY=1"
            with connect(one.url(), proxy=None, open_timeout=PATIENCE) as client:
                client.send("environment")
                assert client.recv(PATIENCE) == ""
            one.process.send_signal(signal.SIGHUP)
            assert [one.next_notice(), one.next_notice()] == ["RELOADING=1", "READY=1"]
            one.process.send_signal(signal.SIGTERM)
            assert one.next_notice() == "STOPPING=1"
            assert one.process.wait(PATIENCE) == 0

    def test_a_service_without_its_backplane_is_not_ready(self, tmp_path: Path) -> None:
        with unit(tmp_path, 3 * PATIENCE, "--backplane=redis://127.0.0.1:1") as one:
            assert one.next_notice() == WAITING
            await_that("it has looked for its backplane", lambda: "redis://127.0.0.1:1" in one.log)
            one.process.send_signal(signal.SIGTERM)
            assert one.next_notice() == "STOPPING=1"
            assert one.process.wait(PATIENCE) == 0

    def test_signs_of_life_end_when_a_hook_blocks_and_the_log_has_the_hook(self, tmp_path: Path) -> None:
        with unit(tmp_path, 0.3, BLOCKING) as one:
            assert one.next_notice("WATCHDOG=1", WAITING) == "READY=1"
            for _ in range(BEATS):
                assert one.next_notice() == "WATCHDOG=1"
            with connect(one.url(), proxy=None, open_timeout=PATIENCE, close_timeout=0) as client:
                client.send("block")
                await_that("systemd misses the signs of life", lambda: one.manager.is_silent_for(1))
                one.process.send_signal(signal.SIGABRT)
                assert one.process.wait(PATIENCE) == -signal.SIGABRT
            assert "a_hook_that_blocks" in one.log


class TestUnitFile:
    """The unit of ``deploy/``."""

    def test_the_unit_waits_for_the_notices(self) -> None:
        unit = (DEPLOY / "beastws.service").read_text()
        assert "\nType=notify\n" in unit and "\nRestart=on-failure\n" in unit
        assert re.search(r"^WatchdogSec=\d+$", unit, re.MULTILINE)

    def test_systemd_finds_no_fault(self, tmp_path: Path) -> None:
        analyze = "/usr/bin/systemd-analyze"
        if not os.path.exists(analyze):
            pytest.skip("THE UNIT IS NOT TESTED: apt-get install systemd")
        for name in ("beastws.service", "beastws.socket"):
            text = (DEPLOY / name).read_text().replace("/opt/beastws/bin/twistd", "/bin/true")
            (tmp_path / name).write_text(text)
        done = subprocess.run(
            [analyze, "verify", *(str(path) for path in sorted(tmp_path.glob("beastws.*")))],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
