"""A TLS client endpoint that connects a protocol only when the peer is verified."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.error import NoProtocol
from twisted.internet.interfaces import IHandshakeListener, IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import optionsForClientTLS
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_beastws.errors import PeerNotVerified
from twisted_beastws.tls.unverified import UnverifiedTLS
from twisted_beastws.tls.verification import refuse_early, tls_name, verify_peer

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress


def tls_endpoint(
    endpoint: IStreamClientEndpoint, host: str, tls: Any | Callable[[str], Any] = None
) -> IStreamClientEndpoint:
    """Return an endpoint that speaks TLS over ``endpoint`` and verifies that the peer is ``host``.

    Args:
        endpoint: The endpoint below TLS.
        host: The host name or IP address that the certificate must be for. A name is sent as SNI.
        tls: An ``IOpenSSLClientConnectionCreator``, or a function that makes one from the host's name. None trusts the
            platform's authorities. `verify_peer` always decides in the end, except for an `UnverifiedTLS`.
    """
    creator = optionsForClientTLS if tls is None else tls
    if callable(creator):
        creator = creator(tls_name(host))
    secured: IStreamClientEndpoint = wrapClientTLS(creator, endpoint)
    if isinstance(creator, UnverifiedTLS):
        return secured
    # Keep the verification callback of a foreign creator: it may be stricter than ours.
    return VerifiedEndpoint(secured, host, early=type(creator).__module__.startswith("twisted."))


@implementer(IStreamClientEndpoint)
class VerifiedEndpoint:
    """Connects through ``endpoint``, which speaks TLS itself, and verifies that the peer is ``host``.

    The factory's protocol is connected when the peer is verified, and receives no event earlier.

    Args:
        endpoint: The wrapped endpoint.
        host: The host name or IP address that the certificate must be for.
        early: Replace the verification callback of the wrapped endpoint; see `refuse_early`.
    """

    def __init__(self, endpoint: IStreamClientEndpoint, host: str, *, early: bool = True) -> None:
        self._endpoint = endpoint
        self._host = host
        self._early = early

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect, complete the TLS handshake and verify the peer.

        Returns:
            A Deferred of the factory's protocol. It fails with `PeerNotVerified`, OpenSSL's error, or an error of
            the wrapped endpoint. No timeout bounds the TLS handshake here; cancelling drops the connection.
        """
        connecting: Deferred[Any] = self._endpoint.connect(_GateFactory(protocolFactory, self._host, self._early))
        return connecting.addCallback(lambda gate: gate.verified)


class _GateFactory(Factory):
    """Wraps each protocol of ``factory`` in a `_Gate`, and starts and stops with that factory."""

    noisy = False

    def __init__(self, factory: IProtocolFactory, host: str, early: bool) -> None:
        self._factory = factory
        self._host = host
        self._early = early

    def doStart(self) -> None:
        self._factory.doStart()

    def doStop(self) -> None:
        self._factory.doStop()

    def buildProtocol(self, addr: IAddress | None) -> _Gate:
        inner = self._factory.buildProtocol(cast("IAddress", addr))
        if inner is None:
            # Some wrapping factories, such as that of TLS, do not accept None.
            raise NoProtocol
        return _Gate(inner, self._host, self._early)


@implementer(IHandshakeListener)
class _Gate(Protocol):
    """Waits for the TLS handshake, verifies the peer, then connects ``inner`` and passes everything to it."""

    def __init__(self, inner: IProtocol, host: str, early: bool) -> None:
        self._inner: IProtocol | None = inner
        self._host = host
        self._early = early
        self._refusal: PeerNotVerified | None = None
        self._open = False

    def connectionMade(self) -> None:
        # Create this Deferred only now: it forms a reference cycle, which would keep an unconnected gate in memory.
        self.verified: Deferred[IProtocol] = Deferred(lambda _: self._abort())
        try:
            # Only TLS reports a completed handshake; over another transport the gate would wait forever.
            if not hasattr(self.transport, "getPeerCertificate"):
                raise PeerNotVerified(self._host, "the connection is not TLS")
            if self._early:
                refuse_early(self._tls(), self._host, self._refused)
        except PeerNotVerified:
            self._fail()

    def _tls(self) -> Any:
        return cast(Any, self.transport).getHandle()

    def _refused(self, error: PeerNotVerified) -> None:
        self._refusal = error

    def handshakeCompleted(self) -> None:
        inner = self._inner
        if inner is None or self._open or self.verified.called:
            return
        try:
            verify_peer(self._tls(), self._host)
        except PeerNotVerified:
            self._fail()
            return
        self._open = True
        inner.makeConnection(cast(Any, self.transport))
        if IHandshakeListener.providedBy(inner):
            inner.handshakeCompleted()
        if not self.verified.called:
            self.verified.callback(inner)

    def dataReceived(self, data: bytes) -> None:
        # Look the method up each time: a protocol may replace its own, as ours does.
        if self._open and self._inner is not None:
            self._inner.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        inner, self._inner = self._inner, None
        if self._open and inner is not None:
            inner.connectionLost(reason)
        if not self.verified.called:
            self.verified.errback(reason if self._refusal is None else Failure(self._refusal))

    def _fail(self) -> None:
        failure = Failure()
        self._abort()
        if not self.verified.called:
            self.verified.errback(failure)

    def _abort(self) -> None:
        cast(Any, self.transport).abortConnection()
