"""Through a SOCKS5 proxy, such as Tor's or ``ssh -D``'s: an endpoint that connects by it (RFC 1928)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import NoProtocol
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_beastws.wire.socks5 import Socks5

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress


@implementer(IStreamClientEndpoint)
class SocksEndpoint:
    """Connects to ``host`` and ``port`` through the SOCKS5 proxy at ``proxy``, which resolves the name.

    Args:
        proxy: The endpoint of the proxy.
        host: A host name or an IP address.
        port: The port.
        user: The user name for the proxy, empty for none.
        password: The password for the proxy.

    Raises:
        ValueError: The host, the user name or the password is longer than 255 bytes.
    """

    def __init__(self, proxy: IStreamClientEndpoint, host: str, port: int, user: str = "", password: str = "") -> None:
        self._proxy = proxy
        self._asked = (host, port, user, password)
        Socks5(*self._asked)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect through the proxy.

        Returns:
            A Deferred of the factory's protocol. It fails with `SocksDeclined` when the proxy does not connect, or as
            ``proxy`` fails. Cancelling drops the connection.
        """
        connecting: Deferred[Any] = self._proxy.connect(_SocksFactory(protocolFactory, self._asked))
        return connecting.addCallback(lambda tunnel: tunnel.opened)


class _SocksFactory(Factory):
    noisy = False

    def __init__(self, factory: IProtocolFactory, asked: tuple[str, int, str, str]) -> None:
        self._factory = factory
        self._asked = asked

    def doStart(self) -> None:
        self._factory.doStart()

    def doStop(self) -> None:
        self._factory.doStop()

    def buildProtocol(self, addr: IAddress | None) -> _SocksConnect:
        return _SocksConnect(self._factory, cast("IAddress", addr), Socks5(*self._asked))


class _SocksConnect(Protocol):
    """Asks the proxy for the connection, then passes all bytes to the protocol inside."""

    def __init__(self, factory: IProtocolFactory, address: IAddress, socks: Socks5) -> None:
        self._factory = factory
        self._address = address
        self._socks = socks
        self._inner: IProtocol | None = None
        self.opened: Deferred[IProtocol] = Deferred(lambda _: self._abort())

    def connectionMade(self) -> None:
        cast(Any, self.transport).write(self._socks.greeting())

    def dataReceived(self, data: bytes) -> None:
        # A protocol may replace its dataReceived during its life, as ours does, so look it up each time.
        if self._inner is not None:
            self._inner.dataReceived(data)
        elif not self.opened.called:
            self._proceed(data)

    def _proceed(self, data: bytes) -> None:
        try:
            answer = self._socks.feed(data)
            inner = self._factory.buildProtocol(self._address) if self._socks.done else None
            if self._socks.done and inner is None:
                raise NoProtocol
        except Exception:
            self._abort()
            self.opened.errback()
            return
        if answer:
            cast(Any, self.transport).write(answer)
        if inner is not None:
            self._open(inner)

    def _open(self, inner: IProtocol) -> None:
        self._inner = inner
        inner.makeConnection(cast(Any, self.transport))
        if not self.opened.called:
            self.opened.callback(inner)
        rest = self._socks.rest()
        if rest:
            inner.dataReceived(rest)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.connectionLost(reason)
        if not self.opened.called:
            self.opened.errback(reason)

    def _abort(self) -> None:
        cast(Any, self.transport).abortConnection()
