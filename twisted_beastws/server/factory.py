"""`WebSocketServerFactory`: what all connections of a server share, which of them live, and how they are sent home."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from inspect import isasyncgenfunction, isclass, iscoroutinefunction, isgeneratorfunction, isroutine, signature, unwrap
from typing import TYPE_CHECKING, Any, TypeGuard, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolNegotiationFactory
from twisted.internet.protocol import Factory
from zope.interface import implementer

from twisted_beastws.budget import MemoryBudget
from twisted_beastws.clock import seconds_of
from twisted_beastws.connection.awaiting import TaskCancelled
from twisted_beastws.connection.running import run
from twisted_beastws.errors import ConnectionClosed, TooManyConnections
from twisted_beastws.options import Decorator, Deflate, Limits, Origins, Settings, Timeouts, check_clock, kind_of
from twisted_beastws.protocol import State, WebSocketProtocol, connection_of
from twisted_beastws.server.admission import Admission
from twisted_beastws.server.draining import Drain
from twisted_beastws.wire.closing import CloseCode

if TYPE_CHECKING:
    from collections import Counter

    from twisted.internet.interfaces import IAddress, IReactorTime
    from twisted.python.failure import Failure

    from twisted_beastws.connection.interfaces import Observer
    from twisted_beastws.wire.http import Request

Handler = Callable[[WebSocketProtocol], "Coroutine[Any, Any, Any] | Deferred[Any]"]


BARE_GENERATOR = "a generator function: put @inlineCallbacks over it, or make it a coroutine function (async def)"
"""What is served by neither: its body would never run."""


class HandlerProtocol(WebSocketProtocol):
    """Runs a handler on its connection, which closes with 1000 when that returns and 1011 when it raises."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler

    def opened(self) -> Deferred[Any]:
        running = self.handler(self)
        if not isinstance(running, Deferred):
            running = run(running)
        return running.addErrback(self._handler_stopped).addCallback(self._handler_returned)

    def _handler_stopped(self, failure: Failure) -> None:
        # A handler need not catch the end of its own connection, nor that of another one which it uses.
        cancelled = failure.trap(ConnectionClosed, TaskCancelled) is TaskCancelled
        failure.cleanFailure()
        if cancelled and self.state is State.OPEN:
            self.close(CloseCode.GOING_AWAY)

    def _handler_returned(self, result: object) -> None:
        connection = connection_of(self)
        connection.log_unconsumed(self)
        if self.state is State.OPEN:
            self.close()


@implementer(IProtocolNegotiationFactory)
class WebSocketServerFactory(Factory):
    """Makes the protocols of a server.

    protocol_or_coroutine: a `WebSocketProtocol` subclass (or any callable that makes one), or a coroutine function that
        gets each open connection: ``async def echo(ws): async for message in ws: ws.send(message)``. A generator
        function in ``inlineCallbacks`` serves as well.
    decorator: gets each HTTP `Response` before it is sent, failures too; may be a coroutine function.
    subprotocols: those spoken here, the preferred first; ``*`` is any that the client offers.
    origins: whose web pages may connect; default: this site's own.
    timeouts, limits: see `Timeouts` and `Limits`.
    deflate: how messages are compressed for a client that offers it; None, the default, is never.
    clock: an ``IReactorTime``; None is the installed reactor.
    budget: a `MemoryBudget` that all factories of the process share; None, the default, is no bound on their sum.

    connections: the live connections, open or not yet.
    make: what makes each protocol; another may be put in its place before the first connection.
    admission: counts connections and requests by peer.
    observer, gate, client_of: see `twisted_beastws.connection.interfaces.Gatekeeper`; for the service.
    """

    noisy = False

    def __init__(
        self,
        protocol_or_coroutine: Callable[[], WebSocketProtocol] | Handler,
        *,
        decorator: Decorator | None = None,
        subprotocols: Sequence[str] = (),
        origins: Origins | None = None,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        deflate: Deflate | None = None,
        clock: IReactorTime | None = None,
        budget: MemoryBudget | None = None,
    ) -> None:
        self.make = _maker(protocol_or_coroutine)
        check_clock(clock)
        self.settings = Settings(
            decorator=decorator,
            subprotocols=subprotocols,
            origins=origins or Origins(),
            timeouts=timeouts or Timeouts(),
            limits=limits or Limits(),
            deflate=deflate,
            clock=clock,
            budget=budget,
        )
        self.connections: set[WebSocketProtocol] = set()
        self.admission = Admission(lambda: seconds_of(self._clock())(), lambda call: self._clock().callLater(0, call))
        self.observer: Observer | None = None
        self.gate: Callable[[Any, Request], Any] | None = None
        self.client_of: Callable[[Any, Request], Any] | None = None
        self._drain: Drain | None = None
        self._site: Any = None
        pages = getattr(self.make, "pages", None)
        if pages is not None:
            self.serve_pages(pages(self))

    def acceptableProtocols(self) -> list[bytes]:
        """What TLS may agree on (``IProtocolNegotiationFactory``)."""
        # RFC 7301 §3.2: no protocol in common ends the handshake, and browsers offer this one.
        return [b"http/1.1"]

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return self.build(addr) if self._site is None else self._site.buildProtocol(addr)

    def serve_pages(self, site: Any) -> None:
        """Let a site of twisted.web read the connections; it calls `build` for each request of a WebSocket."""
        self._site = site

    def build(self, addr: IAddress | None) -> WebSocketProtocol:
        """Make the protocol of a WebSocket, also where a `Router` has twisted.web read the connections."""
        protocol = self.make()
        if not isinstance(protocol, WebSocketProtocol):
            raise TypeError(f"make() gave {kind_of(protocol)}, not a WebSocketProtocol")
        protocol.factory = self
        connection = connection_of(protocol)
        connection.server = self
        connection.settings = self.settings
        self.connections.add(protocol)
        self.admission.arrive(protocol, self.settings.limits, addr)
        return protocol

    @property
    def refusals(self) -> Counter[str]:
        """How often a limit of connections or rates was met, by its name among `Limits`."""
        return self.admission.refusals

    def identify(self, protocol: WebSocketProtocol, address: IAddress | None) -> None:
        """Count an opening connection as that of the client at ``address``, which its proxy has forwarded.

        With None the proxy has forwarded no address yet, and the limits for one peer do not apply.
        """
        self.admission.identify(protocol, self.settings.limits, address)

    def count_request(self, protocol: WebSocketProtocol) -> None:
        """Count a request; raises a `HandshakeError` (429 or 503) beyond the limits."""
        self.admission.count_request(protocol, self.settings.limits)

    def admit(self, protocol: WebSocketProtocol) -> None:
        """Count a connection that is about to open; raises `TooManyConnections` (503) beyond the limits or in a
        drain."""
        if self.draining:
            raise TooManyConnections("The server is shutting down")
        self.admission.admit(protocol, self.settings.limits)

    def dismiss(self, protocol: WebSocketProtocol) -> None:
        """A connection does not count any more: it did not open."""
        self.admission.dismiss(protocol, self.settings.limits)

    def forget(self, protocol: WebSocketProtocol) -> None:
        """A connection is gone."""
        self.connections.discard(protocol)
        self.admission.forget(protocol)
        if self._drain is not None:
            self._drain.forget(protocol)

    @property
    def draining(self) -> bool:
        """`drain` was called: nobody opens any more."""
        return self._drain is not None

    def drain(
        self,
        code: int = CloseCode.GOING_AWAY,
        reason: str = "the server is shutting down",
        *,
        seconds: float | None = None,
    ) -> Deferred[None]:
        """Close every connection with ``code``; those not open yet are dropped, new handshakes answered 503.

        seconds: until all are gone. The open ones are told one after the other over the first half, no more than 10 ms
            between two; those without a WebSocket are dropped behind them, half a second from now at the earliest; what
            is left at the end is aborted. None tells all at once, and ``Timeouts.close`` bounds each.

        Fires when all that are there now are gone; cancelling it does no harm. Called again it begins anew with those
        that are left. The factory serves nobody after it.
        """
        if self._drain is None:
            self._drain = Drain(self._clock())
        return self._drain.begin(self.connections, code, reason, seconds)

    def abort(self) -> None:
        """Drop every connection now, with nothing sent."""
        for protocol in list(self.connections):
            protocol.abort()

    def _clock(self) -> IReactorTime:
        if self.settings.clock is not None:
            return self.settings.clock
        from twisted.internet import reactor

        return cast("IReactorTime", reactor)


def _maker(protocol_or_coroutine: Any) -> Callable[[], WebSocketProtocol]:
    other_class = isclass(protocol_or_coroutine) and not issubclass(protocol_or_coroutine, WebSocketProtocol)
    if other_class or not callable(protocol_or_coroutine):
        raise TypeError(f"{protocol_or_coroutine!r} is neither a WebSocketProtocol class nor a coroutine function")
    if isasyncgenfunction(protocol_or_coroutine):
        raise TypeError(
            f"{protocol_or_coroutine!r} is an async generator function: use await in it instead of yield, as in a "
            "coroutine function"
        )
    if isgeneratorfunction(protocol_or_coroutine):
        raise TypeError(f"{protocol_or_coroutine!r} is {BARE_GENERATOR}")
    if not is_handler(protocol_or_coroutine):
        if isroutine(protocol_or_coroutine) and _needs_arguments(protocol_or_coroutine):
            raise TypeError(
                f"{protocol_or_coroutine!r} cannot be called without arguments: give a WebSocketProtocol class, a "
                "partial of one, or a coroutine function (async def)"
            )
        return protocol_or_coroutine  # type: ignore[no-any-return]
    return partial(HandlerProtocol, protocol_or_coroutine)


def _needs_arguments(make: Callable[..., Any]) -> bool:
    """It has parameters without defaults, as far as that can be known."""
    try:
        # What a decorator has wrapped may well get its arguments from that.
        parameters = signature(make, follow_wrapped=False).parameters.values()
    except Exception:
        # Annotations that cannot be evaluated (Python 3.14), and what stands for a callable without being one's like.
        return False
    return any(
        parameter.default is parameter.empty and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        for parameter in parameters
    )


def is_handler(value: Any) -> TypeGuard[Handler]:
    """It is a coroutine function, an object that is called as one, or a generator function in ``inlineCallbacks``."""
    if isclass(value) or not callable(value):
        return False
    if iscoroutinefunction(value) or iscoroutinefunction(type(value).__call__):
        return True
    while isinstance(value, partial):
        value = value.func
    return isroutine(value) and not isgeneratorfunction(value) and isgeneratorfunction(unwrap(value))
