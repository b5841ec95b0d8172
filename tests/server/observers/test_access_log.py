"""The access log: a line for each WebSocket."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Site

from twisted_beastws import (
    Request,
    Response,
    Router,
    WebSocketResource,
    WebSocketServerFactory,
)
from twisted_beastws.server.observers.access_log import AccessLog, CannotLog, as_json, as_text
from twisted_beastws.server.observers.metering import Meter
from twisted_beastws.testing import upgrade_request

from ...support.log import as_observer
from ...support.protocols import Echo

pytestmark = pytest.mark.usefixtures("logging")

ORIGIN = b"Origin: http://localhost\r\nSec-WebSocket-Protocol: b, a\r\n\r\n"


class Named(Echo):
    def upgrade_requested(self, request: Request) -> None:
        self.user = "J\u00f6rg"


class Server:
    def __init__(self, connect: Callable[..., Any], clock: Clock, path: Path, format: str) -> None:
        self.connect = connect
        self.path = path
        self.log = AccessLog(str(path), format)
        self.factory = WebSocketServerFactory(Named, subprotocols=["a"], clock=clock)
        self.factory.add_observer(self.log)
        self.log.startService()

    def client(self, address: Any = None) -> Any:
        peer = self.connect(factory=self.factory, opened=False)
        peer.transport.peerAddr = address or IPv4Address("TCP", "192.0.2.1", 4711)
        return peer

    @property
    def lines(self) -> list[str]:
        return self.path.read_text("ascii").splitlines()

    @property
    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


@pytest.fixture
def serve(connect: Callable[..., Any], clock: Clock, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    servers = []

    def serve(format: str = "json") -> Server:
        servers.append(Server(connect, clock, tmp_path / "access.log", format))
        return servers[-1]

    yield serve
    for server in servers:
        server.log.stopService()


@pytest.fixture
def errors(request: pytest.FixtureRequest) -> list[str]:
    errors: list[str] = []

    def observe(event: LogEvent) -> None:
        if event["log_level"].name == "error":
            errors.append(formatEvent(event))

    globalLogPublisher.addObserver(as_observer(observe))
    request.addfinalizer(lambda: globalLogPublisher.removeObserver(as_observer(observe)))
    return errors


class TestEntries:
    """The lines, and when they are written."""

    def test_a_websocket_is_logged_when_it_ends(self, serve: Any, clock: Clock) -> None:
        server = serve()
        peer = server.client()
        peer.sends(peer.HEAD[:-2] + ORIGIN, peer.text("h\u00e9"), peer.text("x"))
        clock.advance(1.2345)
        assert server.lines == []
        peer.sends(peer.close(4000, b"bye"))
        peer.leaves()
        (entry,) = server.entries
        time, connection = entry.pop("time"), entry.pop("connection")
        assert time[-5] == "." and time[-1] == "Z" and len(time) == 24
        assert connection == peer.protocol.connection_id
        assert list(entry.items()) == [
            ("address", "192.0.2.1"),
            ("port", 4711),
            ("user", "J\u00f6rg"),
            ("target", "/chat"),
            ("origin", "http://localhost"),
            ("subprotocol", "a"),
            ("status", 101),
            ("code", 4000),
            ("began", "peer"),
            ("duration", 1.234),
            ("received_messages", 2),
            ("received_bytes", 4),
            ("sent_messages", 2),
            ("sent_bytes", 4),
        ]

    def test_the_documentation_lists_each_field(self, serve: Any) -> None:
        server = serve()
        peer = server.client()
        peer.sends(peer.HEAD)
        peer.leaves()
        documented = (Path(__file__).parents[3] / "docs" / "service.md").read_text()
        table = documented.partition("### Access log")[2]
        fields = [name for line in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in line.split(", ")]
        assert fields == [f"`{name}`" for name in server.entries[0]]

    def test_an_entry_is_written_as_text(self, serve: Any, clock: Clock) -> None:
        server = serve("text")
        peer = server.client(IPv6Address("TCP", "2001:db8::1", 4711))
        peer.sends(peer.HEAD.replace(b"/chat", b'/chat?a="b"'))
        peer.leaves(ConnectionLost())
        (line,) = server.lines
        _, number, rest = line.split(" ", 2)
        assert number == f"connection={peer.protocol.connection_id}"
        assert rest == (
            'address=2001:db8::1 port=4711 user="J\\u00f6rg" target="/chat?a=\\"b\\"" origin=- subprotocol=- '
            "status=101 code=1006 began=transport duration=0.0 received_messages=0 received_bytes=0 sent_messages=0 "
            "sent_bytes=0"
        )

    def test_a_refused_handshake_is_logged_at_once(self, serve: Any) -> None:
        server = serve()
        peer = server.client(UNIXAddress(None))
        peer.sends(peer.HEAD[:-2] + b"Origin: http://evil\r\n\r\n")
        (entry,) = server.entries
        assert (entry["status"], entry["origin"], entry["address"]) == (403, "http://evil", None)
        assert "code" not in entry
        peer.sends(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert server.entries[1]["status"] == 426

    def test_each_connection_has_a_number_of_its_own(self, serve: Any) -> None:
        server = serve()
        for _ in range(3):
            peer = server.client()
            peer.sends(peer.HEAD)
            peer.leaves()
        assert len({entry["connection"] for entry in server.entries}) == 3

    def test_the_line_has_our_close_code_if_we_began_to_close(self, serve: Any) -> None:
        server = serve()
        peer = server.client()
        peer.sends(peer.HEAD, b"\x81\x00")
        peer.leaves()
        (entry,) = server.entries
        assert (entry["code"], entry["began"]) == (1002, "local")


@example({"a": "-", "b": None})
@example({"a": "\x7f", "b": "\x1b[2J"})
@given(st.dictionaries(st.sampled_from(["a", "b"]), st.none() | st.text() | st.integers()))
def test_a_text_line_is_one_line_whose_values_can_be_read(values: dict[str, Any]) -> None:
    line = as_json(values)
    assert line.isascii() and line.isprintable()
    assert json.loads(line) == values
    line = as_text({"time": "now", **values})
    assert line.isascii() and line.isprintable()
    read = {}
    rest = line.removeprefix("now")
    while rest:
        name, _, rest = rest[1:].partition("=")
        value: Any
        if rest.startswith('"'):
            value, end = json.JSONDecoder().raw_decode(rest)
        else:
            end = (rest + " ").index(" ")
            value = None if rest[:end] == "-" else rest[:end]
        read[name], rest = value, rest[end:]
    assert read == {name: None if value is None else str(value) for name, value in values.items()}


class TestFile:
    """The file of the log."""

    @pytest.mark.skipif(os.name == "nt", reason="MODES OF FILES ARE NOT TESTED: Windows has others")
    @pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o640), (0o077, 0o600), (0, 0o640)])
    def test_the_file_is_not_readable_by_everyone(self, tmp_path: Path, serve: Any, umask: int, mode: int) -> None:
        before = os.umask(umask)
        try:
            serve()
        finally:
            os.umask(before)
        assert (tmp_path / "access.log").stat().st_mode & 0o777 == mode

    def test_the_file_is_appended_to(self, tmp_path: Path, serve: Any) -> None:
        (tmp_path / "access.log").write_text("{}\n")
        server = serve()
        peer = server.client()
        peer.sends(peer.HEAD)
        peer.leaves()
        assert len(server.lines) == 2

    def test_the_line_of_an_invalid_request_has_no_fields_of_the_one_before(self, serve: Any) -> None:
        server = serve()
        peer = server.client()
        peer.sends(peer.HEAD.replace(b"GET", b"POST"), b"noise\r\n\r\n")
        peer.leaves()
        first, second = server.entries
        assert first["target"] == "/chat"
        assert (second["status"], second["target"], second["origin"], second["user"]) == (400, None, None, None)

    def test_the_file_is_reopened_by_its_name(self, serve: Any, tmp_path: Path) -> None:
        server = serve()
        for _ in range(2):
            os.rename(server.path, tmp_path / "old")
            server.log.reopen()
            peer = server.client()
            peer.sends(peer.HEAD)
            peer.leaves()
            assert len(server.lines) == 1

    def test_a_file_that_cannot_be_reopened_is_kept(self, serve: Any, tmp_path: Path, errors: list[str]) -> None:
        server = serve()
        os.rename(server.path, tmp_path / "old")
        server.path.mkdir()
        server.log.reopen()
        peer = server.client()
        peer.sends(peer.HEAD)
        peer.leaves()
        assert len((tmp_path / "old").read_text().splitlines()) == 1
        assert errors == [f"cannot reopen the access log {server.path}: Is a directory"]

    def test_a_file_that_cannot_be_opened_is_an_error_of_one_line(self, tmp_path: Path) -> None:
        with pytest.raises(CannotLog) as caught:
            AccessLog(str(tmp_path), "text").startService()
        assert str(caught.value) == f"cannot write the access log {tmp_path}: Is a directory"
        assert issubclass(CannotLog, SystemExit)

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a full disk at hand")
    def test_a_full_disk_is_logged_once_and_connections_go_on(self, serve: Any, errors: list[str]) -> None:
        server = serve()
        server.log.path = "/dev/full"
        server.log.reopen()
        for _ in range(2):
            peer = server.client()
            peer.sends(peer.HEAD)
            peer.leaves()
        assert errors == ["cannot write the access log /dev/full: No space left on device"]
        assert server.factory.connections == set()
        server.log.reopen()
        peer = server.client()
        peer.sends(peer.HEAD)
        peer.leaves()
        server.log.stopService()
        # No public name shows that the file is closed.
        assert server.log._file is None

    def test_the_working_directory_may_change(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert AccessLog("log", "text").path == str(tmp_path / "log")

    def test_the_file_may_be_the_standard_output(self, capfd: pytest.CaptureFixture[str]) -> None:
        log = AccessLog("-", "text")
        log.startService()
        # A line without a connection, as no public name writes one.
        log._write({"time": "now", "a": 1})
        log.reopen()
        log.stopService()
        print("still open")
        assert "now a=1\n" in capfd.readouterr().out

    def test_nothing_is_written_after_the_end(self, serve: Any) -> None:
        server = serve()
        peer = server.client()
        peer.sends(peer.HEAD)
        server.log.stopService()
        peer.leaves()
        assert server.lines == []


class TestInAProgram:
    """A program adds the log to a factory, without starting it as a service."""

    def test_the_first_line_opens_the_file(self, connect: Callable[..., Any], clock: Clock, tmp_path: Path) -> None:
        path = tmp_path / "access.log"
        log = AccessLog(str(path))
        factory = WebSocketServerFactory(Named, clock=clock)
        factory.add_observer(log)
        assert not path.exists()
        connect(factory=factory).leaves()
        assert " status=101 " in path.read_text()
        log.stopService()

    def test_a_file_that_cannot_be_opened_is_logged_once(
        self, connect: Callable[..., Any], clock: Clock, tmp_path: Path, errors: list[str]
    ) -> None:
        factory = WebSocketServerFactory(Named, clock=clock)
        factory.add_observer(AccessLog(str(tmp_path / "none" / "access.log")))
        for _ in range(2):
            connect(factory=factory).leaves()
        assert len(errors) == 1 and "No such file" in errors[0]

    def test_a_meter_on_the_same_factory_counts_each_message_once(
        self, connect: Callable[..., Any], clock: Clock, tmp_path: Path
    ) -> None:
        path, meter = tmp_path / "access.log", Meter()
        factory = WebSocketServerFactory(Named, clock=clock)
        for observer in (meter, AccessLog(str(path), "json")):
            factory.add_observer(observer)
        peer = connect(factory=factory)
        peer.sends(peer.text("x"))
        peer.leaves()
        (entry,) = [json.loads(line) for line in path.read_text().splitlines()]
        assert (entry["received_messages"], entry["sent_messages"]) == (1, 1)
        assert (meter.traffic.received_texts, meter.traffic.sent_texts) == (1, 1)

    @pytest.mark.parametrize("way", ["resource", "router"])
    def test_a_handshake_under_twisted_web_is_logged(self, clock: Clock, tmp_path: Path, way: str) -> None:
        path, meter = tmp_path / "access.log", Meter()
        factory: Any = WebSocketServerFactory(
            Router({"/a": Named}, Resource()) if way == "router" else Named, clock=clock
        )
        for observer in (meter, AccessLog(str(path), "json")):
            factory.add_observer(observer)
        factory.add_gate(lambda request, ws: Response(401))
        site = factory if way == "router" else Site(WebSocketResource(factory))
        channel = site.buildProtocol(None)
        channel.makeConnection(StringTransport())
        channel.dataReceived(upgrade_request("/a?b"))
        channel.connectionLost(Failure(ConnectionDone()))
        (entry,) = [json.loads(line) for line in path.read_text().splitlines()]
        assert (entry["status"], entry["target"], meter.handshakes) == (401, "/a?b", {"401": 1})

    def test_another_format_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"AccessLog\(format='xml'\): give one of text, json"):
            AccessLog("-", "xml")


class TestRelay:
    """The supervisor writes the workers' lines to the standard output and to pipes.

    The lines of several processes would mix there.
    """

    def relayed(self, connect: Callable[..., Any], clock: Clock, path: str) -> list[str]:
        lines: list[str] = []
        log = AccessLog(path, "text", lines.append)
        factory = WebSocketServerFactory(Named, clock=clock)
        factory.add_observer(log)
        log.startService()
        peer = connect(factory=factory)
        peer.sends(peer.close(1000))
        peer.leaves()
        log.stopService()
        return lines

    def test_the_supervisor_can_write_the_standard_output(self, connect: Callable[..., Any], clock: Clock) -> None:
        (line,) = self.relayed(connect, clock, "-")
        assert " status=101 code=1000 began=peer " in line and "\n" not in line

    def test_the_supervisor_can_write_a_pipe(self, connect: Callable[..., Any], clock: Clock, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        assert len(self.relayed(connect, clock, str(tmp_path / "pipe"))) == 1

    def test_each_worker_can_write_its_file(self, connect: Callable[..., Any], clock: Clock, tmp_path: Path) -> None:
        assert self.relayed(connect, clock, str(tmp_path / "access.log")) == []
        assert (tmp_path / "access.log").read_text().count("status=101") == 1
