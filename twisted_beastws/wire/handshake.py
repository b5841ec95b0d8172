"""The opening handshake (RFC 6455 §4): the rules of both roles, in the order of Beast's checks."""

from __future__ import annotations

import os
import re
from binascii import b2a_base64
from collections.abc import Callable, Sequence
from hashlib import sha1
from typing import Any

from twisted_beastws._version import __version__
from twisted_beastws.errors import (
    BadExtension,
    BadHttpVersion,
    BadMethod,
    BadRequest,
    BadSecAccept,
    BadSecKey,
    BadSecVersion,
    BadSubprotocol,
    DecoratorError,
    DuplicateField,
    HandshakeError,
    NoConnection,
    NoConnectionUpgrade,
    NoHost,
    NoSecAccept,
    NoSecKey,
    NoSecVersion,
    NoUpgrade,
    NoUpgradeWebsocket,
    TooManyRequests,
    UnexpectedBody,
    UpgradeDeclined,
)
from twisted_beastws.wire.fields import Headers, has_token, list_elements, raw_fields
from twisted_beastws.wire.http import SERVER, Request, Response
from twisted_beastws.wire.origin import is_host

# RFC 6455 §1.3
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# 16 bytes in Base64. The last four bits of the 22nd character are padding, which RFC 4648 §3.5 lets a decoder ignore:
# the example in RFC 6455 §4.1, which some clients send, has some of them set.
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")
# RFC 6455 §4.1: a subprotocol is a token (RFC 9110 §5.6.2).
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

ANY_SUBPROTOCOL = "*"
"""In a server's subprotocols, this stands for the client's first offer if the client offers none of the others."""

# The field values that a 101 and a 426 share.
_UPGRADE, _CONNECTION = b"websocket", b"Upgrade"
ENDPOINT = "This is a WebSocket endpoint (RFC 6455, version 13): open it with a WebSocket client, not as a page"
"""The body of the 426 that answers a plain GET."""


def accept_key(key: str | bytes) -> str:
    """Return the Sec-WebSocket-Accept that answers ``key`` (RFC 6455 §4.2.2)."""
    return _accept_bytes(key.encode("ascii") if isinstance(key, str) else key).decode("ascii")


def _accept_bytes(key: bytes) -> bytes:
    return b2a_base64(sha1(key + _GUID, usedforsecurity=False).digest(), newline=False)


def is_upgrade(request: Any) -> bool:
    """Return whether a request, ours or a twisted.web one, asks for WebSocket (Beast: ``websocket::is_upgrade``).

    A true answer promises nothing about the rest: `check_request` may still refuse it.
    """
    if not isinstance(request, Request):
        request = Request.from_twisted(request)
    headers = request.headers
    return (
        request.version == "1.1"
        and request.method == "GET"
        and has_token(raw_fields(headers).get(b"Connection") or (), b"upgrade")
        and _lists_websocket(raw_fields(headers).get(b"Upgrade") or ())
    )


def is_visit(request: Request) -> bool:
    """Return whether ``request`` asks for a page and for no WebSocket, as a browser does that opens the address."""
    get = raw_fields(request.headers).get
    asks = _lists_websocket(get(b"Upgrade") or ()) or get(b"Sec-Websocket-Key") is not None
    return request.method in ("GET", "HEAD") and not asks


def _lists_websocket(values: Sequence[bytes]) -> bool:
    if len(values) == 1 and values[0].lower() == b"websocket":
        return True
    # RFC 9110 §7.8: a protocol may carry a version, as in "websocket/13".
    return b"websocket" in [element.partition(b"/")[0].rstrip(b" \t").lower() for element in list_elements(values)]


def check_host(request: Request) -> None:
    """Raise a `HandshakeError` unless ``request``, of any kind, says correctly which host it is for (RFC 9112 §3.2)."""
    hosts = raw_fields(request.headers).get(b"Host")
    if hosts is None and request.version != "1.1":
        # HTTP/1.0 has no Host, and an HTTP/2 server may keep it elsewhere.
        return
    host = _single(hosts, "Host", NoHost).decode("latin-1")
    # RFC 9112 §3.2.2: only a target in absolute-form has an authority.
    authority = None if request.target.startswith("/") else request.authority
    if not is_host(host) or not (authority is None or is_host(authority)):
        raise BadRequest("The WebSocket handshake Host field is invalid")


def check_request(request: Request, *, host_checked: bool = False) -> None:
    """Raise the `HandshakeError` of the first of Beast's checks that ``request`` fails (RFC 6455 §4.2.1).

    Stricter than Beast: the key is 16 bytes in Base64, a field that may occur once occurs once, Host is well-formed,
    lists are read over repeated fields, and no body follows. A request that does not ask for WebSocket at all gets 426
    (RFC 9110 §15.5.22), where Beast answers 400.

    Args:
        request: The request.
        host_checked: The request has already passed `check_host`.
    """
    get = raw_fields(request.headers).get
    asks = _lists_websocket(get(b"Upgrade") or ())
    if request.version != "1.1":
        raise BadHttpVersion
    # RFC 9110 §9.3.2: a plain HEAD is answered as a plain GET is.
    if request.method != "GET" and (asks or request.method != "HEAD"):
        raise BadMethod
    if not host_checked:
        check_host(request)
    try:
        if not asks or not has_token(get(b"Connection") or (), b"upgrade"):
            _check_upgrade(get)
    except HandshakeError as error:
        if asks:
            raise
        # A handshake with a key lost its fields on the way: then the error's own text helps.
        refused = type(error)(ENDPOINT) if is_visit(request) else error
        refused.status = 426
        raise refused from None
    if request.has_body:
        raise UnexpectedBody
    # RFC 6455 §4.2.1: "a base64-encoded value that, when decoded, is 16 bytes in length".
    if not _KEY.fullmatch(_single(get(b"Sec-Websocket-Key"), "Sec-WebSocket-Key", NoSecKey)):
        raise BadSecKey
    if _single(get(b"Sec-Websocket-Version"), "Sec-WebSocket-Version", NoSecVersion) != b"13":
        raise BadSecVersion
    origins = get(b"Origin")
    if origins is not None and len(origins) > 1:
        raise _duplicate("Origin")


def _check_upgrade(get: Callable[[bytes], list[bytes] | None]) -> None:
    connection = get(b"Connection")
    if connection is None:
        raise NoConnection
    if not has_token(connection, b"upgrade"):
        raise NoConnectionUpgrade
    upgrade = get(b"Upgrade")
    if upgrade is None:
        raise NoUpgrade
    if not _lists_websocket(upgrade):
        raise NoUpgradeWebsocket


def _single(values: Sequence[bytes] | None, name: str, missing: type[HandshakeError]) -> bytes:
    if values is None:
        raise missing
    if len(values) > 1:
        raise _duplicate(name)
    return values[0]


def _duplicate(name: str) -> DuplicateField:
    return DuplicateField(f"The WebSocket handshake {name} field is given twice")


def select_subprotocol(request: Request, supported: Sequence[str]) -> str | None:
    """Return the first of ``supported`` that the client offers, or None (RFC 6455 §4.2.2, /subprotocol/).

    ``*`` among them stands for the first that the client offers.
    """
    if not supported:
        return None
    offered = offered_subprotocols(request)
    known = next((name for name in supported if name in offered), None)
    if known is not None or ANY_SUBPROTOCOL not in supported:
        return known
    # Only a token can stand in the answer.
    return next((name for name in offered if _NAME.fullmatch(name)), None)


def offered_subprotocols(request: Request) -> list[str]:
    """Return the subprotocols that the client offers, the preferred first (RFC 6455 §4.1)."""
    values = raw_fields(request.headers).get(b"Sec-Websocket-Protocol") or ()
    return [element.decode("latin-1") for element in list_elements(values) if element]


def success(
    request: Request, subprotocol: str | None = None, extensions: str | None = None, date: str | None = None
) -> Response:
    """Return the 101 for a request that passed `check_request` (RFC 6455 §4.2.2)."""
    key = request.headers.getRawHeaders(b"Sec-WebSocket-Key", (b"",))[0]
    response = Response(101, request=request)
    response.headers = Headers.from_canonical(
        {
            b"Upgrade": [_UPGRADE],
            b"Connection": [_CONNECTION],
            b"Sec-Websocket-Accept": [accept_key(key).encode("ascii")],
        }
    )
    if subprotocol is not None:
        response.headers.setRawHeaders(b"Sec-WebSocket-Protocol", [subprotocol])
    if extensions is not None:
        response.headers.setRawHeaders(b"Sec-WebSocket-Extensions", [extensions])
    if date is not None:
        response.headers.setRawHeaders(b"Date", [date])
    return response


_SUCCESS = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n"
    b"%bDate: %b\r\nServer: " + SERVER.encode("ascii") + b"\r\n\r\n"
)


def success_bytes(request: Request, subprotocol: str | None, extensions: str | None, date: str) -> bytes:
    """Return the bytes of `success`, for an answer without a decorator."""
    if subprotocol is not None:
        return success(request, subprotocol, extensions, date).to_bytes()
    key = raw_fields(request.headers).get(b"Sec-Websocket-Key")
    agreed = "" if extensions is None else f"Sec-WebSocket-Extensions: {extensions}\r\n"
    return _SUCCESS % (_accept_bytes(key[0] if key else b""), agreed.encode("ascii"), date.encode("ascii"))


def failure(error: HandshakeError, request: Request | None) -> Response:
    """Return the answer to a failed handshake: the error's status, and its text as the body.

    It says ``Connection: close`` where HTTP does not keep the connection: there is no request, or it does not allow it,
    or its body follows, which the server does not read; and where there are too many.
    """
    version = "1.0" if request is not None and request.version == "1.0" else "1.1"
    response = Response(error.status, body=str(error), version=version, request=request)
    headers = response.headers
    if error.retry_after is not None:
        headers.setRawHeaders(b"Retry-After", [b"%d" % error.retry_after])
    headers.setRawHeaders(b"Content-Length", [b"%d" % len(response.body)])
    closes = isinstance(error, (BadRequest, TooManyRequests))
    complete(response, close=request is None or closes or request.has_body or not request.keep_alive)
    return response


def complete(response: Response, *, close: bool = False, date: str | None = None) -> None:
    """Add the fields that HTTP demands of an answer, where they are missing.

    Args:
        response: An answer other than 101.
        close: The connection is not kept (RFC 9112 §9.6).
        date: The time, for the Date field (RFC 9110 §6.6.1), or None to leave it out.
    """
    headers = response.headers
    options = [] if close else headers.getRawHeaders(b"Connection", [])
    if response.status == 426:
        # RFC 9110 §15.5.22, §7.8: a 426 names the protocol to switch to.
        if not headers.hasHeader(b"Upgrade"):
            headers.setRawHeaders(b"Upgrade", [_UPGRADE])
            # RFC 6455 §4.2.2: the versions that the server speaks.
            headers.setRawHeaders(b"Sec-WebSocket-Version", [b"13"])
        if not has_token(options, b"upgrade"):
            options = [*options, _CONNECTION]
    if close:
        options = [*options, b"close"]
    if options:
        headers.setRawHeaders(b"Connection", [b", ".join(options)])
    if date is not None and not headers.hasHeader(b"Date"):
        headers.setRawHeaders(b"Date", [date])


SWITCHING_FIELDS = (
    "Upgrade",
    "Connection",
    "Sec-WebSocket-Accept",
    "Sec-WebSocket-Extensions",
    "Sec-WebSocket-Protocol",
)
"""Fields of a 101 that have no place in an answer which a decorator made of it."""


def check_decorated(
    response: Response, request: Request | None, accept: str | None, extensions: str | None = None
) -> None:
    """Raise `DecoratorError` if a decorator spoilt a 101; with any other status it declines, with any fields.

    Args:
        response: The decorated response.
        request: The request that it answers, or None if none could be read.
        accept: The Sec-WebSocket-Accept that a 101 must have, or None where the handshake failed and must not be a 101.
        extensions: The Sec-WebSocket-Extensions that a 101 must have, or None for none: the session does as it says.
    """
    if response.status != 101:
        # RFC 9110 §15.2: a status below 200 is not the answer, and the client would wait for one.
        if response.status < 200:
            raise DecoratorError(f"a decorator made the answer a {response.status}, which is none")
        return
    if accept is None:
        raise DecoratorError("a decorator turned the answer to a failed handshake into a 101")
    expected = (("Upgrade", _UPGRADE), ("Connection", _CONNECTION), ("Sec-WebSocket-Accept", accept.encode("ascii")))
    for name, value in expected:
        if response.headers.getRawHeaders(name.encode("ascii")) != [value]:
            raise DecoratorError(f"a decorator changed the {name} field of a 101")
    agreed = None if extensions is None else [extensions.encode("ascii")]
    if response.headers.getRawHeaders(b"Sec-WebSocket-Extensions") != agreed:
        raise DecoratorError("a decorator changed the Sec-WebSocket-Extensions field of a 101")
    chosen = raw_fields(response.headers).get(b"Sec-Websocket-Protocol") or []
    if len(chosen) > 1:
        raise DecoratorError("a decorator put two Sec-WebSocket-Protocol fields into a 101: it may have one")
    if chosen and (request is None or chosen[0].decode("latin-1") not in offered_subprotocols(request)):
        name = chosen[0].decode("latin-1")
        raise DecoratorError(
            f"a decorator set the Sec-WebSocket-Protocol field of a 101 to {name!r}, which the client did not offer"
        )


def make_key() -> str:
    """A fresh Sec-WebSocket-Key: 16 random bytes in Base64 (RFC 6455 §4.1)."""
    return b2a_base64(os.urandom(16), newline=False).decode("ascii")


USER_AGENT = f"twisted_beastws/{__version__}"
"""The product in a client's User-Agent field (RFC 9110 §10.1.5)."""


def client_request(
    host: str, target: str, key: str, subprotocols: Sequence[str] = (), extensions: str | None = None
) -> Request:
    """The client's request, its fields in Beast's order. Raises ``ValueError`` for a value that no field can have.

    host: the Host field, with a port where it is not the scheme's default.
    """
    headers = Headers()
    headers.setRawHeaders(b"Host", [host])
    headers.setRawHeaders(b"Upgrade", [b"websocket"])
    headers.setRawHeaders(b"Connection", [b"Upgrade"])
    headers.setRawHeaders(b"Sec-WebSocket-Key", [key])
    headers.setRawHeaders(b"Sec-WebSocket-Version", [b"13"])
    # Some servers refuse a request without one; a decorator may replace it.
    headers.setRawHeaders(b"User-Agent", [USER_AGENT])
    if extensions is not None:
        headers.setRawHeaders(b"Sec-WebSocket-Extensions", [extensions])
    if subprotocols:
        headers.setRawHeaders(b"Sec-WebSocket-Protocol", [", ".join(subprotocols)])
    return Request("GET", target, "1.1", headers)


def _not_empty(values: Sequence[bytes] | None) -> list[bytes]:
    # Some servers send the field without a value, and mean that they chose nothing.
    return [value for value in values or () if value.strip(b" \t,")]


def check_response(
    response: Response, key: str, subprotocols: Sequence[str] = (), *, extensions: bool = False
) -> str | None:
    """The subprotocol of a good answer, or None if it has none (RFC 6455 §4.1).

    Raises the `HandshakeError` of the first of Beast's checks that ``response`` fails. Stricter than Beast: neither a
    subprotocol nor an extension that was not offered is taken.

    extensions: some were offered; `deflate.check_answer` checks the answer to them.
    """
    get = response.headers.getRawHeaders
    if response.status != 101:
        raise UpgradeDeclined(response)
    if response.version != "1.1":
        raise BadHttpVersion
    _check_upgrade(raw_fields(response.headers).get)
    accept = _single(get(b"Sec-WebSocket-Accept"), "Sec-WebSocket-Accept", NoSecAccept)
    if accept != accept_key(key).encode("ascii"):
        raise BadSecAccept
    if not extensions and _not_empty(get(b"Sec-WebSocket-Extensions")):
        raise BadExtension
    chosen = _not_empty(get(b"Sec-WebSocket-Protocol"))
    if not chosen:
        return None
    subprotocol = chosen[0].decode("latin-1")
    if len(chosen) > 1 or subprotocol not in subprotocols:
        raise BadSubprotocol
    return subprotocol
