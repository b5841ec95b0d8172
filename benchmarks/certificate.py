"""The servers' certificate: ECDSA on P-256, made once for each run."""

from __future__ import annotations

import atexit
import os
import tempfile
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


@cache
def certificate() -> Path:
    """Return a file with a key and its certificate; it is deleted when this process exits."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(timezone.utc)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    signed = builder.sign(key, SHA256())
    descriptor, path = tempfile.mkstemp(suffix=".pem")
    os.write(descriptor, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    os.write(descriptor, signed.public_bytes(Encoding.PEM))
    os.close(descriptor)
    atexit.register(os.unlink, path)
    return Path(path)
