"""Fuzz HTTP: feed any bytes in any chunks to a server as requests, and to a client as a response."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from typing import Any

from engine import instrumented, run

with instrumented():
    from twisted.internet.defer import Deferred
    from twisted.internet.error import ConnectionDone
    from twisted.internet.task import Clock
    from twisted.internet.testing import StringTransport
    from twisted.python.failure import Failure

    from twisted_beastws import Deflate, Limits, Origins, State, WebSocketProtocol, WebSocketServerFactory
    from twisted_beastws.errors import HandshakeError
    from twisted_beastws.options import Settings
    from twisted_beastws.wire import dates, deflate, handshake, origin
    from twisted_beastws.wire.frames import MaskKeys
    from twisted_beastws.wire.head_buffer import MAX_EMPTY_LINES, HeadBuffer
    from twisted_beastws.wire.http import Request, Response, parse_request, parse_response

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
MAX_SIZE, MAX_LINES = 700, 12
ORIGINS = (Origins(), Origins(("https://example.org",), same_site=False, allow_null_origin_dangerously=True))
OPTIONS = (Deflate(), Deflate(server_max_window_bits=9, client_max_window_bits=10, server_no_context_takeover=True))
SUBPROTOCOLS = ["chat", "superchat"]


class Served(WebSocketProtocol):
    """A server's protocol that records unexpected errors of the opening handshake."""

    def __init__(self) -> None:
        self.faults: list[BaseException | None] = []

    def serve(self) -> None:
        Deferred.fromCoroutine(self._accept_all()).addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        self.faults.append(failure.value)

    async def _accept_all(self) -> None:
        while self.state is State.CONNECTING:
            with suppress(HandshakeError):
                await self.accept()

    def text_received(self, text: str) -> None:
        self.send(text)


def served(chunks: list[bytes], options: Deflate | None) -> tuple[bytes, State]:
    """Return the bytes that a server sends, and its state."""
    limits = Limits(max_head_size=MAX_SIZE, max_head_lines=MAX_LINES)
    factory = WebSocketServerFactory(
        Served, clock=Clock(), limits=limits, deflate=options, subprotocols=SUBPROTOCOLS, origins=ORIGINS[0]
    )
    protocol: Any = factory.buildProtocol(None)
    transport = StringTransport()
    protocol.makeConnection(transport)
    for chunk in chunks:
        protocol.dataReceived(chunk)
    assert not protocol.faults, protocol.faults
    return transport.value(), protocol.state


def answered(chunks: list[bytes], options: Deflate | None) -> tuple[str, bytes, State]:
    """Return how a client's handshake ends with this response, the bytes that it sends, and its state."""
    limits = Limits(max_head_size=MAX_SIZE, max_head_lines=MAX_LINES)
    client = WebSocketProtocol().as_client(Settings(clock=Clock(), limits=limits, deflate=options))
    protocol: Any = client
    transport = StringTransport()
    protocol.makeConnection(transport)
    ends: list[Any] = []
    client.handshake("localhost", subprotocols=SUBPROTOCOLS).addBoth(ends.append)
    for chunk in chunks:
        protocol.dataReceived(chunk)
    state = client.state
    client.connectionLost(Failure(ConnectionDone()))
    (end,) = ends
    if isinstance(end, Failure):
        assert isinstance(end.value, (HandshakeError, ConnectionDone)), end
        return repr(end.value), transport.value(), state
    return "", transport.value(), state


def heads(chunks: list[bytes]) -> tuple[list[bytes], str, bytes]:
    """Return the heads found, the error that ended the search, and the remaining bytes."""
    buffer, found = HeadBuffer(MAX_SIZE, MAX_LINES, "request", MAX_EMPTY_LINES), []
    try:
        for chunk in chunks:
            buffer.feed(chunk)
            while (head := buffer.take()) is not None:
                found.append(head)
    except HandshakeError as error:
        return found, repr(error), b""
    return found, "", buffer.rest()


def check_request(head: bytes) -> None:
    request = parse_request(head)
    again = parse_request(request.to_bytes())
    assert again == request, (again, request)
    assert request.path and "?" not in request.path
    for origins in ORIGINS:
        with suppress(HandshakeError):
            origin.check_origin(request, origins)
    offers = request.headers.getRawHeaders(b"Sec-WebSocket-Extensions", ())
    try:
        handshake.check_request(request)
        for options in OPTIONS:
            check_agreement(request, options, deflate.accept_offer(offers, options))
    except HandshakeError as error:
        refusal = parse_response(head_of(handshake.failure(error, request)))
        assert refusal.status == error.status >= 400
    else:
        assert handshake.is_upgrade(request)


def check_agreement(request: Request, options: Deflate, agreed: deflate.Negotiated | None) -> None:
    subprotocol = handshake.select_subprotocol(request, SUBPROTOCOLS)
    answer = handshake.success(request, subprotocol, None if agreed is None else agreed.answer)
    response = parse_response(head_of(answer))
    key = request.field("Sec-WebSocket-Key")
    assert key is not None
    assert handshake.check_response(response, key, SUBPROTOCOLS, extensions=True) == subprotocol
    if agreed is not None:
        assert 9 <= agreed.server_max_window_bits <= options.server_max_window_bits
        assert 9 <= agreed.client_max_window_bits <= options.client_max_window_bits


def head_of(response: Response) -> bytes:
    head, end, body = response.to_bytes().partition(b"\r\n\r\n")
    assert body == response.body
    return head + end


def check_response(head: bytes) -> None:
    response = parse_response(head)
    again = parse_response(head_of(response))
    assert (again.status, again.reason) == (response.status, response.reason)
    handshake.check_response(response, KEY, SUBPROTOCOLS, extensions=True)
    for options in (None, *OPTIONS):
        with suppress(HandshakeError):
            agreed = deflate.check_answer(response.headers.getRawHeaders(b"Sec-WebSocket-Extensions", ()), options)
            if agreed is not None and options is not None:
                assert 9 <= agreed.client_max_window_bits <= options.client_max_window_bits


def check(data: bytes) -> None:
    """Check one input; its first bytes say where the rest is cut into chunks."""
    count = 1 + (data[0] & 7) if data else 1
    cuts, wire = data[1:count], data[count:]
    places = sorted({0, *(cut * 3 for cut in cuts if cut * 3 < len(wire)), len(wire)})
    chunks = [wire[start:end] for start, end in pairwise(places)]
    found = heads([wire])
    assert heads(chunks) == found, (heads(chunks), found)
    for head in found[0]:
        for judge in (check_request, check_response):
            with suppress(HandshakeError):
                judge(head)
    for options in (None, OPTIONS[1]):
        assert served(chunks, options) == served([wire], options)
        assert answered(chunks, options) == answered([wire], options)


handshake.make_key = lambda: KEY
# Fix the time, so that two runs of one input send the same Date field.
dates.time = lambda: 0.0
MaskKeys.next = lambda self: b"mask"  # type: ignore[method-assign]


if __name__ == "__main__":
    run(check)
