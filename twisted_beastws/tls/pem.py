"""Certificates and keys in PEM files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from OpenSSL import SSL, crypto
from twisted.internet.ssl import Certificate, CertificateOptions, trustRootFromCertificates

_CERTIFICATE = re.compile(b"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def read_authorities(path: str) -> Any:
    """The certificates in a file, as what they have signed is trusted by. Raises ``OSError``, ``ValueError``."""
    return trustRootFromCertificates(_certificates(Path(path).read_bytes()))


def read_identity(path: str) -> dict[str, Any]:
    """A key, its certificate and those between it and the authority in a file, as ``CertificateOptions`` takes them.

    Raises ``OSError``, ``ValueError``.
    """
    pem = Path(path).read_bytes()
    own, *between = _certificates(pem)
    try:
        # Without an answer OpenSSL would ask the terminal for a password.
        key = crypto.load_privatekey(crypto.FILETYPE_PEM, pem, b"")
    except Exception as error:
        raise ValueError("there is no private key in it that can be read (PEM, without a password)") from error
    identity = {
        "privateKey": key,
        "certificate": own.original,
        "extraCertChain": [certificate.original for certificate in between],
    }
    try:
        CertificateOptions(**identity).getContext()
    except SSL.Error as error:
        why = " ".join(reason for *_, reason in error.args[0]) or "they do not fit together"
        raise ValueError(f"the private key cannot be used with the certificate, its first: {why}") from error
    return identity


def _certificates(pem: bytes) -> list[Any]:
    found = _CERTIFICATE.findall(pem)
    if not found:
        raise ValueError("there is no certificate in it (PEM)")
    try:
        return [Certificate.loadPEM(each) for each in found]
    except Exception as error:
        raise ValueError("a certificate in it cannot be read") from error
