"""Tests that install the uvloop reactor in a process and use other parts of Twisted on it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from ..support.patience import PATIENCE
from ..support.waiting import await_start

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
TWISTD = Path(sys.executable).with_name("twistd")
WITHOUT_UVLOOP = "import sys; sys.modules['uvloop'] = None\n"


def python(program: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE)


def printed(program: str) -> str:
    done = python(program)
    assert done.returncode == 0, done.stderr
    return done.stdout


CHILD = "import os; os.write(1, b'out ' * 2); os._exit(5)"
INSTALLED = "from twisted_beastws.uvreactor import install; install()\nfrom twisted.internet import reactor\n"


def test_the_reactor_is_installed() -> None:
    program = INSTALLED + "import asyncio; print(type(reactor).__name__, reactor.loop is asyncio.get_event_loop())"
    assert printed(program) == "UvloopReactor True\n"


def test_a_second_installation_is_refused() -> None:
    assert python(INSTALLED + "install()").stderr.endswith("ReactorAlreadyInstalledError: reactor already installed\n")


def test_another_loop_can_be_used() -> None:
    program = """
import uvloop
from twisted_beastws.uvreactor import install
loop = uvloop.new_event_loop()
install(loop)
from twisted.internet import reactor
print(reactor.loop is loop)
"""
    assert printed(program) == "True\n"
    wrong = "import asyncio\nfrom twisted_beastws.uvreactor import install\ninstall(asyncio.SelectorEventLoop())"
    assert "TypeError: a uvloop loop is needed, not <_UnixSelectorEventLoop" in python(wrong).stderr


def test_one_line_says_what_to_do_without_uvloop() -> None:
    done = python(WITHOUT_UVLOOP + "from twisted_beastws.uvreactor import install\ninstall()")
    expected = "ImportError: this reactor needs uvloop: pip install 'twisted_beastws[uvloop]'"
    assert done.stderr.splitlines()[-1] == expected
    twistd = (
        "sys.argv = ['twistd', '--reactor', 'beastws-uvloop', 'web']\nfrom twisted.scripts import twistd\ntwistd.run()"
    )
    done = python(WITHOUT_UVLOOP + twistd)
    assert done.returncode != 0
    assert "this reactor needs uvloop: pip install 'twisted_beastws[uvloop]'" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("connect", ["early", "late"])
def test_processes_can_be_spawned(connect: str) -> None:
    # In the "early" case the child processes end before the reactor runs.
    program = f"""
import sys
from twisted.internet.protocol import ProcessProtocol
class Child(ProcessProtocol):
    def outReceived(self, data): print(data.decode(), end="", flush=True)
    def processEnded(self, reason):
        print(reason.value.exitCode, end=" ", flush=True)
        left.pop()
        left or reactor.stop()
left = [1, 2, 3]
def spawn():
    for number in left:
        reactor.spawnProcess(Child(), sys.executable, ["python", "-c", {CHILD!r}], env=None)
{"spawn(); import time; time.sleep(0.5)" if connect == "early" else "reactor.callWhenRunning(spawn)"}
reactor.run()
"""
    assert sorted(printed(INSTALLED + program).split()) == ["5"] * 3 + ["out"] * 6


def test_signals_are_handled() -> None:
    program = """
import os, signal
reactor.callWhenRunning(os.kill, os.getpid(), signal.SIGINT)
reactor.addSystemEventTrigger("before", "shutdown", print, "stopping")
reactor.run()
"""
    assert printed(INSTALLED + program) == "stopping\n"


def test_a_keyboard_interrupt_in_a_callback_is_the_programs() -> None:
    program = """
import socket
from twisted.internet.protocol import Factory, Protocol
class Interrupted(Protocol):
    def dataReceived(self, data): raise KeyboardInterrupt
port = reactor.listenTCP(0, Factory.forProtocol(Interrupted), interface="127.0.0.1")
peer = socket.create_connection(("127.0.0.1", port.getHost().port))
peer.sendall(b"x")
try:
    reactor.run(installSignalHandlers=False)
except KeyboardInterrupt:
    print("interrupted")
"""
    assert printed(INSTALLED + program) == "interrupted\n"


def test_sockets_can_be_adopted() -> None:
    """The caller may close the descriptors of a listening and of a connected socket after the reactor adopts them."""
    program = """
import socket
from twisted.internet.protocol import Factory, Protocol
class Echo(Protocol):
    def dataReceived(self, data): self.transport.write(data + type(self.transport).__name__.encode())
listener = socket.create_server(("127.0.0.1", 0))
address = listener.getsockname()
listener.setblocking(False)
port = reactor.adoptStreamPort(listener.fileno(), socket.AF_INET, Factory.forProtocol(Echo))
listener.close()
ours, theirs = socket.create_server(("127.0.0.1", 0)), None
theirs = socket.create_connection(ours.getsockname())
accepted, _ = ours.accept()
accepted.setblocking(False)
reactor.adoptStreamConnection(accepted.fileno(), socket.AF_INET, Factory.forProtocol(Echo))
accepted.close()
def talk():
    for peer in (socket.create_connection(address), theirs):
        peer.settimeout(60)
        peer.sendall(b"echo by ")
        print(peer.recv(100).decode())
    reactor.callFromThread(reactor.stop)
reactor.callInThread(talk)
reactor.run()
"""
    assert printed(INSTALLED + program) == "echo by NativeConnection\n" * 2


def test_twistd_can_use_the_reactor(tmp_path: Path) -> None:
    (tmp_path / "page.txt").write_text("a page" * 100_000)
    log = tmp_path / "log"
    command: list[str | Path] = [TWISTD, "-n", "--pidfile=", "--reactor", "beastws-uvloop", "--logfile", log]
    web: list[str | Path] = ["web", "--listen", "tcp:0:interface=127.0.0.1", "--path", tmp_path]
    process = subprocess.Popen([*command, *web], env={**ENVIRONMENT, "PYTHONFAULTHANDLER": "1"}, cwd=tmp_path)
    try:
        found = await_start(
            process,
            "the site listens",
            lambda: log.exists() and re.search(r"Site starting on (\d+)", log.read_text()),
        )
        page = f"http://127.0.0.1:{found[1]}/page.txt"
        with urllib.request.urlopen(page, timeout=PATIENCE) as answer:
            assert answer.read() == b"a page" * 100_000
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            # It prints where each of its threads is, which shows why it does not end.
            process.send_signal(signal.SIGABRT)
            process.wait(PATIENCE)
            raise
        finally:
            process.kill()
    assert "reactor class: twisted_beastws.uvreactor.reactor.UvloopReactor" in log.read_text()
    assert "Traceback" not in log.read_text()
