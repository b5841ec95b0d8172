"""A chat in your own program, with a coroutine for each connection: ``python chat.py [--listen tcp:9001]``.

Each text goes to all clients, including its sender. A binary message closes its sender's connection with 1003. On
SIGINT and SIGTERM all connections close with 1001.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IReactorCore
from twisted.internet.task import react
from twisted.logger import globalLogBeginner, textFileLogObserver

from twisted_beastws import CloseCode, ConnectionClosed, State, WebSocketProtocol, WebSocketServerFactory

members: set[WebSocketProtocol] = set()


async def chat(ws: WebSocketProtocol) -> None:
    ws.send("Welcome to the chat!")
    members.add(ws)
    try:
        async for message in ws:
            if isinstance(message, bytes):
                ws.close(CloseCode.UNKNOWN_DATA, "text only")
            else:
                say(message)
    finally:
        members.discard(ws)


def say(text: str) -> None:
    for member in list(members):
        if member.state is State.OPEN:
            with suppress(ConnectionClosed):
                member.send(text)


async def main(reactor: IReactorCore, listen: str) -> None:
    factory = WebSocketServerFactory(chat)
    port: IListeningPort = await serverFromString(reactor, listen).listen(factory)
    reactor.addSystemEventTrigger("before", "shutdown", factory.drain)
    print("listening on", port.getHost(), flush=True)
    await Deferred()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", default="tcp:9001", help="an endpoint string (default: %(default)s)")
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    react(main, [parser.parse_args().listen])
