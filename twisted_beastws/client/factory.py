"""`WebSocketClientFactory`: clients that a program connects and opens by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import isclass
from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import Factory

from twisted_beastws.budget import MemoryBudget
from twisted_beastws.options import Decorator, Deflate, Limits, Settings, Timeouts, check_clock, kind_of
from twisted_beastws.protocol import WebSocketProtocol

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IReactorTime


class WebSocketClientFactory(Factory):
    """Makes the client's end of connections, for any endpoint or transport.

    The program calls `WebSocketProtocol.handshake` when the connection is made. `connect` and
    `WebSocketClientEndpoint` do that themselves, and have options of their own, which replace those of this factory.

    Args:
        protocol: A `WebSocketProtocol` subclass, or any callable that makes one.
        decorator: Gets each `Request` before it is sent, and may add fields; may be a coroutine function.
        subprotocols: The subprotocols to offer, the preferred one first.
        timeouts: See `Timeouts`.
        limits: See `Limits`.
        deflate: The compression to offer; None, the default, offers none.
        clock: An ``IReactorTime``; None is the installed reactor.
        budget: A `MemoryBudget` that all factories of the process share; None is no bound on their sum.

    Raises:
        TypeError: An argument is of another type.
        ValueError: An argument has a value that is not allowed.
    """

    noisy = False

    def __init__(
        self,
        protocol: Callable[[], WebSocketProtocol] = WebSocketProtocol,
        *,
        decorator: Decorator | None = None,
        subprotocols: Sequence[str] = (),
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        deflate: Deflate | None = None,
        clock: IReactorTime | None = None,
        budget: MemoryBudget | None = None,
    ) -> None:
        if not callable(protocol) or (isclass(protocol) and not issubclass(protocol, WebSocketProtocol)):
            raise TypeError(
                f"protocol: give a subclass of WebSocketProtocol, or a callable that makes one, not {kind_of(protocol)}"
            )
        check_clock(clock)
        self._make = protocol
        self.settings = Settings(
            decorator=decorator,
            subprotocols=subprotocols,
            timeouts=timeouts or Timeouts(),
            limits=limits or Limits(),
            deflate=deflate,
            clock=clock,
            budget=budget,
        )

    def buildProtocol(self, addr: IAddress | None) -> WebSocketProtocol:
        protocol: Any = self._make()
        if not isinstance(protocol, WebSocketProtocol):
            raise TypeError(f"protocol: it made {kind_of(protocol)}, not a WebSocketProtocol")
        protocol.factory = self
        return protocol.as_client(self.settings)
