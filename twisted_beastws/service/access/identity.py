"""`BearerTokens`: identifies clients by the token of their handshake."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise

from twisted.logger import Logger

from twisted_beastws.connection.running import settled
from twisted_beastws.protocol import WebSocketProtocol
from twisted_beastws.server.gates.login import LoginGate, PasswordLogin
from twisted_beastws.server.log_text import host_of
from twisted_beastws.service.access.sessions import Sessions
from twisted_beastws.service.access.tokens import InvalidToken, TokenUser, TokenVerifier
from twisted_beastws.service.subprotocol import CHAT_V1
from twisted_beastws.wire.fields import Headers
from twisted_beastws.wire.handshake import is_upgrade, offered_subprotocols
from twisted_beastws.wire.http import Request, Response

ACCESS_TOKEN = "access_token"
"""The subprotocol before a token: a page in a browser can send one as ``["chat.v1+json", "access_token", TOKEN]``."""

_BEARER = re.compile(r"bearer +([^ ]+) *", re.IGNORECASE)

log = Logger()


class BearerTokens(LoginGate):
    """Accepts the users of tokens, and of passwords if there are checkers for them.

    Args:
        verifiers: of which one must accept the token.
        sessions: closes the connections of tokens that expire.
        passwords: checks the logins that are not tokens; None accepts tokens only.
        is_public: whether a request needs no token, such as one for a page without a secret.
        has_first_message: a client of the chat's subprotocol can send the token as its first message.
    """

    def __init__(
        self,
        verifiers: Sequence[TokenVerifier],
        sessions: Sessions,
        passwords: PasswordLogin | None = None,
        is_public: Callable[[Request], bool] = lambda request: False,
        has_first_message: bool = False,
    ) -> None:
        self.sessions = sessions
        self._verifiers = verifiers
        self._passwords = passwords
        self._is_public = is_public
        self._has_first_message = has_first_message

    async def identify(self, request: Request, ws: WebSocketProtocol) -> str | Response | None:
        """Return the user of a request, the answer to one without a valid token, or None if it needs none yet."""
        fields = request.headers.getRawHeaders(b"Authorization", [])
        tokens = [match[1] for field in fields if (match := _BEARER.fullmatch(field.decode("latin-1")))]
        upgrades = is_upgrade(request)
        offered = _offered_tokens(request) if upgrades else []
        if not tokens and not offered:
            return await self._without_token(request, ws, bool(fields))
        try:
            if len(fields) + len(offered) > 1:
                raise InvalidToken("there are several logins: send one")
            tokens += offered
            user = self.verify(tokens[0])
        except InvalidToken as error:
            self._log(ws, str(error))
            return self._refusal(request, str(error), 'Bearer realm="twisted_beastws", error="invalid_token"')
        if upgrades:
            self.sessions.remember(ws, user.expires)
        return user

    def verify(self, token: str) -> TokenUser:
        """Return the user of a token. Raises `InvalidToken`."""
        reason = InvalidToken("there is no token")
        for verifier in self._verifiers:
            try:
                return verifier.verify(token)
            except InvalidToken as error:
                reason = error
        raise reason

    async def _without_token(self, request: Request, ws: WebSocketProtocol, has_login: bool) -> str | Response | None:
        if has_login and self._passwords is not None:
            return await settled(self._passwords.identify(request, ws))
        if not has_login and self._is_public(request):
            return None
        first = self._has_first_message and is_upgrade(request) and CHAT_V1 in offered_subprotocols(request)
        if not has_login and first:
            return None
        self._log(ws, "there is no token")
        return self._refusal(request, "there is no token", 'Bearer realm="twisted_beastws"')

    def _refusal(self, request: Request, reason: str, challenge: str) -> Response:
        challenges = [challenge]
        if self._passwords is not None:
            challenges.append(self._passwords.challenge(request))
        return Response(401, headers=Headers({"WWW-Authenticate": challenges}), body=f"{reason}\n")

    @staticmethod
    def _log(ws: WebSocketProtocol, reason: str) -> None:
        log.info(
            "connection {connection} of {host}: 401: {reason}",
            connection=ws.connection_id,
            host=host_of(ws.peer),
            reason=reason,
        )


def _offered_tokens(request: Request) -> list[str]:
    offered = offered_subprotocols(request)
    return [after for name, after in pairwise(offered) if name == ACCESS_TOKEN]
