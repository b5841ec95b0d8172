"""Certificates and keys in PEM files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from OpenSSL import SSL, crypto
from twisted.internet.ssl import Certificate, CertificateOptions, trustRootFromCertificates

_CERTIFICATE = re.compile(b"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def read_authorities(path: str) -> Any:
    """Return a trust root that trusts the authorities in a file.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file has no certificate, or one that cannot be read.
    """
    return trustRootFromCertificates(_certificates(Path(path).read_bytes()))


def read_identity(path: str) -> dict[str, Any]:
    """Return the key, its certificate and the intermediate certificates in a file.

    Returns:
        Arguments for ``CertificateOptions``.

    Raises:
        OSError: The file cannot be read.
        ValueError: A key or certificate is missing or cannot be read, or they do not match.
    """
    pem = Path(path).read_bytes()
    own, *between = _certificates(pem)
    try:
        # Give an empty password; otherwise OpenSSL would ask for one on the terminal.
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
