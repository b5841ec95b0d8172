"""WebSocket next to pages, under twisted.web: ``python under_twisted_web.py [--listen tcp:9003]``.

/ is a page that talks to /echo, a `WebSocketResource`. /greet is a resource of our own: its ``render`` accepts
the request itself: it serves a WebSocket to clients that ask for one, and a page to all others. A Klein handler
does the same, but returns a Deferred that fires when the WebSocket has ended, such as ``request.notifyFinish()``,
or returns a `WebSocketResource`.
"""

from __future__ import annotations

import argparse
import sys

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import react
from twisted.logger import Logger, globalLogBeginner, textFileLogObserver
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from twisted.web.static import Data

from twisted_beastws import WebSocketProtocol, WebSocketResource, WebSocketServerFactory, is_upgrade

PAGE = b"""<!doctype html>
<title>Echo</title>
<form><input autofocus autocomplete="off"> <button>Send</button></form>
<pre></pre>
<script>
const [input, output] = document.querySelectorAll("input, pre")
const socket = new WebSocket(location.origin.replace("http", "ws") + "/echo")
socket.onmessage = ({data}) => output.append(data + "\\n")
socket.onclose = ({code}) => output.append(`closed: ${code}\\n`)
document.forms[0].onsubmit = event => {
  event.preventDefault()
  socket.send(input.value)
  input.value = ""
}
</script>
"""

log = Logger()


class Echo(WebSocketProtocol):
    def text_received(self, text: str) -> None:
        self.send(text)


class Greeter(WebSocketProtocol):
    def text_received(self, text: str) -> None:
        self.send(f"Hello, {text}! You are {self.user}.")


class Greet(Resource):
    isLeaf = True

    def render_GET(self, request: Request) -> bytes | int:
        if not is_upgrade(request):
            return b"Send your name to this WebSocket.\n"
        greeter = Greeter()
        greeter.user = request.getClientAddress().host
        greeter.accept(request).addErrback(self.refused)
        return NOT_DONE_YET

    def refused(self, failure: Failure) -> None:
        # The client has its answer, or has disconnected: nothing is left to do.
        log.info("no WebSocket: {error}", error=failure.value)


async def main(reactor: object, listen: str) -> None:
    factory = WebSocketServerFactory(Echo)
    root = Resource()
    root.putChild(b"", Data(PAGE, "text/html"))
    root.putChild(b"echo", WebSocketResource(factory))
    root.putChild(b"greet", Greet())  # type: ignore[no-untyped-call]
    port: IListeningPort = await serverFromString(reactor, listen).listen(Site(root))
    print("listening on", port.getHost(), flush=True)
    await Deferred()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", default="tcp:9003", help="an endpoint string (default: %(default)s)")
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    react(main, [parser.parse_args().listen])
