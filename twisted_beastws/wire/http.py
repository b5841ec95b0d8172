"""HTTP/1.1 requests and responses (RFC 9112): parsing their heads with llhttp, serialising them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser, HttpResponseParser
from twisted.web.http_headers import Headers as TwistedHeaders

from twisted_beastws._version import __version__
from twisted_beastws.errors import BadRequest, UnsupportedVersion
from twisted_beastws.wire.fields import RFC_NAMES, TCHAR, Headers, canonical_name, fields_given, has_token, raw_fields
from twisted_beastws.wire.head_buffer import HEAD_END, UsualHead

SERVER = f"twisted_beastws/{__version__}"

_PHRASES = {status.value: status.phrase for status in HTTPStatus}

_MORE_THAN_A_LINE = re.compile(r"[\r\n]")
# RFC 9112 §3.2: a target is visible ASCII without a fragment.
_TARGET = rb'(?:/[!"$-~]*|\*|[!"$-~]+:[!"$-~]+)'
_METHOD_AND_TARGET = rb"([" + TCHAR + rb"]+) (" + _TARGET + rb") "
_REQUEST_LINE = re.compile(_METHOD_AND_TARGET + rb"HTTP/1\.[01]\r\n")
_RECEIVED_LINE = re.compile(_METHOD_AND_TARGET + rb"HTTP/([0-9])\.([0-9])\r\n")
# RFC 9112 §4: the reason, and from lenient servers the space before it, may be absent.
_STATUS_LINE = re.compile(rb"HTTP/(1\.[01]) ([1-9][0-9]{2})(?: ([\t -~\x80-\xff]*))?\r\n")
_ABSOLUTE_FORM = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://([^/?]*)")
_AUTHORITY_FORM = re.compile(rb"[^/?]+:[0-9]{1,5}")


def _first(headers: TwistedHeaders, name: str) -> str | None:
    values = headers.getRawHeaders(name.encode("ascii"))
    return values[0].decode("latin-1") if values else None


def _keeps_connection(version: str, headers: TwistedHeaders) -> bool:
    # RFC 9112 §9.3; an HTTP/1.0 connection is never kept.
    return version == "1.1" and not has_token(raw_fields(headers).get(b"Connection") or (), b"close")


def _field_lines(headers: TwistedHeaders) -> list[bytes]:
    return [
        b"%b: %b\r\n" % (RFC_NAMES.get(name, name), value)
        for name, values in headers.getAllRawHeaders()
        for value in values
    ]


def _checked_head(lines: list[bytes]) -> bytes:
    # The last guard: a line or a plain Twisted Headers may have been assigned past the checks above.
    head = b"".join(lines)
    if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines) or b"\0" in head:
        raise ValueError("CR, LF or NUL inside a line of an HTTP head")
    return head + b"\r\n"


NO_PARAMETERS: Mapping[str, str] = MappingProxyType({})


@dataclass(slots=True)
class Request:
    """A request's head.

    Attributes:
        target: The target as it was sent: in origin-form, absolute-form, ``*`` or, with CONNECT, authority-form.
        version: ``1.0`` or ``1.1``. From twisted.web, any version that it accepted.
        body_read: An HTTP server has already read the body that the head announces.
        path_parameters: The decoded parts of the path that a `Router`'s template names; empty without a router.
    """

    method: str
    target: str
    version: str
    headers: Headers
    body_read: bool = False
    path_parameters: Mapping[str, str] = field(default_factory=lambda: NO_PARAMETERS)

    @classmethod
    def parse(cls, head: bytes) -> Request:
        """Return the request in an HTTP head, as the server itself reads it.

        Args:
            head: The request line and the fields, with the empty line at the end and nothing after it.

        Raises:
            BadRequest: The head is not valid HTTP.
            UnsupportedVersion: The request is of another major version of HTTP than 1.
        """
        return parse_request(bytes(head))

    @classmethod
    def from_twisted(cls, request: Any) -> Request:
        """Return our form of a twisted.web ``Request``, with copies of its fields and without its body."""
        fields = {name: list(values) for name, values in request.requestHeaders.getAllRawHeaders()}
        return cls(
            request.method.decode("latin-1"),
            request.uri.decode("latin-1"),
            request.clientproto.decode("latin-1").removeprefix("HTTP/"),
            Headers.from_canonical(fields),
            body_read=True,
        )

    def field(self, name: str) -> str | None:
        """The first value of field ``name``, each byte one character (Latin-1), or None."""
        return _first(self.headers, name)

    @property
    def authority(self) -> str | None:
        """The host, and port if present, of a target in absolute-form, which overrides Host; None for other targets."""
        # RFC 9112 §3.2.2
        if self.target.startswith("/") or (absolute := _ABSOLUTE_FORM.match(self.target)) is None:
            return None
        return absolute[1]

    @property
    def path(self) -> str:
        """The target without scheme, authority and query; percent-encoding is left as it is."""
        return self._origin_form().partition("?")[0]

    @property
    def query(self) -> str:
        """The part after the target's first ``?``; empty without one."""
        return self.target.partition("?")[2]

    def _origin_form(self) -> str:
        # RFC 9112 §3.2.2: a server must accept the absolute-form.
        if self.target.startswith("/") or (absolute := _ABSOLUTE_FORM.match(self.target)) is None:
            return self.target
        rest = self.target[absolute.end() :]
        return rest if rest.startswith("/") else "/" + rest

    @property
    def keep_alive(self) -> bool:
        """Whether HTTP keeps the connection after the answer (RFC 9112 §9.3)."""
        return _keeps_connection(self.version, self.headers)

    @property
    def has_body(self) -> bool:
        """Whether a body follows the head on the connection (RFC 9112 §6)."""
        if self.body_read:
            return False
        get = raw_fields(self.headers).get
        if get(b"Transfer-Encoding") is not None:
            return True
        lengths = get(b"Content-Length")
        return lengths is not None and any(length.strip(b"0") for length in lengths)

    def to_bytes(self) -> bytes:
        """Return the bytes of the head. Raises ``ValueError`` if they would not be a valid head."""
        line = f"{self.method} {self.target} HTTP/{self.version}\r\n".encode()
        if not _REQUEST_LINE.fullmatch(line):
            raise ValueError(f"not an HTTP request line: {line!r}")
        return _checked_head([line, *_field_lines(self.headers)])


class Response:
    """An answer. Decorators and hooks may make and change it; `to_bytes` returns the bytes to send.

    Attributes:
        status: The status, 100 to 999.
        reason: The standard phrase of the status, unless you set another one.
        headers: A copy of the given fields, which may be a mapping such as
            ``{"X-User": "Ada", "Set-Cookie": ["a=1", "b=2"]}``. `to_bytes` adds ``Server`` if it is missing, and always
            sets Content-Length itself.
        body: The body. A ``str`` is encoded as UTF-8; if there is no Content-Type, it becomes
            ``text/plain; charset=utf-8``, and X-Content-Type-Options becomes ``nosniff``.
        version: ``1.1`` or ``1.0``.
        request: The request that it answers, if known. The answer to HEAD is sent without its body.

    Raises:
        TypeError, ValueError: A value cannot be sent. Setting ``body`` raises these errors, too.
    """

    __slots__ = ("_body", "_reason", "headers", "request", "status", "version")

    def __init__(
        self,
        status: int,
        reason: str | None = None,
        headers: TwistedHeaders | Mapping[str, str | Sequence[str]] | None = None,
        body: str | bytes = b"",
        version: str = "1.1",
        request: Request | None = None,
    ) -> None:
        if not isinstance(status, int):
            raise TypeError(f"status: give int, not {type(status).__name__}")
        # RFC 9110 §15: three digits.
        if not 100 <= status <= 999:
            raise ValueError(f"status={status}: give a number from 100 to 999")
        if not isinstance(reason, str | None):
            raise TypeError(f"reason: give str, or the text as body=, not {type(reason).__name__}")
        if reason is not None and _MORE_THAN_A_LINE.search(reason):
            raise ValueError(f"reason={reason!r}: this is the phrase behind the status, one line: the text is body=")
        self.status = status
        self._reason = reason
        self.headers = _copied(headers)
        self.version = version
        self.request = request
        self.body = body

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.reason}, {len(self._body)} bytes>"

    @property
    def reason(self) -> str:
        """The phrase after the status; empty for a status that has none."""
        return _PHRASES.get(self.status, "") if self._reason is None else self._reason

    @reason.setter
    def reason(self, reason: str | None) -> None:
        self._reason = reason

    @property
    def body(self) -> bytes:
        """The bytes after the head."""
        return self._body

    @body.setter
    def body(self, body: str | bytes) -> None:
        if isinstance(body, str):
            body = body.encode("utf-8")
            if not self.headers.hasHeader(b"Content-Type"):
                self.headers.setRawHeaders(b"Content-Type", [b"text/plain; charset=utf-8"])
                # A browser must not take the text, which may quote a request, for HTML.
                if not self.headers.hasHeader(b"X-Content-Type-Options"):
                    self.headers.setRawHeaders(b"X-Content-Type-Options", [b"nosniff"])
        elif not isinstance(body, (bytes, bytearray, memoryview)):
            raise TypeError(f"body: give str or bytes, not {type(body).__name__}")
        self._body = bytes(body)

    def field(self, name: str) -> str | None:
        """The first value of field ``name``, each byte one character (Latin-1), or None."""
        return _first(self.headers, name)

    @property
    def keep_alive(self) -> bool:
        """Whether HTTP keeps the connection after this answer (RFC 9112 §9.3)."""
        return _keeps_connection(self.version, self.headers)

    def to_bytes(self) -> bytes:
        """Return the bytes of the whole answer. The fields are in the order of their setting, in the RFCs' spelling.

        Content-Length is the body's true length, in the place where the field was set. Transfer-Encoding is omitted.

        Raises:
            ValueError: The head would not be valid.
        """
        if not 100 <= self.status <= 999:
            raise ValueError(f"{self.status!r} is not an HTTP status")
        # RFC 9110 §8.6, §15.2, §15.3.5, §15.4.5: these have neither a body nor its length.
        bodiless = self.status < 200 or self.status == 204 or self.status == 304
        length = None if bodiless else b"Content-Length: %d\r\n" % len(self._body)
        lines = [f"HTTP/{self.version} {self.status} {self.reason}\r\n".encode("latin-1", "replace")]
        server = False
        for name, values in self.headers.getAllRawHeaders():
            if name == b"Content-Length":
                if length is not None:
                    lines.append(length)
                    length = None
            elif name != b"Transfer-Encoding":
                spelled = RFC_NAMES.get(name, name)
                lines += [b"%b: %b\r\n" % (spelled, value) for value in values]
                server = server or (name == b"Server" and bool(values))
        if length is not None:
            lines.append(length)
        if not server:
            lines.append(_SERVER_LINE)
        head = _checked_head(lines)
        # RFC 9110 §9.3.2: the answer to HEAD has no content.
        if bodiless or (self.request is not None and self.request.method == "HEAD"):
            return head
        return head + self._body


def _copied(headers: TwistedHeaders | Mapping[str, str | Sequence[str]] | None) -> Headers:
    if headers is None:
        return Headers()
    if isinstance(headers, TwistedHeaders):
        return Headers(dict(headers.getAllRawHeaders()))
    return Headers(fields_given(headers))


_SERVER_LINE = f"Server: {SERVER}\r\n".encode("ascii")


class _Fields:
    """llhttp calls this with each field."""

    __slots__ = ("fields",)

    def __init__(self) -> None:
        self.fields: dict[bytes, list[bytes]] = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        name = canonical_name(name)
        # RFC 9112 §5.1: llhttp leaves the optional whitespace after the value.
        value = value.rstrip(b" \t")
        if name in self.fields:
            self.fields[name].append(value)
        else:
            self.fields[name] = [value]


def _parse_fields(parser_type: Any, start_line: bytes, head: bytes, start: int, subject: str) -> Headers:
    # A start line of our own: llhttp knows a fixed set of methods, and lets through versions that we do not.
    collector = _Fields()
    if head.find(HEAD_END) != len(head) - 4:
        raise BadRequest(f"The {subject} is not valid HTTP")
    try:
        parser_type(collector).feed_data(start_line + head[start:])
    except HttpParserUpgrade:
        pass
    except HttpParserError:
        # The text of llhttp's error may quote the peer.
        raise BadRequest(f"The {subject} is not valid HTTP") from None
    return Headers.from_canonical(collector.fields)


def parse_request(head: bytes | UsualHead) -> Request:
    """Return a whole head, with its empty line, as a `Request` of any method.

    A later minor version of HTTP/1 counts as 1.1 (RFC 9110 §2.5).

    Raises:
        UnsupportedVersion: The request is of another major version.
        BadRequest: The head is not valid HTTP.
    """
    if isinstance(head, tuple):
        return Request("GET", head[0], "1.1", Headers.from_canonical(head[1]), False, NO_PARAMETERS)
    line = _RECEIVED_LINE.match(head)
    if line is None:
        raise BadRequest
    if line[3] != b"1":
        raise UnsupportedVersion
    if not (line[2].startswith(b"/") and line[1] != b"CONNECT") and not _fits(line[1], line[2]):
        raise BadRequest
    headers = _parse_fields(HttpRequestParser, b"GET / HTTP/1.1\r\n", head, line.end(), "request")
    version = "1.0" if line[4] == b"0" else "1.1"
    # All connections share this string: nearly every request has this method.
    method = "GET" if line[1] == b"GET" else line[1].decode("ascii")
    return Request(method, line[2].decode("ascii"), version, headers, False, NO_PARAMETERS)


def _fits(method: bytes, target: bytes) -> bool:
    # RFC 9112 §3.2.3, §3.2.4: the authority-form is for CONNECT alone, the asterisk-form for OPTIONS alone.
    if method == b"CONNECT":
        return _AUTHORITY_FORM.fullmatch(target) is not None
    return method == b"OPTIONS" if target == b"*" else _ABSOLUTE_FORM.match(target.decode("ascii")) is not None


def parse_response(head: bytes) -> Response:
    """Return a whole head, with its empty line, as a `Response` without its body. Raises `BadRequest`."""
    line = _STATUS_LINE.match(head)
    if line is None:
        raise BadRequest("The response is not valid HTTP")
    headers = _parse_fields(HttpResponseParser, b"HTTP/1.1 200 OK\r\n", head, line.end(), "response")
    version, status, reason = line.groups()
    response = Response(int(status), (reason or b"").decode("latin-1"), version=version.decode("ascii"))
    response.headers = headers
    return response
