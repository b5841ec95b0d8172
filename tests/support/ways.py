"""The transports that tests use: TCP and TLS."""

from __future__ import annotations

import pytest

BOTH_WAYS = pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
