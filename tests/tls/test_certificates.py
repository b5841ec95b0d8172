"""Endpoints that read their certificates again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet.interfaces import IReactorTCP, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactor
from zope.interface.verify import verifyObject

from twisted_beastws.service import Options
from twisted_beastws.tls.certificates import ReloadableEndpoint
from twisted_beastws.tls.validity import why_invalid_now

from ..support import command_line
from ..support.certificates import new_identity
from ..support.log import logged_lines, of_the_service
from .pki import Server, root


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key.pem"
    path.write_bytes(new_identity())
    return path


@pytest.fixture
def lines() -> Iterator[list[str]]:
    with logged_lines(of_the_service) as lines:
        yield lines


def key_alone(both: bytes) -> bytes:
    return both[both.index(b"-----BEGIN PRIVATE") :]


def certificate_alone(both: bytes) -> bytes:
    return both[: both.index(b"-----BEGIN PRIVATE")]


def listens(reactor: MemoryReactor, description: str) -> tuple[ReloadableEndpoint, Callable[[], Any]]:
    """The endpoint, and what gives the context of its next connection."""
    endpoint = ReloadableEndpoint(reactor, description)
    failures: list[Any] = []
    endpoint.listen(Factory()).addErrback(failures.append)
    assert failures == []
    context_factory = reactor.sslServers[-1][2]
    return endpoint, context_factory.getContext


def encrypted(both: bytes, form: PrivateFormat) -> bytes:
    """The same with a passphrase."""
    read = load_pem_private_key(key_alone(both), None)
    return certificate_alone(both) + read.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"secret"))


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
class TestEncryptedKeys:
    """Keys that a password protects."""

    def test_an_encrypted_key_is_refused_and_the_old_one_is_kept(
        self, key: Path, lines: list[str], form: PrivateFormat
    ) -> None:
        endpoint, context = listens(MemoryReactor(), f"ssl:8443:privateKey={key}")
        before = context()
        key.write_bytes(encrypted(key.read_bytes(), form))
        assert endpoint.reload() is False
        assert context() is before
        (line,) = lines
        assert f"the certificate stays as it was: the private key in {key} is encrypted" in line

    @pytest.mark.parametrize("kind", ["ssl", "haproxy:ssl"])
    def test_an_encrypted_key_is_an_error_of_one_line_at_the_start(
        self, key: Path, form: PrivateFormat, kind: str
    ) -> None:
        key.write_bytes(encrypted(key.read_bytes(), form))
        with pytest.raises(ValueError, match="is encrypted: nobody can be asked"):
            ReloadableEndpoint(MemoryReactor(), f"{kind}:8443:privateKey={key}")
        description = f"{kind}:8443:privateKey={key}"
        told = command_line.refusal(Options, f"--listen={description}")
        assert told.startswith(f"--listen={description}: the private key in {key} is encrypted: ")


class TestCiphers:
    """RFC 9325 §4.2: the cipher suites of TLS 1.2."""

    @pytest.mark.parametrize("kind", ["ssl", "haproxy:ssl"])
    @pytest.mark.parametrize("read_again", [False, True])
    def test_all_ciphers_have_forward_secrecy_and_authentication(
        self, key: Path, lines: list[str], kind: str, read_again: bool
    ) -> None:
        endpoint, context = listens(MemoryReactor(), f"{kind}:8443:privateKey={key}")
        if read_again:
            endpoint.reload()
        offered = SSL.Connection(context(), None).get_cipher_list()
        assert "ECDHE-ECDSA-AES128-GCM-SHA256" in offered and "ECDHE-RSA-CHACHA20-POLY1305" in offered
        for name in offered:
            assert name.startswith(("TLS_", "ECDHE-", "DHE-")), name
            assert "GCM" in name or "CHACHA20" in name, name


class TestValidity:
    """The period in which a certificate is valid."""

    @pytest.mark.parametrize(("age", "why"), [(5, "it expired on "), (-5, "it is valid only from ")])
    @pytest.mark.parametrize("kind", ["ssl", "haproxy:ssl"])
    def test_a_certificate_that_is_not_valid_now_is_not_reloaded(
        self, key: Path, lines: list[str], kind: str, age: int, why: str
    ) -> None:
        endpoint, context = listens(MemoryReactor(), f"{kind}:8443:privateKey={key}")
        before = context()
        key.write_bytes(Server("localhost", signer=root(), age=age).pem())
        assert endpoint.reload() is False
        assert context() is before
        (line,) = lines
        assert f"the certificate stays as it was: clients refuse the new one: {why}" in line
        assert line.endswith((" UTC", " UTC on"))

    def test_a_certificate_that_is_not_valid_at_the_start_is_served_with_a_warning(
        self, key: Path, lines: list[str]
    ) -> None:
        key.write_bytes(Server("localhost", signer=root(), age=5).pem())
        listens(MemoryReactor(), f"ssl:8443:privateKey={key}")
        (line,) = lines
        assert line.startswith("ssl: on port 8443 has a certificate that clients refuse: it expired on ")

    @pytest.mark.parametrize(
        ("seconds", "why"),
        [
            (-2 * 86400, "it is valid only from "),
            (0, None),
            (2 * 86400, "it expired on "),
        ],
    )
    def test_the_validity_is_exact_to_the_second(self, seconds: int, why: str | None) -> None:
        certificate = X509.from_cryptography(Server("localhost", signer=root()).certificate)
        told = why_invalid_now(certificate, datetime.now(timezone.utc) + timedelta(seconds=seconds))
        assert told is None if why is None else str(told).startswith(why)


class TestReload:
    """Certificates that are read again."""

    @pytest.mark.parametrize("kind", ["ssl:8443", "haproxy:ssl:8443"])
    def test_later_connections_have_the_new_certificate(self, key: Path, lines: list[str], kind: str) -> None:
        endpoint, context = listens(MemoryReactor(), f"{kind}:privateKey={key}")
        before = context()
        endpoint.reload()
        assert context() is not before
        assert lines == [f"{kind}:privateKey={key}: the certificate was read again"]

    def test_an_unreadable_certificate_leaves_the_old_one(self, key: Path, lines: list[str]) -> None:
        endpoint, context = listens(MemoryReactor(), f"ssl:8443:privateKey={key}")
        before = context()
        for broken in (b"", new_identity()[:-200], None):
            if broken is None:
                key.unlink()
            else:
                key.write_bytes(broken)
            endpoint.reload()
            assert context() is before
        assert len(lines) == 3
        assert all(": the certificate stays as it was: " in line for line in lines)

    def test_a_key_that_does_not_fit_leaves_the_old_one(self, key: Path, lines: list[str], tmp_path: Path) -> None:
        certificate = tmp_path / "certificate.pem"
        certificate.write_bytes(certificate_alone(key.read_bytes()))
        key.write_bytes(key_alone(key.read_bytes()))
        endpoint, context = listens(MemoryReactor(), f"ssl:8443:privateKey={key}:certKey={certificate}")
        before = context()
        key.write_bytes(key_alone(new_identity()))
        endpoint.reload()
        assert context() is before
        assert "the certificate stays as it was" in lines[0]

    def test_a_reload_without_tls_does_nothing(self, lines: list[str]) -> None:
        reactor = MemoryReactor()
        endpoint = ReloadableEndpoint(reactor, "tcp:1984")
        endpoint.listen(Factory())
        endpoint.reload()
        assert len(reactor.tcpServers) == 1
        assert lines == []


class TestListening:
    """The endpoint as an `IStreamServerEndpoint`."""

    def test_the_endpoint_provides_its_interface(self) -> None:
        reactor = MemoryReactor()
        endpoint = ReloadableEndpoint(reactor, "tcp:1984:interface=127.0.0.1")
        assert verifyObject(IStreamServerEndpoint, endpoint)
        # The endpoint below gets this reactor, which must provide what Twisted's own does.
        assert IReactorTCP.providedBy(endpoint._reactor)
        endpoint.listen(Factory())
        assert reactor.tcpServers[0][0] == 1984
