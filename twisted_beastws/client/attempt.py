"""The factory of a client's attempt to connect, and the stand-in for a protocol that wraps ours."""

from __future__ import annotations

from inspect import isclass
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.error import NoProtocol
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from twisted_beastws.connection.application_transport import ApplicationTransport
from twisted_beastws.options import Settings, kind_of
from twisted_beastws.protocol import WebSocketProtocol, connection_of

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress


class FactoryBefore(Factory):
    """Wraps a client's ``factory``, and starts and stops with it. Raises TypeError for another argument."""

    noisy = False

    def __init__(self, factory: IProtocolFactory) -> None:
        if isclass(factory) or not hasattr(factory, "buildProtocol"):
            raise TypeError(f"factory: give Factory.forProtocol(YourProtocol), not {kind_of(factory)}")
        self._factory = factory

    def doStart(self) -> None:
        self._factory.doStart()

    def doStop(self) -> None:
        self._factory.doStop()

    def make(self, addr: IAddress | None) -> Any:
        """Return a protocol of the wrapped factory."""
        return self._factory.buildProtocol(cast("IAddress", addr))


class ConfiguringFactory(FactoryBefore):
    """Makes the caller's protocol a client's end."""

    def __init__(self, factory: IProtocolFactory, settings: Settings) -> None:
        super().__init__(factory)
        self._settings = settings

    def buildProtocol(self, addr: IAddress | None) -> Any:
        protocol = self.make(addr)
        if protocol is None:
            # Wrappers such as TLS do not expect None.
            raise NoProtocol
        # A wrapper such as ClientService's passes on attributes that it lacks.
        if isclass(protocol) or not hasattr(protocol, "as_client"):
            raise TypeError(f"factory: it made {protocol!r}, which is no WebSocketProtocol")
        websocket = protocol.as_client(self._settings)
        return protocol if protocol is websocket else WrappedAttempt(protocol, websocket)


class WrappedAttempt:
    """Stands for a protocol that wraps ours, as ``ClientService``'s does, until the WebSocket is open.

    The wrapper must not learn of the end of a connection that `WebSocketClientEndpoint.connect` never returned. And
    because it closes the transport itself, it must get one that performs the closing handshake.
    """

    def __init__(self, wrapper: Any, websocket: WebSocketProtocol) -> None:
        self.wrapper = wrapper
        self.opened = False
        self._websocket = websocket

    def makeConnection(self, transport: Any) -> None:
        self.wrapper.makeConnection(ApplicationTransport(connection_of(self._websocket), transport))

    def connectionLost(self, reason: Failure) -> None:
        (self.wrapper if self.opened else self._websocket).connectionLost(reason)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._websocket, name)
