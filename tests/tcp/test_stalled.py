"""A peer that reads nothing takes at most 1.5 times ``Limits.max_buffered`` plus 64 KiB, for any message size."""

from __future__ import annotations

from pathlib import Path

import pytest

from .stalled import SIZES, allowed, measure

linux = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="MEMORY IS NOT MEASURED: that takes Linux's /proc"
)


@linux
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("reactor", ["default", "uvloop"])
def test_a_stalled_reader_costs_little_more_than_max_buffered(reactor: str, secure: bool) -> None:
    max_buffered = 1 << 20
    costs = measure(reactor, secure, max_buffered=max_buffered)
    assert {size: cost for size, cost in costs.items() if cost > allowed(max_buffered)} == {}
    # The figures are plausible: the process grew by at least half of the limit.
    assert all(costs[size] > max_buffered // 2 for size in SIZES)


@linux
@pytest.mark.parametrize("reactor", ["default", "uvloop"])
def test_a_small_max_buffered_is_kept_with_empty_messages_over_tls(reactor: str) -> None:
    # Twisted's TLS keeps an object for each write of a turn; 32,000 of them took 3.6 MiB.
    max_buffered = 1 << 18
    costs = measure(reactor, True, (0,), max_buffered)
    assert costs[0] <= allowed(max_buffered)
