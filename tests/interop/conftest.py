"""Fixtures that run every conversation with and without compression, over TCP and TLS."""

from __future__ import annotations

from pathlib import Path

import pytest

from twisted_beastws import Deflate

from ..support.certificates import identity_pem


@pytest.fixture(params=[None, Deflate()], ids=["plain", "deflate"])
def deflate(request: pytest.FixtureRequest) -> Deflate | None:
    options: Deflate | None = request.param
    return options


@pytest.fixture(params=[False, True], ids=["tcp", "tls"])
def secure(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a file with the certificate for ``localhost`` and its key."""
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    path.write_bytes(identity_pem())
    return path
