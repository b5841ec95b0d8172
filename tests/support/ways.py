"""The ways on which octets travel."""

from __future__ import annotations

import pytest

BOTH_WAYS = pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
