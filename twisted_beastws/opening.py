"""The server's opening handshake on a Twisted transport (RFC 6455 §4.2): requests in, answers out, until one
upgrades."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_beastws.errors import (
    BadRequest,
    DecoratorError,
    HandshakeError,
    HeadTooLarge,
    HookFailed,
    LocalError,
    UpgradeDeclined,
)
from twisted_beastws.options import Decorator
from twisted_beastws.wire import handshake
from twisted_beastws.wire.http import HeadBuffer, Request, Response, parse_request

if TYPE_CHECKING:
    from twisted_beastws.protocol import WebSocketProtocol

log = Logger()
T = TypeVar("T")


async def settled(result: T | Awaitable[T]) -> T:
    """What a hook returned, when it is there: a value, a Deferred's result or a coroutine's."""
    if isinstance(result, Deferred) or hasattr(result, "__await__"):
        return await result
    return result


class Opening:
    """Reads requests and answers them, one operation at a time; gone once the connection is open.

    Octets behind a request wait here, in order, for the next operation or the session; above ``Limits.max_head_size``
    of them the transport is paused.
    """

    __slots__ = ("_coroutine", "_head", "_operation", "_paused", "_protocol", "_reader", "_request")

    def __init__(self, protocol: WebSocketProtocol) -> None:
        limits = protocol.settings.limits
        self._protocol = protocol
        self._head = HeadBuffer(limits.max_head_size, limits.max_head_lines)
        self._reader: Deferred[None] | None = None
        self._operation: Deferred[Any] | None = None
        self._coroutine: Deferred[Any] | None = None
        self._request: Request | None = None
        self._paused = False

    # What the protocol calls.

    def data_received(self, data: bytes) -> None:
        """Take octets from the transport."""
        self._head.feed(data)
        reader = self._reader
        if reader is not None:
            self._reader = None
            reader.callback(None)
        self._hold_back()

    def rest(self) -> bytes:
        """The octets behind the last request, which leave."""
        return self._head.rest()

    def lost(self, failure: Failure) -> None:
        """End what is under way with ``failure``."""
        operation, self._operation = self._operation, None
        coroutine, self._coroutine = self._coroutine, None
        self._reader = None
        if operation is not None and not operation.called:
            operation.errback(failure)
        if coroutine is not None:
            coroutine.cancel()

    def read_request(self) -> Deferred[Request]:
        """The next request's head."""
        return self._operate(self._read_request())

    def respond(self, response: Response) -> Deferred[None]:
        """Answer the request read last."""
        return self._operate(self._respond(response))

    def accept(
        self, request: Request | None, buffered: bytes, decorator: Decorator | None, subprotocols: Sequence[str]
    ) -> Deferred[Request]:
        """Answer ``request``, or the next one that comes, by the WebSocket handshake."""
        return self._operate(self._accept(request, buffered, decorator, subprotocols))

    # One operation at a time; its Deferred fires once, whatever happens.

    def _operate(self, coroutine: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        if self._operation is not None:
            coroutine.close()
            raise LocalError("one operation of the opening handshake at a time: another is not done")
        operation: Deferred[T] = Deferred(lambda _: self._protocol.abort())
        self._operation = operation
        running = self._coroutine = Deferred.fromCoroutine(coroutine)
        running.addBoth(self._operated, operation)
        return operation

    def _operated(self, result: Any, operation: Deferred[Any]) -> None:
        if self._operation is operation:
            self._operation = self._coroutine = None
            if isinstance(result, Failure):
                operation.errback(result)
            else:
                operation.callback(result)
            self._protocol.opening_settled()

    def _hold_back(self) -> None:
        full = self._reader is None and len(self._head) > self._protocol.settings.limits.max_head_size
        if full != self._paused:
            self._paused = full
            self._protocol.hold_reading(full)

    async def _next_request(self) -> Request:
        self._protocol.expect_request()
        while (head := self._head.take()) is None:
            self._reader = Deferred()
            self._hold_back()
            await self._reader
        self._request = parse_request(head)
        return self._request

    async def _read_request(self) -> Request:
        self._request = None
        try:
            return await self._next_request()
        except (BadRequest, HeadTooLarge) as error:
            # RFC 9112 §2.2 and RFC 6585 §5, where Beast sends nothing.
            await self._send(handshake.failure(error, None), self._protocol.settings.decorator)
            raise

    async def _respond(self, response: Response) -> None:
        if self._request is None:
            raise LocalError("respond() answers a request: there is none, or it is answered")
        response.request = self._request
        await self._send(response, self._protocol.settings.decorator)

    async def _accept(
        self, request: Request | None, buffered: bytes, decorator: Decorator | None, subprotocols: Sequence[str]
    ) -> Request:
        if buffered:
            self._head.feed(buffered)
        if request is None:
            request = await self._read_request()
        self._request = request
        decorator = decorator or self._protocol.settings.decorator
        try:
            response = await self._judge(request, subprotocols or self._protocol.settings.subprotocols)
        except HandshakeError as error:
            await self._send(handshake.failure(error, request), decorator)
            raise
        response.request = request
        if response.status == 101:
            response = await self._decorated_upgrade(response, decorator)
        elif decorator is not None:
            response = await self._decorated(response, decorator)
        if response.status == 101:
            self._protocol.upgraded(request, response)
            return request
        await self._send(response, None)
        raise UpgradeDeclined(response)

    async def _judge(self, request: Request, subprotocols: Sequence[str]) -> Response:
        protocol = self._protocol
        protocol.request = request
        answer = await self._ask(protocol.http_requested, request)
        if answer is not None:
            return answer
        handshake.check_request(request)
        handshake.check_origin(request, protocol.settings.origins)
        protocol.admit()
        protocol.subprotocol = handshake.select_subprotocol(request, subprotocols)
        answer = await self._ask(protocol.upgrade_requested, request)
        if answer is not None:
            return answer
        return handshake.success(request, protocol.subprotocol)

    async def _ask(self, hook: Callable[[Request], Any], request: Request) -> Response | None:
        try:
            answer = await settled(hook(request))
            if answer is not None and (not isinstance(answer, Response) or answer.status == 101):
                raise TypeError(
                    f"{hook.__qualname__} returned {answer!r}: None or a Response other than 101 is what it may"
                )
        except Exception as error:
            log.failure("{hook} failed; the handshake is answered 500", hook=hook.__qualname__)
            raise HookFailed from error
        return answer

    async def _decorated_upgrade(self, response: Response, decorator: Decorator | None) -> Response:
        if decorator is None:
            return response
        accept = response.field("Sec-WebSocket-Accept")
        response = await self._decorated(response, decorator)
        if response.status != 101:
            for name in ("Upgrade", "Connection", "Sec-WebSocket-Accept"):
                response.headers.removeHeader(name)
        else:
            try:
                handshake.check_decorated(response, accept)
            except DecoratorError as error:
                log.failure("the decorator broke the handshake; it is answered 500")
                failed = HookFailed()
                failed.__cause__ = error
                await self._send(handshake.failure(failed, response.request), None)
                raise
        return response

    async def _decorated(self, response: Response, decorator: Decorator) -> Response:
        try:
            await settled(decorator(response))
        except Exception as error:
            log.failure("the decorator failed; the handshake is answered 500")
            failed = HookFailed()
            await self._send(handshake.failure(failed, response.request), None)
            raise failed from error
        return response

    async def _send(self, response: Response, decorator: Decorator | None) -> None:
        """Send an answer that does not upgrade; close behind it where HTTP does not keep the connection."""
        request, self._request = self._request, None
        response.request = request
        if decorator is not None:
            response = await self._decorated(response, decorator)
        # RFC 9112 §9.3: kept unless either side says otherwise; behind a body we do not read, nothing could be found.
        keep = request is not None and request.keep_alive and not request.has_body and response.keep_alive
        if not keep:
            response.headers.setRawHeaders("Connection", ["close"])
        self._protocol.outgoing.write(response.to_bytes())
        if not keep:
            self._protocol.tear_down()
            return
        self._protocol.expect_request()
        await self._protocol.outgoing.drain()
