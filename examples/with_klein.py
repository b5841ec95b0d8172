"""Rooms under Klein: ``python with_klein.py [--listen tcp:9005]``; needs ``pip install klein``.

/rooms/NAME is a WebSocket for clients that ask for one; others get the number of members. /echo is a
`WebSocketResource` that a route returns.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import react
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.web.http import Request
from twisted.web.server import Site

from twisted_beastws import (
    HandshakeError,
    Hub,
    WebSocketProtocol,
    WebSocketResource,
    WebSocketServerFactory,
    is_upgrade,
)

app = Klein()
hub = Hub()


class Talk(WebSocketProtocol):
    def __init__(self, room: str) -> None:
        self.room = room

    async def opened(self) -> None:
        await hub.join(self, self.room)

    async def text_received(self, text: str) -> None:
        await hub.publish(self.room, text)


@app.route("/rooms/<name>")
async def room(request: Request, name: str) -> str | None:
    if not is_upgrade(request):
        return f"{len(hub.members(name))} in {name}\n"
    talk = Talk(name)
    # A refused client has its answer.
    with suppress(HandshakeError):
        await talk.accept(request)
        await talk.when_closed()
    return None


class Echo(WebSocketProtocol):
    def text_received(self, text: str) -> None:
        self.send(text)


echoing = WebSocketResource(WebSocketServerFactory(Echo))


@app.route("/echo")
def echo(request: Request) -> WebSocketResource:
    return echoing


async def main(reactor: object, listen: str) -> None:
    port: IListeningPort = await serverFromString(reactor, listen).listen(Site(app.resource()))
    print("listening on", port.getHost(), flush=True)
    await Deferred()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", default="tcp:9005", help="an endpoint string (default: %(default)s)")
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    react(main, [parser.parse_args().listen])
