"""Tests of `twisted_beastws.tls.pem`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from OpenSSL import SSL
from twisted.internet.ssl import CertificateOptions

from twisted_beastws.tls.pem import read_authorities, read_identity

from ..support.certificates import Authority


def verified(server: dict[str, Any], trusted: Any) -> list[str]:
    """Return the common names in the chain of a server that a client verifies with ``trusted``.

    Raises:
        SSL.Error: The client does not trust the server.
    """
    client = SSL.Connection(CertificateOptions(trustRoot=trusted).getContext(), None)
    client.set_connect_state()
    other = SSL.Connection(CertificateOptions(**server).getContext(), None)
    other.set_accept_state()
    for _ in range(4):
        for here, there in ((client, other), (other, client)):
            with suppress(SSL.WantReadError):
                here.do_handshake()
            with suppress(SSL.WantReadError):
                there.bio_write(here.bio_read(1 << 16))
    chain = client.get_peer_cert_chain()
    assert chain is not None
    return [str(certificate.get_subject().CN) for certificate in chain]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file.pem"


class TestIdentity:
    """A file with a key and its certificates."""

    def test_the_chain_of_authorities_is_read(self, file: Path, tmp_path: Path) -> None:
        root = Authority("root")
        between = Authority("between", root)
        file.write_bytes(between.issue("ann") + between.pem)
        trusted = tmp_path / "trusted.pem"
        trusted.write_bytes(Authority("somebody else").pem + root.pem)
        assert verified(read_identity(str(file)), read_authorities(str(trusted))) == ["ann", "between"]
        trusted.write_bytes(Authority("somebody else").pem)
        with pytest.raises(SSL.Error):
            verified(read_identity(str(file)), read_authorities(str(trusted)))

    def test_a_file_without_identity_is_refused(self, file: Path) -> None:
        ann, bob = Authority("ours").issue("ann"), Authority("ours").issue("bob")
        end = b"-----END PRIVATE KEY-----\n"
        key, _, certificate = ann.partition(end)
        locked = Authority("ours").key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
        )
        for pem, why in (
            (b"", "there is no certificate in it (PEM)"),
            (key + end, "there is no certificate in it (PEM)"),
            (certificate, "there is no private key in it that can be read (PEM, without a password)"),
            (locked + certificate, "there is no private key in it that can be read (PEM, without a password)"),
            (
                bob.partition(end)[0] + end + certificate,
                "the private key cannot be used with the certificate, its first: key values mismatch",
            ),
        ):
            file.write_bytes(pem)
            with pytest.raises(ValueError, match="") as caught:
                read_identity(str(file))
            assert str(caught.value) == why
        with pytest.raises(FileNotFoundError):
            read_identity(str(file.with_name("none")))


def test_a_file_without_readable_authorities_is_refused(file: Path) -> None:
    file.write_bytes(b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")
    with pytest.raises(ValueError, match=r"^a certificate in it cannot be read$"):
        read_authorities(str(file))
