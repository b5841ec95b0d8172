"""Every conversation is held plain and compressed, over TCP and TLS."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from twisted_beastws import Deflate

from ..certificates import identity


@pytest.fixture(params=[None, Deflate()], ids=["plain", "deflate"])
def deflate(request: pytest.FixtureRequest) -> Deflate | None:
    return request.param


@pytest.fixture(params=[False, True], ids=["tcp", "tls"])
def secure(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The certificate for ``localhost`` in a file."""
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    path.write_bytes(identity().dumpPEM())
    return path


@pytest.fixture(scope="session")
def certificate_and_key(certificate: Path) -> Path:
    key = identity().privateKey.original.to_cryptography_key()
    path = certificate.with_name("certificate_and_key.pem")
    path.write_bytes(certificate.read_bytes() + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path
