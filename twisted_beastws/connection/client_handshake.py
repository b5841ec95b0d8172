"""The client's opening handshake (RFC 6455 §4.1): a request out, its answer in, whole where it declines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import httptools
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from twisted_beastws.connection.operation import Operation
from twisted_beastws.errors import BadRequest, DecoratorError, UpgradeDeclined
from twisted_beastws.options import Decorator
from twisted_beastws.wire import deflate, handshake
from twisted_beastws.wire.http import Request, Response, parse_response

if TYPE_CHECKING:
    from twisted_beastws.connection.connection import Connection

MAX_BODY = 1 << 16
"""Octets kept of the body of an answer that declines, 64 KiB; what is behind them is not read."""

MAX_INTERIM = 8
"""Interim (1xx) answers put up with before the final one."""


class _Body:
    """Gathers a body as llhttp finds it, chunked or not."""

    def __init__(self) -> None:
        self.octets = bytearray()
        self.complete = False

    def on_message_begin(self) -> None:
        # RFC 9112 §9.3.2: what stands behind the answer is another one, to nothing that was asked.
        if self.complete:
            raise BadRequest("The server sent an answer too many")

    def on_body(self, part: bytes) -> None:
        self.octets += part

    def on_message_complete(self) -> None:
        self.complete = True

    @property
    def enough(self) -> bool:
        return self.complete or len(self.octets) > MAX_BODY


class ClientOpening(Operation):
    """Sends a request and judges its answer; gone once the connection is open."""

    __slots__ = ("_declined", "_keep")

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, "response")
        self._declined: Response | None = None
        self._keep = False

    def handshake(
        self, host: str, target: str, decorator: Decorator | None, subprotocols: Sequence[str]
    ) -> Deferred[Response]:
        """Ask for the upgrade."""
        return self.operate(self._handshake(host, target, decorator, subprotocols))

    def lost(self, failure: Failure) -> None:
        """End what is under way: an answer that declined is told as far as it came, else ``failure``."""
        if self._declined is not None and not failure.check(CancelledError):
            failure = Failure(UpgradeDeclined(self._declined))
        super().lost(failure)

    async def _handshake(
        self, host: str, target: str, decorator: Decorator | None, subprotocols: Sequence[str]
    ) -> Response:
        connection, options = self._connection, self._connection.settings.deflate
        key, extensions = handshake.make_key(), None if options is None else deflate.offer(options)
        request = handshake.client_request(host, target, key, subprotocols, extensions)
        decorator = decorator or connection.settings.decorator
        if decorator is not None:
            await self.settled(decorator(request))
            _check_decorated(request, key, extensions)
        octets = request.to_bytes()
        connection.request, self._keep = request, False
        connection.expect_handshake()
        connection.outgoing.write(octets)
        try:
            head, response = await self._final_response()
            if response.status != 101:
                await self._read_body(head, response)
                raise UpgradeDeclined(response)
            subprotocol = handshake.check_response(response, key, _offered(request), extensions=options is not None)
            answered = response.headers.getRawHeaders(b"Sec-WebSocket-Extensions", ())
            connection.subprotocol, connection.deflate = subprotocol, deflate.check_answer(answered, options)
        except Exception:
            self._declined = None
            if not self._keep:
                connection.tear_down()
            raise
        connection.upgraded(request, response)
        return response

    async def _final_response(self) -> tuple[bytes, Response]:
        for _ in range(MAX_INTERIM + 1):
            head = await self.next_head()
            response = parse_response(head)
            # RFC 9110 §15.2: interim answers may come before the final one.
            if response.status >= 200 or response.status == 101:
                return head, response
        raise BadRequest("The server sent interim responses without end")

    async def _read_body(self, head: bytes, response: Response) -> None:
        """Read the answer's body as far as it goes; the connection is kept where HTTP keeps it and the body ended."""
        self._declined = response
        body = _Body()
        parser: Any = httptools.HttpResponseParser(body)
        data = head
        while True:
            try:
                parser.feed_data(data)
            except httptools.HttpParserError:
                return
            finally:
                response.body = bytes(body.octets[:MAX_BODY])
            if body.enough:
                break
            if not len(self._head):
                await self.more()
            data = self.rest()
        self._keep = body.complete and response.keep_alive and not len(self._head)


def _check_decorated(request: Request, key: str, extensions: str | None) -> None:
    """Raise `DecoratorError` if a decorator made of the request another than the one whose answer is judged."""
    if (request.method, request.version) != ("GET", "1.1"):
        raise DecoratorError("the decorator changed the request's method or version")
    expected = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": key,
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Extensions": extensions,
        "Content-Length": None,
        "Transfer-Encoding": None,
    }
    for name, value in expected.items():
        if request.headers.getRawHeaders(name) != (None if value is None else [value]):
            raise DecoratorError(f"the decorator changed the request's {name} field")


def _offered(request: Request) -> list[str]:
    """The subprotocols that the request offers, be it a decorator's doing."""
    fields = request.headers.getRawHeaders("Sec-WebSocket-Protocol", ())
    return [name.strip() for field in fields for name in field.split(",")]
