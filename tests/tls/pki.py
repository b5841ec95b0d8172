"""A private PKI: each bad certificate has exactly one fault."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from functools import cache
from ipaddress import ip_address
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID
from OpenSSL import crypto
from twisted.internet.ssl import Certificate, CertificateOptions, trustRootFromCertificates

HOST = "bank.example"
DAY = timedelta(days=1)


class Signer:
    """A certificate authority; ``issuer`` signs its certificate, and without an issuer it is a root."""

    def __init__(self, name: str, issuer: Signer | None = None) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = _named(name)
        self.certificate = (issuer or self).sign(self.name, self.key, authority=True)

    def sign(
        self,
        name: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        names: x509.ExtensionType | None = None,
        *,
        authority: bool = False,
        age: int = 0,
        usage: x509.ObjectIdentifier | None = None,
    ) -> x509.Certificate:
        """Return a certificate that is valid for two days, from ``age`` + 1 days ago."""
        now = datetime.now(timezone.utc) - age * DAY
        builder = x509.CertificateBuilder(self.name, name, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - DAY).not_valid_after(now + DAY)
        builder = builder.add_extension(x509.BasicConstraints(authority, None), critical=True)
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        return builder.sign(self.key, SHA256())


class Server:
    """A server's key, certificate and the chain that it sends."""

    def __init__(
        self,
        *names: str,
        signer: Signer,
        raw: bytes | None = None,
        chain: Sequence[Signer] = (),
        age: int = 0,
        usage: x509.ObjectIdentifier | None = None,
    ) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        alternatives = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, raw) if raw else _names(names)
        self.certificate = signer.sign(_named(HOST), self.key, alternatives, age=age, usage=usage)
        self.chain = [each.certificate for each in chain]

    def options(self) -> CertificateOptions:
        return CertificateOptions(
            privateKey=crypto.PKey.from_cryptography_key(self.key),
            certificate=crypto.X509.from_cryptography(self.certificate),
            extraCertChain=[crypto.X509.from_cryptography(each) for each in self.chain],
        )

    def pem(self) -> bytes:
        """Return the key, the certificate and the chain."""
        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return key + b"".join(each.public_bytes(Encoding.PEM) for each in (self.certificate, *self.chain))


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def _names(names: Sequence[str]) -> x509.SubjectAlternativeName | None:
    """Return a subjectAltName: ``IP:`` before an address makes an iPAddress; all else, even an address, a dNSName."""
    made: list[x509.GeneralName] = [
        x509.IPAddress(ip_address(name[3:])) if name.startswith("IP:") else x509.DNSName(name) for name in names
    ]
    return x509.SubjectAlternativeName(made) if made else None


@cache
def root() -> Signer:
    """Return the authority that the clients trust."""
    return Signer("the root")


@cache
def intermediate() -> Signer:
    return Signer("an intermediate", root())


@cache
def stranger() -> Signer:
    """Return an authority that no client trusts."""
    return Signer("a stranger")


def trusted() -> Any:
    """Return the clients' trust root."""
    return trustRootFromCertificates([Certificate.loadPEM(root_pem())])


def root_pem() -> bytes:
    return root().certificate.public_bytes(Encoding.PEM)


NO_DER = b"\x30\x82\xff\xff\x82"
"""A subjectAltName that OpenSSL cannot parse, so that it rejects the chain."""

NO_ASCII = b"\x30\x03\x82\x01\xff"
"""A subjectAltName that OpenSSL parses: a dNSName of one byte that is not ASCII."""

BAD: dict[str, tuple[str, Callable[[], Server]]] = {
    "no subjectAltName": (HOST, lambda: Server(signer=root())),
    "a subjectAltName that is no DER": (HOST, lambda: Server(signer=root(), raw=NO_DER)),
    "an unparsable name": (HOST, lambda: Server(signer=root(), raw=NO_ASCII)),
    "a subjectAltName of no names": (HOST, lambda: Server(signer=root(), raw=b"\x30\x00")),
    "an address as a DNS name": (HOST, lambda: Server("127.0.0.1", signer=root())),
    "an address as a DNS name beside the right one": (HOST, lambda: Server(HOST, "127.0.0.1", signer=root())),
    "an address as a DNS name, asked for by address": ("127.0.0.1", lambda: Server("127.0.0.1", signer=root())),
    "another name": (HOST, lambda: Server("other.example", signer=root())),
    "the name's end": (HOST, lambda: Server("example", signer=root())),
    "a name below it": (HOST, lambda: Server("www." + HOST, signer=root())),
    "a wildcard a level above": ("a.b.bank.example", lambda: Server("*.bank.example", signer=root())),
    "a wildcard for its own domain": (HOST, lambda: Server("*.bank.example", signer=root())),
    "a wildcard for a whole domain": (HOST, lambda: Server("*", signer=root())),
    "a wildcard within a label": (HOST, lambda: Server("b*.example", signer=root())),
    "another address": ("127.0.0.1", lambda: Server("IP:127.0.0.2", signer=root())),
    "a name, asked for by address": ("127.0.0.1", lambda: Server(HOST, "localhost", signer=root())),
    "an address, asked for by name": (HOST, lambda: Server("IP:127.0.0.1", signer=root())),
    "another IPv6 address": ("::1", lambda: Server("IP:::2", signer=root())),
    "expired": (HOST, lambda: Server(HOST, signer=root(), age=5)),
    "not valid yet": (HOST, lambda: Server(HOST, signer=root(), age=-5)),
    "no chain to the root": (HOST, lambda: Server(HOST, signer=intermediate())),
    "an unknown authority": (HOST, lambda: Server(HOST, signer=stranger())),
    "an unknown authority, sent along": (HOST, lambda: Server(HOST, signer=stranger(), chain=[stranger()])),
}

FOR_CLIENTS = (HOST, lambda: Server(HOST, signer=root(), usage=ExtendedKeyUsageOID.CLIENT_AUTH))
"""A certificate that is not for servers: OpenSSL rejects it during the handshake."""

GOOD: dict[str, tuple[str, Callable[[], Server]]] = {
    "its name": (HOST, lambda: Server(HOST, signer=root())),
    "its name in capitals": (HOST, lambda: Server(HOST.upper(), signer=root())),
    "its name among others": (HOST, lambda: Server("other.example", HOST, "IP:127.0.0.9", signer=root())),
    "its name with the root's dot in the URL": (HOST + ".", lambda: Server(HOST, signer=root())),
    "a wildcard": ("www.bank.example", lambda: Server("*.bank.example", signer=root())),
    "its address": ("127.0.0.1", lambda: Server("IP:127.0.0.1", signer=root())),
    "its IPv6 address": ("::1", lambda: Server("IP:::1", signer=root())),
    "an intermediate authority": (HOST, lambda: Server(HOST, signer=intermediate(), chain=[intermediate()])),
}
