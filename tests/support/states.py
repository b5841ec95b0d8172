"""The state of a connection, for tests that look at it more than once."""

from __future__ import annotations

from twisted_beastws import State, WebSocketProtocol


def state_of(protocol: WebSocketProtocol) -> State:
    """Return the state now: a type checker takes an attribute for unchanged between two assertions."""
    return protocol.state
