"""A peer that reads nothing costs at most 1.5 times ``Limits.max_buffered`` and 64 KiB, whatever the messages' size."""

from __future__ import annotations

from pathlib import Path

import pytest

from twisted_beastws import Limits

from .stalled import LIMITS, SIZES, measure

linux = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="MEMORY IS NOT MEASURED: that takes Linux's /proc"
)


# Over TLS the default: Twisted's TLS gathers 64 KB of small writes, each an object, and that is no part of ours.
WAYS = {"plain": (False, 1 << 20), "tls": (True, Limits().max_buffered)}


@linux
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("reactor", ["default", "uvloop"])
def test_a_stalled_reader_costs_little_more_than_max_buffered(reactor: str, way: str) -> None:
    secure, max_buffered = WAYS[way]
    growth = measure(reactor, secure, {**LIMITS, "max_buffered": max_buffered})
    most = max_buffered * 3 // 2 + (1 << 16)
    assert {size: cost for size, cost in growth.items() if cost > most} == {}
    # What is measured is there: nothing else took its place.
    assert all(growth[size] > max_buffered // 2 for size in SIZES)
