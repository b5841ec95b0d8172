"""The files of deploy/ with other ports and paths: nginx, HAProxy, sockets of systemd."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import randrange
from typing import Any

import pytest
from websockets.sync.client import connect

from twisted_beastws.service import Options

from ..support.browser import chromium
from ..support.patience import PATIENCE
from ..support.waiting import await_that
from .page_tabs import ENTER
from .test_twistd import ENVIRONMENT, TWISTD, UPGRADE, WELCOME, identity

DEPLOY = Path(__file__).parents[2] / "deploy"
# Debian has them where only root looks.
SEARCHED = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))


# A close frame of a client.
CLOSE = b"\x88\x80\0\0\0\0"


def unused_ports(count: int) -> list[int]:
    """Free ports outside the range that the system assigns."""
    ports: set[int] = set()
    while len(ports) < count:
        port = randrange(20000, 32000)
        with suppress(OSError), socket.create_server(("", port)):
            ports.add(port)
    return list(ports)


def program(name: str) -> str:
    found = shutil.which(name, path=SEARCHED)
    if found is None:
        pytest.skip(f"{name.upper()} IS NOT TESTED: apt-get install {name}")
    return found


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running(what: str, command: list[str], directory: Path, **settings: Any) -> Iterator[Path]:
    """A program and its output file; it must end with status 0 at SIGTERM."""
    log = directory / f"{what}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=directory, env=ENVIRONMENT, stdout=output, stderr=output, **settings)
    try:
        yield log
        assert process.poll() is None, log.read_text()
        process.terminate()
        # HAProxy leaves SIGTERM to the system.
        assert process.wait(PATIENCE) in ((0, -15) if what == "haproxy" else (0,)), log.read_text()
    except BaseException:
        print(log.read_text())
        raise
    finally:
        process.kill()
        process.wait()
    assert not re.search(r"Traceback|Unhandled|#(error|critical)\b", log.read_text()), log.read_text()


class Deployed:
    """A directory that stands for /etc/beastws and /var/log/beastws, and ports that stand for the usual ones."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.public, self.inner, self.admin = unused_ports(3)
        pem = identity("chat.example.com")
        for name in ("identity.pem", "certificate.pem", "key.pem"):
            (directory / name).write_bytes(pem)
        self.access_log = directory / "access.log"

    def file(self, name: str) -> Path:
        """One of deploy/, with these paths and ports."""
        text = (DEPLOY / name).read_text()
        for port, ours in ((443, self.public), (1984, self.inner), (9090, self.admin)):
            text = re.sub(rf"\b{port}\b", str(ours), text)
        text = re.sub(r"/(etc|var/log)/beastws\b", str(self.directory), text)
        made = self.directory / name
        made.write_text(text)
        return made

    def service(self, *arguments: str) -> Any:
        command = [str(TWISTD), "-n", "--pidfile=", "beastws", "--access-log-format=json", *arguments]
        return running("service", command, self.directory)

    def await_service(self) -> None:
        await_that("the service listens", lambda: answers(self.inner))

    def entries(self) -> list[dict[str, Any]]:
        lines = self.access_log.read_text().splitlines() if self.access_log.exists() else []
        return [json.loads(line) for line in lines]

    def await_entries(self, count: int) -> list[dict[str, Any]]:
        """The access log's entries when it has at least `count`, in the order in which the connections began."""
        entries = await_that("the log has the connections", lambda: len(self.entries()) >= count and self.entries())
        return sorted(entries, key=lambda entry: entry["connection"])


@pytest.fixture
def deployed(tmp_path: Path) -> Deployed:
    return Deployed(tmp_path)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("chromium"), "THE PAGE BEHIND PROXIES IS") as browser:
        yield browser


def chat_in(browser: Any, port: int) -> None:
    """Read the page through a proxy, choose a name, send a message and receive it.

    The page connects to the chat twice: to read, and again with the name.
    """
    browser.get(f"https://[::1]:{port}/")

    def state() -> Any:
        return browser.execute_script("return document.body.dataset.state")

    await_that("the page is connected to read", lambda: state() == "connected")
    browser.find_element("id", "name").send_keys("Ann", ENTER)
    members = "return [...document.querySelectorAll('#member-list li')].map(e => e.textContent.slice(1))"
    await_that("the page lists its user", lambda: browser.execute_script(members) == ["Ann (you)"])
    browser.find_element("id", "text").send_keys("h\u00e9llo there", ENTER)
    accepted = "return [...document.querySelectorAll('.lines .said')].map(e => e.textContent)"
    await_that("the page shows the message", lambda: browser.execute_script(accepted) == ["h\u00e9llo there"])
    # The next test may get the same port, and the page remembers the name for its origin.
    browser.execute_script("localStorage.clear(); sessionStorage.clear()")
    browser.get("about:blank")


def untrusting() -> ssl.SSLContext:
    """A client's TLS that asks for no names."""
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    return tls


def forge(port: int) -> None:
    """Connect to the chat from ::1 with a forged forwarded address."""
    said = b"X-Forwarded-For: 192.0.2.1\r\nForwarded: for=192.0.2.1\r\n\r\n"
    with socket.create_connection(("::1", port), PATIENCE) as tcp, untrusting().wrap_socket(tcp) as client:
        client.sendall(UPGRADE[:-2] + said)
        assert client.recv(12) == b"HTTP/1.1 101"
        client.sendall(CLOSE)
        while client.recv(1000):
            pass


class TestNginx:
    """nginx as ``deploy/nginx.conf`` configures it."""

    @contextmanager
    def nginx(self, deployed: Deployed) -> Iterator[None]:
        """nginx in one process, with everything else of it in the directory."""
        paths = " ".join(
            f"{kind}_temp_path {deployed.directory}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        main = deployed.directory / "main.conf"
        main.write_text(
            f"daemon off; master_process off; pid {deployed.directory}/nginx.pid; error_log stderr;\n"
            f"events {{}}\nhttp {{ access_log off; {paths} include {deployed.file('nginx.conf')}; }}\n"
        )
        with running("nginx", [program("nginx"), "-e", "stderr", "-c", str(main)], deployed.directory):
            await_that("nginx listens", lambda: answers(deployed.public))
            yield

    def test_a_browser_chats_and_the_log_has_its_address(self, deployed: Deployed, browser: Any) -> None:
        config = deployed.file("beastws.toml")
        listen = f"--listen=tcp:{deployed.inner}:interface=127.0.0.1"
        with self.nginx(deployed), deployed.service("--config", str(config), listen):
            deployed.await_service()
            chat_in(browser, deployed.public)
            read, wrote = deployed.await_entries(2)
            for entry, code in ((read, 1005), (wrote, 1001)):
                assert (entry["address"], entry["port"], entry["status"], entry["code"]) == ("::1", None, 101, code)
                assert entry["origin"] == f"https://[::1]:{deployed.public}"
            assert (read["target"], wrote["target"]) == ("/chat?after=0-0", "/chat?after=0-0&name=Ann")
            # The message, and the question for the members, which the page may ask again after a second.
            assert wrote["received_messages"] in (2, 3)
            forge(deployed.public)
            _, _, forged = deployed.await_entries(3)
            assert forged["address"] == "::1"

    def test_the_log_has_the_proxys_address_if_the_service_does_not_trust_it(self, deployed: Deployed) -> None:
        listen = f"--listen=tcp:{deployed.inner}:interface=127.0.0.1"
        with self.nginx(deployed), deployed.service(listen, "--access-log=access.log"):
            deployed.await_service()
            forge(deployed.public)
            (entry,) = deployed.await_entries(1)
            assert entry["address"] == "127.0.0.1"


class TestHAProxy:
    """HAProxy as ``deploy/haproxy.cfg`` configures it, with the PROXY protocol."""

    @contextmanager
    def haproxy(self, deployed: Deployed) -> Iterator[None]:
        # It asks at once whether the service is ready.
        deployed.await_service()
        command = [program("haproxy"), "-db", "-f", str(deployed.file("haproxy.cfg"))]
        with running("haproxy", command, deployed.directory):
            await_that("HAProxy listens", lambda: answers(deployed.public))
            yield

    def test_a_browser_chats_and_the_log_has_its_address(self, deployed: Deployed, browser: Any) -> None:
        listen = f"--listen=haproxy:tcp:{deployed.inner}:interface=127.0.0.1"
        admin = f"--admin=tcp:{deployed.admin}:interface=127.0.0.1"
        with deployed.service(listen, admin, "--access-log=access.log"), self.haproxy(deployed):
            chat_in(browser, deployed.public)
            read, wrote = deployed.await_entries(2)
            for entry, code in ((read, 1005), (wrote, 1001)):
                assert (entry["address"], entry["status"], entry["code"]) == ("::1", 101, code)
                assert entry["port"] not in (None, 0)
                assert entry["origin"] == f"https://[::1]:{deployed.public}"
            forge(deployed.public)
            _, _, forged = deployed.await_entries(3)
            assert forged["address"] == "::1"


# The sockets from 3 on, and their process.
AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_FDNAMES="beastws.socket", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""


class TestSystemd:
    """The units for systemd."""

    def test_the_service_adopts_the_socket_of_systemd(self, deployed: Deployed) -> None:
        config = deployed.file("beastws.toml")
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
            number = listening.fileno()
            twistd = [str(TWISTD), "-n", "--pidfile=", "beastws", "--config", str(config)]
            command = [sys.executable, "-c", AS_SYSTEMD, str(number), *twistd]
            with running("service", command, deployed.directory, pass_fds=[number]) as log:
                with connect(f"ws://127.0.0.1:{port}/chat", proxy=None, open_timeout=PATIENCE) as client:
                    assert client.recv(PATIENCE) == WELCOME
                await_that("it says where", lambda: f"serving http://127.0.0.1:{port}/" in log.read_text())
            # systemd owns the socket: new clients wait for the next service.
            with socket.create_connection(("127.0.0.1", port), 1):
                pass

    def test_a_socket_of_another_family_ends_the_start_with_one_line(self, tmp_path: Path) -> None:
        with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listening:
            number = listening.fileno()
            twistd = [str(TWISTD), "-n", "--pidfile=", "beastws", "--listen=systemd:domain=INET:index=0"]
            command = [sys.executable, "-c", AS_SYSTEMD, str(number), *twistd]
            ended = subprocess.run(
                command, cwd=tmp_path, env=ENVIRONMENT, pass_fds=[number], capture_output=True, timeout=PATIENCE
            )
        assert ended.returncode == 1
        said = (
            "cannot listen on systemd:domain=INET:index=0: the socket is of another family: write domain=INET6; "
            "give another endpoint with --listen\n"
        )
        assert ended.stdout.decode().endswith(said) and b"Traceback" not in ended.stdout

    def test_the_unit_starts_the_installed_command_and_waits_for_the_drain(self) -> None:
        unit = (DEPLOY / "beastws.service").read_text()
        (command,) = re.findall(r"^ExecStart=\S+/twistd (.*)$", unit, re.MULTILINE)
        assert command.split()[:3] == ["-n", "--pidfile=", "beastws"]
        (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
        options = Options()
        options.parseOptions([])
        assert float(seconds) > options["drain-time"] + 5


if sys.platform != "linux":
    pytestmark = pytest.mark.skip(reason="DEPLOYMENT IS NOT TESTED: the files are for Linux")
