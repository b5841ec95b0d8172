"""`WebSocketResource`: a server's factory as a resource of twisted.web."""

from __future__ import annotations

from inspect import isclass
from typing import TYPE_CHECKING, Any

from twisted.python.failure import Failure
from twisted.web.resource import IResource, Resource, getChildForRequest
from twisted.web.server import NOT_DONE_YET

from twisted_beastws.connection.takeover import WebConnection
from twisted_beastws.options import kind_of
from twisted_beastws.protocol import WebSocketProtocol, connection_of
from twisted_beastws.server.factory import WebSocketServerFactory
from twisted_beastws.wire.handshake import is_upgrade

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.web.http import Request


class WebSocketResource(Resource):
    """Serves the WebSockets of a factory in a site: ``root.putChild(b"ws", WebSocketResource(factory))``.

    It is a leaf, so all paths below are its own, too. Each request gets a protocol of the factory; its hooks work as
    on a connection of their own. Any response other than a 101 leaves through twisted.web, which keeps the connection
    as HTTP says. A 101 takes the connection over: the timeouts of the site end, and ours begin. When the connection
    ends, the site's access log gets its line, and ``request.notifyFinish()`` fires, with the failure of the transport
    if the WebSocket was not closed cleanly.

    Over HTTP/2 (RFC 9113 §8.6) a handshake is answered with 501.

    The factory's gates and observers serve these WebSockets, too.

    Raises:
        TypeError: The argument is not a factory.
    """

    isLeaf = True

    def __init__(self, factory: WebSocketServerFactory) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if isclass(factory) or not hasattr(factory, "buildProtocol"):
            raise TypeError(f"factory: give WebSocketServerFactory(YourProtocol), not {kind_of(factory)}")
        self.factory = factory

    def before(self, resource: IResource) -> Resource:
        """Return a resource that serves WebSocket upgrades on any path, and passes all other requests to ``resource``.

        It serves as the root of a site: ``Site(WebSocketResource(factory).before(root))``. The factory's gates decide
        about all requests: a login there is one for the pages, too. With gates, the requests of pages count towards
        the limits on handshakes, and each needs a valid ``Host``.

        Args:
            resource: The resource of all other requests, of any kind: also a leaf, such as a ``WSGIResource``.
        """
        return UpgradesBefore(self, resource)

    def render(self, request: Request) -> int:
        """Serve a request of any method. twisted.web calls this."""
        factory = self.factory
        # A factory with pages of its own builds the protocols of their site, which came here.
        build = factory.build if isinstance(factory, WebSocketServerFactory) else factory.buildProtocol
        _begin(request, build)
        return NOT_DONE_YET


def _begin(request: Request, build: Callable[[Any], Any]) -> None:
    connection = WebConnection(request)
    # The client may have left while another resource, such as a login, held the request.
    if not connection.lost:
        build(request.getClientAddress()).makeConnection(connection)


class UpgradesBefore(Resource):
    """Passes upgrades to a `WebSocketResource`, and all other requests to another resource."""

    # All paths come here; `render` looks for the other resource's children.
    isLeaf = True

    def __init__(self, websockets: WebSocketResource, resource: IResource) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if isclass(resource) or not IResource.providedBy(resource):
            raise TypeError(f"before(resource): give a twisted.web resource, not {kind_of(resource)}")
        self._websockets = websockets
        self._resource = resource

    def render(self, request: Request) -> Any:
        if is_upgrade(request):
            return self._websockets.render(request)
        factory = self._websockets.factory
        if not isinstance(factory, WebSocketServerFactory) or factory.gate is None:
            return getChildForRequest(self._resource, request).render(request)
        _begin(request, lambda address: factory.adopt(PageVisit(self._resource), address))
        return NOT_DONE_YET


class PageVisit(WebSocketProtocol):
    """A request for a page: the server's gates answer it, or the page's resource does."""

    def __init__(self, resource: IResource) -> None:
        self._resource = resource

    def serve(self) -> None:
        # The request has been answered, or its client has left.
        self.accept().addErrback(lambda failure: failure.cleanFailure())

    def http_requested(self, request: Any) -> None:
        """All gates let the request in: return it to twisted.web."""
        connection = connection_of(self)
        connection.observer = None
        http_request = connection.transport.give_back()
        try:
            http_request.render(getChildForRequest(self._resource, http_request))
        except Exception:
            http_request.processingFailed(Failure())
