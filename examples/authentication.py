"""Names and passwords by twisted.cred: ``python authentication.py [--listen tcp:9008] [--passwords FILE]``.

Every request, for the page and for the WebSocket, must carry a name and a password by HTTP Basic; `user` is the
name. The file has a line ``name:password`` for each user, as `FilePasswordDB` reads it: ``echo ada:lovelace >
passwords``. It can contain hashes as well. A browser asks the user once, for the page. Except on the loopback
interface, use TLS: HTTP Basic sends passwords unencrypted.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from typing import Any, ClassVar

from twisted.cred.checkers import FilePasswordDB
from twisted.cred.error import LoginFailed
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import react
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.web.guard import BasicCredentialFactory
from zope.interface import Interface, implementer

from twisted_beastws import Request, Response, WebSocketProtocol, WebSocketServerFactory, is_upgrade

PAGE = """<!doctype html>
<meta charset="utf-8">
<title>Who am I?</title>
<link rel="icon" href="data:,">
<p id="answer">
<script>
const socket = new WebSocket(location.origin.replace("http", "ws"))
socket.onmessage = ({data}) => answer.textContent = data
</script>
"""

BASIC = BasicCredentialFactory(b"example")


class IUser(Interface):
    """The connection of a user after login."""


@implementer(IUser)
@dataclass
class User:
    name: str


@implementer(IRealm)
class Users:
    def requestAvatar(self, avatarId: Any, mind: object, *interfaces: object) -> Any:
        return IUser, User(avatarId.decode()), lambda: None


def credentials(request: Request) -> Any:
    scheme, _, encoded = (request.field("Authorization") or "").partition(" ")
    if scheme.lower() != "basic":
        raise LoginFailed
    return BASIC.decode(encoded.encode("latin-1"), None)


class Greeter(WebSocketProtocol):
    portal: ClassVar[Portal]

    async def http_requested(self, request: Request) -> Response | None:
        try:
            _, self.user, _ = await self.portal.login(credentials(request), None, IUser)
        except LoginFailed:
            challenge = {"WWW-Authenticate": 'Basic realm="example"'}
            return Response(401, headers=challenge, body="Who are you?\n")
        if is_upgrade(request):
            return None
        return Response(200, headers={"Content-Type": "text/html"}, body=PAGE)

    def opened(self) -> None:
        self.send(f"Hello, {self.user.name}!")

    def text_received(self, text: str) -> None:
        self.send(f"{self.user.name} said: {text}")


async def main(reactor: object, listen: str, passwords: str) -> None:
    Greeter.portal = Portal(Users(), [FilePasswordDB(passwords)])
    port: IListeningPort = await serverFromString(reactor, listen).listen(WebSocketServerFactory(Greeter))
    print("listening on", port.getHost(), flush=True)
    await Deferred()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", default="tcp:9008", help="an endpoint string (default: %(default)s)")
    parser.add_argument("--passwords", default="passwords", help="a file (default: %(default)s)")
    options = parser.parse_args()
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    react(main, [options.listen, options.passwords])
