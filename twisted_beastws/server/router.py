"""`Router`: one server for many paths. It selects the route of a request, and then makes its protocol."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from inspect import isclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote_to_bytes

from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from twisted_beastws.connection.observer import Observer, Observers, joined
from twisted_beastws.connection.option_changes import use
from twisted_beastws.connection.running import settled
from twisted_beastws.errors import HandshakeError
from twisted_beastws.options import kind_of
from twisted_beastws.protocol import WebSocketProtocol, connection_of, share
from twisted_beastws.server.factory import Handler, WebSocketServerFactory
from twisted_beastws.wire.handshake import failure
from twisted_beastws.wire.http import Request, Response

if TYPE_CHECKING:
    from twisted.web.resource import IResource, Resource

Target = Callable[[], WebSocketProtocol] | Handler | WebSocketServerFactory
"""The target of a path: a `WebSocketProtocol` class, a coroutine function or a factory."""

_NAME = re.compile(r"\{([^{}]*)\}")


class Route:
    """One path and its target.

    Attributes:
        template: The path, such as ``/chat/{room}``.
        factory: Makes the protocols.
        own_options: The target is a factory, and its options apply to its connections.
    """

    def __init__(self, template: str, target: Target) -> None:
        if not isinstance(template, str) or not template.startswith("/"):
            raise ValueError(
                f"Router: {template!r} is no path: give one that starts with a slash, such as /chat/{{room}}"
            )
        self.template = template
        self.own_options = isinstance(target, WebSocketServerFactory)
        self.factory = target if isinstance(target, WebSocketServerFactory) else _factory_of(template, target)
        self._names: list[str] = []
        parts = [self._part(segment) for segment in template.split("/")]
        self._pattern = re.compile("/".join(parts))
        self.shape = "/".join("{}" if _NAME.fullmatch(segment) else segment for segment in template.split("/"))

    def _part(self, segment: str) -> str:
        parameter = _NAME.fullmatch(segment)
        if parameter is None:
            if "{" in segment or "}" in segment:
                raise ValueError(
                    f"Router: {self.template!r}: a parameter stands for a whole segment, as in /chat/{{room}}"
                )
            return re.escape(segment)
        name = parameter[1]
        if not name.isidentifier() or name in self._names:
            raise ValueError(f"Router: {self.template!r}: give each parameter a name of its own, such as {{room}}")
        self._names.append(name)
        return "([^/]+)"

    def match(self, path: str) -> Mapping[str, str] | None:
        """Return the parameters of a path, percent-decoded, or None if the path does not match."""
        found = self._pattern.fullmatch(path)
        if found is None:
            return None
        try:
            values = [unquote_to_bytes(value).decode("utf-8") for value in found.groups()]
        except UnicodeDecodeError:
            return None
        return MappingProxyType(dict(zip(self._names, values, strict=True)))


class Router:
    """Selects the class, coroutine function or factory that serves a request, by the request's path.

    Give it to a `WebSocketServerFactory`, or name it by ``--app``::

        router = Router({"/chat/{room}": Chat, "/feed": feed})
        endpoint.listen(WebSocketServerFactory(router))

    A parameter such as ``{room}`` stands for one whole segment of the path, which is not empty;
    ``request.path_parameters["room"]`` is its value, percent-decoded. A path without parameters takes precedence
    over one with parameters; otherwise the first match serves. A path without a route gets 404. Methods other than GET
    get 405, unless the target's ``http_requested`` answers them.

    Args:
        routes: The target of each path. If a target is a factory, its options apply to its connections in place of the
            options of the factory that has this router. The latter still counts them. The gates and observers of both
            factories serve them, those of the router's first.
        default: The target of all other paths. With a twisted.web resource, twisted.web reads the connections, and the
            resource answers all plain HTTP requests. None answers 404.

    Raises:
        ValueError: A path cannot be matched, or occurs twice.
        TypeError: A target cannot serve.
    """

    def __init__(self, routes: Mapping[str, Target], default: Target | IResource | Resource | None = None) -> None:
        if not isinstance(routes, Mapping):
            raise TypeError(f'Router(routes): give a mapping such as {{"/chat": Chat}}, not {kind_of(routes)}')
        made = [Route(template, target) for template, target in routes.items()]
        shapes: dict[str, str] = {}
        for route in made:
            other = shapes.setdefault(route.shape, route.template)
            if other is not route.template:
                raise ValueError(f"Router: {other!r} and {route.template!r} match the same paths")
        # Python's sort is stable, so it keeps the order of the mapping.
        self._routes = sorted(made, key=lambda route: "{}" in route.shape)
        self._default: Route | None = None
        if default is not None and not is_resource(default):
            self._default = Route("/", cast("Target", default))
        elif default is not None:
            self.pages = lambda factory: site_before(factory, default)

    @property
    def _all(self) -> list[Route]:
        return self._routes if self._default is None else [*self._routes, self._default]

    def __call__(self) -> WebSocketProtocol:
        """Make the protocol that reads the requests of a connection."""
        return RoutedProtocol(self)

    @property
    def observed(self) -> bool:
        """Whether a target has an observer of its own."""
        return any(route.factory.observer is not None for route in self._all)

    def find(self, path: str) -> tuple[Route, Mapping[str, str]] | None:
        """Return the route for a path and the path's parameters, or None."""
        for route in self._routes:
            parameters = route.match(path)
            if parameters is not None:
                return route, parameters
        return None if self._default is None else (self._default, MappingProxyType({}))


class RoutedProtocol(WebSocketProtocol):
    """Reads the requests of a connection, until the protocol that a route made takes the connection over."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.admitted: tuple[WebSocketServerFactory, WebSocketProtocol] | None = None
        self.settings: Any = None
        self.observer: Observer | None = None

    def makeConnection(self, transport: Any) -> None:
        connection = connection_of(self)
        if connection.observer is None and self.router.observed:
            # The connection asks for an observer before the route is known.
            connection.observer = Observers(())
        self.observer = connection.observer
        super().makeConnection(transport)

    async def http_requested(self, request: Request) -> Response | None:
        connection = connection_of(self)
        self._dismiss()
        connection.observer = self.observer
        if self.settings is None:
            self.settings = connection.settings
        elif connection.settings is not self.settings:
            use(connection, self.settings)
        found = self.router.find(request.path)
        if found is None:
            return Response(404, headers={"Content-Type": "text/plain"}, body="There is nothing at this path.\n")
        route, request.path_parameters = found
        target = self._make(route)
        gate = route.factory.gate
        answer: Response | None = None if gate is None else await settled(gate(request, target))
        if answer is None:
            answer = await settled(target.http_requested(request))
        if answer is None and request.method != "GET":
            # RFC 9110 §15.5.6
            headers = {"Allow": "GET", "Content-Type": "text/plain"}
            return Response(405, headers=headers, body="Only GET is allowed here.\n")
        return answer

    def _make(self, route: Route) -> WebSocketProtocol:
        connection = connection_of(self)
        if route.own_options:
            process = self.settings
            use(connection, replace(route.factory.settings, clock=process.clock, budget=process.budget))
        target = route.factory.make()
        if not isinstance(target, WebSocketProtocol):
            raise TypeError(f"{route.template}: make() gave {kind_of(target)}, not a WebSocketProtocol")
        target.factory = route.factory if route.own_options else self.factory
        share(target, connection)
        if self.user is not None:
            target.user = self.user
        connection.successor = target
        Protocol.makeConnection(target, connection.transport)
        if route.own_options:
            self.admitted = (route.factory, target)
            connection.observer = joined([each for each in (self.observer, route.factory.observer) if each is not None])
        return target

    async def upgrade_requested(self, request: Request) -> Response | None:
        target: Any = connection_of(self).successor
        if self.admitted is not None:
            factory, _ = self.admitted
            try:
                factory.admission.arrive(target, factory.settings.limits, self.peer)
                factory.admit(target)
            except HandshakeError as error:
                return failure(error, request)
            factory.connections.add(target)
        answer: Response | None = await settled(target.upgrade_requested(request))
        return answer

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        target = connection_of(self).application
        if target is not None and target is not self:
            target.connectionLost(reason)
        else:
            super().connectionLost(reason)
        self._dismiss()

    def _dismiss(self) -> None:
        """Let a route's own factory forget the protocol that it made."""
        admitted, self.admitted = self.admitted, None
        if admitted is not None:
            factory, target = admitted
            factory.forget(target)


def is_resource(value: object) -> bool:
    """Return whether a default is a twisted.web resource."""
    if isclass(value) or not hasattr(value, "render"):
        return False
    from twisted.web.resource import IResource

    return bool(IResource.providedBy(value))


def site_before(factory: WebSocketServerFactory, resource: Any) -> Any:
    """Return a site that serves the factory's WebSockets, and answers other requests with the resource."""
    from twisted.web.server import Site

    from twisted_beastws.web.resource import WebSocketResource

    return Site(WebSocketResource(factory).before(resource))


def _factory_of(template: str, target: Any) -> WebSocketServerFactory:
    if isclass(target) and issubclass(target, WebSocketProtocol) and target.serve is not WebSocketProtocol.serve:
        raise TypeError(f"Router: {template!r}: {target.__qualname__} overrides serve(), which reads requests itself")
    try:
        return WebSocketServerFactory(target)
    except TypeError as error:
        raise TypeError(f"Router: {template!r}: {error}") from None
