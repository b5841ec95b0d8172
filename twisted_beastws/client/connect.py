"""Clients: `connect` to a URL, and the endpoint for ``ClientService``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from inspect import isclass, iscoroutinefunction, isgeneratorfunction
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, cast, overload

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_beastws.budget import MemoryBudget
from twisted_beastws.client.attempt import ConfiguringFactory, WrappedAttempt
from twisted_beastws.client.connecting import Connecting
from twisted_beastws.client.proxies import endpoint_through, over_tls, parse_proxy
from twisted_beastws.connection.coroutines import forget_frames
from twisted_beastws.connection.running import settled
from twisted_beastws.errors import (
    DecliningResponse,
    HandshakeTimeout,
    TooManyRedirects,
    UpgradeDeclined,
)
from twisted_beastws.options import Decorator, Deflate, Limits, Settings, Timeouts, check_decorator, kind_of
from twisted_beastws.protocol import WebSocketProtocol
from twisted_beastws.wire.fields import fields_given
from twisted_beastws.wire.http import Request
from twisted_beastws.wire.url import WebSocketURL

if TYPE_CHECKING:
    from typing_extensions import Unpack

P = TypeVar("P", bound=WebSocketProtocol)
T = TypeVar("T")

REDIRECTS = frozenset((301, 302, 303, 307, 308))
ACROSS_ORIGINS = frozenset(("accept", "accept-language", "cache-control", "pragma", "user-agent"))
"""The caller's fields, in lower case, that go to another origin after a redirect: any other may hold a secret."""
HANDSHAKES_OWN = frozenset(
    (
        "upgrade",
        "connection",
        "sec-websocket-key",
        "sec-websocket-version",
        "sec-websocket-extensions",
        "content-length",
        "transfer-encoding",
    )
)
"""The fields, in lower case, that a caller may not give: what makes the request a handshake (RFC 6455 §4.1), and what
would give it a body."""


@implementer(IStreamClientEndpoint)
class WebSocketClientEndpoint:
    """Connects to a URL. The factory given to `connect` makes the `WebSocketProtocol`, which is open when `connect`
    fires.

    Args:
        reactor: The reactor; None is the installed one.
        url: A ``ws:`` or ``wss:`` URL; userinfo becomes HTTP Basic credentials.
        endpoint: An endpoint to connect to in place of the URL's host and port; for ``wss:``, TLS runs over it. A
            redirect to another origin is then not followed, because the new connection would bypass the endpoint.
        headers: Further fields of the request.
        decorator: Gets the `Request` before each attempt; may be a coroutine function.
        tls: An ``IOpenSSLClientConnectionCreator`` in place of one that trusts the platform's authorities. It may have
            a client's certificate, so a redirect to another origin is then not followed. Or a function that makes one
            for a host name, which may differ after a redirect. The server's certificate must be valid for the host of
            the URL in any case, except for a `twisted_beastws.tls.unverified.UnverifiedTLS`.
        proxy: A proxy: ``http://user:password@host:port``, ``https://...`` or ``socks5://...``; ``"env"`` reads
            ``https_proxy``, ``http_proxy`` (for ``ws:``), ``all_proxy`` and ``no_proxy`` at each connection.
        max_redirects: The number of redirects to follow; a redirect away from TLS is never followed. Another origin
            gets no subprotocols, and of ``headers`` only Accept, Accept-Language, Cache-Control, Pragma and User-Agent.
            5 (picows).
        subprotocols: The subprotocols to offer, the preferred one first.
        timeouts: See `Timeouts`.
        limits: See `Limits`.
        deflate: The compression to offer; None, the default, offers none.
        budget: A `MemoryBudget` shared with the other connections of the process; None is no bound.

    Attributes:
        last_failure: Why the latest attempt failed, or None.

    Raises:
        TypeError: An argument is of another type.
        ValueError: The URL is not valid, a field cannot be sent or belongs to the handshake, or an option is not
            allowed.
    """

    def __init__(
        self,
        reactor: Any,
        url: str,
        *,
        endpoint: IStreamClientEndpoint | None = None,
        headers: Mapping[str, str | Sequence[str]] | None = None,
        decorator: Decorator | None = None,
        subprotocols: Sequence[str] = (),
        tls: Any = None,
        proxy: str | None = None,
        max_redirects: int = 5,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        deflate: Deflate | None = None,
        budget: MemoryBudget | None = None,
    ) -> None:
        if reactor is None:
            from twisted.internet import reactor
        self.reactor: Any = reactor
        self._url = _parsed("url", url)
        self._proxy = None if proxy is None else parse_proxy(proxy)
        if endpoint is not None and (isclass(endpoint) or not hasattr(endpoint, "connect")):
            raise TypeError(f"endpoint: give one as clientFromString(reactor, ...) makes, not {kind_of(endpoint)}")
        check_decorator(decorator)
        _check_tls(tls)
        self._endpoint = endpoint
        self._headers = _fields({} if headers is None else headers)
        self._decorator = decorator
        self._tls = tls
        self._max_redirects = max_redirects
        self._settings = Settings(
            subprotocols=subprotocols,
            timeouts=timeouts or Timeouts(),
            limits=limits or Limits(),
            deflate=deflate,
            clock=reactor,
            budget=budget,
        )
        self.last_failure: Failure | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {shown(self._url)}>"

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect, and perform the opening handshake.

        ``Timeouts.handshake`` bounds each of these two steps, also after each redirect.

        Returns:
            A Deferred of the factory's protocol, which fires when its WebSocket is open. It fails with a
            `HandshakeError`, with the failure of the endpoint below, or with TypeError if the factory is none or makes
            no `WebSocketProtocol`. Cancelling it drops the connection, and fails it with ``CancelledError``.
        """
        self.last_failure = None
        connecting = Deferred.fromCoroutine(self._connect(protocolFactory))

        def cancel(outcome: Deferred[IProtocol]) -> None:
            # Cancelled endpoints fail with different errors.
            outcome.errback(CancelledError())
            connecting.cancel()

        outcome: Connecting[IProtocol] = Connecting(cancel)
        outcome.unclaimed = _abort
        connecting.addBoth(self._connected, outcome)
        return outcome

    def _connected(self, result: IProtocol | Failure, outcome: Deferred[IProtocol]) -> None:
        if isinstance(result, Failure):
            self.last_failure = _without_frames(result)
        if not outcome.called:
            outcome.callback(result)

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        url, redirects = self._url, self._max_redirects
        while True:
            try:
                return await self._attempt(url, factory)
            except UpgradeDeclined as error:
                target = _redirected(url, error.response) if self._max_redirects else None
                if target is None:
                    raise
                if not redirects or (url.secure and not target.secure) or self._is_out_of_reach(target):
                    raise TooManyRedirects(error.response) from None
            url, redirects = target, redirects - 1

    def _is_out_of_reach(self, target: WebSocketURL) -> bool:
        """Return whether a redirect leads out of the given endpoint, or shows another origin the given TLS identity."""
        if target.origin == self._url.origin:
            return False
        fixed_tls = self._tls is not None and not callable(self._tls)
        # The options may have been meant for the encrypted port of the same host.
        encrypts = not self._url.secure and target.host == self._url.host
        return self._endpoint is not None or (fixed_tls and target.secure and not encrypts)

    async def _attempt(self, url: WebSocketURL, factory: IProtocolFactory) -> IProtocol:
        settings = self._settings
        if url.origin != self._url.origin:
            # Some servers take a token as a subprotocol.
            settings = replace(settings, subprotocols=())
        connecting = self._endpoint_for(url).connect(ConfiguringFactory(factory, settings))
        if self._settings.timeouts.handshake is not None:
            connecting.addTimeout(self._settings.timeouts.handshake, self.reactor, _timed_out)
        protocol: Any = await connecting
        try:
            opening = protocol.handshake(url.host_field, url.target, decorator=self._decorating(url))
            await opening.addErrback(_without_frames)
        except BaseException:
            # A declined handshake may have left the connection open; the next attempt makes its own.
            protocol.abort()
            raise
        if isinstance(protocol, WrappedAttempt):
            protocol.opened = True
            return cast(IProtocol, protocol.wrapper)
        return cast(IProtocol, protocol)

    def _decorating(self, url: WebSocketURL) -> Decorator:
        async def decorate(request: Request) -> None:
            same_origin = url.origin == self._url.origin
            for name, values in self._headers.items():
                if same_origin or name.lower() in ACROSS_ORIGINS:
                    request.headers.setRawHeaders(name, values)
            if url.authorization is not None and not request.headers.hasHeader("Authorization"):
                request.headers.setRawHeaders("Authorization", [url.authorization])
            if self._decorator is not None and same_origin:
                await settled(self._decorator(request))

        return decorate

    def _endpoint_for(self, url: WebSocketURL) -> IStreamClientEndpoint:
        endpoint = self._endpoint or endpoint_through(self.reactor, self._proxy, url)
        return over_tls(endpoint, url.host, self._tls) if url.secure else endpoint


def _abort(protocol: Any) -> None:
    """Drop a connection that opened after the asyncio Task that waits for it was cancelled."""
    protocol.abort()


def shown(url: WebSocketURL) -> str:
    """Return the URL for a log: without its userinfo and its query, which may hold secrets."""
    path, asks, _ = url.target.partition("?")
    return f"{url.scheme}://{url.host_field}{path}{asks and '?...'}"


def _parsed(name: str, url: Any) -> WebSocketURL:
    if not isinstance(url, str):
        raise TypeError(f"{name}: give a URL as str, not {type(url).__name__}")
    return WebSocketURL.parse(url)


def _fields(headers: Any) -> dict[str, list[str]]:
    """Return the caller's fields, each with a list of values. An error names the argument."""
    fields = fields_given(headers)
    for name in fields:
        if name.lower() in HANDSHAKES_OWN:
            raise ValueError(f"headers[{name!r}]: this field is the handshake's own")
    return fields


def _redirected(url: WebSocketURL, response: DecliningResponse) -> WebSocketURL | None:
    """Return the URL of a redirect, or None if the response is no redirect."""
    location = response.field("Location")
    if response.status not in REDIRECTS or location is None:
        return None
    try:
        return url.join(location)
    except ValueError:
        return None


def _without_frames(failure: Failure) -> Failure:
    # The frames would keep the connection alive as long as the failure. Its traceback stays as text.
    failure.cleanFailure()
    forget_frames(failure.value)
    return failure


def _timed_out(result: object, seconds: float) -> Failure:
    return Failure(HandshakeTimeout(f"The connection was not made in {seconds:g} s"))


def _check_tls(tls: Any) -> None:
    known = any(hasattr(tls, name) for name in ("clientConnectionForTLS", "getContext"))
    if tls is not None and not callable(tls) and not known:
        raise TypeError(
            f"tls: give optionsForClientTLS(host, ...), or a function that makes it of a host's name, not "
            f"{kind_of(tls)}: wss: in the URL asks for TLS"
        )


class ClientOptions(TypedDict, total=False):
    """The options that `connect` passes to its `WebSocketClientEndpoint`."""

    endpoint: IStreamClientEndpoint | None
    headers: Mapping[str, str | Sequence[str]] | None
    decorator: Decorator | None
    subprotocols: Sequence[str]
    tls: Any
    proxy: str | None
    max_redirects: int
    timeouts: Timeouts | None
    limits: Limits | None
    deflate: Deflate | None
    budget: MemoryBudget | None


@overload
def connect(
    url: str, *, protocol: Callable[[], P], reactor: Any = None, **options: Unpack[ClientOptions]
) -> Connecting[P]: ...


@overload
def connect(url: str, *, reactor: Any = None, **options: Unpack[ClientOptions]) -> Connecting[WebSocketProtocol]: ...


def connect(
    url: str,
    *misplaced: object,
    protocol: Callable[[], Any] = WebSocketProtocol,
    reactor: Any = None,
    **options: Unpack[ClientOptions],
) -> Connecting[Any]:
    """Connect to ``url``, and perform the opening handshake.

    ``ws = await connect(url)`` opens a connection, and ``async with connect(url) as ws:`` closes it at the end of the
    block, too: with 1000, or with 1011 if the block raises.

    Args:
        url: A ``ws:`` or ``wss:`` URL.
        protocol: A subclass of `WebSocketProtocol`, or a callable that makes one.
        reactor: The reactor; None is the installed one.
        options: The options of `WebSocketClientEndpoint`.

    Returns:
        A Deferred of the open ``protocol``, which always fires, once: see `WebSocketClientEndpoint.connect`.

    Raises:
        TypeError: An argument is of another type.
        ValueError: The URL, or an option, is not valid.
    """
    if misplaced:
        raise TypeError("connect() takes the URL alone by its place: write connect(url, reactor=reactor)")
    if iscoroutinefunction(protocol) or isgeneratorfunction(protocol):
        raise TypeError(
            f"protocol: give a subclass of WebSocketProtocol, not the coroutine function {protocol!r}: a client's code "
            "goes on behind ws = await connect(url)"
        )
    if not callable(protocol) or (isclass(protocol) and not issubclass(protocol, WebSocketProtocol)):
        raise TypeError(f"protocol: give a subclass of WebSocketProtocol, or what makes one, not {kind_of(protocol)}")
    factory = Factory.forProtocol(cast(Any, protocol))
    factory.noisy = False
    return cast("Connecting[Any]", WebSocketClientEndpoint(reactor, url, **options).connect(factory))
