"""Logins: by HTTP Basic (RFC 7617) and the checkers of `twisted.cred`, or by the TLS certificate of the client."""

from __future__ import annotations

import os
import re
import time
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Callable, Sequence
from hmac import compare_digest
from typing import Any, NamedTuple

from twisted.cred.checkers import FilePasswordDB, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import LoginFailed
from twisted.cred.strcred import findCheckerFactories
from twisted.logger import Logger
from zope.interface import implementer

from twisted_beastws.connection.running import settled
from twisted_beastws.options import kind_of
from twisted_beastws.protocol import WebSocketProtocol, connection_of
from twisted_beastws.server.gates.login_limit import LoginLimit, TooManyFailures
from twisted_beastws.server.gates.passwords import PasswordFile
from twisted_beastws.server.gates.slow_calls import Busy, SlowCalls
from twisted_beastws.server.log_text import host_of, quoted
from twisted_beastws.server.peers import peer_at
from twisted_beastws.wire.fields import Headers
from twisted_beastws.wire.http import Request, Response

UNAUTHORIZED = "Give a name and a password\n"
NAMELESS = "The certificate does not have one common name\n"
MAX_FAILURES = 10.0
"""Wrong passwords of one client per minute, by default: users mistype, and guessing takes years."""

CHALLENGE = 'Basic realm="twisted_beastws", charset="UTF-8"'

log = Logger()

_BASIC = re.compile(rb"basic +([A-Za-z0-9+/]+=*) *", re.IGNORECASE)
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")


class CheckerError(Exception):
    """The description of a checker is wrong; ``str(error)`` gives the reason in one line, without a password."""


_SLOW_CALLS = SlowCalls()


def make_checker(description: str, slow_calls: SlowCalls = _SLOW_CALLS) -> Any:
    """Return the ``ICredentialsChecker`` of passwords that ``description`` names, as in `twisted.cred.strcred`.

    Args:
        description: such as ``file:passwords``.
        slow_calls: runs the hashing of passwords, for all checkers together.

    Raises:
        CheckerError: there is no such checker.
    """
    kind, _, argument = description.partition(":")
    factories = {
        factory.authType: factory
        for factory in findCheckerFactories()
        if IUsernamePassword in factory.credentialInterfaces
    }
    if kind not in factories:
        raise CheckerError(f"give one of {', '.join(sorted(factories))}, and what it needs, as in file:passwords")
    if kind == "file" and not os.path.isfile(argument):
        raise CheckerError(f"{argument or 'no name given'}: there is no such file")
    try:
        checker = factories[kind].generateChecker(argument)
    except Exception as error:
        raise CheckerError(" ".join(str(error).split())) from None
    if isinstance(checker, FilePasswordDB):
        # The working directory may change before the file is read.
        return PasswordFile(os.path.abspath(checker.filename), slow_calls)
    if kind == "unix":
        return Threaded(checker, slow_calls)
    elif isinstance(checker, InMemoryUsernamePasswordDatabaseDontUse):
        # Twisted's own checker stores text, but compares bytes.
        checker.users = {_as_bytes(name): _as_bytes(password) for name, password in checker.users.items()}
    return checker


@implementer(IUsernamePassword)
class Login(NamedTuple):
    """The name and the password that a client sent."""

    username: bytes
    password: bytes

    def checkPassword(self, password: bytes | str) -> bool:
        """Return whether this is the password, in a time that does not depend on the matching part."""
        return compare_digest(self.password, _as_bytes(password))


def parse_basic(authorization: bytes) -> Login | None:
    """Return the name and the password in an Authorization field, or None without them (RFC 7617 §2)."""
    name, colon, password = _decode_basic(authorization).partition(b":")
    if not name or not colon or _CONTROL.search(name + password):
        return None
    return Login(name, password)


def _decode_basic(authorization: bytes) -> bytes:
    match = _BASIC.fullmatch(authorization)
    if match is None:
        return b""
    try:
        return a2b_base64(match[1])
    except Base64Error:
        return b""


class Threaded:
    """A slow, blocking checker, which is called in a thread."""

    def __init__(self, checker: Any, slow_calls: SlowCalls) -> None:
        self._checker = checker
        self._slow_calls = slow_calls

    async def requestAvatarId(self, credentials: Any) -> Any:
        """See ``ICredentialsChecker``."""
        # Wrap it in a list: the result of a Deferred must not be a Deferred.
        (found,) = await self._slow_calls.call(lambda: [self._checker.requestAvatarId(credentials)])
        return await settled(found)


class LoginGate:
    """A base class of gates that accept the requests of known users only, and set ``user`` of the connection."""

    def identify(self, request: Request, ws: WebSocketProtocol) -> Any:
        """Return the user, the `Response` to a request without a valid login, or None for a request that needs none.

        It may return a Deferred, or be a coroutine function.
        """
        raise NotImplementedError

    async def __call__(self, request: Request, ws: WebSocketProtocol) -> Response | None:
        """Return the answer to a request without a valid login, or None."""
        found = await settled(self.identify(request, ws))
        refused = isinstance(found, Response)
        ws.user = None if refused else found
        return found if isinstance(found, Response) else None


class PasswordLogin(LoginGate):
    """A gate that asks for a name and a password by HTTP Basic, and lets checkers of `twisted.cred` decide.

    ``user`` of an accepted connection is the name. Wrong passwords of one client are limited, and each is logged.

    Args:
        checkers: Checkers (``ICredentialsChecker``) for ``IUsernamePassword``, or descriptions of them as for
            ``--auth``, such as ``file:passwords``. One of them must accept the login.
        max_failures: The wrong passwords of one client per minute, and as many at once. Further requests get 429 before
            any checker is asked. None is no limit.
        now: Returns the time in seconds.

    Raises:
        CheckerError: There is no such checker.
    """

    def __init__(
        self,
        checkers: Sequence[Any],
        *,
        max_failures: float | None = MAX_FAILURES,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        if isinstance(checkers, str) or not isinstance(checkers, Sequence):
            raise TypeError(f"PasswordLogin(checkers): give a list of checkers, not {kind_of(checkers)}")
        self._checkers = [make_checker(each) if isinstance(each, str) else each for each in checkers]
        self._limit = LoginLimit(max_failures, now)

    async def identify(self, request: Request, ws: WebSocketProtocol) -> str | Response:
        """Return the name of the user, or the answer to a request without a valid login."""
        fields = request.headers.getRawHeaders(b"Authorization", ())
        login = parse_basic(fields[0]) if len(fields) == 1 else None
        if login is None:
            # The first request of each browser has no login; it is not a guess.
            tried = [name for name, colon, _ in (_decode_basic(field).partition(b":") for field in fields) if colon]
            # Without a colon, the text may be a password.
            names = f", but for {' and '.join(map(quoted, tried))}" if tried else ""
            _log_refusal(ws, 401, f"there is no login{names}")
            return _unauthorized(request)
        peer = peer_at(ws.peer)
        try:
            user = await self._limit.check(peer, lambda: self._user_of(login))
        except TooManyFailures as error:
            self._count(ws)
            return _come_back(429, error.retry_after, "There were too many wrong passwords")
        except Busy:
            return _come_back(503, 1, "The server checks too many passwords")
        if user is not None:
            return user
        _log_refusal(ws, 401, f"wrong name or password for {quoted(login.username)}")
        seconds = self._limit.retry_after(peer)
        if seconds:
            log.warn(
                "{host} gave too many wrong passwords: 429 for {seconds} s",
                host=host_of(ws.peer),
                seconds=seconds,
            )
        return _unauthorized(request)

    @staticmethod
    def challenge(request: Request) -> str:
        """Return the challenge of a 401."""
        # A browser asks the user for a password at a Basic challenge, even if a script made the request and only wants
        # the status. RFC 9110 §11.6.1 requires a challenge; browsers ignore this scheme.
        return f"X-{CHALLENGE}" if request.headers.hasHeader(b"X-Requested-With") else CHALLENGE

    @staticmethod
    def _count(ws: WebSocketProtocol) -> None:
        server = connection_of(ws).server
        if server is not None:
            server.refusals["max_login_failures"] += 1

    async def _user_of(self, login: Login) -> str | None:
        for checker in self._checkers:
            try:
                name = await settled(checker.requestAvatarId(login))
            # Some checkers expect text, but a client's bytes may not be text.
            except (LoginFailed, UnicodeDecodeError):
                continue
            if name:
                return _as_bytes(name).decode("utf-8", "replace")
        return None


class CertificateLogin(LoginGate):
    """A gate that accepts clients by the common name in their certificate, which TLS asked for and checked.

    ``user`` of an accepted connection is the name. The endpoint must ask for certificates: `ReloadableEndpoint` does so
    with ``client_ca``.
    """

    def identify(self, request: Request, ws: WebSocketProtocol) -> str | Response:
        """Return the name of the user, or the answer to a request without a valid login."""
        name = self._name_of(ws.transport)
        if name is not None:
            return name
        _log_refusal(ws, 403, "the certificate does not have one common name")
        return Response(403, body=NAMELESS)

    @staticmethod
    def _name_of(transport: Any) -> str | None:
        try:
            subject = transport.getPeerCertificate().to_cryptography().subject
        except (TypeError, ValueError):
            # An authority may also sign names that are not text.
            return None
        # Without this import at the top, services that read no certificates start sooner.
        from cryptography.x509.oid import NameOID

        names = [attribute.value for attribute in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        # As for HTTP Basic, refuse an empty name, and control characters (RFC 7617 §2).
        if len(names) != 1 or not names[0] or not isinstance(names[0], str) or not names[0].isprintable():
            return None
        return names[0]


def _log_refusal(protocol: WebSocketProtocol, status: int, why: str) -> None:
    log.info(
        "connection {connection} of {host}: {status}: {why}",
        connection=protocol.connection_id,
        host=host_of(protocol.peer),
        status=status,
        why=why,
    )


def _unauthorized(request: Request) -> Response:
    return Response(401, headers=Headers({"WWW-Authenticate": [PasswordLogin.challenge(request)]}), body=UNAUTHORIZED)


def _come_back(status: int, seconds: int, why: str) -> Response:
    # Close the connection, so that the next guess costs another connection.
    headers = Headers({"Retry-After": [str(seconds)], "Connection": ["close"]})
    return Response(status, headers=headers, body=f"{why}; try again later\n")


def _as_bytes(text: bytes | str) -> bytes:
    return text.encode() if isinstance(text, str) else text
