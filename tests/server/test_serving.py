"""Listening, saying where, and going home."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_beastws import State, WebSocketProtocol, WebSocketServerFactory
from twisted_beastws.server.serving import CannotListen, Serving, ShutdownPolicy

from ..support.handshakes import upgrade_request
from ..support.log import logged_lines

URLS = [("http", "/"), ("ws", "/chat")]
IN_USE = CannotListenError("", 1984, OSError(98, "Address already in use"))
UPGRADE = upgrade_request("/")


class Port:
    """A port that listens, and takes its time to stop."""

    def __init__(self, address: object) -> None:
        self.address = address
        self.stopped: Deferred[None] | None = None

    def getHost(self) -> object:
        return self.address

    def stopListening(self) -> Deferred[None]:
        self.stopped = Deferred()
        return self.stopped


@implementer(IStreamServerEndpoint)
class Endpoint:
    def __init__(self, listening: Deferred[Any]) -> None:
        self.listening = listening
        self.factory: object = None

    def listen(self, protocolFactory: object) -> Deferred[Any]:
        self.factory = protocolFactory
        return self.listening


@pytest.fixture
def factory() -> WebSocketServerFactory:
    return WebSocketServerFactory(WebSocketProtocol, clock=Clock())


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """The log events at info or above."""
    with logged_lines(lambda event: event["log_level"].name != "debug") as lines:
        yield lines


def on(address: object, description: str = "tcp:1984") -> tuple[str, Any]:
    return description, Endpoint(succeed(Port(address)))


def tcp(host: str, port: int) -> IPv4Address | IPv6Address:
    return (IPv6Address if ":" in host else IPv4Address)("TCP", host, port)


class TestStart:
    """The service listens, and logs where."""

    @pytest.mark.parametrize(
        ("address", "description", "told"),
        [
            (
                tcp("0.0.0.0", 1984),
                "tcp:1984",
                "http://localhost:1984/ and ws://localhost:1984/chat, on every address of this machine (0.0.0.0:1984)",
            ),
            (
                tcp("::", 1984),
                "tcp6:1984",
                "http://localhost:1984/ and ws://localhost:1984/chat, on every address of this machine ([::]:1984)",
            ),
            (tcp("127.0.0.1", 7), "tcp:0:interface=127.0.0.1", "http://127.0.0.1:7/ and ws://127.0.0.1:7/chat"),
            (tcp("::1", 7), "tcp6:7:interface=\\:\\:1", "http://[::1]:7/ and ws://[::1]:7/chat"),
            (tcp("192.0.2.1", 80), "tcp:80", "http://192.0.2.1/ and ws://192.0.2.1/chat"),
            (tcp("192.0.2.1", 443), "ssl:443:privateKey=a", "https://192.0.2.1/ and wss://192.0.2.1/chat"),
            (tcp("192.0.2.1", 80), "ssl:80:privateKey=a", "https://192.0.2.1:80/ and wss://192.0.2.1:80/chat"),
            (tcp("192.0.2.1", 5), "systemd:domain=INET:index=0", "http://192.0.2.1:5/ and ws://192.0.2.1:5/chat"),
            (UNIXAddress("/run/chat"), "unix:/run/chat", "on unix:/run/chat, at /run/chat"),
            (UNIXAddress(b"/run/chat"), "systemd:domain=UNIX:index=0", "on systemd:domain=UNIX:index=0, at /run/chat"),
            (UNIXAddress("\0chat"), "systemd:domain=UNIX:index=0", "on systemd:domain=UNIX:index=0, at @chat"),
            (
                tcp("127.0.0.1", 5),
                "haproxy:tcp:0:interface=127.0.0.1",
                "on haproxy:tcp:0:interface=127.0.0.1, at 127.0.0.1:5",
            ),
            (tcp("::", 5), "other:5", "on other:5, at [::]:5"),
            ("an address of its own", "other:5", "on other:5, at an address of its own"),
        ],
    )
    def test_one_line_shows_the_address(
        self, factory: WebSocketServerFactory, lines: list[str], address: object, description: str, told: str
    ) -> None:
        Serving(factory, [on(address, description)], URLS).startService()
        assert lines == [f"serving {told}"]

    def test_every_endpoint_has_the_factory_and_a_line(self, factory: WebSocketServerFactory, lines: list[str]) -> None:
        endpoints = [on(tcp("127.0.0.1", 1)), on(tcp("127.0.0.1", 2))]
        Serving(factory, endpoints, [("ws", "/")]).startService()
        assert [endpoint.factory for _, endpoint in endpoints] == [factory, factory]
        assert lines == ["serving ws://127.0.0.1:1/", "serving ws://127.0.0.1:2/"]

    def test_the_service_listens_once_with_its_privileges(
        self, factory: WebSocketServerFactory, lines: list[str]
    ) -> None:
        service = Serving(factory, [on(tcp("127.0.0.1", 1))], URLS)
        service.privilegedStartService()
        assert len(lines) == 1
        service.startService()
        assert len(lines) == 1
        assert service.running


class TestCannotListen:
    """An endpoint that cannot listen ends the program."""

    @pytest.mark.parametrize(
        ("error", "why"),
        [
            (IN_USE, "Address already in use"),
            (OverflowError("bind(): port must be 0-65535."), "port must be 0-65535"),
            (PermissionError(13, "Permission denied"), "Permission denied"),
        ],
    )
    def test_one_line_shows_the_reason(self, factory: WebSocketServerFactory, error: Exception, why: str) -> None:
        service = Serving(factory, [("tcp:1984", Endpoint(fail(error)))], URLS)
        with pytest.raises(CannotListen) as caught:
            service.privilegedStartService()
        line = f"cannot listen on tcp:1984: {why}; give another endpoint with --listen"
        assert str(caught.value) == caught.value.code == line

    def test_the_line_names_the_option(self, factory: WebSocketServerFactory) -> None:
        service = Serving(factory, [("tcp:1", Endpoint(fail(IN_USE)))], URLS, option="admin")
        with pytest.raises(CannotListen, match=r"Address already in use; give another endpoint with --admin$"):
            service.startService()

    def test_the_first_failure_is_reported(self, factory: WebSocketServerFactory) -> None:
        endpoints = [on(tcp("127.0.0.1", 1)), ("tcp:2", Endpoint(fail(IN_USE))), ("tcp:3", Endpoint(fail(IN_USE)))]
        with pytest.raises(CannotListen, match="cannot listen on tcp:2:"):
            Serving(factory, endpoints, URLS).startService()

    def test_twistd_gets_an_exception_and_a_program_an_exit(self) -> None:
        assert issubclass(CannotListen, Exception)
        assert issubclass(CannotListen, SystemExit)

    def test_an_endpoint_that_fails_later_leaves_the_others_listening(
        self, factory: WebSocketServerFactory, lines: list[str]
    ) -> None:
        slow: Deferred[Any] = Deferred()
        service = Serving(factory, [("tcp:2", Endpoint(slow)), on(tcp("127.0.0.1", 1))], [("ws", "/")])
        service.startService()
        slow.errback(Failure(IN_USE))
        assert lines == [
            "serving ws://127.0.0.1:1/",
            "cannot listen on tcp:2: Address already in use; give another endpoint with --listen",
        ]


class TestReady:
    """When the service is ready."""

    def test_the_service_is_ready_while_all_endpoints_listen(self, factory: WebSocketServerFactory) -> None:
        slow: Deferred[Any] = Deferred()
        service = Serving(factory, [on(tcp("127.0.0.1", 1)), ("tcp:2", Endpoint(slow))], URLS)
        assert not service.ready
        service.startService()
        assert not service.ready
        slow.callback(Port(tcp("0.0.0.0", 2)))
        assert service.ready
        service.stopService()
        assert not service.ready

    def test_the_service_is_never_ready_if_one_endpoint_fails(self, factory: WebSocketServerFactory) -> None:
        slow: Deferred[Any] = Deferred()
        service = Serving(factory, [("tcp:2", Endpoint(slow))], URLS)
        service.startService()
        slow.errback(Failure(IN_USE))
        assert not service.ready


class TestStop:
    """The service stops listening, and drains."""

    def test_a_stop_is_done_when_the_ports_are_closed(self, factory: WebSocketServerFactory) -> None:
        ports = [Port(tcp("0.0.0.0", 1)), Port(tcp("0.0.0.0", 2))]
        service = Serving(factory, [("tcp:1", Endpoint(succeed(port))) for port in ports], URLS)
        service.startService()
        done: list[None] = []
        service.stopService().addCallback(done.append)
        for port in ports:
            assert done == []
            assert port.stopped is not None
            port.stopped.callback(None)
        assert done == [None]
        assert not service.running

    def test_a_port_that_fails_to_stop_does_not_block_the_end(
        self, factory: WebSocketServerFactory, lines: list[str]
    ) -> None:
        port = Port(UNIXAddress(None))
        service = Serving(factory, [("unix:/run/chat", Endpoint(succeed(port)))], URLS)
        service.startService()
        protocol, transport = factory.buildProtocol(None), StringTransport()
        protocol.makeConnection(transport)
        protocol.dataReceived(UPGRADE)
        service.stopService()
        assert port.stopped is not None
        port.stopped.errback(FileNotFoundError(2, "No such file or directory"))
        assert protocol.state is State.CLOSING
        assert lines[-2].endswith("did not close in order: [Errno 2] No such file or directory")

    def test_a_stop_cancels_an_endpoint_that_does_not_listen_yet(
        self, factory: WebSocketServerFactory, lines: list[str]
    ) -> None:
        slow: Deferred[Any] = Deferred()
        service = Serving(factory, [("tcp:1", Endpoint(slow))], URLS)
        service.startService()
        done: list[None] = []
        service.stopService().addCallback(done.append)
        assert slow.called
        assert done == [None]
        assert lines == []

    def test_a_stop_closes_all_connections_with_1001_and_waits(
        self, factory: WebSocketServerFactory, lines: list[str]
    ) -> None:
        protocol, transport = factory.buildProtocol(None), StringTransport()
        protocol.makeConnection(transport)
        protocol.dataReceived(UPGRADE)
        transport.clear()
        service = Serving(factory, [], URLS)
        service.startService()
        done: list[None] = []
        service.stopService().addCallback(done.append)
        assert transport.value() == b"\x88\x1d\x03\xe9the server is shutting down"
        assert lines == ["connections to close: 1"]
        assert done == []
        protocol.connectionLost(Failure(CancelledError()))
        assert protocol.state is State.CLOSED
        assert done == [None]

    def test_the_drain_of_a_stop_has_the_given_code(self, factory: WebSocketServerFactory) -> None:
        protocol, transport = factory.buildProtocol(None), StringTransport()
        protocol.makeConnection(transport)
        protocol.dataReceived(UPGRADE)
        transport.clear()
        service = Serving(factory, [], URLS, ShutdownPolicy(1012, "back soon", 2.0))
        service.startService()
        service.stopService()
        assert transport.value() == b"\x88\x0b\x03\xf4back soon"
        clock = factory.settings.clock
        assert isinstance(clock, Clock)
        clock.advance(2.0)
        assert transport.disconnected
