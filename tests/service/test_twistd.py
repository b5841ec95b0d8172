"""The service as its users start it: ``twistd`` in a process of its own, over TCP, with clients of another make."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

PATIENCE = 20.0  # seconds, for anything awaited here
LISTEN = "tcp:0:interface=127.0.0.1:backlog=512"
TWISTD = Path(sys.executable).with_name("twistd")
# What these tests import is what is served, from whatever directory; the current one is not in it.
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
WELCOME = "Welcome to the chat!"
UPGRADE = (
    b"GET /chat HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def await_that(what: str, happened: Callable[[], Any]) -> Any:
    """Poll until `happened` gives something true, which is returned."""
    deadline = time.monotonic() + PATIENCE
    while not (value := happened()):
        assert time.monotonic() < deadline, f"not within {PATIENCE:g} s: {what}"
        time.sleep(0.02)
    return value


class Service:
    """A running ``twistd -n beastws``."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.log_file = directory / "service.log"
        command = [str(TWISTD), "-n", "--pidfile=", "beastws", "--listen", LISTEN, *arguments]
        with self.log_file.open("wb") as output:
            self.process = subprocess.Popen(
                command, cwd=directory, env=ENVIRONMENT, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            self.port = int(await_that("the service listens", self._port)[1])
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    def _port(self) -> re.Match[str] | None:
        assert self.process.poll() is None, f"the service ended at once:\n{self.log}"
        return re.search(r"serving \w+://127\.0\.0\.1:(\d+)/", self.log)

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/chat"

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def ended(self) -> int:
        """Wait for the end; the exit status."""
        return self.process.wait(PATIENCE)


@contextmanager
def running(directory: Path, *arguments: str) -> Iterator[Service]:
    """A service that must not have had a fault when it is stopped."""
    service = Service(directory, *arguments)
    try:
        yield service
        if service.process.poll() is None:
            service.terminate()
        # twistd ends by the signal that it was sent.
        assert service.ended() == -signal.SIGTERM
    finally:
        service.process.kill()
        service.process.wait()
    assert not re.search(r"Traceback|Unhandled|#(error|critical)\b", service.log), service.log


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A chat that pings four times a second."""
    with running(tmp_path_factory.mktemp("service"), "--ping-interval=0.25", "--idle-timeout=2") as service:
        yield service


@contextmanager
def joined(service: Service) -> Iterator[ClientConnection]:
    with connect(service.url, proxy=None) as client:
        assert client.recv(PATIENCE) == WELCOME
        yield client


class RawClient:
    """A client that reads and writes octets."""

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
    def test_two_clients_talk(self, service: Service) -> None:
        with joined(service) as one, joined(service) as other:
            one.send("from one")
            assert [one.recv(PATIENCE), other.recv(PATIENCE)] == ["from one"] * 2
            other.send("from the other")
            assert [one.recv(PATIENCE), other.recv(PATIENCE)] == ["from the other"] * 2

    @pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536, 1 << 20])
    def test_any_size_is_heard(self, service: Service, size: int) -> None:
        with joined(service) as one, joined(service) as other:
            one.send("x" * size)
            assert other.recv(PATIENCE) == "x" * size

    def test_binary_is_refused(self, service: Service) -> None:
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

    def test_pings_come_at_their_interval(self, service: Service) -> None:
        with RawClient(service).join() as client:
            times = []
            for _ in range(4):
                assert client.read(2) == b"\x89\x00"
                times.append(time.monotonic())
                client.socket.sendall(b"\x8a\x80\0\0\0\0")
        assert 0.7 < times[3] - times[0] < 5

    def test_who_is_silent_too_long_is_closed(self, service: Service) -> None:
        with RawClient(service).join() as client:
            data = client.read(1 << 16)
        pings, _, reason = data.partition(b"\x88\x1e\x03\xf3")
        assert reason == b"nothing was received for 2 s"
        assert set(pings) == {0x89, 0} and len(pings) >= 8


class TestUnclean:
    def test_a_client_that_is_killed_disturbs_nobody(self, service: Service) -> None:
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
                await_that(
                    f"{name} has left", lambda name=name: f"{name} disconnected: begun by transport" in service.log
                )

    def test_a_client_that_goes_without_a_close_disturbs_nobody(self, service: Service) -> None:
        with joined(service) as one:
            RawClient(service).join().socket.close()
            one.send("hello")
            assert one.recv(PATIENCE) == "hello"

    @pytest.mark.parametrize(
        "octets", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\0" * 100, b"GET / HTTP/9\r\n\r\n"]
    )
    def test_noise_is_no_fault(self, service: Service, octets: bytes) -> None:
        with RawClient(service, octets) as client:
            client.socket.shutdown(socket.SHUT_WR)
            with suppress(ConnectionResetError):
                assert client.read(1 << 16).partition(b"\r\n")[0] in (b"", b"HTTP/1.1 400 Bad Request")

    @pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="only Linux tells how many connections a server has")
    def test_300_halves_of_a_request_are_gone_after_the_timeout(self, tmp_path: Path) -> None:
        half = UPGRADE[: len(UPGRADE) // 2]
        with running(tmp_path, "--handshake-timeout=1") as service, joined(service) as one, ExitStack() as stack:
            before = service.open_files()
            began = time.monotonic()
            clients = [stack.enter_context(RawClient(service, half)) for _ in range(300)]
            assert {client.read(1) for client in clients} == {b""}
            assert time.monotonic() - began >= 1
            stack.close()
            await_that("all are forgotten", lambda: service.open_files() == before)
            one.send("hello")
            assert one.recv(PATIENCE) == "hello"


class TestHttp:
    def test_the_page_the_error_and_the_chat_on_one_connection(self, service: Service) -> None:
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
            (400, 51, 51),
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


class TestTermination:
    def test_fifty_clients_are_told_1001(self, tmp_path: Path) -> None:
        async def talk(service: Service) -> list[tuple[int | None, str | None]]:
            clients = await asyncio.gather(*(connect_async(service.url, proxy=None) for _ in range(50)))
            assert [await client.recv() for client in clients] == [WELCOME] * 50
            service.terminate()
            await asyncio.gather(*(client.wait_closed() for client in clients))
            return [(client.close_code, client.close_reason) for client in clients]

        with running(tmp_path) as service:
            ends = asyncio.run(asyncio.wait_for(talk(service), PATIENCE))
            assert ends == [(1001, "the server is shutting down")] * 50
            assert service.ended() == -signal.SIGTERM
        assert "connections to close: 50" in service.log
        assert service.log.count("disconnected: begun by local, sent 1001") == 50

    def test_who_does_not_answer_is_not_waited_for_long(self, tmp_path: Path) -> None:
        with running(tmp_path) as service, RawClient(service).join() as deaf, RawClient(service, b"GET /") as half:
            began = time.monotonic()
            service.terminate()
            assert service.ended() == -signal.SIGTERM
            assert 4.5 < time.monotonic() - began < 10
            assert deaf.read(4) == b"\x88\x1d\x03\xe9"
            with suppress(ConnectionResetError):
                assert half.read(1) == b""

    def test_nobody_there_is_the_end_at_once(self, tmp_path: Path) -> None:
        with running(tmp_path) as service:
            service.terminate()
            began = time.monotonic()
            service.ended()
            assert time.monotonic() - began < 4
        assert "connections to close" not in service.log


def twistd(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(TWISTD), *arguments]
    return subprocess.run(command, cwd=directory, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE)


class TestCommand:
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
                ["--app=broken:x"],
                "--app=broken:x: importing broken failed: RuntimeError: no ({directory}/broken.py, line 1)",
            ),
        ],
    )
    def test_a_bad_option_gets_one_line(self, tmp_path: Path, arguments: list[str], line: str) -> None:
        (tmp_path / "broken.py").write_text("raise RuntimeError('no')")
        done = twistd(tmp_path, "-n", "beastws", *arguments)
        assert done.returncode == 1
        assert done.stdout.splitlines()[-1].partition(": ")[2] == line.format(directory=tmp_path)
        assert "Traceback" not in done.stdout
        assert done.stderr == ""

    @pytest.mark.parametrize("foreground", [["-n"], []], ids=["foreground", "daemon"])
    def test_a_port_in_use_gets_one_line(self, tmp_path: Path, foreground: list[str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            listen = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            done = twistd(tmp_path, *foreground, "--logfile=log", "beastws", "--listen", listen)
        assert done.returncode == 1
        assert not (tmp_path / "twistd.pid").exists()
        log = (tmp_path / "log").read_text()
        assert "Traceback" not in log + done.stdout + done.stderr
        assert log.splitlines()[-1].endswith(
            f"cannot listen on {listen}: Address already in use (--listen names another)"
        )
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
    @pytest.mark.parametrize("name", ["Shout", "shout", "factory"])
    def test_is_found_in_the_current_directory_and_has_every_path(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "my_app.py").write_text(APP)
        with running(tmp_path, f"--app=my_app:{name}") as service:
            for path in ("/", "/any/where?a=b"):
                with connect(f"ws://127.0.0.1:{service.port}{path}", proxy=None) as client:
                    client.send("hello")
                    assert client.recv(PATIENCE) == "HELLO"
            assert f"serving ws://127.0.0.1:{service.port}/\n" in service.log
