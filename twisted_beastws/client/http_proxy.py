"""Through an HTTP proxy: an endpoint that asks it to CONNECT (RFC 9110 §9.3.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import NoProtocol
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_beastws.errors import BadRequest, ProxyDeclined
from twisted_beastws.options import Limits
from twisted_beastws.wire.fields import Headers
from twisted_beastws.wire.head_buffer import HeadBuffer
from twisted_beastws.wire.http import Request, parse_response

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress


MAX_INTERIM = 8
"""The number of interim (1xx) answers that may come before the final one."""


class HttpConnect(Protocol):
    """Asks the proxy for the tunnel, then passes all bytes to the protocol inside."""

    def __init__(self, factory: IProtocolFactory, address: IAddress, request: Request) -> None:
        limits = Limits()
        self._factory = factory
        self._address = address
        self._request = request
        self._head = HeadBuffer(limits.max_head_size, limits.max_head_lines, "proxy's response")
        self._interim = 0
        self._inner: IProtocol | None = None
        self.opened: Deferred[IProtocol] = Deferred(lambda _: self._abort())

    def connectionMade(self) -> None:
        self._write(self._request.to_bytes())

    def dataReceived(self, data: bytes) -> None:
        # A protocol may replace its dataReceived during its life, as ours does, so look it up each time.
        if self._inner is not None:
            self._inner.dataReceived(data)
        elif not self.opened.called:
            self._head.feed(data)
            self._read_head()

    def _read_head(self) -> None:
        try:
            inner = None
            while inner is None:
                head = self._head.take()
                if head is None:
                    return
                inner = self._judged(head)
        except Exception:
            self._abort()
            self.opened.errback()
            return
        self._inner = inner
        inner.makeConnection(cast(Any, self.transport))
        self.opened.callback(inner)
        rest = self._head.rest()
        if rest:
            inner.dataReceived(rest)

    def _judged(self, head: bytes) -> IProtocol | None:
        """Return the protocol for the tunnel that an answer opens, or None for an interim answer. Raises if the proxy
        declines.
        """
        try:
            response = parse_response(head)
        except BadRequest:
            raise BadRequest("The proxy's response is not valid HTTP") from None
        # RFC 9110 §15.2: interim answers may come before the final one. A CONNECT switches no protocol.
        if response.status < 200 and response.status != 101:
            self._interim += 1
            if self._interim > MAX_INTERIM:
                raise BadRequest("The proxy sent interim responses without end")
            return None
        # RFC 9110 §9.3.6: any 2xx opens the tunnel, and has no body.
        if not 200 <= response.status < 300:
            raise ProxyDeclined(response)
        inner = self._factory.buildProtocol(self._address)
        if inner is None:
            raise NoProtocol
        return inner

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.connectionLost(reason)
        elif not self.opened.called:
            self.opened.errback(reason)

    def _write(self, data: bytes) -> None:
        cast(Any, self.transport).write(data)

    def _abort(self) -> None:
        cast(Any, self.transport).abortConnection()


@implementer(IStreamClientEndpoint)
class ProxyEndpoint:
    """Connects to a host and port through an HTTP proxy.

    Args:
        proxy: The endpoint of the proxy.
        host: The host.
        port: The port.
        credentials: A Proxy-Authorization value, or None.
    """

    def __init__(self, proxy: IStreamClientEndpoint, host: str, port: int, credentials: str | None = None) -> None:
        self._proxy = proxy
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        headers = Headers()
        headers.setRawHeaders("Host", [authority])
        if credentials is not None:
            headers.setRawHeaders("Proxy-Authorization", [credentials])
        self._request = Request("CONNECT", authority, "1.1", headers)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect to the proxy, and open the tunnel.

        Returns:
            A Deferred of the factory's protocol. It fails with `ProxyDeclined` if the proxy declines. Cancelling it
            drops the connection.
        """

        connecting: Deferred[Any] = self._proxy.connect(_HttpConnectFactory(protocolFactory, self._request))
        return connecting.addCallback(lambda tunnel: tunnel.opened)


class _HttpConnectFactory(Factory):
    noisy = False

    def __init__(self, factory: IProtocolFactory, request: Request) -> None:
        self._factory = factory
        self._request = request

    def buildProtocol(self, addr: IAddress | None) -> HttpConnect:
        return HttpConnect(self._factory, cast("IAddress", addr), self._request)
