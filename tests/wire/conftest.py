from __future__ import annotations

import pytest


@pytest.fixture(params=[True, False], ids=["server", "client"])
def server(request: pytest.FixtureRequest) -> bool:
    """The role under test."""
    return bool(request.param)
