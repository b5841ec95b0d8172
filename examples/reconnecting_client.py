"""A client that reconnects: ``python reconnecting_client.py [--url ws://127.0.0.1:9001/]``.

It prints the messages of a server, such as chat.py. When the connection is lost, it connects again, after longer delays
while that fails. A failure that another attempt cannot cure, such as a 404, ends the program.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from typing import Any

from twisted.application.internet import ClientService
from twisted.internet.defer import CancelledError
from twisted.internet.protocol import Factory
from twisted.internet.task import react
from twisted.logger import globalLogBeginner, textFileLogObserver

from twisted_beastws import ConnectionClosed, WebSocketClientEndpoint, WebSocketProtocol, reconnecting


async def listen(service: ClientService) -> None:
    """Print the messages of one connection after the other, until the service gives up or stops."""
    while True:
        ws: Any = await service.whenConnected()
        print("connected to", ws.peer, flush=True)
        with suppress(ConnectionClosed):
            async for message in ws:
                print(message, flush=True)
        print("lost:", ws.close_reason, flush=True)


async def main(reactor: Any, url: str) -> None:
    service = reconnecting(WebSocketClientEndpoint(reactor, url), Factory.forProtocol(WebSocketProtocol))
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    try:
        await listen(service)
    except CancelledError:
        pass
    except Exception as error:
        sys.exit(f"gave up: {error}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="ws://127.0.0.1:9001/", help="of the server (default: %(default)s)")
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    react(main, [parser.parse_args().url])
