"""An argument of the wrong kind is refused at once, in one line that says which value to give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from twisted_beastws import (
    Headers,
    Hub,
    Response,
    WebSocketClientEndpoint,
    WebSocketProtocol,
    WebSocketServerFactory,
    connect,
)
from twisted_beastws.options import Settings

pytestmark = pytest.mark.usefixtures("logged")

REACTOR = MemoryReactorClock()


async def coroutine(ws: Any) -> None: ...


def generator(response: Any) -> Any:
    yield response


async def async_generator(response: Any) -> Any:
    yield response


class Waiting(WebSocketProtocol):
    def serve(self) -> None: ...


def server() -> Waiting:
    built: Any = WebSocketServerFactory(Waiting, clock=Clock()).buildProtocol(None)
    built.makeConnection(StringTransport())
    protocol: Waiting = built
    return protocol


def client() -> WebSocketProtocol:
    protocol = WebSocketProtocol().as_client(Settings(clock=Clock()))
    protocol.makeConnection(StringTransport())
    return protocol


def url(**options: Any) -> Any:
    return connect("wss://example.com/", reactor=REACTOR, **options)


CASES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "accept subprotocols": (
        lambda: server().accept(subprotocols="chat"),
        TypeError,
        "='chat': give a list",
    ),
    "accept names": (lambda: server().accept(subprotocols=["a b"]), ValueError, "'a b' is no name"),
    "accept decorator": (lambda: server().accept(decorator=5), TypeError, "decorator: give a function"),  # type: ignore[arg-type]
    "accept generator": (lambda: server().accept(decorator=generator), TypeError, "is a generator function"),
    "accept request": (lambda: server().accept(b"GET / HTTP/1.1"), TypeError, "are accept(buffered=...)"),  # type: ignore[arg-type]
    "accept buffered": (lambda: server().accept(buffered="GET"), TypeError, "buffered=...): give bytes, not str"),  # type: ignore[arg-type]
    "handshake subprotocols": (lambda: client().handshake("h", subprotocols="chat"), TypeError, "give a list of names"),
    "handshake names": (lambda: client().handshake("h", subprotocols=[""]), ValueError, "'' is no name"),
    "handshake decorator": (
        lambda: client().handshake("h", decorator=async_generator),
        TypeError,
        "generator function",
    ),
    "handshake space": (lambda: client().handshake("a b"), ValueError, "handshake('a b'): give the Host field"),
    "handshake url": (lambda: client().handshake("ws://h/"), ValueError, "such as example.com or [::1]:8080"),
    "handshake user": (lambda: client().handshake("user@h"), ValueError, "give the Host field"),
    "handshake port": (lambda: client().handshake("h:99999"), ValueError, "give the Host field"),
    "handshake empty": (lambda: client().handshake(""), ValueError, "give the Host field"),
    "handshake bytes": (lambda: client().handshake(b"h"), TypeError, "give both as str"),  # type: ignore[arg-type]
    "headers text": (
        lambda: Headers({"X": "text"}),
        TypeError,
        "field 'X': give its values as a list",
    ),
    "headers bytes": (lambda: Headers({b"X": b"text"}), TypeError, "such as [b'text'], not bytes"),  # type: ignore[misc]
    "header set": (lambda: Headers().setRawHeaders("X", "text"), TypeError, "give its values as a list"),
    "tls": (lambda: url(tls=True), TypeError, "not a value of type bool: wss: in the URL asks for TLS"),
    "tls text": (lambda: url(tls="certificate.pem"), TypeError, "tls: give optionsForClientTLS(host, ...)"),
    "protocol": (lambda: url(protocol=coroutine), TypeError, "goes on behind ws = await connect(url)"),
    "protocol instance": (lambda: url(protocol=WebSocketProtocol()), TypeError, "give a subclass of WebSocketProtocol"),
    "reactor first": (lambda: connect(REACTOR, "ws://h/"), TypeError, "write connect(url, reactor=reactor)"),  # type: ignore[call-overload]
    "endpoint swapped": (lambda: WebSocketClientEndpoint("ws://h/", REACTOR), TypeError, "url: give a URL as str"),  # type: ignore[arg-type]
    "status 99": (lambda: Response(99), ValueError, "status=99: give a number from 100 to 999"),
    "status 1000": (lambda: Response(1000), ValueError, "status=1000: give a number from 100 to 999"),
    "factory generator": (
        lambda: WebSocketServerFactory(Waiting, decorator=generator),
        TypeError,
        "whose body would never run",
    ),
    "client generator": (
        lambda: WebSocketClientEndpoint(REACTOR, "ws://h/", decorator=generator),
        TypeError,
        "use await in it instead of yield (async def), or put @inlineCallbacks over it",
    ),
    "hub backplane": (lambda: Hub("redis://host"), TypeError, "RedisBackplane(url), not a value of type str"),  # type: ignore[arg-type]
    "hub max_buffered": (lambda: Hub(max_buffered="5"), TypeError, "max_buffered='5'): give a number of bytes"),  # type: ignore[arg-type]
    "hub max_buffered float": (lambda: Hub(max_buffered=5.5), TypeError, "max_buffered=5.5): give a number"),  # type: ignore[arg-type]
    "join swapped": (lambda: Hub().join("room", server()), TypeError, "give an open WebSocketProtocol first"),  # type: ignore[arg-type]
    "join room": (lambda: Hub().join(server(), b"room"), TypeError, "room: give its name as str"),  # type: ignore[arg-type]
    "join name": (lambda: Hub().join(server(), "room", name=5), TypeError, "join(name=5): give str, or None"),  # type: ignore[arg-type]
    "join after": (lambda: Hub().join(server(), "room", after=5), TypeError, "join(after=5): give str, or None"),  # type: ignore[arg-type]
    "join render": (lambda: Hub().join(server(), "room", render="x"), TypeError, "join(render='x'): give a function"),  # type: ignore[arg-type]
    "publish room": (
        lambda: Hub().publish(5, "message"),  # type: ignore[arg-type]
        TypeError,
        "room: give its name as str",
    ),
    "publish message": (lambda: Hub().publish("room", 5), TypeError, "publish() takes str or bytes, not int"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_argument_is_refused_in_one_line(case: str) -> None:
    call, kind, text = CASES[case]
    with pytest.raises(kind) as caught:
        result = call()
        # `handshake()` reports an invalid host by failing its Deferred, as it does for an invalid target.
        if isinstance(result, Deferred):
            failures: list[Failure] = []
            result.addErrback(failures.append)
            failures[0].raiseException()
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("status", [100, 999])
def test_a_status_of_three_digits_is_accepted(status: int) -> None:
    assert Response(status).status == status


@pytest.mark.parametrize("host", ["example.com", "example.com:80", "[::1]", "[::1]:8080", "192.0.2.1:65535", "h:"])
def test_a_valid_host_field_is_accepted(host: str) -> None:
    protocol = client()
    protocol.handshake(host)
    transport: Any = protocol.transport
    assert f"\r\nHost: {host}\r\n".encode() in transport.below.value()


def test_names_may_come_from_any_iterable() -> None:
    protocol = client()
    protocol.handshake("h", subprotocols=(name for name in ("a", "b")))  # type: ignore[arg-type]
    transport: Any = protocol.transport
    assert b"\r\nSec-WebSocket-Protocol: a, b\r\n" in transport.below.value()
