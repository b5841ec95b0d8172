"""Tests of `twisted_beastws.server.descriptors`: the watch on its own, and in processes that listen."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
from twisted.internet.task import Clock

from twisted_beastws.server.descriptors import INTERVAL, MIN_SILENCE, DescriptorWatch

from ..support.log import logged_lines
from ..support.patience import PATIENCE

LEFT = (
    "no file descriptor is left (Too many open files): new connections are dropped until others end; raise the limit "
)


@pytest.fixture
def lines() -> Iterator[list[str]]:
    with logged_lines() as lines:
        yield lines


class Sockets:
    """Replaces ``socket.socket``. While `error` is set, no socket can be opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error: OSError | None = None
        monkeypatch.setattr("twisted_beastws.server.descriptors.socket.socket", self.open)

    def open(self) -> Sockets:
        if self.error is not None:
            raise self.error
        return self

    def close(self) -> None:
        pass


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> Sockets:
    return Sockets(monkeypatch)


class TestWatch:
    """The watch on file descriptors, with a reactor of the test's own."""

    @pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
    def test_the_time_without_a_descriptor_is_counted(self, sockets: Sockets, clock: Clock, number: int) -> None:
        watch = DescriptorWatch(clock.callLater)
        watch.add("port")
        clock.pump([INTERVAL] * 2)
        assert watch.seconds == 0
        sockets.error = OSError(number, "Too many open files")
        clock.pump([INTERVAL] * 3)
        sockets.error = None
        clock.pump([INTERVAL] * 2)
        assert watch.seconds == 3

    def test_another_error_is_no_shortage(self, sockets: Sockets, clock: Clock) -> None:
        watch = DescriptorWatch(clock.callLater)
        watch.add("port")
        sockets.error = PermissionError(errno.EACCES, "Permission denied")
        clock.advance(INTERVAL)
        assert watch.seconds == 0

    def test_the_log_has_one_line_a_minute(self, sockets: Sockets, clock: Clock, lines: list[str]) -> None:
        DescriptorWatch(clock.callLater).add("port")
        sockets.error = OSError(errno.EMFILE, "Too many open files")
        clock.pump([INTERVAL] * MIN_SILENCE)
        assert [line[: len(LEFT)] for line in lines] == [LEFT]
        clock.advance(INTERVAL)
        assert [line[: len(LEFT)] for line in lines] == [LEFT] * 2

    def test_the_end_of_the_shortage_is_logged(self, sockets: Sockets, clock: Clock, lines: list[str]) -> None:
        DescriptorWatch(clock.callLater).add("port")
        for _ in range(5):
            # Only the first shortage is logged, so only its end is logged.
            sockets.error = OSError(errno.EMFILE, "Too many open files")
            clock.advance(INTERVAL)
            sockets.error = None
            clock.advance(INTERVAL)
        assert len(lines) == 2 and lines[1] == "file descriptors are there again"

    def test_the_watch_runs_while_there_is_a_listener(self, sockets: Sockets, clock: Clock) -> None:
        watch = DescriptorWatch(clock.callLater)
        for listener in ("one", "other", "other"):
            watch.add(listener)
        assert len(clock.getDelayedCalls()) == 1
        watch.discard("one")
        clock.advance(INTERVAL)
        assert len(clock.getDelayedCalls()) == 1
        watch.discard("other")
        watch.discard("other")
        assert clock.getDelayedCalls() == []


SERVER = """
import resource, sys
from twisted_beastws.uvreactor import install
install()
from twisted.internet import protocol, reactor
from twisted.logger import globalLogBeginner, textFileLogObserver

class Echo(protocol.Protocol):
    def dataReceived(self, data):
        self.transport.write(data)

globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)], redirectStandardIO=False)
port = reactor.listenTCP(0, protocol.Factory.forProtocol(Echo), interface="127.0.0.1")
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
print("port", port.getHost().port, flush=True)
reactor.run()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="THE LIMIT OF FILES IS NOT TESTED: it is POSIX's")
def test_the_uvloop_reactor_logs_the_shortage_and_serves_again_afterwards() -> None:
    pytest.importorskip("uvloop", reason="THE UVLOOP REACTOR IS NOT TESTED: pip install uvloop")

    def served(client: socket.socket) -> bool:
        with suppress(ConnectionError):
            client.sendall(b"x")
            return client.recv(1) == b"x"
        return False

    with (
        subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as server,
        ExitStack() as stack,
    ):
        stack.callback(server.kill)
        assert server.stdout is not None
        port = next(int(line.split()[1]) for line in server.stdout if line.startswith("port "))
        with ExitStack() as clients:
            connected = [
                clients.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE)) for _ in range(50)
            ]
            assert {served(client) for client in connected} == {True, False}
            assert any(LEFT in line for line in server.stdout)
            assert served(connected[0])
        assert any("file descriptors are there again" in line for line in server.stdout)
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
            assert served(client)
