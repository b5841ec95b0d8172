"""Who a client is: by HTTP Basic (RFC 7617) and the checkers of `twisted.cred`, or by its TLS certificate."""

from __future__ import annotations

import os
import re
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Sequence
from hmac import compare_digest
from typing import Any, NamedTuple, cast

from cryptography.x509.oid import NameOID
from twisted.cred.checkers import FilePasswordDB, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import LoginFailed, UnauthorizedLogin
from twisted.cred.strcred import findCheckerFactories
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from zope.interface import implementer

from twisted_beastws.operation import settled
from twisted_beastws.options import Role
from twisted_beastws.protocol import WebSocketProtocol
from twisted_beastws.wire.http import Headers, Request, Response

UNAUTHORIZED = "Give a name and a password\n"
NAMELESS = "The certificate does not have one common name\n"
CHALLENGE = 'Basic realm="twisted_beastws", charset="UTF-8"'

_BASIC = re.compile(rb"basic +([A-Za-z0-9+/]+=*) *", re.IGNORECASE)
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")


class CheckerError(Exception):
    """What was described is no checker; ``str(error)`` says why in one line, without a password in it."""


def make_checker(description: str) -> Any:
    """The ``ICredentialsChecker`` of passwords that ``description`` says, as of `twisted.cred.strcred`.

    Raises `CheckerError`.
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
        # The directory may change before it is read.
        checker = PasswordFile(os.path.abspath(checker.filename))  # type: ignore[no-untyped-call]
    elif isinstance(checker, InMemoryUsernamePasswordDatabaseDontUse):
        # Twisted puts in text, and compares octets.
        checker.users = {_octets(name): _octets(password) for name, password in checker.users.items()}
    return checker


class PasswordFile(FilePasswordDB):
    """A file of lines ``name:password``, read for each login. A password may have colons, where Twisted's ends."""

    log = Logger()

    def getUser(self, username: bytes) -> tuple[bytes, bytes]:
        try:
            with open(self.filename, "rb") as file:
                lines = [line.rstrip() for line in file]
        except OSError as error:
            self.log.error("cannot read the passwords in {path}: {why}", path=self.filename, why=error.strerror)
            raise UnauthorizedLogin from None
        for line in lines:
            name, colon, password = line.partition(b":")
            if colon and name == username:
                return name, password
        raise KeyError(username)


@implementer(IUsernamePassword)
class Login(NamedTuple):
    """What a client says that it is."""

    username: bytes
    password: bytes

    def checkPassword(self, password: bytes | str) -> bool:
        """Whether it is this one, in time that does not tell how much of it is right."""
        return compare_digest(self.password, _octets(password))


def parse_basic(authorization: bytes) -> Login | None:
    """The name and the password in an Authorization field, or None if there are none (RFC 7617 §2)."""
    match = _BASIC.fullmatch(authorization)
    if match is None:
        return None
    try:
        decoded = a2b_base64(match[1])
    except Base64Error:
        return None
    name, colon, password = decoded.partition(b":")
    if not name or not colon or _CONTROL.search(decoded):
        return None
    return Login(name, password)


class Checkers:
    """Those who know names and passwords; it is enough that one does."""

    def __init__(self, checkers: Sequence[Any]) -> None:
        self._checkers = checkers

    async def user_of(self, request: Request, transport: object) -> str | None:
        """The name of who made the request, or None for nobody known. Raises what a checker raises that is broken."""
        fields = request.headers.getRawHeaders(b"Authorization", ())
        login = parse_basic(fields[0]) if len(fields) == 1 else None
        if login is None:
            return None
        for checker in self._checkers:
            try:
                name = await maybeDeferred(checker.requestAvatarId, login)
            # Some want text, which what a client sends need not be.
            except (LoginFailed, UnicodeDecodeError):
                continue
            if name:
                return _octets(name).decode("utf-8", "replace")
        return None

    def refusal(self) -> Response:
        """The answer to those whom nobody knows."""
        return Response(401, headers=Headers({"WWW-Authenticate": [CHALLENGE]}), body=UNAUTHORIZED)


class Certificates:
    """Who a client is by its certificate, which TLS has asked for and checked: the common name in it."""

    def user_of(self, request: Request, transport: Any) -> str | None:
        """The name, or None where there is not just one."""
        try:
            subject = transport.getPeerCertificate().to_cryptography().subject
        except (TypeError, ValueError):
            # Names of another kind than text, which an authority may sign all the same.
            return None
        names = [attribute.value for attribute in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        # As of a name by HTTP Basic (RFC 7617 §2): none that is empty or has control characters.
        if len(names) != 1 or not names[0] or not isinstance(names[0], str) or not names[0].isprintable():
            return None
        return names[0]

    def refusal(self) -> Response:
        """The answer to those who have no name."""
        return Response(403, body=NAMELESS)


class Authenticated(WebSocketProtocol):
    """A connection whose every request, whatever it is for, has to say who makes it; `user` is the name.

    checkers: who knows them.
    """

    checkers: Checkers | Certificates

    def read_request(self) -> Deferred[Request]:
        """The next request of somebody known: who reads requests by hand does not hear of others."""
        opening = self._require_opening(Role.SERVER)
        return cast("Deferred[Request]", opening.operate(self._read_known(opening)))

    async def _read_known(self, opening: Any) -> Request:
        while True:
            request: Request = await opening._read_request(self.settings.decorator)
            self.user = await opening.settled(self.checkers.user_of(request, self.transport))
            if self.user is not None:
                return request
            await opening._respond(self.checkers.refusal())

    async def http_requested(self, request: Request) -> Any:
        self.user = await settled(self.checkers.user_of(request, self.transport))
        if self.user is None:
            return self.checkers.refusal()
        return await settled(super().http_requested(request))


def _octets(text: bytes | str) -> bytes:
    return text.encode() if isinstance(text, str) else text
