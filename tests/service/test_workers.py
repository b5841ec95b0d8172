"""Several processes on the same sockets, as their users start them."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from twisted.python.usage import UsageError
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect, unix_connect

from twisted_beastws.service import Options

from ..support.patience import PATIENCE
from ..support.redis_server import redis_running
from ..support.waiting import await_that
from .test_deployment import AS_SYSTEMD, CLOSE, untrusting
from .test_deployment import running as started
from .test_twistd import ENVIRONMENT, TWISTD, UPGRADE, WELCOME, Service, identity, running

if sys.platform == "win32":
    pytestmark = pytest.mark.skip(reason="WORKERS ARE NOT TESTED: sockets are shared on POSIX alone")


class TestOptions:
    """The options of workers."""

    def test_several_workers_with_a_chat_need_a_backplane(self) -> None:
        with pytest.raises(UsageError, match=r"^--workers=2: the chat's processes need --backplane, which joins them$"):
            Options().parseOptions(["--workers=2"])

    @pytest.mark.parametrize("text", ["x", "-1", "1.5", "", "1000"])
    def test_a_bad_number_is_refused(self, text: str) -> None:
        with pytest.raises(UsageError) as caught:
            Options().parseOptions([f"--workers={text}"])
        assert str(caught.value) == f"--workers={text}: give a number of processes, such as 4; 0 is this one alone"

    @pytest.mark.parametrize("text", ["0", "2", "2.1"])
    def test_a_timeout_is_read(self, text: str) -> None:
        options = Options()
        options.parseOptions([f"--worker-timeout={text}"])
        assert options["worker-timeout"] == float(text)

    # A worker gives a sign of life each half second.
    @pytest.mark.parametrize("text", ["x", "-1", "inf", "", "0.5", "1.9"])
    def test_a_bad_timeout_is_refused(self, text: str) -> None:
        with pytest.raises(UsageError, match=f"^--worker-timeout={text}: give seconds"):
            Options().parseOptions([f"--worker-timeout={text}"])


APP = """
import gc
import os
from twisted_beastws import WebSocketProtocol

class Who(WebSocketProtocol):
    def text_received(self, text):
        if text == "die":
            os._exit(3)
        self.send(repr(gc.callbacks) if text == "callbacks" else str(os.getpid()))
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
    """The workers that serve, when both do."""
    pids: set[str] = set()

    def both_answered() -> bool:
        pids.add(ask(service.port))
        return len(pids) == 2

    await_that("all serve", both_answered)
    return pids


class TestTogether:
    """Workers and their supervisor as processes."""

    def test_workers_share_the_sockets_and_dead_ones_are_replaced(self, app: Path) -> None:
        pytest.importorskip("prometheus_client", reason="METRICS ARE NOT TESTED: pip install prometheus_client")
        arguments = ("--admin=tcp:0:interface=127.0.0.1", "--access-log=access.log", "--listen=unix:shared:mode=600")
        with running(app, *SERVED, *arguments) as service:
            first = all_asked(service)
            await_that("they are ready", lambda: service.ask_admin("/readyz") == (200, "ok\n"))
            with unix_connect(str(app / "shared"), uri="ws://h/") as client:
                client.send("who")
                assert client.recv(PATIENCE) in first
                client.send("callbacks")
                assert "ShortCollections" in str(client.recv(PATIENCE))
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

    def test_all_clients_are_closed_at_the_end(self, app: Path) -> None:
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

    def test_workers_end_without_their_supervisor(self, app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (app / "tmp").mkdir()
        monkeypatch.setitem(ENVIRONMENT, "TMPDIR", str(app / "tmp"))
        service = Service(app, *SERVED)
        try:
            pids = all_asked(service)
        finally:
            service.process.kill()
            service.process.wait()
        await_that("they are gone", lambda: not any(map(alive, pids)))
        assert list((app / "tmp").iterdir()) == []

    def test_workers_can_use_tls(self, app: Path) -> None:
        (app / "key.pem").write_bytes(identity("localhost"))
        listen = "ssl:0:interface=127.0.0.1:privateKey=key.pem"
        with running(app, *SERVED, listen=listen) as service:
            assert len(all_asked(service, asked_by_tls)) == 2

    def test_workers_can_use_the_sockets_of_systemd(self, app: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            number, port = listening.fileno(), listening.getsockname()[1]
            command = [str(TWISTD), "-n", "--pidfile=", "beastws", *SERVED, "--listen=systemd:domain=INET:index=0"]
            with started("service", [sys.executable, "-c", AS_SYSTEMD, str(number), *command], app, pass_fds=[number]):
                assert len(all_asked(SimpleNamespace(port=port))) == 2  # type: ignore[arg-type]

    def test_the_chats_of_all_workers_are_one_chat(self, tmp_path: Path) -> None:
        with (
            redis_running(tmp_path) as redis,
            running(tmp_path, "--workers=2", f"--backplane={redis.url}") as service,
            ExitStack() as clients,
        ):
            await_that("both have Redis", lambda: service.log.count("is connected") == 2)
            joined: list[ClientConnection] = []

            def both_serve() -> bool:
                joined.append(clients.enter_context(connect(service.url, proxy=None, open_timeout=PATIENCE)))
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
