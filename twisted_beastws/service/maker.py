"""From the options to the service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted_beastws.hub import Hub
from twisted_beastws.server import WebSocketServerFactory
from twisted_beastws.service.admin import admin_factory
from twisted_beastws.service.app import Served
from twisted_beastws.service.authentication import Authenticated
from twisted_beastws.service.chat import Chat, HubService
from twisted_beastws.service.extending import extended
from twisted_beastws.service.logs import reopen_log_files
from twisted_beastws.service.metering import Meter, Metered
from twisted_beastws.service.metrics import Metrics
from twisted_beastws.service.operated import Operated
from twisted_beastws.service.options import Options
from twisted_beastws.service.serving import Serving
from twisted_beastws.service.site import Site
from twisted_beastws.service.subprotocol import CHAT_V1

if TYPE_CHECKING:
    from twisted.application.service import IService

    from twisted_beastws.service.certificates import ReloadableEndpoint


def makeService(options: Options) -> Operated:
    """The service that parsed ``options`` ask for."""
    from twisted.internet import reactor

    helpers: list[IService] = []
    reloads = [reopen_log_files, *(endpoint.reload for _, endpoint in options.endpoints)]
    hub: Any = None
    if options.app is None:
        hub = options.hub
        helpers.append(HubService(hub))
        serving = _serving_chat(options, hub)
    else:
        hub = getattr(options.app, "hub", None)
        serving = Serving(_factory(options, options.app), options.endpoints, [("ws", "/")], options.farewell)
    factory = serving.factory
    if options.checkers is not None:
        factory.make = extended(factory.make, Authenticated, checkers=options.checkers)
    if options.access_log is not None:
        helpers.append(options.access_log)
        reloads.append(options.access_log.reopen)
    if options.admin is not None or options.access_log is not None:
        # The outermost: it sees what the others answer.
        meter = Meter(options.access_log)
        factory.make = extended(factory.make, Metered, meter=meter)
    if options.admin is not None:
        helpers.append(_serving_admin(options.admin, Metrics(factory, meter, hub), lambda: serving.ready))
        reloads.append(options.admin[1].reload)
    return Operated(reactor, serving, helpers, reloads)


def _serving_admin(endpoint: tuple[str, ReloadableEndpoint], metrics: Metrics, ready: Callable[[], bool]) -> Serving:
    return Serving(admin_factory(metrics, ready), [endpoint], [("http", "/metrics")], option="admin")


def _serving_chat(options: Options, hub: Hub) -> Serving:
    chat = _factory(options, partial(Chat, hub, options["path"], Site(options["path"])), (CHAT_V1,))
    return Serving(chat, options.endpoints, [("http", "/"), ("ws", options["path"])], options.farewell)


def _factory(
    options: Options, app: Served | WebSocketServerFactory, subprotocols: Sequence[str] = ()
) -> WebSocketServerFactory:
    if isinstance(app, WebSocketServerFactory):
        return app
    return WebSocketServerFactory(
        app,
        subprotocols=subprotocols,
        origins=options.origins,
        timeouts=options.timeouts,
        limits=options.limits,
    )
