"""Access to a connection's private state (pauses, queues, settings, bound methods), which no public name shows."""

from __future__ import annotations

from typing import Any

from twisted_beastws.protocol import connection_of


def inside(protocol: Any) -> Any:
    """Return a protocol's `Connection`, which is private: use it only where no public name shows the same."""
    return connection_of(protocol)
