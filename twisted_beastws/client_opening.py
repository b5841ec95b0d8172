"""The client's opening handshake (RFC 6455 §4.1): a request out, its answer in, whole where it declines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import httptools
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twisted_beastws.errors import BadRequest, DecoratorError, UpgradeDeclined
from twisted_beastws.operation import Operation
from twisted_beastws.options import Decorator
from twisted_beastws.wire import handshake
from twisted_beastws.wire.http import Request, Response, parse_response

if TYPE_CHECKING:
    from twisted_beastws.protocol import WebSocketProtocol

MAX_BODY = 1 << 16
"""Octets kept of the body of an answer that declines, 64 KiB; what is behind them is not read."""

MAX_INTERIM = 8
"""Interim (1xx) answers put up with before the final one."""


class _Body:
    """Gathers a body as llhttp finds it, chunked or not."""

    def __init__(self) -> None:
        self.octets = bytearray()
        self.complete = False

    def on_body(self, part: bytes) -> None:
        self.octets += part

    def on_message_complete(self) -> None:
        self.complete = True


class ClientOpening(Operation):
    """Sends a request and judges its answer; gone once the connection is open."""

    __slots__ = ("_declined", "_keep")

    def __init__(self, protocol: WebSocketProtocol) -> None:
        super().__init__(protocol, "response")
        self._declined: Response | None = None
        self._keep = False

    def handshake(
        self, host: str, target: str, decorator: Decorator | None, subprotocols: Sequence[str]
    ) -> Deferred[Response]:
        """Ask for the upgrade."""
        return self.operate(self._handshake(host, target, decorator, subprotocols))

    def lost(self, failure: Failure) -> None:
        """End what is under way: an answer that declined is told as far as it came, else ``failure``."""
        if self._declined is not None:
            failure = Failure(UpgradeDeclined(self._declined))
        super().lost(failure)

    async def _handshake(
        self, host: str, target: str, decorator: Decorator | None, subprotocols: Sequence[str]
    ) -> Response:
        protocol = self._protocol
        key = handshake.make_key()
        request = handshake.client_request(host, target, key, subprotocols)
        decorator = decorator or protocol.settings.decorator
        if decorator is not None:
            await self.settled(decorator(request))
            _check_decorated(request, key)
        protocol.request = request
        protocol.expect_handshake()
        protocol.outgoing.write(request.to_bytes())
        try:
            head, response = await self._final_response()
            if response.status != 101:
                await self._read_body(head, response)
                raise UpgradeDeclined(response)
            protocol.subprotocol = handshake.check_response(response, key, subprotocols)
        except Exception:
            self._declined = None
            if not self._keep:
                protocol.tear_down()
            raise
        protocol.upgraded(request, response)
        return response

    async def _final_response(self) -> tuple[bytes, Response]:
        for _ in range(MAX_INTERIM):
            head = await self.next_head()
            response = parse_response(head)
            # RFC 9110 §15.2: interim answers may come before the final one.
            if response.status >= 200 or response.status == 101:
                return head, response
        raise BadRequest("The server sent interim responses without end")

    async def _read_body(self, head: bytes, response: Response) -> None:
        """Read the answer's body as far as it goes; the connection is kept where HTTP keeps it and the body ended."""
        self._declined, self._keep = response, False
        body = _Body()
        parser: Any = httptools.HttpResponseParser(body)
        data = head
        while not body.complete and len(body.octets) <= MAX_BODY:
            try:
                parser.feed_data(data)
            except httptools.HttpParserError:
                return
            response.body = bytes(body.octets[:MAX_BODY])
            if not body.complete and not len(self._head):
                await self.more()
            data = self.rest()
        self._keep = body.complete and response.keep_alive and not data


def _check_decorated(request: Request, key: str) -> None:
    expected = (("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Key", key))
    for name, value in (*expected, ("Sec-WebSocket-Version", "13")):
        if request.headers.getRawHeaders(name) != [value]:
            raise DecoratorError(f"the decorator changed the request's {name} field")
