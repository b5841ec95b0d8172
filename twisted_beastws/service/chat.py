"""The chat: each text goes to everyone who is in the room, its sender too. Nothing is kept."""

from __future__ import annotations

from twisted.logger import Logger

from twisted_beastws.errors import ConnectionClosed
from twisted_beastws.protocol import State, WebSocketProtocol
from twisted_beastws.service.site import Site
from twisted_beastws.wire.closing import CloseReason
from twisted_beastws.wire.http import Request, Response

WELCOME = "Welcome to the chat!"


class Room:
    """Those who talk with each other.

    members: connections from their `join` to their `leave`; one that is closing is still among them.
    """

    log = Logger()

    def __init__(self) -> None:
        self.members: set[WebSocketProtocol] = set()

    def join(self, member: WebSocketProtocol) -> None:
        """Let ``member`` hear what is said from now on."""
        self.members.add(member)

    def leave(self, member: WebSocketProtocol) -> None:
        """Forget ``member``."""
        self.members.discard(member)

    def say(self, text: str) -> None:
        """Send ``text`` to every open member. One that cannot take it loses its connection, the others hear it."""
        # A snapshot: a send may end a connection, whose member then leaves.
        for member in list(self.members):
            if member.state is State.OPEN:
                self._tell(member, text)

    def _tell(self, member: WebSocketProtocol, text: str) -> None:
        try:
            member.send(text)
        except ConnectionClosed:
            pass
        except Exception:
            self.log.failure("could not send to {peer}, which is dropped", peer=member.peer)
            member.abort()


class Chat(WebSocketProtocol):
    """A connection to the service: a member of ``room`` once it is open, a reader of ``site`` before.

    A binary message is refused with 1003: there is no hook for it.
    """

    def __init__(self, room: Room, site: Site) -> None:
        self._room = room
        self._site = site

    def http_requested(self, request: Request) -> Response | None:
        return self._site.answer(request)

    def opened(self) -> None:
        self.log.info("{name} connected", name=_name_of(self.peer))
        self.send(WELCOME)
        self._room.join(self)

    def text_received(self, text: str) -> None:
        self._room.say(text)

    def closed(self, reason: CloseReason) -> None:
        self._room.leave(self)
        self.log.info("{name} disconnected: {reason}", name=_name_of(self.peer), reason=reason)


def _name_of(peer: object) -> str:
    host, port = getattr(peer, "host", None), getattr(peer, "port", None)
    if host is None:
        return str(peer)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
