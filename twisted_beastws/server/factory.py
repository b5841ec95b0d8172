"""`WebSocketServerFactory`: the options, limits and live connections of a server, and its graceful shutdown."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from inspect import isasyncgenfunction, isclass, iscoroutinefunction, isgeneratorfunction, isroutine, signature, unwrap
from typing import TYPE_CHECKING, Any, TypeGuard

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolNegotiationFactory
from twisted.internet.protocol import Factory
from zope.interface import implementer

from twisted_beastws.budget import MemoryBudget
from twisted_beastws.clock import installed_reactor, next_turn, seconds_of
from twisted_beastws.connection.awaiting import TaskCancelled
from twisted_beastws.connection.observer import Observer, joined
from twisted_beastws.connection.requests import log_unconsumed
from twisted_beastws.connection.running import run
from twisted_beastws.errors import ConnectionClosed, TooManyConnections
from twisted_beastws.options import Decorator, Deflate, Limits, Origins, Settings, Timeouts, check_clock, kind_of
from twisted_beastws.protocol import State, WebSocketProtocol, connection_of
from twisted_beastws.server.admission import Admission
from twisted_beastws.server.draining import Drain
from twisted_beastws.server.gate import Forwarding, Gate, in_turn
from twisted_beastws.wire.closing import CloseCode

if TYPE_CHECKING:
    from collections import Counter

    from twisted.internet.interfaces import IAddress, IReactorTime
    from twisted.python.failure import Failure

    from twisted_beastws.wire.http import Request

Handler = Callable[[WebSocketProtocol], "Coroutine[Any, Any, Any] | Deferred[Any]"]


BARE_GENERATOR = "a generator function: put @inlineCallbacks over it, or make it a coroutine function (async def)"
"""The error for a function that is neither a class nor a coroutine function: its body would never run."""


class HandlerProtocol(WebSocketProtocol):
    """Runs a handler on its connection, which closes with 1000 when the handler returns and with 1011 when it raises.

    Attributes:
        handler: The coroutine function.
    """

    def __init__(self, handler: Handler) -> None:
        self.handler = handler

    def opened(self) -> Deferred[Any]:
        running = self.handler(self)
        if not isinstance(running, Deferred):
            running = run(running)
        return running.addErrback(self._handler_stopped).addCallback(self._handler_returned)

    def _handler_stopped(self, failure: Failure) -> None:
        # A handler need not catch the end of its own connection, or of another connection that it uses.
        cancelled = failure.trap(ConnectionClosed, TaskCancelled) is TaskCancelled
        failure.cleanFailure()
        if cancelled and self.state is State.OPEN:
            self.close(CloseCode.GOING_AWAY)

    def _handler_returned(self, result: object) -> None:
        connection = connection_of(self)
        log_unconsumed(connection, self)
        if self.state is State.OPEN:
            self.close()


@implementer(IProtocolNegotiationFactory)
class WebSocketServerFactory(Factory):
    """Makes the protocols of a server.

    Args:
        protocol_or_coroutine: A `WebSocketProtocol` subclass, any callable that makes one, or a coroutine function that
            gets each open connection: ``async def echo(ws): async for message in ws: ws.send(message)``. A generator
            function in ``inlineCallbacks`` works as well.
        decorator: Gets each HTTP `Response` before it is sent, failures included; may be a coroutine function.
        subprotocols: The supported subprotocols, the preferred one first; ``*`` is any that the client offers.
        origins: The web sites that may connect; None is this site only.
        timeouts: See `Timeouts`.
        limits: See `Limits`.
        deflate: The compression for clients that offer it; None, the default, accepts none.
        clock: An ``IReactorTime``; None is the installed reactor.
        budget: A `MemoryBudget` that all factories of the process share; None is no bound on their sum.

    Attributes:
        connections: The live connections, including those that are not open yet.
        make: Makes each protocol; you may replace it before the first connection.
        admission: Counts connections and requests by peer.
        gate: All gates of `add_gate` as one, or None.
        observer: All observers of `add_observer` as one, or None.
        client_of: Set by `trust_proxies`.
        prefix_of: Set by `trust_proxies`.

    Raises:
        TypeError: An argument is of another type.
        ValueError: An argument has a value that is not allowed.
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
        self.admission = Admission(lambda: seconds_of(self._clock())(), lambda call: next_turn(self._clock(), call))
        self.observer: Observer | None = None
        self.gate: Gate | None = None
        self.client_of: Callable[[Any, Request], Any] | None = None
        self.prefix_of: Callable[[Any, Request], str] | None = None
        self._gates: list[Gate] = []
        self._observers: list[Observer] = []
        self._drain: Drain | None = None
        self._site: Any = None
        pages = getattr(self.make, "pages", None)
        if pages is not None:
            self.serve_pages(pages(self))

    def acceptableProtocols(self) -> list[bytes]:
        """Return the protocols that TLS may agree on (``IProtocolNegotiationFactory``)."""
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
        return self.adopt(protocol, addr)

    def adopt(self, protocol: WebSocketProtocol, addr: IAddress | None) -> WebSocketProtocol:
        """Make a protocol one of this server's, which counts it, and whose gates and observers it gets."""
        protocol.factory = self
        connection = connection_of(protocol)
        connection.server = self
        connection.observer = self.observer
        connection.settings = self.settings
        self.connections.add(protocol)
        self.admission.arrive(protocol, self.settings.limits, addr)
        return protocol

    def add_gate(self, gate: Gate) -> None:
        """Ask a gate about each request, before any other check and before the protocol's own hooks.

        Args:
            gate: A function of the `Request` and of its `WebSocketProtocol`, which is not open yet. It returns None to
                let the request in, or the `Response` to it; it may be a coroutine function or return a Deferred. It
                may set ``user`` of the protocol. Gates are asked in the order in which they were added, until one of
                them answers. If a gate raises, the answer is 500.
        """
        self._gates.append(gate)
        self.gate = in_turn(self._gates)

    def add_observer(self, observer: Observer) -> None:
        """Let an observer watch the connections that are made from now on."""
        self._observers.append(observer)
        self.observer = joined(self._observers)

    def trust_proxies(self, proxies: Forwarding) -> None:
        """Use the addresses of clients that these proxies forward: in ``peer``, the logs and the limits for one peer.

        Args:
            proxies: Usually `TrustedProxies`. A later call replaces an earlier one.
        """
        self.client_of = proxies.client_of
        self.prefix_of = proxies.prefix_of
        self.admission.is_proxy = proxies.trusts

    @property
    def refusals(self) -> Counter[str]:
        """The number of times that each limit of connections or rates was met, by its name in `Limits`."""
        return self.admission.refusals

    def identify(self, protocol: WebSocketProtocol, address: IAddress | None) -> None:
        """Count an opening connection as one of the client at ``address``, which its proxy has forwarded.

        None means that the proxy has forwarded no address yet: the limits for one peer do not apply.
        """
        self.admission.identify(protocol, self.settings.limits, address)

    def count_request(self, protocol: WebSocketProtocol) -> None:
        """Count a request. Raises a `HandshakeError` (429 or 503) beyond the limits."""
        self.admission.count_request(protocol, self.settings.limits)

    def admit(self, protocol: WebSocketProtocol) -> None:
        """Count a connection that is about to open. Raises `TooManyConnections` (503) beyond the limits or during
        shutdown.
        """
        if self._drain is not None:
            raise TooManyConnections("The server is shutting down")
        self.admission.admit(protocol, self.settings.limits)

    def dismiss(self, protocol: WebSocketProtocol) -> None:
        """Stop counting a connection that did not open."""
        self.admission.dismiss(protocol, self.settings.limits)

    def forget(self, protocol: WebSocketProtocol) -> None:
        """A connection is gone."""
        self.connections.discard(protocol)
        self.admission.forget(protocol)
        if self._drain is not None:
            self._drain.forget(protocol)

    @property
    def draining(self) -> bool:
        """The factory shuts down: `drain` was called, and no more connections open."""
        return self._drain is not None

    def drain(
        self,
        code: int = CloseCode.GOING_AWAY,
        reason: str = "the server is shutting down",
        *,
        seconds: float | None = None,
    ) -> Deferred[None]:
        """Close all connections with ``code``. The factory accepts no connection after this.

        Connections that are not open yet are dropped, and new handshakes are answered with 503. Calling it again starts
        again with the connections that are left.

        Args:
            code: The close code.
            reason: The close reason.
            seconds: The time limit. In its first half the open connections get their close frames one after the other,
                at most 10 ms apart. Connections without a WebSocket are dropped after that, and not before half a
                second. The connections that are left at the end are aborted. None closes all at once, and
                ``Timeouts.close`` bounds each.

        Returns:
            A Deferred that fires when all present connections are gone. Cancelling it does no harm.
        """
        if self._drain is None:
            self._drain = Drain(self._clock())
        return self._drain.begin(self.connections, code, reason, seconds)

    def abort(self) -> None:
        """Drop all connections now, without sending anything."""
        for protocol in list(self.connections):
            protocol.abort()

    def _clock(self) -> IReactorTime:
        return self.settings.clock or installed_reactor()


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
    """Return whether a callable has parameters without defaults, as far as that can be known."""
    try:
        # A decorator may pass arguments to the function that it wraps, so look at the wrapper.
        parameters = signature(make, follow_wrapped=False).parameters.values()
    except Exception:
        # Python 3.14 may fail to evaluate annotations, and some callables have no signature.
        return False
    return any(
        parameter.default is parameter.empty and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        for parameter in parameters
    )


def is_handler(value: Any) -> TypeGuard[Handler]:
    """Return whether ``value`` is a coroutine function, an object that acts as one, or uses ``inlineCallbacks``."""
    if isclass(value) or not callable(value):
        return False
    if iscoroutinefunction(value) or iscoroutinefunction(type(value).__call__):
        return True
    while isinstance(value, partial):
        value = value.func
    return isroutine(value) and not isgeneratorfunction(value) and isgeneratorfunction(unwrap(value))
