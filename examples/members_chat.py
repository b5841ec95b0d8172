"""A chat for members only, with the parts of the service: ``python members_chat.py [--listen tcp:9011]``.

``--passwords FILE`` has a line ``name:password`` for each member; ``twistd beastws --hash-password NAME`` prints lines
with a hash. The page asks its visitor for the name and the password, and the chat shows the name with each text.
``--trust-proxy 127.0.0.1`` believes the addresses of clients that a proxy on this machine forwards. SIGHUP opens the
access log again and reads certificates again. SIGTERM closes all connections with 1001.
"""

from __future__ import annotations

import argparse
import sys

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IReactorCore
from twisted.internet.task import react
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.web.resource import Resource
from twisted.web.static import Data

from twisted_beastws import (
    AccessLog,
    Hub,
    Limits,
    PasswordLogin,
    ReloadableEndpoint,
    Router,
    TrustedProxies,
    WebSocketProtocol,
    WebSocketServerFactory,
    drain_at_shutdown,
)

PAGE = b"""<!doctype html>
<meta charset="utf-8">
<title>Members</title>
<link rel="icon" href="data:,">
<form><input autofocus></form>
<pre></pre>
<script>
const [form, pre] = [document.querySelector("form"), document.querySelector("pre")]
const socket = new WebSocket(location.origin.replace("http", "ws") + "/chat")
socket.onmessage = ({data}) => pre.append(data + "\\n")
form.onsubmit = () => { socket.send(form[0].value); form.reset(); return false }
</script>
"""

hub = Hub()


class Chat(WebSocketProtocol):
    def opened(self) -> None:
        hub.join(self, "members")

    def text_received(self, text: str) -> None:
        hub.publish("members", f"{self.user}: {text}")


async def main(reactor: IReactorCore, options: argparse.Namespace) -> None:
    pages = Resource()
    pages.putChild(b"", Data(PAGE, "text/html"))
    factory = WebSocketServerFactory(Router({"/chat": Chat}, pages), limits=Limits(max_connections_per_peer=20))
    factory.add_gate(PasswordLogin([f"file:{options.passwords}"], max_failures=10))
    factory.add_observer(log := AccessLog(options.access_log))
    factory.trust_proxies(TrustedProxies(options.trust_proxy))
    endpoint = ReloadableEndpoint(reactor, options.listen)
    drain_at_shutdown(reactor, factory, seconds=5, reloads=[log.reopen, endpoint.reload])
    port: IListeningPort = await endpoint.listen(factory)
    print("listening on", port.getHost(), flush=True)
    await Deferred()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", default="tcp:9011", help="an endpoint string (default: %(default)s)")
    parser.add_argument("--passwords", default="passwords", help="the members' file (default: %(default)s)")
    parser.add_argument("--access-log", default="-", help="a file, or - for the standard output (default: %(default)s)")
    parser.add_argument("--trust-proxy", default=[], action="append", help="the address of a proxy; may be repeated")
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    react(main, [parser.parse_args()])
