"""The chat: each text goes to every member of the room, its sender included."""

from __future__ import annotations

from secrets import token_hex
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_beastws.hub import Hub, NotAllowed, PublishError, PublishUnknown, Roster
from twisted_beastws.protocol import State, WebSocketProtocol, connection_of
from twisted_beastws.server.log_text import host_of
from twisted_beastws.service import subprotocol
from twisted_beastws.service.access.identity import BearerTokens
from twisted_beastws.service.access.sessions import FORBIDDEN, UNAUTHORIZED
from twisted_beastws.service.access.tokens import InvalidToken, TokenUser, rights_of
from twisted_beastws.service.chat_limits import ChatLimits
from twisted_beastws.service.notices import Notices
from twisted_beastws.service.site import Site
from twisted_beastws.service.subprotocol import CHAT_V1, BadCommand, ChatEntry, event
from twisted_beastws.wire.closing import CloseReason
from twisted_beastws.wire.handshake import is_upgrade, is_visit
from twisted_beastws.wire.http import Request, Response

WELCOME = "Welcome to the chat!"

OTHER_ROOM = "the token does not allow this room"

TOKEN_PATIENCE = 10.0
"""Seconds that a client has for a token as its first message."""


class HubService(Service):
    """Connects a hub's backplane when it starts, and disconnects it when it stops."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self.hub.start()

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        return self.hub.stop()


class Chat(WebSocketProtocol):
    """A connection to the service: a member of a room of ``hub`` once it is open, a reader of ``site`` before.

    Clients that agree on the subprotocol ``chat.v1+json`` have names and notices, as docs/chat.md describes; a name by
    which the service let a client in is the client's name. Other clients send and get plain texts. A binary message is
    refused with 1003: there is no hook for it.

    Args:
        hub: has the rooms.
        path: The path of the common room. ``path/NAME`` is another room.
        site: has the pages.
        notices: announces joins and leaves to rooms. All connections of a hub share it.
        limits: the rates of joins and messages, shared in the same way.
        tokens: checks the tokens that clients send as messages; None if the service has no tokens.
    """

    log = Logger()

    def __init__(
        self,
        hub: Hub,
        path: str,
        site: Site,
        notices: Notices,
        limits: ChatLimits,
        tokens: BearerTokens | None = None,
    ) -> None:
        self._hub = hub
        self._path = path
        self._site = site
        self._notices = notices
        self._limits = limits
        self._tokens = tokens
        self._deadline: Any = None
        self._messages = limits.bucket()
        self._room = ""
        self._entry = ChatEntry(None, None)
        self._present = False
        self._key = ""

    @property
    def name(self) -> str | None:
        """The member's name, if it has one."""
        return self._entry.name

    def http_requested(self, request: Request) -> Response | None:
        room = subprotocol.room_of(request.path, self._path)
        self._room = room or ""
        if room is not None and is_visit(request) and subprotocol.is_entry(request.query):
            return self._answer_for_handshake(request)
        if not room:
            return self._site.answer(request)
        # With a chat at /, every other path is a room, and none is a page.
        if self._path == "/" and not is_upgrade(request):
            return self._site.answer(request)
        return self._site.answer_visit(request)

    def upgrade_requested(self, request: Request) -> Response | None:
        if self.subprotocol == CHAT_V1:
            try:
                self._entry = subprotocol.entry_of(request.query)
            except BadCommand as error:
                return Response(400, body=f"{error}\n")
            if self.user is not None:
                self._entry = self._entry._replace(name=str(self.user))
        if not rights_of(self).may_join(self._room):
            return Response(403, body=f"{OTHER_ROOM}\n")
        return self._limits.refuse_join(self, connection_of(self).clock.seconds())

    def _answer_for_handshake(self, request: Request) -> Response:
        """Return the answer that a handshake with this address would get; 426 if it would be accepted.

        A page in a browser never sees the answer to a handshake that failed, so it asks a second time in this way.
        """
        try:
            subprotocol.entry_of(request.query)
        except BadCommand as error:
            return Response(400, body=f"{error}\n")
        if not rights_of(self).may_join(self._room):
            return Response(403, body=f"{OTHER_ROOM}\n")
        busy = self._limits.refuse_join(self, connection_of(self).clock.seconds(), count=False)
        return busy or self._site.endpoint

    def opened(self) -> Deferred[Any] | None:
        self.log.info("{name} connected", name=_name_of(self.peer))
        if self._tokens is None or self.user is not None:
            return self._enter()
        wait = connection_of(self).clock.callLater
        self._deadline = wait(TOKEN_PATIENCE, self.close, UNAUTHORIZED, "no token came")
        return None

    def _enter(self) -> Deferred[Any] | None:
        reads = rights_of(self).may_read(self._room)
        if self.subprotocol != CHAT_V1:
            self.send(WELCOME)
            return self._hub.join(self, self._room, render=subprotocol.as_text) if reads else None
        name, after = self._entry
        user = None if self.user is None else str(self.user)
        writes = None if rights_of(self).may_write(self._room) else False
        self.send(event("welcome", room=self._room, name=name, user=user, write=writes, expires=_expiry_of(self.user)))
        if not reads:
            return None
        joining = self._hub.join(
            self, self._room, name=name, render=subprotocol.with_id, gap=subprotocol.as_gap, after=after
        )
        return joining.addCallback(self._joined)

    def text_received(self, text: str) -> Deferred[Any] | None:
        if self._messages is not None and self._messages.take(1, connection_of(self).clock.seconds()):
            self._limits.close(self)
            return None
        if self.subprotocol != CHAT_V1:
            # A plain client gets no errors, so its message is still delivered to the members here.
            return self._say(text, None).addErrback(self._plain_not_said)
        try:
            said, ref, after, token = subprotocol.read(text)
        except BadCommand as error:
            self.send(event("error", reason=str(error), ref=error.ref))
            return None
        if token is not None:
            return self._authenticate(token, ref)
        if self._deadline is not None:
            self.close(UNAUTHORIZED, "the first message must be a token")
            return None
        if said is None:
            roster = self._hub.roster(self._room, after=after, most=subprotocol.MAX_LISTED)
            return roster.addCallback(self._tell_who, ref)
        return self._say(said, ref).addCallbacks(self._said, self._not_said, (ref,), {}, (ref,))

    def _authenticate(self, token: str, ref: str | None) -> Deferred[Any] | None:
        if self._tokens is None:
            self.send(event("error", reason="this service has no tokens", ref=ref))
            return None
        try:
            user = self._tokens.verify(token)
            if self.user is not None and user != self.user:
                raise InvalidToken("the token is of another user")
        except InvalidToken as error:
            if self._deadline is not None:
                self.close(UNAUTHORIZED, str(error))
            else:
                self.send(event("error", reason=str(error), ref=ref))
            return None
        self.user = user
        self._tokens.sessions.remember(self, user.expires)
        if not user.rights.may_join(self._room):
            self.close(FORBIDDEN, OTHER_ROOM)
            return None
        self.send(event("auth", expires=_expiry_of(user), ref=ref))
        if self._deadline is None:
            if not user.rights.may_read(self._room):
                self._hub.leave(self, self._room)
            return None
        self._stop_waiting()
        self._entry = self._entry._replace(name=str(user))
        return self._enter()

    def _stop_waiting(self) -> None:
        deadline, self._deadline = self._deadline, None
        if deadline is not None and deadline.active():
            deadline.cancel()

    def closed(self, reason: CloseReason) -> None:
        self._stop_waiting()
        name = self._entry.name
        # Announce nothing during a shutdown: each notice would go to all remaining members.
        server: Any = connection_of(self).server
        if self._present and name is not None and not (server is not None and server.draining):
            self._notices.went(self, self._room, name, connection_of(self).clock)
        self.log.info("{name} disconnected: {reason}", name=_name_of(self.peer), reason=reason)

    def _say(self, text: str, ref: str | None) -> Deferred[str | None]:
        name = self._entry.name
        key = None if ref is None else subprotocol.retry_key(name, self._connection_key(), ref, text)
        return self._hub.publish(self._room, event("message", name=name, text=text), ref=key, sender=self)

    def _connection_key(self) -> str:
        # Each process numbers its connections from 1, and the backplane serves many processes.
        self._key = self._key or token_hex(8)
        return self._key

    def _joined(self, complete: bool) -> None:
        if self.state is not State.OPEN:
            return
        self._present = True
        if self._entry.after is not None:
            self.send(event("history", complete=complete))
        if self._entry.name is not None:
            self._notices.came(self, self._room, self._entry.name, connection_of(self).clock)

    def _tell_who(self, roster: Roster, ref: str | None) -> None:
        self.send(event("here", names=roster.names, count=roster.members, ref=ref))

    def _plain_not_said(self, failure: Failure) -> None:
        if failure.trap(PublishError, NotAllowed) is NotAllowed:
            self.close(FORBIDDEN, "the token does not allow writing here")

    def _said(self, message_id: str | None, ref: str | None) -> None:
        if ref is not None:
            self.send(event("sent", id=message_id, ref=ref))

    def _not_said(self, failure: Failure, ref: str | None) -> None:
        failure.trap(PublishError, NotAllowed)
        error: Any = failure.value
        here = isinstance(error, PublishError) and error.delivered_here
        taken = "unknown" if isinstance(error, PublishUnknown) else "here" if here else "no"
        self.send(event("error", reason=str(error), taken=taken, ref=ref))


def _expiry_of(user: object) -> int | None:
    """Return the time at which a token expires, in seconds since 1970."""
    return int(user.claims["exp"]) if isinstance(user, TokenUser) else None


def _name_of(peer: object) -> str:
    port = getattr(peer, "port", None)
    host = host_of(peer)
    if not port:
        # A proxy may forward no address.
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
