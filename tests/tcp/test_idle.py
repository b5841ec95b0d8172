"""An idle connection takes at most 4 KiB, and 5 KiB on the uvloop reactor."""

from __future__ import annotations

import sys

import pytest

from twisted_beastws import ACCELERATED

from .idle import measure

MOST = {"default": 4 << 10, "uvloop": 5 << 10}

TOLERANCE = 1.0 if ACCELERATED and sys.version_info[:2] == (3, 11) else 1.25
"""Objects of the pure codec, and of other versions of Python, are larger."""


@pytest.mark.parametrize("reactor", MOST)
def test_an_idle_connection_takes_little_memory(reactor: str) -> None:
    taken = measure(reactor)
    # The figure is plausible: it has the objects of a connection in it.
    assert 2048 < taken <= TOLERANCE * MOST[reactor]
