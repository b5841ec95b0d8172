"""The client's opening handshake (RFC 6455 §4.1): it sends a request and judges the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httptools
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from twisted_beastws.connection.accepted import Accepted
from twisted_beastws.connection.operation import HandshakeHost, Operation
from twisted_beastws.errors import BadRequest, DecoratorError, UpgradeDeclined
from twisted_beastws.options import Decorator
from twisted_beastws.wire import deflate, handshake
from twisted_beastws.wire.http import Request, Response, parse_response

MAX_BODY = 1 << 16
"""Bytes kept of the body of an answer that declines: 64 KiB. The rest is not read."""

MAX_INTERIM = 8
"""The number of interim (1xx) answers that may come before the final one."""


class _Body:
    """Gathers a body as llhttp finds it, chunked or not."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.complete = False

    def on_message_begin(self) -> None:
        # RFC 9112 §9.2: data without an outstanding request is no response.
        if self.complete:
            raise BadRequest("The server sent more answers than there were requests")

    def on_body(self, part: bytes) -> None:
        self.content += part

    def on_message_complete(self) -> None:
        self.complete = True

    @property
    def enough(self) -> bool:
        return self.complete or len(self.content) > MAX_BODY


class ClientHandshake(Operation):
    """Sends a request and validates the answer, which may become an `Accepted`."""

    __slots__ = ("_declined", "_keep")

    def __init__(self, host: HandshakeHost) -> None:
        super().__init__(host, "response")
        self._declined: Response | None = None
        self._keep = False

    def handshake(
        self, host: str, target: str, decorator: Decorator | None, subprotocols: Sequence[str]
    ) -> Deferred[Response]:
        """Ask for the upgrade."""
        return self.operate(self._handshake(host, target, decorator, subprotocols))

    def lost(self, failure: Failure) -> None:
        """End the running handshake: with UpgradeDeclined and the part of the response that arrived, or ``failure``."""
        if self._declined is not None and not failure.check(CancelledError):
            failure = Failure(UpgradeDeclined(self._declined))
        super().lost(failure)

    async def _handshake(
        self, host_field: str, target: str, decorator: Decorator | None, subprotocols: Sequence[str]
    ) -> Accepted:
        host, options = self._host, self._host.settings.deflate
        key, extensions = handshake.make_key(), None if options is None else deflate.offer(options)
        request = handshake.client_request(host_field, target, key, subprotocols, extensions)
        decorator = decorator or host.settings.decorator
        if decorator is not None:
            await self.settled(decorator(request))
            _check_decorated(request, key, extensions)
        head = request.to_bytes()
        self.request = request
        self._keep = False
        host.liveness.expect(host.settings.timeouts.handshake)
        host.outgoing.write_admitted(head)
        try:
            head, response = await self._final_response()
            if response.status != 101:
                await self._read_body(head, response)
                raise UpgradeDeclined(response)
            subprotocol = handshake.check_response(response, key, _offered(request), extensions=options is not None)
            answered = response.headers.getRawHeaders(b"Sec-WebSocket-Extensions", ())
            agreed = deflate.check_answer(answered, options)
        except Exception:
            self._declined = None
            if not self._keep:
                host.tear_down()
            raise
        return Accepted(request, response, None, subprotocol, agreed, self.rest())

    def _outcome(self, accepted: Accepted) -> Response:
        return accepted.response

    async def _final_response(self) -> tuple[bytes, Response]:
        for _ in range(MAX_INTERIM + 1):
            head = await self.next_head()
            response = parse_response(head)
            # RFC 9110 §15.2: interim answers may come before the final one.
            if response.status >= 200 or response.status == 101:
                return head, response
        raise BadRequest("The server sent interim responses without end")

    async def _read_body(self, head: bytes, response: Response) -> None:
        """Read the answer's body. The connection is kept if HTTP keeps it and the body is complete."""
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
                response.body = bytes(body.content[:MAX_BODY])
            if body.enough:
                break
            if not self._head.buffer:
                await self.more()
            data = self.rest()
        self._keep = body.complete and response.keep_alive and not self._head.buffer


def _check_decorated(request: Request, key: str, extensions: str | None) -> None:
    """Raise `DecoratorError` if a decorator changed a part of the request by which the answer is judged."""
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
    """Return the subprotocols that the request offers, including those that a decorator added."""
    fields = request.headers.getRawHeaders("Sec-WebSocket-Protocol", ())
    return [name.strip() for field in fields for name in field.split(",")]
