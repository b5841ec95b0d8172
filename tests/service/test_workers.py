"""Several processes on the same sockets: their supervisor, by itself and as its users start it."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.error import ConnectionDone, ProcessTerminated
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.python.usage import UsageError
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect, unix_connect

from twisted_beastws.service import Options
from twisted_beastws.service.sockets import HoldingReactor
from twisted_beastws.service.summing import summed
from twisted_beastws.service.workers import GRACE, LEAST_DELAY, MOST_DELAY, Workers

from ..redis_server import RedisServer
from .test_deployment import AS_SYSTEMD, CLOSE, untrusting
from .test_deployment import running as started
from .test_twistd import ENVIRONMENT, PATIENCE, TWISTD, UPGRADE, WELCOME, Service, await_that, identity, running

if sys.platform == "win32":
    pytestmark = pytest.mark.skip(reason="WORKERS ARE NOT TESTED: sockets are shared on POSIX alone")


class Process:
    def __init__(self, protocol: Any, command: list[str], descriptors: dict[int, Any]) -> None:
        self.protocol = protocol
        self.command = command
        self.descriptors = descriptors
        self.signals: list[str] = []
        protocol.transport = self

    def signalProcess(self, name: str) -> None:
        self.signals.append(name)

    def ends(self) -> None:
        self.protocol.processEnded(Failure(ProcessTerminated(exitCode=1)))


class Reactor(Clock):
    def __init__(self) -> None:
        super().__init__()
        self.processes: list[Process] = []

    def callWhenRunning(self, call: Callable[[], None]) -> None:
        call()

    def spawnProcess(self, protocol: Any, executable: str, args: list[str], env: Any, childFDs: dict[int, Any]) -> None:
        assert executable == args[0] == sys.executable
        self.processes.append(Process(protocol, args, childFDs))


@pytest.fixture
def reactor() -> Reactor:
    return Reactor()


@pytest.fixture
def workers(reactor: Reactor, logged: Any) -> Iterator[Workers]:
    held: Any = SimpleNamespace(ports=[SimpleNamespace(fileno=lambda: 70), SimpleNamespace(fileno=lambda: 71)])
    workers = Workers(reactor, 2, held, ["--nodaemon", "beastws"], drain_time=8.0)
    workers.log = SimpleNamespace(warn=lambda *arguments, **fields: None)  # type: ignore[assignment]
    workers.startService()
    yield workers
    if workers.running:
        workers.stopService()
    for worker in list(workers.living):
        worker.processEnded(Failure(ProcessTerminated()))


class TestSupervisor:
    def test_gives_each_the_sockets(self, workers: Workers, reactor: Reactor) -> None:
        assert len(reactor.processes) == len(workers.living) == 2
        for process in reactor.processes:
            assert process.command[-2:] == ["--nodaemon", "beastws"]
            assert process.descriptors == {0: "w", 1: 1, 2: 2, 3: "r", 4: 70, 5: 71}

    def test_leaves_those_of_systemd_their_places(
        self, workers: Workers, reactor: Reactor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LISTEN_FDNAMES", "one:other")
        reactor.processes[0].ends()
        reactor.advance(LEAST_DELAY)
        descriptors = reactor.processes[-1].descriptors
        assert {number: descriptors[number] for number in (5, 6, 7)} == {5: "r", 6: 70, 7: 71}
        assert descriptors[3] == descriptors[4] not in (70, 71)

    def test_replaces_the_dead_ever_more_slowly(self, workers: Workers, reactor: Reactor) -> None:
        delay = LEAST_DELAY
        for count in range(1, 12):
            reactor.processes[-1].ends()
            assert (len(workers.living), workers.replaced) == (1, count)
            reactor.advance(delay - 0.01)
            assert len(workers.living) == 1
            reactor.advance(0.02)
            assert len(workers.living) == 2
            delay = min(2 * delay, MOST_DELAY)
        assert delay == MOST_DELAY

    def test_and_soon_again_what_had_lived(self, workers: Workers, reactor: Reactor) -> None:
        for _ in range(5):
            reactor.processes[-1].ends()
            reactor.advance(MOST_DELAY)
        reactor.advance(MOST_DELAY)
        reactor.processes[-1].ends()
        reactor.advance(LEAST_DELAY)
        assert len(workers.living) == 2

    def test_stops_them_and_waits(self, workers: Workers, reactor: Reactor) -> None:
        stopped: list[object] = []
        workers.stopService().addCallback(stopped.append)
        assert [process.signals for process in reactor.processes] == [["TERM"], ["TERM"]]
        reactor.processes[0].ends()
        assert stopped == []
        reactor.processes[1].ends()
        assert stopped == [None] and reactor.getDelayedCalls() == []

    def test_kills_those_that_do_not_end(self, workers: Workers, reactor: Reactor) -> None:
        workers.stopService()
        reactor.advance(8.0 + GRACE - 0.1)
        assert reactor.processes[0].signals == ["TERM"]
        reactor.advance(0.2)
        assert reactor.processes[0].signals == ["TERM", "KILL"]

    def test_replaces_nobody_once_it_stops(self, workers: Workers, reactor: Reactor) -> None:
        reactor.processes[0].ends()
        stopped: list[object] = []
        workers.stopService().addCallback(stopped.append)
        reactor.processes[1].ends()
        reactor.advance(MOST_DELAY)
        assert len(reactor.processes) == 2 and stopped == [None]

    def test_passes_a_signal_on(self, workers: Workers, reactor: Reactor) -> None:
        workers.reload()
        assert [process.signals for process in reactor.processes] == [["HUP"], ["HUP"]]


class TestSockets:
    def test_a_file_of_systemds_keeps_its_mode_and_its_place(self, tmp_path: Path) -> None:
        from twisted.internet import reactor

        path = tmp_path / "socket"
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
            path.chmod(0o640)
            listening.listen()
            held = HoldingReactor(reactor)
            port = held.adoptStreamPort(listening.fileno(), socket.AF_UNIX, Factory())
            assert held.ports == [port]
            assert path.stat().st_mode & 0o777 == 0o640
            port.connectionLost(Failure(ConnectionDone()))
            assert path.exists()
            # It is another descriptor that was closed.
            assert listening.fileno() > 0 and listening.getsockname() == str(path)

    def test_nobody_is_accepted_where_they_are_held(self) -> None:
        from twisted.internet import reactor

        held = HoldingReactor(reactor)
        port = held.listenTCP(0, Factory(), interface="127.0.0.1")
        assert port not in reactor.getReaders()  # type: ignore[attr-defined]
        with socket.create_connection(("127.0.0.1", port.getHost().port), PATIENCE):
            pass
        port.connectionLost(Failure(ConnectionDone()))


class TestOptions:
    def test_the_chats_need_a_backplane(self) -> None:
        with pytest.raises(UsageError, match=r"^--workers=2: the chat's processes need --backplane, which joins them$"):
            Options().parseOptions(["--workers=2"])

    @pytest.mark.parametrize("text", ["x", "-1", "1.5", "", "1000"])
    def test_a_number(self, text: str) -> None:
        with pytest.raises(UsageError) as caught:
            Options().parseOptions([f"--workers={text}"])
        assert str(caught.value) == f"--workers={text}: give a number of processes, such as 4; 0 is this one alone"

    def test_none_is_this_one(self) -> None:
        options = Options()
        options.parseOptions(["--workers=0"])
        assert options.held is None


def page(*lines: str) -> str:
    return "\n".join(lines) + "\n"


class TestSummed:
    def test_adds_what_can_be_added(self) -> None:
        pytest.importorskip("prometheus_client", reason="NO METRICS ARE TESTED: pip install .[metrics]")
        one = page(
            *("# TYPE a_total counter", 'a_total{code="1"} 1', 'a_total{code="2"} 2'),
            *("# TYPE process_start_time_seconds gauge", "process_start_time_seconds 5"),
            *("# TYPE beastws_info gauge", 'beastws_info{version="1"} 1'),
            *("# TYPE h histogram", 'h_bucket{le="1"} 1', 'h_bucket{le="+Inf"} 2', "h_count 2", "h_sum 3"),
        )
        other = page(
            *("# TYPE a_total counter", 'a_total{code="2"} 10', 'a_total{code="3"} 20'),
            *("# TYPE process_start_time_seconds gauge", "process_start_time_seconds 4"),
            *("# TYPE beastws_info gauge", 'beastws_info{version="1"} 1'),
            *("# TYPE h histogram", 'h_bucket{le="1"} 4', 'h_bucket{le="+Inf"} 4', "h_count 4", "h_sum 2"),
        )
        found = {
            (sample.name, *sample.labels.values()): sample.value
            for family in summed([one, other])
            for sample in family.samples
        }
        assert found == {
            ("a_total", "1"): 1,
            ("a_total", "2"): 12,
            ("a_total", "3"): 20,
            ("process_start_time_seconds",): 4,
            ("beastws_info", "1"): 1,
            ("h_bucket", "1"): 5,
            ("h_bucket", "+Inf"): 6,
            ("h_count",): 6,
            ("h_sum",): 5,
        }


APP = """
import os
from twisted_beastws import WebSocketProtocol

class Who(WebSocketProtocol):
    def text_received(self, text):
        if text == "die":
            os._exit(3)
        self.send(str(os.getpid()))
"""


def asked(port: int) -> str:
    """The number of the process that serves a new connection."""
    with connect(f"ws://127.0.0.1:{port}/", proxy=None) as client:
        client.send("who")
        return str(client.recv(PATIENCE))


def asked_by_tls(port: int) -> str:
    """The same over TLS."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as tcp, untrusting().wrap_socket(tcp) as client:
        # An empty text, and a close frame.
        client.sendall(UPGRADE + b"\x81\x80\0\0\0\0" + CLOSE)
        answer = b"".join(iter(lambda: client.recv(1000), b""))
    frames = answer.partition(b"\r\n\r\n")[2]
    return frames[2 : 2 + frames[1]].decode()


def alive(pid: str) -> bool:
    with suppress(OSError):
        os.kill(int(pid), 0)
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return False


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "who_app.py").write_text(APP)
    return tmp_path


SERVED = ("--workers=2", "--app=who_app:Who")


def all_asked(service: Service, ask: Callable[[int], str] = asked) -> set[str]:
    """Who serves, when both do."""
    pids: set[str] = set()
    await_that("all serve", lambda: pids.add(ask(service.port)) or len(pids) == 2)
    return pids


class TestTogether:
    def test_they_share_the_sockets_and_the_dead_are_replaced(self, app: Path) -> None:
        pytest.importorskip("prometheus_client", reason="NO METRICS ARE TESTED: pip install .[metrics]")
        arguments = ("--admin=tcp:0:interface=127.0.0.1", "--access-log=access.log", "--listen=unix:shared:mode=600")
        with running(app, *SERVED, *arguments) as service:
            first = all_asked(service)
            await_that("they are ready", lambda: service.ask_admin("/readyz") == (200, "ok\n"))
            with unix_connect(str(app / "shared"), uri="ws://h/") as client:
                client.send("who")
                assert client.recv(PATIENCE) in first
                client.send("die")
                with pytest.raises(ConnectionClosed):
                    client.recv(PATIENCE)
            assert (app / "shared").stat().st_mode & 0o777 == 0o600
            second = all_asked(service)
            assert len(first & second) == 1
            metrics = await_that("it is counted", lambda: re.findall(r"^.*$", service.ask_admin("/metrics")[1], re.M))
            assert "beastws_workers 2.0" in metrics and "beastws_workers_replaced_total 1.0" in metrics
            answered = sum(" status=101 " in line for line in (app / "access.log").read_text().splitlines())
            (opened,) = (line for line in metrics if line.startswith('beastws_handshakes_total{outcome="101"}'))
            assert 0 < float(opened.split()[1]) <= answered + 1
            service.terminate(signal.SIGHUP)
            await_that("it is passed on", lambda: len(re.findall("worker [12] .*SIGHUP: reopening", service.log)) == 2)
            assert re.search(r"#warn\] worker [12] ended after .* exit code 3", service.log)
        assert not (app / "shared").exists()
        assert not any(map(alive, first | second))

    def test_all_send_their_clients_home(self, app: Path) -> None:
        with running(app, *SERVED, "--listen=unix:shared", "--drain-time=5") as service, ExitStack() as clients:
            all_asked(service)
            joined = [clients.enter_context(connect(f"ws://127.0.0.1:{service.port}/", proxy=None)) for _ in range(20)]
            service.terminate()
            for client in joined:
                with pytest.raises(ConnectionClosed) as caught:
                    client.recv(PATIENCE)
                assert caught.value.rcvd is not None and caught.value.rcvd.code == 1001
            assert service.ended() == 0
        assert "Server Shut Down" in service.log
        assert "did not close in order" not in service.log

    def test_a_second_signal_drops_those_that_are_left(self, app: Path) -> None:
        with running(app, *SERVED, f"--drain-time={10 * PATIENCE}") as service:
            all_asked(service)
            # They read nothing, and close nothing.
            silent = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(8)]
            for one in silent:
                one.sendall(UPGRADE)
                assert one.recv(12) == b"HTTP/1.1 101"
            service.terminate()
            await_that("they stop", lambda: len(re.findall("worker [12] .*SIGTERM: stopping", service.log)) == 2)
            service.terminate()
            assert service.ended() == 0
            for one in silent:
                one.close()

    def test_without_their_supervisor_they_end(self, app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        # Nobody removes its directory.
        monkeypatch.setitem(ENVIRONMENT, "TMPDIR", str(app))
        service = Service(app, *SERVED)
        try:
            pids = all_asked(service)
        finally:
            service.process.kill()
            service.process.wait()
        await_that("they are gone", lambda: not any(map(alive, pids)))

    def test_over_tls(self, app: Path) -> None:
        (app / "key.pem").write_bytes(identity("localhost"))
        listen = "ssl:0:interface=127.0.0.1:privateKey=key.pem"
        with running(app, *SERVED, listen=listen) as service:
            assert len(all_asked(service, asked_by_tls)) == 2

    def test_on_the_sockets_of_systemd(self, app: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            number, port = listening.fileno(), listening.getsockname()[1]
            command = [str(TWISTD), "-n", "--pidfile=", "beastws", *SERVED, "--listen=systemd:domain=INET:index=0"]
            with started("service", [sys.executable, "-c", AS_SYSTEMD, str(number), *command], app, pass_fds=[number]):
                assert len(all_asked(SimpleNamespace(port=port))) == 2  # type: ignore[arg-type]

    def test_the_chats_are_one_chat(self, tmp_path: Path) -> None:
        if not os.path.exists("/usr/bin/redis-server"):
            pytest.skip("WORKERS WITH REDIS ARE NOT TESTED: apt-get install redis-server")
        redis = RedisServer(tmp_path)
        try:
            with (
                running(tmp_path, "--workers=2", f"--backplane={redis.url}") as service,
                ExitStack() as clients,
            ):
                await_that("both have Redis", lambda: service.log.count("is connected") == 2)
                joined: list[ClientConnection] = []

                def both_serve() -> bool:
                    joined.append(clients.enter_context(connect(service.url, proxy=None)))
                    assert joined[-1].recv(PATIENCE) == WELCOME
                    return set(re.findall(r"worker (\d) .*Chat.* connected\n", service.log)) == {"1", "2"}

                await_that("both have clients", both_serve)
                # A process may not have subscribed to the room yet when its client is welcome.
                heard: set[ClientConnection] = set()

                def all_hear() -> bool:
                    joined[0].send("to all")
                    for client in joined:
                        with suppress(TimeoutError):
                            assert client.recv(0.2) == "to all"
                            heard.add(client)
                    return len(heard) == len(joined)

                await_that("all hear it", all_hear)
        finally:
            redis.kill()


def test_metrics_of_one_that_does_not_answer_are_left_out(app: Path) -> None:
    pytest.importorskip("prometheus_client", reason="NO METRICS ARE TESTED: pip install .[metrics]")
    with running(app, *SERVED, "--admin=tcp:0:interface=127.0.0.1", "--access-log=-") as service:
        pids = all_asked(service)
        stopped = int(next(iter(pids)))
        os.kill(stopped, signal.SIGSTOP)
        try:
            (port,) = re.findall(r"serving http://127\.0\.0\.1:(\d+)/metrics\n", service.log)
            http = HTTPConnection("127.0.0.1", int(port), timeout=PATIENCE)
            http.request("GET", "/metrics")
            body = http.getresponse().read().decode()
            http.close()
            assert "beastws_workers 2.0" in body and "beastws_handshakes_total" in body
            assert service.ask_admin("/readyz")[0] == 503
        finally:
            os.kill(stopped, signal.SIGCONT)
