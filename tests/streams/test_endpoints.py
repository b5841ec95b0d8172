"""Tests of `twisted_beastws.streams.endpoints`: endpoint strings that listen and connect on real sockets."""

from __future__ import annotations

import gc
import inspect
import io
import weakref
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from twisted.application.internet import ClientService
from twisted.internet import endpoints, reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    clientFromString,
    serverFromString,
    wrapClientTLS,
)
from twisted.internet.error import ConnectionDone, ConnectionRefusedError, NoProtocol
from twisted.internet.interfaces import (
    IProtocolNegotiationFactory,
    ISSLTransport,
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import Certificate
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import Logger, LogLevel
from twisted.plugin import getPlugins
from twisted.protocols import amp
from twisted.protocols.basic import FileSender, LineReceiver
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.spread import pb
from twisted.web.client import Agent, readBody
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface.verify import verifyObject

from twisted_beastws import (
    Response,
    Timeouts,
    UpgradeDeclined,
    WebSocketProtocol,
    WebSocketResource,
    WebSocketServerFactory,
    connect,
    errors,
    reconnecting,
)
from twisted_beastws.client.reconnecting import ReconnectingService
from twisted_beastws.streams.endpoint_keys import Keys
from twisted_beastws.streams.endpoints import CLIENT_KEYS, SERVER_KEYS, ConfiguredFactory, parse_server
from twisted_beastws.streams.tunnel import TunnelFactory

from ..support.certificates import identity, identity_pem, trusting
from ..support.handshakes import field, switching, upgrade_request
from ..support.inside import inside
from ..support.log import as_observer
from ..support.loopback import Noting, Script, failure_of, leaving_cycles, leaving_nothing, until
from ..support.ports import free_port
from ..tls.pki import Server, root, root_pem

pytestmark = pytest.mark.usefixtures("logged")

# Twisted emits this warning for every ``Agent``.
READ_BODY = pytest.mark.filterwarnings("ignore:Using readBody with a transport:DeprecationWarning")

LOOPBACK = "0:interface=127.0.0.1"


class Stream(Protocol):
    transport: Any

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.lost: Deferred[BaseException] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.parts.append(data)

    def connectionLost(self, reason: Any = None) -> None:
        self.lost.callback(reason.value)

    @property
    def octets(self) -> bytes:
        return b"".join(self.parts)


class EchoStream(Stream):
    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.transport.write(data)


class Keeping(Factory):
    """Makes protocols, and keeps the last one in ``last``."""

    noisy = False

    def __init__(self, make: Any) -> None:
        self.make = make
        self.last: Any = None

    def buildProtocol(self, addr: Any) -> Any:
        self.last = self.make()
        return self.last


def dial(description: str, make: Any = Stream) -> Deferred[Any]:
    dialing: Deferred[Any] = clientFromString(reactor, description).connect(Keeping(make))
    return dialing


@asynccontextmanager
async def listening(description: str, factory: Any) -> Any:
    """Listen, and yield the port's number, or None for a UNIX socket."""
    port = await serverFromString(reactor, description).listen(factory)
    try:
        yield getattr(port.getHost(), "port", None)
    finally:
        await port.stopListening()


async def hang_up(stream: Any) -> None:
    stream.transport.loseConnection()
    assert type(await stream.lost) is ConnectionDone


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory of trusted PEM files; ``../server.pem`` has the server's key and certificate."""
    home = tmp_path_factory.mktemp("tls")
    (home / "server.pem").write_bytes(identity_pem())
    trusted = home / "trusted"
    trusted.mkdir()
    (trusted / "localhost.pem").write_bytes(identity_pem())
    return trusted


# Strings


SERVERS = [
    "beastws:tcp:1984",
    "beastws:tcp:1984:interface=127.0.0.1:target=/tunnel:subprotocols=binary:ping=20",
    "beastws:tcp:port=1984:backlog=5:origins=https\\://a.example,https\\://b.example\\:8080:idle=60",
    "beastws:tcp:1984:interface=\\:\\:1",
    "beastws:tcp6:1984:target=/",
    "beastws:unix:/tmp/socket:mode=660:target=/x",
    "beastws:haproxy:tcp:1984:target=/x",
    "BeastWS:tcp:1984",
]


@pytest.mark.parametrize("description", SERVERS)
def test_a_description_of_a_server_is_parsed(description: str) -> None:
    assert verifyObject(IStreamServerEndpoint, serverFromString(reactor, description))


CLIENTS = {
    "beastws:tcp:example.com:8080": "example.com:8080 /",
    "beastws:tcp:example.com:80:target=/x?y=z": "example.com /x?y=z",
    "beastws:tcp:host=example.com:port=8080:timeout=5:bindAddress=127.0.0.1": "example.com:8080 /",
    "beastws:tcp:host=example.com:8080": "example.com:8080 /",
    "beastws:tcp:example.com:port=8080": "example.com:8080 /",
    "beastws:tcp:\\:\\:1:8080": "[::1]:8080 /",
    "beastws:tls:example.com:443": "example.com /",
    "beastws:tls:example.com:80": "example.com:80 /",
    "beastws:tls:example.com:8443:authority=other.example\\:443": "other.example:443 /",
    "beastws:ssl:example.com:443": "example.com /",
    "beastws:unix:/run/socket:target=/x": "localhost /x",
    "beastws:unix:/run/socket:authority=example.com": "example.com /",
    "ws:example.com": "example.com /",
    "ws:example.com:8080:target=/x:timeout=5:bindAddress=127.0.0.1": "example.com:8080 /x",
    "ws:host=example.com:port=8080": "example.com:8080 /",
    "ws:\\:\\:1:8080": "[::1]:8080 /",
    "ws:b\u00fccher.example": "xn--bcher-kva.example /",
    "ws:fa\u00df.de": "xn--fa-hia.de /",
    "wss:fa\u00df.de": "xn--fa-hia.de /",
    "beastws:tcp:fa\u00df.de:80": "xn--fa-hia.de /",
    "beastws:tls:host=fa\u00df.de:port=443": "xn--fa-hia.de /",
    "wss:\\:\\:1:8443": "[::1]:8443 /",
    "wss:host=\\:\\:1:timeout=5:bindAddress=\\:\\:1": "[::1] /",
    "beastws:tls:\\:\\:1:443": "[::1] /",
    "beastws:tls:host=\\:\\:1:port=443": "[::1] /",
    "wss:example.com.": "example.com. /",
    "wss:example.com": "example.com /",
    "wss:example.com:8443:timeout=5": "example.com:8443 /",
    "WSS:example.com:port=443": "example.com /",
}


@pytest.mark.parametrize("description", CLIENTS)
def test_a_description_of_a_client_is_parsed(description: str) -> None:
    endpoint: Any = clientFromString(reactor, description)
    assert verifyObject(IStreamClientEndpoint, endpoint)
    # Twisted gives the parser's result in a wrapper, and no name shows what it was parsed to.
    below = endpoint._endpoint
    # Nor has the endpoint public names for what it was given.
    assert f"{below._headers['Host'][0]} {below._url.target}" == CLIENTS[description]
    assert not below._url.secure


def test_short_forms_use_the_first_address_that_answers() -> None:
    def below(description: str) -> Any:
        endpoint: Any = clientFromString(reactor, description)
        # Twisted gives the parser's result in a wrapper, and no name shows what it was parsed to.
        return endpoint._endpoint._endpoint

    assert isinstance(below("ws:example.com"), HostnameEndpoint)
    assert type(below("wss:example.com")) is type(below("beastws:tls:example.com:443"))
    assert isinstance(below("beastws:tcp:example.com:80"), TCP4ClientEndpoint)


BAD_SERVERS = {
    "beastws": "beastws: name the endpoint within, as in beastws:tcp:1984",
    "beastws:": "beastws: name the endpoint within, as in beastws:tcp:1984",
    "beastws:1984": "beastws: 1984: Unknown endpoint type: '1984'",
    "beastws:tcp:x": "beastws: tcp:x: ",
    "beastws:tcp:1984:interface=::1": "interface= is empty: the colons of an IPv6 address are written with a backslash",
    "beastws:tcp:1984:interface=fe80::1": "'interface'",
    "beastws:tcp:1984:traget=/x": "'traget' (beyond the endpoint's own keys there are target, subprotocols, origins,",
    "beastws:tcp:1984:authority=x": "'authority'",
    "beastws:tcp:1984:target=/x?y": "beastws: target=/x?y: a server's is a path, without a query",
    "beastws:tcp:1984:origins=https://example.com": "beastws: origins=https: ",
    "beastws:tcp:1984:ping=soon": "beastws: ping=soon: ",
}

BAD_CLIENTS = {
    "beastws:": "beastws: name the endpoint within",
    "beastws:tcp:::1:8080": "an argument is empty: the colons of an IPv6 address are written with a backslash",
    "beastws:tcp:fe80::1:8080": "the colons of an IPv6 address are written with a backslash",
    "beastws:tcp:example.com:80:traget=/x": "'traget'",
    "beastws:tcp:example.com:80:origins=x": "'origins'",
    "beastws:tcp:example.com:80:target=x": "beastws: target=x: ",
    "beastws:tcp:example.com:http": "beastws: tcp:example.com:http: ",
    "ws": "ws: give a host and a port, as in ws:example.com:8080",
    "ws:": "ws: give a host and a port, as in ws:example.com:8080",
    "ws:::1:8080": "ws:\\:\\:1:8080",
    "wss:fe80::1:443": "wss:\\:\\:1:8080",
    "ws:example.com:http": "ws: port=http: ",
    "ws://example.com:1984/x": "ws: this is an endpoint string, not a URL: write ws:HOST:PORT:target=/PATH",
    "ws:example.com:0": "ws: port=0: ",
    f"ws:example.com:{'9' * 5000}": "ws: port=999",
    "ws:a b": "ws: a b: the host has characters that none may have",
    "wss:example.com:port=65536": "wss: port=65536: ",
    "ws:example.com:timeout=soon": "ws: timeout=soon: ",
    "ws:example.com:traget=/x": "ws: traget= is none of its keys: target, subprotocols,",
    "wss:example.com:traget=/x": "'traget'",
    "wss:example.com:ping=-1": "wss: ping=-1: ",
    "ws:example.com:subprotocols=*": "subprotocols=*: that is for servers",
}


@pytest.mark.parametrize("description", BAD_SERVERS)
def test_a_bad_description_of_a_server_is_refused(description: str) -> None:
    with pytest.raises(ValueError) as caught:
        serverFromString(reactor, description)
    assert BAD_SERVERS[description] in str(caught.value)


@pytest.mark.parametrize("description", BAD_CLIENTS)
def test_a_bad_description_of_a_client_is_refused(description: str) -> None:
    with pytest.raises(ValueError) as caught:
        clientFromString(reactor, description)
    assert BAD_CLIENTS[description] in str(caught.value)


def test_a_missing_file_is_reported_by_the_system(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught:
        serverFromString(reactor, f"beastws:ssl:443:privateKey={tmp_path}/none.pem")
    assert caught.value.filename == f"{tmp_path}/none.pem"


def test_no_key_of_ours_is_a_key_of_another_endpoint() -> None:
    # Twisted has no public list of its endpoints' keys.
    parsers: list[Any] = [
        *(endpoints._parseTCP, endpoints._parseUNIX, endpoints._parseSSL, endpoints._parseClientTLS),
        *(endpoints._SystemdParser._parseServer, endpoints._TCP6ServerParser._parseServer),
        *(TCP4ClientEndpoint.__init__, endpoints.SSL4ClientEndpoint.__init__, endpoints.UNIXClientEndpoint.__init__),
    ]
    own = {name for parser in parsers for name in inspect.signature(parser).parameters}
    own |= {"hostname", "caCertsDir", "certKey", "privateKey", "lockfile"}
    assert {"interface", "path", "timeout", "mode", "trustRoots"} < own
    assert own.isdisjoint({*SERVER_KEYS, *CLIENT_KEYS})


def test_escaped_characters_are_kept_escaped() -> None:
    described: list[str] = []

    def record(_: Any, description: str) -> None:
        described.append(description)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("twisted_beastws.streams.endpoints.serverFromString", record)
        parse_server(reactor, ("unix", "C:\\a=b:c"), {"mode": "6:6", "target": "/x"})
    assert described == ["unix:C\\:\\\\a\\=b\\:c:mode=6\\:6"]


def test_each_prefix_has_one_plug_in() -> None:
    servers = [plugin.prefix for plugin in getPlugins(IStreamServerEndpointStringParser)]
    clients = [plugin.prefix for plugin in getPlugins(IStreamClientEndpointStringParserWithReactor)]
    assert servers.count("beastws") == 1
    assert [clients.count(prefix) for prefix in ("beastws", "ws", "wss")] == [1, 1, 1]


# Streams


async def converse(stream: Any, octets: bytes = b"hello") -> None:
    """Send bytes to an echo server, wait for the echo, and close."""
    stream.transport.write(octets)
    await until(lambda: stream.octets == octets)
    await hang_up(stream)


class TestStreams:
    """Streams over each kind of endpoint."""

    @leaving_nothing
    async def test_a_stream_can_use_tcp(self) -> None:
        echo = Keeping(EchoStream)
        async with listening(f"beastws:tcp:{LOOPBACK}:target=/x", echo) as port:
            for description in (f"beastws:tcp:127.0.0.1:{port}:target=/x", f"ws:localhost:{port}:target=/x?y=z"):
                stream = await dial(description)
                assert type(stream) is Stream
                assert stream.transport.getPeer() == IPv4Address("TCP", "127.0.0.1", port)
                assert stream.transport.getHost() == echo.last.transport.getPeer()
                assert ITCPTransport.providedBy(stream.transport)
                assert not ISSLTransport.providedBy(stream.transport)
                await converse(stream)
                assert type(await echo.last.lost) is ConnectionDone

    @leaving_nothing
    async def test_a_stream_can_use_ipv6(self) -> None:
        async with listening("beastws:tcp:0:interface=\\:\\:1", Keeping(EchoStream)) as port:
            for description in (f"ws:\\:\\:1:{port}", f"beastws:tcp:\\:\\:1:{port}"):
                await converse(await dial(description))

    @pytest.mark.parametrize("scheme", ["beastws:tls", "wss"])
    @leaving_nothing
    async def test_a_stream_can_use_tls(self, scheme: str, certificates: Path) -> None:
        echo = Keeping(EchoStream)
        pem = certificates.with_name("server.pem")
        async with listening(f"beastws:ssl:{LOOPBACK}:privateKey={pem}:target=/x", echo) as port:
            stream = await dial(f"{scheme}:localhost:{port}:trustRoots={certificates}:target=/x")
            assert ISSLTransport.providedBy(stream.transport) and ISSLTransport.providedBy(echo.last.transport)
            assert Certificate.peerFromTransport(stream.transport) == Certificate.loadPEM(identity_pem())
            assert echo.last.transport.getPeerCertificate() is None
            await converse(stream, bytes(1 << 20))
            assert type(await echo.last.lost) is ConnectionDone

    @pytest.mark.parametrize("scheme", ["beastws:tls", "wss"])
    @leaving_nothing
    async def test_a_stream_can_use_tls_and_ipv6(self, scheme: str, tmp_path: Path) -> None:
        (tmp_path / "server.pem").write_bytes(Server("IP:::1", signer=root()).pem())
        (tmp_path / "root.pem").write_bytes(root_pem())
        listen = f"beastws:ssl:0:interface=\\:\\:1:privateKey={tmp_path}/server.pem"
        async with listening(listen, Keeping(EchoStream)) as port:
            await converse(await dial(f"{scheme}:\\:\\:1:{port}:trustRoots={tmp_path}"))

    @leaving_nothing
    async def test_an_untrusted_certificate_is_refused(self, certificates: Path) -> None:
        pem = certificates.with_name("server.pem")
        async with listening(f"beastws:ssl:{LOOPBACK}:privateKey={pem}", Keeping(EchoStream)) as port:
            failure = await failure_of(dial(f"wss:localhost:{port}"))
            assert "no authority that this client trusts has signed it" in str(failure)

    @leaving_nothing
    async def test_a_stream_can_use_a_unix_socket(self, tmp_path: Path) -> None:
        async with listening(f"beastws:unix:{tmp_path}/s:target=/x", Keeping(EchoStream)):
            stream = await dial(f"beastws:unix:{tmp_path}/s:target=/x")
            assert not ISSLTransport.providedBy(stream.transport)
            await converse(stream)

    @leaving_nothing
    async def test_a_stream_can_use_haproxy(self) -> None:
        class Proxying(Stream):
            """Sends a PROXY header with the client's address before the WebSocket handshake."""

            def connectionMade(self) -> None:
                self.transport.write(b"PROXY TCP4 192.0.2.1 192.0.2.2 4321 80\r\n")
                self.transport.write(upgrade_request("/") + b"\x82\x85\0\0\0\0hello")

        echo = Keeping(EchoStream)
        async with listening(f"beastws:haproxy:tcp:{LOOPBACK}", echo) as port:
            plain = await clientFromString(reactor, f"tcp:127.0.0.1:{port}").connect(Keeping(Proxying))
            await until(lambda: plain.octets.endswith(b"\x82\x05hello"))
            assert echo.last.transport.getPeer() == IPv4Address("TCP", "192.0.2.1", 4321)
            plain.transport.loseConnection()
            await plain.lost
            await echo.last.lost

    @leaving_nothing
    async def test_tls_can_run_within_a_tunnel(self) -> None:
        """TLS can run inside the tunnel, because its endpoints work like any others."""
        server = TLSMemoryBIOFactory(identity().options(), False, Keeping(EchoStream))
        async with listening(f"beastws:tcp:{LOOPBACK}", server) as port:
            client = wrapClientTLS(trusting(), clientFromString(reactor, f"ws:127.0.0.1:{port}"))
            stream: Any = await client.connect(Keeping(Stream))
            stream.transport.write(bytes(1 << 18))
            await until(lambda: stream.octets == bytes(1 << 18))
            assert Certificate.peerFromTransport(stream.transport) == Certificate.loadPEM(identity_pem())
            await hang_up(stream)

    @leaving_nothing
    async def test_a_tunnel_can_run_within_a_tunnel(self) -> None:
        async with listening(f"beastws:beastws:tcp:{LOOPBACK}", Keeping(EchoStream)) as port:
            await converse(await dial(f"beastws:beastws:tcp:127.0.0.1:{port}"))

    @leaving_nothing
    async def test_a_stream_can_use_twisted_web(self) -> None:
        root = Resource()
        root.putChild(b"x", WebSocketResource(TunnelFactory(Keeping(EchoStream), clock=reactor)))
        async with listening(f"tcp:{LOOPBACK}", Site(root)) as port:
            await converse(await dial(f"ws:127.0.0.1:{port}:target=/x"))


# Connecting


class TestConnecting:
    """The client's endpoint."""

    @pytest.mark.parametrize(
        ("keys", "sent"),
        [
            ("", (b"127.0.0.1:{port}", b"binary")),
            (":subprotocols=a,b:authority=example.com", (b"example.com", b"a, b")),
            (":subprotocols=", (b"127.0.0.1:{port}", None)),
        ],
    )
    @leaving_nothing
    async def test_the_keys_are_sent_in_the_request(self, keys: str, sent: tuple[bytes | None, ...]) -> None:
        script = Script(lambda connection, head: connection.write(switching(head)))
        async with script.listening() as port:
            stream = await dial(f"beastws:tcp:127.0.0.1:{port}:target=/x?y{keys}")
            (head,) = script.requests
            assert head.startswith(b"GET /x?y HTTP/1.1\r\n")
            host = sent[0]
            assert host is not None
            assert field(head, b"Host") == host.replace(b"{port}", b"%d" % port)
            assert field(head, b"Sec-WebSocket-Protocol") == sent[1]
            assert field(head, b"Origin") is None
            stream.transport.abortConnection()
            await stream.lost

    @leaving_nothing
    async def test_a_declined_upgrade_is_reported(self) -> None:
        async with Script(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").listening() as port:
            endpoint: Any = clientFromString(reactor, f"ws:127.0.0.1:{port}")
            failure: Any = await failure_of(endpoint.connect(Keeping(Stream)))
            assert isinstance(failure, UpgradeDeclined) and failure.response.body == b"no"
            assert endpoint.last_failure.value is failure

    @leaving_nothing
    async def test_a_factory_of_another_type_is_refused(self) -> None:
        failure = await failure_of(clientFromString(reactor, "ws:localhost").connect(Stream))
        assert type(failure) is TypeError
        assert str(failure) == "factory: give Factory.forProtocol(YourProtocol), not the class Stream"

    @leaving_nothing
    async def test_a_redirect_is_not_followed(self) -> None:
        script = Script(b"HTTP/1.1 302 Found\r\nLocation: /y\r\nContent-Length: 0\r\n\r\n")
        async with script.listening() as port:
            assert isinstance(await failure_of(dial(f"ws:127.0.0.1:{port}")), UpgradeDeclined)
            assert len(script.requests) == 1

    @leaving_nothing
    async def test_a_refused_connection_is_reported(self) -> None:
        failure = await failure_of(dial(f"beastws:tcp:127.0.0.1:{free_port()}"))
        assert isinstance(failure, ConnectionRefusedError)

    @leaving_nothing
    async def test_a_cancelled_connect_drops_the_connection(self) -> None:
        async with Script(None).listening() as port:
            factory = Keeping(Stream)
            connecting = clientFromString(reactor, f"ws:127.0.0.1:{port}").connect(factory)
            await until(lambda: factory.last)
            connecting.cancel()
            assert isinstance(await failure_of(connecting), CancelledError)
            assert not factory.last.lost.called and factory.last.transport is None

    @leaving_nothing
    async def test_a_factory_that_makes_no_protocol_is_reported(self) -> None:
        async with listening(f"beastws:tcp:{LOOPBACK}", Keeping(EchoStream)) as port:
            assert isinstance(await failure_of(dial(f"ws:127.0.0.1:{port}", lambda: None)), NoProtocol)

    # On Python 3.12 Twisted's plug-in search leaves a reference cycle that holds its callers' frames.
    @leaving_cycles
    async def test_a_websocket_protocol_is_not_put_into_another(self) -> None:
        class Greeter(WebSocketProtocol):
            def opened(self) -> None:
                self.send(f"hello {self.subprotocol}")

        factory = WebSocketServerFactory(Greeter, subprotocols=["chat"], clock=reactor)
        async with listening(f"tcp:{LOOPBACK}", factory) as port:
            endpoint = clientFromString(reactor, f"ws:127.0.0.1:{port}:subprotocols=chat:ping=7")
            ws: Any = await endpoint.connect(Factory.forProtocol(Noting))
            assert type(ws) is Noting
            await until(lambda: ws.heard == ["opened", "hello chat"])
            assert inside(ws).settings.timeouts == Timeouts(ping_interval=7)
            assert inside(ws).settings.limits.max_message_size == 1 << 20
            await ws.close()
            await until(lambda: not factory.connections)

    @leaving_cycles
    async def test_a_client_service_can_use_the_endpoint(self) -> None:
        async with listening(f"beastws:tcp:{LOOPBACK}", Keeping(EchoStream)) as port:
            service = ClientService(clientFromString(reactor, f"ws:127.0.0.1:{port}"), Keeping(Stream))
            service.startService()
            stream: Any = await service.whenConnected()
            assert type(stream) is Stream
            stream.transport.write(b"hello")
            await until(lambda: stream.octets == b"hello")
            await service.stopService()
            assert type(await stream.lost) is ConnectionDone

    def test_the_repr_shows_the_target(self) -> None:
        endpoint = clientFromString(reactor, "wss:example.com:8443:target=/x?token=secret")
        assert repr(endpoint) == "<ClientEndpoint wss://example.com:8443/x?...>"

    @leaving_cycles
    async def test_reconnecting_gives_up_if_no_attempt_can_help(self, monkeypatch: pytest.MonkeyPatch) -> None:
        told: list[Any] = []
        monkeypatch.setattr(ReconnectingService, "log", Logger("reconnection", observer=as_observer(told.append)))
        async with listening(f"beastws:tcp:{LOOPBACK}:target=/x", Keeping(EchoStream)) as port:
            endpoint: Any = clientFromString(reactor, f"ws:127.0.0.1:{port}:target=/y")
            service = reconnecting(endpoint, Keeping(Stream))
            service.startService()
            assert isinstance(await failure_of(service.whenConnected()), UpgradeDeclined)
            await until(lambda: not service.running)
            assert [(event["log_level"], event["endpoint"]) for event in told] == [(LogLevel.warn, endpoint)]


# Serving


class TestServing:
    """The server's endpoint."""

    @leaving_nothing
    async def test_only_the_target_is_served(self) -> None:
        async with listening(f"beastws:tcp:{LOOPBACK}:target=/x", Keeping(EchoStream)) as port:
            for target in ("/", "/x/", "/xy", "/y?/x", "/%78"):
                failure: Any = await failure_of(dial(f"ws:127.0.0.1:{port}:target={target}"))
                assert (failure.response.status, failure.response.body) == (404, b"There is no WebSocket here\n")

    @pytest.mark.parametrize("by_hand", [False, True])
    @leaving_nothing
    async def test_another_path_is_404_before_any_login(self, by_hand: bool) -> None:
        class Answering(WebSocketProtocol):
            def serve(self) -> None:
                if by_hand:
                    self.read_request().addErrback(lambda failure: None)
                else:
                    super().serve()

        factory = WebSocketServerFactory(Answering, clock=reactor)
        factory.add_gate(lambda request, application: Response(401))
        async with listening(f"beastws:tcp:{LOOPBACK}:target=/x", factory) as port:
            for target, status in (("/", 404), ("/x", 401)):
                failure: Any = await failure_of(dial(f"ws:127.0.0.1:{port}:target={target}"))
                assert failure.response.status == status

    @pytest.mark.parametrize(("offered", "spoken"), [("base64,binary", "base64"), ("x", "x"), ("", None)])
    @leaving_nothing
    async def test_any_subprotocol_is_accepted_if_asked_for(self, offered: str, spoken: str | None) -> None:
        async with listening(f"beastws:tcp:{LOOPBACK}:subprotocols=*", Keeping(EchoStream)) as port:
            names = offered.split(",") if offered else []
            ws = await connect(f"ws://127.0.0.1:{port}/", reactor=reactor, subprotocols=names)
            assert ws.subprotocol == spoken
            await ws.close()
            await converse(await dial(f"ws:127.0.0.1:{port}"))

    @leaving_nothing
    async def test_every_target_is_served_without_the_key_target(self) -> None:
        async with listening(f"beastws:tcp:{LOOPBACK}", Keeping(EchoStream)) as port:
            await converse(await dial(f"ws:127.0.0.1:{port}:target=/any/where"))

    @pytest.mark.parametrize(
        ("origin", "keys", "let_in"),
        [
            ("https://elsewhere.example", "", False),
            ("http://localhost:{port}", "", True),
            ("https://elsewhere.example", ":origins=https\\://elsewhere.example,https\\://a", True),
            ("http://localhost:{port}", ":origins=https\\://elsewhere.example", True),
        ],
    )
    @leaving_nothing
    async def test_the_origins_are_checked(self, origin: str, keys: str, let_in: bool) -> None:
        async with listening(f"beastws:tcp:{LOOPBACK}{keys}", Keeping(EchoStream)) as port:
            headers = {"Origin": origin.replace("{port}", str(port))}
            connecting = connect(f"ws://localhost:{port}/", reactor=reactor, headers=headers)
            if let_in:
                await (await connecting).close()
            else:
                failure: Any = await failure_of(connecting)
                assert failure.response.status == 403

    # On Python 3.12 Twisted's plug-in search leaves a reference cycle that holds its callers' frames.
    @leaving_cycles
    async def test_a_websocket_factory_serves_messages(self) -> None:
        seen: list[Any] = []

        class Shout(WebSocketProtocol):
            def http_requested(self, request: Any) -> Any:
                return Response(200, body="health\n") if request.method == "HEAD" else None

            def text_received(self, text: str) -> None:
                seen.append(inside(self).settings)
                self.send(text.upper())

        factory = WebSocketServerFactory(Shout, subprotocols=["shout"], clock=reactor)
        before = factory.settings
        keys = "target=/x:subprotocols=a,b:ping=7:origins=https\\://a.example"
        async with listening(f"beastws:tcp:{LOOPBACK}:{keys}", factory) as port:
            ws = await connect(
                f"ws://127.0.0.1:{port}/x", reactor=reactor, protocol=Noting, subprotocols=["shout", "b"]
            )
            ws.send("hello")
            await until(lambda: ws.heard == ["opened", "HELLO"])
            assert ws.subprotocol == "b"
            await ws.close()
            failure = await failure_of(connect(f"ws://127.0.0.1:{port}/", reactor=reactor))
            assert isinstance(failure, errors.UpgradeDeclined)
            assert failure.response.status == 404
            await until(lambda: not factory.connections)
        # The endpoint does not change the factory's settings, because other ports may use the same factory.
        assert factory.settings is before
        assert seen[0].timeouts == Timeouts(ping_interval=7)
        assert seen[0].origins.allowed == ("https://a.example",)

    @pytest.mark.parametrize(
        ("keys", "timeouts", "told"),
        [
            ("ping=20", Timeouts(idle=10, ping_interval=3), "idle=10 of the factory is not more than ping=20"),
            ("idle=60", Timeouts(idle=900, ping_interval=60), "idle=60 is not more than ping=60 of the factory"),
        ],
    )
    def test_settings_that_conflict_with_the_keys_are_refused(self, keys: str, timeouts: Timeouts, told: str) -> None:
        memory = MemoryReactorClock()
        endpoint = serverFromString(memory, f"beastws:tcp:1984:{keys}")
        listening = endpoint.listen(WebSocketServerFactory(WebSocketProtocol, timeouts=timeouts))
        failures: list[Any] = []
        listening.addErrback(failures.append)
        (failure,) = failures
        assert failure.type is ValueError and failure.getErrorMessage().startswith(f"beastws: {told}: ")
        assert memory.tcpServers == []

    @pytest.mark.parametrize(
        ("keys", "timeouts"),
        [
            (":ping=20", Timeouts(idle=21, ping_interval=3)),
            (":ping=20", Timeouts(idle=None)),
            (":idle=20", Timeouts()),
            (":idle=20", Timeouts(idle=10)),
            (":ping=1:idle=2", Timeouts()),
            (":ping=1", Timeouts(idle=2, ping_interval=1.5)),
        ],
    )
    def test_settings_that_fit_the_keys_are_accepted(self, keys: str, timeouts: Timeouts) -> None:
        memory = MemoryReactorClock()
        endpoint = serverFromString(memory, f"beastws:tcp:1984{keys}")
        endpoint.listen(WebSocketServerFactory(WebSocketProtocol, timeouts=timeouts))
        assert len(memory.tcpServers) == 1

    def test_the_settings_are_shared_by_the_connections(self) -> None:
        factory = WebSocketServerFactory(WebSocketProtocol)
        configured = ConfiguredFactory(factory, Keys(timeouts={"idle": None}))
        assert inside(configured.buildProtocol(None)).settings is inside(configured.buildProtocol(None)).settings
        assert inside(configured.buildProtocol(None)).settings.timeouts.idle is None
        assert inside(ConfiguredFactory(factory, Keys()).buildProtocol(None)).settings == factory.settings

    def test_a_factory_may_refuse_a_connection(self) -> None:
        class Refusing(WebSocketServerFactory):
            def buildProtocol(self, addr: Any) -> None:
                return None

        assert ConfiguredFactory(Refusing(WebSocketProtocol), Keys(target="/x")).buildProtocol(None) is None

    @pytest.mark.parametrize(("path", "status"), [("/x", b"200"), ("/y", b"404")])
    def test_the_factorys_own_answers_apply_to_the_target_alone(self, path: str, status: bytes) -> None:
        class Page(WebSocketProtocol):
            def http_requested(self, request: Any) -> Any:
                return Response(200)

        factory = WebSocketServerFactory(Page, clock=Clock())
        protocol = ConfiguredFactory(factory, Keys(target="/x")).buildProtocol(None)
        transport = StringTransport()
        protocol.makeConnection(transport)
        protocol.dataReceived(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert transport.value().split()[1] == status

    def test_a_port_has_the_methods_of_its_factory(self) -> None:
        calls: list[str] = []
        factory: Any = WebSocketServerFactory(WebSocketProtocol)
        factory.startFactory, factory.stopFactory = (lambda: calls.append("start")), (lambda: calls.append("stop"))
        configured = ConfiguredFactory(factory, Keys())
        assert verifyObject(IProtocolNegotiationFactory, configured)
        assert configured.acceptableProtocols() == [b"http/1.1"]
        assert configured.logPrefix() == "WebSocketServerFactory"
        configured.doStart()
        configured.doStop()
        assert calls == ["start", "stop"]

    def test_a_factory_with_a_target_keeps_no_connection_alive(self) -> None:
        protocol = ConfiguredFactory(TunnelFactory(Keeping(EchoStream)), Keys(target="/x")).buildProtocol(None)
        inside(protocol).server.connections.clear()
        ref = weakref.ref(protocol)
        gc.collect()
        gc.disable()
        try:
            del protocol
            assert ref() is None
        finally:
            gc.enable()


# Twisted's own protocols


class Sum(amp.Command):
    arguments = [(b"a", amp.Integer()), (b"b", amp.Integer())]  # noqa: RUF012
    response = [(b"total", amp.Integer())]  # noqa: RUF012


class Adder(amp.AMP):
    @Sum.responder
    def sum(self, a: int, b: int) -> dict[str, int]:
        return {"total": a + b}


class Named(pb.Root):
    def remote_greet(self, name: str) -> str:
        return f"hello {name}"

    def remote_call(self, other: Any) -> Any:
        return other.callRemote("back", "there")


class Back(pb.Referenceable):
    def remote_back(self, text: str) -> str:
        return f"{text} and back"


class TestOtherProtocols:
    """Protocols of Twisted and others through a tunnel."""

    @leaving_cycles
    async def test_amp_can_use_a_tunnel(self) -> None:
        async with listening(f"beastws:tcp:{LOOPBACK}", Keeping(Adder)) as port:
            client = await dial(f"ws:127.0.0.1:{port}", amp.AMP)
            answers = [await client.callRemote(Sum, a=number, b=1) for number in range(100)]
            assert [answer["total"] for answer in answers] == list(range(1, 101))
            client.transport.loseConnection()
            failure = await failure_of(client.callRemote(Sum, a=1, b=1))
            assert "closed cleanly" in str(failure)

    @leaving_cycles
    async def test_perspective_broker_can_use_a_tunnel(self) -> None:
        async with listening(f"beastws:tcp:{LOOPBACK}", pb.PBServerFactory(Named())) as port:
            factory = pb.PBClientFactory()
            broker = await clientFromString(reactor, f"ws:127.0.0.1:{port}").connect(factory)
            assert isinstance(broker, pb.Broker)
            root = await factory.getRootObject()
            assert await root.callRemote("greet", "you") == "hello you"
            assert await root.callRemote("call", Back()) == "there and back"
            lost: Deferred[None] = Deferred()
            root.notifyOnDisconnect(lambda _: lost.callback(None))
            factory.disconnect()
            await lost

    @READ_BODY
    @leaving_cycles
    async def test_http_can_use_a_tunnel(self) -> None:
        class Page(Resource):
            isLeaf = True

            def render_GET(self, request: Any) -> bytes:
                return b"%s over a tunnel, secure: %d" % (request.path, request.isSecure())

        async with listening(f"beastws:tcp:{LOOPBACK}:target=/x", Site(Page())) as port:
            endpoint = clientFromString(reactor, f"ws:127.0.0.1:{port}:target=/x")
            agent = Agent.usingEndpointFactory(reactor, Always(endpoint))
            response: Any = await agent.request(b"GET", b"http://anything.example/page")
            assert await readBody(response) == b"/page over a tunnel, secure: 0"

    @READ_BODY
    @leaving_cycles
    async def test_http_is_secure_over_tls_and_its_alpn_is_not_the_tunnels(self, certificates: Path) -> None:
        site = Site(Resource())
        seen: list[bool] = []

        def render(request: Any) -> bytes:
            seen.append(request.isSecure())
            return b""

        site.resource.render = render
        site.resource.isLeaf = True
        pem = certificates.with_name("server.pem")
        async with listening(f"beastws:ssl:{LOOPBACK}:privateKey={pem}", site) as port:
            endpoint = clientFromString(reactor, f"wss:localhost:{port}:trustRoots={certificates}")
            agent = Agent.usingEndpointFactory(reactor, Always(endpoint))
            await readBody(await agent.request(b"GET", b"http://anything.example/"))
        assert seen == [True]

    @leaving_nothing
    async def test_a_line_receiver_can_use_a_tunnel(self) -> None:
        """LineReceiver checks ``disconnecting`` between two lines."""

        class Lines(LineReceiver):
            def lineReceived(self, line: bytes) -> None:
                self.sendLine(line[::-1])
                if line == b"bye":
                    assert self.transport is not None
                    self.transport.loseConnection()

        async with listening(f"beastws:tcp:{LOOPBACK}", Keeping(Lines)) as port:
            stream = await dial(f"ws:127.0.0.1:{port}")
            stream.transport.write(b"one\r\ntwo\r\nbye\r\nlate\r\n")
            assert type(await stream.lost) is ConnectionDone
            assert stream.octets == b"eno\r\nowt\r\neyb\r\n"

    @leaving_nothing
    async def test_a_file_can_be_sent_through_a_tunnel(self) -> None:
        class Sending(Stream):
            def connectionMade(self) -> None:
                sending = FileSender().beginFileTransfer(io.BytesIO(bytes(5 << 20)), self.transport)
                sending.addCallback(lambda _: self.transport.loseConnection())

        async with listening(f"beastws:tcp:{LOOPBACK}", Keeping(Sending)) as port:
            stream = await dial(f"ws:127.0.0.1:{port}")
            assert type(await stream.lost) is ConnectionDone
            assert len(stream.octets) == 5 << 20


class Always:
    """An endpoint factory for ``Agent`` that returns the same endpoint for every URI."""

    def __init__(self, endpoint: Any) -> None:
        self.endpoint = endpoint

    def endpointForURI(self, uri: Any) -> Any:
        return self.endpoint
