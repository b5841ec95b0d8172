"""A server in the style of Boost.Beast, every step by hand: ``python beast_style.py [--listen tcp:9002]``.

It reads requests from each connection. It accepts a request for an upgrade, with a decorated answer, and echoes the
messages. It answers any other request as HTTP, and reads the next one.
"""

from __future__ import annotations

import argparse
import sys

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import react
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.python.failure import Failure

from twisted_beastws import HandshakeError, Response, State, WebSocketProtocol, WebSocketServerFactory, is_upgrade


def decorate(response: Response) -> None:
    """Change the answer to a handshake before it leaves, also if the handshake fails."""
    response.headers.setRawHeaders("Server", ["beast_style"])
    if response.status == 101:
        response.headers.setRawHeaders("Set-Cookie", ["seen=1; HttpOnly; SameSite=Strict"])


class Session(WebSocketProtocol):
    def serve(self) -> None:
        Deferred.fromCoroutine(self.run()).addErrback(self.ended)

    async def run(self) -> None:
        while self.state is State.CONNECTING:
            try:
                request = await self.read_request()
                if is_upgrade(request):
                    await self.accept(request, decorator=decorate)
                else:
                    await self.respond(Response(200, body=f"There is a WebSocket echo at {request.path}, too.\n"))
            except HandshakeError as error:
                # The client has its answer. If HTTP keeps the connection, it may try again.
                self.log.info("no WebSocket for {peer}: {error}", peer=self.peer, error=error)
        if self.state is State.OPEN:
            await self.echo()

    async def echo(self) -> None:
        async for message in self:
            self.send(message)
            await self.drain()

    def ended(self, failure: Failure) -> None:
        self.log.info("{peer} is gone: {error}", peer=self.peer, error=failure.value)
        self.abort()


async def main(reactor: object, listen: str) -> None:
    port: IListeningPort = await serverFromString(reactor, listen).listen(WebSocketServerFactory(Session))
    print("listening on", port.getHost(), flush=True)
    await Deferred()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", default="tcp:9002", help="an endpoint string (default: %(default)s)")
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    react(main, [parser.parse_args().listen])
