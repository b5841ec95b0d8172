"""The guarantees of rooms, over random histories of a simulated Redis."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from .histories import decoded, run


def histories(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--histories"))


def test_each_acknowledged_message_comes_once_in_order_or_a_gap_is_reported(request: pytest.FixtureRequest) -> None:
    @settings(
        max_examples=histories(request),
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(st.binary(max_size=160), st.sampled_from([100, 100, 5, 0]))
    def check(choices: bytes, history: int) -> None:
        steps = decoded(choices)
        note(f"run({steps}, history={history})")
        run(steps, history=history)

    check()
