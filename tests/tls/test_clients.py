"""Every client of ours rejects a bad certificate before it sends any application data to the server."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
import pytest_twisted
from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import SSL4ServerEndpoint, TCP4ClientEndpoint, clientFromString
from twisted.internet.error import NoProtocol
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IOpenSSLContextFactory
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions, optionsForClientTLS
from twisted.internet.utils import getProcessOutputAndValue
from zope.interface import implementer

from twisted_beastws import Timeouts, connect
from twisted_beastws.errors import HandshakeTimeout, PeerNotVerified
from twisted_beastws.tls.endpoint import VerifiedEndpoint, tls_endpoint
from twisted_beastws.tls.unverified import UnverifiedTLS

from ..support.handshakes import field, switching
from ..support.loopback import Noting, Script, failure_of, leaving_nothing, until
from ..support.patience import PATIENCE
from .pki import BAD, FOR_CLIENTS, GOOD, HOST, Server, root, root_pem, trusted

pytestmark = pytest.mark.usefixtures("logged")

CASES = {**BAD, "a certificate for clients": FOR_CLIENTS}


@asynccontextmanager
async def listening(script: Script, server: Server) -> AsyncIterator[int]:
    port = await SSL4ServerEndpoint(reactor, 0, server.options(), interface="127.0.0.1").listen(script)
    try:
        yield port.getHost().port
        # A server that sees the end of the connection has read all the client's data.
        for connection in script.connections:
            connection.lost.addTimeout(PATIENCE, reactor)
            await connection.lost
        assert all(connection.received == b"" for connection in script.connections)
    finally:
        await port.stopListening()


def listen(factory: Any) -> Any:
    """Listen on a free port of the loopback; return the port."""
    return reactor.listenTCP(0, factory, interface="127.0.0.1")


def upgrading() -> Script:
    return Script(lambda connection, head: connection.write(switching(head)))


def loopback(port: int) -> TCP4ClientEndpoint:
    return TCP4ClientEndpoint(reactor, "127.0.0.1", port)


def bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


@pytest.fixture
def roots(tmp_path: Path) -> Path:
    """Return a directory with the trusted root, for the ``trustRoots`` of endpoint strings."""
    folder = tmp_path / "roots"
    folder.mkdir()
    (folder / "root.pem").write_bytes(root_pem())
    return folder


def trusting(host: str) -> Any:
    return optionsForClientTLS(host, trustRoot=trusted())


@implementer(IOpenSSLClientConnectionCreator)
class Lax:
    """A connection creator with a verification callback that, unlike Twisted's, accepts every certificate."""

    def __init__(self, host: str) -> None:
        self._context = CertificateOptions(trustRoot=trusted()).getContext()
        self._context.set_verify(SSL.VERIFY_PEER, lambda *_: True)

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        return SSL.Connection(self._context, None)


class TestConnect:
    """RFC 9525 §6: `connect` verifies the server's identity."""

    @pytest.mark.parametrize("case", CASES)
    @leaving_nothing
    async def test_a_bad_certificate_is_refused_before_the_request(self, case: str) -> None:
        host, make = CASES[case]
        script = upgrading()
        async with listening(script, make()) as port:
            url = f"wss://user:secret@{bracketed(host)}/"
            connecting = connect(url, protocol=Noting, endpoint=loopback(port), tls=trusting)
            assert type(await failure_of(connecting)) is PeerNotVerified

    @pytest.mark.parametrize("case", BAD)
    @leaving_nothing
    async def test_a_bad_certificate_is_refused_whatever_the_callback_said(self, case: str) -> None:
        host, make = BAD[case]
        script = upgrading()
        async with listening(script, make()) as port:
            connecting = connect(f"wss://{bracketed(host)}/", protocol=Noting, endpoint=loopback(port), tls=Lax)
            assert type(await failure_of(connecting)) is PeerNotVerified

    @pytest.mark.parametrize("case", GOOD)
    @pytest_twisted.ensureDeferred
    async def test_a_good_certificate_is_accepted(self, case: str) -> None:
        host, make = GOOD[case]
        script = upgrading()
        port = await SSL4ServerEndpoint(reactor, 0, make().options(), interface="127.0.0.1").listen(script)
        ws = await connect(f"wss://{bracketed(host)}/", endpoint=loopback(port.getHost().port), tls=trusting)
        assert len(script.requests) == 1
        ws.abort()
        await script.connections[0].lost
        await port.stopListening()

    @leaving_nothing
    async def test_a_policy_for_another_host_does_not_replace_the_urls_host(self) -> None:
        script = upgrading()
        async with listening(script, Server("other.example", signer=root())) as port:
            tls = trusting("other.example")
            connecting = connect(f"wss://{HOST}/", protocol=Noting, endpoint=loopback(port), tls=tls)
            failure = await failure_of(connecting)
            assert str(failure) == f"the certificate for {HOST} cannot be accepted: it is for other.example"

    @pytest.mark.parametrize(("host", "named"), [(HOST + ".", HOST), (HOST, HOST), ("127.0.0.1", None)])
    @pytest_twisted.ensureDeferred
    async def test_the_roots_dot_is_in_the_host_field_and_not_in_sni(self, host: str, named: str | None) -> None:
        """RFC 6066 §3."""
        names: list[bytes | None] = []
        options = Server(HOST, "IP:127.0.0.1", signer=root()).options()
        options.getContext().set_tlsext_servername_callback(lambda tls: names.append(tls.get_servername()))

        @implementer(IOpenSSLContextFactory)
        class Options:
            def getContext(self) -> Any:
                return options.getContext()

        script = upgrading()
        listens: Any = reactor
        port = listens.listenSSL(0, script, Options(), interface="127.0.0.1")
        ws = await connect(f"wss://{host}/", endpoint=loopback(port.getHost().port), tls=trusting)
        assert names == [None if named is None else named.encode()]
        assert field(script.requests[0], b"Host") == host.encode()
        ws.abort()
        await script.connections[0].lost
        await port.stopListening()

    @leaving_nothing
    async def test_a_silent_server_meets_the_handshake_timeout(self) -> None:
        factory = Factory.forProtocol(Protocol)
        factory.noisy = False
        port = listen(factory)
        endpoint = loopback(port.getHost().port)
        connecting = connect(f"wss://{HOST}/", protocol=Noting, endpoint=endpoint, timeouts=Timeouts(handshake=0.1))
        assert type(await failure_of(connecting)) is HandshakeTimeout
        await port.stopListening()

    @leaving_nothing
    async def test_unverified_tls_takes_any_certificate(self) -> None:
        script = upgrading()
        port = await SSL4ServerEndpoint(reactor, 0, Server(signer=root()).options(), interface="127.0.0.1").listen(
            script
        )
        there = loopback(port.getHost().port)
        ws = await connect(f"wss://{HOST}/", protocol=Noting, endpoint=there, tls=UnverifiedTLS)
        ws.abort()
        del ws
        await script.connections[0].lost
        await port.stopListening()

    @leaving_nothing
    async def test_an_https_proxy_is_verified_before_it_gets_the_credentials(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "root.pem").write_bytes(root_pem())
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "root.pem"))
        script = upgrading()
        async with listening(script, Server(signer=root())) as port:
            proxy = f"https://user:secret@127.0.0.1:{port}"
            assert type(await failure_of(connect("ws://h/", protocol=Noting, proxy=proxy))) is PeerNotVerified


class TestEndpointStrings:
    """RFC 9525 §6: endpoint strings for clients verify the server's identity."""

    @pytest.mark.parametrize("case", CASES)
    @pytest_twisted.ensureDeferred
    async def test_wss_refuses_a_bad_certificate_and_sends_no_request(self, case: str, roots: Path) -> None:
        host, make = CASES[case]
        script = upgrading()
        async with listening(script, make()) as port:
            written = host.replace(":", "\\:")
            there = f"endpoint=tcp\\:127.0.0.1\\:{port}"
            endpoint = clientFromString(reactor, f"wss:{written}:443:trustRoots={roots}:{there}")
            assert type(await failure_of(endpoint.connect(Factory.forProtocol(Protocol)))) is PeerNotVerified

    @pytest.mark.parametrize("inner", ["tls", "ssl"])
    @pytest.mark.parametrize("case", ["no subjectAltName", "expired", "no chain to the root"])
    @pytest_twisted.ensureDeferred
    async def test_tls_within_beastws_is_verified(self, case: str, inner: str, roots: Path) -> None:
        _, make = BAD[case]
        script = upgrading()
        async with listening(script, make()) as port:
            keys = f"trustRoots={roots}" if inner == "tls" else f"caCertsDir={roots}"
            endpoint = clientFromString(reactor, f"beastws:{inner}:127.0.0.1:{port}:{keys}")
            assert type(await failure_of(endpoint.connect(Factory.forProtocol(Protocol)))) is PeerNotVerified

    @pytest_twisted.ensureDeferred
    async def test_ssl_without_authorities_verifies_nothing_and_is_refused(self) -> None:
        script = upgrading()
        async with listening(script, Server("IP:127.0.0.1", signer=root())) as port:
            endpoint = clientFromString(reactor, f"beastws:ssl:127.0.0.1:{port}")
            failure = await failure_of(endpoint.connect(Factory.forProtocol(Protocol)))
            assert "the TLS settings of this client verify none" in str(failure)

    @pytest.mark.parametrize("host", ["", "hostname=bank.example:"])
    @pytest_twisted.ensureDeferred
    async def test_ssl_with_authorities_is_verified_by_its_host_or_hostname(self, host: str, roots: Path) -> None:
        script = upgrading()
        name = HOST if host else "IP:127.0.0.1"
        port = await SSL4ServerEndpoint(
            reactor, 0, Server(name, signer=root()).options(), interface="127.0.0.1"
        ).listen(script)
        number = port.getHost().port
        endpoint = clientFromString(reactor, f"beastws:ssl:127.0.0.1:{number}:{host}caCertsDir={roots}")
        protocol: Any = await endpoint.connect(Factory.forProtocol(Protocol))
        protocol.transport.abortConnection()
        await script.connections[0].lost
        await port.stopListening()


class TestRedis:
    """RFC 9525 §6: the backplane verifies Redis's identity before it sends the password."""

    @pytest.mark.parametrize(
        "names", [(), ("127.0.0.1",), ("IP:127.0.0.2",)], ids=["no SAN", "an address as a DNS name", "another address"]
    )
    @pytest_twisted.ensureDeferred
    async def test_the_password_does_not_leave_for_an_impostor(
        self, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, logged: Any
    ) -> None:
        pytest.importorskip("txredisapi", reason="REDIS IS NOT TESTED: pip install txredisapi hiredis")
        from twisted_beastws.hub import Hub
        from twisted_beastws.hub.redis import RedisBackplane

        (tmp_path / "root.pem").write_bytes(root_pem())
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "root.pem"))
        script = upgrading()
        async with listening(script, Server(*names, signer=root())) as port:
            hub = Hub(RedisBackplane(f"rediss://:secret@127.0.0.1:{port}", reactor=reactor))
            hub.start()
            await until(lambda: script.connections and script.connections[0].lost.called)
            await hub.stop()
        assert logged(type(None))


class TestConsole:
    """RFC 9525 §6: the client for a terminal verifies the server's identity."""

    @pytest.mark.parametrize("case", ["no subjectAltName", "an address as a DNS name, asked for by address"])
    @pytest_twisted.ensureDeferred
    async def test_the_console_shows_the_reason_and_sends_no_request(self, case: str, tmp_path: Path) -> None:
        (tmp_path / "root.pem").write_bytes(root_pem())
        _, make = BAD[case]
        script = upgrading()
        async with listening(script, make()) as port:
            command = ["-m", "twisted_beastws", f"wss://127.0.0.1:{port}", "--cacert", str(tmp_path / "root.pem")]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            running = getProcessOutputAndValue(sys.executable, [*command, "-x", "hello"], env=environment)
            out, err, status = await running.addTimeout(PATIENCE, reactor)
        assert (out, status) == (b"", 1)
        assert err.startswith(b"the certificate for 127.0.0.1 cannot be accepted: ")
        assert err.endswith(b"; --cacert trusts its authority, --insecure anybody\n")


class TestVerifiedEndpoint:
    """The endpoint that verifies, as an `IStreamClientEndpoint`."""

    @pytest_twisted.ensureDeferred
    async def test_a_transport_without_tls_is_refused(self) -> None:
        script = Script(None)
        port = listen(script)
        endpoint = VerifiedEndpoint(loopback(port.getHost().port), HOST)
        failure = await failure_of(endpoint.connect(Factory.forProtocol(Protocol)))
        assert str(failure).endswith("the connection is not TLS")
        await port.stopListening()

    @pytest.mark.parametrize("made", [None, "raises"])
    @pytest_twisted.ensureDeferred
    async def test_the_endpoint_fails_as_the_factory_does(self, made: str | None) -> None:
        class Making(Factory):
            noisy = False

            def buildProtocol(self, addr: Any) -> Any:
                return None if made is None else 1 // 0

        async with listening(Script(None), Server(HOST, signer=root())) as port:
            endpoint = tls_endpoint(loopback(port), HOST, trusting)
            failure = await failure_of(endpoint.connect(Making()))
            assert type(failure) is (NoProtocol if made is None else ZeroDivisionError)

    @pytest_twisted.ensureDeferred
    async def test_cancelling_drops_the_connection_within_the_tls_handshake(self) -> None:
        ended: Deferred[None] = Deferred()

        class Silent(Protocol):
            def connectionLost(self, reason: Any = None) -> None:
                ended.callback(None)

            def dataReceived(self, data: bytes) -> None:
                connecting.cancel()

        factory = Factory.forProtocol(Silent)
        factory.noisy = False
        port = listen(factory)
        connecting = tls_endpoint(loopback(port.getHost().port), HOST).connect(Factory.forProtocol(Protocol))
        await failure_of(connecting)
        await ended.addTimeout(PATIENCE, reactor)
        await port.stopListening()

    @pytest_twisted.ensureDeferred
    async def test_the_factory_is_started_and_stopped(self) -> None:
        class Counted(Factory):
            noisy = False
            protocol = Protocol
            calls: ClassVar[list[str]] = []

            def startFactory(self) -> None:
                self.calls.append("start")

            def stopFactory(self) -> None:
                self.calls.append("stop")

        async with listening(Script(None), Server(HOST, signer=root())) as port:
            protocol: Any = await tls_endpoint(loopback(port), HOST, trusting).connect(Counted())
            assert Counted.calls == ["start"]
            protocol.transport.loseConnection()
            await until(lambda: Counted.calls == ["start", "stop"])
