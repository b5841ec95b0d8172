"""The interfaces of the objects above a connection, and of the connection as its parts see it.

`Application` is the user's protocol, `Gatekeeper` the server, and `Observer` counts for the server. `HandshakeHost` and
`DeliveryHost` are the connection as its handshake and its delivery see it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IAddress
    from twisted.python.failure import Failure

    from twisted_beastws.connection.accepted import Accepted
    from twisted_beastws.options import Settings
    from twisted_beastws.wire.closing import CloseReason
    from twisted_beastws.wire.frames import Opcode
    from twisted_beastws.wire.http import Request
    from twisted_beastws.wire.session import Session


class Application(Protocol):
    """The user's protocol. The connection calls its hooks, and the methods that Twisted defines.

    The connection binds ``dataReceived`` to the function that takes the bytes at present.

    Attributes:
        user: The user's name or account, for an `Observer`.
    """

    user: Any

    def dataReceived(self, data: bytes) -> None: ...

    def http_requested(self, request: Request) -> Any: ...

    def upgrade_requested(self, request: Request) -> Any: ...

    def opened(self) -> Any: ...

    def text_received(self, text: str) -> Any: ...

    def binary_received(self, data: bytes) -> Any: ...

    def fragment_received(self, data: bytes, opcode: Opcode, final: bool) -> Any: ...

    def ping_received(self, payload: bytes) -> Any: ...

    def pong_received(self, payload: bytes) -> Any: ...

    def closed(self, reason: CloseReason) -> Any: ...

    def connectionLost(self, reason: Any) -> None: ...

    def readConnectionLost(self) -> None: ...

    def writeConnectionLost(self) -> None: ...


class Observer(Protocol):
    """Counts the events on the connections of a server."""

    def opened(self, session: Session) -> None:
        """A handshake succeeded. The observer may wrap the session's hooks and its sender before any is used."""

    def not_opened(self, application: Any, error: BaseException | None) -> None:
        """An ``accept`` failed."""

    def round_trip(self, seconds: float) -> None:
        """A ping was answered."""

    def read_too_slowly(self) -> None:
        """A connection is closed because its peer reads too slowly."""

    def closed(self, application: Any, session: Session, seconds: float, dropped: int) -> None:
        """A connection ended that was open for ``seconds``, and dropped that many messages."""


class Gatekeeper(Protocol):
    """The server, which decides which clients may connect.

    Attributes:
        refusals: How often each limit was met, by its name.
        observer: Counts the events, or None.
        gate: Returns None to let a request in, or the `Response` that refuses it. It may return a Deferred or be a
            coroutine function.
        client_of: Returns the address of the client, given the address of the peer and the request that a proxy
            forwards.
    """

    observer: Observer | None
    gate: Callable[[Any, Request], Any] | None
    client_of: Callable[[Any, Request], Any] | None

    @property
    def refusals(self) -> Counter[str]: ...

    def count_request(self, protocol: Any) -> None:
        """Count a request; raise a `HandshakeError` if there are too many."""

    def admit(self, protocol: Any) -> None:
        """Count a connection that is about to open; raise a `HandshakeError` if there is no place."""

    def dismiss(self, protocol: Any) -> None:
        """Release the place: the connection did not open."""

    def forget(self, protocol: Any) -> None:
        """The connection is gone."""


class Described(Protocol):
    """A connection, as log lines name it."""

    @property
    def connection_id(self) -> int: ...

    @property
    def peer(self) -> IAddress | None: ...


class HandshakeHost(Described, Protocol):
    """The connection as its opening handshake sees it: settings, the objects above it, and a way to answer.

    Attributes:
        settings: The options of the connection.
        application: The `Application`; the handshake calls its hooks.
        server: Decides who may connect, or None.
    """

    settings: Settings
    application: Any
    server: Gatekeeper | None

    @property
    def connecting(self) -> bool:
        """Whether the handshake may continue: the connection is neither open nor about to end."""

    @property
    def over_tls(self) -> bool:
        """The connection is TLS that ends in this process."""

    def request_read(self, request: Request | None) -> None:
        """Note the request that the handshake judges from now on, or None."""

    def propose(self, subprotocol: str | None) -> None:
        """Show the application this subprotocol, which its `upgrade_requested` may replace."""

    @property
    def chosen_subprotocol(self) -> str | None:
        """The subprotocol that `propose` showed, or the one that the application put in its place."""

    def send(self, data: bytes) -> None:
        """Send a request, or an answer."""

    def drain(self) -> Deferred[None]:
        """Return a Deferred that fires when the peer has taken most of the bytes sent."""

    def expect_handshake(self) -> None:
        """Restart the time limit of the handshake."""

    def expect_request(self) -> None:
        """Start the time limit of an idle connection that HTTP keeps."""

    def hold_reading(self, hold: bool) -> None:
        """Pause reading from the transport, or resume it."""

    def now(self) -> float:
        """Return the time of the clock, in seconds."""

    def next_turn(self) -> Deferred[None]:
        """Return a Deferred that fires in the reactor's next turn."""

    def accepted(self, accepted: Accepted) -> None:
        """Open the connection."""

    def settle(self) -> None:
        """If the connection is open, pass it the bytes that followed the handshake."""

    def settle_soon(self) -> None:
        """Call `settle` in the reactor's next turn, or at once if no bytes wait."""

    def move_to(self, transport: Any, answer: bytes) -> bool:
        """Leave the transport of the handshake for ``transport``, and send ``answer`` there first.

        Returns whether it is a plain TCP or UNIX transport, with two directions that end one after the other.
        """

    def let_go(self) -> None:
        """The transport's owner, twisted.web, answered the request and keeps its connection."""

    def tear_down(self) -> None:
        """End TCP after the bytes sent so far."""

    def abort(self) -> None:
        """Drop the connection now."""


class DeliveryHost(Described, Protocol):
    """The connection as its delivery sees it."""

    @property
    def settings(self) -> Settings: ...

    @property
    def session(self) -> Session | None: ...

    def require_session(self) -> Session:
        """Return the session; raise if there is none."""

    def hold_reading(self, hold: bool) -> None:
        """Pause reading from the transport, or resume it."""

    def count_received(self) -> None:
        """Count the received bytes that the application has not taken."""

    def hook_failed_with(self, failure: Failure) -> None:
        """A hook's Deferred failed."""

    def messages_delivered(self) -> bool:
        """The last pending hook is done. Return whether the connection has ended, and is finished now."""
