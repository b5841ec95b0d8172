"""HTTP/1.1 at the service's page and at its chat: what RFC 9112 demands of a server, request by request.

Each row is a request as a client may send it, with the status of each answer and whether the connection stays. It runs
against the service in memory, whole and byte by byte, and over TCP. ``http.client`` reads the answers.
"""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from dataclasses import replace
from email.utils import parsedate_to_datetime
from http.client import HTTPMessage, HTTPResponse
from typing import Any, NamedTuple

import pytest
import pytest_twisted
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.internet.threads import deferToThread

from twisted_beastws.service import Options, makeService

from ..support.handshakes import UPGRADE_FIELDS
from ..support.loopback import listening
from ..support.patience import PATIENCE

pytestmark = pytest.mark.usefixtures("logged")

PATHS = (b"/", b"/chat")
# The answer to a plain GET there: the page, or a hint where it is.
PLAIN = {b"/": 200, b"/chat": 426}
# What another method gets there: the chat answers as Boost.Beast does.
OTHER = {b"/": 405, b"/chat": 400}

HOST = b"Host: localhost\r\n"
KEPT, CLOSED = "kept", "closed"


class Row(NamedTuple):
    """``PATH`` in the request stands for the path; a status ``PLAIN`` or ``OTHER`` for the usual status there."""

    request: bytes
    statuses: tuple[Any, ...]
    then: str = KEPT


def get(fields: bytes = HOST, line: bytes = b"GET PATH HTTP/1.1", behind: bytes = b"") -> bytes:
    return line + b"\r\n" + fields + b"\r\n" + behind


def ok(request: bytes, *, then: str = KEPT) -> Row:
    return Row(request, (PLAIN,), then)


def other(request: bytes, then: str = KEPT) -> Row:
    return Row(request, (OTHER,), then)


def bad(request: bytes, status: int = 400, then: str = CLOSED) -> Row:
    return Row(request, (status,), then)


def field(line: bytes) -> bytes:
    return get(HOST + line + b"\r\n")


ROWS: dict[str, Row] = {
    # RFC 9112 §2.2: message parsing.
    "a request": ok(get()),
    "one empty line before it": ok(b"\r\n" + get()),
    "ten empty lines before it": ok(b"\r\n" * 10 + get()),
    "eleven empty lines before it": bad(b"\r\n" * 11 + get()),
    "an empty line between two": Row(get() + b"\r\n" + get(), (PLAIN, PLAIN)),
    "an empty line that ends in LF": bad(b"\n" + get()),
    "an empty line that ends in CR": bad(b"\r" + get()),
    "lines that end in LF": bad(get().replace(b"\r\n", b"\n")),
    "a field that ends in LF": bad(get(b"Host: localhost\n")),
    "a CR in a value": bad(field(b"X: a\rb")),
    "a CR in the request line": bad(get(line=b"GET PATH\r HTTP/1.1")),
    "a NUL in a value": bad(field(b"X: a\0b")),
    "a NUL in the request line": bad(get(line=b"GET PATH\0 HTTP/1.1")),
    "whitespace before the first field": bad(get(b" Host: localhost\r\n")),
    "a TLS handshake": bad(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(300)),
    "an SSH greeting": bad(b"SSH-2.0-OpenSSH_9.9\r\n\r\n"),
    "a WebSocket frame": bad(b"\x81\x82\0\0\0\0hi"),
    # RFC 9112 §3: the request line.
    "no version": bad(get(line=b"GET PATH")),
    "no target": bad(get(line=b"GET HTTP/1.1")),
    "an empty target": bad(get(line=b"GET  HTTP/1.1")),
    "no method": bad(get(line=b"PATH HTTP/1.1")),
    "an empty method": bad(get(line=b" PATH HTTP/1.1")),
    "two spaces": bad(get(line=b"GET  PATH HTTP/1.1")),
    "a tab for a space": bad(get(line=b"GET\tPATH HTTP/1.1")),
    "a space behind the version": bad(get(line=b"GET PATH HTTP/1.1 ")),
    "a word behind the version": bad(get(line=b"GET PATH HTTP/1.1 x")),
    "a method that is no token": bad(get(line=b"G@T PATH HTTP/1.1")),
    "a method in another case": other(get(line=b"get PATH HTTP/1.1")),
    "a method that nobody knows": other(get(line=b"BREW PATH HTTP/1.1")),
    "a very long method": other(get(line=b"A" * 5000 + b" PATH HTTP/1.1")),
    **{f"the method {name}": other(get(line=name.encode() + b" PATH HTTP/1.1")) for name in (
        "DELETE", "OPTIONS", "PATCH", "POST", "PUT", "TRACE", "PROPFIND",
    )},
    "HEAD": ok(get(line=b"HEAD PATH HTTP/1.1")),
    # RFC 9110 §2.5, §15.6.6: versions.
    "HTTP/1.0": ok(get(line=b"GET PATH HTTP/1.0"), then=CLOSED),
    "HTTP/1.0 without Host": ok(get(b"", line=b"GET PATH HTTP/1.0"), then=CLOSED),
    "HTTP/1.0 that wants to be kept": ok(get(HOST + b"Connection: keep-alive\r\n", b"GET PATH HTTP/1.0"), then=CLOSED),
    "HTTP/1.2": ok(get(line=b"GET PATH HTTP/1.2")),
    "HTTP/0.9": bad(get(line=b"GET PATH HTTP/0.9"), 505),
    "HTTP/2.0": bad(get(line=b"GET PATH HTTP/2.0"), 505),
    "HTTP/9.9": bad(get(line=b"GET PATH HTTP/9.9"), 505),
    "the preface of HTTP/2": bad(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 505),
    "HTTP/1": bad(get(line=b"GET PATH HTTP/1")),
    "HTTP/11": bad(get(line=b"GET PATH HTTP/11")),
    "HTTP/1.10": bad(get(line=b"GET PATH HTTP/1.10")),
    "http/1.1": bad(get(line=b"GET PATH http/1.1")),
    "HTTPS/1.1": bad(get(line=b"GET PATH HTTPS/1.1")),
    # RFC 9112 §3.2: the target.
    "a query": ok(get(line=b"GET PATH?a=b&c HTTP/1.1")),
    "a fragment": bad(get(line=b"GET PATH#x HTTP/1.1")),
    "a space in the target": bad(get(line=b"GET PATH x HTTP/1.1")),
    "a backslash for a slash": bad(get(line=b"GET \\x HTTP/1.1")),
    "UTF-8 in the target": bad(get(line="GET PATHé HTTP/1.1".encode())),
    "DEL in the target": bad(get(line=b"GET PATH\x7f HTTP/1.1")),
    "absolute form": ok(get(line=b"GET http://localhostPATH HTTP/1.1")),
    "absolute form, another host": ok(get(line=b"GET http://example.com:8080PATH HTTP/1.1")),
    "absolute form, another scheme": ok(get(line=b"GET ws://localhostPATH HTTP/1.1")),
    "absolute form with a bad port": bad(get(line=b"GET http://localhost:99999PATH HTTP/1.1")),
    "absolute form with a user": bad(get(line=b"GET http://me@localhostPATH HTTP/1.1")),
    "absolute form without Host": bad(get(b"", line=b"GET http://localhostPATH HTTP/1.1"), then=KEPT),
    "asterisk form": Row(get(line=b"OPTIONS * HTTP/1.1"), (204,)),
    "asterisk form for GET": bad(get(line=b"GET * HTTP/1.1")),
    "authority form": Row(get(line=b"CONNECT localhost:80 HTTP/1.1"), (404,)),
    "authority form without a port": bad(get(line=b"CONNECT localhost HTTP/1.1")),
    "authority form for GET": bad(get(line=b"GET localhost:80 HTTP/1.1")),
    "origin form for CONNECT": bad(get(line=b"CONNECT PATH HTTP/1.1")),
    "another path": Row(get(line=b"GET /nowhere HTTP/1.1"), (404,)),
    "a path that climbs": Row(get(line=b"GET /../../etc/passwd HTTP/1.1"), (404,)),
    "an encoded slash": Row(get(line=b"GET /%2fchat HTTP/1.1"), (404,)),
    "a target too long": bad(get(line=b"GET PATH?" + b"x" * 20_000 + b" HTTP/1.1"), 414),
    # RFC 9112 §3.2: Host.
    "no Host": bad(get(b""), then=KEPT),
    "two Hosts": bad(get(HOST + b"Host: example.com\r\n"), then=KEPT),
    "one Host twice": bad(get(HOST + HOST), then=KEPT),
    "two Hosts in HTTP/1.0": bad(get(HOST + HOST, line=b"GET PATH HTTP/1.0")),
    "an empty Host": ok(get(b"Host:\r\n")),
    "a Host with a port": ok(get(b"Host: localhost:8080\r\n")),
    "a Host that is an IPv6 address": ok(get(b"Host: [::1]:8080\r\n")),
    "a Host with a port too large": bad(get(b"Host: localhost:65536\r\n")),
    "a Host with a port too long": bad(get(b"Host: localhost:" + b"8" * 5000 + b"\r\n")),
    "a Host with a path": bad(get(b"Host: localhost/chat\r\n")),
    "a Host with a user": bad(get(b"Host: me@localhost\r\n")),
    "a Host with a space": bad(get(b"Host: local host\r\n")),
    "two Hosts in one field": bad(get(b"Host: localhost, example.com\r\n")),
    # RFC 9112 §5: fields.
    "a space before the colon": bad(field(b"X : y")),
    "a space in a name": bad(field(b"X Y: z")),
    "an empty name": bad(field(b": y")),
    "no colon": bad(field(b"X")),
    "a name that is no token": bad(field(b"X(Y): z")),
    "UTF-8 in a name": bad(field("Ä: z".encode())),
    "a folded field": bad(field(b"X: y\r\n z")),
    "a field folded by a tab": bad(field(b"X: y\r\n\tz")),
    "a control character in a value": bad(field(b"X: a\x01b")),
    "DEL in a value": bad(field(b"X: a\x7fb")),
    "an empty value": ok(field(b"X:")),
    "a tab in a value": ok(field(b"X:\ta\tb\t")),
    "UTF-8 in a value": ok(field("X: Grüße".encode())),
    "names in another case": ok(get(b"hOST: localhost\r\n")),
    "a field twice": ok(field(b"X: y\r\nX: z")),
    "a field too long": bad(field(b"X: " + b"y" * 20_000), 431),
    "too many fields": bad(get(HOST + b"X: y\r\n" * 200), 431),
    "fields without end": bad(b"GET PATH HTTP/1.1\r\n" + b"X: y\r\n" * 5000, 431),
    # RFC 9112 §6: framing. Nothing of a body is read, so the connection cannot be kept after one.
    "Content-Length: 0": ok(field(b"Content-Length: 0")),
    "a body": ok(get(HOST + b"Content-Length: 5\r\n", behind=b"hello"), then=CLOSED),
    "a request in a body": ok(get(HOST + b"Content-Length: 39\r\n", behind=get(line=b"GET / HTTP/1.1")), then=CLOSED),
    "a body of a POST": other(get(HOST + b"Content-Length: 5\r\n", b"POST PATH HTTP/1.1", b"hello"), CLOSED),
    "a long body": other(get(HOST + b"Content-Length: 100000\r\n", b"POST PATH HTTP/1.1", bytes(100_000)), CLOSED),
    "two lengths": bad(field(b"Content-Length: 0\r\nContent-Length: 5")),
    "one length twice": bad(field(b"Content-Length: 5\r\nContent-Length: 5")),
    "two lengths in one field": bad(field(b"Content-Length: 5, 5")),
    "a negative length": bad(field(b"Content-Length: -5")),
    "a negative length that overflows": bad(field(b"Content-Length: -99999999999999999999999999")),
    "a length with a sign": bad(field(b"Content-Length: +5")),
    "a length that is no number": bad(field(b"Content-Length: abc")),
    "a length in hexadecimal": bad(field(b"Content-Length: 0x5")),
    "a length with a fraction": bad(field(b"Content-Length: 5.0")),
    "an empty length": bad(field(b"Content-Length:")),
    "a length that overflows": bad(field(b"Content-Length: 99999999999999999999999999")),
    "a length of 5000 digits": bad(field(b"Content-Length: " + b"9" * 5000)),
    "chunks": ok(get(HOST + b"Transfer-Encoding: chunked\r\n", behind=b"5\r\nhello\r\n0\r\n\r\n"), then=CLOSED),
    "a request in a chunk": ok(get(HOST + b"Transfer-Encoding: chunked\r\n", behind=b"27\r\n" + get()), then=CLOSED),
    "chunks with a length": bad(field(b"Transfer-Encoding: chunked\r\nContent-Length: 5")),
    "a length with chunks": bad(field(b"Content-Length: 5\r\nTransfer-Encoding: chunked")),
    "chunks in HTTP/1.0": ok(get(HOST + b"Transfer-Encoding: chunked\r\n", b"GET PATH HTTP/1.0"), then=CLOSED),
    "a coding that does not end in chunks": bad(field(b"Transfer-Encoding: gzip")),
    "a coding behind chunks": bad(field(b"Transfer-Encoding: chunked, gzip")),
    "a coding that nobody knows": bad(field(b"Transfer-Encoding: xchunked")),
    "no coding": bad(field(b"Transfer-Encoding: identity")),
    "an empty coding": bad(field(b"Transfer-Encoding:")),
    # RFC 9112 §9: the connection.
    "Connection: close": ok(field(b"Connection: close"), then=CLOSED),
    "Connection: Close in a list": ok(field(b"Connection: keep-alive, Close"), then=CLOSED),
    "Connection: close in a second field": ok(field(b"Connection: keep-alive\r\nConnection: close"), then=CLOSED),
    "Connection: keep-alive": ok(field(b"Connection: keep-alive")),
    "three requests": Row(get() * 3, (PLAIN, PLAIN, PLAIN)),
    "a request behind a last one": Row(field(b"Connection: close") + get(), (PLAIN,), CLOSED),
    "a request behind one that is none": Row(get() + b"\0" + get(), (PLAIN, 400), CLOSED),
    "kinds of requests": Row(
        get(line=b"HEAD PATH HTTP/1.1") + get(b"") + get(line=b"PUT PATH HTTP/1.1") + get(), (PLAIN, 400, OTHER, PLAIN)
    ),
    # RFC 9110 §7.8, §10.1.1: fields that a server may ignore.
    "an upgrade to something else": ok(field(b"Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AA")),
    "an upgrade without Connection": Row(get(HOST + b"Upgrade: h2c\r\n"), (PLAIN,)),
    "Expect: 100-continue": ok(field(b"Expect: 100-continue")),
    "Expect: 100-continue with a body": other(
        get(HOST + b"Expect: 100-continue\r\nContent-Length: 5\r\n", b"POST PATH HTTP/1.1"), CLOSED
    ),
    "another expectation": ok(field(b"Expect: the-unexpected")),
    "conditions and ranges": ok(field(b"If-None-Match: *\r\nRange: bytes=0-1")),
    # RFC 6455 §4.2.1: the handshake of the chat is no page's, and still is HTTP.
    "a version of the handshake that nobody speaks": Row(
        get(HOST + UPGRADE_FIELDS.replace(b"13", b"12"), b"GET /chat HTTP/1.1"), (426,)
    ),
    "a handshake with a body": bad(
        get(HOST + UPGRADE_FIELDS + b"Content-Length: 4\r\n", b"GET /chat HTTP/1.1", b"\x81\x80\0\0")
    ),
    "a handshake by POST": bad(get(HOST + UPGRADE_FIELDS, b"POST /chat HTTP/1.1"), then=KEPT),
    "a handshake in HTTP/1.0": bad(get(HOST + UPGRADE_FIELDS, b"GET /chat HTTP/1.0")),
    "a handshake of a foreign page": bad(
        get(HOST + UPGRADE_FIELDS + b"Origin: https://example.com\r\n", b"GET /chat HTTP/1.1"), 403, KEPT
    ),
}  # fmt: skip

EVERY = pytest.mark.parametrize("path", PATHS, ids=["page", "chat"])


def statuses(row: Row, path: bytes) -> list[int]:
    return [status[path] if isinstance(status, dict) else status for status in row.statuses]


class Answer(NamedTuple):
    status: int
    fields: HTTPMessage
    body: bytes


class Wire:
    """Bytes from a server, as ``http.client`` wants them."""

    def __init__(self, data: bytes) -> None:
        self.stream = io.BytesIO(data)

    def makefile(self, mode: str) -> Any:
        # Each answer would close it.
        stream = self.stream

        class Kept(io.BufferedIOBase):
            read, readline, readinto = stream.read, stream.readline, stream.readinto

        return Kept()


def answers(data: bytes, methods: Iterator[str]) -> list[Answer]:
    """The answers that a client reads, to the last byte."""
    wire, found = Wire(data), []
    while wire.stream.tell() < len(data):
        response = HTTPResponse(wire, method=next(methods))  # type: ignore[arg-type]
        response.begin()
        found.append(Answer(response.status, response.msg, response.read()))
    return found


def methods_of(request: bytes) -> Iterator[str]:
    """HEAD where an answer has no body."""
    for part in request.split(b"\r\n\r\n"):
        yield "HEAD" if part.startswith(b"HEAD ") else "GET"
    while True:
        yield "GET"


def check(answer: Answer, last: bool) -> None:
    """What holds for each answer, whatever it says."""
    fields, status = answer.fields, answer.status
    assert len(fields.get_all("Date", [])) == 1
    assert parsedate_to_datetime(fields["Date"]) is not None
    assert fields["Server"].startswith("twisted_beastws/")
    options = [option.strip().lower() for option in fields.get("Connection", "").split(",")]
    assert ("close" in options) is last
    if status == 204:
        assert "Content-Length" not in fields
    else:
        assert len(fields.get_all("Content-Length", [])) == 1
        assert fields["X-Content-Type-Options"] == "nosniff"
        assert fields["Content-Type"] in ("text/plain; charset=utf-8", "text/html; charset=utf-8")
    if status == 405:
        assert fields["Allow"] == "GET, HEAD"
    if status == 426:
        assert (fields["Upgrade"], fields["Sec-WebSocket-Version"]) == ("websocket", "13")
        assert "upgrade" in options


class Memory:
    """A connection to the service in memory."""

    def __init__(self, factory: Any) -> None:
        self.transport = StringTransport()
        self.protocol = factory.buildProtocol(None)
        self.protocol.makeConnection(self.transport)

    def exchange(self, request: bytes, size: int) -> tuple[bytes, bool]:
        """The server's answers, and whether it keeps the connection."""
        for at in range(0, len(request), size):
            self.protocol.dataReceived(request[at : at + size])
        data: bytes = self.transport.value()
        self.transport.clear()
        return data, not self.transport.disconnecting


@pytest.fixture(scope="module")
def factory() -> Any:
    """The service's, with a clock of the test's own."""
    options = Options()
    options.parseOptions(["--max-connections-per-address=0"])
    factory = makeService(options).factory
    factory.settings = replace(factory.settings, clock=Clock())
    return factory


@EVERY
@pytest.mark.parametrize("name", ROWS)
def test_each_request_is_answered_whole_and_byte_by_byte(factory: Any, name: str, path: bytes) -> None:
    row = ROWS[name]
    request = row.request.replace(b"PATH", path)
    whole, byte_by_byte = Memory(factory), Memory(factory)
    data, kept = whole.exchange(request, len(request))
    assert byte_by_byte.exchange(request, 1) == (data, kept)
    found = answers(data, methods_of(request))
    assert [answer.status for answer in found] == statuses(row, path)
    assert kept is (row.then == KEPT)
    for answer in found:
        check(answer, last=answer is found[-1] and not kept)
    again, _ = whole.exchange(get().replace(b"PATH", path), 1 << 16)
    assert [answer.status for answer in answers(again, methods_of(b""))] == [PLAIN[path]] * kept


def talk(port: int, request: bytes, closes: bool) -> bytes:
    """Send a request, then another if the connection is kept, and end our side: everything that the server says."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(request)
        if not closes:
            connection.shutdown(socket.SHUT_WR)
        data = b""
        while more := connection.recv(1 << 16):
            data += more
    return data


def talk_all(port: int) -> list[tuple[str, bytes, bytes]]:
    """The server's answer to each row: it closes by itself, or after the request of a client that ended its side."""
    said = []
    for name, row in ROWS.items():
        for path in PATHS:
            request = row.request.replace(b"PATH", path)
            if row.then == KEPT:
                # Kept: a last request is answered, too.
                request += get(HOST + b"Connection: close\r\n").replace(b"PATH", path)
            said.append((name, path, talk(port, request, row.then == CLOSED)))
    return said


@pytest_twisted.ensureDeferred
async def test_each_request_is_answered_over_tcp() -> None:
    options = Options()
    options.parseOptions(["--max-connections-per-address=0"])
    async with listening(makeService(options).factory) as port:
        said = await deferToThread(talk_all, port)
    for name, path, data in said:
        row = ROWS[name]
        expected = statuses(row, path) + [PLAIN[path]] * (row.then == KEPT)
        found = answers(data, methods_of(row.request))
        assert [answer.status for answer in found] == expected, (name, path)
        for answer in found:
            check(answer, last=answer is found[-1])


@pytest_twisted.ensureDeferred
async def test_half_a_request_gets_no_answer() -> None:
    options = Options()
    options.parseOptions([])
    async with listening(makeService(options).factory) as port:
        for request in (b"", b"G", b"\r\n", get().replace(b"PATH", b"/")[:-1], get().replace(b"PATH", b"/")[:-2]):
            assert await deferToThread(talk, port, request, False) == b""
