"""Endpoints whose certificates can be read anew while they listen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IOpenSSLContextFactory, IStreamServerEndpoint
from twisted.logger import Logger
from zope.interface import directlyProvides, implementer, providedBy

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IProtocolFactory


@implementer(IOpenSSLContextFactory)
class ChangingContext:
    """The contexts of another context factory, which may be replaced: TLS asks for one for each connection."""

    def __init__(self, current: Any) -> None:
        self.current = current

    def getContext(self) -> Any:
        return self.current.getContext()


class ReactorProxy:
    """``reactor``, but for what is done with the context factories that `listenSSL` gets."""

    def __init__(self, reactor: Any) -> None:
        self.below = reactor
        self.contexts: list[Any] = []
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.below, name)


class _ListeningReactor(ReactorProxy):
    def listenSSL(self, port: int, factory: Any, contextFactory: Any, *arguments: Any, **options: Any) -> Any:
        if IOpenSSLContextFactory.providedBy(contextFactory):
            contextFactory = ChangingContext(contextFactory)
            self.contexts.append(contextFactory)
        return self.below.listenSSL(port, factory, contextFactory, *arguments, **options)


class _ReadingReactor(ReactorProxy):
    """It listens to nothing."""

    def listenSSL(self, port: int, factory: Any, contextFactory: Any, *arguments: Any, **options: Any) -> None:
        if IOpenSSLContextFactory.providedBy(contextFactory):
            # What would fail each connection fails here.
            contextFactory.getContext()
            self.contexts.append(contextFactory)


@implementer(IStreamServerEndpoint)
class ReloadableEndpoint:
    """The endpoint that ``description`` says, as of `serverFromString`, which raises what that raises.

    What of it listens by the reactor's ``listenSSL``, as ``ssl:`` does, also behind ``haproxy:``, can be reloaded.
    """

    log = Logger()

    def __init__(self, reactor: Any, description: str) -> None:
        self._description = description
        self._reactor = _ListeningReactor(reactor)
        self._endpoint = serverFromString(self._reactor, description)

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """See ``IStreamServerEndpoint``."""
        return self._endpoint.listen(protocolFactory)  # type: ignore[no-any-return, unused-ignore]

    def reload(self) -> None:
        """Read the key and the certificates again, for the connections from now on; if that fails they stay."""
        if not self._reactor.contexts:
            return
        try:
            contexts = self._read()
        except Exception as error:
            self.log.error(
                "{endpoint}: the certificate stays as it was: {error}", endpoint=self._description, error=error
            )
            return
        for changing, context in zip(self._reactor.contexts, contexts, strict=True):
            changing.current = context
        self.log.info("{endpoint}: the certificate was read again", endpoint=self._description)

    def _read(self) -> list[Any]:
        reading = _ReadingReactor(self._reactor.below)
        failures: list[Any] = []
        listening = serverFromString(reading, self._description).listen(None)
        listening.addErrback(failures.append)
        if failures:
            failures[0].raiseException()
        return reading.contexts
