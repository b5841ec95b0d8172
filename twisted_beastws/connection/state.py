"""The states of a connection, and which one may follow which.

Theory of operation. A `Connection` begins in ``CONNECTING``, when there may be no transport yet: bytes from the
transport go to the opening handshake, which reads heads and answers them. A handshake that succeeds moves to ``OPEN``:
from then on ``dataReceived`` is the session's ``feed``, and messages go to the hooks or to ``receive()``.

Three things move to ``CLOSING``: a close frame that we send or answer, an error, and a deadline. From then on nothing
that the application sends leaves, and what the peer sends is read and thrown away, so that its end is seen.

There is one way out. Whatever ends the connection, the transport reports that it is lost, and `Connection.lost` moves
to ``CLOSED``: it fails what waits, calls ``closed`` once if the connection was open, and cuts every reference between
the application, the connection and its parts, so that all of them are freed at once.

=============  ===================================================================  ==============
State          What moves on                                                        To
=============  ===================================================================  ==============
CONNECTING     the handshake succeeds                                               OPEN
CONNECTING     the handshake fails for good or times out; ``abort``, ``close``      CLOSING
OPEN           ``close``, the peer's close frame, an error, a deadline, ``abort``   CLOSING
any            the transport is lost                                                CLOSED
=============  ===================================================================  ==============
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class State(Enum):
    """Where in its life a connection is (the names of the browsers' ``readyState``)."""

    CONNECTING = "connecting"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.CONNECTING: frozenset((State.OPEN, State.CLOSING, State.CLOSED)),
    State.OPEN: frozenset((State.CLOSING, State.CLOSED)),
    State.CLOSING: frozenset((State.CLOSED,)),
    State.CLOSED: frozenset(),
}


def move(present: State, to: State) -> State:
    """Return the state ``to``.

    Raises:
        RuntimeError: ``to`` may not follow ``present``.
    """
    if to not in TRANSITIONS[present]:
        raise RuntimeError(f"a connection that is {present.value} cannot become {to.value}")
    return to
