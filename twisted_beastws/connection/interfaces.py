"""The interfaces of the objects above a connection: its only view upward.

`Application` is the user's protocol, and `Gatekeeper` the server.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from twisted_beastws.wire.closing import CloseReason
    from twisted_beastws.wire.frames import Opcode
    from twisted_beastws.wire.http import Request


class Application(Protocol):
    """The user's protocol. The connection calls its hooks, and the methods that Twisted defines.

    The connection binds ``dataReceived`` to the function that takes the bytes at present.

    Attributes:
        user: The user's name or account, for observers.
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


class Gatekeeper(Protocol):
    """The server, which decides which clients may connect.

    Attributes:
        refusals: How often each limit was met, by its name.
        gate: Returns None to let a request in, or the `Response` to it. It may return a Deferred or be a coroutine
            function. Its arguments are the request and the `Application`.
        client_of: Returns the address of the client, given the address of the peer and the request that a proxy
            forwards.
    """

    gate: Callable[[Request, Any], Any] | None
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
