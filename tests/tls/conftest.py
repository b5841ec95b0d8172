"""A fixture that chooses the TLS path."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from twisted_beastws.tls import records


@pytest.fixture
def compiled_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Use the compiled record path, whatever the environment says; skip the test if that path was not built."""
    lacking = records.lacking()
    if lacking is not None:
        cure = "apt-get install gcc libc6-dev python3-dev, repeat pip install"
        pytest.skip(f"THE COMPILED PATH OF TLS IS NOT TESTED: {cure} ({lacking})")
    monkeypatch.setenv(records.TLS_VARIABLE, "compiled")
    records.unavailable.cache_clear()
    yield
    records.unavailable.cache_clear()
