from typing import Any

from twisted.application.reactors import Reactor
from twisted.application.service import ServiceMaker
from twisted.internet.interfaces import IStreamClientEndpointStringParserWithReactor, IStreamServerEndpointStringParser
from twisted.plugin import IPlugin
from zope.interface import implementer

beastws = ServiceMaker(
    "twisted_beastws",
    "twisted_beastws.service",
    "A WebSocket chat, or your own WebSocket application.",
    "beastws",
)
beastws_uvloop = Reactor(
    "beastws-uvloop", "twisted_beastws.uvreactor", "Twisted's asyncio reactor, with TCP on uvloop's own transports."
)


# What parses is imported at the first string, as a service is: others that look for plugins do not pay for it.


@implementer(IPlugin, IStreamServerEndpointStringParser)
class ServerParser:
    prefix = "beastws"

    def parseStreamServer(self, reactor: Any, *args: Any, **kwargs: Any) -> Any:
        from twisted_beastws.streams.endpoints import parse_server

        return parse_server(reactor, args, kwargs)


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor)
class ClientParser:
    prefix = "beastws"

    def parseStreamClient(self, reactor: Any, *args: Any, **kwargs: Any) -> Any:
        from twisted_beastws.streams.endpoints import parse_client

        return parse_client(reactor, args, kwargs)


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor)
class ShortClientParser:
    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def parseStreamClient(self, reactor: Any, *args: Any, **kwargs: Any) -> Any:
        from twisted_beastws.streams.endpoints import parse_short_client

        return parse_short_client(self.prefix, reactor, args, kwargs)


beastws_server = ServerParser()
beastws_client = ClientParser()
ws_client = ShortClientParser("ws")
wss_client = ShortClientParser("wss")
