"""Sockets: how the service opens them, and how several processes share them."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError, ConnectionDone
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from twisted_beastws.service.sockets import (
    BACKLOG,
    AdoptingReactor,
    HeldPort,
    HoldingReactor,
    KeepingReactor,
    ServiceReactor,
)
from twisted_beastws.service.worker import HeldSocket

from ..support.log import logged_lines
from ..support.patience import PATIENCE

if sys.platform == "win32":
    pytestmark = pytest.mark.skip(reason="SOCKETS OF THE SERVICE ARE NOT TESTED: they are those of POSIX")


class Listening:
    """A reactor that records each listening socket."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def listenTCP(self, *arguments: Any, **named: Any) -> None:
        self.calls.append((*arguments, *named.values()))

    listenUNIX = adoptStreamPort = listenTCP


class TestBacklog:
    """The queue of connections that wait to be accepted."""

    @pytest.mark.parametrize(
        ("description", "backlog"),
        [
            ("tcp:80", BACKLOG),
            ("haproxy:tcp:80", BACKLOG),
            ("tcp:80:backlog=7", 7),
            ("tcp:80:backlog=50", 50),
            ("unix:/run/a", BACKLOG),
            ("unix:/run/a:backlog=7", 7),
            (r"unix:/run/a\\:backlog=7", BACKLOG),
        ],
    )
    def test_the_backlog_is_4096_by_default(self, description: str, backlog: int) -> None:
        below = Listening()
        serverFromString(ServiceReactor(below, description), description).listen(Factory())
        (call,) = below.calls
        assert backlog in call

    def test_linux_keeps_as_many_waiting_connections_as_the_backlog_allows(self) -> None:
        # 60 connects, of which none is accepted, are within it, and beyond Twisted's backlog of 50.
        held: list[HeldPort] = []
        below = HoldingReactor(reactor, 0, held)
        ServiceReactor(below, "tcp:0").listenTCP(0, Factory(), interface="127.0.0.1")
        port = held[0].port
        clients = [socket.socket() for _ in range(60)]
        try:
            for client in clients:
                client.settimeout(PATIENCE)
                client.connect(("127.0.0.1", port.getHost().port))
        finally:
            for client in clients:
                client.close()
            port.connectionLost(Failure(ConnectionDone()))


class TestHeld:
    """Sockets that the supervisor holds and the workers adopt."""

    def test_the_holder_of_a_socket_accepts_no_connection(self) -> None:
        held: list[HeldPort] = []
        port = HoldingReactor(reactor, 3, held).listenTCP(0, Factory(), interface="127.0.0.1")
        assert [(each.endpoint, each.kind, each.port) for each in held] == [(3, "TCP", port)]
        assert port not in reactor.getReaders()
        with socket.create_connection(("127.0.0.1", port.getHost().port), PATIENCE):
            pass
        port.connectionLost(Failure(ConnectionDone()))

    def test_a_socket_is_adopted_for_its_own_endpoint(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            adopting = AdoptingReactor(reactor, [HeldSocket(0, "SSL", listening.fileno())])
            with pytest.raises(CannotListenError, match="the supervisor holds no such socket"):
                adopting.listenTCP(0, Factory())

    def test_a_socket_whose_file_was_removed_is_still_adopted(self, tmp_path: Path) -> None:
        path = tmp_path / "s"
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
            listening.listen()
            path.unlink()
            adopting = AdoptingReactor(reactor, [HeldSocket(0, "UNIX", os.dup(listening.fileno()))])
            port = adopting.listenUNIX(str(path), Factory())
            assert port.getHost().name == os.fsencode(path)
            port.connectionLost(Failure(ConnectionDone()))
        assert not path.exists()


class TestSystemd:
    """Sockets that systemd opened."""

    @pytest.mark.parametrize("holding", [False, True])
    def test_a_file_keeps_its_mode_its_place_and_its_backlog(self, tmp_path: Path, holding: bool) -> None:
        path = tmp_path / "socket"
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
            path.chmod(0o640)
            listening.listen(BACKLOG)
            below = HoldingReactor(reactor, 0, []) if holding else KeepingReactor(reactor)
            adopted = os.dup(listening.fileno())
            port = ServiceReactor(below, "systemd:").adoptStreamPort(adopted, socket.AF_UNIX, Factory())
            os.close(adopted)
            assert path.stat().st_mode & 0o777 == 0o640
            assert port.backlog == BACKLOG
            port.stopReading()
            port.connectionLost(Failure(ConnectionDone()))
            assert path.exists()
            # It is another descriptor that was closed.
            assert listening.fileno() > 0 and listening.getsockname() == str(path)

    @pytest.mark.parametrize(
        ("family", "said", "right"),
        [
            (socket.AF_INET6, socket.AF_INET, "INET6"),
            (socket.AF_INET, socket.AF_INET6, "INET"),
            (socket.AF_UNIX, socket.AF_INET, "UNIX"),
        ],
    )
    def test_a_socket_of_another_family_is_refused(self, family: Any, said: int, right: str) -> None:
        below = Listening()
        with socket.socket(family) as listening, pytest.raises(ValueError) as caught:
            ServiceReactor(below, "systemd:").adoptStreamPort(listening.fileno(), said, Factory())
        assert str(caught.value) == f"the socket is of another family: write domain={right}"
        assert below.calls == []


@pytest.fixture
def lines() -> Iterator[list[str]]:
    with logged_lines() as lines:
        yield lines


class TestStaleUNIXSocket:
    """A UNIX socket that a killed service left.

    The lock of its owner names a process that lives: in a container, this very one.
    """

    def left(self, path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as killed:
            killed.bind(str(path))
        path.with_name(f"{path.name}.lock").symlink_to(str(os.getpid()))

    def listen(self, path: Path) -> Any:
        return ServiceReactor(reactor, f"unix:{path}").listenUNIX(str(path), Factory(), wantPID=1)

    def close(self, port: Any) -> None:
        port.stopReading()
        port.connectionLost(Failure(ConnectionDone()))

    def test_a_socket_without_listener_is_replaced(self, tmp_path: Path, lines: list[str]) -> None:
        path = tmp_path / "socket"
        self.left(path)
        port = self.listen(path)
        assert f"nothing answers on the socket {path}: it is taken over" in lines
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        self.close(port)
        assert list(tmp_path.iterdir()) == []

    def test_a_socket_without_file_is_replaced(self, tmp_path: Path) -> None:
        path = tmp_path / "socket"
        self.left(path)
        path.unlink()
        self.close(self.listen(path))

    def test_a_socket_with_a_listener_is_kept(self, tmp_path: Path) -> None:
        path = tmp_path / "socket"
        first = self.listen(path)
        with pytest.raises(CannotListenError, match="lock"):
            self.listen(path)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        self.close(first)

    def test_a_socket_with_a_full_backlog_is_kept(self, tmp_path: Path) -> None:
        path = tmp_path / "socket"
        with socket.socket(socket.AF_UNIX) as busy:
            busy.bind(str(path))
            busy.listen(0)
            path.with_name("socket.lock").symlink_to(str(os.getpid()))
            waiting = []
            while True:
                waiting.append(socket.socket(socket.AF_UNIX))
                waiting[-1].setblocking(False)
                if waiting[-1].connect_ex(str(path)) == errno.EAGAIN:
                    break
            with pytest.raises(CannotListenError, match="lock"):
                self.listen(path)
            for client in waiting:
                client.close()

    def test_another_kind_of_file_is_not_removed(self, tmp_path: Path) -> None:
        path = tmp_path / "socket"
        path.write_text("precious")
        path.with_name("socket.lock").symlink_to(str(os.getpid()))
        with pytest.raises(CannotListenError, match="in use"):
            self.listen(path)
        assert path.read_text() == "precious"
