"""`ASGIFactory`: serve the WebSockets of an ASGI application."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, TimeoutError
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_beastws.asgi.conversation import GONE, Conversation
from twisted_beastws.asgi.events import Application, scope_of
from twisted_beastws.asgi.lifespan import Lifespan
from twisted_beastws.connection.awaiting import awaitable
from twisted_beastws.connection.running import settled
from twisted_beastws.options import Decorator, kind_of
from twisted_beastws.protocol import WebSocketProtocol, connection_of
from twisted_beastws.server.factory import WebSocketServerFactory
from twisted_beastws.server.router import is_resource, site_before
from twisted_beastws.wire.closing import CloseReason
from twisted_beastws.wire.handshake import is_upgrade
from twisted_beastws.wire.http import Request, Response

log = Logger()

CLOSE_TIMEOUT = 10.0
"""Seconds for an application to return after its connection ended (Daphne's ``application_close_timeout``)."""


class ASGIFactory(WebSocketServerFactory):
    """Serves the WebSockets of an ASGI application, on an asyncio reactor::

        asyncioreactor.install()
        endpoint.listen(ASGIFactory(application))

    The application's ``lifespan`` starts when the factory begins to listen. Connections wait until the startup is
    over. `drain` ends with the shutdown of the lifespan. The factory answers plain HTTP requests with 404.

    Args:
        application: An ASGI 3 application. If it raises, the factory logs that, and answers 500 or closes with 1011.
        root_path: The path below which the application is mounted, if a proxy removes it from the requests. With
            ``TrustedProxies(prefix=True)`` a proxy can forward another one for each request.
        default: A twisted.web resource that answers plain HTTP requests; None answers 404.
        close_timeout: Seconds for the application to return after its connection ended, 10 by default. Then it is
            cancelled.
        options: The options of `WebSocketServerFactory`.

    Attributes:
        conversations: The runs of the application that have not returned.
        lifespan: The application's lifespan, with its state and the error of a failed startup.
    """

    def __init__(
        self,
        application: Application,
        *,
        root_path: str = "",
        default: Any = None,
        close_timeout: float = CLOSE_TIMEOUT,
        decorator: Decorator | None = None,
        **options: Any,
    ) -> None:
        if not callable(application):
            raise TypeError(f"application: give an ASGI application, not {kind_of(application)}")
        if default is not None and not is_resource(default):
            raise TypeError(f"default: give a twisted.web resource, not {kind_of(default)}")
        if root_path and (not root_path.startswith("/") or root_path.endswith("/")):
            raise ValueError(f"root_path={root_path!r}: give a path such as /app, with no slash at its end")
        super().__init__(partial(ASGIProtocol, self), decorator=partial(_decorate, self, decorator), **options)
        if default is not None:
            self.serve_pages(site_before(self, default))
        self.application = application
        self.root_path = root_path
        self.close_timeout = close_timeout
        self.lifespan = Lifespan(application)
        self.conversations: set[Conversation] = set()
        self.accepting: dict[int, Conversation] = {}

    def root_path_of(self, request: Request, transport: Any) -> str:
        """Return the path below which the application is mounted, as a trusted proxy forwards it or as it was given."""
        forwarded = "" if self.prefix_of is None else self.prefix_of(transport.getPeer(), request)
        return forwarded or self.root_path

    def startFactory(self) -> None:
        """Run the application's startup in the next turn of the reactor. Twisted calls this before it listens."""
        self._clock().callLater(0, self.lifespan.start)

    def drain(self, *args: Any, **kwargs: Any) -> Deferred[None]:
        """Drain as `WebSocketServerFactory.drain` does, wait for the application to return, and run its shutdown."""
        return awaitable(super().drain(*args, **kwargs).addCallback(self._stop_application))

    def _stop_application(self, result: object) -> Deferred[None]:
        # An application that uses threads needs the reactor until it returns. It may ignore its cancellation.
        ended = DeferredList([conversation.when_returned() for conversation in self.conversations])
        ended.addTimeout(2 * self.close_timeout, self._clock()).addErrback(_ignored)
        return ended.addCallback(lambda _: self.lifespan.stop())


_NO_PAGES = "This port serves only the WebSockets of an ASGI application, and no pages.\n"


class ASGIProtocol(WebSocketProtocol):
    """A connection to an ASGI application. Each upgrade request has its own `Conversation`."""

    def __init__(self, asgi: ASGIFactory) -> None:
        self.asgi = asgi
        self.conversation: Conversation | None = None

    def http_requested(self, request: Request) -> Response | None:
        return None if is_upgrade(request) else Response(404, body=_NO_PAGES)

    async def upgrade_requested(self, request: Request) -> Response | None:
        asgi, connection = self.asgi, connection_of(self)
        await asgi.lifespan.start()
        if asgi.lifespan.error is not None:
            return Response(503)
        self._forget()
        scope = scope_of(
            request,
            secure=ISSLTransport.providedBy(connection.transport),
            client=self.peer,
            server=connection.transport.getHost(),
            root_path=asgi.root_path_of(request, connection.transport),
            state=asgi.lifespan.state,
        )
        conversation = Conversation(self, connection.settings.limits, connection.clock, asgi.close_timeout)
        self.conversation = conversation
        asgi.conversations.add(conversation)
        conversation.when_returned().addCallback(lambda _: asgi.conversations.discard(conversation))
        # The library calls the hooks of an instance directly.
        self.text_received = self.binary_received = conversation.received  # type: ignore[method-assign, assignment]
        answer = await conversation.begin(asgi.application, scope)
        if answer is None:
            self.subprotocol = conversation.subprotocol
            if conversation.headers is not None:
                asgi.accepting[id(request)] = conversation
        else:
            self._forget()
        return answer

    def opened(self) -> None:
        if self.conversation is not None:
            self.conversation.opening.callback(None)

    def closed(self, reason: CloseReason) -> None:
        if self.conversation is not None:
            self.conversation.lost(reason)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._forget()

    def _forget(self) -> None:
        """End the conversation of a request that did not become a WebSocket."""
        conversation, self.conversation = self.conversation, None
        if conversation is not None:
            conversation.lost(self.close_reason or GONE)


def _ignored(failure: Failure) -> None:
    failure.trap(TimeoutError)


async def _decorate(asgi: ASGIFactory, decorator: Decorator | None, response: Response) -> None:
    """Add the fields of the application to a 101."""
    conversation = asgi.accepting.pop(id(response.request), None)
    if conversation is not None and conversation.headers is not None and response.status == 101:
        for name, values in conversation.headers.getAllRawHeaders():
            for value in values:
                response.headers.addRawHeader(name, value)
    if decorator is not None:
        await settled(decorator(response))
