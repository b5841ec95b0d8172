"""The certificate that the tests over TLS share.

This module imports no reactor, so a conftest may import it.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.internet.ssl import Certificate, PrivateCertificate, optionsForClientTLS


def new_identity(until: timedelta = timedelta(days=1)) -> bytes:
    """Return a new self-signed certificate for ``localhost`` and its key, as PEM; it expires at that time from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(timezone.utc)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + until)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM) + pem


@cache
def identity_pem() -> bytes:
    """Return the shared certificate and its key as PEM.

    Use this rather than ``identity().dumpPEM()``, which is not thread-safe: if two threads call it at once, OpenSSL's
    flag for a key without its curve can stay set, and later conversions of the key fail because it looks invalid.
    """
    return new_identity()


@cache
def identity() -> PrivateCertificate:
    certificate: PrivateCertificate = PrivateCertificate.loadPEM(identity_pem())
    return certificate


def trusting(host: str = "localhost") -> Any:
    """Return a client's TLS options that trust `identity`."""
    return optionsForClientTLS(host, trustRoot=Certificate.loadPEM(identity_pem()))


class Authority:
    """A certificate authority: ``issuer`` signs its certificate; without an issuer it is a root, signed by itself."""

    def __init__(self, name: str, issuer: Authority | None = None) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = subject(name)
        self.pem = (issuer or self)._sign(self.name, self.key, True)

    def issue(self, *names: str) -> bytes:
        """Return a new key and its certificate for ``localhost`` with these common names, as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return pem + self._sign(subject(*names), key, False)

    def _sign(self, name: x509.Name, key: ec.EllipticCurvePrivateKey, authority: bool) -> bytes:
        now = datetime.now(timezone.utc)
        builder = x509.CertificateBuilder(self.name, name, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(authority, None), critical=True)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        return builder.sign(self.key, SHA256()).public_bytes(Encoding.PEM)


def subject(*names: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name) for name in names])
