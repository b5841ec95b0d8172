"""The listings of the how-to pages about background work, logs, parts of the service, and JSON."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from twisted.internet.task import Clock
from websockets.exceptions import ConnectionClosed

from twisted_beastws import WebSocketProtocol, WebSocketServerFactory, trace_frames
from twisted_beastws.testing import Frame, connected_pair, scripted_client, upgrade_request

from ..support.patience import PATIENCE
from ..support.ports import free_port
from .programs import (
    BIN,
    ENVIRONMENT,
    defined,
    get,
    listings,
    printed,
    run_listing,
    running,
    talking,
    until,
)


@contextmanager
def service(command: str, directory: Path) -> Iterator[tuple[int, Path]]:
    """Run a command of a page on a free port; yields the port and the file of its output."""
    port = free_port()
    arguments = printed(command.replace("-n ", "-n --pidfile= "), port)
    with running([*arguments, f"--listen=tcp:{port}:interface=127.0.0.1"], directory, port):
        yield port, directory / "program.log"


class TestBackground:
    """The listings of `docs/howto/background.md`."""

    timer, database = listings("howto/background")

    def test_the_timer_sends(self, tmp_path: Path) -> None:
        (tmp_path / "ticker.py").write_text(self.timer.replace("start(1)", "start(0.05)"))
        with service("twistd -n beastws --app ticker:factory", tmp_path) as (port, _), talking(port) as client:
            assert len(str(client.recv(PATIENCE)).split(":")) == 3
            assert client.recv(PATIENCE)

    def test_a_timer_that_raises_is_logged_and_ends(self, tmp_path: Path) -> None:
        (tmp_path / "ticker.py").write_text(self.timer.replace("now = ", "raise ValueError('broken')\n        now = "))
        listen = f"--listen=tcp:{free_port()}:interface=127.0.0.1"
        command = printed(f"twistd -n --pidfile= beastws --app ticker:factory {listen}", 0)
        log = tmp_path / "log"
        with log.open("w") as output:
            process = subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stdout=output, stderr=output)
        try:
            until(lambda: "ValueError: broken" in log.read_text() and "the ticker stopped" in log.read_text())
        finally:
            process.kill()
            process.wait()

    def test_the_database_is_closed_at_the_end(self, tmp_path: Path) -> None:
        (tmp_path / "query.py").write_text(self.database)
        command = "twistd -n beastws --app query:factory"
        with service(command, tmp_path) as (port, log), talking(port) as client:
            client.send("hello")
            assert client.recv(PATIENCE) == "HELLO"
        assert "the database is closed" in log.read_text()


class TestLogging:
    """The listings of `docs/howto/logging.md`."""

    observer, own, alone, trace = listings("howto/logging")

    def test_the_observer_selects_lines(self, tmp_path: Path) -> None:
        (tmp_path / "quiet.py").write_text(self.observer)
        command, _trace = listings("howto/logging", "sh")
        port = free_port()
        arguments = printed(command.removeprefix("PYTHONPATH=. ").replace("-n ", "-n --pidfile= "), port)
        arguments[0:1] = ["env", f"PYTHONPATH=.:{ENVIRONMENT['PYTHONPATH']}", arguments[0]]
        with running([*arguments, f"--listen=tcp:{port}:interface=127.0.0.1"], tmp_path, port):
            with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
                client.sendall(b"this is not HTTP\r\n\r\n")
                assert client.recv(100).startswith(b"HTTP/1.1 400 ")
            log = until(lambda: "#debug" in (tmp_path / "program.log").read_text())
        assert log and "#info]" not in (tmp_path / "program.log").read_text()

    def test_a_connection_can_ask_for_its_trace(self) -> None:
        pair = connected_pair(defined(self.trace)["Talk"])
        trace_frames("shop.orders", on=False)
        assert pair.server.request is not None

    def test_a_program_can_log_its_own_lines(self) -> None:
        pair = connected_pair(defined(self.own)["Talk"])
        pair.client.send("a\nb")
        pair.flush()
        pair.client.close()
        pair.flush()
        assert pair.server.close_reason.code == 1000

    def test_a_program_begins_to_log(self, tmp_path: Path) -> None:
        program = f"{self.alone}\nfrom twisted.logger import Logger\nLogger().info('a line')\n"
        done = run_listing(program, tmp_path, 0)
        assert "a line" in done.stdout


class TestParts:
    """The listings of `docs/howto/service-parts.md`."""

    program, gate, observer, _ = listings("howto/service-parts")

    def test_each_part_of_the_program_works(self, tmp_path: Path) -> None:
        (tmp_path / "passwords").write_text("ann:s3cret\n")
        port, admin = free_port(), free_port()
        program = self.program.replace("tcp:8000", f"tcp:{port}:interface=127.0.0.1").replace("9000", str(admin))
        (tmp_path / "parts.py").write_text(program)
        login = {"Authorization": "Basic " + b64encode(b"ann:s3cret").decode()}
        with ExitStack() as stack:
            with running([sys.executable, "parts.py"], tmp_path, port):
                assert get(port, "/")[0] == 401
                client = stack.enter_context(
                    talking(port, additional_headers={**login, "X-Forwarded-For": "192.0.2.1"})
                )
                client.send("hello")
                assert client.recv(PATIENCE) == "ann: hello"
                status, metrics = get(admin, "/metrics")
                assert status == 200 and 'beastws_messages_total{direction="sent",type="text"} 1.0' in metrics
                assert get(admin, "/readyz")[0] == 200
            with pytest.raises(ConnectionClosed):
                client.recv(PATIENCE)
            assert client.close_code == 1001
        log = (tmp_path / "access.log").read_text()
        assert "address=192.0.2.1" in log and "user=ann" in log and "code=1001 began=local" in log

    def test_a_program_can_add_a_gate_and_an_observer(self, capsys: pytest.CaptureFixture[str]) -> None:
        factory = WebSocketServerFactory(WebSocketProtocol, clock=Clock())
        factory.add_gate(defined(self.gate)["only_the_app"])
        observer = defined(self.observer)["Connections"]()
        factory.add_observer(observer)
        refused = scripted_client(factory, opened=False)
        refused.send(upgrade_request())
        assert refused.read_head().startswith(b"HTTP/1.1 403 ") and observer.open == 0
        let_in = scripted_client(factory, headers={"X-App-Version": "1"})
        assert observer.open == 1
        let_in.send(Frame.close(1000))
        let_in.transport.loseConnection()
        let_in.flush()
        assert observer.open == 0 and capsys.readouterr().out == "None stayed 0 s and left with 1000\n"


def test_a_tac_file_can_start_the_whole_service(tmp_path: Path) -> None:
    *_, listing = listings("howto/service-parts")
    (tmp_path / "talk.py").write_text(listings("tutorial")[0])
    port, admin = free_port(), free_port()
    listing = listing.replace("tcp:9000", f"tcp:{admin}").replace("tcp:8000", f"tcp:{port}:interface=127.0.0.1")
    (tmp_path / "site.tac").write_text(listing)
    command = [str(BIN / "twistd"), "-n", "--pidfile=", "-y", "site.tac"]
    with ExitStack() as stack:
        with running(command, tmp_path, port):
            client = stack.enter_context(talking(port))
            client.send("hello")
            assert client.recv(PATIENCE) == "hello"
            assert get(admin, "/readyz")[0] == 200
        with pytest.raises(ConnectionClosed):
            client.recv(PATIENCE)
        assert client.close_code == 1001
    log = (tmp_path / "program.log").read_text()
    assert "working" in log and "status=101" in log


class TestJson:
    """The listings of `docs/howto/json.md`."""

    calculator, typed, models, prices, inbox = listings("howto/json")

    def test_answers_have_the_id(self) -> None:
        pair = connected_pair(defined(self.calculator)["Calculator"])
        for request in ({"id": 7, "add": [2, 3]}, {"add": [2]}):
            pair.client.send(json.dumps(request))
        pair.flush()
        assert json.loads(pair.client.receive().result) == {"id": 7, "sum": 5}
        assert "error" in json.loads(pair.client.receive().result)

    @pytest.mark.parametrize("text", ["{", "[" * 200_000])
    def test_invalid_json_closes(self, text: str) -> None:
        pair = connected_pair(defined(self.calculator)["Calculator"])
        pair.client.send(text)
        pair.flush()
        assert pair.client.close_reason.code == 1008

    def test_typed_messages_are_checked(self) -> None:
        pair = connected_pair(defined(self.typed)["Game"])
        pair.client.send_json({"type": "move", "x": 1, "y": 2})
        pair.client.send_json({"type": "move", "x": "left"})
        pair.flush()
        assert json.loads(pair.client.receive().result) == {"type": "move", "x": 2, "y": 2}
        assert pair.client.close_reason.code == 1007

    def test_models_are_converted(self) -> None:
        pair = connected_pair(defined(self.models)["Chat"])
        pair.client.send_json({"text": "hello"})
        pair.client.send_json({})
        pair.flush()
        assert json.loads(pair.client.receive().result) == {"text": "hello"}
        assert pair.client.close_reason.code == 1007

    def test_a_price_reaches_all(self) -> None:
        names = defined(self.prices)
        pairs = [connected_pair(names["Prices"]) for _ in range(2)]
        names["price_changed"]("tea", 3)
        for pair in pairs:
            pair.flush()
            assert json.loads(pair.client.receive().result) == {"name": "tea", "price": 3}

    def test_one_connection_gets_it_and_is_forgotten(self) -> None:
        names = defined(self.inbox)
        ann, bob = (connected_pair(names["Inbox"], target=target) for target in ("/ann", "/bob"))
        ann.client.send("bob:hello")
        for pair in (ann, bob):
            pair.flush()
        assert bob.client.receive().result == "ann: hello"
        bob.client.close()
        bob.flush()
        assert list(names["online"]) == ["ann"]
