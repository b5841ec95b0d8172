"""From the options to the service."""

from __future__ import annotations

from twisted_beastws.server import WebSocketServerFactory
from twisted_beastws.service.app import Served
from twisted_beastws.service.chat import Chat, Room
from twisted_beastws.service.options import Options
from twisted_beastws.service.serving import Serving
from twisted_beastws.service.site import Site


def makeService(options: Options) -> Serving:
    """The service that parsed ``options`` ask for."""
    if options.app is not None:
        return Serving(_factory(options, options.app), options.endpoints, [("ws", "/")])
    room, site = Room(), Site(options["path"])
    chat = _factory(options, lambda: Chat(room, site))
    return Serving(chat, options.endpoints, [("http", "/"), ("ws", options["path"])])


def _factory(options: Options, app: Served | WebSocketServerFactory) -> WebSocketServerFactory:
    if isinstance(app, WebSocketServerFactory):
        return app
    return WebSocketServerFactory(app, origins=options.origins, timeouts=options.timeouts, limits=options.limits)
