"""TLS, HTTP and WebSocket on one port: ``python one_port.py [--listen tcp:9004] [--identity FILE]``.

The first bytes of a connection show its protocol. Twisted handles TLS, and the program looks at the first bytes
inside it again. A request for an upgrade is accepted by a buffered handshake, as in Beast. Any other request goes
to twisted.web, together with the connection. The page is at http://localhost:9004/ and https://localhost:9004/, and
talks to the WebSocket there.

TLS needs a key and its certificate in one file. For a trial, make one with:

  openssl req -x509 -nodes -subj /CN=test -addext subjectAltName=DNS:localhost -keyout identity.pem -out identity.pem
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolNegotiationFactory, ISSLTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.task import react
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.protocols.policies import TimeoutMixin
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import Data
from zope.interface import implementer

from twisted_beastws import WebSocketProtocol, WebSocketServerFactory

PAGE = b"""<!doctype html>
<meta charset="utf-8">
<title>One port</title>
<p>This page came by <b id="page"></b>, and its WebSocket <b id="socket">has not answered yet</b>.
<script>
page.textContent = location.protocol
const address = location.origin.replace("http", "ws") + "/"
const connection = new WebSocket(address)
connection.onopen = () => connection.send(`answers at ${address}`)
connection.onmessage = ({data}) => socket.textContent = data
connection.onclose = ({code}) => socket.textContent = `was closed with ${code}`
</script>
"""

# RFC 8446 §5.1: a record of TLS's handshake.
TLS = b"\x16"
WEBSOCKET = re.compile(rb"\r\nupgrade:[ \t]*websocket\b", re.IGNORECASE)
LONGEST = 1 << 14  # bytes of a head
PATIENCE = 30.0  # seconds until the protocol is known


class Echo(WebSocketProtocol):
    """Begins with the bytes that were read before this protocol took the connection over."""

    buffered = b""

    def serve(self) -> None:
        self.accept(buffered=self.buffered).addErrback(self.refused)

    def refused(self, failure: Failure) -> None:
        self.log.info("no WebSocket for {peer}: {error}", peer=self.peer, error=failure.value)
        # The client has its answer, and HTTP may have kept the connection.
        self.transport.loseConnection()  # type: ignore[union-attr]

    def text_received(self, text: str) -> None:
        self.send(text)


class Sniffer(Protocol, TimeoutMixin):
    """Reads until the protocol of the connection is known, and then hands the connection over."""

    factory: Any
    transport: Any
    speaker: Protocol | None = None
    read = b""

    def connectionMade(self) -> None:
        self.setTimeout(PATIENCE)  # type: ignore[no-untyped-call]

    def dataReceived(self, data: bytes) -> None:
        if self.speaker is not None:
            self.speaker.dataReceived(data)
            return
        self.read += data
        head, end, _ = self.read.partition(b"\r\n\r\n")
        if self.factory.tls and head.startswith(TLS) and not ISSLTransport.providedBy(self.transport):
            self.speak(self.factory.tls)
        elif WEBSOCKET.search(head):
            self.speak_websocket()
        elif end or len(head) > LONGEST:
            self.speak(self.factory.site)

    def speak(self, factory: Any) -> None:
        self.leave_to(factory.buildProtocol(self.transport.getPeer())).dataReceived(self.read)

    def speak_websocket(self) -> None:
        echo = self.factory.websockets.buildProtocol(self.transport.getPeer())
        echo.buffered = self.read
        self.leave_to(echo)

    def leave_to(self, speaker: Protocol) -> Protocol:
        self.setTimeout(None)  # type: ignore[no-untyped-call]
        self.speaker = speaker
        speaker.makeConnection(self.transport)
        return speaker

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.setTimeout(None)  # type: ignore[no-untyped-call]
        if self.speaker is not None:
            self.speaker.connectionLost(reason)


@implementer(IProtocolNegotiationFactory)
class OnePort(Factory):
    protocol: Any = Sniffer

    def __init__(self, identity: PrivateCertificate | None) -> None:
        root = Resource()
        root.putChild(b"", Data(PAGE, "text/html"))
        self.site = Site(root)
        self.websockets = WebSocketServerFactory(Echo)
        self.tls = TLSMemoryBIOFactory(identity.options(), False, self) if identity else None

    def acceptableProtocols(self) -> list[bytes]:
        # RFC 7301 §3.2: browsers offer it, and no protocol in common would end TLS.
        return [b"http/1.1"]


async def main(reactor: object, options: argparse.Namespace) -> None:
    identity = PrivateCertificate.loadPEM(options.identity.read_bytes()) if options.identity else None
    port: IListeningPort = await serverFromString(reactor, options.listen).listen(OnePort(identity))
    print("listening on", port.getHost(), flush=True)
    await Deferred()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listen", default="tcp:9004", help="an endpoint string (default: %(default)s)")
    parser.add_argument("--identity", type=Path, help="a PEM file (default: no TLS)")
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    options = parser.parse_args()
    react(main, [options])
