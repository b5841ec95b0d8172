"""The states of a connection, and the transitions between them.

Theory of operation. A `Connection` begins in ``CONNECTING``, perhaps before it has a transport. The opening handshake
takes the bytes from the transport, reads heads and answers them. When a handshake succeeds, the state becomes ``OPEN``:
from then on ``dataReceived`` is the session's ``feed``, and messages go to the hooks or to ``receive()``.

Three things move to ``CLOSING``: a close frame that we send or answer, an error, and a deadline. From then on nothing
that the application sends leaves. The connection reads and discards the peer's bytes, so that it sees the peer's end.

There is one way out. Whatever ends the connection, the transport reports that it is lost, and `Ending.lost` moves to
``CLOSED``: it fails the pending Deferreds, calls ``closed`` once if the connection was open, and removes the references
between the application, the connection and its parts, so that all of them are freed at once.

=============  ===================================================================  ==============
State          Event                                                                Next state
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

from twisted_beastws.wire.closing import CloseReason


class State(Enum):
    """Where in its life a connection is (the names of the browsers' ``readyState``)."""

    # Looking a state up in TRANSITIONS would call Enum.__hash__, which is written in Python.
    following: tuple[State, ...]

    CONNECTING = "connecting"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


TRANSITIONS: Mapping[State, tuple[State, ...]] = {
    State.CONNECTING: (State.OPEN, State.CLOSING, State.CLOSED),
    State.OPEN: (State.CLOSING, State.CLOSED),
    State.CLOSING: (State.CLOSED,),
    State.CLOSED: (),
}
for _state, _following in TRANSITIONS.items():
    _state.following = _following


class Lifecycle:
    """The state of a connection, and the account of its end: the base of `Connection`.

    Attributes:
        state: Changes only in `move`.
        ended: How the connection ended, once it has.
    """

    __slots__ = ("ended", "state")

    def __init__(self) -> None:
        self.state = State.CONNECTING
        self.ended: CloseReason | None = None

    def move(self, to: State) -> None:
        """Change the state.

        Raises:
            RuntimeError: ``to`` may not follow the present state.
        """
        if to not in self.state.following:
            raise RuntimeError(f"a connection that is {self.state.value} cannot become {to.value}")
        self.state = to
