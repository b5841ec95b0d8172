"""A connection from within, for tests of what no public name shows: pauses, queues, settings and the bound methods."""

from __future__ import annotations

from typing import Any

from twisted_beastws.protocol import connection_of


def inside(protocol: Any) -> Any:
    """The `Connection` of a protocol. It is no public name, and each use of it in a test is for want of one."""
    return connection_of(protocol)
