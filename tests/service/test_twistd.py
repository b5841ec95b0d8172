"""The service as its users start it: ``twistd`` in a process of its own, over TCP, with clients of another make."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import signal
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timedelta, timezone
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from websockets.asyncio.client import ClientConnection as ClientAsync
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from twisted_beastws.server.gates.passwords import Hash

from ..support.handshakes import upgrade_request
from ..support.patience import PATIENCE
from ..support.signals import await_handler
from ..support.waiting import await_that

LISTEN = "tcp:0:interface=127.0.0.1:backlog=512"
TWISTD = Path(sys.executable).with_name("twistd")
# The service imports the same package as these tests, from any directory; the current one is not on the path.
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
WELCOME = "Welcome to the chat!"
UPGRADE = upgrade_request()

HEAD = b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n"


class Service:
    """A running ``twistd -n beastws``.

    logging: twistd's own option for it, other than to write to the terminal. twistd: further options of twistd.
    """

    def __init__(
        self,
        directory: Path,
        *arguments: str,
        listen: str = LISTEN,
        logging: str | None = None,
        twistd: Sequence[str] = (),
    ) -> None:
        self.log_file = directory / "service.log"
        options = ["-n", "--pidfile=", *twistd, *([] if logging is None else [logging])]
        command = [str(TWISTD), *options, "beastws", "--listen", listen, *arguments]
        with (self.log_file if logging is None else Path(os.devnull)).open("wb") as output:
            self.process = subprocess.Popen(
                command, cwd=directory, env=ENVIRONMENT, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            self.port = int(await_that("the service listens", self._port)[1])
            await_handler(self.process)
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    def _port(self) -> re.Match[str] | None:
        assert self.process.poll() is None, f"the service ended at once:\n{self.log}"
        if not self.log_file.exists():
            return None
        return re.search(r"serving \w+://127\.0\.0\.1:(\d+)/(?!metrics|api)", self.log)

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/chat"

    @property
    def admin_port(self) -> int:
        (port,) = re.findall(r"serving http://127\.0\.0\.1:(\d+)/metrics\n", self.log)
        return int(port)

    def ask_admin(self, path: str) -> tuple[int, str]:
        """The status and the body of an answer of the admin listener."""
        http = HTTPConnection("127.0.0.1", self.admin_port, timeout=PATIENCE)
        http.request("GET", path)
        response = http.getresponse()
        body = response.read().decode()
        http.close()
        return response.status, body

    def terminate(self, by: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(by)

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def ended(self) -> int:
        """Wait for the end; the exit status."""
        return self.process.wait(PATIENCE)


@contextmanager
def running(directory: Path, *arguments: str, **settings: Any) -> Iterator[Service]:
    """A service that must not have had a fault when it is stopped."""
    service = Service(directory, *arguments, **settings)
    try:
        yield service
        if service.process.poll() is None:
            service.terminate()
        assert service.ended() == 0
    finally:
        service.process.kill()
        service.process.wait()
    assert not re.search(r"Traceback|Unhandled|#(error|critical)\b", service.log), service.log


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A chat with its defaults."""
    with running(tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.fixture
def many_files() -> Iterator[None]:
    """File descriptors for a thousand connections, here and in child processes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"A THOUSAND CLIENTS ARE NOT TESTED: no more than {hard} files may be open (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def joined(service: Service) -> Iterator[ClientConnection]:
    with connect(service.url, proxy=None) as client:
        assert client.recv(PATIENCE) == WELCOME
        yield client


class RawClient:
    """A client that reads and writes bytes."""

    def __init__(self, service: Service, request: bytes = UPGRADE) -> None:
        self.socket = socket.create_connection(("127.0.0.1", service.port), PATIENCE)
        self.socket.sendall(request)

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size and (more := self.socket.recv(size - len(data))):
            data += more
        return data

    def read_head(self) -> bytes:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            octet = self.read(1)
            assert octet, head
            head += octet
        return head

    def join(self) -> RawClient:
        assert self.read_head().startswith(b"HTTP/1.1 101 ")
        assert self.read(22) == b"\x81\x14" + WELCOME.encode()
        return self


class TestChat:
    """The chat over TCP."""

    def test_two_clients_can_talk(self, service: Service) -> None:
        with joined(service) as one, joined(service) as other:
            one.send("from one")
            assert [one.recv(PATIENCE), other.recv(PATIENCE)] == ["from one"] * 2
            other.send("from the other")
            assert [one.recv(PATIENCE), other.recv(PATIENCE)] == ["from the other"] * 2

    @pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536, 1 << 20])
    def test_a_message_of_any_size_is_delivered(self, service: Service, size: int) -> None:
        with joined(service) as one, joined(service) as other:
            one.send("x" * size)
            assert other.recv(PATIENCE) == "x" * size

    def test_a_binary_message_is_refused(self, service: Service) -> None:
        with joined(service) as one, joined(service) as other:
            one.send(b"binary")
            with pytest.raises(ConnectionClosed) as caught:
                one.recv(PATIENCE)
            assert caught.value.rcvd is not None and caught.value.rcvd.code == 1003
            other.send("still here")
            assert other.recv(PATIENCE) == "still here"

    def test_a_close_is_answered(self, service: Service) -> None:
        with joined(service) as client:
            client.close(1000, "bye")
            assert (client.close_code, client.close_reason) == (1000, "")

    def test_pings_are_sent_at_their_interval(self, tmp_path: Path) -> None:
        with running(tmp_path, "--ping-interval=0.25") as service:
            began = time.monotonic()
            with RawClient(service).join() as client:
                for _ in range(4):
                    assert client.read(2) == b"\x89\x00"
                    client.socket.sendall(b"\x8a\x80\0\0\0\0")
        # The first reading may be late, so the time counts from before the connection.
        assert time.monotonic() - began >= 4 * 0.25

    def test_a_client_that_is_silent_too_long_is_closed(self, tmp_path: Path) -> None:
        limits = ("--ping-interval=0.25", "--idle-timeout=2")
        with running(tmp_path, *limits) as service, RawClient(service).join() as client:
            data = client.read(1 << 16)
        pings, _, reason = data.partition(b"\x88\x1e\x03\xf3")
        assert reason == b"nothing was received for 2 s"
        # A busy machine may be late with some.
        assert set(pings) == {0x89, 0} and len(pings) >= 4


def test_the_backlog_is_sufficient_for_200_clients(tmp_path: Path) -> None:
    with running(tmp_path, listen="tcp:0:interface=127.0.0.1") as service, ExitStack() as clients:
        service.process.send_signal(signal.SIGSTOP)
        try:
            # It accepts none of them: they are within the backlog, or never connected.
            for _ in range(200):
                clients.enter_context(socket.create_connection(("127.0.0.1", service.port), PATIENCE))
        finally:
            service.process.send_signal(signal.SIGCONT)


class TestUnclean:
    """Clients that leave without a close, or send garbage."""

    def test_a_client_that_is_killed_disturbs_no_other(self, service: Service) -> None:
        with joined(service) as one, joined(service) as other:
            for sent in (b"", b"\x81\x85\0\0\0\0he", b"\x82"):
                killed = RawClient(service).join()
                killed.socket.sendall(sent)
                # With a linger time of 0 a close resets the connection.
                killed.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                name = "{}:{}".format(*killed.socket.getsockname())
                killed.socket.close()
                one.send("hello")
                assert [one.recv(PATIENCE), other.recv(PATIENCE)] == ["hello"] * 2

                def logged(line: str = f"{name} disconnected: begun by transport") -> bool:
                    return line in service.log

                await_that(f"{name} has left", logged)

    def test_a_client_that_leaves_without_a_close_disturbs_no_other(self, service: Service) -> None:
        with joined(service) as one:
            RawClient(service).join().socket.close()
            one.send("hello")
            assert one.recv(PATIENCE) == "hello"

    @pytest.mark.parametrize(
        "octets", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\0" * 100, b"GET / HTTP/9\r\n\r\n"]
    )
    def test_bytes_that_are_not_http_get_400_or_no_answer(self, service: Service, octets: bytes) -> None:
        with RawClient(service, octets) as client:
            client.socket.shutdown(socket.SHUT_WR)
            with suppress(ConnectionResetError):
                assert client.read(1 << 16).partition(b"\r\n")[0] in (b"", b"HTTP/1.1 400 Bad Request")

    @pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="only Linux shows how many connections a server has")
    def test_two_hundred_half_requests_are_dropped_after_the_timeout(self, tmp_path: Path) -> None:
        half = UPGRADE[: len(UPGRADE) // 2]
        with running(tmp_path, "--handshake-timeout=1") as service, joined(service) as one, ExitStack() as stack:
            before = service.open_files()
            began = time.monotonic()
            clients = [stack.enter_context(RawClient(service, half)) for _ in range(200)]
            assert {client.read(1) for client in clients} == {b""}
            assert time.monotonic() - began >= 1
            stack.close()
            await_that("all are forgotten", lambda: service.open_files() == before)
            one.send("hello")
            assert one.recv(PATIENCE) == "hello"


class TestHttp:
    """HTTP on the chat's port."""

    def test_page_and_error_and_chat_are_answered_on_one_connection(self, service: Service) -> None:
        http = HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE)
        http.connect()
        port = http.sock.getsockname()[1]
        answers = []
        for method, path in (
            ("GET", "/"),
            ("HEAD", "/"),
            ("GET", "/nope"),
            ("GET", "/chat"),
            ("POST", "/"),
            ("GET", "/?a"),
        ):
            http.request(method, path)
            response = http.getresponse()
            answers.append((response.status, len(response.read()), int(response.headers["Content-Length"])))
            assert http.sock.getsockname()[1] == port
        http.close()
        page = answers[0][1]
        assert page > 1000
        assert answers == [
            (200, page, page),
            (200, 0, page),
            (404, 47, 47),
            (426, 96, 96),
            (405, 46, 46),
            (200, page, page),
        ]

    def test_a_body_is_never_the_next_request(self, service: Service) -> None:
        body = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
        request = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body)
        with RawClient(service, request + body) as client:
            answer = client.read(1 << 16)
        assert answer.startswith(b"HTTP/1.1 405 ")
        assert answer.count(b"HTTP/1.1") == 1


End = tuple[float, int | None, str | None]
"""Seconds from the signal to the end, the close code and the reason."""


def ends_by(service: Service, by: signal.Signals, count: int, patience: float = PATIENCE) -> list[End]:
    """What as many clients see of the end that comes when the service gets a signal; the quickest first."""
    # The suite's own reactor may have this thread's loop.
    with ThreadPoolExecutor(1) as thread:
        ends = thread.submit(asyncio.run, asyncio.wait_for(all_ends(service, by, count), patience))
    return ends.result()


async def all_ends(service: Service, by: signal.Signals, count: int) -> list[End]:
    turn = asyncio.Semaphore(50)

    async def join() -> ClientAsync:
        async with turn:
            client = await connect_async(service.url, proxy=None)
            assert await client.recv() == WELCOME
            return client

    async def end(client: ClientAsync) -> End:
        await client.wait_closed()
        return time.monotonic() - began, client.close_code, client.close_reason

    clients = await asyncio.gather(*(join() for _ in range(count)))
    began = time.monotonic()
    service.terminate(by)
    return sorted(await asyncio.gather(*map(end, clients)))


class TestTermination:
    """Signals and the drain (`docs/deployment.md`)."""

    def test_fifty_clients_are_closed_with_1001(self, tmp_path: Path) -> None:
        with running(tmp_path) as service:
            ends = ends_by(service, signal.SIGTERM, 50)
            assert [end[1:] for end in ends] == [(1001, "the server is shutting down")] * 50
            assert service.ended() == 0
        assert "SIGTERM: stopping" in service.log
        assert "connections to close: 50" in service.log
        assert service.log.count("disconnected: begun by local, sent 1001") == 50

    def test_a_thousand_clients_are_closed_within_the_drain_time(self, tmp_path: Path, many_files: None) -> None:
        with running(tmp_path, "--drain-time=12") as service:
            ends = ends_by(service, signal.SIGTERM, 1000, 3 * PATIENCE)
            assert [end[1:] for end in ends] == [(1001, "the server is shutting down")] * 1000
            assert service.ended() == 0
        # The server spreads them over half of the drain time.
        assert ends[500][0] > 2 and ends[-1][0] - ends[0][0] > 4

    def test_the_close_code_can_announce_a_restart(self, tmp_path: Path) -> None:
        with running(tmp_path, "--drain-code=1012") as service:
            ends = ends_by(service, signal.SIGINT, 1)
            assert [end[1:] for end in ends] == [(1012, "the server is restarting")]
            assert service.ended() == 0
        assert "SIGINT: stopping" in service.log
        assert "connections to close: 1" in service.log

    def test_a_late_request_is_answered_503(self, tmp_path: Path) -> None:
        with running(tmp_path) as service, RawClient(service).join() as deaf, RawClient(service, HEAD) as late:
            assert late.read_head().startswith(b"HTTP/1.1 200 ")
            service.terminate()
            assert deaf.read(4) == b"\x88\x1d\x03\xe9"
            late.socket.sendall(UPGRADE)
            assert late.read_head().startswith(b"HTTP/1.1 503 ")
            with pytest.raises(ConnectionRefusedError):
                RawClient(service)
            deaf.socket.close()

    def test_connections_are_dropped_at_the_deadline(self, tmp_path: Path) -> None:
        with running(tmp_path, "--drain-time=1") as service, RawClient(service).join():
            began = time.monotonic()
            service.terminate()
            assert service.ended() == 0
            assert time.monotonic() - began > 0.9

    def test_a_client_of_the_admin_is_not_waited_for(self, tmp_path: Path) -> None:
        with (
            running(tmp_path, "--drain-time=1", "--admin=tcp:0:interface=127.0.0.1") as service,
            socket.create_connection(("127.0.0.1", service.admin_port), PATIENCE) as asking,
        ):
            asking.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert asking.recv(12) == b"HTTP/1.1 200"
            service.terminate()
            assert service.ended() == 0

    @pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
    def test_the_second_signal_drops_all_clients_at_once(self, tmp_path: Path, by: signal.Signals) -> None:
        long = f"--drain-time={10 * PATIENCE}"
        with running(tmp_path, long) as service, RawClient(service).join() as deaf, RawClient(service).join():
            service.terminate()
            assert deaf.read(4) == b"\x88\x1d\x03\xe9"
            service.terminate(by)
            assert service.ended() == 0
        assert f"{by.name} again: connections to drop: 2" in service.log

    def test_a_silent_client_is_not_waited_for_long(self, tmp_path: Path) -> None:
        with running(tmp_path) as service, RawClient(service).join() as deaf, RawClient(service, b"GET /") as half:
            began = time.monotonic()
            service.terminate()
            assert service.ended() == 0
            assert time.monotonic() - began > 4.5
            assert deaf.read(4) == b"\x88\x1d\x03\xe9"
            with suppress(ConnectionResetError):
                assert half.read(1) == b""

    def test_a_service_without_clients_is_ended_at_once(self, tmp_path: Path) -> None:
        with running(tmp_path, f"--drain-time={10 * PATIENCE}") as service:
            service.terminate()
            assert service.ended() == 0
        assert "connections to close" not in service.log


class TestCompression:
    """RFC 7692 §7: the chat is compressed."""

    def test_the_chat_is_compressed(self, tmp_path: Path) -> None:
        with running(tmp_path, "--deflate=level=6,server_max_window_bits=12") as service:
            with connect(service.url, proxy=None) as client:
                assert client.response is not None
                assert "server_max_window_bits=12" in client.response.headers["Sec-WebSocket-Extensions"]
                assert client.recv(PATIENCE) == WELCOME
                client.send("hello " * 1000)
                assert client.recv(PATIENCE) == "hello " * 1000
            with connect(service.url, proxy=None, compression=None) as client:
                assert client.recv(PATIENCE) == WELCOME


class TestOperation:
    """Metrics, options in a file, and UNIX sockets."""

    def test_metrics_and_health_are_available_until_the_end(self, tmp_path: Path) -> None:
        pytest.importorskip("prometheus_client", reason="METRICS ARE NOT TESTED: pip install prometheus_client")
        with running(tmp_path, "--admin=tcp:0:interface=127.0.0.1", "--access-log=access.log") as service:
            log = tmp_path / "access.log"
            with joined(service) as one:
                one.send("hello")
                assert one.recv(PATIENCE) == "hello"
                status, metrics = service.ask_admin("/metrics")
                assert status == 200
                assert 'beastws_connections{state="open"} 1.0\n' in metrics
                assert 'beastws_messages_total{direction="received",type="text"} 1.0\n' in metrics
                assert "beastws_rooms 1.0\n" in metrics
            await_that("the connection is told of", lambda: "code=1000 began=peer" in log.read_text())
            old = log.rename(tmp_path / "access.log.old")
            service.terminate(signal.SIGHUP)
            await_that("there is a new log", log.exists)
            with RawClient(service).join() as deaf:
                assert (service.ask_admin("/healthz"), service.ask_admin("/readyz")) == ((200, "ok\n"),) * 2
                service.terminate()
                assert deaf.read(4) == b"\x88\x1d\x03\xe9"
                assert service.ask_admin("/healthz") == (200, "ok\n")
                assert service.ask_admin("/readyz") == (503, "not ready\n")
                assert 'beastws_connections{state="closing"} 1.0\n' in service.ask_admin("/metrics")[1]
            assert service.ended() == 0
        assert len(old.read_text().splitlines()) == len(log.read_text().splitlines()) == 1
        assert "code=1001 began=local" in log.read_text()

    def test_the_port_of_the_chat_has_no_admin_page(self, service: Service) -> None:
        for path in ("/metrics", "/healthz", "/readyz"):
            request = f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()
            with RawClient(service, request) as client:
                assert client.read_head().startswith(b"HTTP/1.1 404 ")

    def test_names_and_passwords_are_read_from_a_file_of_options(self, tmp_path: Path) -> None:
        (tmp_path / "passwords").write_text("ann:secret\n")
        (tmp_path / "beastws.toml").write_text('auth = "file:passwords"\naccess-log = "access.log"\n')
        with running(tmp_path, "--config=beastws.toml") as service:
            for request in (UPGRADE, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"):
                with RawClient(service, request) as client:
                    assert client.read_head().startswith(b"HTTP/1.1 401 ")
            with connect(service.url.replace("//", "//ann:secret@"), proxy=None) as ann:
                assert ann.recv(PATIENCE) == WELCOME
            log = tmp_path / "access.log"
            await_that(
                "the end is told", lambda: "user=ann target=/chat origin=- subprotocol=- status=101" in log.read_text()
            )
            assert "user=- target=/chat origin=- subprotocol=- status=401" in log.read_text()

    def test_guesses_are_soon_refused_and_the_right_password_is_still_accepted(self, tmp_path: Path) -> None:
        hashed = Hash.of(b"secret").to_bytes().decode()
        (tmp_path / "passwords").write_text(f"# names\nann:{hashed}\n")
        guess = UPGRADE[:-2] + b"Authorization: Basic YW5uOndyb25n\r\n\r\n"
        with running(tmp_path, "--auth=file:passwords", "--max-login-failures=3") as service:
            with RawClient(service, guess * 50) as guesser:
                for status in (401, 401, 401, 429):
                    head = guesser.read_head()
                    assert head.startswith(b"HTTP/1.1 %d " % status)
                    size = re.search(rb"(?i)content-length: (\d+)", head)
                    assert size is not None
                    guesser.read(int(size[1]))
                assert b"\r\nRetry-After: " in head
                assert guesser.read(1) == b""
            with socket.create_connection(("127.0.0.1", service.port), PATIENCE, ("127.0.0.2", 0)) as ann:
                ann.sendall(UPGRADE[:-2] + b"Authorization: Basic YW5uOnNlY3JldA==\r\n\r\n")
                assert ann.recv(13) == b"HTTP/1.1 101 "
        assert service.log.count("401: wrong name or password for 'ann'") == 3
        # No other machine sees the bytes on the loopback interface.
        assert "passwords come unencrypted" not in service.log

    def test_a_unix_socket_belongs_to_its_group_and_limits_clients_by_address(self, tmp_path: Path) -> None:
        path = tmp_path / "s"
        limits = ("--trust-proxy=unix", "--max-handshakes-per-address=1")
        with running(tmp_path, f"--listen=unix:{path}", f"--listen=haproxy:unix:{path}2", *limits) as service:
            await_that("the sockets listen", lambda: service.log.count("serving on ") == 2)
            for name, requests in (
                (path, [UPGRADE[:-2] + b"X-Forwarded-For: 192.0.2.%d\r\n\r\n" % at for at in (1, 1, 2)]),
                (f"{path}2", [b"PROXY TCP4 192.0.2.%d 10.0.0.1 1 2\r\n" % at + UPGRADE for at in (3, 3, 4)]),
            ):
                assert os.stat(name).st_mode & 0o777 == 0o660
                answers = []
                for request in requests:
                    with socket.socket(socket.AF_UNIX) as client:
                        client.settimeout(PATIENCE)
                        client.connect(str(name))
                        client.sendall(request)
                        answers.append(client.recv(13))
                assert answers == [b"HTTP/1.1 101 ", b"HTTP/1.1 429 ", b"HTTP/1.1 101 "]


class TestReload:
    """SIGHUP while clients are connected."""

    def test_the_log_file_is_opened_again_and_no_client_is_disturbed(self, tmp_path: Path) -> None:
        with running(tmp_path, logging="--logfile=service.log") as service, joined(service) as client:
            moved = service.log_file.rename(tmp_path / "service.log.old")
            service.terminate(signal.SIGHUP)
            await_that("there is a new log", service.log_file.exists)
            client.send("hello")
            assert client.recv(PATIENCE) == "hello"
            with joined(service):
                await_that("it is written to", lambda: " connected" in service.log)
        assert "SIGHUP: reopening logs" in moved.read_text()
        assert "Server Shut Down" in service.log

    def test_certificates_are_read_again_and_no_client_is_disturbed(self, tmp_path: Path) -> None:
        first, second = identity("first"), identity("second")
        (tmp_path / "key.pem").write_bytes(first)
        listen = "ssl:0:interface=127.0.0.1:privateKey=key.pem"
        with running(tmp_path, listen=listen) as service, RawClient(service, b"") as raw:
            tls = ssl.create_default_context()
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
            with tls.wrap_socket(raw.socket) as client:
                assert name_of(client) == "first"
                (tmp_path / "key.pem").write_bytes(second)
                service.terminate(signal.SIGHUP)
                await_that("it is read", lambda: f"{listen}: the certificate was read again" in service.log)
                with tls.wrap_socket(RawClient(service, b"").socket) as other:
                    assert name_of(other) == "second"
                client.sendall(UPGRADE)
                assert client.recv(12) == b"HTTP/1.1 101"


def identity(name: str) -> bytes:
    """A key and a certificate for it in PEM, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(timezone.utc)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem + builder.sign(key, SHA256()).public_bytes(Encoding.PEM)


def name_of(server: ssl.SSLSocket) -> str:
    """The name in the server's certificate."""
    presented = server.getpeercert(binary_form=True)
    assert presented is not None
    (name,) = x509.load_der_x509_certificate(presented).subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(name.value)


def twistd(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(TWISTD), *arguments]
    return subprocess.run(command, cwd=directory, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE)


class TestCommand:
    """The command line in its own process."""

    @pytest.mark.parametrize(
        ("arguments", "line"),
        [
            (
                ["--listen=foo:1"],
                "--listen=foo:1: not an endpoint string, such as tcp:1984: Unknown endpoint type: 'foo'",
            ),
            (["--ping-interval=often"], "--ping-interval=often: give seconds, such as 5 or 0.5; 0 is never"),
            (["--app=nope:x"], "--app=nope:x: there is no module nope, neither in {directory} nor where Python looks"),
            (
                ["--config=beastws.toml"],
                "--config=beastws.toml: pnig: there is no such option",
            ),
            (
                ["--listen=tcp:0", "--access-log=/nope/log"],
                "cannot write the access log /nope/log: No such file or directory",
            ),
            (
                ["--app=broken:x"],
                "--app=broken:x: importing broken failed: RuntimeError: no ({directory}/broken.py, line 1)",
            ),
        ],
    )
    def test_a_bad_option_gets_one_line(self, tmp_path: Path, arguments: list[str], line: str) -> None:
        (tmp_path / "broken.py").write_text("raise RuntimeError('no')")
        (tmp_path / "beastws.toml").write_text("pnig = 1")
        done = twistd(tmp_path, "-n", "beastws", *arguments)
        assert done.returncode == 1
        line = line.format(directory=tmp_path)
        last = done.stdout.splitlines()[-1]
        # twistd prints errors of options after its own name, and all other errors in the log.
        assert last.endswith((f": {line}", f"] {line}"))
        assert "Traceback" not in done.stdout
        assert done.stderr == ""

    @pytest.mark.parametrize("foreground", [["-n"], []], ids=["foreground", "daemon"])
    def test_a_port_in_use_gets_one_line(self, tmp_path: Path, foreground: list[str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            listen = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            done = twistd(tmp_path, *foreground, "--logfile=log", "beastws", "--listen", listen)
        assert done.returncode == 1
        # A daemon informs the terminal first.
        await_that("its pid file is gone", lambda: not (tmp_path / "twistd.pid").exists())
        line = f"cannot listen on {listen}: Address already in use; give another endpoint with --listen"
        log = await_that("the log says it", lambda: line in (text := (tmp_path / "log").read_text()) and text)
        assert log.splitlines()[-1].endswith(line)
        assert "Traceback" not in log + done.stdout + done.stderr
        if not foreground:
            assert f"cannot listen on {listen}:" in done.stderr


APP = """
from twisted_beastws import Limits, WebSocketProtocol, WebSocketServerFactory

class Shout(WebSocketProtocol):
    def text_received(self, text):
        self.send(text.upper())

async def shout(ws):
    async for message in ws:
        ws.send(message.upper())

factory = WebSocketServerFactory(shout, limits=Limits(max_message_size=10))
"""


class TestApp:
    """An application of the user's own."""

    @pytest.mark.parametrize("name", ["Shout", "shout", "factory"])
    def test_an_application_is_found_in_the_current_directory(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "my_app.py").write_text(APP)
        with running(tmp_path, f"--app=my_app:{name}") as service:
            for path in ("/", "/any/where?a=b"):
                with connect(f"ws://127.0.0.1:{service.port}{path}", proxy=None) as client:
                    client.send("hello")
                    assert client.recv(PATIENCE) == "HELLO"
            assert f"serving ws://127.0.0.1:{service.port}/\n" in service.log
