"""Tests of `twisted_beastws.tls.verification` with pyOpenSSL connections in memory."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from OpenSSL import SSL, crypto
from twisted.internet.ssl import CertificateOptions

from twisted_beastws.errors import PeerNotVerified
from twisted_beastws.tls.verification import MAX_NAME, is_address, tls_name, verify_peer

from .pki import BAD, GOOD, HOST, Server, root, trusted


def shake_hands(client: SSL.Connection, server: SSL.Connection) -> None:
    """Complete a handshake in memory; OpenSSL's exceptions pass through."""
    client.set_connect_state()
    server.set_accept_state()
    for _ in range(6):
        for one, other in ((client, server), (server, client)):
            with suppress(SSL.WantReadError):
                one.do_handshake()
            with suppress(SSL.WantReadError):
                other.bio_write(one.bio_read(1 << 16))


def connected(server: Server, context: SSL.Context, session: Any = None) -> SSL.Connection:
    """Return a client connection to ``server`` after a complete handshake."""
    client = SSL.Connection(context, None)
    if session is not None:
        client.set_session(session)
    shake_hands(client, SSL.Connection(server.options().getContext(), None))
    return client


def trusting_all() -> SSL.Context:
    """Return a context with a verification callback that accepts every certificate."""
    context = CertificateOptions(trustRoot=trusted()).getContext()
    context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
    return context


class TestVerifyPeer:
    """RFC 9525 §6: the identity in the peer's certificate."""

    @pytest.mark.parametrize("case", BAD)
    def test_a_bad_certificate_is_refused_though_the_callback_accepted_it(self, case: str) -> None:
        host, make = BAD[case]
        with pytest.raises(PeerNotVerified) as caught:
            verify_peer(connected(make(), trusting_all()), host)
        assert caught.value.host == host
        assert str(caught.value).isprintable()

    @pytest.mark.parametrize("case", GOOD)
    def test_a_good_certificate_is_accepted(self, case: str) -> None:
        host, make = GOOD[case]
        verify_peer(connected(make(), trusting_all()), host)

    @pytest.mark.parametrize(
        ("case", "why"),
        [
            ("no subjectAltName", "it has no subjectAltName that names a host"),
            ("an unparsable name", "its subjectAltName cannot be read"),
            ("an address as a DNS name", "its subjectAltName cannot be read"),
            ("another name", "it is for other.example"),
            ("another address", "it is for 127.0.0.2"),
            ("expired", "it has expired"),
            ("no chain to the root", "no authority that this client trusts has signed it"),
        ],
    )
    def test_the_error_has_the_reason(self, case: str, why: str) -> None:
        host, make = BAD[case]
        with pytest.raises(PeerNotVerified) as caught:
            verify_peer(connected(make(), trusting_all()), host)
        assert caught.value.why == why
        assert str(caught.value) == f"the certificate for {host} cannot be accepted: {why}"

    def test_the_error_shows_a_few_names_of_bounded_length(self) -> None:
        names = [f"{at}{'x' * 60}.{'y' * 60}.example" for at in range(9)]
        with pytest.raises(PeerNotVerified) as caught:
            verify_peer(connected(Server(*names, signer=root()), trusting_all()), HOST)
        shown = ", ".join(name[:MAX_NAME] for name in names[:3])
        assert caught.value.why == f"it is for {shown} and others"

    def test_a_context_that_verifies_nothing_is_refused(self) -> None:
        context = CertificateOptions(trustRoot=trusted()).getContext()
        context.set_verify(SSL.VERIFY_NONE, lambda *_: True)
        with pytest.raises(PeerNotVerified, match="this client verify none"):
            verify_peer(connected(Server(HOST, signer=root()), context), HOST)

    def test_a_handshake_that_is_not_complete_is_refused(self) -> None:
        client = SSL.Connection(trusting_all(), None)
        client.set_connect_state()
        with pytest.raises(PeerNotVerified, match="the server sent none"):
            verify_peer(client, HOST)


class TestResumption:
    """RFC 8446 §2.2: a resumed session has no certificate message, so OpenSSL does not verify the certificate again."""

    @pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
    def test_a_resumed_session_is_verified_as_well(self, version: int) -> None:
        asked: list[int] = []
        context = CertificateOptions(trustRoot=trusted()).getContext()
        context.set_max_proto_version(version)

        def verify(*_: object) -> bool:
            asked.append(1)
            return True

        context.set_verify(SSL.VERIFY_PEER, verify)
        other = Server("other.example", signer=root())
        # Twisted's own server contexts do not resume sessions.
        resuming = SSL.Context(SSL.TLS_METHOD)
        resuming.use_certificate(crypto.X509.from_cryptography(other.certificate))
        resuming.use_privatekey(crypto.PKey.from_cryptography_key(other.key))
        resuming.set_session_id(b"x")

        kept: list[SSL.Connection] = []

        def connect(session: Any) -> SSL.Connection:
            client, server = SSL.Connection(context, None), SSL.Connection(resuming, None)
            # If the server's connection is freed without a shutdown, its session is lost too.
            kept.append(server)
            if session is not None:
                client.set_session(session)
            shake_hands(client, server)
            # In TLS 1.3 the session ticket arrives after the handshake.
            with suppress(SSL.WantReadError):
                client.recv(1)
            return client

        first = connect(None)
        verify_peer(first, "other.example")
        asked.clear()
        second = connect(first.get_session())
        assert asked == [], "the session was not resumed"
        verify_peer(second, "other.example")
        with pytest.raises(PeerNotVerified, match=r"it is for other\.example"):
            verify_peer(second, HOST)


@pytest.mark.parametrize(
    ("host", "name"), [(HOST, HOST), (HOST + ".", HOST), ("127.0.0.1", "127.0.0.1"), ("::1", "::1")]
)
def test_the_name_for_tls_has_no_final_dot(host: str, name: str) -> None:
    assert tls_name(host) == name


@pytest.mark.parametrize(
    ("host", "address"), [("127.0.0.1", True), ("::1", True), (HOST, False), ("1", False), ("127.0.0.1.x", False)]
)
def test_an_address_is_not_sent_as_a_server_name(host: str, address: bool) -> None:
    assert is_address(host) is address
