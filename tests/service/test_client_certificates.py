"""``--client-ca``: logins by certificate, over TLS."""

from __future__ import annotations

import json
import re
import signal
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.ssl import Certificate
from twisted.internet.task import Clock
from websockets.sync.client import connect

from twisted_beastws import Response, WebSocketProtocol, WebSocketServerFactory
from twisted_beastws.server.gates.login import CertificateLogin

from ..support.certificates import Authority
from ..support.patience import PATIENCE
from ..support.turns import in_turns
from ..support.waiting import await_that
from .test_twistd import UPGRADE, WELCOME, RawClient, Service, running, twistd

LISTEN = "ssl:0:interface=127.0.0.1:privateKey=key.pem"


def client_tls(directory: Path, identity: bytes | None) -> ssl.SSLContext:
    """TLS of a client that trusts every server and presents this certificate."""
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    if identity is not None:
        (directory / "client.pem").write_bytes(identity)
        tls.load_cert_chain(directory / "client.pem")
    return tls


def answer(service: Service, tls: ssl.SSLContext) -> bytes:
    """How the answer to a handshake begins; empty where TLS comes to nothing."""
    with RawClient(service, b"") as raw:
        try:
            # With TLS 1.3 the client learns only when it reads that its certificate was refused.
            with tls.wrap_socket(raw.socket) as client:
                client.sendall(UPGRADE)
                return client.recv(12)
        except (ssl.SSLError, ConnectionError):
            return b""


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    authority = Authority("ours")
    (tmp_path / "key.pem").write_bytes(authority.issue("localhost"))
    (tmp_path / "ca.pem").write_bytes(b"Some.\n" + Authority("some").pem + b"Ours.\n" + authority.pem)
    return authority


class TestService:
    """The service with ``--client-ca``, over TLS."""

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_clients_with_a_signed_certificate_are_accepted(
        self, tmp_path: Path, ours: Authority, version: ssl.TLSVersion
    ) -> None:
        answers = []
        with running(tmp_path, "--client-ca=ca.pem", "--access-log=access.log", listen=LISTEN) as service:
            for identity in (None, Authority("ours").issue("ann"), ours.issue("ann", "bob"), ours.issue("ann")):
                tls = client_tls(tmp_path, identity)
                tls.maximum_version = version
                answers.append(answer(service, tls))
            log = tmp_path / "access.log"
            await_that("the end is told", lambda: " user=ann target=/chat " in log.read_text())
            # The page shows this name, which its user did not choose.
            url = f"wss://127.0.0.1:{service.port}/chat?name=other"
            with connect(url, ssl=tls, subprotocols=["chat.v1+json"]) as client:  # type: ignore[list-item]
                welcome = json.loads(client.recv(PATIENCE))
                assert (welcome["name"], welcome["user"]) == ("ann", "ann")
        assert answers == [b"", b"", b"HTTP/1.1 403", b"HTTP/1.1 101"]
        kept_out = re.findall(r"TLS with 127\.0\.0\.1\S* failed: .*(peer did not .*|certificate .*)", service.log)
        assert kept_out == ["peer did not return a certificate", "certificate verify failed"]

    def test_the_authorities_are_read_again(self, tmp_path: Path, ours: Authority) -> None:
        others = Authority("others")
        ann, eve = client_tls(tmp_path, ours.issue("ann")), client_tls(tmp_path, others.issue("eve"))
        with running(tmp_path, "--client-ca=ca.pem", listen=LISTEN) as service:
            assert (answer(service, ann), answer(service, eve)) == (b"HTTP/1.1 101", b"")
            (tmp_path / "ca.pem").write_bytes(others.pem)
            service.terminate(signal.SIGHUP)
            await_that("they are read", lambda: f"{LISTEN}: the certificate was read again" in service.log)
            assert (answer(service, ann), answer(service, eve)) == (b"", b"HTTP/1.1 101")

    @pytest.mark.parametrize("listen", ["tcp:0", "beastws:tcp:0", "unix:socket", "stdio:"])
    def test_an_endpoint_without_tls_is_refused(self, tmp_path: Path, ours: Authority, listen: str) -> None:
        done = twistd(tmp_path, "-n", "beastws", "--client-ca=ca.pem", f"--listen={listen}")
        assert done.returncode == 1
        line = f"cannot listen on {listen}: --client-ca is for ssl: alone; give another endpoint with --listen"
        assert done.stdout.splitlines()[-1].endswith(line)

    def test_a_password_may_be_asked_for_too(self, tmp_path: Path, ours: Authority) -> None:
        arguments = ("--client-ca=ca.pem", "--auth=memory:bob:123", "--access-log=access.log")
        with running(tmp_path, *arguments, listen=LISTEN) as service:
            tls = client_tls(tmp_path, ours.issue("ann"))
            assert answer(service, tls) == b"HTTP/1.1 401"
            with connect(f"wss://bob:123@127.0.0.1:{service.port}/chat", ssl=in_turns(tls), proxy=None) as client:
                assert client.recv(PATIENCE) == WELCOME
            log = tmp_path / "access.log"
            await_that("the end is told", lambda: " user=bob target=/chat " in log.read_text())


class TestNames:
    """The user's name in a certificate."""

    @pytest.fixture
    def client(self, connect: Callable[..., Any], clock: Clock) -> Callable[..., Any]:
        """A client with these names in its certificate."""

        def client(*names: str, serves: type[WebSocketProtocol] = WebSocketProtocol) -> Any:
            pem = Authority("any").issue(*names)
            factory = WebSocketServerFactory(serves, clock=clock)
            factory.add_gate(CertificateLogin())
            peer = connect(factory=factory, opened=False)
            peer.transport.getPeerCertificate = lambda: Certificate.loadPEM(pem).original
            return peer

        return client

    @pytest.mark.parametrize(
        ("names", "status"),
        [(("ann",), 101), (("J\u00f6rg",), 101), ((), 403), (("a", "b"), 403), (("ann\nadmin",), 403)],
    )
    def test_the_name_is_the_one_common_name(
        self, client: Callable[..., Any], names: tuple[str, ...], status: int
    ) -> None:
        peer = client(*names)
        peer.sends(peer.HEAD)
        assert peer.reads().startswith(b"HTTP/1.1 %d " % status)
        assert peer.protocol.user == (names[0] if status == 101 else None)

    def test_an_unreadable_certificate_has_no_name(self, client: Callable[..., Any]) -> None:
        class Unreadable:
            def to_cryptography(self) -> Any:
                raise ValueError

        peer = client("ann")
        peer.transport.getPeerCertificate = Unreadable
        peer.sends(peer.HEAD)
        assert peer.reads().startswith(b"HTTP/1.1 403 ")

    def test_a_request_read_by_hand_has_the_name(self, client: Callable[..., Any]) -> None:
        class ByHand(WebSocketProtocol):
            def serve(self) -> None:
                self.read_request().addCallback(lambda _: self.respond(Response(200, body=f"a page for {self.user}")))

        page = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
        for names, body in ((("ann",), b"a page for ann"), ((), b"The certificate does not have one common name\n")):
            peer = client(*names, serves=ByHand)
            peer.sends(page)
            assert peer.reads().endswith(b"\r\n\r\n" + body)
