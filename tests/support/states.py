"""The state of a connection, for tests that check it more than once."""

from __future__ import annotations

from twisted_beastws import State, WebSocketProtocol


def state_of(protocol: WebSocketProtocol) -> State:
    """Return the current state; a type checker would assume that the attribute is the same in two assertions."""
    return protocol.state
