"""The cost of an upgrade request, counted as calls: a count does not depend on the machine, or on what else it does."""

from __future__ import annotations

import sys
from functools import partial
from itertools import pairwise
from typing import Any

import twisted_beastws
from twisted_beastws.testing import scripted_client

from ..support.calls import files_of_calls
from ..support.handshakes import upgrade_request
from ..support.protocols import Echo

MAX_CALLS = 100
"""Calls of the package's Python functions from the bytes of the request to `opened`; compiled ones do not count."""

MAX_CHANGES = 55 if twisted_beastws.ACCELERATED else 60
"""How often such a call is in another file than the one before it, which a reader of the code has to follow.

On the pure codec the calls to the codec count, too.
"""

REQUEST = upgrade_request()


class Counted(Echo):
    def opened(self) -> None:
        sys.setprofile(None)


def test_an_upgrade_request_makes_few_calls_in_few_files() -> None:
    # Some values are computed for the first connection, and kept.
    for _ in range(2):
        protocol: Any = scripted_client(Counted, opened=False).protocol
        files = files_of_calls(partial(protocol.dataReceived, REQUEST))
    changes = sum(one != other for one, other in pairwise(files))
    assert protocol.request is not None
    assert 50 < len(files) <= MAX_CALLS
    assert changes <= MAX_CHANGES
