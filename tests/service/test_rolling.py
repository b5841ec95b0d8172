"""Proxies as the documentation configures them, while their services are replaced one after the other."""

from __future__ import annotations

import csv
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from twisted_beastws.service import Options

from ..support.patience import PATIENCE
from ..support.ports import free_port
from ..support.waiting import await_that
from .backends import READY, SWITCHING, Backend, status
from .test_deployment import DEPLOY, answers, program, running

DOCS = Path(__file__).parents[2] / "docs"


def block(page: str, start: str) -> str:
    """The code on a page that begins with a line."""
    text = (DOCS / page).read_text()
    found = re.search(rf"^```\w+\n({re.escape(start)}.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert found is not None, start
    return found[1]


class Rolling:
    """Two services of one or two backends each, and the port of the proxy before them.

    uses_all: asks the proxy whether it knows that all services run. Nginx needs no such knowledge.
    """

    def __init__(self, port: int, services: list[list[Backend]], uses_all: Callable[[], bool] = lambda: True) -> None:
        self.port = port
        self.services = services
        self._uses_all = uses_all

    def restart(self) -> list[int]:
        """Replace one service after the other, twice; the statuses of all handshakes meanwhile."""
        found = [status(self.port) for _ in range(2)]
        for service in self.services * 2:
            for backend in service:
                backend.stop()
            found += [status(self.port) for _ in range(4)]
            for backend in service:
                backend.start()
            await_that("the proxy uses the service again", self._uses_all)
        return found


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def started(stack: ExitStack, services: list[list[Backend]]) -> list[list[Backend]]:
    for service in services:
        for backend in service:
            backend.start()
            stack.callback(backend.stop)
    return services


class TestNginx:
    """Rolling restarts behind nginx."""

    @pytest.fixture
    def rolling(self, tmp_path: Path, stack: ExitStack) -> Rolling:
        port = free_port()
        upstream = block("howto/scaling.md", "upstream talk {").replace("/run/", f"{tmp_path}/")
        location = re.search(r"^ +location /chat \{.*?^ +\}", (DOCS / "howto/proxies.md").read_text(), re.M | re.S)
        assert location is not None
        passing = location[0].replace("http://127.0.0.1:1984", "http://talk")
        paths = " ".join(
            f"{kind}_temp_path {tmp_path}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config = tmp_path / "nginx.conf"
        config.write_text(
            f"daemon off; master_process off; pid {tmp_path}/nginx.pid; error_log stderr;\nevents {{}}\n"
            f"http {{ access_log off; {paths}\n{upstream}\nserver {{ listen 127.0.0.1:{port};\n{passing}\n}} }}\n"
        )
        services = started(stack, [[Backend(f"{tmp_path}/talk{number}.sock", SWITCHING)] for number in (1, 2)])
        stack.enter_context(running("nginx", [program("nginx"), "-e", "stderr", "-c", str(config)], tmp_path))
        await_that("nginx listens", lambda: answers(port))
        return Rolling(port, services)

    def test_nginx_serves_all_clients_during_rolling_restarts(self, rolling: Rolling) -> None:
        assert set(rolling.restart()) == {101}

    def test_the_configuration_in_deploy_never_marks_a_server_as_failed(self) -> None:
        servers = re.findall(r"^ +server [^\n{]*;", (DEPLOY / "nginx.conf").read_text(), re.MULTILINE)
        assert servers and all(" max_fails=0;" in server for server in servers)


def states(control: Path) -> list[str]:
    """The state of each server of the backend, which HAProxy tells on its socket as CSV."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        client.connect(str(control))
        client.sendall(b"show stat talk 4 -1\n")
        with client.makefile() as answer:
            rows = list(csv.DictReader(answer))
    return [row["status"] for row in rows if row["svname"]]


class TestHAProxy:
    """Rolling restarts behind HAProxy."""

    @pytest.fixture
    def rolling(self, tmp_path: Path, stack: ExitStack) -> Rolling:
        port, *others = [free_port() for _ in range(5)]
        backend = block("howto/scaling.md", "backend talk")
        for number, other in zip((8001, 9001, 8002, 9002), others, strict=True):
            backend = backend.replace(str(number), str(other))
        # The backends here do not read it.
        backend = backend.replace(" send-proxy-v2", "")
        defaults = re.search(r"^defaults\n(?: .*\n)+", (DOCS / "howto/proxies.md").read_text(), re.MULTILINE)
        assert defaults is not None
        # On a busy machine the backends here may take longer for the answer to a check than its interval.
        backend += f"    timeout check {PATIENCE:g}s\n"
        frontend = f"frontend web\n    bind 127.0.0.1:{port}\n    default_backend talk\n"
        config, control = tmp_path / "haproxy.cfg", tmp_path / "control"
        config.write_text(f"global\n    stats socket {control}\n{defaults[0]}\n{frontend}\n{backend}")
        services = [
            [Backend(others[0], SWITCHING), Backend(others[1], READY)],
            [Backend(others[2], SWITCHING), Backend(others[3], READY)],
        ]
        started(stack, services)
        stack.enter_context(running("haproxy", [program("haproxy"), "-db", "-f", str(config)], tmp_path))
        await_that("HAProxy listens", lambda: answers(port))
        return Rolling(port, services, lambda: states(control) == ["UP", "UP"])

    def test_haproxy_serves_all_clients_during_rolling_restarts(self, rolling: Rolling) -> None:
        assert set(rolling.restart()) == {101}

    def test_the_configuration_in_deploy_finds_a_service_as_fast(self) -> None:
        lines = [line.strip() for line in block("howto/scaling.md", "backend talk").splitlines()]
        deployed = [line.strip() for line in (DEPLOY / "haproxy.cfg").read_text().splitlines()]
        assert all(line in deployed for line in lines if line.startswith(("option", "retries", "default-server")))


def test_kubernetes_waits_until_all_clients_are_gone() -> None:
    text = (DEPLOY / "kubernetes.yaml").read_text()
    (grace,) = re.findall(r"terminationGracePeriodSeconds: (\d+)", text)
    (pause,) = re.findall(r'preStop:\n(?: +#.*\n)* +exec: {command: \[sleep, "(\d+)"\]}', text)
    options = Options()
    options.parseOptions([])
    close = options.timeouts.close
    assert close is not None
    assert int(grace) > int(pause) + options["drain-time"] + close
