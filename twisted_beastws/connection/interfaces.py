"""What a connection asks of those above it: the application, the server, and who counts what happens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from twisted_beastws.wire.closing import CloseReason
    from twisted_beastws.wire.frames import Opcode
    from twisted_beastws.wire.http import Request
    from twisted_beastws.wire.session import DeflateSession, Session

H = TypeVar("H", bound=Callable[..., Any])

MESSAGE_HOOKS = ("text_received", "binary_received", "fragment_received")


def default(method: H) -> H:
    """Mark a method as the library's own, so that it shows where somebody has put another in its place."""
    method.is_default = True  # type: ignore[attr-defined]
    return method


def is_default(method: Any) -> bool:
    """Whether a method is the library's own."""
    return getattr(method, "is_default", False)


def hook_of(application: Any, name: str) -> Any:
    """Return the hook of that name if the application's class or the application itself has one, else None."""
    hook = getattr(application, name)
    return None if is_default(hook) else hook


def takes_messages(application: Any) -> bool:
    """Whether the application has a hook for messages, and so cannot take them by ``receive()``."""
    return any(hook_of(application, name) is not None for name in MESSAGE_HOOKS)


class Application(Protocol):
    """The protocol that a user has written. The connection calls its hooks and what Twisted's transports call.

    The connection binds ``dataReceived`` to what takes the bytes at present. user: whom an `Observer` may write down.
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
    """Who counts what happens on the connections of a server."""

    def session_types(
        self, plain: type[Session], deflating: type[DeflateSession]
    ) -> tuple[type[Session], type[DeflateSession]]:
        """Return what is used in place of these classes."""

    def opened(self) -> None:
        """A handshake succeeded."""

    def not_opened(self, application: Any, error: BaseException | None) -> None:
        """An ``accept`` failed."""

    def round_trip(self, seconds: float) -> None:
        """A ping was answered."""

    def read_too_slowly(self) -> None:
        """A connection is closed because its peer reads too slowly."""

    def closed(self, application: Any, session: Session, seconds: float, dropped: int) -> None:
        """A connection is gone that was open for so many seconds, and dropped so many messages."""


class Gatekeeper(Protocol):
    """The server, which decides who may connect.

    Attributes:
        refusals: how often each limit was met, by its name.
        observer: who is told what happens.
        gate: returns the `Response` to a request that is not let in, or None; a Deferred or a coroutine will do, too.
        client_of: returns the address of the client, by that of the peer and the request that a proxy passes on.
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
        """Give the place back: the connection did not open."""

    def forget(self, protocol: Any) -> None:
        """The connection is gone."""
